//! From [`SeriesBatch`] to Arrow: samples are moved, labels are written once per series.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Int32Array, PrimitiveArray, RecordBatch, RecordBatchOptions,
    StringArray, new_null_array,
};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::datatypes::{Int32Type, TimestampMillisecondType};
use arrow::error::ArrowError;
use promontory_tsdb::histogram::FloatHistogram;
use promontory_tsdb::query::HistogramSample;
use promontory_tsdb::{Labels, METRIC_NAME, SeriesBatch, TimestampMs, is_stale};

use crate::HistogramBuilder;
use crate::catalog::columns::{ColumnKind, Columns};
use crate::catalog::scan::{PerSeries, Rows};

/// The rows of `batch` that are wanted, as the columns that are wanted.
pub(crate) fn decode(
    mut batch: SeriesBatch,
    rows: Rows,
    per_series: PerSeries,
    columns: &Columns,
) -> Result<RecordBatch, ArrowError> {
    let mut samples = match rows {
        Rows::Samples => live(&mut batch, columns),
        Rows::Series => Samples { ends: (1..=batch.labels.len()).collect(), ..Samples::default() },
    };
    samples.keep(per_series);
    record_batch(&batch, samples, columns)
}

/// How many rows each series of `batch` has, when its oldest and its newest are; and its oldest as the columns that are
/// wanted. Series without rows are left out.
pub(crate) fn totals(
    mut batch: SeriesBatch,
    columns: &Columns,
) -> Result<(Vec<SeriesTotals>, RecordBatch), ArrowError> {
    let mut samples = live(&mut batch, columns);
    let starts = std::iter::once(0).chain(samples.ends.iter().copied());
    let totals =
        starts.zip(&samples.ends).filter(|(start, end)| start < end).map(|(start, &end)| SeriesTotals {
            rows: (end - start) as i64,
            oldest: samples.timestamps[start],
            newest: samples.timestamps[end - 1],
        });
    let totals = totals.collect();
    samples.keep(PerSeries::First);
    Ok((totals, record_batch(&batch, samples, columns)?))
}

/// The rows of some series, one series after the other.
pub(crate) struct SeriesRows {
    /// `ends[i]` is the row after the last one of series `i`. No series is without rows.
    pub(crate) ends: Vec<usize>,
    /// The first row of each series.
    pub(crate) first: RecordBatch,
    /// ms since the epoch, of each row.
    pub(crate) timestamps: ScalarBuffer<TimestampMs>,
    /// All rows.
    pub(crate) all: RecordBatch,
}

/// The rows of `batch`: the first of each series with the columns `of_series`, all with the columns `of_rows`.
pub(crate) fn series_rows(
    mut batch: SeriesBatch,
    of_series: &Columns,
    of_rows: &Columns,
) -> Result<SeriesRows, ArrowError> {
    let samples = live(&mut batch, of_rows);
    let starts: Vec<_> = std::iter::once(0).chain(samples.ends.iter().copied()).collect();
    let with_rows = |i: &usize| starts[*i] < samples.ends[*i];
    let firsts: Vec<_> = (0..samples.ends.len()).filter(with_rows).map(|i| starts[i]).collect();
    let (mut ones, mut series) = (0, Samples::default());
    for i in 0..samples.ends.len() {
        ones += usize::from(with_rows(&i));
        series.ends.push(ones);
    }
    series.timestamps = firsts.iter().map(|&row| samples.timestamps[row]).collect();
    series.values = firsts.iter().map(|&row| samples.values[row]).collect();
    if !samples.histograms.is_empty() {
        series.histograms = firsts.iter().map(|&row| samples.histograms[row].clone()).collect();
    }
    let first = record_batch(&batch, series, of_series)?;
    let mut ends = samples.ends.clone();
    ends.dedup();
    if ends.first() == Some(&0) {
        ends.remove(0);
    }
    let (timestamps, all) = record_batch_and_times(&batch, samples, of_rows)?;
    Ok(SeriesRows { ends, first, timestamps, all })
}

/// What there is to say of the rows of a series that has some.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeriesTotals {
    pub(crate) rows: i64,
    /// ms since the epoch.
    pub(crate) oldest: TimestampMs,
    /// ms since the epoch.
    pub(crate) newest: TimestampMs,
}

/// The samples of `batch` that are rows, taken out of it.
fn live(batch: &mut SeriesBatch, columns: &Columns) -> Samples {
    drop_stale_markers(batch);
    if columns.with_histograms() && !batch.histograms.is_empty() {
        return merged(batch);
    }
    Samples {
        ends: batch.offsets.iter().skip(1).map(|&end| end as usize).collect(),
        timestamps: std::mem::take(&mut batch.timestamps),
        values: std::mem::take(&mut batch.values),
        histograms: Vec::new(),
    }
}

/// `samples` of the series of `batch`, as `columns`.
fn record_batch(batch: &SeriesBatch, samples: Samples, columns: &Columns) -> Result<RecordBatch, ArrowError> {
    record_batch_and_times(batch, samples, columns).map(|(_, batch)| batch)
}

fn record_batch_and_times(
    batch: &SeriesBatch,
    samples: Samples,
    columns: &Columns,
) -> Result<(ScalarBuffer<TimestampMs>, RecordBatch), ArrowError> {
    let rows = samples.ends.last().copied().unwrap_or_default();
    let texts = text_columns(&batch.labels, &samples.ends, columns)?;
    let floats = (!samples.histograms.is_empty())
        .then(|| samples.histograms.iter().map(Option::is_none).collect::<NullBuffer>());
    let timestamps = ScalarBuffer::from(samples.timestamps);
    let values = ScalarBuffer::from(samples.values);
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
            (ColumnKind::Histogram, None) if samples.histograms.is_empty() => {
                new_null_array(&kind.data_type(), rows)
            }
            (ColumnKind::Histogram, None) => {
                let mut column = HistogramBuilder::default();
                samples.histograms.iter().for_each(|histogram| column.append(histogram.as_deref()));
                Arc::new(column.finish())
            }
            _ => Arc::new(Float64Array::new(values.clone(), floats.clone())),
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let rows = RecordBatch::try_new_with_options(Arc::clone(columns.schema()), arrays, &options)?;
    Ok((timestamps, rows))
}

/// Samples of all series, one after the other.
#[derive(Default)]
struct Samples {
    /// `ends[i]` is the row after the last one of series `i`.
    ends: Vec<usize>,
    timestamps: Vec<TimestampMs>,
    values: Vec<f64>,
    /// As long as the others, or empty where all are floats.
    histograms: Vec<Option<Arc<FloatHistogram>>>,
}

impl Samples {
    fn keep(&mut self, per_series: PerSeries) {
        if per_series == PerSeries::All {
            return;
        }
        let (mut kept, mut start) = (0, 0);
        for i in 0..self.ends.len() {
            let end = self.ends[i];
            if end > start {
                let row = if per_series == PerSeries::Last { end - 1 } else { start };
                self.timestamps[kept] = self.timestamps[row];
                self.values[kept] = self.values[row];
                if !self.histograms.is_empty() {
                    self.histograms[kept] = self.histograms[row].take();
                }
                kept += 1;
            }
            start = end;
            self.ends[i] = kept;
        }
        self.timestamps.truncate(kept);
        self.values.truncate(kept);
        self.histograms.truncate(kept);
    }
}

/// Floats and histograms of each series, in order of time.
fn merged(batch: &SeriesBatch) -> Samples {
    let total = batch.values.len() + batch.histograms.len();
    let mut out = Samples {
        ends: Vec::with_capacity(batch.labels.len()),
        timestamps: Vec::with_capacity(total),
        values: Vec::with_capacity(total),
        histograms: Vec::with_capacity(total),
    };
    let mut histograms = batch.histograms.iter().filter(|h| !is_stale(h.histogram.sum)).peekable();
    for i in 0..batch.labels.len() {
        let (_, timestamps, values) = batch.series(i);
        let mut floats = timestamps.iter().zip(values).peekable();
        loop {
            let float = floats.peek().map(|(t, _)| **t);
            let of_series = |h: &&&HistogramSample| h.series as usize == i;
            let histogram = histograms.peek().filter(of_series).map(|h| h.timestamp);
            let (t, v, histogram) = match (float, histogram) {
                (Some(t), other) if other.is_none_or(|other| t <= other) => {
                    (t, floats.next().map_or(f64::NAN, |(_, v)| *v), None)
                }
                (_, Some(t)) => (t, 0.0, histograms.next().map(|h| Arc::clone(&h.histogram))),
                _ => break,
            };
            out.timestamps.push(t);
            out.values.push(v);
            out.histograms.push(histogram);
        }
        out.ends.push(out.values.len());
    }
    out
}

/// A stale marker says that a series ended; it is not a sample anyone took. What is left of NaNs is made one and the
/// same: some of a sign are less than all numbers in Arrow's order, which is not Postgres'.
fn drop_stale_markers(batch: &mut SeriesBatch) {
    let (mut markers, mut odd) = (false, false);
    for value in &batch.values {
        markers |= is_stale(*value);
        odd |= value.is_nan();
    }
    if odd {
        let others = batch.values.iter_mut().filter(|value| value.is_nan() && !is_stale(**value));
        others.for_each(|value| *value = f64::NAN);
    }
    if !markers {
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
    use arrow::array::{Array, AsArray};
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
        let columns = Columns::of_metric(["instance", "job"], false);
        let got = decode(batch(), Rows::Samples, PerSeries::All, &columns).expect("decodes");
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
        let columns = Columns::of_metric([], false).project(Some(&vec![]));
        assert_eq!(decode(batch(), Rows::Samples, PerSeries::All, &columns).expect("decodes").num_rows(), 3);
    }

    #[test]
    fn samples_move_into_arrow_without_a_copy() {
        let mut batch = batch();
        drop_stale_markers(&mut batch);
        let (timestamps, values) = (batch.timestamps.as_ptr(), batch.values.as_ptr());
        let got =
            decode(batch, Rows::Samples, PerSeries::All, &Columns::of_metric([], false)).expect("decodes");
        assert_eq!(got.column(0).to_data().buffers()[0].as_ptr(), timestamps.cast());
        assert_eq!(got.column(1).to_data().buffers()[0].as_ptr(), values.cast());
    }

    #[test]
    fn one_row_of_each_series_is_the_oldest_or_the_newest_that_is_no_marker() {
        let columns = Columns::of_metric(["instance"], false);
        let times = |per_series| {
            let got = decode(batch(), Rows::Samples, per_series, &columns).expect("decodes");
            let times = got.column(0).as_primitive::<TimestampMillisecondType>().values().to_vec();
            (times, got.column(2).null_count())
        };
        assert_eq!(times(PerSeries::First), (vec![1, 1], 1));
        assert_eq!(times(PerSeries::Last), (vec![1, 3], 1));
    }

    #[test]
    fn histograms_stand_among_floats_in_order_of_time() {
        let mut batch = batch();
        let histogram = |series, timestamp, sum| HistogramSample {
            series,
            timestamp,
            start_timestamp: 0,
            histogram: Arc::new(FloatHistogram { sum, ..FloatHistogram::default() }),
        };
        batch.histograms = vec![histogram(0, 0, 1.0), histogram(0, 5, stale_nan()), histogram(2, 2, 2.0)];
        let columns = Columns::of_metric(["instance"], true);
        let got = decode(batch, Rows::Samples, PerSeries::All, &columns).expect("decodes");
        let times = got.column(0).as_primitive::<TimestampMillisecondType>().values().to_vec();
        assert_eq!(times, [0, 1, 1, 2, 3]);
        let is_histogram = |row: usize| (got.column(1).is_null(row), got.column(2).is_valid(row));
        assert_eq!(
            (0..5).map(is_histogram).collect::<Vec<_>>(),
            [(true, true), (false, false), (false, false), (true, true), (false, false)]
        );
    }
}
