//! Reads of the head: a snapshot at the call, decoded as the stream is polled.
//!
//! A snapshot holds finished chunks by reference, on disk or in memory, and copies the open ones (some hundred bytes each)
//! into one buffer per partition, so an append never waits for a reader that decodes.

use std::collections::BTreeSet;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::Head;
use super::series::{ClosedChunk, MemSeries};
use super::tombstones::{Intervals, is_deleted};
use crate::chunkenc::{self, Encoding};
use crate::chunks;
use crate::error::{Error, Result};
use crate::head_chunks::{Files, HeadChunkRef, HeadChunks, MappedChunk};
use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::query::{Queryable, SelectHints, Selection, SeriesBatch, SeriesStats, SeriesStream};
use crate::sample::{Sample, TimestampMs};

/// Samples of some series as they were at one instant, cut to `[mint, maxt]` when decoded.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    series: Vec<SeriesSnapshot>,
    chunks: Vec<ChunkData>,
    /// Copies of open chunks.
    arena: Vec<u8>,
    /// Where chunks on disk are.
    files: Files,
}

#[derive(Debug)]
struct SeriesSnapshot {
    labels: Labels,
    chunks: Range<usize>,
    ooo: Vec<Sample>,
    deleted: Option<Intervals>,
}

#[derive(Debug)]
struct ChunkData {
    mint: TimestampMs,
    maxt: TimestampMs,
    encoding: Encoding,
    samples: u16,
    bytes: ChunkBytes,
}

#[derive(Debug)]
enum ChunkBytes {
    Mapped(HeadChunkRef),
    Closed(Arc<[u8]>),
    Open(Range<usize>),
}

impl Snapshot {
    /// Adds what `series` holds in `[mint, maxt]`; nothing, if that is nothing.
    fn add(&mut self, series: &MemSeries, mint: TimestampMs, maxt: TimestampMs, deleted: Option<Intervals>) {
        let start = self.chunks.len();
        let state = series.lock();
        for chunk in state.mapped.iter().filter(|c| c.overlaps(mint, maxt)) {
            let MappedChunk { at, mint, maxt, samples, encoding } = *chunk;
            self.chunks.push(ChunkData { mint, maxt, encoding, samples, bytes: ChunkBytes::Mapped(at) });
        }
        for chunk in state.closed().iter().filter(|c| c.mint <= maxt && c.maxt >= mint) {
            let bytes = ChunkBytes::Closed(Arc::clone(&chunk.data));
            let ClosedChunk { mint, maxt, encoding, .. } = *chunk;
            let samples = chunkenc::num_samples(encoding, &chunk.data);
            self.chunks.push(ChunkData { mint, maxt, encoding, samples, bytes });
        }
        if let Some(open) = state.open.as_ref().filter(|o| o.mint <= maxt && o.maxt() >= mint) {
            let from = self.arena.len();
            self.arena.extend_from_slice(open.bytes());
            let bytes = ChunkBytes::Open(from..self.arena.len());
            let (mint, maxt, encoding) = (open.mint, open.maxt(), open.encoding());
            self.chunks.push(ChunkData { mint, maxt, encoding, samples: open.len() as u16, bytes });
        }
        let ooo = state.ooo().iter().filter(|s| s.t >= mint && s.t <= maxt).copied().collect::<Vec<_>>();
        drop(state);
        let chunks = start..self.chunks.len();
        if !chunks.is_empty() || !ooo.is_empty() {
            self.series.push(SeriesSnapshot { labels: series.labels.clone(), chunks, ooo, deleted });
        }
    }

    /// Adds the labels of `series`, without samples.
    fn add_labels(&mut self, series: &MemSeries) {
        let labels = series.labels.clone();
        self.series.push(SeriesSnapshot { labels, chunks: 0..0, ooo: Vec::new(), deleted: None });
    }

    /// Number of series.
    pub(super) fn len(&self) -> usize {
        self.series.len()
    }

    /// Labels of series `i`.
    pub(super) fn labels(&self, i: usize) -> Labels {
        self.series[i].labels.clone()
    }

    /// Chunks of series `i`; `None` if they are not just its samples in `[mint, maxt]`.
    pub(super) fn whole_chunks(
        &self,
        i: usize,
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> Option<Result<Vec<chunks::ChunkData>>> {
        let series = &self.series[i];
        let chunks = &self.chunks[series.chunks.clone()];
        let touched = series.deleted.is_some() || !series.ooo.is_empty();
        let whole = !touched && chunks.iter().all(|c| c.mint >= mint && c.maxt <= maxt);
        let copy = |c: &ChunkData| {
            let bytes = self.bytes(c)?.to_vec();
            Ok(chunks::ChunkData { mint: c.mint, maxt: c.maxt, encoding: c.encoding, bytes })
        };
        whole.then(|| chunks.iter().map(copy).collect())
    }

    fn bytes<'a>(&'a self, chunk: &'a ChunkData) -> Result<&'a [u8]> {
        match &chunk.bytes {
            ChunkBytes::Mapped(at) => self.files.chunk(*at),
            ChunkBytes::Closed(data) => Ok(data),
            ChunkBytes::Open(range) => Ok(&self.arena[range.clone()]),
        }
    }

    fn sort(&mut self) {
        self.series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
    }

    /// Appends samples of series `i` in `[mint, maxt]`, ascending, one per timestamp.
    pub(super) fn decode(
        &self,
        i: usize,
        mint: TimestampMs,
        maxt: TimestampMs,
        timestamps: &mut Vec<TimestampMs>,
        values: &mut Vec<f64>,
    ) -> Result<()> {
        let series = &self.series[i];
        let start = timestamps.len();
        for chunk in &self.chunks[series.chunks.clone()] {
            let from = timestamps.len();
            chunkenc::decode_into(chunk.encoding, self.bytes(chunk)?, timestamps, values)
                .map_err(|e| Error::corrupt("head", 0, format!("{}: {e}", series.labels)))?;
            if chunk.maxt > maxt {
                let end = from + timestamps[from..].partition_point(|t| *t <= maxt);
                timestamps.truncate(end);
                values.truncate(end);
            }
            if chunk.mint < mint {
                let skip = timestamps[from..].partition_point(|t| *t < mint);
                timestamps.drain(from..from + skip);
                values.drain(from..from + skip);
            }
        }
        if !series.ooo.is_empty() {
            merge_tail(timestamps, values, start, &series.ooo);
        }
        if let Some(deleted) = &series.deleted {
            drop_deleted(timestamps, values, start, deleted);
        }
        Ok(())
    }
}

/// Merges `ooo` into the samples from `start` on; the in-order sample wins.
fn merge_tail(timestamps: &mut Vec<TimestampMs>, values: &mut Vec<f64>, start: usize, ooo: &[Sample]) {
    let in_order_t = timestamps.split_off(start);
    let in_order_v = values.split_off(start);
    let mut late = ooo.iter().peekable();
    for (t, v) in in_order_t.into_iter().zip(in_order_v) {
        while let Some(s) = late.next_if(|s| s.t < t) {
            timestamps.push(s.t);
            values.push(s.v);
        }
        late.next_if(|s| s.t == t);
        timestamps.push(t);
        values.push(v);
    }
    timestamps.extend(late.clone().map(|s| s.t));
    values.extend(late.map(|s| s.v));
}

fn drop_deleted(
    timestamps: &mut Vec<TimestampMs>,
    values: &mut Vec<f64>,
    start: usize,
    deleted: &[(TimestampMs, TimestampMs)],
) {
    let mut kept = start;
    for i in start..timestamps.len() {
        if !is_deleted(deleted, timestamps[i]) {
            timestamps[kept] = timestamps[i];
            values[kept] = values[i];
            kept += 1;
        }
    }
    timestamps.truncate(kept);
    values.truncate(kept);
}

impl Head {
    /// Matching series with data in `[mint, maxt]`, by partition, in label order.
    pub(super) fn snapshot(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        partitions: usize,
    ) -> Vec<Snapshot> {
        let mut out = (0..partitions.max(1)).map(|_| Snapshot::default()).collect::<Vec<_>>();
        {
            // Regular expressions run before the lock: commits wait for it.
            let resolved = self.index.resolve(matchers);
            let _whole_commits = self.visibility.read();
            let series = resolved.complete();
            let tombstones = self.tombstones.read();
            for series in &series {
                let deleted = if tombstones.is_empty() { None } else { tombstones.get(series.series) };
                out[series.labels.partition(partitions)].add(series, mint, maxt, deleted);
            }
            // Still under the lock, see `mapping`.
            let files = self.chunks.as_ref().map(HeadChunks::files).unwrap_or_default();
            out.iter_mut().for_each(|snapshot| snapshot.files = files.clone());
        }
        out.iter_mut().for_each(Snapshot::sort);
        out
    }

    /// As [`Head::snapshot`], with labels only.
    fn snapshot_labels(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        partitions: usize,
    ) -> Vec<Snapshot> {
        let mut out = (0..partitions.max(1)).map(|_| Snapshot::default()).collect::<Vec<_>>();
        for series in self.matching_in(matchers, mint, maxt) {
            out[series.labels.partition(partitions)].add_labels(&series);
        }
        out.iter_mut().for_each(Snapshot::sort);
        out
    }

    fn overlaps(&self, mint: TimestampMs, maxt: TimestampMs) -> bool {
        self.time_bounds().is_some_and(|(min, max)| min <= maxt && max >= mint)
    }

    /// Matching series that have something in `[mint, maxt]`.
    fn matching_in(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Vec<Arc<MemSeries>> {
        let resolved = self.index.resolve(matchers);
        let _whole_commits = self.visibility.read();
        let mut series = resolved.complete();
        series.retain(|s| {
            let state = s.lock();
            state.overlaps(mint, maxt) || state.ooo().iter().any(|s| s.t >= mint && s.t <= maxt)
        });
        series
    }
}

impl Queryable for Head {
    fn select(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        hints: &SelectHints,
    ) -> Result<Selection> {
        let snapshots = if hints.labels_only {
            self.snapshot_labels(matchers, mint, maxt, hints.partitions)
        } else {
            self.snapshot(matchers, mint, maxt, hints.partitions)
        };
        let series = snapshots.iter().map(|s| s.series.len() as u64).sum();
        let partitions = snapshots
            .into_iter()
            .map(|snapshot| {
                Box::pin(Batches { snapshot, next: 0, given: 0, mint, maxt, hints: hints.clone() })
                    as SeriesStream
            })
            .collect();
        Ok(Selection { partitions, series })
    }

    fn label_names(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Result<Vec<String>> {
        if matchers.is_empty() && self.covers(mint, maxt) {
            let mut names =
                self.index.with_postings(|p| p.by_name.keys().map(|n| n.to_string()).collect::<Vec<_>>());
            names.sort_unstable();
            return Ok(names);
        }
        let mut names = BTreeSet::new();
        for series in self.matching_in(matchers, mint, maxt) {
            for (name, _) in series.labels.iter() {
                if !names.contains(name) {
                    names.insert(name.to_owned());
                }
            }
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
        if matchers.is_empty() && self.covers(mint, maxt) {
            let mut values = self.index.with_postings(|p| {
                p.by_name.get(name).map_or_else(Vec::new, |v| v.keys().map(|v| v.to_string()).collect())
            });
            values.sort_unstable();
            return Ok(values);
        }
        let mut values = BTreeSet::new();
        for series in self.matching_in(matchers, mint, maxt) {
            if let Some(value) = series.labels.get(name)
                && !values.contains(value)
            {
                values.insert(value.to_owned());
            }
        }
        Ok(values.into_iter().collect())
    }

    fn series_stats(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> Result<SeriesStats> {
        let mut stats =
            SeriesStats { min_time: i64::MAX, max_time: i64::MIN, exact: true, ..SeriesStats::default() };
        for snapshot in self.snapshot(matchers, mint, maxt, 1) {
            for series in &snapshot.series {
                stats.series += 1;
                stats.exact &= series.ooo.is_empty() && series.deleted.is_none();
                let mut add = |samples: u64, from: TimestampMs, to: TimestampMs| {
                    stats.chunks += 1;
                    stats.samples += samples;
                    stats.min_time = stats.min_time.min(from);
                    stats.max_time = stats.max_time.max(to);
                    stats.exact &= from >= mint && to <= maxt;
                };
                for chunk in &snapshot.chunks[series.chunks.clone()] {
                    add(u64::from(chunk.samples), chunk.mint, chunk.maxt);
                }
                if let (Some(first), Some(last)) = (series.ooo.first(), series.ooo.last()) {
                    add(series.ooo.len() as u64, first.t, last.t);
                }
            }
        }
        Ok(stats)
    }

    fn series_estimate(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Result<u64> {
        if !self.overlaps(mint, maxt) {
            return Ok(0);
        }
        Ok(self.index.with_postings(|postings| postings.matching(matchers).len()) as u64)
    }

    /// Out-of-order samples may lie before the in-order window; they count.
    fn time_bounds(&self) -> Option<(TimestampMs, TimestampMs)> {
        let both = self.bounds().into_iter().chain(self.ooo_bounds());
        both.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }
}

impl Head {
    /// Whether `[mint, maxt]` holds all that the head has, so that postings alone answer. As upstream,
    /// they also know series whose first batch was not committed yet.
    fn covers(&self, mint: TimestampMs, maxt: TimestampMs) -> bool {
        self.overlaps(mint, maxt) && self.time_bounds().is_some_and(|(min, max)| mint <= min && max <= maxt)
    }
}

/// Decodes a partition batch by batch.
struct Batches {
    snapshot: Snapshot,
    next: usize,
    given: usize,
    mint: TimestampMs,
    maxt: TimestampMs,
    hints: SelectHints,
}

impl Stream for Batches {
    type Item = Result<SeriesBatch>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let mut batch = SeriesBatch::new();
        while batch.values.len() < this.hints.batch_samples.max(1) && this.next < this.snapshot.series.len() {
            if this.hints.series_limit > 0 && this.given >= this.hints.series_limit {
                this.next = this.snapshot.series.len();
                break;
            }
            let i = this.next;
            this.next += 1;
            if !this.hints.labels_only {
                let before = batch.timestamps.len();
                let result =
                    this.snapshot.decode(i, this.mint, this.maxt, &mut batch.timestamps, &mut batch.values);
                if let Err(error) = result {
                    this.next = this.snapshot.series.len();
                    return Poll::Ready(Some(Err(error)));
                }
                if batch.timestamps.len() == before {
                    continue;
                }
            } else if batch.len() >= this.hints.batch_samples.max(1) {
                this.next = i;
                break;
            }
            this.given += 1;
            batch.finish_series(this.snapshot.series[i].labels.clone());
        }
        Poll::Ready((!batch.is_empty()).then_some(Ok(batch)))
    }
}
