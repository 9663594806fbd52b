//! Changing the layout of buckets: compaction, lower resolution.

use super::bounds::{CUSTOM_SCHEMA, SCHEMA_MAX, SCHEMA_MAX_RESERVED, coarser_index};
use super::buckets::indexed;
use super::validate::{InvalidHistogram, InvalidKind, check_spans};
use super::{FloatHistogram, Histogram, Span, absolute, deltas};

/// Spans and absolute counts, built bucket by bucket in ascending order of index.
struct Builder<C> {
    spans: Vec<Span>,
    counts: Vec<C>,
    /// Index after the newest bucket.
    next: i32,
}

impl<C> Builder<C> {
    fn new() -> Self {
        Self { spans: Vec::new(), counts: Vec::new(), next: 0 }
    }

    fn push(&mut self, index: i32, count: C) {
        match self.spans.last_mut() {
            Some(span) if index == self.next => span.length += 1,
            _ => self.spans.push(Span { offset: index.wrapping_sub(self.next), length: 1 }),
        }
        self.counts.push(count);
        self.next = index.wrapping_add(1);
    }
}

/// Leaves out empty buckets, except up to `max_empty` in a row between populated ones, which are
/// put in where they are missing.
fn compacted<C: Copy + Default + PartialEq>(
    spans: &[Span],
    counts: &[C],
    max_empty: usize,
) -> (Vec<Span>, Vec<C>) {
    let mut out = Builder::new();
    for (index, count) in indexed(spans, counts).filter(|(_, c)| *c != C::default()) {
        let gap = i64::from(index) - i64::from(out.next);
        if !out.spans.is_empty() && 0 < gap && gap as u64 <= max_empty as u64 {
            for empty in out.next..index {
                out.push(empty, C::default());
            }
        }
        out.push(index, count);
    }
    (out.spans, out.counts)
}

/// Whether [`compacted`] with no empty buckets would change nothing.
fn is_compact<C: Copy + Default + PartialEq>(spans: &[Span], counts: impl Iterator<Item = C>) -> bool {
    spans.iter().enumerate().all(|(i, s)| s.length > 0 && (i == 0 || s.offset > 0))
        && counts.into_iter().all(|c| c != C::default())
}

/// Merges buckets of schema `from` into those of the coarser schema `to`.
fn coarser<C: Copy + std::ops::AddAssign>(
    spans: &[Span],
    counts: &[C],
    from: i32,
    to: i32,
) -> (Vec<Span>, Vec<C>) {
    let mut out = Builder::new();
    for (index, count) in indexed(spans, counts) {
        let index = coarser_index(index, from, to);
        match out.counts.last_mut() {
            Some(sum) if index.wrapping_add(1) == out.next => *sum += count,
            _ => out.push(index, count),
        }
    }
    (out.spans, out.counts)
}

/// A count that may be added up past its range without a panic.
#[derive(Clone, Copy, PartialEq, Default)]
struct Wrapping(i64);

impl std::ops::AddAssign for Wrapping {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

/// Why [`Histogram::reduce_resolution`] cannot be done, if it cannot.
fn check_target(from: i32, to: i32) -> Result<(), InvalidHistogram> {
    let refuse = |why: String| Err(InvalidHistogram::new(InvalidKind::Resolution, why));
    if from == CUSTOM_SCHEMA {
        return refuse("cannot reduce resolution when there are custom buckets".into());
    }
    if to == CUSTOM_SCHEMA {
        return refuse("cannot reduce resolution to custom buckets schema".into());
    }
    if to >= from {
        return refuse(format!("cannot reduce resolution from schema {from} to {to}"));
    }
    Ok(())
}

impl FloatHistogram {
    /// Leaves out empty buckets at the ends of spans, merges spans that are at most `max_empty`
    /// buckets apart, and splits those with more than `max_empty` empty buckets in a row.
    pub fn compact(&mut self, max_empty: usize) {
        for (spans, counts) in [
            (&mut self.positive_spans, &mut self.positive_buckets),
            (&mut self.negative_spans, &mut self.negative_buckets),
        ] {
            if max_empty > 0 || !is_compact(spans, counts.iter().copied()) {
                (*spans, *counts) = compacted(spans, counts, max_empty);
            }
        }
    }

    /// Merges buckets so that the schema becomes `schema`.
    ///
    /// # Errors
    /// If `schema` is not lower, one of the two schemas is custom, or spans and buckets do not agree;
    /// the histogram is then as it was.
    pub fn reduce_resolution(&mut self, schema: i32) -> Result<(), InvalidHistogram> {
        check_target(self.schema, schema)?;
        check_spans(&self.positive_spans, self.positive_buckets.len())?;
        check_spans(&self.negative_spans, self.negative_buckets.len())?;
        for (spans, counts) in [
            (&mut self.positive_spans, &mut self.positive_buckets),
            (&mut self.negative_spans, &mut self.negative_buckets),
        ] {
            (*spans, *counts) = coarser(spans, counts, self.schema, schema);
        }
        self.schema = schema;
        Ok(())
    }

    /// Brings schemas 9..=52, which are reserved, down to 8; other histograms stay as they are.
    ///
    /// # Errors
    /// If spans and buckets do not agree.
    pub fn limit_resolution(&mut self) -> Result<(), InvalidHistogram> {
        if is_reserved_fine(self.schema) { self.reduce_resolution(SCHEMA_MAX) } else { Ok(()) }
    }

    /// A copy at the coarser (or same) schema, with an unknown counter reset hint if it is coarser.
    ///
    /// # Errors
    /// As [`FloatHistogram::reduce_resolution`].
    pub fn copy_to_schema(&self, schema: i32) -> Result<Self, InvalidHistogram> {
        let mut copy = self.clone();
        if schema != self.schema {
            copy.reduce_resolution(schema)?;
            copy.counter_reset_hint = super::CounterResetHint::Unknown;
        }
        Ok(copy)
    }
}

impl Histogram {
    /// See [`FloatHistogram::compact`].
    pub fn compact(&mut self, max_empty: usize) {
        for (spans, buckets) in [
            (&mut self.positive_spans, &mut self.positive_buckets),
            (&mut self.negative_spans, &mut self.negative_buckets),
        ] {
            if max_empty > 0 || !is_compact(spans, absolute(buckets)) {
                let counts: Vec<i64> = absolute(buckets).collect();
                let (new_spans, counts) = compacted(spans, &counts, max_empty);
                (*spans, *buckets) = (new_spans, deltas(counts).collect());
            }
        }
    }

    /// See [`FloatHistogram::reduce_resolution`].
    ///
    /// # Errors
    /// If `schema` is not lower, one of the two schemas is custom, or spans and buckets do not agree;
    /// the histogram is then as it was.
    pub fn reduce_resolution(&mut self, schema: i32) -> Result<(), InvalidHistogram> {
        check_target(self.schema, schema)?;
        check_spans(&self.positive_spans, self.positive_buckets.len())?;
        check_spans(&self.negative_spans, self.negative_buckets.len())?;
        for (spans, buckets) in [
            (&mut self.positive_spans, &mut self.positive_buckets),
            (&mut self.negative_spans, &mut self.negative_buckets),
        ] {
            let counts: Vec<Wrapping> = absolute(buckets).map(Wrapping).collect();
            let (new_spans, counts) = coarser(spans, &counts, self.schema, schema);
            (*spans, *buckets) = (new_spans, deltas(counts.into_iter().map(|c| c.0)).collect());
        }
        self.schema = schema;
        Ok(())
    }

    /// See [`FloatHistogram::limit_resolution`].
    ///
    /// # Errors
    /// If spans and buckets do not agree.
    pub fn limit_resolution(&mut self) -> Result<(), InvalidHistogram> {
        if is_reserved_fine(self.schema) { self.reduce_resolution(SCHEMA_MAX) } else { Ok(()) }
    }
}

fn is_reserved_fine(schema: i32) -> bool {
    (SCHEMA_MAX + 1..=SCHEMA_MAX_RESERVED).contains(&schema)
}
