//! Series by reference.
//!
//! References are given out one after the other, and a target is scraped in the order in which its series
//! were made. So neighbours lie in pages: the next look-up mostly finds the cache line of the one before,
//! where a hash table of a million series would miss the cache several times in each.
//!
//! # Memory
//! A page goes when it is empty. At worst, one series in it is alive, which costs half a kilobyte.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::series::MemSeries;

/// References of a page.
pub(super) const PAGE: u64 = 64;

/// Series by their references.
#[derive(Debug, Default)]
pub(super) struct RefTable {
    pages: HashMap<u64, Box<Page>, BuildHasherDefault<PageHasher>>,
}

#[derive(Debug)]
struct Page {
    series: [Option<Arc<MemSeries>>; PAGE as usize],
    /// How many there are.
    live: u32,
}

impl RefTable {
    pub(super) fn get(&self, reference: u64) -> Option<&Arc<MemSeries>> {
        self.pages.get(&(reference / PAGE))?.series[(reference % PAGE) as usize].as_ref()
    }

    /// Adds a series under its reference; the one that is there stays.
    pub(super) fn insert(&mut self, series: Arc<MemSeries>) {
        let reference = series.series.0;
        let page = self
            .pages
            .entry(reference / PAGE)
            .or_insert_with(|| Box::new(Page { series: std::array::from_fn(|_| None), live: 0 }));
        let place = &mut page.series[(reference % PAGE) as usize];
        page.live += u32::from(place.is_none());
        place.get_or_insert(series);
    }

    pub(super) fn remove(&mut self, reference: u64) {
        let Some(page) = self.pages.get_mut(&(reference / PAGE)) else { return };
        page.live -= u32::from(page.series[(reference % PAGE) as usize].take().is_some());
        if page.live == 0 {
            self.pages.remove(&(reference / PAGE));
        }
    }

    /// All series, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<MemSeries>> {
        self.pages.values().flat_map(|page| page.series.iter().flatten())
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        // A table is at most seven eighths full; a slot is a number, a pointer and a byte.
        self.pages.len() * size_of::<Page>() + self.pages.capacity() / 7 * 8 * (2 * size_of::<u64>() + 1)
    }
}

/// Pages are counted up, so a multiplication spreads them well.
#[derive(Debug, Default, Clone, Copy)]
struct PageHasher(u64);

impl Hasher for PageHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers of pages are hashed");
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::labels::Labels;
    use crate::sample::SeriesRef;

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(
            steps in prop::collection::vec((any::<bool>(), prop_oneof![0u64..300, any::<u64>()]), 0..200)
        ) {
            let (mut table, mut model) = (RefTable::default(), BTreeMap::new());
            for (insert, reference) in steps {
                if insert {
                    let series = Arc::new(MemSeries::new(SeriesRef(reference), Labels::default(), false));
                    table.insert(Arc::clone(&series));
                    model.entry(reference).or_insert(series);
                } else {
                    table.remove(reference);
                    model.remove(&reference);
                }
                prop_assert_eq!(table.get(reference).is_some(), insert);
            }
            for (reference, series) in &model {
                prop_assert!(table.get(*reference).is_some_and(|found| Arc::ptr_eq(found, series)));
            }
            prop_assert_eq!(table.iter().count(), model.len());
            model.keys().for_each(|reference| table.remove(*reference));
            prop_assert!(table.pages.is_empty());
        }
    }
}
