//! One series of the head: its chunks and the rules of appending to them.
//!
//! # Source
//! Rules of cutting and accepting are those of
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/head_append.go>.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::chunkenc::xor;
use crate::error::AppendError;
use crate::labels::Labels;
use crate::sample::{Sample, SeriesRef, TimestampMs};

/// Samples that a chunk should hold.
pub(super) const SAMPLES_PER_CHUNK: usize = 120;
/// A chunk larger than this is cut whatever its count: 1 KiB less the largest sample.
const MAX_CHUNK_BYTES: usize = 1024 - 19;
/// Most chunks of slow counters fit; others grow once.
const OPEN_CHUNK_BYTES: usize = 128;

/// A series in memory.
#[derive(Debug)]
pub(crate) struct MemSeries {
    pub(crate) series: SeriesRef,
    pub(crate) labels: Labels,
    /// Whether a series record is in the log. Set under the commit lock.
    logged: AtomicBool,
    state: Mutex<SeriesState>,
}

/// What changes about a series.
#[derive(Debug, Default)]
pub(crate) struct SeriesState {
    /// Finished chunks, ascending, not overlapping.
    pub(crate) closed: Vec<ClosedChunk>,
    pub(crate) open: Option<OpenChunk>,
    /// Out-of-order samples, ascending, one per timestamp. Only replay fills it.
    #[expect(
        clippy::box_collection,
        reason = "8 bytes instead of 24 in every series, for the few that have any"
    )]
    pub(crate) ooo: Option<Box<Vec<Sample>>>,
}

/// A chunk that takes no more samples; `[mint, maxt]`.
#[derive(Debug, Clone)]
pub(crate) struct ClosedChunk {
    pub(crate) mint: TimestampMs,
    pub(crate) maxt: TimestampMs,
    pub(crate) data: Arc<[u8]>,
}

/// The newest chunk.
#[derive(Debug)]
pub(crate) struct OpenChunk {
    pub(crate) mint: TimestampMs,
    /// A sample at or after this starts the next chunk.
    next_at: TimestampMs,
    pub(crate) appender: xor::Appender,
}

impl MemSeries {
    pub(crate) fn new(series: SeriesRef, labels: Labels, logged: bool) -> Self {
        Self { series, labels, logged: AtomicBool::new(logged), state: Mutex::default() }
    }

    /// Whether the log knows this series.
    pub(crate) fn is_logged(&self) -> bool {
        self.logged.load(Ordering::Relaxed)
    }

    pub(crate) fn set_logged(&self) {
        self.logged.store(true, Ordering::Relaxed);
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
}

/// What became of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Appended {
    /// Refused: its timestamp is not newer than what is there.
    NotNewer,
    /// It went to the open chunk.
    SameChunk,
    /// It began a chunk.
    NewChunk,
}

impl SeriesState {
    /// Newest in-order timestamp.
    pub(crate) fn max_time(&self) -> Option<TimestampMs> {
        match &self.open {
            Some(open) => Some(open.appender.last().t),
            None => self.closed.last().map(|c| c.maxt),
        }
    }

    /// Oldest in-order timestamp.
    pub(crate) fn in_order_min_time(&self) -> Option<TimestampMs> {
        self.closed.first().map(|c| c.mint).or(self.open.as_ref().map(|o| o.mint))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.open.is_none() && self.ooo.is_none()
    }

    /// Number of chunks; out-of-order samples count as one.
    pub(crate) fn chunks(&self) -> usize {
        self.closed.len() + usize::from(self.open.is_some()) + usize::from(self.ooo.is_some())
    }

    /// Whether a sample may be appended; `floor` is the oldest timestamp that the head takes.
    pub(crate) fn appendable(
        &self,
        t: TimestampMs,
        v: f64,
        floor: TimestampMs,
    ) -> Result<Acceptance, AppendError> {
        if t < floor {
            return Err(AppendError::OutOfBounds);
        }
        match self.max_time() {
            None => Ok(Acceptance::Append),
            Some(newest) if t > newest => Ok(Acceptance::Append),
            Some(newest) if t < newest => Err(AppendError::OutOfOrder),
            Some(_) => {
                let existing = self.open.as_ref().map_or(f64::NAN, |o| o.appender.last().v);
                if existing.to_bits() == v.to_bits() {
                    Ok(Acceptance::Same)
                } else {
                    Err(AppendError::Duplicate { timestamp: t, existing, new: v })
                }
            }
        }
    }

    /// Appends in order.
    pub(crate) fn append(&mut self, t: TimestampMs, v: f64, block_range_ms: i64) -> Appended {
        if self.max_time().is_some_and(|newest| t <= newest) {
            return Appended::NotNewer;
        }
        let must_cut = match &mut self.open {
            None => true,
            Some(open) => open.is_full_for(t),
        };
        if must_cut {
            self.close_open();
            self.open = Some(OpenChunk {
                mint: t,
                next_at: range_end(t, block_range_ms),
                appender: xor::Appender::with_capacity(OPEN_CHUNK_BYTES),
            });
        }
        if let Some(open) = &mut self.open {
            open.appender.append(t, v);
        }
        if must_cut { Appended::NewChunk } else { Appended::SameChunk }
    }

    /// Adds an out-of-order sample; the first one for a timestamp stays.
    pub(crate) fn insert_out_of_order(&mut self, sample: Sample) -> bool {
        let list = self.ooo.get_or_insert_default();
        match list.binary_search_by_key(&sample.t, |s| s.t) {
            Ok(_) => false,
            Err(at) => {
                list.insert(at, sample);
                true
            }
        }
    }

    fn close_open(&mut self) {
        if let Some(open) = self.open.take() {
            // Chunks come one at a time and stay for hours: grow by one, not by doubling.
            self.closed.reserve_exact(1);
            self.closed.push(open.into_closed());
        }
    }

    /// Drops chunks and samples that end before `mint`; returns how many chunks went.
    pub(crate) fn truncate(&mut self, mint: TimestampMs) -> usize {
        let before = self.chunks();
        self.closed.retain(|c| c.maxt >= mint);
        if self.open.as_ref().is_some_and(|o| o.appender.last().t < mint) {
            self.open = None;
        }
        if let Some(ooo) = &mut self.ooo {
            ooo.retain(|s| s.t >= mint);
            if ooo.is_empty() {
                self.ooo = None;
            }
        }
        before - self.chunks()
    }
}

impl OpenChunk {
    pub(crate) fn maxt(&self) -> TimestampMs {
        self.appender.last().t
    }

    /// Whether `t` belongs to the next chunk; refines the predicted end on the way.
    fn is_full_for(&mut self, t: TimestampMs) -> bool {
        if self.appender.bytes().len() > MAX_CHUNK_BYTES {
            return true;
        }
        if self.appender.len() == SAMPLES_PER_CHUNK / 4 {
            self.next_at = predict_end(self.mint, self.maxt(), self.next_at);
        }
        t >= self.next_at || self.appender.len() >= 2 * SAMPLES_PER_CHUNK
    }

    fn into_closed(self) -> ClosedChunk {
        ClosedChunk { mint: self.mint, maxt: self.maxt(), data: Arc::from(self.appender.bytes()) }
    }
}

/// End of the slot of `width_ms` that holds `t`.
pub(crate) fn range_end(t: TimestampMs, width_ms: i64) -> TimestampMs {
    t.div_euclid(width_ms).saturating_add(1).saturating_mul(width_ms)
}

/// Where to cut a chunk that is a quarter full at `current`, so that chunks up to `end` are even.
fn predict_end(start: TimestampMs, current: TimestampMs, end: TimestampMs) -> TimestampMs {
    let left = end.saturating_sub(start) as f64;
    let chunks = left / ((current.saturating_sub(start).saturating_add(1)) as f64 * 4.0);
    if chunks <= 1.0 { end } else { (start as f64 + left / chunks.floor()) as TimestampMs }
}
