//! Out-of-order samples of a series: a small open chunk, sorted, and chunks on disk.
//!
//! # Invariants
//! The open chunk has at most [`CAP`] samples, ascending, one per timestamp, unless a full one could not be
//! written, or a replay found more of them in the log than chunks. Chunks on disk are in the order of writing and may
//! overlap anything.
//!
//! # Deletion
//! Samples of the open chunk go at once, those on disk are noted per chunk. So what is deleted is what was there:
//! a sample that comes later stays, whatever its time.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/ooo_head.go>. Difference: upstream hides late samples
//! by the tombstones of in-order ones, also those that come after the deletion.

use std::collections::BTreeMap;

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
    /// Chunks on disk that no marker of the write-behind log names yet.
    pub(super) unnamed: Vec<HeadChunkRef>,
    /// Deleted `[mint, maxt]` of chunks on disk.
    deleted: DeletedByChunk,
}

/// Deleted `[mint, maxt]` by chunk.
pub(super) type DeletedByChunk = BTreeMap<HeadChunkRef, Vec<(TimestampMs, TimestampMs)>>;

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

    /// Adds chunks on disk that no marker names.
    pub(super) fn add_mapped(&mut self, chunks: impl IntoIterator<Item = MappedChunk>) {
        for chunk in chunks {
            self.unnamed.push(chunk.at);
            self.mapped.push(chunk);
        }
    }

    /// Deletes samples in `[mint, maxt]`: those of the open chunk, and of chunks on disk for which `of` holds.
    pub(super) fn delete(&mut self, mint: TimestampMs, maxt: TimestampMs, of: impl Fn(HeadChunkRef) -> bool) {
        self.open.retain(|s| s.t < mint || s.t > maxt);
        for chunk in self.mapped.iter().filter(|c| c.overlaps(mint, maxt) && of(c.at)) {
            self.deleted.entry(chunk.at).or_default().push((mint, maxt));
        }
    }

    /// What is deleted of chunks on disk.
    pub(super) fn deleted(&self) -> &DeletedByChunk {
        &self.deleted
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

    /// Newest chunk on disk.
    pub(super) fn last(&self) -> Option<HeadChunkRef> {
        self.mapped.iter().map(|c| c.at).max()
    }

    /// Keeps chunks on disk for which `keep` holds; returns how many went.
    pub(super) fn retain(&mut self, keep: impl Fn(HeadChunkRef) -> bool) -> usize {
        let before = self.mapped.len();
        self.mapped.retain(|c| keep(c.at));
        self.unnamed.retain(|at| keep(*at));
        self.deleted.retain(|at, _| keep(*at));
        before - self.mapped.len()
    }
}
