//! Deleted intervals of head series.

use std::collections::HashMap;
use std::sync::Arc;

use crate::sample::{SeriesRef, TimestampMs};

/// Deleted `[mint, maxt]`, ascending, neither overlapping nor touching.
pub(crate) type Intervals = Arc<[(TimestampMs, TimestampMs)]>;

/// Deleted intervals by series.
#[derive(Debug, Default)]
pub(crate) struct HeadTombstones(HashMap<u64, Intervals>);

impl HeadTombstones {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, series: SeriesRef) -> Option<Intervals> {
        self.0.get(&series.0).cloned()
    }

    /// Series with their deleted intervals, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SeriesRef, &Intervals)> {
        self.0.iter().map(|(series, intervals)| (SeriesRef(*series), intervals))
    }

    /// Whether all of `[mint, maxt]` is deleted.
    pub(crate) fn covers(&self, series: SeriesRef, mint: TimestampMs, maxt: TimestampMs) -> bool {
        self.0.get(&series.0).is_some_and(|intervals| intervals.iter().any(|i| i.0 <= mint && maxt <= i.1))
    }

    /// Adds `[mint, maxt]`, joining it with what it touches.
    pub(crate) fn add(&mut self, series: SeriesRef, mint: TimestampMs, maxt: TimestampMs) {
        let old = self.0.entry(series.0).or_default();
        let mut joined = (mint, maxt);
        let mut out = Vec::with_capacity(old.len() + 1);
        for interval in old.iter().copied() {
            let touches =
                interval.0 <= joined.1.saturating_add(1) && joined.0 <= interval.1.saturating_add(1);
            if touches {
                joined = (joined.0.min(interval.0), joined.1.max(interval.1));
            } else {
                out.push(interval);
            }
        }
        out.push(joined);
        out.sort_unstable();
        *old = out.into();
    }

    /// Forgets what ends before `mint`, and removed series.
    pub(crate) fn truncate(&mut self, mint: TimestampMs, mut exists: impl FnMut(SeriesRef) -> bool) {
        self.0.retain(|series, intervals| {
            if !exists(SeriesRef(*series)) {
                return false;
            }
            if intervals.iter().any(|i| i.1 < mint) {
                *intervals = intervals.iter().copied().filter(|i| i.1 >= mint).collect();
            }
            !intervals.is_empty()
        });
    }
}

/// Whether `t` is deleted.
pub(crate) fn is_deleted(intervals: &[(TimestampMs, TimestampMs)], t: TimestampMs) -> bool {
    let at = intervals.partition_point(|i| i.1 < t);
    intervals.get(at).is_some_and(|i| i.0 <= t)
}
