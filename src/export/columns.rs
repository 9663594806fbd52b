//! Builds record batches of one metric: `timestamp`, `value`, one dictionary column per label.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::TimestampMillisecondArray;
use arrow::array::{ArrayRef, DictionaryArray, Float64Array, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use promontory_tsdb::{Labels, TimestampMs};

/// Name of the time column.
pub(crate) const TIMESTAMP: &str = "timestamp";
/// Name of the value column.
pub(crate) const VALUE: &str = "value";

/// Rows being collected.
#[derive(Debug)]
pub(crate) struct Columns {
    schema: SchemaRef,
    timestamps: Vec<TimestampMs>,
    values: Vec<f64>,
    labels: Vec<LabelColumn>,
}

#[derive(Debug)]
struct LabelColumn {
    name: String,
    keys: Vec<Option<i32>>,
    values: Vec<String>,
    key_of: HashMap<String, i32>,
}

impl Columns {
    /// Columns for these labels, named as the columns of the metric's SQL table.
    pub(crate) fn new(label_names: Vec<String>) -> Self {
        let time = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        let text = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let mut fields =
            vec![Field::new(TIMESTAMP, time, false), Field::new(VALUE, DataType::Float64, false)];
        fields.extend(label_names.iter().map(|name| Field::new(column_of_label(name), text.clone(), true)));
        let labels = label_names
            .into_iter()
            .map(|name| LabelColumn { name, keys: vec![], values: vec![], key_of: HashMap::new() })
            .collect();
        Self { schema: Arc::new(Schema::new(fields)), timestamps: vec![], values: vec![], labels }
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows collected.
    pub(crate) fn rows(&self) -> usize {
        self.values.len()
    }

    /// Appends samples of one series, all of them.
    pub(crate) fn push(&mut self, labels: &Labels, samples: impl Iterator<Item = (TimestampMs, f64)>) {
        let before = self.rows();
        for (t, v) in samples {
            self.timestamps.push(t);
            self.values.push(v);
        }
        let rows = self.rows() - before;
        for column in &mut self.labels {
            let key = labels.get(&column.name).map(|value| column.key(value));
            column.keys.extend(std::iter::repeat_n(key, rows));
        }
    }

    /// Takes the collected rows.
    pub(crate) fn take(&mut self) -> Result<RecordBatch, ArrowError> {
        let timestamps = TimestampMillisecondArray::from(std::mem::take(&mut self.timestamps));
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(timestamps.with_timezone("UTC")),
            Arc::new(Float64Array::from(std::mem::take(&mut self.values))),
        ];
        for column in &mut self.labels {
            let keys = Int32Array::from(std::mem::take(&mut column.keys));
            let values = StringArray::from(std::mem::take(&mut column.values));
            column.key_of.clear();
            columns.push(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, Arc::new(values))?));
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

impl LabelColumn {
    fn key(&mut self, value: &str) -> i32 {
        if let Some(key) = self.key_of.get(value) {
            return *key;
        }
        let key = i32::try_from(self.values.len()).expect("a batch has less than 2^31 rows");
        self.values.push(value.to_owned());
        self.key_of.insert(value.to_owned(), key);
        key
    }
}

/// Name of the column that shows label `label`: its own, or with `label_` in front where that would
/// collide with `timestamp` or `value`, the same as in SQL.
pub(crate) fn column_of_label(label: &str) -> String {
    let mut stem = label;
    while let Some(rest) = stem.strip_prefix("label_") {
        stem = rest;
    }
    if stem == TIMESTAMP || stem == VALUE { format!("label_{label}") } else { label.to_owned() }
}
