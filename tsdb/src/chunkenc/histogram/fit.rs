//! Whether the buckets of a sample fit those of an open chunk.

use crate::histogram::{Span, indexed};

/// The buckets of a chunk and of a sample on one side of zero, where they are not the same.
#[derive(Debug)]
pub(super) struct Union {
    /// Indexes of all buckets of both, ascending.
    indexes: Vec<i32>,
    /// Whether the sample has buckets that the chunk has not.
    pub(super) chunk_lacks: bool,
    /// Whether the chunk has buckets that the sample has not.
    pub(super) sample_lacks: bool,
}

/// A layout with the counts in it.
pub(super) type Side<'a, I> = (&'a [Span], I);

/// Compares counters: `Ok(None)` if chunk and sample have the same buckets.
///
/// # Errors
/// If there was a reset: a count fell, or a populated bucket is gone.
pub(super) fn compare_counters<C: Copy + PartialOrd + Default>(
    chunk: Side<'_, impl Iterator<Item = C>>,
    sample: Side<'_, impl Iterator<Item = C>>,
) -> Result<Option<Union>, Reset> {
    if chunk.0 == sample.0 {
        let fell = chunk.1.zip(sample.1).any(|(before, now)| before > now);
        return if fell { Err(Reset) } else { Ok(None) };
    }
    let (before, now): (Vec<C>, Vec<C>) = (chunk.1.collect(), sample.1.collect());
    let mut reset = false;
    let union =
        unite(indexed(chunk.0, &before), indexed(sample.0, &now), |before, now| match (before, now) {
            (Some(before), Some(now)) => reset |= before > now,
            (Some(before), None) => reset |= before != C::default(),
            _ => {}
        });
    if reset { Err(Reset) } else { Ok(union) }
}

/// A count fell.
#[derive(Debug)]
pub(super) struct Reset;

/// Compares gauges, whose counts may be anything.
pub(super) fn compare_gauges(chunk: &[Span], sample: &[Span]) -> Option<Union> {
    if chunk == sample {
        return None;
    }
    unite(all_indexes(chunk), all_indexes(sample), |_, _| {})
}

/// Walks two lists of buckets side by side; `None` if both have the same.
fn unite<C>(
    chunk: impl Iterator<Item = (i32, C)>,
    sample: impl Iterator<Item = (i32, C)>,
    mut see: impl FnMut(Option<C>, Option<C>),
) -> Option<Union> {
    let (mut chunk, mut sample) = (chunk.peekable(), sample.peekable());
    let mut union = Union { indexes: Vec::new(), chunk_lacks: false, sample_lacks: false };
    loop {
        let index = match (chunk.peek(), sample.peek()) {
            (Some(a), Some(b)) => a.0.min(b.0),
            (Some(a), None) => a.0,
            (None, Some(b)) => b.0,
            (None, None) => break,
        };
        let (a, b) = (chunk.next_if(|a| a.0 == index), sample.next_if(|b| b.0 == index));
        union.chunk_lacks |= a.is_none();
        union.sample_lacks |= b.is_none();
        union.indexes.push(index);
        see(a.map(|a| a.1), b.map(|b| b.1));
    }
    (union.chunk_lacks || union.sample_lacks).then_some(union)
}

/// Indexes of the buckets that spans lay out.
fn all_indexes(spans: &[Span]) -> impl Iterator<Item = (i32, ())> + '_ {
    let mut next = 0i32;
    spans.iter().flat_map(move |s| {
        let start = next.wrapping_add(s.offset);
        next = start.wrapping_add_unsigned(s.length);
        (0..s.length).map(move |i| (start.wrapping_add_unsigned(i), ()))
    })
}

impl Union {
    /// Puts counts laid out by `spans` where they are among all buckets; the others are empty.
    pub(super) fn expand<C: Copy + Default>(
        &self,
        spans: &[Span],
        counts: impl Iterator<Item = C>,
    ) -> Vec<C> {
        let counts: Vec<C> = counts.collect();
        let mut known = indexed(spans, &counts).peekable();
        let count = |i: &i32| known.next_if(|k| k.0 == *i).map_or_else(C::default, |k| k.1);
        self.indexes.iter().map(count).collect()
    }

    /// The layout of all buckets.
    pub(super) fn spans(&self) -> Vec<Span> {
        merged(self.indexes.iter().copied())
    }
}

/// The layout `spans` with as few spans as possible.
pub(super) fn normal(spans: &[Span]) -> Vec<Span> {
    merged(all_indexes(spans).map(|(i, ())| i))
}

fn merged(indexes: impl Iterator<Item = i32>) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut next = 0i32;
    for index in indexes {
        match spans.last_mut() {
            Some(span) if index == next => span.length += 1,
            _ => spans.push(Span { offset: index.wrapping_sub(next), length: 1 }),
        }
        next = index.wrapping_add(1);
    }
    spans
}
