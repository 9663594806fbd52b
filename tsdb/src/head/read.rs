//! Reads of the head: a snapshot at the call, decoded as the stream is polled.
//!
//! A snapshot holds finished chunks by reference, on disk or in memory, and copies the open ones (some hundred bytes each)
//! into one buffer, so an append never waits for a reader that decodes. It is divided into partitions afterwards, and
//! each puts its series in order when it is first polled.

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::Head;
use super::merge::{self, Tail};
use super::ooo::{DeletedByChunk, OooSeries};
use super::open_chunk::ChunkRules;
use super::sample::{self, AnySample};
use super::series::{ClosedChunk, MemSeries};
use super::tombstones::{Intervals, is_deleted};
use super::values::Values;
use crate::chunkenc::{self, Decoded, Encoding};
use crate::chunks;
use crate::error::{Error, Result};
use crate::head_chunks::{Files, HeadChunkRef, HeadChunks, MappedChunk};
use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::needed::{self, Needed};
use crate::query::{
    ChunkSummary, HistogramSample, Queryable, SelectHints, Selection, SeriesBatch, SeriesStats, SeriesStream,
};
use crate::sample::{Sample, TimestampMs, is_stale};

/// Samples of some series as they were at one instant, cut to `[mint, maxt]` when decoded.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    series: Vec<SeriesSnapshot>,
    held: Held,
}

/// What the series of a snapshot refer to.
#[derive(Debug, Default)]
struct Held {
    chunks: Vec<ChunkData>,
    /// Copies of open chunks.
    arena: Vec<u8>,
    /// Where chunks on disk are.
    files: Files,
}

#[derive(Debug)]
struct SeriesSnapshot {
    labels: Labels,
    /// In-order chunks.
    chunks: Range<usize>,
    /// Out-of-order chunks on disk, in the order of writing.
    ooo_chunks: Range<usize>,
    /// Samples of the open out-of-order chunk.
    ooo: Vec<AnySample>,
    /// Deleted of in-order chunks.
    deleted: Option<Intervals>,
    /// Deleted of out-of-order chunks on disk.
    ooo_deleted: DeletedByChunk,
}

impl SeriesSnapshot {
    fn has_ooo(&self) -> bool {
        !self.ooo_chunks.is_empty() || !self.ooo.is_empty()
    }
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

impl From<&MappedChunk> for ChunkData {
    fn from(chunk: &MappedChunk) -> Self {
        let MappedChunk { at, mint, maxt, samples, encoding } = *chunk;
        Self { mint, maxt, encoding, samples, bytes: ChunkBytes::Mapped(at) }
    }
}

impl Snapshot {
    /// Adds what `series` holds in `[mint, maxt]`; nothing, if that is nothing. Without `ooo`, only what came
    /// in order.
    fn add(
        &mut self,
        series: &MemSeries,
        mint: TimestampMs,
        maxt: TimestampMs,
        deleted: Option<Intervals>,
        ooo: bool,
    ) {
        let start = self.held.chunks.len();
        let state = series.lock();
        self.held.chunks.extend(state.mapped.iter().filter(|c| c.overlaps(mint, maxt)).map(ChunkData::from));
        for chunk in state.closed().iter().filter(|c| c.mint <= maxt && c.maxt >= mint) {
            let bytes = ChunkBytes::Closed(Arc::clone(&chunk.data));
            let ClosedChunk { mint, maxt, encoding, .. } = *chunk;
            let samples = chunkenc::num_samples(encoding, &chunk.data);
            self.held.chunks.push(ChunkData { mint, maxt, encoding, samples, bytes });
        }
        if let Some(open) = state.open.as_ref().filter(|o| o.mint <= maxt && o.maxt() >= mint) {
            let from = self.held.arena.len();
            self.held.arena.extend_from_slice(open.bytes());
            let bytes = ChunkBytes::Open(from..self.held.arena.len());
            let (mint, maxt, encoding) = (open.mint, open.maxt(), open.encoding());
            self.held.chunks.push(ChunkData { mint, maxt, encoding, samples: open.len() as u16, bytes });
        }
        let chunks = start..self.held.chunks.len();
        let late = state.ooo().filter(|_| ooo).map(|ooo| self.add_late(ooo, mint, maxt)).unwrap_or_default();
        drop(state);
        let ooo_chunks = chunks.end..self.held.chunks.len();
        if !chunks.is_empty() || !ooo_chunks.is_empty() || !late.0.is_empty() {
            let labels = series.labels.clone();
            let (ooo, ooo_deleted) = late;
            self.series.push(SeriesSnapshot { labels, chunks, ooo_chunks, ooo, deleted, ooo_deleted });
        }
    }

    /// Adds out-of-order chunks on disk; gives samples of the open chunk, and what is deleted of those on disk.
    fn add_late(
        &mut self,
        ooo: &OooSeries,
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> (Vec<AnySample>, DeletedByChunk) {
        self.held.chunks.extend(ooo.mapped.iter().filter(|c| c.overlaps(mint, maxt)).map(ChunkData::from));
        let open = ooo.open.iter().filter(|s| s.t >= mint && s.t <= maxt);
        (open.cloned().collect(), ooo.deleted().clone())
    }

    /// Adds out-of-order samples of `series` in `[mint, maxt]` that are in chunks on disk up to `last`.
    pub(super) fn add_ooo(
        &mut self,
        series: &MemSeries,
        mint: TimestampMs,
        maxt: TimestampMs,
        last: HeadChunkRef,
    ) {
        let state = series.lock();
        let Some(ooo) = state.ooo() else { return };
        let start = self.held.chunks.len();
        let chunks = ooo.mapped.iter().filter(|c| c.at <= last && c.overlaps(mint, maxt));
        self.held.chunks.extend(chunks.map(ChunkData::from));
        let ooo_chunks = start..self.held.chunks.len();
        if !ooo_chunks.is_empty() {
            self.series.push(SeriesSnapshot {
                labels: series.labels.clone(),
                chunks: start..start,
                ooo_chunks,
                ooo: Vec::new(),
                deleted: None,
                ooo_deleted: ooo.deleted().clone(),
            });
        }
    }

    /// Adds the labels of `series`, without samples.
    fn add_labels(&mut self, series: &MemSeries) {
        self.series.push(SeriesSnapshot {
            labels: series.labels.clone(),
            chunks: 0..0,
            ooo_chunks: 0..0,
            ooo: Vec::new(),
            deleted: None,
            ooo_deleted: DeletedByChunk::new(),
        });
    }

    /// Remembers the files that hold its chunks.
    pub(super) fn pin(&mut self, files: Option<Files>) {
        self.held.files = files.unwrap_or_default();
    }

    /// Number of series.
    pub(super) fn len(&self) -> usize {
        self.series.len()
    }

    /// Labels of series `i`.
    pub(super) fn labels(&self, i: usize) -> Labels {
        self.series[i].labels.clone()
    }

    /// Samples of series `i` in `[mint, maxt]` as chunks. Chunks that lie inside and are all that there is go
    /// as they are.
    pub(super) fn encode(
        &self,
        i: usize,
        mint: TimestampMs,
        maxt: TimestampMs,
        rules: ChunkRules,
    ) -> Result<Vec<chunks::ChunkData>> {
        let series = &self.series[i];
        let own = &self.held.chunks[series.chunks.clone()];
        let touched = series.deleted.is_some() || series.has_ooo();
        if !touched && own.iter().all(|c| c.mint >= mint && c.maxt <= maxt) {
            let copy = |c: &ChunkData| {
                let bytes = self.held.bytes(c)?.to_vec();
                Ok(chunks::ChunkData { mint: c.mint, maxt: c.maxt, encoding: c.encoding, bytes })
            };
            return own.iter().map(copy).collect();
        }
        let mut decoded = Decoded::default();
        self.decode(i, mint, maxt, &mut decoded)?;
        let encoded = sample::encode_decoded(&decoded, rules).into_iter().map(|c| chunks::ChunkData {
            mint: c.mint,
            maxt: c.maxt,
            encoding: c.encoding,
            bytes: c.data.to_vec(),
        });
        Ok(encoded.collect())
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
        out: &mut Decoded,
    ) -> Result<()> {
        self.held.decode(&self.series[i], mint, maxt, out)
    }

    /// Runs of label order as `hints` want them. Each is put in order by whoever reads it.
    fn divide(self, hints: &SelectHints) -> Vec<(Vec<SeriesSnapshot>, Arc<Held>)> {
        let held = Arc::new(self.held);
        let count = hints.partitions.max(1);
        let mut parts: Vec<Vec<SeriesSnapshot>> = Vec::new();
        parts.resize_with(count, Vec::new);
        match &hints.splits {
            _ if count == 1 => parts[0] = self.series,
            Some(splits) => share(self.series, splits, &mut parts),
            None => {
                let splits = splits_of(self.series.iter().map(|s| &s.labels), count);
                share(self.series, &splits, &mut parts);
            }
        }
        parts.into_iter().map(|series| (series, Arc::clone(&held))).collect()
    }
}

fn share(series: Vec<SeriesSnapshot>, splits: &[Labels], parts: &mut [Vec<SeriesSnapshot>]) {
    let splits = &splits[..splits.len().min(parts.len() - 1)];
    for series in series {
        parts[splits.partition_point(|split| *split <= series.labels)].push(series);
    }
}

/// Label sets that divide `all`, which are in any order, into about equal `parts`: from a sample of them.
fn splits_of<'a>(all: impl ExactSizeIterator<Item = &'a Labels>, parts: usize) -> Vec<Labels> {
    /// Series looked at for each part.
    const SAMPLE: usize = 32;
    let every = (all.len() / (parts * SAMPLE)).max(1);
    let mut sample: Vec<&Labels> = all.step_by(every).collect();
    sample.sort_unstable();
    let mut splits: Vec<Labels> =
        (1..parts).filter_map(|i| sample.get(sample.len() * i / parts)).map(|l| (*l).clone()).collect();
    splits.dedup();
    splits
}

impl Held {
    fn bytes<'a>(&'a self, chunk: &'a ChunkData) -> Result<&'a [u8]> {
        match &chunk.bytes {
            ChunkBytes::Mapped(at) => self.files.chunk(*at),
            ChunkBytes::Closed(data) => Ok(data),
            ChunkBytes::Open(range) => Ok(&self.arena[range.clone()]),
        }
    }

    /// Appends samples of `series` in `[mint, maxt]`, ascending, one per timestamp.
    fn decode(
        &self,
        series: &SeriesSnapshot,
        mint: TimestampMs,
        maxt: TimestampMs,
        out: &mut Decoded,
    ) -> Result<()> {
        let tail = Tail::of(out);
        for chunk in &self.chunks[series.chunks.clone()] {
            let from = Tail::of(out);
            self.decode_chunk(series, chunk, out)?;
            if chunk.maxt > maxt || chunk.mint < mint {
                from.clip(out, mint, maxt);
            }
        }
        if !tail.ascends(out) {
            // Files may say what nobody would write; as in blocks, it is put in order.
            tail.merge(out, Vec::new());
        }
        if let Some(deleted) = &series.deleted {
            tail.retain(out, |t| !is_deleted(deleted, t));
        }
        if series.has_ooo() {
            let late = self.late(series, mint, maxt)?;
            tail.merge(out, late);
        }
        Ok(())
    }

    /// As [`Held::decode`], of what is `needed` at least.
    fn decode_needed(
        &self,
        series: &SeriesSnapshot,
        range: (TimestampMs, TimestampMs),
        needed: Needed,
        out: &mut Decoded,
    ) -> Result<()> {
        let chunks = &self.chunks[series.chunks.clone()];
        let touched = series.deleted.is_some() || series.has_ooo();
        if needed == Needed::All || touched || !chunks.is_sorted_by(|a, b| a.maxt < b.mint) {
            return self.decode(series, range.0, range.1, out);
        }
        needed::read(needed, &mut SomeChunks { held: self, series, chunks, range, out })
    }

    fn decode_chunk(&self, series: &SeriesSnapshot, chunk: &ChunkData, out: &mut Decoded) -> Result<()> {
        chunkenc::decode(chunk.encoding, self.bytes(chunk)?, out)
            .map_err(|e| Error::corrupt("head", 0, format!("{}: {e}", series.labels)))
    }

    /// Out-of-order samples in `[mint, maxt]`, ascending; of those with one timestamp the one that came first.
    fn late(&self, series: &SeriesSnapshot, mint: TimestampMs, maxt: TimestampMs) -> Result<Vec<AnySample>> {
        let mut decoded = Decoded::default();
        let mut late = Vec::new();
        for chunk in &self.chunks[series.ooo_chunks.clone()] {
            self.decode_chunk(series, chunk, &mut decoded)?;
            let from = late.len();
            merge::drain(&mut decoded, &mut late);
            if let ChunkBytes::Mapped(at) = chunk.bytes
                && let Some(deleted) = series.ooo_deleted.get(&at)
            {
                let kept: Vec<AnySample> = late.drain(from..).filter(|s| !is_in(deleted, s.t)).collect();
                late.extend(kept);
            }
        }
        late.extend(series.ooo.iter().cloned());
        late.retain(|s| s.t >= mint && s.t <= maxt);
        // Stable: what came first stays first, and the others go.
        late.sort_by_key(|s| s.t);
        late.dedup_by_key(|s| s.t);
        Ok(late)
    }
}

/// In-order chunks of one series, of which some are decoded.
struct SomeChunks<'a> {
    held: &'a Held,
    series: &'a SeriesSnapshot,
    chunks: &'a [ChunkData],
    range: (TimestampMs, TimestampMs),
    out: &'a mut Decoded,
}

impl needed::Chunks for SomeChunks<'_> {
    type Mark = Tail;

    fn len(&self) -> usize {
        self.chunks.len()
    }

    fn starts_inside(&self, i: usize) -> bool {
        (self.range.0..=self.range.1).contains(&self.chunks[i].mint)
    }

    fn first_live(&mut self, i: usize) -> Result<bool> {
        let chunk = &self.chunks[i];
        let first = chunkenc::first_float(chunk.encoding, self.held.bytes(chunk)?);
        let Some(Sample { t, v }) = first.filter(|s| s.t == chunk.mint && !is_stale(s.v)) else {
            return Ok(false);
        };
        self.out.timestamps.push(t);
        self.out.values.push(v);
        if !self.out.start_timestamps.is_empty() {
            self.out.start_timestamps.push(0);
        }
        Ok(true)
    }

    fn read(&mut self, chunks: Range<usize>) -> Result<bool> {
        let (mint, maxt) = self.range;
        let before = self.mark();
        for chunk in &self.chunks[chunks] {
            let from = self.mark();
            self.held.decode_chunk(self.series, chunk, self.out)?;
            if chunk.maxt > maxt || chunk.mint < mint {
                from.clip(self.out, mint, maxt);
            }
        }
        if !before.ascends(self.out) {
            before.merge(self.out, Vec::new());
        }
        Ok(before.has_live(self.out))
    }

    fn mark(&self) -> Tail {
        Tail::of(self.out)
    }

    fn forget(&mut self, mark: Tail) {
        mark.cut(self.out);
    }
}

/// Whether one of the intervals, in no order, holds `t`.
fn is_in(intervals: &[(TimestampMs, TimestampMs)], t: TimestampMs) -> bool {
    intervals.iter().any(|(mint, maxt)| (*mint..=*maxt).contains(&t))
}

impl Head {
    /// Matching series with data in `[mint, maxt]`, in no order. Without `ooo`, only what came in order.
    fn snapshot_unsorted(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        ooo: bool,
    ) -> Snapshot {
        let mut out = Snapshot::default();
        // Regular expressions run before the lock: commits wait for it.
        let resolved = self.index.resolve(matchers);
        let _whole_commits = self.visibility.read();
        let series = resolved.complete();
        let tombstones = self.tombstones.read();
        for series in &series {
            let deleted = if tombstones.is_empty() { None } else { tombstones.get(series.series) };
            out.add(series, mint, maxt, deleted, ooo);
        }
        // Still under the lock, see `mapping`.
        out.pin(self.chunks.as_ref().map(HeadChunks::files));
        out
    }

    /// Matching series with data in `[mint, maxt]`, in label order. Without `ooo`, only what came in order.
    pub(super) fn snapshot(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        ooo: bool,
    ) -> Snapshot {
        let mut snapshot = self.snapshot_unsorted(matchers, mint, maxt, ooo);
        snapshot.sort();
        snapshot
    }

    /// As [`Head::snapshot_unsorted`], with labels only.
    fn snapshot_labels(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Snapshot {
        let mut out = Snapshot::default();
        self.matching_in(matchers, mint, maxt).iter().for_each(|series| out.add_labels(series));
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
            state.overlaps(mint, maxt) || state.ooo().is_some_and(|ooo| ooo.overlaps(mint, maxt))
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
        let snapshot = if hints.labels_only {
            self.snapshot_labels(matchers, mint, maxt)
        } else {
            self.snapshot_unsorted(matchers, mint, maxt, true)
        };
        let series = snapshot.series.len() as u64;
        let partition = |(series, held)| {
            let hints = hints.clone();
            Box::pin(Batches { series, held, sorted: false, next: 0, given: 0, mint, maxt, hints })
                as SeriesStream
        };
        Ok(Selection { partitions: snapshot.divide(hints).into_iter().map(partition).collect(), series })
    }

    fn splits(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        parts: usize,
    ) -> Result<Vec<Labels>> {
        if !self.overlaps(mint, maxt) {
            return Ok(Vec::new());
        }
        let series = self.index.resolve(matchers).complete();
        Ok(splits_of(series.iter().map(|s| &s.labels), parts))
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
                let values = p.by_name.get(name).into_iter().flat_map(Values::iter);
                values.map(|(value, _)| value.to_owned()).collect::<Vec<_>>()
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
        let snapshot = self.snapshot_unsorted(matchers, mint, maxt, true);
        for series in &snapshot.series {
            stats.series += 1;
            stats.exact &= !series.has_ooo() && series.deleted.is_none();
            let mut add = |samples: u64, from: TimestampMs, to: TimestampMs| {
                stats.chunks += 1;
                stats.samples += samples;
                stats.min_time = stats.min_time.min(from);
                stats.max_time = stats.max_time.max(to);
                stats.exact &= from >= mint && to <= maxt;
            };
            let chunks = series.chunks.start..series.ooo_chunks.end.max(series.chunks.end);
            for chunk in &snapshot.held.chunks[chunks] {
                add(u64::from(chunk.samples), chunk.mint, chunk.maxt);
            }
            if let Some((first, last)) = series.ooo.first().zip(series.ooo.last()) {
                add(series.ooo.len() as u64, first.t, last.t);
            }
        }
        Ok(stats)
    }

    fn for_each_chunk(
        &self,
        matchers: &[Matcher],
        visit: &mut dyn FnMut(ChunkSummary) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let series = self.index.resolve(matchers).complete();
        let files = self.chunks.as_ref().map(HeadChunks::files).unwrap_or_default();
        for series in &series {
            for summary in summaries(series, &files) {
                let visited = visit(summary);
                if visited.is_break() {
                    return Ok(visited);
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn series_estimate(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Result<u64> {
        if !self.overlaps(mint, maxt) {
            return Ok(0);
        }
        Ok(self.index.count_matching(matchers) as u64)
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

/// The chunks of `series`, the out-of-order ones last.
fn summaries(series: &MemSeries, files: &Files) -> Vec<ChunkSummary> {
    let block: Arc<str> = "head".into();
    let summary = |min_time, max_time, encoding, samples: usize, bytes: usize| ChunkSummary {
        block: Arc::clone(&block),
        series: series.series.0,
        labels: series.labels.clone(),
        min_time,
        max_time,
        encoding,
        samples: samples as u64,
        bytes: bytes as u64,
        out_of_order: false,
    };
    let mapped = |chunk: &MappedChunk| {
        // A file that went meanwhile has nothing to say of its size.
        let bytes = files.chunk(chunk.at).map_or(0, <[u8]>::len);
        summary(chunk.mint, chunk.maxt, chunk.encoding.name(), chunk.samples.into(), bytes)
    };
    let state = series.lock();
    let mut all: Vec<_> = state.mapped.iter().map(mapped).collect();
    all.extend(state.closed().iter().map(|chunk| {
        let samples = chunkenc::num_samples(chunk.encoding, &chunk.data);
        summary(chunk.mint, chunk.maxt, chunk.encoding.name(), samples.into(), chunk.data.len())
    }));
    all.extend(
        state.open.as_ref().map(|open| {
            summary(open.mint, open.maxt(), open.encoding().name(), open.len(), open.bytes().len())
        }),
    );
    let Some(late) = state.ooo() else { return all };
    let in_order = all.len();
    all.extend(late.mapped.iter().map(mapped));
    if let Some((first, last)) = late.open.first().zip(late.open.last()) {
        all.push(summary(first.t, last.t, "none", late.open.len(), 0));
    }
    all[in_order..].iter_mut().for_each(|chunk| chunk.out_of_order = true);
    all
}

/// Decodes a partition batch by batch.
struct Batches {
    series: Vec<SeriesSnapshot>,
    held: Arc<Held>,
    /// Whether `series` are in label order: on the first poll, so that partitions are sorted side by side.
    sorted: bool,
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
        if !std::mem::replace(&mut this.sorted, true) {
            this.series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        }
        let mut batch = SeriesBatch::new();
        let mut decoded = Decoded::default();
        let wanted = this.hints.batch_samples.max(1);
        while decoded.values.len() + batch.histograms.len() < wanted && this.next < this.series.len() {
            if this.hints.series_limit > 0 && this.given >= this.hints.series_limit {
                this.next = this.series.len();
                break;
            }
            let i = this.next;
            this.next += 1;
            if !this.hints.labels_only {
                let before = decoded.timestamps.len();
                let (range, needed) = ((this.mint, this.maxt), this.hints.needed);
                if let Err(error) = this.held.decode_needed(&this.series[i], range, needed, &mut decoded) {
                    this.next = this.series.len();
                    return Poll::Ready(Some(Err(error)));
                }
                if decoded.timestamps.len() == before && decoded.histograms.is_empty() {
                    continue;
                }
                let series = batch.len() as u32;
                batch.histograms.extend(decoded.histograms.drain(..).map(|h| HistogramSample {
                    series,
                    timestamp: h.timestamp,
                    start_timestamp: h.start_timestamp,
                    histogram: h.histogram.to_float(),
                }));
            } else if batch.len() >= wanted {
                this.next = i;
                break;
            }
            this.given += 1;
            // The vectors are the batch's while a series is added to it.
            std::mem::swap(&mut batch.timestamps, &mut decoded.timestamps);
            std::mem::swap(&mut batch.values, &mut decoded.values);
            batch.finish_series(this.series[i].labels.clone());
            std::mem::swap(&mut batch.timestamps, &mut decoded.timestamps);
            std::mem::swap(&mut batch.values, &mut decoded.values);
        }
        (batch.timestamps, batch.values) = (decoded.timestamps, decoded.values);
        batch.start_timestamps = decoded.start_timestamps;
        if !batch.start_timestamps.is_empty() {
            batch.start_timestamps.resize(batch.values.len(), 0);
        }
        Poll::Ready((!batch.is_empty()).then_some(Ok(batch)))
    }
}
