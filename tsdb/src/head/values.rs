//! The values of one label name, with the series that have each.
//!
//! # Memory
//! Texts lie one behind the other, in the order in which they came: matchers look at all of them, and a hundred
//! thousand texts that are somewhere take several times as long as those that are in a row. What is removed
//! stays until it is half of all.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::postings::RefList;

/// Removed values that are not worth to be cleared away.
const FEW: usize = 16;

/// Values, each with at least one series.
#[derive(Debug, Default)]
pub(crate) struct Values {
    /// Texts of all entries.
    texts: String,
    entries: Vec<Entry>,
    /// Indexes of entries, by text.
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

#[derive(Debug)]
struct Entry {
    /// Where its text ends; it begins where that of the entry before ends.
    end: usize,
    /// Empty once the value is removed.
    series: RefList,
}

impl Values {
    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(crate) fn get(&self, value: &str) -> Option<&RefList> {
        let at = self.table.find(self.hasher.hash_one(value), |at| self.text(*at as usize) == value)?;
        Some(&self.entries[*at as usize].series)
    }

    /// Adds a series to those of a value.
    pub(crate) fn insert(&mut self, value: &str, series: u64) {
        let hash = self.hasher.hash_one(value);
        if let Some(at) = self.table.find(hash, |at| self.text(*at as usize) == value) {
            return self.entries[*at as usize].series.insert(series);
        }
        self.push(value, RefList::One(series));
        let at = u32::try_from(self.entries.len() - 1).expect("values are series at most, in memory");
        let Self { texts, entries, table, hasher } = self;
        table.insert_unique(hash, at, |at| hasher.hash_one(text(texts, entries, *at as usize)));
    }

    /// Puts other series in place of those of a value that is there; none removes it.
    pub(crate) fn replace(&mut self, value: &str, series: RefList) {
        let hash = self.hasher.hash_one(value);
        let Self { texts, entries, table, .. } = self;
        let found = table.find_entry(hash, |at| text(texts, entries, *at as usize) == value);
        let Ok(found) = found else { return };
        let removed = series.len() == 0;
        entries[*found.get() as usize].series = series;
        if removed {
            found.remove();
            if self.entries.len() > 2 * self.table.len() + FEW {
                self.clear_away();
            }
        }
    }

    /// Values and their series, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &RefList)> {
        let all = self.entries.iter().enumerate().filter(|(_, entry)| entry.series.len() > 0);
        all.map(|(at, entry)| (self.text(at), &entry.series))
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let lists = self.entries.iter().map(|entry| entry.series.bytes()).sum::<usize>();
        let entries = self.entries.capacity() * size_of::<Entry>();
        // A table is at most seven eighths full; a slot is an index and a byte.
        self.texts.capacity() + entries + self.table.capacity() / 7 * 8 * (size_of::<u32>() + 1) + lists
    }

    fn text(&self, at: usize) -> &str {
        text(&self.texts, &self.entries, at)
    }

    fn push(&mut self, value: &str, series: RefList) {
        self.texts.push_str(value);
        self.entries.push(Entry { end: self.texts.len(), series });
    }

    /// Forgets texts of removed values.
    fn clear_away(&mut self) {
        let mut kept = Self { hasher: self.hasher, ..Self::default() };
        kept.texts.reserve_exact(self.iter().map(|(value, _)| value.len()).sum());
        kept.entries.reserve_exact(self.len());
        kept.table.reserve(self.len(), |_| 0);
        for at in 0..self.entries.len() {
            let series = std::mem::take(&mut self.entries[at].series);
            if series.len() > 0 {
                let value = self.text(at);
                let hash = self.hasher.hash_one(value);
                kept.push(value, series);
                // There is room, so that nothing is hashed again.
                kept.table.insert_unique(hash, kept.entries.len() as u32 - 1, |_| hash);
            }
        }
        *self = kept;
    }
}

fn text<'t>(texts: &'t str, entries: &[Entry], at: usize) -> &'t str {
    let from = at.checked_sub(1).map_or(0, |before| entries[before].end);
    &texts[from..entries[at].end]
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(
            steps in prop::collection::vec((prop::bool::weighted(0.7), 0u32..60, 0u64..4), 0..400)
        ) {
            let (mut values, mut model) = (Values::default(), BTreeMap::<String, BTreeSet<u64>>::new());
            for (insert, value, series) in steps {
                let value = format!("{}é{value}", "x".repeat(value as usize % 5));
                if insert {
                    values.insert(&value, series);
                    model.entry(value).or_default().insert(series);
                } else {
                    values.replace(&value, RefList::default());
                    model.remove(&value);
                }
                prop_assert_eq!((values.len(), values.is_empty()), (model.len(), model.is_empty()));
                prop_assert!(values.entries.len() <= 2 * values.len() + FEW);
            }
            for (value, series) in &model {
                let found = values.get(value).map(|list| list.as_postings().into_vec());
                prop_assert_eq!(found, Some(series.iter().copied().collect::<Vec<_>>()));
            }
            prop_assert!(values.get("other").is_none());
            let all: BTreeSet<&str> = values.iter().map(|(value, _)| value).collect();
            prop_assert_eq!(all, model.keys().map(String::as_str).collect());
        }
    }
}
