//! [`Fanout`]: several sources as one.
//!
//! # Contract
//! Every source divides its series at the same label sets, so partition `i` of the whole is a k-way merge of
//! theirs. Where that is, the newest source says that has enough series to divide. Samples of the same series
//! are merged by time; of two with the same timestamp, the one from the source that comes first in the list
//! counts, be it a float or a histogram.
//!
//! A histogram that does not follow one of its own source loses its counter reset hint, unless it is a gauge:
//! the hint was about another sample before it.
//!
//! # Concurrency
//! A merged stream holds one batch of each source. All sources that are due are polled before it
//! returns `Pending`, so remote sources work at the same time, and each has registered its waker.

mod series;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::error::Result;
use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::needed::Needed;
use crate::query::{
    BlockSummary, ChunkSummary, Queryable, SelectHints, Selection, SeriesStats, SeriesStream,
};
use crate::sample::TimestampMs;

/// Reads several sources as if they were one. See the module for what counts when they overlap.
#[derive(Debug, Clone)]
pub struct Fanout {
    sources: Vec<Arc<dyn Queryable>>,
}

impl Fanout {
    /// The sources, the most trusted first.
    pub fn new(sources: Vec<Arc<dyn Queryable>>) -> Self {
        Self { sources }
    }

    /// Sources that may hold samples in `[mint, maxt]`.
    fn overlapping(&self, mint: TimestampMs, maxt: TimestampMs) -> impl Iterator<Item = &dyn Queryable> {
        self.sources
            .iter()
            .map(|s| &**s)
            .filter(move |s| s.time_bounds().is_some_and(|(first, last)| first <= maxt && mint <= last))
    }

    /// The union of what `list` gives for each source, sorted.
    fn union(
        &self,
        mint: TimestampMs,
        maxt: TimestampMs,
        list: impl Fn(&dyn Queryable) -> Result<Vec<String>>,
    ) -> Result<Vec<String>> {
        let mut lists = self.overlapping(mint, maxt).map(list).collect::<Result<Vec<_>>>()?;
        if lists.len() <= 1 {
            return Ok(lists.pop().unwrap_or_default());
        }
        Ok(lists.into_iter().flatten().collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// Counts different series; `None` if a source is not ready at once.
    fn distinct_series(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> Result<Option<u64>> {
        let hints = SelectHints { labels_only: true, ..SelectHints::default() };
        let mut series = 0;
        let mut context = Context::from_waker(Waker::noop());
        for mut partition in self.select(matchers, mint, maxt, &hints)?.partitions {
            loop {
                match partition.as_mut().poll_next(&mut context) {
                    Poll::Ready(Some(batch)) => series += batch?.len() as u64,
                    Poll::Ready(None) => break,
                    Poll::Pending => return Ok(None),
                }
            }
        }
        Ok(Some(series))
    }
}

impl Queryable for Fanout {
    fn select(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        hints: &SelectHints,
    ) -> Result<Selection> {
        let sources: Vec<_> = self.overlapping(mint, maxt).collect();
        if let [only] = sources[..] {
            return only.select(matchers, mint, maxt, hints);
        }
        let mut hints = hints.clone();
        if hints.partitions > 1 && hints.splits.is_none() {
            hints.splits = Some(self.splits(matchers, mint, maxt, hints.partitions)?.into());
        }
        if hints.needed.looks_past_markers() && !apart(&sources) {
            // Of two samples at one time a marker may be the one that counts.
            hints.needed = Needed::All;
        }
        let hints = &hints;
        let mut merged: Vec<Vec<SeriesStream>> = Vec::new();
        merged.resize_with(hints.partitions.max(1), Vec::new);
        let mut series = 0;
        for source in sources {
            let selection = source.select(matchers, mint, maxt, hints)?;
            if selection.series == 0 {
                continue;
            }
            series += selection.series;
            for (streams, stream) in merged.iter_mut().zip(selection.partitions) {
                streams.push(stream);
            }
        }
        let partitions = merged.into_iter().map(|streams| merge(streams, hints)).collect();
        Ok(Selection { partitions, series })
    }

    /// Those of the last source that has enough series: blocks come before the head.
    fn splits(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        parts: usize,
    ) -> Result<Vec<Labels>> {
        let mut best = Vec::new();
        let sources: Vec<_> = self.overlapping(mint, maxt).collect();
        for source in sources.into_iter().rev() {
            let splits = source.splits(matchers, mint, maxt, parts)?;
            if splits.len() > best.len() || best.is_empty() {
                best = splits;
            }
            if best.len() + 1 >= parts {
                break;
            }
        }
        Ok(best)
    }

    fn label_names(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Result<Vec<String>> {
        self.union(mint, maxt, |s| s.label_names(matchers, mint, maxt))
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> Result<Vec<String>> {
        self.union(mint, maxt, |s| s.label_values(name, matchers, mint, maxt))
    }

    fn series_stats(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> Result<SeriesStats> {
        let mut all = Vec::new();
        for source in self.overlapping(mint, maxt) {
            let stats = source.series_stats(matchers, mint, maxt)?;
            if stats.series > 0 {
                all.push(stats);
            }
        }
        if all.len() <= 1 {
            return Ok(all.pop().unwrap_or(SeriesStats { exact: true, ..SeriesStats::default() }));
        }
        // Where sources overlap in time, both may hold the same sample.
        all.sort_by_key(|s| s.min_time);
        let apart = all.windows(2).all(|w| w[0].max_time < w[1].min_time);
        let distinct = self.distinct_series(matchers, mint, maxt)?;
        Ok(SeriesStats {
            series: distinct.unwrap_or_else(|| all.iter().map(|s| s.series).sum()),
            chunks: all.iter().map(|s| s.chunks).sum(),
            samples: all.iter().map(|s| s.samples).sum(),
            min_time: all.iter().map(|s| s.min_time).min().unwrap_or_default(),
            max_time: all.iter().map(|s| s.max_time).max().unwrap_or_default(),
            exact: apart && distinct.is_some() && all.iter().all(|s| s.exact),
        })
    }

    fn series_estimate(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Result<u64> {
        self.overlapping(mint, maxt).map(|source| source.series_estimate(matchers, mint, maxt)).sum()
    }

    fn for_each_chunk(
        &self,
        matchers: &[Matcher],
        visit: &mut dyn FnMut(ChunkSummary) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        for source in self.sources.iter().rev() {
            let visited = source.for_each_chunk(matchers, visit)?;
            if visited.is_break() {
                return Ok(visited);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn time_bounds(&self) -> Option<(TimestampMs, TimestampMs)> {
        self.sources
            .iter()
            .filter_map(|s| s.time_bounds())
            .reduce(|(first, last), (f, l)| (first.min(f), last.max(l)))
    }

    fn blocks(&self) -> Vec<BlockSummary> {
        let mut blocks: Vec<_> = self.sources.iter().flat_map(|s| s.blocks()).collect();
        blocks.sort_by(|a, b| (a.min_time, &a.ulid).cmp(&(b.min_time, &b.ulid)));
        blocks
    }
}

/// Whether no two sources hold samples of the same times.
fn apart(sources: &[&dyn Queryable]) -> bool {
    let mut bounds: Vec<_> = sources.iter().filter_map(|s| s.time_bounds()).collect();
    bounds.sort_unstable();
    bounds.is_sorted_by(|a, b| a.1 < b.0)
}

/// One partition of several sources as one stream.
pub fn merge(mut streams: Vec<SeriesStream>, hints: &SelectHints) -> SeriesStream {
    if streams.len() == 1
        && let Some(only) = streams.pop()
    {
        return only;
    }
    Box::pin(stream::Merge::new(streams, hints))
}
