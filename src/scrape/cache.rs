//! What one target's pages have said so far: series text → reference.
//!
//! A page is nearly always the page of the last scrape with other numbers, so the cache also keeps
//! which series follows which. The parser is told what to expect next and only compares bytes; the
//! hash table is asked when the guess is wrong.
//!
//! # Invariants
//! - A live entry is in the table under its text; a pruned one is not, and its slot is reused only
//!   when the cache is compacted.
//! - `iteration` counts scrapes; an entry seen in the current one has `seen == iteration`.
//!
//! # Staleness
//! An entry is tracked in a scrape if its sample is of the kind whose end is to be marked. What was
//! tracked in the last scrape and is not tracked in this one has ended. Two texts may mean the same
//! series; it has ended only if neither is tracked.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/scrape/scrape.go> (`scrapeCache`).
//! Difference: a scrape that fails half-way ends all series of the scrape before, also those that
//! the failed page still had.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use promontory_tsdb::{Labels, SeriesRef};

const NONE: u32 = u32::MAX;

/// Index of an entry; valid until [`Cache::finish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(u32);

/// One series text.
#[derive(Debug)]
struct Entry {
    text_at: u32,
    text_bytes: u32,
    /// What the storage calls the series.
    series: SeriesRef,
    /// Labels after relabelling; empty if the series is dropped.
    labels: Labels,
    /// The scrape that last had the text; 0 if the entry is pruned.
    seen: u32,
    /// The scrape that last tracked the entry; 0 for never.
    tracked: u32,
    /// Whether the scrape before `tracked` tracked it too.
    tracked_before: bool,
    /// The entry that came next in the last page.
    next: u32,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Cache {
    texts: Vec<u8>,
    entries: Vec<Entry>,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
    iteration: u32,
    /// The entry that the page had last.
    previous: u32,
    /// The first entry of the last page.
    first: u32,
    seen_now: usize,
    tracked_now: usize,
    /// Of `tracked_now`, those that the last scrape tracked too.
    carried_now: usize,
    tracked_last: usize,
    live: usize,
    /// Entries after the last scrape that was good.
    good_size: usize,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            texts: Vec::new(),
            entries: Vec::new(),
            table: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            iteration: 1,
            previous: NONE,
            first: NONE,
            seen_now: 0,
            tracked_now: 0,
            carried_now: 0,
            tracked_last: 0,
            live: 0,
            good_size: 0,
        }
    }
}

/// What the cache knows of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing.
    New,
    /// The series is dropped by relabelling.
    Dropped,
    /// A series; `again` if the page had it before.
    Series {
        /// Its entry.
        slot: Slot,
        /// Whether this page had the text before.
        again: bool,
    },
}

impl Cache {
    fn text(&self, entry: &Entry) -> &[u8] {
        &self.texts[entry.text_at as usize..(entry.text_at + entry.text_bytes) as usize]
    }

    /// The entry that should come next if the page is in the order of the last one.
    fn guess(&self) -> Option<u32> {
        let guess = match self.entries.get(self.previous as usize) {
            Some(previous) => previous.next,
            None => self.first,
        };
        self.entries.get(guess as usize).filter(|e| e.seen > 0).map(|_| guess)
    }

    /// The text that should come next; empty if there is no telling.
    #[inline]
    pub(super) fn expected(&self) -> &[u8] {
        self.guess().map_or(&[], |i| self.text(&self.entries[i as usize]))
    }

    /// Looks a text up and notes that the page has it.
    #[inline]
    pub(super) fn look_up(&mut self, text: &[u8]) -> Known {
        let found = match self.guess() {
            Some(guess) if self.text(&self.entries[guess as usize]) == text => Some(guess),
            _ => {
                let hash = self.hasher.hash_one(text);
                self.table.find(hash, |i| self.text(&self.entries[*i as usize]) == text).copied()
            }
        };
        let Some(i) = found else { return Known::New };
        self.link(i);
        let iteration = self.iteration;
        let entry = &mut self.entries[i as usize];
        let again = entry.seen == iteration;
        entry.seen = iteration;
        self.seen_now += usize::from(!again);
        match entry.labels.is_empty() {
            true => Known::Dropped,
            false => Known::Series { slot: Slot(i), again },
        }
    }

    /// Remembers that `i` follows what the page had before.
    fn link(&mut self, i: u32) {
        match self.entries.get_mut(self.previous as usize) {
            Some(previous) => previous.next = i,
            None => self.first = i,
        }
        self.previous = i;
    }

    pub(super) fn series(&self, slot: Slot) -> (SeriesRef, &Labels) {
        let entry = &self.entries[slot.0 as usize];
        (entry.series, &entry.labels)
    }

    pub(super) fn set_series(&mut self, slot: Slot, series: SeriesRef) {
        self.entries[slot.0 as usize].series = series;
    }

    /// Adds a text that [`Cache::look_up`] did not know. Empty labels mean that it is dropped.
    /// `None` if the cache is full, which only means that the text is looked at again next time.
    pub(super) fn insert(&mut self, text: &[u8], series: SeriesRef, labels: Labels) -> Option<Slot> {
        let index = u32::try_from(self.entries.len()).ok().filter(|i| *i < NONE)?;
        let text_at = u32::try_from(self.texts.len()).ok()?;
        let text_bytes = u32::try_from(text.len()).ok()?;
        text_at.checked_add(text_bytes)?;
        self.texts.extend_from_slice(text);
        // A guess is only used while its entry lives, so a link past the end is harmless.
        self.entries.push(Entry {
            text_at,
            text_bytes,
            series,
            labels,
            seen: self.iteration,
            tracked: 0,
            tracked_before: false,
            next: NONE,
        });
        let hash = self.hasher.hash_one(text);
        let (texts, entries, hasher) = (&self.texts, &self.entries, &self.hasher);
        self.table.insert_unique(hash, index, |i| {
            let e = &entries[*i as usize];
            hasher.hash_one(&texts[e.text_at as usize..(e.text_at + e.text_bytes) as usize])
        });
        self.link(index);
        self.seen_now += 1;
        self.live += 1;
        Some(Slot(index))
    }

    /// Notes that the end of this series is to be marked.
    #[inline]
    pub(super) fn track(&mut self, slot: Slot) {
        let iteration = self.iteration;
        let entry = &mut self.entries[slot.0 as usize];
        if entry.tracked != iteration {
            entry.tracked_before = entry.tracked == iteration - 1 && entry.tracked > 0;
            entry.tracked = iteration;
            self.tracked_now += 1;
            self.carried_now += usize::from(entry.tracked_before);
        }
    }

    /// Calls `f` with every series that has ended since the last scrape. `page_failed` says that
    /// what this page had does not count.
    pub(super) fn for_each_stale<E>(
        &self,
        page_failed: bool,
        mut f: impl FnMut(SeriesRef, &Labels) -> Result<(), E>,
    ) -> Result<(), E> {
        let last = self.iteration - 1;
        if last == 0 || (!page_failed && self.carried_now == self.tracked_last) {
            return Ok(());
        }
        let still_there: std::collections::HashSet<SeriesRef> = match page_failed {
            true => std::collections::HashSet::new(),
            false => self.entries.iter().filter(|e| e.tracked == self.iteration).map(|e| e.series).collect(),
        };
        for entry in &self.entries {
            let was_there = entry.tracked == last
                || (page_failed && entry.tracked == self.iteration && entry.tracked_before);
            if was_there && !still_there.contains(&entry.series) {
                f(entry.series, &entry.labels)?;
            }
        }
        Ok(())
    }

    /// Ends the scrape. A good one forgets what its page did not have; a failed one forgets only if
    /// the cache has grown out of proportion, and then returns `true`.
    pub(super) fn finish(&mut self, page: Page) -> bool {
        let forced = page != Page::Good && self.live > self.good_size * 2 + 1000;
        if (page == Page::Good || forced) && self.seen_now < self.live {
            self.prune();
        }
        if page == Page::Good {
            self.good_size = self.live;
        }
        self.tracked_last = self.tracked_now;
        if page == Page::Failed {
            // What the failed page had was rolled back, so it has not begun.
            self.tracked_last = 0;
            for entry in &mut self.entries {
                if entry.tracked == self.iteration {
                    entry.tracked = 0;
                }
            }
        }
        self.iteration = match self.iteration.checked_add(1) {
            Some(next) => next,
            None => {
                // One scrape in four thousand million starts anew.
                *self = Self { hasher: self.hasher, ..Self::default() };
                return forced;
            }
        };
        self.previous = NONE;
        self.seen_now = 0;
        self.tracked_now = 0;
        self.carried_now = 0;
        forced
    }

    fn prune(&mut self) {
        let iteration = self.iteration;
        for i in 0..self.entries.len() {
            if self.entries[i].seen == iteration || self.entries[i].seen == 0 {
                continue;
            }
            let hash = self.hasher.hash_one(self.text(&self.entries[i]));
            if let Ok(found) = self.table.find_entry(hash, |at| *at as usize == i) {
                found.remove();
            }
            let entry = &mut self.entries[i];
            entry.seen = 0;
            entry.tracked = 0;
            entry.labels = Labels::default();
            self.live -= 1;
        }
        if self.entries.len() > self.live + self.live / 4 + 64 {
            self.compact();
        }
    }

    /// Gives pruned slots and texts back.
    fn compact(&mut self) {
        let mut moved_to = vec![NONE; self.entries.len()];
        let mut texts = Vec::with_capacity(self.texts.len());
        let mut entries: Vec<Entry> = Vec::with_capacity(self.live);
        let old = std::mem::take(&mut self.entries);
        for (i, mut entry) in old.into_iter().enumerate() {
            if entry.seen == 0 {
                continue;
            }
            // Both counts only shrink, so they still fit.
            moved_to[i] = entries.len() as u32;
            let from = entry.text_at as usize;
            entry.text_at = texts.len() as u32;
            texts.extend_from_slice(&self.texts[from..from + entry.text_bytes as usize]);
            entries.push(entry);
        }
        let moved = |i: u32| moved_to.get(i as usize).copied().unwrap_or(NONE);
        for entry in &mut entries {
            entry.next = moved(entry.next);
        }
        self.first = moved(self.first);
        texts.shrink_to_fit();
        let hasher = &self.hasher;
        let text = |e: &Entry| &texts[e.text_at as usize..(e.text_at + e.text_bytes) as usize];
        let mut table = HashTable::with_capacity(entries.len());
        for (i, entry) in entries.iter().enumerate() {
            table.insert_unique(hasher.hash_one(text(entry)), i as u32, |i| {
                hasher.hash_one(text(&entries[*i as usize]))
            });
        }
        self.table = table;
        self.texts = texts;
        self.entries = entries;
    }

    /// Live entries.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.live
    }
}

/// How a scrape went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// A page was read to its end.
    Good,
    /// There was no page.
    Missing,
    /// There was a page, and something is wrong with it; what it had was rolled back.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_ONE: [u64; 0] = [];

    /// A page of series `a0 … an` by number; returns what ended.
    fn scrape(cache: &mut Cache, page: &[u64], how: Page) -> Vec<u64> {
        for n in page {
            let text = format!("a{n}");
            let slot = match cache.look_up(text.as_bytes()) {
                Known::Series { slot, .. } => slot,
                Known::New => {
                    let labels = Labels::from_pairs([("n", n.to_string())]);
                    cache.insert(text.as_bytes(), SeriesRef(*n), labels).unwrap()
                }
                Known::Dropped => panic!("nothing is dropped here"),
            };
            assert_eq!(cache.series(slot).0, SeriesRef(*n));
            cache.track(slot);
        }
        let mut ended = Vec::new();
        cache
            .for_each_stale(how == Page::Failed, |series, _| {
                ended.push(series.0);
                Ok::<_, ()>(())
            })
            .unwrap();
        cache.finish(how);
        ended.sort_unstable();
        ended
    }

    #[test]
    fn what_is_gone_has_ended_once() {
        let mut cache = Cache::default();
        assert_eq!(scrape(&mut cache, &[1, 2, 3], Page::Good), NO_ONE);
        assert_eq!(scrape(&mut cache, &[1, 3], Page::Good), [2]);
        assert_eq!(scrape(&mut cache, &[1, 3], Page::Good), NO_ONE);
        assert_eq!(scrape(&mut cache, &[3, 1, 2], Page::Good), NO_ONE);
        assert_eq!(scrape(&mut cache, &[], Page::Missing), [1, 2, 3]);
        assert_eq!(scrape(&mut cache, &[], Page::Missing), NO_ONE);
        assert_eq!(scrape(&mut cache, &[1], Page::Good), NO_ONE);
    }

    #[test]
    fn a_failed_page_ends_all_that_was_there_before() {
        let mut cache = Cache::default();
        scrape(&mut cache, &[1, 2, 3], Page::Good);
        assert_eq!(scrape(&mut cache, &[1, 2, 9], Page::Failed), [1, 2, 3]);
        assert_eq!(scrape(&mut cache, &[1, 2], Page::Good), NO_ONE);
    }

    #[test]
    fn two_texts_of_one_series_end_together() {
        let mut cache = Cache::default();
        let labels = Labels::from_pairs([("a", "b")]);
        for text in [&b"x"[..], b"y"] {
            assert_eq!(cache.look_up(text), Known::New);
            let slot = cache.insert(text, SeriesRef(7), labels.clone()).unwrap();
            cache.track(slot);
        }
        cache.finish(Page::Good);
        let Known::Series { slot, .. } = cache.look_up(b"y") else { panic!() };
        cache.track(slot);
        cache.for_each_stale(false, |_, _| Err(())).unwrap();
    }

    #[test]
    fn order_is_learned_and_relearned() {
        let mut cache = Cache::default();
        scrape(&mut cache, &[1, 2, 3], Page::Good);
        assert_eq!(cache.expected(), b"a1");
        let _ = cache.look_up(b"a1");
        assert_eq!(cache.expected(), b"a2");
        cache.finish(Page::Missing);
        scrape(&mut cache, &[3, 1, 4, 2], Page::Good);
        assert_eq!(cache.expected(), b"a3");
        let _ = cache.look_up(b"a3");
        let _ = cache.look_up(b"a1");
        assert_eq!(cache.expected(), b"a4");
    }

    #[test]
    fn pruning_keeps_what_the_last_page_had() {
        let mut cache = Cache::default();
        for round in 0..20u64 {
            let page: Vec<u64> = (round * 100..round * 100 + 150).collect();
            scrape(&mut cache, &page, Page::Good);
            assert_eq!(cache.len(), 150);
            assert!(cache.entries.len() <= 150 + 37 + 64 + 150);
        }
        let page: Vec<u64> = (1900..2050).collect();
        assert_eq!(scrape(&mut cache, &page, Page::Good), NO_ONE);
    }

    #[test]
    fn failing_pages_do_not_grow_the_cache_for_ever() {
        let mut cache = Cache::default();
        scrape(&mut cache, &[1], Page::Good);
        for round in 1..50u64 {
            let page: Vec<u64> = (round * 100..round * 100 + 100).collect();
            scrape(&mut cache, &page, Page::Failed);
            assert!(cache.len() <= 1200, "{}", cache.len());
        }
    }
}
