//! From [`SeriesBatch`] to Arrow: samples are moved, labels are written once per series.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Int32Array, PrimitiveArray, RecordBatch, RecordBatchOptions,
    StringArray,
};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::datatypes::{Int32Type, TimestampMillisecondType};
use arrow::error::ArrowError;
use promontory_tsdb::{Labels, METRIC_NAME, SeriesBatch, is_stale};

use crate::catalog::columns::{ColumnKind, Columns};
use crate::catalog::scan::Rows;

/// The rows of `batch` that are wanted, as the columns that are wanted.
pub(crate) fn decode(
    mut batch: SeriesBatch,
    rows: Rows,
    columns: &Columns,
) -> Result<RecordBatch, ArrowError> {
    let ends = match rows {
        Rows::Samples => {
            drop_stale_markers(&mut batch);
            batch.offsets.iter().skip(1).map(|&end| end as usize).collect()
        }
        Rows::Series => (1..=batch.labels.len()).collect::<Vec<_>>(),
    };
    let rows = ends.last().copied().unwrap_or_default();
    let texts = text_columns(&batch.labels, &ends, columns)?;
    let timestamps = ScalarBuffer::from(batch.timestamps);
    let values = ScalarBuffer::from(batch.values);
    let arrays = columns
        .kinds()
        .iter()
        .zip(texts)
        .map(|(kind, text)| match (kind, text) {
            (_, Some(text)) => text,
            (ColumnKind::Timestamp, None) => Arc::new(
                PrimitiveArray::<TimestampMillisecondType>::new(timestamps.clone(), None)
                    .with_timezone("UTC"),
            ) as ArrayRef,
            _ => Arc::new(Float64Array::new(values.clone(), None)),
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(columns.schema()), arrays, &options)
}

/// A stale marker says that a series ended; it is not a sample anyone took.
fn drop_stale_markers(batch: &mut SeriesBatch) {
    if !batch.values.iter().any(|&v| is_stale(v)) {
        return;
    }
    let mut kept = 0;
    let mut start = 0;
    for i in 0..batch.labels.len() {
        let end = batch.offsets[i + 1] as usize;
        for at in start..end {
            if !is_stale(batch.values[at]) {
                batch.values[kept] = batch.values[at];
                batch.timestamps[kept] = batch.timestamps[at];
                kept += 1;
            }
        }
        start = end;
        batch.offsets[i + 1] = u32::try_from(kept).expect("no more samples than before");
    }
    batch.values.truncate(kept);
    batch.timestamps.truncate(kept);
}

/// One array per column that is made of labels, `None` for the others. `ends[i]` is the row after
/// the last one of series `i`.
fn text_columns(
    labels: &[Labels],
    ends: &[usize],
    columns: &Columns,
) -> Result<Vec<Option<ArrayRef>>, ArrowError> {
    let mut texts: Vec<Option<TextColumn>> = columns
        .kinds()
        .iter()
        .map(|kind| matches!(kind, ColumnKind::Label(_) | ColumnKind::LabelsJson).then(TextColumn::default))
        .collect();
    let by_label: HashMap<&str, usize> = columns
        .kinds()
        .iter()
        .enumerate()
        .filter_map(|(i, kind)| match kind {
            ColumnKind::Label(label) => Some((label.as_str(), i)),
            _ => None,
        })
        .collect();
    let json: Vec<usize> = columns
        .kinds()
        .iter()
        .enumerate()
        .filter_map(|(i, kind)| (*kind == ColumnKind::LabelsJson).then_some(i))
        .collect();
    let mut start = 0;
    for (labels, &end) in labels.iter().zip(ends) {
        if end > start {
            if !by_label.is_empty() {
                for (name, value) in labels.iter() {
                    if let Some(text) = by_label.get(name).and_then(|&i| texts[i].as_mut()) {
                        text.fill(value, start, end);
                    }
                }
            }
            for &i in &json {
                if let Some(text) = texts[i].as_mut() {
                    text.fill(&labels_json(labels), start, end);
                }
            }
        }
        start = end;
    }
    texts.into_iter().map(|text| text.map(|t| t.finish(start)).transpose()).collect()
}

/// `{"instance":"a","job":"b"}`, without the metric name, in label order.
pub fn labels_json(labels: &Labels) -> String {
    let mut map = serde_json::Map::new();
    for (name, value) in labels.iter().filter(|(name, _)| *name != METRIC_NAME) {
        map.insert(name.to_owned(), value.into());
    }
    serde_json::Value::Object(map).to_string()
}

/// A dictionary column under construction. Rows that nobody fills are NULL.
#[derive(Default)]
struct TextColumn {
    codes: HashMap<String, i32>,
    values: Vec<String>,
    keys: Vec<i32>,
    /// Set once there is a NULL; parallel to `keys` from then on.
    valid: Option<Vec<bool>>,
}

impl TextColumn {
    /// Rows `[start, end)` hold `value`; rows are filled in ascending order.
    fn fill(&mut self, value: &str, start: usize, end: usize) {
        let code = match self.codes.get(value) {
            Some(&code) => code,
            None => {
                let code = i32::try_from(self.values.len()).expect("fewer values than samples in a batch");
                self.values.push(value.to_owned());
                self.codes.insert(value.to_owned(), code);
                code
            }
        };
        self.skip_to(start);
        self.keys.resize(end, code);
        if let Some(valid) = &mut self.valid {
            valid.resize(end, true);
        }
    }

    fn skip_to(&mut self, row: usize) {
        let known = self.keys.len();
        if known < row {
            self.valid.get_or_insert_with(|| vec![true; known]).resize(row, false);
            self.keys.resize(row, 0);
        }
    }

    fn finish(mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        self.skip_to(rows);
        let keys = Int32Array::new(self.keys.into(), self.valid.map(NullBuffer::from));
        let values = Arc::new(StringArray::from(self.values));
        Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, values)?))
    }
}

#[cfg(test)]
mod tests {
    use arrow::util::pretty::pretty_format_batches;
    use promontory_tsdb::stale_nan;

    use super::*;

    fn batch() -> SeriesBatch {
        let mut batch = SeriesBatch::new();
        for (labels, samples) in [
            (vec![("__name__", "up"), ("job", "a")], vec![(1, 1.0), (2, stale_nan())]),
            (vec![("__name__", "up"), ("instance", "x")], vec![(1, stale_nan())]),
            (vec![("__name__", "up"), ("instance", "y"), ("job", "a")], vec![(1, f64::NAN), (3, 2.0)]),
        ] {
            for (t, v) in samples {
                batch.timestamps.push(t);
                batch.values.push(v);
            }
            batch.finish_series(Labels::from_pairs(labels));
        }
        batch
    }

    fn show(batch: RecordBatch) -> String {
        pretty_format_batches(&[batch]).expect("printable").to_string()
    }

    #[test]
    fn stale_markers_are_no_rows_and_absent_labels_are_null() {
        let columns = Columns::of_metric(["instance", "job"]);
        let got = decode(batch(), Rows::Samples, &columns).expect("decodes");
        insta::assert_snapshot!(show(got), @r"
        +--------------------------+-------+----------+-----+
        | timestamp                | value | instance | job |
        +--------------------------+-------+----------+-----+
        | 1970-01-01T00:00:00.001Z | 1.0   |          | a   |
        | 1970-01-01T00:00:00.001Z | NaN   | y        | a   |
        | 1970-01-01T00:00:00.003Z | 2.0   | y        | a   |
        +--------------------------+-------+----------+-----+
        ");
    }

    #[test]
    fn a_batch_without_columns_still_counts_its_rows() {
        let columns = Columns::of_metric([]).project(Some(&vec![]));
        assert_eq!(decode(batch(), Rows::Samples, &columns).expect("decodes").num_rows(), 3);
    }

    #[test]
    fn samples_move_into_arrow_without_a_copy() {
        let mut batch = batch();
        drop_stale_markers(&mut batch);
        let (timestamps, values) = (batch.timestamps.as_ptr(), batch.values.as_ptr());
        let got = decode(batch, Rows::Samples, &Columns::of_metric([])).expect("decodes");
        assert_eq!(got.column(0).to_data().buffers()[0].as_ptr(), timestamps.cast());
        assert_eq!(got.column(1).to_data().buffers()[0].as_ptr(), values.cast());
    }
}
