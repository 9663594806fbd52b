//! Truncation: forgets what a block now holds.

use std::sync::atomic::Ordering;

use super::ooo::OooSeries;
use super::{Head, NO_MIN, mapping};
use crate::sample::{SeriesRef, TimestampMs};

impl Head {
    /// Refuses appends before `mint` from now on; called before a block up to `mint` is cut.
    pub(crate) fn raise_min_valid_time(&self, mint: TimestampMs) {
        // Under the lock, so that a commit is wholly before or wholly after.
        let _no_commit = self.visibility.write();
        self.min_valid_time.fetch_max(mint, Ordering::AcqRel);
    }

    /// Drops in-order chunks that end before `mint` and series that have nothing left.
    ///
    /// Returns the references of removed series. Files of dropped chunks that cannot be deleted are left for
    /// the next time.
    pub(crate) fn truncate(&self, mint: TimestampMs) -> Vec<SeriesRef> {
        self.raise_min_valid_time(mint);
        self.min_time.fetch_max(mint, Ordering::AcqRel);
        let mut oldest = NO_MIN;
        let mut oldest_ooo = NO_MIN;
        let mut empty = Vec::new();
        let mut chunks = 0;
        let mut first_file = u32::MAX;
        self.begin_ooo_scan();
        self.index.for_each(|series| {
            let mut state = series.lock();
            chunks += state.truncate(mint) as u64;
            first_file = first_file.min(mapping::first_file(&state));
            if let Some((first, _)) = state.ooo().and_then(OooSeries::bounds) {
                oldest_ooo = oldest_ooo.min(first);
            }
            match state.in_order_min_time() {
                Some(t) => oldest = oldest.min(t),
                None if state.is_empty() => empty.push(series.labels.clone()),
                None => {}
            }
        });
        let removed = self.index.remove_if(&empty, |series| series.lock().is_empty());
        self.metadata.write().remove(&removed);
        self.tombstones.write().truncate(mint, |series| self.index.get(series).is_some());
        // Once and at last: a read in between must not take the head for one without them.
        self.end_ooo_scan(oldest_ooo);
        if oldest != NO_MIN && oldest > mint {
            // There is a hole behind the block: the window begins where the data does, but not later
            // than what appends may still reach.
            let start = oldest.min(self.floor());
            self.min_time.fetch_max(start, Ordering::AcqRel);
            self.raise_min_valid_time(start);
        }
        if let Err(error) = self.delete_chunk_files(first_file) {
            tracing::warn!(%error, "files of old head chunks could not be deleted");
        }
        self.counters.chunks_removed.fetch_add(chunks, Ordering::Relaxed);
        self.counters.truncations.fetch_add(1, Ordering::Relaxed);
        self.counters.series_removed.fetch_add(removed.len() as u64, Ordering::Relaxed);
        removed
    }
}
