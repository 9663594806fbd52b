//! The chunk of a series that takes samples, and when it ends.
//!
//! # Memory
//! Its buffer grows in small steps, because there is one per series.

use std::sync::Arc;

use super::series::ClosedChunk;
use crate::chunkenc::{Encoding, xor};
use crate::sample::TimestampMs;

/// Samples that a chunk of floats should hold.
pub(super) const SAMPLES_PER_CHUNK: usize = 120;
/// A chunk of floats larger than this is cut whatever its count: 1 KiB less the largest sample.
const MAX_FLOAT_BYTES: usize = 1024 - 19;
/// First size and growth of the buffer; with the allocator's own 8 bytes a multiple of 16.
const STEP_BYTES: usize = 56;

/// The newest chunk.
#[derive(Debug)]
pub(crate) struct OpenChunk {
    pub(crate) mint: TimestampMs,
    /// A sample at or after this starts the next chunk.
    next_at: TimestampMs,
    pub(crate) appender: xor::Appender,
}

impl OpenChunk {
    /// An empty chunk whose first sample will be at `t`.
    pub(super) fn new(t: TimestampMs, block_range_ms: i64) -> Self {
        Self {
            mint: t,
            next_at: range_end(t, block_range_ms),
            appender: xor::Appender::with_capacity(STEP_BYTES),
        }
    }

    pub(crate) fn maxt(&self) -> TimestampMs {
        self.appender.last().t
    }

    pub(crate) fn encoding(&self) -> Encoding {
        Encoding::Xor
    }

    /// The chunk so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.appender.bytes()
    }

    /// Number of samples.
    pub(crate) fn len(&self) -> usize {
        self.appender.len()
    }

    /// Bytes of the buffer.
    pub(super) fn capacity(&self) -> usize {
        self.appender.capacity()
    }

    pub(super) fn append(&mut self, t: TimestampMs, v: f64) {
        self.appender.reserve_step(STEP_BYTES);
        self.appender.append(t, v);
    }

    /// Whether `t` belongs to the next chunk; refines the predicted end on the way.
    pub(super) fn is_full_for(&mut self, t: TimestampMs) -> bool {
        if self.appender.bytes().len() > MAX_FLOAT_BYTES {
            return true;
        }
        if self.appender.len() == SAMPLES_PER_CHUNK / 4 {
            self.next_at = predict_end(self.mint, self.maxt(), self.next_at, 4.0);
        }
        t >= self.next_at || self.appender.len() >= 2 * SAMPLES_PER_CHUNK
    }

    pub(super) fn into_closed(self) -> ClosedChunk {
        ClosedChunk {
            mint: self.mint,
            maxt: self.maxt(),
            encoding: self.encoding(),
            data: Arc::from(self.bytes()),
        }
    }
}

/// End of the slot of `width_ms` that holds `t`.
pub(crate) fn range_end(t: TimestampMs, width_ms: i64) -> TimestampMs {
    t.div_euclid(width_ms).saturating_add(1).saturating_mul(width_ms)
}

/// Where to cut a chunk that is `1 / ratio` full at `current`, so that chunks up to `end` are even.
fn predict_end(start: TimestampMs, current: TimestampMs, end: TimestampMs, ratio: f64) -> TimestampMs {
    let left = end.saturating_sub(start) as f64;
    let chunks = left / ((current.saturating_sub(start).saturating_add(1)) as f64 * ratio);
    if chunks <= 1.0 { end } else { (start as f64 + left / chunks.floor()) as TimestampMs }
}
