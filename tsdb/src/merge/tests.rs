//! Tests of reading several sources as one.

use std::collections::BTreeMap;
use std::pin::Pin;

use futures::StreamExt as _;
use futures_core::Stream;
use proptest::prelude::*;

use super::*;
use crate::error::Error;
use crate::histogram::{CounterResetHint, FloatHistogram};
use crate::labels::Labels;
use crate::memory::MemoryStorage;
use crate::query::{HistogramSample, SeriesBatch};
use crate::sample::TimestampMs;

type Samples = Vec<(TimestampMs, u64)>;
type Model = BTreeMap<Labels, BTreeMap<TimestampMs, u64>>;

fn collect(mut stream: SeriesStream) -> Result<Vec<(Labels, Samples)>> {
    futures::executor::block_on(async {
        let mut out = Vec::new();
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            for i in 0..batch.len() {
                let (labels, t, v) = batch.series(i);
                let samples = t.iter().copied().zip(v.iter().map(|v| v.to_bits())).collect();
                out.push((labels.clone(), samples));
            }
        }
        Ok(out)
    })
}

/// A stream that is pending before every item, and wakes at once.
struct Reluctant(SeriesStream, bool);

impl Stream for Reluctant {
    type Item = Result<SeriesBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.1 = !self.1;
        if self.1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.0.as_mut().poll_next(cx)
    }
}

/// [`MemoryStorage`] over something slow.
#[derive(Debug)]
struct Remote(MemoryStorage);

impl Queryable for Remote {
    fn select(&self, m: &[Matcher], mint: i64, maxt: i64, hints: &SelectHints) -> Result<Selection> {
        let mut selection = self.0.select(m, mint, maxt, hints)?;
        let slow = |s| Box::pin(Reluctant(s, false)) as SeriesStream;
        selection.partitions = selection.partitions.into_iter().map(slow).collect();
        Ok(selection)
    }
    fn splits(&self, m: &[Matcher], mint: i64, maxt: i64, parts: usize) -> Result<Vec<Labels>> {
        self.0.splits(m, mint, maxt, parts)
    }
    fn label_names(&self, m: &[Matcher], mint: i64, maxt: i64) -> Result<Vec<String>> {
        self.0.label_names(m, mint, maxt)
    }
    fn label_values(&self, name: &str, m: &[Matcher], mint: i64, maxt: i64) -> Result<Vec<String>> {
        self.0.label_values(name, m, mint, maxt)
    }
    fn series_stats(&self, m: &[Matcher], mint: i64, maxt: i64) -> Result<SeriesStats> {
        self.0.series_stats(m, mint, maxt)
    }
    fn time_bounds(&self) -> Option<(i64, i64)> {
        self.0.time_bounds()
    }
}

fn sources() -> impl Strategy<Value = Vec<Model>> {
    let samples = prop::collection::btree_map(0i64..200, any::<u64>(), 1..20);
    let labels =
        (0u8..12).prop_map(|i| Labels::from_pairs([("__name__", "m".to_owned()), ("i", i.to_string())]));
    prop::collection::vec(prop::collection::btree_map(labels, samples, 0..10), 0..5)
}

fn fanout(models: &[Model], remote: bool) -> Fanout {
    let storage = |model: &Model| {
        let storage = MemoryStorage::new();
        for (labels, samples) in model {
            for (t, v) in samples {
                storage.append(labels, *t, f64::from_bits(*v)).unwrap();
            }
        }
        if remote { Arc::new(Remote(storage)) as Arc<dyn Queryable> } else { Arc::new(storage) }
    };
    Fanout::new(models.iter().map(storage).collect())
}

proptest! {
    #[test]
    fn several_sources_read_as_one(models in sources(), remote in any::<bool>(), batch_samples in 1usize..40, partitions in 1usize..4) {
        let mut expected = Model::new();
        for (labels, samples) in models.iter().rev().flatten() {
            expected.entry(labels.clone()).or_default().extend(samples);
        }
        let (mint, maxt) = (20, 150);
        for samples in expected.values_mut() {
            samples.retain(|t, _| (mint..=maxt).contains(t));
        }
        expected.retain(|_, samples| !samples.is_empty());

        let fanout = fanout(&models, remote);
        let hints = SelectHints { partitions, batch_samples, ..SelectHints::default() };
        let selection = fanout.select(&[], mint, maxt, &hints).unwrap();
        prop_assert_eq!(selection.partitions.len(), partitions);
        let mut read = Model::new();
        for stream in selection.partitions {
            let series = collect(stream).unwrap();
            prop_assert!(series.is_sorted_by(|a, b| a.0 < b.0));
            for (labels, samples) in series {
                prop_assert!(read.keys().all(|before| before < &labels), "partitions are runs of label order");
                prop_assert!(samples.is_sorted_by(|a, b| a.0 < b.0));
                read.insert(labels, samples.into_iter().collect());
            }
        }
        prop_assert_eq!(&read, &expected);
        if !remote {
            let stats = fanout.series_stats(&[], mint, maxt).unwrap();
            prop_assert_eq!(stats.series, expected.len() as u64);
            let samples = expected.values().map(|s| s.len() as u64).sum::<u64>();
            let right = if stats.exact { stats.samples == samples } else { stats.samples >= samples };
            prop_assert!(right);
        }
    }
}

/// A batch of one series from `(t, float or counter hint, start)`.
fn mixed(samples: &[(i64, Result<f64, CounterResetHint>, i64)]) -> SeriesStream {
    let mut batch = SeriesBatch::new();
    for &(t, value, start) in samples {
        match value {
            Ok(v) => {
                batch.timestamps.push(t);
                batch.values.push(v);
                batch.start_timestamps.push(start);
            }
            Err(counter_reset_hint) => {
                let histogram = FloatHistogram { counter_reset_hint, ..FloatHistogram::default() };
                batch.histograms.push(HistogramSample {
                    series: 0,
                    timestamp: t,
                    start_timestamp: start,
                    histogram: Arc::new(histogram),
                });
            }
        }
    }
    if batch.start_timestamps.iter().all(|s| *s == 0) {
        batch.start_timestamps.clear();
    }
    batch.finish_series(Labels::from_pairs([("a", "1")]));
    futures::stream::iter([Ok(batch)]).boxed()
}

#[test]
fn floats_and_histograms_merge_by_time_and_hints_hold_within_a_source_only() {
    use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
    let first = mixed(&[(1, Err(Unknown), 0), (2, Err(NotReset), 0), (6, Err(NotReset), 0), (7, Ok(7.0), 5)]);
    let second =
        mixed(&[(2, Ok(-1.0), 0), (4, Err(Gauge), 3), (5, Ok(5.0), 0), (6, Ok(-1.0), 0), (8, Err(Reset), 0)]);
    let mut merged = merge(vec![first, second], &SelectHints::default());
    let batch = futures::executor::block_on(merged.next()).unwrap().unwrap();
    assert_eq!(batch.timestamps, [5, 7]);
    assert_eq!(batch.values, [5.0, 7.0]);
    assert_eq!(batch.start_timestamps, [0, 5]);
    let of = |h: &HistogramSample| (h.series, h.timestamp, h.histogram.counter_reset_hint, h.start_timestamp);
    let histograms: Vec<_> = batch.histograms.iter().map(of).collect();
    assert_eq!(
        histograms,
        [(0, 1, Unknown, 0), (0, 2, NotReset, 0), (0, 4, Gauge, 3), (0, 6, Unknown, 0), (0, 8, Unknown, 0)]
    );
    assert_eq!(batch.offsets, [0, 2]);
}

#[test]
fn a_limit_holds_for_the_merged_series() {
    let model = |odd| -> Model {
        let labels = |i: i32| Labels::from_pairs([("i", format!("{i:02}"))]);
        (0..20).filter(|i| i % 2 == odd).map(|i| (labels(i), [(1, 0)].into())).collect()
    };
    let fanout = fanout(&[model(0), model(1)], true);
    let hints = SelectHints { series_limit: 5, batch_samples: 2, ..SelectHints::default() };
    let stream = fanout.select(&[], 0, 9, &hints).unwrap().partitions.remove(0);
    let series = collect(stream).unwrap();
    let values: Vec<_> = series.iter().map(|(l, _)| l.get("i").unwrap_or_default()).collect();
    assert_eq!(values, ["00", "01", "02", "03", "04"]);
}

#[test]
fn an_error_of_one_source_ends_the_whole() {
    let broken = futures::stream::iter([Err(Error::Poisoned)]).boxed();
    let good = futures::stream::iter([Ok(SeriesBatch::new())]).boxed();
    let mut merged = merge(vec![good, broken], &SelectHints::default());
    futures::executor::block_on(async {
        assert!(matches!(merged.next().await, Some(Err(Error::Poisoned))));
        assert!(merged.next().await.is_none());
    });
}
