//! Label keys: which labels of a series a key holds.
//!
//! Keys are in the canonical form of [`Labels::as_bytes`]; leaving labels out of a canonical key
//! leaves a canonical key, so keys are rewritten without building label sets.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result, exec_datafusion_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use promontory_tsdb::labels::put_pair;
use promontory_tsdb::{Labels, METRIC_NAME};

use crate::logical::spec::{Grouping, KeyOutput};

/// Labels that go where a metric name goes: the name, and the type and unit that a metric may carry as labels.
///
/// Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/schema/labels.go> (`IsMetadataLabel`)
pub const METADATA_LABELS: [&str; 3] = [METRIC_NAME, "__type__", "__unit__"];

/// Whether `name` is one of [`METADATA_LABELS`].
pub fn is_metadata_label(name: &[u8]) -> bool {
    METADATA_LABELS.iter().any(|label| label.as_bytes() == name)
}

impl Grouping {
    /// Whether the group's labels include `name`, if a series has it.
    pub fn keeps(&self, name: &str) -> bool {
        let listed = self.labels.iter().any(|l| l == name);
        if self.without { !listed && name != METRIC_NAME } else { listed }
    }
}

impl KeyOutput {
    /// Whether the key holds label `name`, if a series has it.
    pub fn keeps(&self, name: &str) -> bool {
        match self {
            Self::Full => true,
            Self::DropName => !is_metadata_label(name.as_bytes()),
            Self::Group(grouping) => grouping.keeps(name),
        }
    }

    /// Writes the key of a series to `key`, which is emptied first.
    pub fn write_key(&self, labels: &Labels, key: &mut Vec<u8>) {
        key.clear();
        match self {
            Self::Full => return key.extend_from_slice(labels.as_bytes()),
            Self::Group(Grouping { without: false, labels: listed }) => {
                return put_listed(listed, labels, key);
            }
            Self::Group(_) | Self::DropName => {}
        }
        for (name, value) in labels.iter().filter(|(name, _)| self.keeps(name)) {
            put_pair(key, name, value);
        }
    }
}

/// Puts the labels of a set that are `listed`. Both are in the order of names, so that the walk ends with the list.
fn put_listed(listed: &[String], labels: &Labels, key: &mut Vec<u8>) {
    let mut listed = listed.iter().map(String::as_str).peekable();
    for (name, value) in labels.iter() {
        while listed.next_if(|wanted| *wanted < name).is_some() {}
        match listed.peek() {
            Some(wanted) if *wanted == name => put_pair(key, name, value),
            Some(_) => {}
            None => return,
        }
    }
}

/// The grouping that gives for whole label sets what `grouping` gives for keys of `output`; `None`
/// if those are group keys already.
pub fn group_of_output(output: &KeyOutput, grouping: &Grouping) -> Option<Grouping> {
    let mut grouping = grouping.clone();
    match output {
        KeyOutput::Full => {}
        KeyOutput::DropName if grouping.without => {
            grouping.labels.extend(METADATA_LABELS.map(str::to_owned));
            grouping.labels.sort_unstable();
            grouping.labels.dedup();
        }
        KeyOutput::DropName => grouping.labels.retain(|l| !is_metadata_label(l.as_bytes())),
        KeyOutput::Group(_) => return None,
    }
    Some(grouping)
}

/// SQL function `prom_group_key(labels_key)`: the key of the group of a grouping.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupKey {
    grouping: Grouping,
    signature: Signature,
}

impl GroupKey {
    /// The function for one grouping.
    pub fn new(grouping: Grouping) -> Self {
        Self { grouping, signature: Signature::exact(vec![DataType::Binary], Volatility::Immutable) }
    }

    fn group(&self, key: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        let labels = Labels::from_bytes(key)
            .ok_or_else(|| exec_datafusion_err!("a labels_key is not in canonical form"))?;
        for (name, value) in labels.iter().filter(|(name, _)| self.grouping.keeps(name)) {
            put_pair(out, name, value);
        }
        Ok(())
    }
}

impl ScalarUDFImpl for GroupKey {
    fn name(&self) -> &str {
        "prom_group_key"
    }

    fn schema_name(&self, _: &[datafusion::logical_expr::Expr]) -> Result<String> {
        Ok(format!("prom_group_key {}", self.grouping))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), DataType::Binary, false)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [keys] = arrays.as_slice() else {
            return Err(DataFusionError::Internal("prom_group_key takes one argument".into()));
        };
        let keys = keys.as_binary::<i32>();
        let mut out = BinaryBuilder::with_capacity(keys.len(), keys.len() * 16);
        let mut group = Vec::new();
        for row in 0..keys.len() {
            // Tiles of a series mostly follow each other.
            if row == 0 || keys.value(row) != keys.value(row - 1) {
                self.group(keys.value(row), &mut group)?;
            }
            out.append_value(&group);
        }
        Ok(ColumnarValue::Array(Arc::new(out.finish()) as ArrayRef))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hold_the_labels_that_are_kept() {
        let labels = Labels::from_pairs([("__name__", "m"), ("a", "1"), ("b", "2"), ("bb", "3"), ("d", "4")]);
        let names = ["", "__name__", "a", "b", "bb", "c", "d", "e"];
        for bits in 0..1 << names.len() {
            let listed = names.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1);
            let listed = listed.map(|(_, name)| (*name).to_owned()).collect::<Vec<_>>();
            for without in [false, true] {
                let output = KeyOutput::Group(Grouping { without, labels: listed.clone() });
                let kept = labels.iter().filter(|(name, _)| output.keeps(name));
                let mut key = b"of another series".to_vec();
                output.write_key(&labels, &mut key);
                assert_eq!(key, Labels::from_pairs(kept).as_bytes(), "{output:?}");
            }
        }
    }
}
