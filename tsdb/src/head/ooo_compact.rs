//! Moves out-of-order samples to blocks: what there is, slot by slot, and what may go afterwards.
//!
//! # Protocol
//! 1. [`Head::write_late_samples`] moves open out-of-order chunks to disk.
//! 2. Between two commits, a new segment of the write-behind log begins, and [`Head::begin_ooo_compaction`] moves what
//!    came since to disk and remembers, for each series, how far it saw: that, and no more, is in earlier segments.
//! 3. A block is written for each of [`OooCompaction::slots`] from [`OooCompaction::cut`], and loaded; the chunks on
//!    disk are synced.
//! 4. [`Head::compacted_markers`] go to the write-behind log: chunks whose file is still there are not to be
//!    loaded again. They are synced.
//! 5. [`Head::finish_ooo_compaction`] drops the chunks that the blocks now hold; samples that came since stay.
//! 6. Segments of the write-behind log before the new one go, for good before any chunk on disk does.
//!
//! A crash in between leaves samples in two places with equal values, which a read merges.
//!
//! # Source
//! `OOOCompactionHead` of <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/ooo_head_read.go>.
//! Differences: deleted samples stay out of the blocks; step 4, without which a restart shows samples again that
//! were deleted from the blocks meanwhile; how far is remembered for each series, since commits go on.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ooo::OooSeries;
use super::read::Snapshot;
use super::{Head, MemSeries, NO_MIN};
use crate::chunks::ChunkData;
use crate::error::Result;
use crate::head_chunks::{HeadChunkRef, HeadChunks};
use crate::labels::Labels;
use crate::sample::{SeriesRef, TimestampMs};
use crate::wal::record::RefMmapMarker;

/// Set in a marker of the write-behind log: all late samples of the series (of all series, if that is 0) in chunks up
/// to the one it names are in blocks. Prometheus passes over such a marker: to it, the chunk is one that is not there.
pub(crate) const COMPACTED: u64 = 1 << 63;

/// Out-of-order samples of a head as they were at one instant.
#[derive(Debug)]
pub(crate) struct OooCompaction {
    /// With the last chunk of each that is taken.
    series: Vec<(Arc<MemSeries>, HeadChunkRef)>,
    bounds: (TimestampMs, TimestampMs),
}

impl OooCompaction {
    /// Puts series in label order; to be called before [`OooCompaction::cut`].
    pub(crate) fn sort(&mut self) {
        self.series.sort_unstable_by(|a, b| a.0.labels.cmp(&b.0.labels));
    }

    /// The slots `[mint, maxt)` of `width_ms` that may have samples, ascending.
    pub(crate) fn slots(&self, width_ms: i64) -> impl Iterator<Item = (TimestampMs, TimestampMs)> + use<> {
        let (mint, maxt) = self.bounds;
        let first = mint.div_euclid(width_ms).saturating_mul(width_ms);
        std::iter::successors(Some(first), move |start| start.checked_add(width_ms))
            .take_while(move |start| *start <= maxt)
            .map(move |start| (start, start.saturating_add(width_ms)))
    }

    /// Series with samples in `[mint, maxt]`, in label order, without what was deleted.
    pub(crate) fn cut<'a>(
        &'a self,
        head: &'a Head,
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> impl Iterator<Item = Result<(Labels, Vec<ChunkData>)>> + use<'a> {
        self.series.iter().filter_map(move |(series, last)| {
            let mut snapshot = Snapshot::default();
            snapshot.add_ooo(series, mint, maxt, *last);
            snapshot.pin(head.chunks.as_ref().map(HeadChunks::files));
            let chunks = (snapshot.len() > 0).then(|| snapshot.encode(0, mint, maxt, head.rules()))?;
            match chunks {
                Ok(chunks) if chunks.is_empty() => None,
                chunks => Some(chunks.map(|chunks| (series.labels.clone(), chunks))),
            }
        })
    }
}

impl Head {
    /// Moves late samples to chunks on disk, so that [`Head::begin_ooo_compaction`] has less to do.
    ///
    /// # Errors
    /// If they cannot be written; those that were are.
    pub(crate) fn write_late_samples(&self) -> Result<()> {
        let mut result = Ok(());
        self.index.for_each(|series| {
            let mut state = series.lock();
            if result.is_ok() && state.ooo().is_some() {
                result = self.write_ooo(series.series, &mut state);
            }
        });
        result
    }

    /// Takes what is to be compacted; `None` if there are no out-of-order samples.
    ///
    /// # Errors
    /// If an open chunk cannot be written to disk: the log that has its samples would be deleted.
    pub(crate) fn begin_ooo_compaction(&self) -> Result<Option<OooCompaction>> {
        let mut series = Vec::new();
        let mut bounds: Option<(TimestampMs, TimestampMs)> = None;
        let mut result = Ok(());
        self.index.for_each(|s| {
            let mut state = s.lock();
            if result.is_err() || state.ooo().is_none() {
                return;
            }
            result = self.write_ooo(s.series, &mut state);
            if let Some(ooo) = state.ooo()
                && let Some(last) = ooo.last()
                && let Some((mint, maxt)) = ooo.bounds()
            {
                bounds = Some(bounds.map_or((mint, maxt), |b| (b.0.min(mint), b.1.max(maxt))));
                series.push((Arc::clone(s), last));
            }
        });
        result?;
        Ok(bounds.map(|bounds| OooCompaction { series, bounds }))
    }

    /// Which chunks are in blocks now, once `done` is: see [`COMPACTED`]. Says so of all that there were before
    /// too, whose markers go with the segments they are in.
    pub(crate) fn compacted_markers(&self, done: Option<&OooCompaction>) -> Vec<RefMmapMarker> {
        let done = done.map_or(&[][..], |done| &done.series);
        let last: HashMap<SeriesRef, HeadChunkRef> = done.iter().map(|(s, last)| (s.series, *last)).collect();
        // Whatever is written from now on is behind this.
        let mut floor = self.chunks.as_ref().map(HeadChunks::last_ref).unwrap_or_default();
        self.index.for_each(|series| {
            let state = series.lock();
            let left = state.ooo().into_iter().flat_map(|ooo| &ooo.mapped).map(|c| c.at);
            let left = left.filter(|at| last.get(&series.series).is_none_or(|last| at > last)).min();
            floor = floor.min(left.map_or(floor, |at| HeadChunkRef(at.0 - 1)));
        });
        let marker = |series, last: HeadChunkRef| RefMmapMarker { series, chunk: last.0 | COMPACTED };
        let above = done.iter().filter(|(_, last)| *last > floor);
        let above = above.map(|(series, last)| marker(series.series, *last));
        std::iter::once(marker(SeriesRef(0), floor)).chain(above).collect()
    }

    /// Forgets what the blocks of a compaction hold now.
    pub(crate) fn finish_ooo_compaction(&self, done: &OooCompaction) {
        let mut removed = 0;
        for (series, last) in &done.series {
            let mut state = series.lock();
            removed += state.ooo_mut().retain(|at| at > *last);
            state.drop_rare();
        }
        self.counters.chunks_removed.fetch_add(removed as u64, Ordering::Relaxed);
        let mut oldest = NO_MIN;
        self.begin_ooo_scan();
        self.index.for_each(|series| {
            if let Some((mint, _)) = series.lock().ooo().and_then(OooSeries::bounds) {
                oldest = oldest.min(mint);
            }
        });
        self.end_ooo_scan(oldest);
    }

    /// Begins a look at all series for the oldest out-of-order sample.
    pub(super) fn begin_ooo_scan(&self) {
        self.ooo_min_recent.store(NO_MIN, Ordering::Release);
    }

    /// Ends it: `oldest` is what was found, and commits went on meanwhile.
    pub(super) fn end_ooo_scan(&self, oldest: TimestampMs) {
        let _no_commit = self.visibility.write();
        let recent = self.ooo_min_recent.load(Ordering::Acquire);
        self.ooo_min_time.store(oldest.min(recent), Ordering::Release);
    }
}
