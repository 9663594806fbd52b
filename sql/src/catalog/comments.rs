//! [`Comments`]: what there is to say about tables and columns, for `\d+`, `obj_description` and `pg_description`.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::TableProvider;
use parking_lot::RwLock;

use crate::catalog::columns::{TIMESTAMP, VALUE};
use crate::catalog::{Listing, METRICS, TSDB, tsdb};

/// What is known about a metric besides its samples.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetricDescription {
    /// `counter`, `gauge`, …; may be empty.
    pub kind: String,
    /// What it counts or measures, in words; may be empty.
    pub help: String,
    /// Its unit; often empty.
    pub unit: String,
}

/// Knows metrics by name.
pub trait MetricDescriptions: Debug + Send + Sync {
    /// All that are described, by the name of the metric or of its family.
    fn all(&self) -> HashMap<String, MetricDescription>;
}

/// `tsdb.metadata`: a row per description.
pub(crate) fn table(descriptions: Arc<dyn MetricDescriptions>) -> Arc<dyn TableProvider> {
    let fields = ["metric", "type", "help", "unit"].map(|name| Field::new(name, DataType::Utf8, false));
    let schema = Arc::new(Schema::new(fields.to_vec()));
    Listing::table(Arc::clone(&schema), move || {
        let all: BTreeMap<_, _> = descriptions.all().into_iter().collect();
        let texts = |of: fn(&MetricDescription) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(all.values().map(of)))
        };
        let names: ArrayRef = Arc::new(StringArray::from_iter_values(all.keys()));
        let columns = vec![names, texts(|d| &d.kind), texts(|d| &d.help), texts(|d| &d.unit)];
        Ok(RecordBatch::try_new(Arc::clone(&schema), columns)?)
    })
}

/// About one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableComments {
    pub(crate) table: String,
    /// Column and text.
    pub(crate) columns: Vec<(String, String)>,
}

/// About all tables.
#[derive(Debug, Default)]
pub(crate) struct Comments(RwLock<Option<Arc<dyn MetricDescriptions>>>);

impl Comments {
    /// Asks `descriptions` from now on.
    pub(crate) fn ask(&self, descriptions: Arc<dyn MetricDescriptions>) {
        *self.0.write() = Some(descriptions);
    }

    /// All at this moment.
    pub(crate) fn now(&self) -> CommentsNow {
        let asked = self.0.read().clone();
        CommentsNow(asked.map(|asked| asked.all()).unwrap_or_default())
    }
}

/// Suffixes of the metrics of one family.
const SUFFIXES: [&str; 6] = ["_bucket", "_count", "_sum", "_total", "_created", "_info"];

/// The comments at one moment.
#[derive(Debug)]
pub(crate) struct CommentsNow(HashMap<String, MetricDescription>);

impl CommentsNow {
    /// Those of a table; `None` if there is nothing to say.
    pub(crate) fn of_table(&self, schema: &str, table: &str) -> Option<TableComments> {
        match schema {
            METRICS => self.of_metric(table),
            TSDB => {
                tsdb::comment(table).map(|text| TableComments { table: text.to_owned(), columns: Vec::new() })
            }
            _ => None,
        }
    }

    fn of_metric(&self, metric: &str) -> Option<TableComments> {
        let family = || SUFFIXES.iter().find_map(|suffix| self.0.get(metric.strip_suffix(suffix)?));
        let MetricDescription { kind, help, unit } = self.0.get(metric).or_else(family)?;
        let known = |text: &str| !text.is_empty() && text != "unknown";
        let mut value: Vec<_> = [kind, unit].into_iter().filter(|text| known(text)).cloned().collect();
        if value.len() == 2 {
            value[1] = format!("in {}", value[1]);
        }
        let value = value.join(", ");
        let mut columns = vec![(TIMESTAMP.to_owned(), "when the sample was taken".to_owned())];
        if !value.is_empty() {
            columns.push((VALUE.to_owned(), value.clone()));
        }
        let table = match (help.is_empty(), value.is_empty()) {
            (true, _) => value,
            (false, true) => help.clone(),
            (false, false) => format!("{help} ({value})"),
        };
        (!table.is_empty()).then_some(TableComments { table, columns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_described_by_their_own_name_or_their_family() {
        let describe = |kind: &str, help: &str, unit: &str| MetricDescription {
            kind: kind.to_owned(),
            help: help.to_owned(),
            unit: unit.to_owned(),
        };
        let now = CommentsNow(HashMap::from([
            ("took".to_owned(), describe("histogram", "How long it took.", "seconds")),
            ("plain".to_owned(), describe("unknown", "", "")),
            ("helped".to_owned(), describe("unknown", "Helps.", "")),
        ]));
        let said = |metric: &str| now.of_table(METRICS, metric).map(|comments| comments.table);
        assert_eq!(said("took_bucket").as_deref(), Some("How long it took. (histogram, in seconds)"));
        assert_eq!(said("helped").as_deref(), Some("Helps."));
        assert_eq!((said("plain"), said("other")), (None, None));
        assert!(now.of_table(TSDB, "series").is_some());
    }
}
