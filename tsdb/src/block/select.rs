//! Reads series of a block: labels and chunk places at once, samples as the streams are polled.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::Files;
use super::ahead::{self, Ahead};
use super::together::{Group, Wanted};
use crate::chunkenc::{self, ChunkError, Encoding, histogram, xor};
use crate::chunks::{ChunkMeta, ChunkRef};
use crate::error::{Error, Result};
use crate::histogram::CounterResetHint;
use crate::index::SeriesEntry;
use crate::needed::{self, Needed};
use crate::query::{HistogramSample, SelectHints, Selection, SeriesBatch, SeriesStats, SeriesStream};
use crate::sample::{Sample, TimestampMs, ascend, is_stale};
use crate::tombstones::{Interval, Tombstones};

/// Samples in a chunk that the head cut, for guessing sizes.
const USUAL_CHUNK_SAMPLES: usize = 120;
/// How many float samples a histogram counts for when a batch is filled: about as much memory.
const HISTOGRAM_SAMPLES: usize = 32;
/// Chunks that are decoded together at most.
const TOGETHER: usize = 16;
/// How many float samples a series counts for at least when a batch is filled: about as much memory as its labels.
const SERIES_SAMPLES: usize = 16;

/// A selection without series.
pub(super) fn nothing(hints: &SelectHints) -> Selection {
    let empty = || Box::pin(Batches::default()) as SeriesStream;
    Selection { partitions: (0..hints.partitions.max(1)).map(|_| empty()).collect(), series: 0 }
}

/// Divides `references` into partitions; what their series are is read as the streams are polled.
pub(super) fn plan(
    files: &Arc<Files>,
    tombstones: &Arc<Tombstones>,
    references: Vec<u64>,
    range: (TimestampMs, TimestampMs),
    hints: &SelectHints,
) -> Result<Selection> {
    let mut entry = SeriesEntry::default();
    // References ascend with labels.
    let bounds = hints.divide(references.len(), |i, split| {
        files.index.series(references[i], range.0, range.1, &mut entry)?;
        Ok(entry.labels() < *split)
    })?;
    let series = references.len() as u64;
    let references: Arc<[u64]> = references.into();
    let partition = |bounds: &[usize]| {
        let partition = Batches {
            source: Some((Arc::clone(files), Arc::clone(tombstones))),
            range,
            hints: hints.clone(),
            ahead: Ahead::new(Arc::clone(&references), bounds[0]..bounds[1]),
            alone: 0,
            given: 0,
        };
        Box::pin(partition) as SeriesStream
    };
    Ok(Selection { partitions: bounds.windows(2).map(partition).collect(), series })
}

/// Counts series, chunks and samples from the index and chunk headers.
pub(super) fn stats(
    files: &Files,
    tombstones: &Tombstones,
    references: &[u64],
    mint: TimestampMs,
    maxt: TimestampMs,
) -> Result<SeriesStats> {
    let mut stats = SeriesStats { exact: true, ..SeriesStats::default() };
    let mut entry = SeriesEntry::default();
    let (mut first, mut last) = (TimestampMs::MAX, TimestampMs::MIN);
    for reference in references {
        files.index.series(*reference, mint, maxt, &mut entry)?;
        let deleted = tombstones.of(*reference);
        let chunks_before = stats.chunks;
        let mut previous = None;
        for chunk in &entry.chunks {
            let (_, samples) = files.chunks.header(chunk.reference)?;
            stats.chunks += 1;
            stats.samples += u64::from(samples);
            stats.exact &= mint <= chunk.mint
                && chunk.maxt <= maxt
                && previous.is_none_or(|p| p < chunk.mint)
                && !deleted.iter().any(|d| chunk.overlaps(d.mint, d.maxt));
            first = first.min(chunk.mint.max(mint));
            last = last.max(chunk.maxt.min(maxt));
            previous = Some(chunk.maxt);
        }
        stats.series += u64::from(stats.chunks > chunks_before);
    }
    if stats.samples > 0 {
        (stats.min_time, stats.max_time) = (first, last);
    }
    Ok(stats)
}

/// One partition.
#[derive(Debug, Default)]
struct Batches {
    source: Option<(Arc<Files>, Arc<Tombstones>)>,
    range: (TimestampMs, TimestampMs),
    hints: SelectHints,
    ahead: Ahead,
    /// How many series are read one by one, as they cannot be read together.
    alone: usize,
    /// Series given so far.
    given: usize,
}

impl Stream for Batches {
    type Item = Result<SeriesBatch>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let batch = this.next_batch();
        if batch.is_err() {
            // The stream is over; the files may go.
            this.source = None;
        }
        Poll::Ready(match batch {
            Ok(batch) if batch.is_empty() => None,
            other => Some(other),
        })
    }
}

impl Batches {
    fn next_batch(&mut self) -> Result<SeriesBatch> {
        let mut batch = SeriesBatch::new();
        let Some((files, tombstones)) = &self.source else { return Ok(batch) };
        let enough = self.hints.batch_samples.max(1);
        let limit = if self.hints.series_limit == 0 { usize::MAX } else { self.hints.series_limit };
        // Series of which little is read bound a batch too: labels take memory as samples do.
        let most = (enough / SERIES_SAMPLES).max(1).min(limit - self.given);
        while batch_samples(&batch) < enough && batch.len() < most {
            self.ahead.fill(files, self.range, &self.hints, limit - self.given);
            let before = batch.len();
            if self.alone == 0 && !self.hints.labels_only {
                if let Some((_, chunks)) = self.ahead.series().next()
                    && before == 0
                {
                    reserve(&mut batch, self.hints.needed, chunks.len(), self.ahead.left(), enough);
                }
                let (series, samples) = (most - before, enough - batch_samples(&batch));
                let wanted = Wanted { range: self.range, needed: self.hints.needed, series, samples };
                let group = Group::gather(files, tombstones, wanted, &self.ahead);
                if group.read(&mut self.ahead, &mut batch) {
                    self.given += batch.len() - before;
                    continue;
                }
                self.alone = group.len().max(1);
            }
            let Some(series) = self.ahead.next()? else { break };
            self.alone = self.alone.saturating_sub(1);
            let any = self.hints.labels_only || {
                let (chunks, deleted) = (self.ahead.chunks(&series), tombstones.of(series.reference));
                read_needed(files, chunks, deleted, self.range, self.hints.needed, &mut batch)?
            };
            if any {
                batch.finish_series(series.labels);
                self.given += 1;
            }
        }
        Ok(batch)
    }
}

/// Appends the samples of a series that are needed, in `[range.0, range.1]` and not deleted; says whether there are any.
fn read_needed(
    files: &Files,
    chunks: &[ChunkMeta],
    deleted: &[Interval],
    range: (TimestampMs, TimestampMs),
    needed: Needed,
    batch: &mut SeriesBatch,
) -> Result<bool> {
    let before = (batch.values.len(), batch.histograms.len());
    let partly = needed != Needed::All && deleted.is_empty();
    if partly && chunks.is_sorted_by(|a, b| a.maxt < b.mint) {
        needed::read(needed, &mut SomeChunks { files, chunks, range, batch: &mut *batch })?;
    } else {
        read_series(files, chunks, deleted, range, batch)?;
    }
    let any = (batch.values.len(), batch.histograms.len()) != before;
    if any && needed == Needed::Newest {
        batch.keep_newest(before.0, before.1);
    }
    Ok(any)
}

/// Makes room in an empty batch for what is left of a partition, `series` with `chunks` each, or for `enough` samples
/// and the end of a series: one allocation in the usual case.
fn reserve(batch: &mut SeriesBatch, needed: Needed, chunks: usize, series: usize, enough: usize) {
    let expected = match needed {
        // All samples of a chunk are there until one is kept.
        Needed::Newest => {
            series.min(enough / SERIES_SAMPLES) + series.min(ahead::SERIES) * USUAL_CHUNK_SAMPLES
        }
        _ => (series * chunks * USUAL_CHUNK_SAMPLES).min(enough + enough / 8),
    };
    batch.timestamps.reserve(expected);
    batch.values.reserve(expected);
}

/// Chunks of one series, of which some are read.
struct SomeChunks<'a> {
    files: &'a Files,
    /// In order of time and apart.
    chunks: &'a [ChunkMeta],
    range: (TimestampMs, TimestampMs),
    batch: &'a mut SeriesBatch,
}

impl needed::Chunks for SomeChunks<'_> {
    /// Numbers of floats and histograms.
    type Mark = (usize, usize);

    fn len(&self) -> usize {
        self.chunks.len()
    }

    fn starts_inside(&self, i: usize) -> bool {
        (self.range.0..=self.range.1).contains(&self.chunks[i].mint)
    }

    fn first_live(&mut self, i: usize) -> Result<bool> {
        let meta = &self.chunks[i];
        let (encoding, data) = self.files.chunks.chunk(meta.reference)?;
        let first = chunkenc::first_float(encoding, data).filter(|s| s.t == meta.mint && !is_stale(s.v));
        let Some(Sample { t, v }) = first else { return Ok(false) };
        self.batch.timestamps.push(t);
        self.batch.values.push(v);
        if !self.batch.start_timestamps.is_empty() {
            self.batch.start_timestamps.push(0);
        }
        Ok(true)
    }

    fn read(&mut self, chunks: Range<usize>) -> Result<bool> {
        let (floats, histograms) = self.mark();
        read_series(self.files, &self.chunks[chunks], &[], self.range, self.batch)?;
        let live_float = self.batch.values[floats..].iter().any(|v| !is_stale(*v));
        Ok(live_float || self.batch.histograms[histograms..].iter().any(|h| !is_stale(h.histogram.sum)))
    }

    fn mark(&self) -> Self::Mark {
        (self.batch.values.len(), self.batch.histograms.len())
    }

    fn forget(&mut self, (floats, histograms): Self::Mark) {
        self.batch.timestamps.truncate(floats);
        self.batch.values.truncate(floats);
        self.batch.start_timestamps.truncate(floats);
        self.batch.histograms.truncate(histograms);
    }
}

/// What a batch holds, in float samples.
fn batch_samples(batch: &SeriesBatch) -> usize {
    batch.values.len() + batch.histograms.len() * HISTOGRAM_SAMPLES
}

/// Appends the samples of a series in `[range.0, range.1]` that are not deleted.
fn read_series(
    files: &Files,
    chunks: &[ChunkMeta],
    deleted: &[Interval],
    range: (TimestampMs, TimestampMs),
    batch: &mut SeriesBatch,
) -> Result<()> {
    let (series_start, histograms_start) = (batch.timestamps.len(), batch.histograms.len());
    let mut floats = Floats { range, series_start, ascending: true, waiting: Waiting::default() };
    for meta in chunks {
        if deleted.iter().any(|d| d.mint <= meta.mint && meta.maxt <= d.maxt) {
            continue;
        }
        let chunk = files.chunks.chunk(meta.reference);
        let partly = deleted.iter().any(|d| meta.overlaps(d.mint, d.maxt));
        if let Ok((Encoding::Xor, data)) = &chunk
            && !partly
        {
            if floats.waiting.len == TOGETHER {
                floats.read_waiting(files, batch)?;
            }
            floats.waiting.push(meta, data);
            continue;
        }
        // In order, errors too.
        floats.read_waiting(files, batch)?;
        let (encoding, data) = chunk?;
        if encoding.is_histogram() {
            let deleted = if partly { deleted } else { &[] };
            read_histograms(encoding, data, range, deleted, batch)
                .map_err(|e| damaged(files, meta.reference, &e))?;
            continue;
        }
        let start = batch.timestamps.len();
        let SeriesBatch { timestamps, values, start_timestamps, .. } = batch;
        chunkenc::decode_with_start_into(encoding, data, timestamps, values, start_timestamps)
            .map_err(|e| damaged(files, meta.reference, &e))?;
        floats.settle(batch, start, meta.mint, meta.maxt);
        if partly {
            trim(batch, start, |t| !deleted.iter().any(|d| d.mint <= t && t <= d.maxt));
        }
    }
    floats.read_waiting(files, batch)?;
    if !floats.ascending {
        sort_samples(batch, series_start);
    }
    if !batch.histograms[histograms_start..].is_sorted_by(|a, b| a.timestamp < b.timestamp) {
        sort_histograms(batch, histograms_start);
    }
    Ok(())
}

/// What is known of the floats of one series while its chunks are read.
struct Floats<'a> {
    range: (TimestampMs, TimestampMs),
    /// Of the series, in the batch.
    series_start: usize,
    ascending: bool,
    waiting: Waiting<'a>,
}

/// XOR chunks that will be decoded together, as that is faster.
#[derive(Default)]
struct Waiting<'a> {
    data: [&'a [u8]; TOGETHER],
    references: [ChunkRef; TOGETHER],
    len: usize,
    mint: TimestampMs,
    maxt: TimestampMs,
}

impl<'a> Waiting<'a> {
    /// There must be room.
    fn push(&mut self, meta: &ChunkMeta, data: &'a [u8]) {
        let first = self.len == 0;
        self.mint = if first { meta.mint } else { self.mint.min(meta.mint) };
        self.maxt = if first { meta.maxt } else { self.maxt.max(meta.maxt) };
        self.data[self.len] = data;
        self.references[self.len] = meta.reference;
        self.len += 1;
    }
}

impl Floats<'_> {
    /// Appends what waits.
    fn read_waiting(&mut self, files: &Files, batch: &mut SeriesBatch) -> Result<()> {
        let Waiting { data, references, len, mint, maxt } = &mut self.waiting;
        let data = &data[..std::mem::take(len)];
        if data.is_empty() {
            return Ok(());
        }
        let start = batch.timestamps.len();
        xor::decode_many_into(data, &mut batch.timestamps, &mut batch.values)
            .map_err(|(i, e)| damaged(files, references[i], &e))?;
        if !batch.start_timestamps.is_empty() {
            batch.start_timestamps.resize(batch.values.len(), 0);
        }
        let (mint, maxt) = (*mint, *maxt);
        self.settle(batch, start, mint, maxt);
        Ok(())
    }

    /// Looks at the samples from index `start` on, of chunks that say that they are in `[mint, maxt]`: keeps those in
    /// the range, and notes whether they ascend.
    fn settle(&mut self, batch: &mut SeriesBatch, start: usize, mint: TimestampMs, maxt: TimestampMs) {
        let times = &batch.timestamps[start..];
        let sorted = ascend(times);
        self.ascending &= sorted
            && (start == self.series_start || times.first().is_none_or(|t| batch.timestamps[start - 1] < *t));
        let range = self.range;
        if mint < range.0 || range.1 < maxt {
            if sorted {
                clip(batch, start, range);
            } else {
                trim(batch, start, |t| range.0 <= t && t <= range.1);
            }
        }
    }
}

#[cold]
fn damaged(files: &Files, chunk: ChunkRef, error: &ChunkError) -> Error {
    match files.chunks.file(chunk) {
        Ok(file) => Error::corrupt(file, u64::from(chunk.offset()), error.to_string()),
        Err(e) => e,
    }
}

/// Appends the histograms of one chunk in `[range.0, range.1]` that are not deleted.
fn read_histograms(
    encoding: Encoding,
    data: &[u8],
    range: (TimestampMs, TimestampMs),
    deleted: &[Interval],
    batch: &mut SeriesBatch,
) -> Result<(), ChunkError> {
    let mut samples = histogram::Iter::new(encoding, data)?;
    let series = batch.len() as u32;
    let before = batch.histograms.len();
    let mut first_is_gone = false;
    while samples.advance()? {
        let timestamp = samples.timestamp();
        if deleted.iter().any(|d| d.mint <= timestamp && timestamp <= d.maxt) {
            first_is_gone |= batch.histograms.len() == before;
            continue;
        }
        if timestamp < range.0 || range.1 < timestamp {
            continue;
        }
        let mut histogram = samples.to_float();
        if std::mem::take(&mut first_is_gone) && histogram.counter_reset_hint == CounterResetHint::NotReset {
            // That was about the first one, which may have followed a reset.
            histogram.counter_reset_hint = CounterResetHint::Unknown;
        }
        let (start_timestamp, histogram) = (samples.start_timestamp(), Arc::new(histogram));
        batch.histograms.push(HistogramSample { series, timestamp, start_timestamp, histogram });
    }
    Ok(())
}

/// Keeps samples in `[range.0, range.1]` of those from index `start` on, which ascend.
fn clip(batch: &mut SeriesBatch, start: usize, range: (TimestampMs, TimestampMs)) {
    let times = &batch.timestamps[start..];
    let end = start + times.partition_point(|t| *t <= range.1);
    let first = start + times.partition_point(|t| *t < range.0);
    batch.timestamps.truncate(end);
    batch.values.truncate(end);
    batch.start_timestamps.truncate(end);
    if first > start {
        let gone = start..first.min(end);
        batch.timestamps.drain(gone.clone());
        batch.values.drain(gone.clone());
        if !batch.start_timestamps.is_empty() {
            batch.start_timestamps.drain(gone);
        }
    }
}

/// Keeps samples from index `start` on for which `keep(t)` holds.
fn trim(batch: &mut SeriesBatch, start: usize, keep: impl Fn(TimestampMs) -> bool) {
    let starts = !batch.start_timestamps.is_empty();
    let mut to = start;
    for from in start..batch.timestamps.len() {
        let t = batch.timestamps[from];
        if keep(t) {
            batch.timestamps[to] = t;
            batch.values[to] = batch.values[from];
            if starts {
                batch.start_timestamps[to] = batch.start_timestamps[from];
            }
            to += 1;
        }
    }
    batch.timestamps.truncate(to);
    batch.values.truncate(to);
    batch.start_timestamps.truncate(to);
}

/// Puts samples from index `start` on in strictly ascending time; of equal times the first counts.
///
/// Compat: some versions of Prometheus wrote series with overlapping chunks.
#[cold]
fn sort_samples(batch: &mut SeriesBatch, start: usize) {
    let times = batch.timestamps.drain(start..);
    let starts: Vec<TimestampMs> =
        batch.start_timestamps.drain(start.min(batch.start_timestamps.len())..).collect();
    let values = batch.values.drain(start..);
    let mut samples: Vec<(TimestampMs, f64, Option<TimestampMs>)> =
        times.zip(values).enumerate().map(|(i, (t, v))| (t, v, starts.get(i).copied())).collect();
    samples.sort_by_key(|s| s.0);
    samples.dedup_by_key(|s| s.0);
    batch.timestamps.extend(samples.iter().map(|s| s.0));
    batch.values.extend(samples.iter().map(|s| s.1));
    batch.start_timestamps.extend(samples.iter().filter_map(|s| s.2));
}

/// As [`sort_samples`], for histograms.
#[cold]
fn sort_histograms(batch: &mut SeriesBatch, start: usize) {
    batch.histograms[start..].sort_by_key(|h| h.timestamp);
    let series = batch.len() as u32;
    batch.histograms.dedup_by(|b, a| a.series == series && b.series == series && a.timestamp == b.timestamp);
}
