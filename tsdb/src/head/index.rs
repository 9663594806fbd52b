//! Which series there are: by reference, by labels, and by label pair.
//!
//! # Concurrency
//! Lock order: labels stripe → postings → reference stripe. Series states are locked last.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::postings::{Postings, SharedPostings};
use super::ref_table::{PAGE, RefTable};
use super::series::MemSeries;
use super::values::Values;
use crate::error::Result;
use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::postings::{self, Postings as List, PostingsSource};
use crate::prefetch::prefetch_all;
use crate::sample::SeriesRef;

/// Largest reference that a series of the log or a snapshot may have: nobody can have counted further.
pub(crate) const MAX_REF: SeriesRef = SeriesRef(1 << 62);

const STRIPES: usize = 64;

/// A series that is found by its labels.
#[derive(Debug)]
struct ByLabels(Arc<MemSeries>);

impl Borrow<Labels> for ByLabels {
    fn borrow(&self) -> &Labels {
        &self.0.labels
    }
}

impl Hash for ByLabels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.labels.hash(state);
    }
}

impl PartialEq for ByLabels {
    fn eq(&self, other: &Self) -> bool {
        self.0.labels == other.0.labels
    }
}

impl Eq for ByLabels {}

/// All series of a head.
#[derive(Debug)]
pub(crate) struct Index {
    by_ref: Vec<RwLock<RefTable>>,
    by_labels: Vec<RwLock<HashSet<ByLabels>>>,
    postings: SharedPostings,
    last_ref: AtomicU64,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            by_ref: (0..STRIPES).map(|_| RwLock::default()).collect(),
            by_labels: (0..STRIPES).map(|_| RwLock::default()).collect(),
            postings: SharedPostings::default(),
            last_ref: AtomicU64::new(0),
        }
    }
}

impl Index {
    fn ref_stripe(&self, series: u64) -> &RwLock<RefTable> {
        &self.by_ref[(series / PAGE) as usize % STRIPES]
    }

    pub(crate) fn get(&self, series: SeriesRef) -> Option<Arc<MemSeries>> {
        self.ref_stripe(series.0).read().get(series.0).map(Arc::clone)
    }

    /// Starts to load the series from memory, so that [`Index::get`] has it soon.
    pub(crate) fn prefetch(&self, series: SeriesRef) {
        if let Some(found) = self.ref_stripe(series.0).read().get(series.0) {
            prefetch_all(Arc::as_ptr(found));
        }
    }

    /// The series with these labels.
    pub(crate) fn get_by_labels(&self, labels: &Labels) -> Option<Arc<MemSeries>> {
        self.by_labels[labels.partition(STRIPES)].read().get(labels).map(|found| Arc::clone(&found.0))
    }

    /// The series with these labels, made if there is none; the flag says whether it was made.
    ///
    /// `wanted` is the reference for a new series (from the log); `None` takes the next free one.
    pub(crate) fn get_or_create(&self, labels: &Labels, wanted: Option<SeriesRef>) -> (Arc<MemSeries>, bool) {
        let stripe = &self.by_labels[labels.partition(STRIPES)];
        if let Some(found) = stripe.read().get(labels) {
            return (Arc::clone(&found.0), false);
        }
        let mut stripe = stripe.write();
        if let Some(found) = stripe.get(labels) {
            return (Arc::clone(&found.0), false);
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
        self.ref_stripe(series.0).write().insert(Arc::clone(&made));
        stripe.insert(ByLabels(Arc::clone(&made)));
        (made, true)
    }

    /// Never gives out `series` or anything below. One above [`MAX_REF`], as in a damaged file, does not use up those
    /// that are left.
    pub(crate) fn reserve_ref(&self, series: SeriesRef) {
        self.last_ref.fetch_max(series.min(MAX_REF).0, Ordering::SeqCst);
    }

    /// Largest reference that was given out or reserved.
    pub(crate) fn last_ref(&self) -> SeriesRef {
        SeriesRef(self.last_ref.load(Ordering::SeqCst))
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
            let Some(ByLabels(series)) = by_labels.get(labels) else { continue };
            let series_ref = series.series;
            let mut by_ref = self.ref_stripe(series_ref.0).write();
            // Invariant: new holders come through these two maps, whose locks are held, so a count of
            // two (the maps themselves) stays two. An appender that staged a sample counts.
            if Arc::strong_count(series) == 2 && dead(series) {
                by_labels.remove(labels);
                by_ref.remove(series_ref.0);
                removed.push((series_ref.0, labels));
            }
        }
        if !removed.is_empty() {
            self.postings.remove(&removed);
        }
        removed.into_iter().map(|(series, _)| SeriesRef(series)).collect()
    }

    /// Calls `visit` on every series, in no order, without holding a lock.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Arc<MemSeries>)) {
        for stripe in &self.by_ref {
            let series = stripe.read().iter().map(Arc::clone).collect::<Vec<_>>();
            series.iter().for_each(&mut visit);
        }
    }

    /// Bytes of the tables from references and labels to series.
    pub(crate) fn table_bytes(&self) -> u64 {
        // A table is at most seven eighths full; a slot is a pointer and a byte.
        let table = |capacity: usize| capacity / 7 * 8 * (size_of::<usize>() + 1);
        let by_ref = self.by_ref.iter().map(|stripe| stripe.read().bytes());
        let by_labels = self.by_labels.iter().map(|stripe| table(stripe.read().capacity()));
        by_ref.chain(by_labels).sum::<usize>() as u64
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
            (self.matching(&postings, matchers), self.last_ref.load(Ordering::SeqCst))
        };
        let series = refs.into_iter().filter_map(|series| self.get(SeriesRef(series))).collect();
        Resolved { index: self, matchers, series, last_ref }
    }

    /// How many series match, going by postings.
    pub(crate) fn count_matching(&self, matchers: &[Matcher]) -> usize {
        self.matching(&self.postings.read(), matchers).len()
    }

    fn matching(&self, postings: &Postings, matchers: &[Matcher]) -> Vec<u64> {
        // What is in memory is never unreadable.
        postings::for_matchers(&Source { index: self, postings }, matchers).unwrap_or_default()
    }

    /// Reads the postings.
    pub(crate) fn with_postings<T>(&self, read: impl FnOnce(&Postings) -> T) -> T {
        read(&self.postings.read())
    }
}

/// Postings, and labels of the series in them.
struct Source<'a> {
    index: &'a Index,
    postings: &'a Postings,
}

impl PostingsSource for Source<'_> {
    fn all(&self) -> Result<List<'_>> {
        Ok(self.postings.all.as_postings())
    }

    fn with_value(&self, name: &str, value: &str) -> Result<List<'_>> {
        Ok(self.postings.with_value(name, value))
    }

    fn with_values(
        &self,
        name: &str,
        _: &[String],
        accept: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Vec<List<'_>>> {
        Ok(self.postings.with_values(name, accept))
    }

    fn value_count(&self, name: &str) -> usize {
        self.postings.by_name.get(name).map_or(0, Values::len)
    }

    fn has_value(&self, series: u64, name: &str, accept: &mut dyn FnMut(&str) -> bool) -> Result<bool> {
        let series = self.index.get(SeriesRef(series));
        Ok(accept(series.as_ref().and_then(|s| s.labels.get(name)).unwrap_or_default()))
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
        let new = self.index.postings.read().all_above(self.last_ref);
        let new = new.into_iter().filter_map(|series| self.index.get(SeriesRef(series)));
        self.series.extend(new.filter(|series| Matcher::all_match(self.matchers, &series.labels)));
        self.series
    }
}
