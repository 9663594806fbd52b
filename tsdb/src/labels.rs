//! Label sets in one canonical byte form.
//!
//! # Format
//! A label set is a sequence of `(uvarint name length, name, uvarint value length, value)` sorted
//! by name, each name once, no empty value. Equal sets have equal bytes, so the bytes serve as hash
//! and join key everywhere above ([`Labels::as_bytes`] is the `labels_key` of a PromQL tile).
//!
//! # Order
//! [`Ord`] is Prometheus' label order: label by label, name before value, a prefix before what
//! extends it. It is not the order of the bytes.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// Name of the label that holds the metric name.
pub const METRIC_NAME: &str = "__name__";

/// An immutable label set; cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Arc<[u8]>);

impl Default for Labels {
    fn default() -> Self {
        Self(Arc::from(&[][..]))
    }
}

impl Labels {
    /// A set from pairs in any order. Empty values are left out; of equal names the last counts.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.set(name.as_ref(), value.as_ref());
        }
        builder.build()
    }

    /// Takes bytes that [`Labels::as_bytes`] gave.
    ///
    /// Returns `None` if they are not in canonical form, so bytes from outside are safe to pass.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut previous: Option<&str> = None;
        while !rest.is_empty() {
            let name = take_str_checked(&mut rest)?;
            let value = take_str_checked(&mut rest)?;
            if value.is_empty() || previous.is_some_and(|p| p >= name) {
                return None;
            }
            previous = Some(name);
        }
        Some(Self(Arc::from(bytes)))
    }

    /// Takes bytes that the caller knows to be canonical; see [`Labels::from_bytes`] for others.
    ///
    /// The caller promises what [`Labels::from_bytes`] checks. Only index readers use this: they
    /// check symbols once, when a block is opened, and not again for each series.
    pub(crate) fn from_canonical(bytes: &[u8]) -> Self {
        debug_assert!(Self::from_bytes(bytes).is_some(), "bytes are canonical");
        Self(Arc::from(bytes))
    }

    /// The canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Pairs in name order.
    pub fn iter(&self) -> LabelsIter<'_> {
        LabelsIter { rest: &self.0 }
    }

    /// Value of `name`; `None` if the set has no such label (which PromQL treats as empty).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The metric name, empty if there is none.
    pub fn metric_name(&self) -> &str {
        self.get(METRIC_NAME).unwrap_or_default()
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A copy that keeps the labels for which `keep(name)` holds.
    pub fn retain(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        let mut out = Vec::with_capacity(self.0.len());
        for (name, value) in self.iter() {
            if keep(name) {
                put_pair(&mut out, name, value);
            }
        }
        Self(Arc::from(out))
    }

    /// A copy without the metric name.
    pub fn without_name(&self) -> Self {
        self.retain(|n| n != METRIC_NAME)
    }

    /// A builder that starts with these labels.
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder { pairs: self.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect() }
    }

    /// Which of `partitions` this series belongs to: a hash of the bytes, the same in every source.
    pub fn partition(&self, partitions: usize) -> usize {
        if partitions <= 1 {
            return 0;
        }
        // Eight bytes at a time through a folded multiplication: every bit of the input reaches the top
        // bits of the hash, which are the ones that choose the partition.
        let fold = |h: u64, word: u64| {
            let product = u128::from(h ^ word) * 0x9e37_79b9_7f4a_7c15;
            (product >> 64) as u64 ^ product as u64
        };
        let (words, rest) = self.0.as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let h = words.iter().fold(0x2d35_8dcc_aa6c_78a5, |h, w| fold(h, u64::from_le_bytes(*w)));
        let h = fold(fold(h, u64::from_le_bytes(last)), self.0.len() as u64 ^ 0x8bb8_4b93_962e_acc9);
        ((u128::from(h) * partitions as u128) >> 64) as usize
    }
}

impl Ord for Labels {
    /// Finds the first byte that differs, then the piece (name or value) that it is in: sorting
    /// thousands of similar sets is a matter of comparing runs of equal bytes.
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (&*self.0, &*other.0);
        let Some(differs) = first_difference(a, b) else {
            // One is a prefix of the other, and ends where a pair does.
            return a.len().cmp(&b.len());
        };
        // All pieces before the one that differs are the same, so one set leads to it in both.
        let mut rest = a;
        let mut start = 0;
        loop {
            let before = rest.len();
            let Some(length) = take_len(&mut rest) else { return a.cmp(b) };
            let body = start + before - rest.len();
            if differs < body + length {
                let (mut left, mut right) = (&a[start..], &b[start..]);
                return take_str(&mut left).cmp(take_str(&mut right));
            }
            rest = rest.get(length..).unwrap_or_default();
            start = body + length;
        }
    }
}

/// Index of the first byte that differs within the shorter length.
fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    // Whole arrays, so that the compiler compares them in registers.
    const STEP: usize = 16;
    let (left, right) = (a.as_chunks::<STEP>().0, b.as_chunks::<STEP>().0);
    let equal = left.iter().zip(right).take_while(|(x, y)| x == y).count() * STEP;
    a[equal..].iter().zip(&b[equal..]).position(|(x, y)| x != y).map(|at| equal + at)
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Prometheus' text form: `{a="1", b="2"}`, as `labels.Labels.String`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            if is_legacy_label_name(name) {
                f.write_str(name)?;
            } else {
                f.write_str(&go_quote(name))?;
            }
            write!(f, "={}", go_quote(value))?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Pairs of a [`Labels`], in name order.
#[derive(Debug, Clone)]
pub struct LabelsIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for LabelsIter<'a> {
    type Item = (&'a str, &'a str);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        Some((take_str(&mut self.rest), take_str(&mut self.rest)))
    }
}

/// Collects labels and makes a canonical set of them.
#[derive(Debug, Clone, Default)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// Sets `name`; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        match self.pairs.iter().position(|(n, _)| n == name) {
            Some(i) if value.is_empty() => {
                self.pairs.swap_remove(i);
            }
            Some(i) => value.clone_into(&mut self.pairs[i].1),
            None if value.is_empty() => {}
            None => self.pairs.push((name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Removes `name`.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.set(name, "")
    }

    /// Value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Pairs in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// The canonical set.
    pub fn build(mut self) -> Labels {
        self.pairs.sort_unstable();
        let mut out = Vec::with_capacity(self.pairs.iter().map(|(n, v)| n.len() + v.len() + 2).sum());
        for (name, value) in &self.pairs {
            put_pair(&mut out, name, value);
        }
        Labels(Arc::from(out))
    }
}

/// Appends one pair in canonical form. The caller keeps names ascending and values non-empty.
pub fn put_pair(out: &mut Vec<u8>, name: &str, value: &str) {
    for s in [name, value] {
        let mut n = s.len();
        while n >= 0x80 {
            out.push((n as u8 & 0x7f) | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
        out.extend_from_slice(s.as_bytes());
    }
}

/// Whether `name` needs no quotes: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub fn is_legacy_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Quotes as Go's `strconv.Quote` does.
pub fn go_quote(s: &str) -> Cow<'_, str> {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    Cow::Owned(out)
}

#[inline]
fn take_len(rest: &mut &[u8]) -> Option<usize> {
    let mut n = 0usize;
    let mut shift = 0;
    loop {
        let (&b, tail) = rest.split_first()?;
        *rest = tail;
        n |= usize::from(b & 0x7f) << shift;
        if b < 0x80 {
            return Some(n);
        }
        shift += 7;
        if shift > 28 {
            return None;
        }
    }
}

fn take_str_checked<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let n = take_len(rest)?;
    let (head, tail) = rest.split_at_checked(n)?;
    *rest = tail;
    std::str::from_utf8(head).ok()
}

#[inline]
fn take_str<'a>(rest: &mut &'a [u8]) -> &'a str {
    let n = take_len(rest).expect("canonical label bytes carry whole lengths");
    let (head, tail) = rest.split_at(n);
    *rest = tail;
    // SAFETY: a `Labels` is only made from `&str` pieces (`put_pair`), after `from_bytes` checked every
    // piece, or by `from_canonical`, whose callers promise the same, so each length-prefixed piece is
    // valid UTF-8.
    unsafe { std::str::from_utf8_unchecked(head) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn order_is_pair_by_pair_name_before_value(
            a in prop::collection::btree_map("[ab]{1,3}", "[ab]{1,20}", 0..4),
            b in prop::collection::btree_map("[ab]{1,3}", "[ab]{1,20}", 0..4),
            shared in prop::collection::btree_map("[abc]{1,2}", "[ab]{120,140}", 0..2),
        ) {
            let set = |own: &std::collections::BTreeMap<String, String>| {
                Labels::from_pairs(own.iter().chain(&shared))
            };
            let (a, b) = (set(&a), set(&b));
            prop_assert_eq!(a.cmp(&b), a.iter().cmp(b.iter()));
            prop_assert_eq!(a.cmp(&a), Ordering::Equal);
        }
    }

    #[test]
    fn partitions_share_similar_series_evenly() {
        for partitions in [2, 3, 8] {
            let mut sizes = vec![0; partitions];
            for i in 0..8000 {
                let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("i", format!("{i:04}"))]);
                sizes[labels.partition(partitions)] += 1;
            }
            let even = 8000 / partitions;
            assert!(sizes.iter().all(|n| (even * 9 / 10..=even * 11 / 10).contains(n)), "{sizes:?}");
        }
    }
}
