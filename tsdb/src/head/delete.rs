//! Deletion of samples in the head: intervals that reads leave out, until a block is cut without them.
//!
//! # Late samples
//! In-order samples of a series are newer than any that was deleted before, so that one interval says which they
//! are. A late sample may lie in an interval that was deleted before it came, and is then not deleted. So deletions
//! are in the write-behind log too, among the samples that they touch and those that they do not: see
//! [`Head::deletions_for_write_behind`]. The write-ahead log says so by naming each twice in a row. What is
//! there once is what Prometheus made: a start applies it to all late samples, and names it twice behind.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::append::markers;
use super::{Head, MemSeries};
use crate::error::Result;
use crate::head_chunks::HeadChunkRef;
use crate::matcher::Matcher;
use crate::sample::TimestampMs;
use crate::wal::record::{self, RefMmapMarker, RefTombstone};

/// What a deletion will do to the head.
#[derive(Debug, Default)]
pub(crate) struct Deletions {
    /// What the logs are to know.
    pub(crate) stones: Vec<RefTombstone>,
    /// Series with late samples that are touched, and in which `[mint, maxt]`, in the order of `stones`.
    late: Vec<(Arc<MemSeries>, TimestampMs, TimestampMs)>,
}

impl Deletions {
    /// Record for the write-behind log. It is of series that lose late samples, and no others: others keep the chunks
    /// that they have.
    pub(crate) fn for_write_behind(&self) -> Option<Vec<u8>> {
        let stone = |(series, mint, maxt): &(Arc<MemSeries>, TimestampMs, TimestampMs)| RefTombstone {
            series: series.series,
            mint: *mint,
            maxt: *maxt,
        };
        let stones: Vec<_> = self.late.iter().map(stone).collect();
        (!stones.is_empty()).then(|| record_of(&stones))
    }

    /// Record for the write-ahead log, once the write-behind log has its own: each deletion twice.
    ///
    /// Compat: Prometheus takes it for one, and its checkpoints keep both.
    pub(crate) fn for_write_ahead(&self) -> Vec<u8> {
        record_of(&self.stones.iter().flat_map(|stone| [*stone, *stone]).collect::<Vec<_>>())
    }
}

impl Head {
    /// What to do so that samples of matching series in `[mint, maxt]` are deleted. An interval does
    /// not reach beyond the samples that its series has, so that what is appended later stays.
    pub(crate) fn deletions(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Deletions {
        let mut out = Deletions::default();
        for series in self.index.resolve(matchers).complete() {
            let state = series.lock();
            let ooo = state.ooo().and_then(|ooo| ooo.bounds());
            let in_order = state.in_order_min_time().zip(state.max_time());
            let late = state.ooo().is_some_and(|ooo| ooo.overlaps(mint, maxt));
            drop(state);
            let bounds = in_order.into_iter().chain(ooo).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
            let Some((first, last)) = bounds else { continue };
            let (mint, maxt) = (mint.max(first), maxt.min(last));
            if mint <= maxt {
                out.stones.push(RefTombstone { series: series.series, mint, maxt });
                if late {
                    out.late.push((series, mint, maxt));
                }
            }
        }
        out
    }

    /// Records of a deletion for the write-behind log. Whatever chunk it touches must be named there before: a
    /// replay tells by that which chunks were written when.
    ///
    /// # Errors
    /// If an open chunk has to go to disk for that, and cannot.
    pub(crate) fn deletions_for_write_behind(&self, deletions: &Deletions) -> Result<Vec<Vec<u8>>> {
        let mut named = Vec::new();
        for (series, ..) in &deletions.late {
            let mut state = series.lock();
            if state.ooo().is_some_and(|ooo| !ooo.unnamed.is_empty()) {
                // A marker stands for all samples so far.
                self.write_ooo(series.series, &mut state)?;
                named.extend(state.ooo().into_iter().flat_map(|ooo| markers(series.series, &ooo.unnamed)));
            }
        }
        let mut records = Vec::new();
        for named in named.chunk_by(|a: &RefMmapMarker, b| a.series == b.series) {
            let mut record = Vec::new();
            record::encode_mmap_markers(&mut record, named);
            records.push(record);
        }
        records.extend(deletions.for_write_behind());
        Ok(records)
    }

    /// Applies a deletion to late samples, once it is in the write-behind log, if there is one.
    pub(crate) fn apply_late_deletions(&self, deletions: &Deletions) {
        let _visible = self.visibility.write();
        for (series, mint, maxt) in &deletions.late {
            if let Some(ooo) = series.lock().ooo_if_any() {
                ooo.unnamed.clear();
            }
            self.delete_late(series, *mint, *maxt, |_| true);
        }
        self.changes().changed_in(deletions.late.iter().map(|(_, mint, maxt)| (*mint, *maxt)));
    }

    /// Applies a deletion to in-order samples, once it is in the write-ahead log.
    pub(crate) fn apply_deletions(&self, deletions: &Deletions) {
        let _visible = self.visibility.write();
        let mut tombstones = self.tombstones.write();
        for deletion in &deletions.stones {
            tombstones.add(deletion.series, deletion.mint, deletion.maxt);
        }
        drop(tombstones);
        self.changes().changed_in(deletions.stones.iter().map(|d| (d.mint, d.maxt)));
    }

    /// Deletes late samples of a series in `[mint, maxt]`, of chunks on disk those for which `of` holds.
    fn delete_late(
        &self,
        series: &MemSeries,
        mint: TimestampMs,
        maxt: TimestampMs,
        of: impl Fn(HeadChunkRef) -> bool,
    ) {
        let mut state = series.lock();
        let Some(ooo) = state.ooo_if_any() else { return };
        let before = ooo.chunks();
        ooo.delete(mint, maxt, of);
        let gone = before - ooo.chunks();
        state.drop_rare();
        self.counters.chunks_removed.fetch_add(gone as u64, Ordering::Relaxed);
    }

    /// Applies a deletion of the write-behind log to what it came after: samples in memory, and chunks that markers
    /// have named.
    pub(crate) fn replay_late_deletion(&self, stone: &RefTombstone) {
        let Some(series) = self.index.get(stone.series) else { return };
        let unnamed = series.lock().ooo().map(|ooo| ooo.unnamed.clone()).unwrap_or_default();
        self.delete_late(&series, stone.mint, stone.maxt, |at| !unnamed.contains(&at));
    }

    /// Ends the replay of late samples of a series with deletions: chunks that were not named before the first of them
    /// repeat what the write-behind log has, and may be of Prometheus, which passes over deletions there.
    pub(crate) fn drop_unnamed(&self, series: &MemSeries) {
        let mut state = series.lock();
        let Some(ooo) = state.ooo_if_any() else { return };
        let unnamed = std::mem::take(&mut ooo.unnamed);
        let gone = ooo.retain(|at| !unnamed.contains(&at));
        state.drop_rare();
        self.counters.chunks_removed.fetch_add(gone as u64, Ordering::Relaxed);
    }

    /// Deletions of the write-ahead log that the write-behind log does not know, and that have touched in-order
    /// samples only: they are of all late samples that there are.
    pub(crate) fn foreign_deletions(&self, stones: Vec<RefTombstone>) -> Deletions {
        let overlapping = |stone: &RefTombstone| {
            let series = self.index.get(stone.series)?;
            let late = series.lock().ooo().is_some_and(|ooo| ooo.overlaps(stone.mint, stone.maxt));
            late.then_some((series, stone.mint, stone.maxt))
        };
        Deletions { late: stones.iter().filter_map(overlapping).collect(), stones }
    }
}

fn record_of(stones: &[RefTombstone]) -> Vec<u8> {
    let mut record = Vec::new();
    record::encode_tombstones(&mut record, stones);
    record
}
