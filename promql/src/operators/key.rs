//! Label keys: what operators do to the canonical label bytes of a row.
//!
//! With delayed name removal a key that shall lose its metric name at the end of the query carries
//! a mark: one more pair, whose name sorts behind every other name. Operators that look at labels
//! treat it as a label; it never leaves the engine.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;

use promontory_tsdb::Labels;
use promontory_tsdb::labels::{METRIC_NAME, put_pair};

use crate::keys::is_metadata_label;
use crate::logical::spec::Grouping;
use crate::parser::VectorMatching;

/// Name of the pair that marks a key whose metric name is to be dropped in the end.
pub(crate) const NAME_DROPPED: &str = "\u{10ffff}name dropped";

/// What a node does to the keys that pass through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyChange {
    /// Nothing.
    Keep,
    /// The metric name goes.
    DropName,
    /// The metric name is marked to go in the end (delayed name removal).
    MarkName,
}

/// Pairs of a key, with the bytes of each pair.
#[derive(Debug, Clone)]
pub(crate) struct Pairs<'a> {
    rest: &'a [u8],
}

/// The pairs of `key`, which is canonical.
pub(crate) fn pairs(key: &[u8]) -> Pairs<'_> {
    Pairs { rest: key }
}

fn take<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let mut n = 0;
    let mut shift = 0;
    while let Some((&b, tail)) = rest.split_first() {
        *rest = tail;
        n |= usize::from(b & 0x7f) << shift;
        if b < 0x80 {
            break;
        }
        shift += 7;
    }
    let (head, tail) = rest.split_at(n.min(rest.len()));
    *rest = tail;
    head
}

impl<'a> Iterator for Pairs<'a> {
    /// Name, value, and the bytes of both with their lengths.
    type Item = (&'a [u8], &'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let before = self.rest;
        let name = take(&mut self.rest);
        let value = take(&mut self.rest);
        Some((name, value, &before[..before.len() - self.rest.len()]))
    }
}

/// Appends the pairs of `key` for which `keep(name)` holds.
pub(crate) fn retain_into(key: &[u8], out: &mut Vec<u8>, mut keep: impl FnMut(&[u8]) -> bool) {
    for (name, _, bytes) in pairs(key) {
        if keep(name) {
            out.extend_from_slice(bytes);
        }
    }
}

/// Value of the label `name`.
pub(crate) fn get<'a>(key: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pairs(key).find(|(n, _, _)| *n == name.as_bytes()).map(|(_, v, _)| v)
}

/// The key without its mark.
pub(crate) fn unmarked(key: &[u8]) -> &[u8] {
    match pairs(key).last() {
        Some((name, _, bytes)) if name == NAME_DROPPED.as_bytes() => &key[..key.len() - bytes.len()],
        _ => key,
    }
}

/// The key as labels: a marked name is gone.
pub(crate) fn final_labels(key: &[u8]) -> Labels {
    let plain = unmarked(key);
    let labels = labels(plain);
    if plain.len() == key.len() {
        return labels;
    }
    let mut kept = Vec::with_capacity(plain.len());
    retain_into(plain, &mut kept, |name| !is_metadata_label(name));
    Labels::from_bytes(&kept).unwrap_or_default()
}

/// The key as labels, the mark left out, the name kept.
pub(crate) fn labels(key: &[u8]) -> Labels {
    Labels::from_bytes(unmarked(key)).unwrap_or_default()
}

/// Order of label sets, as [`Labels`]' `Ord`.
pub(crate) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    pairs(a).map(|(n, v, _)| (n, v)).cmp(pairs(b).map(|(n, v, _)| (n, v)))
}

impl KeyChange {
    /// The changed key.
    pub(crate) fn apply<'a>(self, key: &'a [u8]) -> Cow<'a, [u8]> {
        match self {
            Self::Keep => Cow::Borrowed(key),
            Self::DropName => {
                if !pairs(key).any(|(name, ..)| is_metadata_label(name)) {
                    return Cow::Borrowed(key);
                }
                let mut out = Vec::with_capacity(key.len());
                retain_into(key, &mut out, |name| !is_metadata_label(name));
                Cow::Owned(out)
            }
            Self::MarkName => {
                let mut out = unmarked(key).to_vec();
                put_pair(&mut out, NAME_DROPPED, "1");
                Cow::Owned(out)
            }
        }
    }
}

/// How series of two sides are told to belong together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Signature {
    /// `on`: just these labels. Otherwise all labels but these and the metric name.
    pub on: bool,
    /// Label names, sorted, each once.
    pub labels: Vec<String>,
}

impl Signature {
    /// The signature that a binary operator matches by.
    pub fn new(matching: &VectorMatching) -> Self {
        let mut labels = matching.labels.clone();
        labels.sort_unstable();
        labels.dedup();
        Self { on: matching.on, labels }
    }

    pub(crate) fn lists(&self, name: &[u8]) -> bool {
        self.labels.iter().any(|l| l.as_bytes() == name)
    }

    /// The bytes by which `key` is matched.
    pub(crate) fn of(&self, key: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(key.len());
        if self.on {
            retain_into(key, &mut out, |n| self.lists(n));
        } else {
            retain_into(key, &mut out, |n| {
                n != METRIC_NAME.as_bytes() && n != NAME_DROPPED.as_bytes() && !self.lists(n)
            });
        }
        out
    }

    /// The labels of the match group, as upstream prints them in errors.
    pub(crate) fn group_labels(&self, key: &[u8]) -> Labels {
        labels(&self.of(key))
    }
}

/// The group of `key`.
pub(crate) fn group_of(key: &[u8], grouping: &Grouping) -> Vec<u8> {
    let listed = |n: &[u8]| grouping.labels.iter().any(|l| l.as_bytes() == n);
    let mut out = Vec::new();
    if grouping.without {
        retain_into(key, &mut out, |n| {
            n != METRIC_NAME.as_bytes() && n != NAME_DROPPED.as_bytes() && !listed(n)
        });
    } else if !grouping.labels.is_empty() {
        retain_into(key, &mut out, listed);
    }
    out
}

/// Gives equal byte strings equal small numbers.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    ids: HashMap<Vec<u8>, u32>,
    bytes: usize,
}

impl Interner {
    pub(crate) fn id(&mut self, bytes: &[u8]) -> u32 {
        if let Some(id) = self.ids.get(bytes) {
            return *id;
        }
        let id = u32::try_from(self.ids.len()).expect("fewer than 2^32 series");
        self.ids.insert(bytes.to_vec(), id);
        self.bytes += bytes.len() + 64;
        id
    }

    /// What it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }
}

/// Computes something of keys once per distinct key.
#[derive(Debug, Default)]
pub(crate) struct PerKey<'a, T> {
    known: HashMap<&'a [u8], T>,
}

impl<'a, T: Clone> PerKey<'a, T> {
    pub(crate) fn new() -> Self {
        Self { known: HashMap::new() }
    }

    pub(crate) fn get(&mut self, key: &'a [u8], make: impl FnOnce(&'a [u8]) -> T) -> T {
        self.known.entry(key).or_insert_with(|| make(key)).clone()
    }
}
