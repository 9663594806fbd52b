//! Series by label pair.
//!
//! # Memory
//! Most lists are short and references are small: a list of one is inline, others are of 32-bit numbers
//! as long as references fit.
//!
//! # Concurrency
//! Reads share a lock that making a series takes alone. Removal holds it for a bounded number of
//! references at a time ([`SharedPostings::remove`]): what is half removed does no harm, because a
//! reference without a series is skipped.

use std::collections::{HashMap, HashSet};

use parking_lot::RwLock;

use super::values::Values;
use crate::labels::Labels;
use crate::postings::Postings as List;

/// References that are looked at while the lock is held.
const SLICE: usize = 32 * 1024;

/// Ascending references, each once.
#[derive(Debug, Clone)]
pub(crate) enum RefList {
    One(u64),
    Small(Vec<u32>),
    Large(Vec<u64>),
}

impl Default for RefList {
    fn default() -> Self {
        Self::Small(Vec::new())
    }
}

impl RefList {
    pub(crate) fn len(&self) -> usize {
        self.as_postings().len()
    }

    pub(crate) fn as_postings(&self) -> List<'_> {
        match self {
            Self::One(one) => List::Refs(std::slice::from_ref(one)),
            Self::Small(refs) => List::Small(refs),
            Self::Large(refs) => List::Refs(refs),
        }
    }

    /// Bytes besides itself.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Small(refs) => refs.capacity() * size_of::<u32>(),
            Self::Large(refs) => refs.capacity() * size_of::<u64>(),
        }
    }

    pub(super) fn insert(&mut self, series: u64) {
        match self {
            Self::One(one) if *one == series => {}
            Self::One(one) => {
                *self = Self::from_refs(vec![series.min(*one), series.max(*one)]);
            }
            Self::Small(refs) => match u32::try_from(series) {
                Ok(series) => insert_sorted(refs, series),
                Err(_) => {
                    let mut wide = refs.iter().map(|r| u64::from(*r)).collect::<Vec<_>>();
                    insert_sorted(&mut wide, series);
                    *self = Self::Large(wide);
                }
            },
            Self::Large(refs) => insert_sorted(refs, series),
        }
    }

    fn from_refs(refs: Vec<u64>) -> Self {
        match refs[..] {
            [one] => Self::One(one),
            _ => match refs.iter().map(|r| u32::try_from(*r)).collect() {
                Ok(small) => Self::Small(small),
                Err(_) => Self::Large(refs),
            },
        }
    }

    /// The references above `after`.
    fn above(&self, after: u64) -> Vec<u64> {
        match self {
            Self::One(one) => [*one].into_iter().filter(|r| *r > after).collect(),
            Self::Small(refs) => refs[refs.partition_point(|r| u64::from(*r) <= after)..]
                .iter()
                .map(|r| u64::from(*r))
                .collect(),
            Self::Large(refs) => refs[refs.partition_point(|r| *r <= after)..].to_vec(),
        }
    }

    fn last(&self) -> Option<u64> {
        match self {
            Self::One(one) => Some(*one),
            Self::Small(refs) => refs.last().map(|r| u64::from(*r)),
            Self::Large(refs) => refs.last().copied(),
        }
    }
}

fn insert_sorted<R: Ord + Copy>(list: &mut Vec<R>, series: R) {
    if list.last().is_none_or(|last| *last < series) {
        list.push(series);
    } else if let Err(at) = list.binary_search(&series) {
        list.insert(at, series);
    }
}

/// References per label pair.
#[derive(Debug, Default)]
pub(crate) struct Postings {
    pub(crate) all: RefList,
    pub(crate) by_name: HashMap<Box<str>, Values>,
}

impl Postings {
    pub(crate) fn insert(&mut self, series: u64, labels: &Labels) {
        self.all.insert(series);
        for (name, value) in labels.iter() {
            match self.by_name.get_mut(name) {
                Some(values) => values.insert(value, series),
                None => self.by_name.entry(name.into()).or_default().insert(value, series),
            }
        }
    }

    /// References of series with this label, whose value is not empty.
    pub(crate) fn with_value(&self, name: &str, value: &str) -> List<'_> {
        let list = self.by_name.get(name).and_then(|values| values.get(value));
        list.map(RefList::as_postings).unwrap_or_default()
    }

    /// One list for each value of label `name` that `accept` takes.
    pub(crate) fn with_values(&self, name: &str, accept: &mut dyn FnMut(&str) -> bool) -> Vec<List<'_>> {
        let values = self.by_name.get(name).into_iter().flat_map(Values::iter);
        values.filter(|(value, _)| accept(value)).map(|(_, list)| list.as_postings()).collect()
    }

    /// All references above `after`.
    pub(crate) fn all_above(&self, after: u64) -> Vec<u64> {
        self.all.above(after)
    }

    /// Bytes that the tables and lists take.
    pub(crate) fn bytes(&self) -> u64 {
        (self.all.bytes() + self.by_name.values().map(Values::bytes).sum::<usize>()) as u64
    }

    fn list(&self, pair: Option<(&str, &str)>) -> Option<&RefList> {
        match pair {
            None => Some(&self.all),
            Some((name, value)) => self.by_name.get(name)?.get(value),
        }
    }

    fn put(&mut self, pair: Option<(&str, &str)>, list: RefList) {
        match pair {
            None => self.all = list,
            Some((name, value)) => {
                let Some(values) = self.by_name.get_mut(name) else { return };
                values.replace(value, list);
                if values.is_empty() {
                    self.by_name.remove(name);
                }
            }
        }
    }
}

/// Postings behind their lock.
#[derive(Debug, Default)]
pub(crate) struct SharedPostings(RwLock<Postings>);

impl SharedPostings {
    pub(crate) fn read(&self) -> parking_lot::RwLockReadGuard<'_, Postings> {
        self.0.read()
    }

    pub(crate) fn write(&self) -> parking_lot::RwLockWriteGuard<'_, Postings> {
        self.0.write()
    }

    /// Removes series, which nobody can look up any more.
    pub(crate) fn remove(&self, removed: &[(u64, &Labels)]) {
        let dead = removed.iter().map(|(series, _)| *series).collect::<HashSet<_>>();
        let pairs = removed.iter().flat_map(|(_, labels)| labels.iter()).collect::<HashSet<_>>();
        let mut pairs = pairs.into_iter().map(Some).chain([None]).peekable();
        while pairs.peek().is_some() {
            if let Some(pair) = self.remove_short(&mut pairs, &dead) {
                self.remove_long(pair, &dead);
            }
        }
    }

    /// Filters as many short lists as one slice allows; gives the long one that came in between.
    fn remove_short<'a>(
        &self,
        pairs: &mut impl Iterator<Item = Option<(&'a str, &'a str)>>,
        dead: &HashSet<u64>,
    ) -> Option<Option<(&'a str, &'a str)>> {
        let mut postings = self.0.write();
        let mut looked_at = 0;
        while looked_at < SLICE
            && let Some(pair) = pairs.next()
        {
            let Some(list) = postings.list(pair) else { continue };
            if list.len() > SLICE {
                return Some(pair);
            }
            looked_at += list.len() + 1;
            let kept = without(list, dead);
            postings.put(pair, kept);
        }
        None
    }

    /// Filters a copy of a long list, and puts it in place with what came since.
    fn remove_long(&self, pair: Option<(&str, &str)>, dead: &HashSet<u64>) {
        let Some(copy) = self.0.read().list(pair).cloned() else { return };
        let kept = without(&copy, dead);
        let mut postings = self.0.write();
        let Some(list) = postings.list(pair) else { return };
        // New references are above all old ones, except while a log is replayed, when nothing is removed
        // beside it.
        let since = list.above(copy.last().unwrap_or_default());
        let mut kept = kept;
        since.into_iter().for_each(|series| kept.insert(series));
        postings.put(pair, kept);
    }
}

fn without(list: &RefList, dead: &HashSet<u64>) -> RefList {
    let alive = |series: &u64| !dead.contains(series);
    match list {
        RefList::One(one) if alive(one) => RefList::One(*one),
        RefList::One(_) => RefList::default(),
        RefList::Small(refs) => {
            RefList::Small(refs.iter().copied().filter(|r| alive(&u64::from(*r))).collect())
        }
        RefList::Large(refs) => RefList::Large(refs.iter().copied().filter(alive).collect()),
    }
}
