//! Which columns a table has, and where each takes its values from.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::histogram_type;

/// Name of the time column of every table of samples.
pub(crate) const TIMESTAMP: &str = "timestamp";
/// Name of the value column of every table of samples.
pub(crate) const VALUE: &str = "value";

/// Name of the column of native histograms, where there are any.
pub(crate) const HISTOGRAM: &str = "histogram";

/// Where a column takes its values from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ColumnKind {
    /// The sample's timestamp.
    Timestamp,
    /// The sample's value.
    Value,
    /// The sample's native histogram; NULL where it is a float.
    Histogram,
    /// The value of a label; NULL where the series lacks it.
    Label(String),
    /// All labels but the metric name, as JSON text.
    LabelsJson,
}

impl ColumnKind {
    /// The Arrow type of such a column.
    pub(crate) fn data_type(&self) -> DataType {
        match self {
            Self::Timestamp => timestamp_type(),
            Self::Value => DataType::Float64,
            Self::Histogram => histogram_type(),
            Self::Label(_) | Self::LabelsJson => text_type(),
        }
    }
}

/// `TIMESTAMP(ms, 'UTC')`, which Postgres clients see as `timestamptz`.
pub(crate) fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

/// Text with one dictionary per batch: a label value is stored once, not once per sample.
pub(crate) fn text_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// The columns of a table over series.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    kinds: Vec<ColumnKind>,
    schema: SchemaRef,
    /// Whether histograms are rows, also where their column is not read.
    with_histograms: bool,
}

impl Columns {
    /// Columns from names and kinds.
    pub(crate) fn new(columns: Vec<(String, ColumnKind)>) -> Self {
        let with_histograms = columns.iter().any(|(_, kind)| *kind == ColumnKind::Histogram);
        let nullable = |kind: &ColumnKind| match kind {
            ColumnKind::Label(_) | ColumnKind::Histogram => true,
            // A histogram has no float.
            ColumnKind::Value => with_histograms,
            ColumnKind::Timestamp | ColumnKind::LabelsJson => false,
        };
        let fields: Vec<_> =
            columns.iter().map(|(name, kind)| Field::new(name, kind.data_type(), nullable(kind))).collect();
        let kinds = columns.into_iter().map(|(_, kind)| kind).collect();
        Self { kinds, schema: Arc::new(Schema::new(fields)), with_histograms }
    }

    /// `timestamp`, `value`, `histogram` if there are any, then one column per label name, in the order given.
    pub(crate) fn of_metric<'a>(
        label_names: impl IntoIterator<Item = &'a str>,
        with_histograms: bool,
    ) -> Self {
        let mut columns =
            vec![(TIMESTAMP.to_owned(), ColumnKind::Timestamp), (VALUE.to_owned(), ColumnKind::Value)];
        let mut taken = TAKEN.to_vec();
        if with_histograms {
            columns.push((HISTOGRAM.to_owned(), ColumnKind::Histogram));
            taken.push(HISTOGRAM);
        }
        columns.extend(
            label_names
                .into_iter()
                .map(|name| (column_of_label_beside(&taken, name), ColumnKind::Label(name.to_owned()))),
        );
        Self::new(columns)
    }

    /// Whether histograms are rows.
    pub(crate) fn with_histograms(&self) -> bool {
        self.with_histograms
    }

    /// The column with the timestamp.
    pub(crate) fn timestamp(&self) -> Option<usize> {
        self.kinds.iter().position(|kind| *kind == ColumnKind::Timestamp)
    }

    /// Where each column takes its values from.
    pub(crate) fn kinds(&self) -> &[ColumnKind] {
        &self.kinds
    }

    /// The table's schema.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Where the column called `name` takes its values from.
    pub(crate) fn kind_of(&self, name: &str) -> Option<&ColumnKind> {
        self.schema.index_of(name).ok().map(|i| &self.kinds[i])
    }

    /// The same columns, called `names`.
    pub(crate) fn named<'a>(mut self, names: impl Iterator<Item = &'a str>) -> Self {
        let fields = self.schema.fields().iter().zip(names);
        let fields: Vec<_> = fields.map(|(field, name)| field.as_ref().clone().with_name(name)).collect();
        self.schema = Arc::new(Schema::new(fields));
        self
    }

    /// The columns at `projection`, in that order.
    pub(crate) fn project(&self, projection: Option<&Vec<usize>>) -> Self {
        let Some(projection) = projection else { return self.clone() };
        let fields: Vec<_> = projection.iter().map(|&i| Arc::clone(&self.schema.fields()[i])).collect();
        Self {
            kinds: projection.iter().map(|&i| self.kinds[i].clone()).collect(),
            schema: Arc::new(Schema::new(fields)),
            with_histograms: self.with_histograms,
        }
    }
}

/// Columns that tables of samples have beside those of labels.
const TAKEN: [&str; 2] = [TIMESTAMP, VALUE];

/// Name of the column that shows label `label` in a table with other columns called `taken`.
///
/// That is the label's own name, unless it would collide: a label called `timestamp` is shown as
/// `label_timestamp`. So that no two labels can meet in one column, a label that already looks like that
/// gets one more `label_` in front.
pub fn column_of_label_beside(taken: &[&str], label: &str) -> String {
    let mut stem = label;
    while let Some(rest) = stem.strip_prefix("label_") {
        stem = rest;
    }
    if taken.contains(&stem) { format!("label_{label}") } else { label.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_collide_get_a_prefix_that_cannot_collide_again() {
        let labels = ["timestamp", "label_timestamp", "label_label_timestamp", "value", "label_value", "job"];
        let columns: Vec<_> = labels.iter().map(|l| column_of_label_beside(&TAKEN, l)).collect();
        assert_eq!(
            columns,
            [
                "label_timestamp",
                "label_label_timestamp",
                "label_label_label_timestamp",
                "label_value",
                "label_label_value",
                "job"
            ]
        );
        assert_eq!(column_of_label_beside(&TAKEN, "label_job"), "label_job");
    }
}
