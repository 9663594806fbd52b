//! Hands out the head's in-order data for a block, series by series.

use super::Head;
use crate::chunks::ChunkData;
use crate::error::Result;
use crate::labels::Labels;
use crate::sample::TimestampMs;

impl Head {
    /// Refuses appends before `maxt` from now on, so that a cut up to there misses nothing.
    pub(crate) fn close_for_cut(&self, maxt: TimestampMs) {
        if self.bounds().is_some_and(|(min, _)| maxt > min) {
            self.raise_min_valid_time(maxt);
        }
    }

    /// Series with in-order samples in `[mint, maxt]`, in label order, without what was deleted. Out-of-order
    /// samples have blocks of their own, see [`Head::begin_ooo_compaction`].
    ///
    /// Finished chunks that lie inside go out as they are; only those that straddle an end, or are
    /// touched by deletions, are encoded again.
    pub(crate) fn cut(
        &self,
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> impl Iterator<Item = Result<(Labels, Vec<ChunkData>)>> + use<> {
        self.encoded(mint, maxt, false)
    }

    /// As [`Head::cut`], with out-of-order samples.
    pub(crate) fn copy(
        &self,
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> impl Iterator<Item = Result<(Labels, Vec<ChunkData>)>> + use<> {
        self.encoded(mint, maxt, true)
    }

    fn encoded(
        &self,
        mint: TimestampMs,
        maxt: TimestampMs,
        ooo: bool,
    ) -> impl Iterator<Item = Result<(Labels, Vec<ChunkData>)>> + use<> {
        let snapshot = self.snapshot(&[], mint, maxt, ooo);
        let rules = self.rules();
        (0..snapshot.len()).map(move |i| Ok((snapshot.labels(i), snapshot.encode(i, mint, maxt, rules)?)))
    }
}
