//! Out-of-order samples of a series: a small open chunk, sorted, and chunks on disk.
//!
//! # Invariants
//! The open chunk has at most [`CAP`] samples, ascending, one per timestamp. Chunks on disk are in the order of
//! writing and may overlap anything.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/ooo_head.go>

use super::sample::AnySample;
use crate::head_chunks::{HeadChunkRef, MappedChunk};
use crate::sample::TimestampMs;

/// Samples of a full open chunk.
pub(super) const CAP: usize = 32;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct OooSeries {
    pub(super) open: Vec<AnySample>,
    pub(super) mapped: Vec<MappedChunk>,
}

impl OooSeries {
    /// Adds a sample to the open chunk; the first one for a timestamp stays.
    pub(super) fn insert(&mut self, sample: AnySample) -> bool {
        let at = match self.open.last() {
            Some(last) if last.t >= sample.t => match self.open.binary_search_by_key(&sample.t, |s| s.t) {
                Ok(_) => return false,
                Err(at) => at,
            },
            _ => self.open.len(),
        };
        self.open.insert(at, sample);
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.mapped.is_empty()
    }

    /// Number of chunks.
    pub(super) fn chunks(&self) -> usize {
        self.mapped.len() + usize::from(!self.open.is_empty())
    }

    /// `[min, max]` of all samples.
    pub(super) fn bounds(&self) -> Option<(TimestampMs, TimestampMs)> {
        let open = self.open.first().zip(self.open.last()).map(|(first, last)| (first.t, last.t));
        let mapped = self.mapped.iter().map(|c| (c.mint, c.maxt));
        mapped.chain(open).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// Whether there may be a sample in `[mint, maxt]`.
    pub(super) fn overlaps(&self, mint: TimestampMs, maxt: TimestampMs) -> bool {
        self.mapped.iter().any(|c| c.overlaps(mint, maxt))
            || self.open.iter().any(|s| (mint..=maxt).contains(&s.t))
    }

    /// Drops chunks on disk up to `last`; returns how many.
    pub(super) fn truncate(&mut self, last: HeadChunkRef) -> usize {
        let before = self.mapped.len();
        self.mapped.retain(|c| c.at > last);
        before - self.mapped.len()
    }
}
