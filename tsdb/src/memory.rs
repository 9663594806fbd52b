//! [`MemoryStorage`]: series in a map, for tests and for PromQL test scripts.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use parking_lot::RwLock;

use crate::error::{AppendError, Result};
use crate::histogram::{CounterResetHint, FloatHistogram, Span};
use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::query::{HistogramSample, Queryable, SelectHints, Selection, SeriesBatch, SeriesStats};
use crate::sample::{TimestampMs, is_stale};

/// Holds series in memory, nothing else. The reference implementation of [`Queryable`]:
/// slow, short, and right.
///
/// Histograms come out with the counter reset hints that chunks would give them; of the hints at the
/// append only that of a gauge is kept.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    series: RwLock<BTreeMap<Labels, Vec<Point>>>,
}

/// A sample with all that may belong to it.
#[derive(Debug, Clone)]
struct Point {
    t: TimestampMs,
    /// 0 for none.
    start: TimestampMs,
    value: Value,
}

#[derive(Debug, Clone)]
enum Value {
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

impl MemoryStorage {
    /// An empty storage.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one sample.
    ///
    /// # Errors
    /// [`AppendError::OutOfOrder`] unless `t` is newer than the newest sample of the series.
    pub fn append(&self, labels: &Labels, t: TimestampMs, v: f64) -> Result<(), AppendError> {
        self.append_with_start(labels, t, 0, v)
    }

    /// Appends one sample of a counter that began at `start` (ms; 0 if that is not known).
    ///
    /// # Errors
    /// As [`MemoryStorage::append`].
    pub fn append_with_start(
        &self,
        labels: &Labels,
        t: TimestampMs,
        start: TimestampMs,
        v: f64,
    ) -> Result<(), AppendError> {
        self.push(labels, t, |_| Point { t, start, value: Value::Float(v) })
    }

    /// Appends one histogram; `start` as in [`MemoryStorage::append_with_start`].
    ///
    /// # Errors
    /// As [`MemoryStorage::append`].
    pub fn append_histogram(
        &self,
        labels: &Labels,
        t: TimestampMs,
        start: TimestampMs,
        histogram: &FloatHistogram,
    ) -> Result<(), AppendError> {
        self.push(labels, t, |before| {
            let before = match before {
                Some(Point { value: Value::Histogram(before), .. }) => Some(before.as_ref()),
                _ => None,
            };
            let counter_reset_hint = hint(histogram, before);
            let value =
                Value::Histogram(Arc::new(FloatHistogram { counter_reset_hint, ..histogram.clone() }));
            Point { t, start, value }
        })
    }

    fn push(
        &self,
        labels: &Labels,
        t: TimestampMs,
        point: impl FnOnce(Option<&Point>) -> Point,
    ) -> Result<(), AppendError> {
        let mut series = self.series.write();
        let points = series.entry(labels.clone()).or_default();
        if points.last().is_some_and(|p| p.t >= t) {
            return Err(AppendError::OutOfOrder);
        }
        let point = point(points.last());
        points.push(point);
        Ok(())
    }

    /// Removes everything.
    pub fn clear(&self) {
        self.series.write().clear();
    }

    fn matching(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> Vec<(Labels, Vec<Point>)> {
        self.series
            .read()
            .iter()
            .filter(|(labels, _)| Matcher::all_match(matchers, labels))
            .map(|(labels, points)| {
                let in_range =
                    points.iter().filter(|p| p.t >= mint && p.t <= maxt).cloned().collect::<Vec<_>>();
                (labels.clone(), in_range)
            })
            .filter(|(_, points)| !points.is_empty())
            .collect()
    }
}

/// The hint of `h` behind `before`, as if both were in chunks: a chunk tells no more of its first
/// histogram than that it is a gauge, and of the others that no reset stands before them.
fn hint(h: &FloatHistogram, before: Option<&FloatHistogram>) -> CounterResetHint {
    use CounterResetHint as H;
    match (h.counter_reset_hint, before) {
        (H::Gauge, _) => H::Gauge,
        (H::Unknown | H::NotReset, Some(before)) if shares_chunk(h, before) => H::NotReset,
        _ => H::Unknown,
    }
}

/// Whether a counter histogram goes into the chunk that ends with `before`.
#[expect(clippy::float_cmp, reason = "layouts are equal or not")]
fn shares_chunk(h: &FloatHistogram, before: &FloatHistogram) -> bool {
    if before.counter_reset_hint == CounterResetHint::Gauge {
        return false;
    }
    if is_stale(h.sum) {
        return true;
    }
    let shrinks = |now: BTreeMap<i32, f64>, before: BTreeMap<i32, f64>| {
        before.iter().any(|(index, n)| *n != 0.0 && now.get(index).is_none_or(|now| now < n))
    };
    !is_stale(before.sum)
        && h.count >= before.count
        && h.schema == before.schema
        && h.zero_threshold == before.zero_threshold
        && h.custom_values == before.custom_values
        && h.zero_count >= before.zero_count
        && !shrinks(
            buckets(&h.positive_spans, &h.positive_buckets),
            buckets(&before.positive_spans, &before.positive_buckets),
        )
        && !shrinks(
            buckets(&h.negative_spans, &h.negative_buckets),
            buckets(&before.negative_spans, &before.negative_buckets),
        )
}

fn buckets(spans: &[Span], counts: &[f64]) -> BTreeMap<i32, f64> {
    let mut next = 0_i32;
    let indexes = spans.iter().flat_map(move |span| {
        let first = next.wrapping_add(span.offset);
        next = first.wrapping_add_unsigned(span.length);
        (0..span.length).map(move |i| first.wrapping_add_unsigned(i))
    });
    indexes.zip(counts.iter().copied()).collect()
}

impl Queryable for MemoryStorage {
    fn select(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        hints: &SelectHints,
    ) -> Result<Selection> {
        let mut found = self.matching(matchers, mint, maxt);
        let series = found.len() as u64;
        let bounds = hints.divide(found.len(), |i, split| Ok(found[i].0 < *split))?;
        let mut partitions: Vec<_> = bounds[..hints.partitions.max(1)]
            .iter()
            .rev()
            .map(|first| {
                let mut part = found.split_off(*first);
                if hints.series_limit > 0 {
                    part.truncate(hints.series_limit);
                }
                part
            })
            .collect();
        partitions.reverse();
        let partitions = partitions
            .into_iter()
            .map(|series| {
                Box::pin(Batches { series: series.into_iter(), hints: hints.clone() }) as Pin<Box<_>>
            })
            .map(|s| s as crate::query::SeriesStream)
            .collect();
        Ok(Selection { partitions, series })
    }

    fn splits(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        parts: usize,
    ) -> Result<Vec<Labels>> {
        let found = self.matching(matchers, mint, maxt);
        let mut splits: Vec<_> = (1..parts).map(|i| found.len() * i / parts).collect();
        splits.dedup();
        Ok(splits.into_iter().filter_map(|i| Some(found.get(i)?.0.clone())).collect())
    }

    fn label_names(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Result<Vec<String>> {
        let mut names = BTreeSet::new();
        for (labels, _) in self.matching(matchers, mint, maxt) {
            names.extend(labels.iter().map(|(n, _)| n.to_owned()));
        }
        Ok(names.into_iter().collect())
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> Result<Vec<String>> {
        let mut values = BTreeSet::new();
        for (labels, _) in self.matching(matchers, mint, maxt) {
            values.extend(labels.get(name).map(str::to_owned));
        }
        Ok(values.into_iter().collect())
    }

    fn series_stats(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> Result<SeriesStats> {
        let found = self.matching(matchers, mint, maxt);
        let times = || found.iter().flat_map(|(_, points)| points.iter().map(|p| p.t));
        Ok(SeriesStats {
            series: found.len() as u64,
            chunks: found.len() as u64,
            samples: times().count() as u64,
            min_time: times().min().unwrap_or_default(),
            max_time: times().max().unwrap_or_default(),
            exact: true,
        })
    }

    fn time_bounds(&self) -> Option<(TimestampMs, TimestampMs)> {
        let series = self.series.read();
        let first = series.values().filter_map(|s| s.first()).map(|p| p.t).min()?;
        let last = series.values().filter_map(|s| s.last()).map(|p| p.t).max()?;
        Some((first, last))
    }
}

struct Batches {
    series: std::vec::IntoIter<(Labels, Vec<Point>)>,
    hints: SelectHints,
}

impl Stream for Batches {
    type Item = Result<SeriesBatch>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut batch = SeriesBatch::new();
        let mut any_start = false;
        while batch.values.len() + batch.histograms.len() < self.hints.batch_samples.max(1) {
            let Some((labels, points)) = self.series.next() else { break };
            let series = u32::try_from(batch.len()).unwrap_or(u32::MAX);
            for point in points.into_iter().filter(|_| !self.hints.labels_only) {
                match point.value {
                    Value::Float(v) => {
                        any_start |= point.start != 0;
                        batch.timestamps.push(point.t);
                        batch.values.push(v);
                        batch.start_timestamps.push(point.start);
                    }
                    Value::Histogram(histogram) => batch.histograms.push(HistogramSample {
                        series,
                        timestamp: point.t,
                        start_timestamp: point.start,
                        histogram,
                    }),
                }
            }
            batch.finish_series(labels);
        }
        if !any_start {
            batch.start_timestamps.clear();
        }
        Poll::Ready((!batch.is_empty()).then_some(Ok(batch)))
    }
}
