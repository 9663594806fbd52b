//! Deletion of samples in the head: intervals that reads leave out, until a block is cut without them.

use super::Head;
use crate::matcher::Matcher;
use crate::query::Queryable as _;
use crate::sample::TimestampMs;
use crate::wal::record::RefTombstone;

impl Head {
    /// What to note so that samples of matching series in `[mint, maxt]` are deleted. An interval does
    /// not reach beyond the samples that its series has, so that what is appended later stays.
    ///
    pub(crate) fn deletions(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> Vec<RefTombstone> {
        let Some((head_min, head_max)) = self.time_bounds() else { return Vec::new() };
        let (mint, maxt) = (mint.max(head_min), maxt.min(head_max));
        // Out-of-order samples may lie before the first in-order one, but none is after the last.
        let ooo = self.ooo_bounds();
        let mut out = Vec::new();
        for series in self.index.resolve(matchers).complete() {
            let (first, last) = {
                let state = series.lock();
                (state.in_order_min_time(), state.max_time())
            };
            let first = first.into_iter().chain(ooo.map(|o| o.0)).min();
            let last = last.or(ooo.map(|o| o.1));
            if let (Some(first), Some(last)) = (first, last)
                && first.max(mint) <= last.min(maxt)
            {
                let (mint, maxt) = (mint.max(first), maxt.min(last));
                out.push(RefTombstone { series: series.series, mint, maxt });
            }
        }
        out
    }

    /// Applies what [`Head::deletions`] gave, once it is in the log.
    pub(crate) fn apply_deletions(&self, deletions: &[RefTombstone]) {
        let _visible = self.visibility.write();
        let mut tombstones = self.tombstones.write();
        for deletion in deletions {
            tombstones.add(deletion.series, deletion.mint, deletion.maxt);
        }
        drop(tombstones);
        let range = deletions.iter().map(|d| (d.mint, d.maxt)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        if let Some((mint, maxt)) = range {
            self.changes().changed(mint, maxt);
        }
    }
}
