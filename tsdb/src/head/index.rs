//! Which series there are: by reference, by labels, and by label pair.
//!
//! # Concurrency
//! Lock order: labels stripe → postings → reference stripe. Series states are locked last.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::series::MemSeries;
use crate::labels::Labels;
use crate::matcher::{MatchOp, Matcher};
use crate::sample::SeriesRef;

const STRIPES: usize = 64;

type ByRef = HashMap<u64, Arc<MemSeries>, BuildHasherDefault<RefHasher>>;
type ByLabels = HashMap<Labels, Arc<MemSeries>>;

/// References count up from 1, so a multiplication spreads them well.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct RefHasher(u64);

impl Hasher for RefHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 references are hashed");
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

/// All series of a head.
#[derive(Debug)]
pub(crate) struct Index {
    by_ref: Vec<RwLock<ByRef>>,
    by_labels: Vec<RwLock<ByLabels>>,
    postings: RwLock<Postings>,
    last_ref: AtomicU64,
}

/// References per label pair, ascending.
#[derive(Debug, Default)]
pub(crate) struct Postings {
    pub(crate) all: Vec<u64>,
    pub(crate) by_name: HashMap<Box<str>, HashMap<Box<str>, Vec<u64>>>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            by_ref: (0..STRIPES).map(|_| RwLock::default()).collect(),
            by_labels: (0..STRIPES).map(|_| RwLock::default()).collect(),
            postings: RwLock::default(),
            last_ref: AtomicU64::new(0),
        }
    }
}

impl Index {
    fn ref_stripe(&self, series: u64) -> &RwLock<ByRef> {
        &self.by_ref[series as usize % STRIPES]
    }

    pub(crate) fn get(&self, series: SeriesRef) -> Option<Arc<MemSeries>> {
        self.ref_stripe(series.0).read().get(&series.0).cloned()
    }

    /// The series with these labels, made if there is none; the flag says whether it was made.
    ///
    /// `wanted` is the reference for a new series (from the log); `None` takes the next free one.
    pub(crate) fn get_or_create(&self, labels: &Labels, wanted: Option<SeriesRef>) -> (Arc<MemSeries>, bool) {
        let stripe = &self.by_labels[labels.partition(STRIPES)];
        if let Some(found) = stripe.read().get(labels) {
            return (Arc::clone(found), false);
        }
        let mut stripe = stripe.write();
        if let Some(found) = stripe.get(labels) {
            return (Arc::clone(found), false);
        }
        let mut postings = self.postings.write();
        // Allocated under the postings lock, so that lists grow at their end.
        let series = match wanted {
            Some(series) => series,
            None => SeriesRef(self.last_ref.fetch_add(1, Ordering::SeqCst) + 1),
        };
        self.reserve_ref(series);
        let made = Arc::new(MemSeries::new(series, labels.clone(), wanted.is_some()));
        postings.insert(series.0, labels);
        self.ref_stripe(series.0).write().insert(series.0, Arc::clone(&made));
        stripe.insert(labels.clone(), Arc::clone(&made));
        (made, true)
    }

    /// Never gives out `series` or anything below.
    pub(crate) fn reserve_ref(&self, series: SeriesRef) {
        self.last_ref.fetch_max(series.0, Ordering::SeqCst);
    }

    /// Removes those series for which `dead` holds and which nobody holds on to.
    pub(crate) fn remove_if(
        &self,
        candidates: &[Labels],
        dead: impl Fn(&MemSeries) -> bool,
    ) -> Vec<SeriesRef> {
        let mut removed = Vec::new();
        for labels in candidates {
            let mut by_labels = self.by_labels[labels.partition(STRIPES)].write();
            let Some(series) = by_labels.get(labels) else { continue };
            let series_ref = series.series;
            let mut by_ref = self.ref_stripe(series_ref.0).write();
            // Invariant: new holders come through these two maps, whose locks are held, so a count of
            // two (the maps themselves) stays two. An appender that staged a sample counts.
            if Arc::strong_count(series) == 2 && dead(series) {
                by_labels.remove(labels);
                by_ref.remove(&series_ref.0);
                removed.push((series_ref.0, labels));
            }
        }
        if !removed.is_empty() {
            self.postings.write().remove(&removed);
        }
        removed.into_iter().map(|(series, _)| SeriesRef(series)).collect()
    }

    /// Calls `visit` on every series, in no order, without holding a lock.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Arc<MemSeries>)) {
        for stripe in &self.by_ref {
            let series = stripe.read().values().cloned().collect::<Vec<_>>();
            series.iter().for_each(&mut visit);
        }
    }

    /// Number of series.
    pub(crate) fn len(&self) -> usize {
        self.postings.read().all.len()
    }

    /// Looks up what [`Resolved::complete`] later only adds to: the part that takes long.
    pub(crate) fn resolve<'a>(&'a self, matchers: &'a [Matcher]) -> Resolved<'a> {
        let (refs, last_ref) = {
            let postings = self.postings.read();
            // References are given out under this lock.
            (postings.matching(matchers), self.last_ref.load(Ordering::SeqCst))
        };
        let series = refs.into_iter().filter_map(|series| self.get(SeriesRef(series))).collect();
        Resolved { index: self, matchers, series, last_ref }
    }

    /// Reads the postings.
    pub(crate) fn with_postings<T>(&self, read: impl FnOnce(&Postings) -> T) -> T {
        read(&self.postings.read())
    }
}

/// Series that match, as of [`Index::resolve`].
#[derive(Debug)]
pub(crate) struct Resolved<'a> {
    index: &'a Index,
    matchers: &'a [Matcher],
    series: Vec<Arc<MemSeries>>,
    /// All series up to this one were looked at.
    last_ref: u64,
}

impl Resolved<'_> {
    /// Adds the series that were made since, so that the answer is that of a look-up now.
    pub(crate) fn complete(mut self) -> Vec<Arc<MemSeries>> {
        let new = {
            let postings = self.index.postings.read();
            let known = postings.all.partition_point(|series| *series <= self.last_ref);
            postings.all[known..].to_vec()
        };
        let new = new.into_iter().filter_map(|series| self.index.get(SeriesRef(series)));
        self.series.extend(new.filter(|series| Matcher::all_match(self.matchers, &series.labels)));
        self.series
    }
}

impl Postings {
    fn insert(&mut self, series: u64, labels: &Labels) {
        insert_sorted(&mut self.all, series);
        for (name, value) in labels.iter() {
            if !self.by_name.contains_key(name) {
                self.by_name.insert(name.into(), HashMap::new());
            }
            let Some(values) = self.by_name.get_mut(name) else { continue };
            match values.get_mut(value) {
                Some(list) => insert_sorted(list, series),
                None => {
                    values.insert(value.into(), vec![series]);
                }
            }
        }
    }

    fn remove(&mut self, removed: &[(u64, &Labels)]) {
        let mut dead = removed.iter().map(|(series, _)| *series).collect::<Vec<_>>();
        dead.sort_unstable();
        let is_dead = |series: &u64| dead.binary_search(series).is_ok();
        self.all.retain(|s| !is_dead(s));
        let mut touched = std::collections::HashSet::new();
        for (_, labels) in removed {
            touched.extend(labels.iter());
        }
        for (name, value) in touched {
            let Some(values) = self.by_name.get_mut(name) else { continue };
            if let Some(list) = values.get_mut(value) {
                list.retain(|s| !is_dead(s));
                if list.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                self.by_name.remove(name);
            }
        }
    }

    /// References of series that match all of `matchers`, ascending.
    pub(crate) fn matching(&self, matchers: &[Matcher]) -> Vec<u64> {
        let (keep, subtract): (Vec<_>, Vec<_>) = matchers.iter().partition(|m| !m.matches_empty());
        let mut lists = keep.iter().map(|m| self.values_where(m, true)).collect::<Vec<_>>();
        lists.sort_by_key(Vec::len);
        let mut lists = lists.into_iter();
        let mut out = match lists.next() {
            Some(first) => first,
            None => self.all.clone(),
        };
        for list in lists {
            retain_in(&mut out, &list, true);
        }
        // A matcher that a missing label passes excludes the series whose value fails.
        for matcher in subtract {
            if out.is_empty() {
                break;
            }
            retain_in(&mut out, &self.values_where(matcher, false), false);
        }
        out
    }

    /// References of series that have the matcher's label with a value for which it gives `wanted`.
    fn values_where(&self, matcher: &Matcher, wanted: bool) -> Vec<u64> {
        let Some(values) = self.by_name.get(matcher.name()) else { return Vec::new() };
        let exact = match (matcher.op(), wanted) {
            (MatchOp::Eq, true) | (MatchOp::Ne, false) => true,
            (MatchOp::Eq | MatchOp::Ne, _) | (MatchOp::Re | MatchOp::Nre, _) => false,
        };
        if exact {
            return values.get(matcher.value()).cloned().unwrap_or_default();
        }
        let mut out = Vec::new();
        for (_, list) in values.iter().filter(|(value, _)| matcher.matches(value) == wanted) {
            out.extend_from_slice(list);
        }
        // A series has one value per name: the lists are disjoint.
        out.sort_unstable();
        out
    }
}

fn insert_sorted(list: &mut Vec<u64>, series: u64) {
    if list.last().is_none_or(|last| *last < series) {
        list.push(series);
    } else if let Err(at) = list.binary_search(&series) {
        list.insert(at, series);
    }
}

/// Keeps the members of `out` that are (or are not) in `list`; both ascending.
fn retain_in(out: &mut Vec<u64>, list: &[u64], wanted: bool) {
    let mut rest = list;
    out.retain(|series| {
        let skip = if rest.len() > 64 && rest[63] < *series {
            rest.partition_point(|s| s < series)
        } else {
            rest.iter().take_while(|s| *s < series).count()
        };
        rest = &rest[skip..];
        (rest.first() == Some(series)) == wanted
    });
}
