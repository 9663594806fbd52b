//! [`Changes`]: since when a source's samples are what they were, so that answers may be kept.
//!
//! A source notes every change that a read could see, once it can be seen. Whoever keeps an answer asks for the
//! [`Version`] before reading, and later for the time ranges in which anything came, went or changed since. An
//! answer that looked at none of them still holds: no promise about what may yet be appended is needed, and late
//! samples cost what they touch.
//!
//! # Invariants
//! What is noted is never narrower than what changed. That samples moved (from the head to a block, from blocks to a
//! merged one) is no change.
//!
//! # Concurrency
//! A change is noted after it became visible: whoever sees a version with the note sees the change.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::sample::TimestampMs;

/// A moment in the history of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    /// Which source, of all that this process opened.
    source: u64,
    /// Number of changes so far.
    changes: u64,
}

/// Time ranges `[mint, maxt]`, ms, in which samples came, went or changed.
pub type ChangedRanges = Vec<(TimestampMs, TimestampMs)>;

/// How many appends are told apart; older ones are taken together, two and two.
const MAX_APPENDS: usize = 512;
/// The same for other changes: as one range that holds both.
const MAX_OTHERS: usize = 128;

/// The history of one source.
#[derive(Debug)]
pub struct Changes {
    source: u64,
    history: Mutex<History>,
}

#[derive(Debug, Default)]
struct History {
    changes: u64,
    /// Appends: number of the change, and the oldest sample that it or any later append brought. Both ascend.
    appends: VecDeque<(u64, TimestampMs)>,
    /// Everything else: number of the change, and its range.
    others: VecDeque<(u64, (TimestampMs, TimestampMs))>,
}

impl Default for Changes {
    fn default() -> Self {
        static SOURCES: AtomicU64 = AtomicU64::new(0);
        Self { source: SOURCES.fetch_add(1, Ordering::Relaxed), history: Mutex::default() }
    }
}

impl Changes {
    /// Now.
    pub fn version(&self) -> Version {
        Version { source: self.source, changes: self.history.lock().changes }
    }

    /// Notes an append whose oldest sample is at `mint`.
    pub fn appended(&self, mint: TimestampMs) {
        let mut history = self.history.lock();
        history.changes += 1;
        let number = history.changes;
        // Of an append that reaches back further, earlier ones need not be known.
        while history.appends.back().is_some_and(|(_, oldest)| *oldest >= mint) {
            history.appends.pop_back();
        }
        history.appends.push_back((number, mint));
        if history.appends.len() > MAX_APPENDS {
            history.thin_out();
        }
    }

    /// Notes that anything may be different in `[mint, maxt]`.
    pub fn changed(&self, mint: TimestampMs, maxt: TimestampMs) {
        let mut history = self.history.lock();
        history.changes += 1;
        let number = history.changes;
        history.others.push_back((number, (mint, maxt)));
        if history.others.len() > MAX_OTHERS {
            history.thin_out_others();
        }
    }

    /// Notes that anything may be different in these ranges and between them.
    pub(crate) fn changed_in(&self, ranges: impl Iterator<Item = (TimestampMs, TimestampMs)>) {
        if let Some((mint, maxt)) = ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) {
            self.changed(mint, maxt);
        }
    }

    /// Where samples came, went or changed since `version`; `None` if that is not known.
    pub fn since(&self, version: Version) -> Option<ChangedRanges> {
        let history = self.history.lock();
        if version.source != self.source {
            return None;
        }
        let first = history.appends.partition_point(|(number, _)| *number <= version.changes);
        let appended = history.appends.get(first).map(|(_, mint)| (*mint, TimestampMs::MAX));
        let others = history.others.iter().filter(|(number, _)| *number > version.changes);
        Some(appended.into_iter().chain(others.map(|(_, range)| *range)).collect())
    }
}

impl History {
    /// Takes the older half of appends together, two and two: as the later change, with the older sample.
    fn thin_out(&mut self) {
        let half = self.appends.len() / 4 * 2;
        let thin: Vec<_> =
            (0..half / 2).map(|i| (self.appends[2 * i + 1].0, self.appends[2 * i].1)).collect();
        self.appends.drain(..half);
        for pair in thin.into_iter().rev() {
            self.appends.push_front(pair);
        }
    }

    fn thin_out_others(&mut self) {
        let half = self.others.len() / 4 * 2;
        let both = |(_, a): (u64, (i64, i64)), (number, b): (u64, (i64, i64))| {
            (number, (a.0.min(b.0), a.1.max(b.1)))
        };
        let thin: Vec<_> = (0..half / 2).map(|i| both(self.others[2 * i], self.others[2 * i + 1])).collect();
        self.others.drain(..half);
        for pair in thin.into_iter().rev() {
            self.others.push_front(pair);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_told_covers_what_changed(
            events in prop::collection::vec((any::<bool>(), 0i64..3_000, 0i64..50), 0..3_000),
            late in 1usize..40,
        ) {
            let changes = Changes::default();
            let mut versions = vec![changes.version()];
            let mut noted = Vec::new();
            for (i, (append, t, width)) in events.iter().enumerate() {
                // Appends mostly move on with time, as scrapes do.
                let t = if i % late == 0 { *t } else { i as i64 };
                if *append || i % 4 != 0 {
                    changes.appended(t);
                    noted.push((t, TimestampMs::MAX));
                } else {
                    changes.changed(t, t + width);
                    noted.push((t, t + width));
                }
                versions.push(changes.version());
            }
            let step = versions.len().div_ceil(50);
            for (i, version) in versions.iter().enumerate().step_by(step) {
                let told = changes.since(*version).unwrap();
                for (mint, maxt) in &noted[i..] {
                    prop_assert!(told.iter().any(|(first, last)| first <= mint && maxt <= last));
                }
            }
            prop_assert_eq!(changes.since(changes.version()), Some(vec![]));
        }
    }

    #[test]
    fn appends_that_move_on_tell_the_oldest_since() {
        let changes = Changes::default();
        changes.appended(10);
        let version = changes.version();
        changes.appended(20);
        changes.appended(30);
        assert_eq!(changes.since(version), Some(vec![(20, TimestampMs::MAX)]));
        changes.appended(5);
        assert_eq!(changes.since(version), Some(vec![(5, TimestampMs::MAX)]));
        changes.changed(1, 2);
        assert_eq!(changes.since(version), Some(vec![(5, TimestampMs::MAX), (1, 2)]));
    }

    #[test]
    fn a_version_of_another_source_tells_nothing() {
        let (one, other) = (Changes::default(), Changes::default());
        assert_eq!(one.since(other.version()), None);
    }
}
