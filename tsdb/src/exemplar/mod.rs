//! Exemplars: the newest of all series, in a ring of fixed size.
//!
//! # Invariants
//! The exemplars of a series are linked in order of time, those of one instant in the order in which they
//! came. When the ring is full, the exemplar that came first goes, whatever its series.
//!
//! # Durability
//! The ring is in memory; the log and snapshots of the head bring it back.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/exemplar.go>. Difference: two exemplars of one
//! instant and value are ordered by their labels, not by a hash of them.

use std::collections::HashMap;

use parking_lot::RwLock;

use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::sample::TimestampMs;

/// Most characters that names and values of an exemplar's labels may have together.
///
/// Source: <https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md#exemplars>
pub const MAX_LABEL_CHARS: usize = 128;

/// No neighbour in the list of a series.
const NONE: u32 = u32::MAX;

/// A value with labels of its own, such as the trace that it comes from.
#[derive(Debug, Clone, Default)]
pub struct Exemplar {
    /// Labels of the exemplar; those of its series are elsewhere.
    pub labels: Labels,
    /// Observed value.
    pub value: f64,
    /// When it was observed, ms; when it was scraped, if it did not say.
    pub timestamp: TimestampMs,
    /// Whether it came with a timestamp of its own. One without is the same exemplar in each scrape.
    pub has_timestamp: bool,
}

/// Whether it is the same exemplar, as upstream sees it: timestamps count if one of both has its own.
impl PartialEq for Exemplar {
    fn eq(&self, other: &Self) -> bool {
        let timed = self.has_timestamp || other.has_timestamp;
        self.labels == other.labels
            && (!timed || self.timestamp == other.timestamp)
            && self.value == other.value
    }
}

/// Why an exemplar is refused. Texts are Prometheus' own.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExemplarError {
    /// The ring has no room at all.
    #[error("exemplar storage is disabled or max exemplars is less than or equal to 0")]
    Disabled,
    /// Its labels have more than [`MAX_LABEL_CHARS`] characters.
    #[error("label length for exemplar exceeds maximum of {MAX_LABEL_CHARS} UTF-8 characters")]
    LabelLength,
    /// It is the newest one of its series.
    #[error("duplicate exemplar")]
    Duplicate,
    /// It is older than the newest one of its series by more than the window.
    #[error("out of order exemplar")]
    OutOfOrder,
}

/// What the ring holds and has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExemplarStats {
    /// Exemplars that it may hold.
    pub max: usize,
    /// Exemplars that it holds.
    pub exemplars: usize,
    /// Series that have any.
    pub series: usize,
    /// Timestamp of the one that came first, ms; `None` if there is none.
    pub oldest_time: Option<TimestampMs>,
    /// Exemplars taken since the start.
    pub appended: u64,
    /// Exemplars refused as out of order since the start.
    pub out_of_order: u64,
}

/// The ring; see the module.
#[derive(Debug)]
pub struct ExemplarStorage(RwLock<Ring>);

#[derive(Debug, Default)]
struct Ring {
    max: usize,
    /// How much older than the newest one of its series an exemplar may be, ms.
    window_ms: i64,
    /// Grows up to `max`; then `next` goes round.
    entries: Vec<Entry>,
    /// Where the next exemplar goes: the one that came first, once the ring is full.
    next: usize,
    series: HashMap<Labels, Ends>,
    appended: u64,
    out_of_order: u64,
}

#[derive(Debug)]
struct Entry {
    exemplar: Exemplar,
    series: Labels,
    previous: u32,
    next: u32,
}

/// The list of one series, by positions in the ring.
#[derive(Debug, Clone, Copy)]
struct Ends {
    oldest: u32,
    newest: u32,
}

impl ExemplarStorage {
    /// A ring for `max` exemplars; 0 takes none. Memory is taken as they come.
    pub fn new(max: usize, out_of_order_window_ms: i64) -> Self {
        let (max, window_ms) = (limit(max), out_of_order_window_ms.max(0));
        Self(RwLock::new(Ring { max, window_ms, ..Ring::default() }))
    }

    /// Whether [`ExemplarStorage::add`] would take it.
    ///
    /// # Errors
    /// Why not; [`ExemplarError::Duplicate`] is expected in every other scrape.
    pub fn check(&self, series: &Labels, exemplar: &Exemplar) -> Result<(), ExemplarError> {
        self.0.read().check(series, exemplar)
    }

    /// Adds an exemplar of the series with these labels. A duplicate is taken as done.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn add(&self, series: &Labels, exemplar: Exemplar) -> Result<(), ExemplarError> {
        self.0.write().add(series, exemplar)
    }

    /// Exemplars in `[mint, maxt]` of series for which all matchers of one of the sets hold: by series
    /// in label order, then by time.
    pub fn select(
        &self,
        mint: TimestampMs,
        maxt: TimestampMs,
        matchers: &[&[Matcher]],
    ) -> Vec<(Labels, Vec<Exemplar>)> {
        let ring = self.0.read();
        let mut out = Vec::new();
        for (series, ends) in &ring.series {
            if ring.time(ends.oldest) > maxt || ring.time(ends.newest) < mint {
                continue;
            }
            if !matchers.iter().any(|set| Matcher::all_match(set, series)) {
                continue;
            }
            let found = ring
                .list(*ends)
                .map(|e| &e.exemplar)
                .skip_while(|e| e.timestamp < mint)
                .take_while(|e| e.timestamp <= maxt)
                .cloned()
                .collect::<Vec<_>>();
            if !found.is_empty() {
                out.push((series.clone(), found));
            }
        }
        drop(ring);
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out
    }

    /// Calls `visit` with series labels and exemplar, in the order in which they came.
    pub fn for_each(&self, mut visit: impl FnMut(&Labels, &Exemplar)) {
        let ring = self.0.read();
        ring.in_order_of_arrival().for_each(|e| visit(&e.series, &e.exemplar));
    }

    /// Changes how many exemplars there may be; the newest stay.
    pub fn resize(&self, max: usize) {
        self.0.write().resize(limit(max));
    }

    /// Changes how much older than the newest one of its series an exemplar may be, ms.
    pub fn set_out_of_order_window_ms(&self, window_ms: i64) {
        self.0.write().window_ms = window_ms.max(0);
    }

    /// What it holds and has done.
    pub fn stats(&self) -> ExemplarStats {
        let ring = self.0.read();
        ExemplarStats {
            max: ring.max,
            exemplars: ring.entries.len(),
            series: ring.series.len(),
            oldest_time: ring.in_order_of_arrival().next().map(|e| e.exemplar.timestamp),
            appended: ring.appended,
            out_of_order: ring.out_of_order,
        }
    }
}

/// Positions are 32 bits.
fn limit(max: usize) -> usize {
    max.min(NONE as usize)
}

impl Ring {
    fn time(&self, at: u32) -> TimestampMs {
        self.entries[at as usize].exemplar.timestamp
    }

    /// Entries of a series, by time.
    fn list(&self, ends: Ends) -> impl Iterator<Item = &Entry> {
        let entry = |at: u32| (at != NONE).then(|| &self.entries[at as usize]);
        std::iter::successors(entry(ends.oldest), move |e| entry(e.next))
    }

    fn in_order_of_arrival(&self) -> impl Iterator<Item = &Entry> {
        let (newer, older) = self.entries.split_at(self.next.min(self.entries.len()));
        older.iter().chain(newer)
    }

    fn check(&self, series: &Labels, exemplar: &Exemplar) -> Result<(), ExemplarError> {
        if self.max == 0 {
            return Err(ExemplarError::Disabled);
        }
        let chars = exemplar.labels.iter().map(|(name, value)| name.chars().count() + value.chars().count());
        if chars.sum::<usize>() > MAX_LABEL_CHARS {
            return Err(ExemplarError::LabelLength);
        }
        let Some(ends) = self.series.get(series) else { return Ok(()) };
        let newest = &self.entries[ends.newest as usize].exemplar;
        if newest == exemplar {
            return Err(ExemplarError::Duplicate);
        }
        let (t, last) = (exemplar.timestamp, newest.timestamp);
        let too_old = t < last && t <= last.saturating_sub(self.window_ms);
        let lesser = t == last
            && (exemplar.value < newest.value
                || exemplar.value == newest.value && exemplar.labels < newest.labels);
        if too_old || lesser { Err(ExemplarError::OutOfOrder) } else { Ok(()) }
    }

    fn add(&mut self, series: &Labels, exemplar: Exemplar) -> Result<(), ExemplarError> {
        match self.check(series, &exemplar) {
            Ok(()) => {}
            Err(ExemplarError::Duplicate) => return Ok(()),
            Err(error) => {
                self.out_of_order += u64::from(error == ExemplarError::OutOfOrder);
                return Err(error);
            }
        }
        if self.is_known_late(series, exemplar.timestamp) {
            return Ok(());
        }
        self.insert(series, exemplar);
        self.appended += 1;
        Ok(())
    }

    /// Whether the series has an exemplar of this instant before its newest one. Such a late one is taken
    /// for the same, as upstream does: to compare all of a native histogram would cost too much.
    fn is_known_late(&self, series: &Labels, t: TimestampMs) -> bool {
        let Some(ends) = self.series.get(series) else { return false };
        if t >= self.time(ends.newest) {
            return false;
        }
        let mut at = ends.newest;
        while at != NONE && self.time(at) > t {
            at = self.entries[at as usize].previous;
        }
        at != NONE && self.time(at) == t
    }

    /// Puts it into the ring, in the place of the one that came first if the ring is full.
    fn insert(&mut self, series: &Labels, exemplar: Exemplar) {
        let at = self.next;
        if at < self.entries.len() {
            self.unlink(at);
        }
        let entry = Entry { exemplar, series: series.clone(), previous: NONE, next: NONE };
        match self.entries.get_mut(at) {
            Some(slot) => *slot = entry,
            None => self.entries.push(entry),
        }
        self.link(at);
        self.next = (at + 1) % self.max;
    }

    /// Takes an entry out of the list of its series.
    fn unlink(&mut self, at: usize) {
        let Entry { previous, next, ref series, .. } = self.entries[at];
        if previous == NONE && next == NONE {
            let series = series.clone();
            self.series.remove(&series);
            return;
        }
        if let Some(ends) = self.series.get_mut(series) {
            if previous == NONE {
                ends.oldest = next;
            }
            if next == NONE {
                ends.newest = previous;
            }
        }
        if previous != NONE {
            self.entries[previous as usize].next = next;
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
    }

    /// Puts an entry into the list of its series, behind all that are not newer.
    fn link(&mut self, at: usize) {
        let (position, t) = (at as u32, self.entries[at].exemplar.timestamp);
        let Some(ends) = self.series.get(&self.entries[at].series).copied() else {
            let ends = Ends { oldest: position, newest: position };
            self.series.insert(self.entries[at].series.clone(), ends);
            return;
        };
        let mut previous = ends.newest;
        while previous != NONE && self.time(previous) > t {
            previous = self.entries[previous as usize].previous;
        }
        let next = if previous == NONE { ends.oldest } else { self.entries[previous as usize].next };
        self.entries[at].previous = previous;
        self.entries[at].next = next;
        if previous != NONE {
            self.entries[previous as usize].next = position;
        }
        if next != NONE {
            self.entries[next as usize].previous = position;
        }
        if let Some(ends) = self.series.get_mut(&self.entries[at].series) {
            if previous == NONE {
                ends.oldest = position;
            }
            if next == NONE {
                ends.newest = position;
            }
        }
    }

    fn resize(&mut self, max: usize) {
        if max == self.max {
            return;
        }
        let mut kept = std::mem::take(&mut self.entries);
        let first = if self.next < kept.len() { self.next } else { 0 };
        kept.rotate_left(first);
        kept.drain(..kept.len().saturating_sub(max));
        self.series.clear();
        self.next = 0;
        self.max = max;
        for entry in kept {
            self.insert(&entry.series, entry.exemplar);
        }
    }
}

#[cfg(test)]
mod tests;
