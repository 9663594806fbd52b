//! One series of the head: its chunks and the rules of appending to them.
//!
//! # Invariants
//! In-order chunks ascend and do not overlap: those on disk, then finished ones in memory, then the
//! open one.
//!
//! # Source
//! Rules of cutting and accepting are those of
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/head_append.go>.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::ooo::OooSeries;
use super::open_chunk::{ChunkRules, HistogramAppended, Newest, OpenChunk, append_histogram};
use super::sample::{AnySample, Value};
use crate::chunkenc::Encoding;
use crate::chunkenc::histogram::{FloatCoder, IntegerCoder};
use crate::error::AppendError;
use crate::head_chunks::MappedChunk;
use crate::histogram::HistogramValue;
use crate::labels::Labels;
use crate::sample::{SeriesRef, TimestampMs};

/// A series in memory.
#[derive(Debug)]
pub(crate) struct MemSeries {
    pub(crate) series: SeriesRef,
    pub(crate) labels: Labels,
    /// Whether a series record is in the log. Set under the commit lock.
    logged: AtomicBool,
    state: Mutex<SeriesState>,
}

/// What changes about a series. There are millions of them: what few series have is behind one pointer.
#[derive(Debug, Default)]
pub(crate) struct SeriesState {
    /// Finished chunks on disk.
    pub(crate) mapped: Box<[MappedChunk]>,
    pub(crate) open: Option<OpenChunk>,
    rare: Option<Box<Rare>>,
}

/// What a series has seldom, or not for long.
#[derive(Debug, Default)]
struct Rare {
    /// Finished chunks that are not on disk yet.
    closed: Vec<ClosedChunk>,
    ooo: OooSeries,
}

/// A chunk that takes no more samples; `[mint, maxt]`.
#[derive(Debug, Clone)]
pub(crate) struct ClosedChunk {
    pub(crate) mint: TimestampMs,
    pub(crate) maxt: TimestampMs,
    pub(crate) encoding: Encoding,
    pub(crate) data: Arc<[u8]>,
}

impl MemSeries {
    pub(crate) fn new(series: SeriesRef, labels: Labels, logged: bool) -> Self {
        Self { series, labels, logged: AtomicBool::new(logged), state: Mutex::default() }
    }

    /// Whether the log knows this series.
    pub(crate) fn is_logged(&self) -> bool {
        self.logged.load(Ordering::Relaxed)
    }

    pub(crate) fn set_logged(&self, logged: bool) {
        self.logged.store(logged, Ordering::Relaxed);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, SeriesState> {
        self.state.lock()
    }
}

/// Answer to whether a sample may be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acceptance {
    /// It is new.
    Append,
    /// The very same sample is already there.
    Same,
    /// It is new, and older than what there is.
    OutOfOrder,
}

/// What decides whether a sample is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// In-order samples are not older than this.
    pub(crate) floor: TimestampMs,
    /// Out-of-order samples are not older than this; `None` takes none.
    pub(crate) out_of_order_floor: Option<TimestampMs>,
}

impl Limits {
    /// Whether a sample that is not newer than what there is may come.
    pub(crate) fn late(&self, t: TimestampMs) -> Result<Acceptance, AppendError> {
        match self.out_of_order_floor {
            Some(floor) if t >= floor => Ok(Acceptance::OutOfOrder),
            Some(_) => Err(AppendError::TooOld),
            None if t < self.floor => Err(AppendError::OutOfBounds),
            None => Err(AppendError::OutOfOrder),
        }
    }
}

/// What became of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Appended {
    /// Refused: its timestamp is not newer than what is there.
    NotNewer,
    /// Refused: a histogram whose parts do not agree.
    Malformed,
    /// It went to the open chunk.
    SameChunk,
    /// It began the first chunk.
    FirstChunk,
    /// It began a chunk, and another one ended.
    NextChunk,
}

impl SeriesState {
    /// Starts to load from memory what an append needs.
    pub(crate) fn prefetch(&self) {
        if let Some(open) = &self.open {
            open.prefetch();
        }
    }

    /// Newest in-order timestamp.
    pub(crate) fn max_time(&self) -> Option<TimestampMs> {
        let closed = || self.closed().last().map(|c| c.maxt);
        let mapped = || self.mapped.last().map(|c| c.maxt);
        self.open.as_ref().map(OpenChunk::maxt).or_else(closed).or_else(mapped)
    }

    /// Oldest in-order timestamp.
    pub(crate) fn in_order_min_time(&self) -> Option<TimestampMs> {
        let closed = || self.closed().first().map(|c| c.mint);
        let open = || self.open.as_ref().map(|o| o.mint);
        self.mapped.first().map(|c| c.mint).or_else(closed).or_else(open)
    }

    /// Finished chunks that are not on disk yet.
    pub(crate) fn closed(&self) -> &[ClosedChunk] {
        self.rare.as_ref().map_or(&[], |r| &r.closed)
    }

    /// Out-of-order samples; `None` is the usual case.
    pub(crate) fn ooo(&self) -> Option<&OooSeries> {
        self.rare.as_ref().map(|r| &r.ooo).filter(|ooo| !ooo.is_empty())
    }

    /// Out-of-order samples, to be changed; followed by [`SeriesState::drop_rare`] where some may go.
    pub(super) fn ooo_mut(&mut self) -> &mut OooSeries {
        &mut self.rare.get_or_insert_default().ooo
    }

    /// As [`SeriesState::ooo_mut`], if there are any.
    pub(super) fn ooo_if_any(&mut self) -> Option<&mut OooSeries> {
        self.rare.as_mut().map(|r| &mut r.ooo).filter(|ooo| !ooo.is_empty())
    }

    /// Bytes of what few series have.
    pub(super) fn pending_bytes(&self) -> usize {
        let closed = self.closed().iter().map(|c| size_of::<ClosedChunk>() + c.data.len()).sum::<usize>();
        let ooo = |r: &Rare| {
            r.ooo.open.capacity() * size_of::<AnySample>()
                + r.ooo.mapped.capacity() * size_of::<MappedChunk>()
        };
        closed + self.rare.as_ref().map_or(0, |r| size_of::<Rare>() + ooo(r))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks() == 0
    }

    /// Number of chunks.
    pub(crate) fn chunks(&self) -> usize {
        let memory = self.closed().len() + usize::from(self.open.is_some());
        self.mapped.len() + memory + self.ooo().map_or(0, OooSeries::chunks)
    }

    /// Whether there is an in-order sample in `[mint, maxt]`, going by chunks.
    pub(crate) fn overlaps(&self, mint: TimestampMs, maxt: TimestampMs) -> bool {
        self.mapped.iter().any(|c| c.overlaps(mint, maxt))
            || self.closed().iter().any(|c| c.mint <= maxt && c.maxt >= mint)
            || self.open.as_ref().is_some_and(|o| o.mint <= maxt && o.maxt() >= mint)
    }

    /// Whether a sample may be appended.
    pub(crate) fn appendable(
        &self,
        t: TimestampMs,
        value: &Value,
        limits: Limits,
    ) -> Result<Acceptance, AppendError> {
        let newest = self.max_time();
        if t >= limits.floor {
            match newest {
                None => return Ok(Acceptance::Append),
                Some(newest) if t > newest => return Ok(Acceptance::Append),
                Some(newest) if t == newest => return self.same_time(t, value),
                Some(_) => {}
            }
        }
        limits.late(t)
    }

    /// A sample with the time of the newest one must be the same.
    fn same_time(&self, t: TimestampMs, value: &Value) -> Result<Acceptance, AppendError> {
        // As upstream, a value that is on disk is not compared.
        let Some(open) = &self.open else { return Ok(Acceptance::Same) };
        match (open.newest(), value) {
            (Newest::Float(existing), Value::Float(new)) if existing.to_bits() != new.to_bits() => {
                Err(AppendError::Duplicate { timestamp: t, existing, new: *new })
            }
            (Newest::Histogram(_), Value::Float(new)) => {
                Err(AppendError::DuplicateOfHistogram { timestamp: t, new: *new })
            }
            (Newest::Float(_), Value::Histogram(_)) => Err(AppendError::DuplicateHistogram),
            (Newest::Histogram(existing), Value::Histogram(new)) if !existing.equals(new) => {
                Err(AppendError::DuplicateHistogram)
            }
            _ => Ok(Acceptance::Same),
        }
    }

    /// The newest in-order sample, if that is a histogram in memory; or a histogram of the kind that the newest
    /// chunk on disk has.
    pub(crate) fn newest_histogram(&self) -> Option<HistogramValue> {
        if let Some(open) = &self.open {
            return match open.newest() {
                Newest::Histogram(histogram) => Some(histogram),
                Newest::Float(_) => None,
            };
        }
        let encoding = self.closed().last().map(|c| c.encoding).or(self.mapped.last().map(|c| c.encoding));
        match encoding? {
            Encoding::Histogram | Encoding::HistogramSt => Some(HistogramValue::Integer(Arc::default())),
            Encoding::FloatHistogram | Encoding::FloatHistogramSt => {
                Some(HistogramValue::Float(Arc::default()))
            }
            Encoding::Xor | Encoding::Xor2 => None,
        }
    }

    /// Appends a float in order. `start` is its start timestamp, 0 if there is none.
    pub(crate) fn append_float(
        &mut self,
        t: TimestampMs,
        start: TimestampMs,
        v: f64,
        rules: ChunkRules,
    ) -> Appended {
        if self.max_time().is_some_and(|newest| t <= newest) {
            return Appended::NotNewer;
        }
        let mut appended = Appended::SameChunk;
        if self.open.as_mut().is_none_or(|open| !open.takes_float(t, rules)) {
            appended = self.close_open();
            self.open = Some(OpenChunk::floats(t, rules));
        }
        if let Some(open) = &mut self.open {
            open.append_float(t, start, v);
        }
        appended
    }

    /// Appends a histogram in order. `start` is its start timestamp, 0 if there is none.
    pub(crate) fn append_histogram(
        &mut self,
        t: TimestampMs,
        start: TimestampMs,
        value: &HistogramValue,
        rules: ChunkRules,
    ) -> Appended {
        if self.max_time().is_some_and(|newest| t <= newest) {
            return Appended::NotNewer;
        }
        let open = self.open.as_mut();
        let appended = match value {
            HistogramValue::Integer(h) => append_histogram::<IntegerCoder>(open, t, start, h, rules),
            HistogramValue::Float(h) => append_histogram::<FloatCoder>(open, t, start, h, rules),
        };
        match appended {
            Ok(HistogramAppended::Same) => Appended::SameChunk,
            Ok(HistogramAppended::Next(next)) => {
                let appended = self.close_open();
                self.open = Some(next);
                appended
            }
            Err(_) => Appended::Malformed,
        }
    }

    fn close_open(&mut self) -> Appended {
        let Some(open) = self.open.take() else { return Appended::FirstChunk };
        let closed = &mut self.rare.get_or_insert_default().closed;
        closed.reserve_exact(1);
        closed.push(open.into_closed());
        Appended::NextChunk
    }

    /// Takes over chunks on disk, while there is nothing in memory yet; what overlaps is left out.
    ///
    /// Returns how many there are now more.
    pub(crate) fn attach(&mut self, chunks: Vec<MappedChunk>) -> usize {
        if self.open.is_some() || !self.closed().is_empty() {
            return 0;
        }
        let before = self.mapped.len();
        let mut all = std::mem::take(&mut self.mapped).into_vec();
        all.extend(chunks);
        all.sort_by_key(|c| c.mint);
        let mut end = None;
        all.retain(|c| {
            let follows = end.is_none_or(|end| c.mint > end);
            if follows {
                end = Some(c.maxt);
            }
            follows
        });
        self.mapped = all.into_boxed_slice();
        self.mapped.len() - before
    }

    /// Takes over a chunk that was open when a snapshot was taken; it takes no more samples. Says whether
    /// it is newer than what is there.
    pub(crate) fn restore(&mut self, chunk: ClosedChunk) -> bool {
        let newer = self.max_time().is_none_or(|newest| chunk.mint > newest);
        if newer {
            self.rare.get_or_insert_default().closed.push(chunk);
        }
        newer
    }

    /// Replaces finished chunks in memory by those on disk; `chunks` are some of the oldest ones.
    pub(crate) fn set_mapped(&mut self, chunks: &[MappedChunk]) {
        let Some(rare) = &mut self.rare else { return };
        let mut mapped = std::mem::take(&mut self.mapped).into_vec();
        // A truncation may have come between.
        let still = chunks.iter().filter(|c| rare.closed.iter().any(|closed| closed.mint == c.mint));
        mapped.extend(still);
        rare.closed.retain(|closed| chunks.iter().all(|c| c.mint != closed.mint));
        self.mapped = mapped.into_boxed_slice();
        self.drop_rare();
    }

    pub(super) fn drop_rare(&mut self) {
        if self.rare.as_ref().is_some_and(|r| r.closed.is_empty() && r.ooo.is_empty()) {
            self.rare = None;
        }
    }

    /// Drops in-order chunks that end before `mint`; returns how many.
    pub(crate) fn truncate(&mut self, mint: TimestampMs) -> usize {
        let before = self.chunks();
        let gone = self.mapped.partition_point(|c| c.maxt < mint);
        if gone > 0 {
            self.mapped = Box::from(&self.mapped[gone..]);
        }
        if self.open.as_ref().is_some_and(|o| o.maxt() < mint) {
            self.open = None;
        }
        if let Some(rare) = &mut self.rare {
            rare.closed.retain(|c| c.maxt >= mint);
            self.drop_rare();
        }
        before - self.chunks()
    }
}
