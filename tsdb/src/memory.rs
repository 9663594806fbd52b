//! [`MemoryStorage`]: series in a map, for tests and for PromQL test scripts.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use parking_lot::RwLock;

use crate::error::{AppendError, Result};
use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::query::{Queryable, SelectHints, Selection, SeriesBatch, SeriesStats};
use crate::sample::{Sample, TimestampMs};

/// Holds float series in memory, nothing else. The reference implementation of [`Queryable`]:
/// slow, short, and right.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    series: RwLock<BTreeMap<Labels, Vec<Sample>>>,
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
        let mut series = self.series.write();
        let samples = series.entry(labels.clone()).or_default();
        if samples.last().is_some_and(|s| s.t >= t) {
            return Err(AppendError::OutOfOrder);
        }
        samples.push(Sample { t, v });
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
    ) -> Vec<(Labels, Vec<Sample>)> {
        self.series
            .read()
            .iter()
            .filter(|(labels, _)| Matcher::all_match(matchers, labels))
            .map(|(labels, samples)| {
                let in_range =
                    samples.iter().filter(|s| s.t >= mint && s.t <= maxt).copied().collect::<Vec<_>>();
                (labels.clone(), in_range)
            })
            .filter(|(_, samples)| !samples.is_empty())
            .collect()
    }
}

impl Queryable for MemoryStorage {
    fn select(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        hints: &SelectHints,
    ) -> Result<Selection> {
        let found = self.matching(matchers, mint, maxt);
        let series = found.len() as u64;
        let mut partitions = vec![Vec::new(); hints.partitions.max(1)];
        for (labels, samples) in found {
            let part = &mut partitions[labels.partition(hints.partitions)];
            if hints.series_limit == 0 || part.len() < hints.series_limit {
                part.push((labels, samples));
            }
        }
        let partitions = partitions
            .into_iter()
            .map(|series| {
                Box::pin(Batches { series: series.into_iter(), hints: hints.clone() }) as Pin<Box<_>>
            })
            .map(|s| s as crate::query::SeriesStream)
            .collect();
        Ok(Selection { partitions, series })
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
        let times = || found.iter().flat_map(|(_, samples)| samples.iter().map(|s| s.t));
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
        let first = series.values().filter_map(|s| s.first()).map(|s| s.t).min()?;
        let last = series.values().filter_map(|s| s.last()).map(|s| s.t).max()?;
        Some((first, last))
    }
}

struct Batches {
    series: std::vec::IntoIter<(Labels, Vec<Sample>)>,
    hints: SelectHints,
}

impl Stream for Batches {
    type Item = Result<SeriesBatch>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut batch = SeriesBatch::new();
        while batch.values.len() < self.hints.batch_samples.max(1) {
            let Some((labels, samples)) = self.series.next() else { break };
            if !self.hints.labels_only {
                batch.timestamps.extend(samples.iter().map(|s| s.t));
                batch.values.extend(samples.iter().map(|s| s.v));
            }
            batch.finish_series(labels);
        }
        Poll::Ready((!batch.is_empty()).then_some(Ok(batch)))
    }
}
