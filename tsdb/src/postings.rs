//! Postings: ascending lists of series references, and the set operations that answer matchers.
//!
//! Lists are read in place, whether they are `u64`s in memory or big-endian `u32`s in a mapped index;
//! results are fresh vectors. Intersections gallop, so a short list against a long one costs
//! `short × log(long)`.

use std::cmp::Ordering;

use crate::error::Result;
use crate::matcher::{MatchOp, Matcher};

/// An ascending list of series references, each once.
#[derive(Debug, Clone)]
pub enum Postings<'a> {
    /// Big-endian `u32`s, as an index stores them. Left-over bytes at the end are ignored.
    Be32(&'a [u8]),
    /// References in memory.
    Refs(&'a [u64]),
    /// Small references in memory.
    Small(&'a [u32]),
    /// References that the list owns.
    Owned(Vec<u64>),
}

impl Default for Postings<'_> {
    fn default() -> Self {
        Self::Refs(&[])
    }
}

impl Postings<'_> {
    /// Number of references.
    pub fn len(&self) -> usize {
        match self {
            Self::Be32(bytes) => bytes.len() / 4,
            Self::Refs(refs) => refs.len(),
            Self::Small(refs) => refs.len(),
            Self::Owned(refs) => refs.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The reference at place `i`, counted from 0.
    #[inline]
    pub fn get(&self, i: usize) -> Option<u64> {
        match self {
            Self::Be32(bytes) => bytes.as_chunks::<4>().0.get(i).map(|w| u64::from(u32::from_be_bytes(*w))),
            Self::Refs(refs) => refs.get(i).copied(),
            Self::Small(refs) => refs.get(i).map(|r| u64::from(*r)),
            Self::Owned(refs) => refs.get(i).copied(),
        }
    }

    /// Appends all references to `out`.
    pub fn append_to(&self, out: &mut Vec<u64>) {
        match self {
            Self::Be32(bytes) => {
                let (words, _) = bytes.as_chunks::<4>();
                out.extend(words.iter().map(|w| u64::from(u32::from_be_bytes(*w))));
            }
            Self::Refs(refs) => out.extend_from_slice(refs),
            Self::Small(refs) => out.extend(refs.iter().map(|r| u64::from(*r))),
            Self::Owned(refs) => out.extend_from_slice(refs),
        }
    }

    /// All references.
    pub fn into_vec(self) -> Vec<u64> {
        match self {
            Self::Owned(refs) => refs,
            other => {
                let mut out = Vec::with_capacity(other.len());
                other.append_to(&mut out);
                out
            }
        }
    }
}

/// References that are in every list; none if there is no list.
pub fn intersect(mut lists: Vec<Postings<'_>>) -> Vec<u64> {
    lists.sort_by_key(Postings::len);
    let mut lists = lists.into_iter();
    let mut out = lists.next().unwrap_or_default().into_vec();
    for list in lists {
        if out.is_empty() {
            break;
        }
        keep(&mut out, &list, true);
    }
    out
}

/// References that are in any list.
pub fn union(lists: &[Postings<'_>]) -> Vec<u64> {
    let mut out = Vec::with_capacity(lists.iter().map(Postings::len).sum());
    for list in lists {
        list.append_to(&mut out);
    }
    if lists.len() > 1 {
        // A stable sort finds the runs that the lists are and merges them.
        out.sort();
        out.dedup();
    }
    out
}

/// References of `base` that are not in `removed`.
pub fn without(mut base: Vec<u64>, removed: &Postings<'_>) -> Vec<u64> {
    keep(&mut base, removed, false);
    base
}

/// Whether the lists have a reference in common.
pub fn intersects(a: &[u64], b: &Postings<'_>) -> bool {
    match b {
        Postings::Be32(bytes) => any_common(a, bytes.as_chunks::<4>().0),
        Postings::Refs(refs) => any_common(a, *refs),
        Postings::Small(refs) => any_common(a, *refs),
        Postings::Owned(refs) => any_common(a, refs.as_slice()),
    }
}

/// Random access to ascending references.
trait Sorted: Copy {
    fn len(self) -> usize;
    fn get(self, i: usize) -> u64;

    /// First index at or after `from` whose reference is `>= target`: doubling steps, then halving.
    fn seek(self, from: usize, target: u64) -> usize {
        let (mut low, mut step) = (from, 1);
        while low + step <= self.len() && self.get(low + step - 1) < target {
            low += step;
            step *= 2;
        }
        let mut high = (low + step - 1).min(self.len());
        while low < high {
            let mid = low + (high - low) / 2;
            if self.get(mid) < target { low = mid + 1 } else { high = mid }
        }
        low
    }
}

impl Sorted for &[u64] {
    #[inline]
    fn len(self) -> usize {
        <[u64]>::len(self)
    }
    #[inline]
    fn get(self, i: usize) -> u64 {
        self[i]
    }
}

impl Sorted for &[u32] {
    #[inline]
    fn len(self) -> usize {
        <[u32]>::len(self)
    }
    #[inline]
    fn get(self, i: usize) -> u64 {
        u64::from(self[i])
    }
}

impl Sorted for &[[u8; 4]] {
    #[inline]
    fn len(self) -> usize {
        <[[u8; 4]]>::len(self)
    }
    #[inline]
    fn get(self, i: usize) -> u64 {
        u64::from(u32::from_be_bytes(self[i]))
    }
}

/// Keeps what is (`inside`) or is not (`!inside`) in `list`.
fn keep(out: &mut Vec<u64>, list: &Postings<'_>, inside: bool) {
    match list {
        Postings::Be32(bytes) => keep_sorted(out, bytes.as_chunks::<4>().0, inside),
        Postings::Refs(refs) => keep_sorted(out, *refs, inside),
        Postings::Small(refs) => keep_sorted(out, *refs, inside),
        Postings::Owned(refs) => keep_sorted(out, refs.as_slice(), inside),
    }
}

fn keep_sorted<L: Sorted>(out: &mut Vec<u64>, list: L, inside: bool) {
    if out.len() / 16 > list.len() {
        // The list is the short one: gallop through `out` instead.
        return keep_short(out, list, inside);
    }
    let mut at = 0;
    out.retain(|r| {
        at = list.seek(at, *r);
        (at < list.len() && list.get(at) == *r) == inside
    });
}

fn keep_short<L: Sorted>(out: &mut Vec<u64>, list: L, inside: bool) {
    let mut found = Vec::with_capacity(list.len());
    let mut at = 0;
    for i in 0..list.len() {
        at = out.as_slice().seek(at, list.get(i));
        if out.get(at) == Some(&list.get(i)) {
            found.push(at);
        }
    }
    if inside {
        for (to, from) in found.iter().enumerate() {
            out[to] = out[*from];
        }
        out.truncate(found.len());
    } else if !found.is_empty() {
        let (mut index, mut next) = (0, 0);
        out.retain(|_| {
            let drop = found.get(next) == Some(&index);
            next += usize::from(drop);
            index += 1;
            !drop
        });
    }
}

fn any_common<L: Sorted>(a: &[u64], b: L) -> bool {
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b.get(j)) {
            Ordering::Equal => return true,
            Ordering::Less => i = a.seek(i, b.get(j)),
            Ordering::Greater => j = b.seek(j, a[i]),
        }
    }
    false
}

/// An index that can answer matchers.
pub trait PostingsSource {
    /// Every series.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn all(&self) -> Result<Postings<'_>>;

    /// Series with label `name` = `value`; `value` is not empty.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn with_value(&self, name: &str, value: &str) -> Result<Postings<'_>>;

    /// One list for each value of label `name` that `accept` takes. It takes none that starts with none of
    /// `prefixes` (which are sorted, and none a prefix of another), unless that is empty. The lists are
    /// disjoint.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn with_values(
        &self,
        name: &str,
        prefixes: &[String],
        accept: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Vec<Postings<'_>>>;

    /// About how many values label `name` has.
    fn value_count(&self, name: &str) -> usize;

    /// Whether `accept` takes the value of label `name` of a series; the empty one if it lacks the label, or if
    /// there is no such series.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn has_value(&self, series: u64, name: &str, accept: &mut dyn FnMut(&str) -> bool) -> Result<bool>;
}

/// How many values of a label can be tested in the time in which the label of one series is found.
const VALUES_PER_SERIES: usize = 8;
/// How many values of a label can be tested in the time in which one is looked up.
const VALUES_PER_LOOKUP: usize = 16;

/// Series for which all matchers hold, ascending.
///
/// A matcher that does not match the empty string gives a list to intersect with; one that does
/// gives the series to remove: those that have the label with a value that does not match. Matchers that have to
/// try many values come last, and look at the labels of what is left instead where that is less.
///
/// # Errors
/// When the index cannot be read.
pub fn for_matchers(source: &impl PostingsSource, matchers: &[Matcher]) -> Result<Vec<u64>> {
    let (looked_up, mut tried): (Vec<_>, Vec<_>) =
        matchers.iter().filter(|m| !m.matches_everything()).partition(|m| is_looked_up(source, m));
    let (outside, mut inside): (Vec<_>, Vec<_>) = looked_up.into_iter().partition(|m| m.matches_empty());
    tried.sort_by_key(|m| (m.matches_empty(), m.prefixes().is_empty()));
    // Without any list to begin with, one has to be made.
    let mut tried = tried.into_iter().peekable();
    inside.extend(tried.next_if(|m| inside.is_empty() && !m.matches_empty()));
    let mut lists = Vec::with_capacity(inside.len());
    for m in inside {
        let list = matching(source, m)?;
        if list.is_empty() {
            return Ok(Vec::new());
        }
        lists.push(list);
    }
    if lists.is_empty() {
        lists.push(source.all()?);
    }
    let mut found = intersect(lists);
    for m in outside.into_iter().chain(tried) {
        if found.is_empty() {
            break;
        }
        narrow(source, m, &mut found)?;
    }
    Ok(found)
}

/// Whether the lists of a matcher are found without trying values.
fn is_looked_up(source: &impl PostingsSource, m: &Matcher) -> bool {
    match (m.op(), m.set_matches()) {
        (MatchOp::Eq, _) => !m.value().is_empty(),
        (MatchOp::Ne, _) => !m.value().is_empty(),
        (MatchOp::Re, Some(set)) => !m.matches_empty() && is_few(source, m, set),
        (MatchOp::Nre, Some(set)) => m.matches_empty() && is_few(source, m, set),
        (MatchOp::Re | MatchOp::Nre, None) => false,
    }
}

/// Whether to look up the values of a set takes less than to try all.
fn is_few(source: &impl PostingsSource, m: &Matcher, set: &[String]) -> bool {
    set.len() <= 1 || set.len() * VALUES_PER_LOOKUP <= source.value_count(m.name())
}

/// Keeps of `found` the series that match.
fn narrow(source: &impl PostingsSource, m: &Matcher, found: &mut Vec<u64>) -> Result<()> {
    if !is_looked_up(source, m) && found.len() * VALUES_PER_SERIES <= source.value_count(m.name()) {
        let mut result = Ok(());
        found.retain(|series| match source.has_value(*series, m.name(), &mut |v| m.matches(v)) {
            Ok(keep) => keep,
            Err(error) => {
                result = Err(error);
                false
            }
        });
        return result;
    }
    if !m.matches_empty() {
        keep(found, &matching(source, m)?, true);
        return Ok(());
    }
    for list in not_matching(source, m)? {
        keep(found, &list, false);
    }
    Ok(())
}

/// Series that have the label, with a value that matches. `m` does not match the empty string.
fn matching<'s>(source: &'s impl PostingsSource, m: &Matcher) -> Result<Postings<'s>> {
    let mut lists = match (m.op(), m.set_matches()) {
        (MatchOp::Eq, _) => return source.with_value(m.name(), m.value()),
        (MatchOp::Re, Some(set)) if is_few(source, m, set) => with_each(source, m.name(), set)?,
        (MatchOp::Re, _) => source.with_values(m.name(), m.prefixes(), &mut |v| m.matches(v))?,
        (MatchOp::Ne | MatchOp::Nre, _) => source.with_values(m.name(), &[], &mut |v| m.matches(v))?,
    };
    Ok(match lists.len() {
        0 | 1 => lists.pop().unwrap_or_default(),
        _ => Postings::Owned(union(&lists)),
    })
}

/// Series that have the label, with a value that does not match. `m` matches the empty string.
fn not_matching<'s>(source: &'s impl PostingsSource, m: &Matcher) -> Result<Vec<Postings<'s>>> {
    let lists = match (m.op(), m.set_matches()) {
        (MatchOp::Ne, _) => return Ok(vec![source.with_value(m.name(), m.value())?]),
        (MatchOp::Nre, Some(set)) if is_few(source, m, set) => with_each(source, m.name(), set)?,
        (MatchOp::Nre, _) => source.with_values(m.name(), m.prefixes(), &mut |v| !m.matches(v))?,
        (MatchOp::Eq | MatchOp::Re, _) => source.with_values(m.name(), &[], &mut |v| !m.matches(v))?,
    };
    Ok(if lists.len() > 4 { vec![Postings::Owned(union(&lists))] } else { lists })
}

/// The lists of some values of a label.
fn with_each<'s>(
    source: &'s impl PostingsSource,
    name: &str,
    values: &[String],
) -> Result<Vec<Postings<'s>>> {
    values.iter().filter(|v| !v.is_empty()).map(|v| source.with_value(name, v)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn sets() -> impl Strategy<Value = Vec<BTreeSet<u32>>> {
        let dense = prop::collection::btree_set(0u32..300, 0..200);
        let sparse = prop::collection::btree_set(0u32..300, 0..8);
        prop::collection::vec(prop_oneof![dense, sparse], 1..5)
    }

    fn be32(set: &BTreeSet<u32>) -> Vec<u8> {
        set.iter().flat_map(|r| r.to_be_bytes()).collect()
    }

    proptest! {
        #[test]
        fn set_operations_are_those_of_sets(sets in sets()) {
            let bytes: Vec<_> = sets.iter().map(be32).collect();
            let owned: Vec<Vec<u64>> =
                sets.iter().map(|s| s.iter().copied().map(u64::from).collect()).collect();
            let first: BTreeSet<u64> = owned[0].iter().copied().collect();
            let rest = |i: usize| owned[i].iter().copied().collect::<BTreeSet<u64>>();
            let all = (1..sets.len()).fold(first.clone(), |a, i| &a | &rest(i));
            let common = (1..sets.len()).fold(first.clone(), |a, i| &a & &rest(i));
            let left = (1..sets.len()).fold(first, |a, i| &a - &rest(i));
            let small = sets.iter().map(|s| s.iter().copied().collect::<Vec<u32>>()).collect::<Vec<_>>();
            for form in 0..3 {
                let lists = || -> Vec<Postings<'_>> {
                    match form {
                        0 => bytes.iter().map(|b| Postings::Be32(b)).collect(),
                        1 => owned.iter().map(|o| Postings::Refs(o)).collect(),
                        _ => small.iter().map(|s| Postings::Small(s)).collect(),
                    }
                };
                prop_assert_eq!(union(&lists()), all.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(intersect(lists()), common.iter().copied().collect::<Vec<_>>());
                let remaining = lists()[1..].iter().fold(owned[0].clone(), without);
                prop_assert_eq!(remaining, left.iter().copied().collect::<Vec<_>>());
                if let Some(second) = lists().get(1) {
                    let any = owned[0].iter().any(|r| owned[1].contains(r));
                    prop_assert_eq!(intersects(&owned[0], second), any);
                }
            }
        }
    }
}
