//! Moves out-of-order samples to blocks: what there is, slot by slot, and what may go afterwards.
//!
//! # Protocol
//! 1. A new segment of the write-behind log begins.
//! 2. [`Head::begin_ooo_compaction`] moves open out-of-order chunks to disk and remembers how far it saw.
//! 3. A block is written for each of [`OooCompaction::slots`] from [`OooCompaction::cut`], and loaded.
//! 4. [`Head::finish_ooo_compaction`] drops the chunks that the blocks now hold; samples that came since stay.
//! 5. Segments of the write-behind log before the new one go.
//!
//! A crash in between leaves samples in two places with equal values, which a read merges.
//!
//! # Source
//! `OOOCompactionHead` of <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/ooo_head_read.go>.
//! Difference: deleted samples stay out of the blocks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ooo::OooSeries;
use super::read::Snapshot;
use super::{Head, MemSeries, NO_MIN};
use crate::chunks::ChunkData;
use crate::error::Result;
use crate::head_chunks::{HeadChunkRef, HeadChunks};
use crate::labels::Labels;
use crate::sample::TimestampMs;

/// Out-of-order samples of a head as they were at one instant.
#[derive(Debug)]
pub(crate) struct OooCompaction {
    /// In label order.
    series: Vec<Arc<MemSeries>>,
    /// Chunks up to this one are taken.
    last: HeadChunkRef,
    /// Whether open chunks are taken too: there is nowhere else to put them.
    with_open: bool,
    bounds: (TimestampMs, TimestampMs),
}

impl OooCompaction {
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
        self.series.iter().filter_map(move |series| {
            let deleted = head.tombstones.read().get(series.series);
            let mut snapshot = Snapshot::default();
            snapshot.add_ooo(series, mint, maxt, deleted, self.last, self.with_open);
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
    /// Takes what is to be compacted; `None` if there are no out-of-order samples.
    pub(crate) fn begin_ooo_compaction(&self) -> Option<OooCompaction> {
        let mut series = Vec::new();
        let mut bounds: Option<(TimestampMs, TimestampMs)> = None;
        // What cannot be written to disk stays where it is, for another time.
        let with_open = self.chunks.is_none();
        let mut last = HeadChunkRef(0);
        self.index.for_each(|s| {
            let mut state = s.lock();
            if state.ooo().is_none() {
                return;
            }
            if state.ooo().is_some_and(|ooo| !ooo.open.is_empty()) {
                self.write_ooo(s.series, &mut state);
            }
            let Some(ooo) = state.ooo() else { return };
            last = ooo.mapped.iter().map(|c| c.at).fold(last, HeadChunkRef::max);
            if let Some((mint, maxt)) = ooo.bounds() {
                bounds = Some(bounds.map_or((mint, maxt), |b| (b.0.min(mint), b.1.max(maxt))));
                series.push(Arc::clone(s));
            }
        });
        series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        bounds.map(|bounds| OooCompaction { series, last, with_open, bounds })
    }

    /// Forgets what the blocks of a compaction hold now.
    pub(crate) fn finish_ooo_compaction(&self, done: &OooCompaction) {
        let mut removed = 0;
        for series in &done.series {
            let mut state = series.lock();
            let ooo = state.ooo_mut();
            removed += ooo.truncate(done.last);
            if done.with_open && !std::mem::take(&mut ooo.open).is_empty() {
                removed += 1;
            }
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
