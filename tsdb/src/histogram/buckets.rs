//! Walking the buckets of a histogram.

use std::borrow::Cow;
use std::fmt;

use super::bounds::{CUSTOM_SCHEMA, upper_bound};
use super::{FloatHistogram, Histogram, Span, text};

/// One bucket with its bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket<C = f64> {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Whether `lower` itself is counted here.
    pub lower_inclusive: bool,
    /// Whether `upper` itself is counted here.
    pub upper_inclusive: bool,
    /// Observations.
    pub count: C,
    /// Index within the schema, meaningless for the zero bucket.
    pub index: i32,
}

impl<C: text::Count> fmt::Display for Bucket<C> {
    /// As in mathematics, then the count: `(1,2]:3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.lower_inclusive { "[" } else { "(" })?;
        write!(f, "{},{}", text::go_g(self.lower), text::go_g(self.upper))?;
        f.write_str(if self.upper_inclusive { "]:" } else { "):" })?;
        self.count.put(f)
    }
}

/// Indexes and counts of buckets, from the zero bucket outwards.
///
/// Ends early where spans and counts do not agree.
#[derive(Debug, Clone)]
pub struct Indexed<'a, C: Copy = f64> {
    spans: &'a [Span],
    counts: &'a [C],
    /// Index of the next bucket.
    index: i32,
    /// Buckets left in the span that is being walked.
    in_span: u32,
}

/// Walks `counts`, which are laid out by `spans`.
pub fn indexed<'a, C: Copy>(spans: &'a [Span], counts: &'a [C]) -> Indexed<'a, C> {
    Indexed { spans, counts, index: 0, in_span: 0 }
}

impl<C: Copy> Iterator for Indexed<'_, C> {
    type Item = (i32, C);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        while self.in_span == 0 {
            let (span, rest) = self.spans.split_first()?;
            self.spans = rest;
            self.index = self.index.wrapping_add(span.offset);
            self.in_span = span.length;
        }
        let (count, rest) = self.counts.split_first()?;
        self.counts = rest;
        self.in_span -= 1;
        let index = self.index;
        self.index = index.wrapping_add(1);
        Some((index, *count))
    }
}

/// Buckets of one sign, from the zero bucket outwards; `rev()` walks towards it.
#[derive(Debug, Clone)]
pub struct Buckets<'a, C: Copy = f64> {
    spans: &'a [Span],
    counts: Cow<'a, [C]>,
    schema: i32,
    positive: bool,
    custom_values: &'a [f64],
    /// Buckets given out from the front and not yet given out from the back: `from..to` of `counts`.
    from: usize,
    to: usize,
    front: Place,
    back: Place,
}

/// Where in the spans a walk is.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Span of the next bucket.
    span: usize,
    /// Buckets of that span that the walk has passed.
    passed: u32,
    /// Index of the next bucket.
    index: i32,
}

impl<'a, C: Copy> Buckets<'a, C> {
    fn new(
        spans: &'a [Span],
        counts: Cow<'a, [C]>,
        schema: i32,
        positive: bool,
        custom_values: &'a [f64],
    ) -> Self {
        let in_spans = spans.iter().fold(0usize, |n, s| n.saturating_add(s.length as usize));
        let to = in_spans.min(counts.len());
        let front = Place { span: 0, passed: 0, index: spans.first().map_or(0, |s| s.offset) };
        let back = Place::of_last(spans, to);
        Self { spans, counts, schema, positive, custom_values, from: 0, to, front, back }
    }

    fn bucket(&self, index: i32, count: C) -> Bucket<C> {
        let bound = |i: i32| upper_bound(i, self.schema, self.custom_values);
        let (near, far) = (bound(index.wrapping_sub(1)), bound(index));
        let (lower, upper) = if self.positive { (near, far) } else { (-far, -near) };
        let (lower_inclusive, upper_inclusive) =
            if self.schema == CUSTOM_SCHEMA { (index == 0, true) } else { (lower < 0.0, upper > 0.0) };
        Bucket { lower, upper, lower_inclusive, upper_inclusive, count, index }
    }
}

impl Place {
    /// Where the last of `count` buckets is.
    fn of_last(spans: &[Span], count: usize) -> Self {
        let (mut left, mut index) = (count, 0i32);
        for (i, span) in spans.iter().enumerate() {
            index = index.wrapping_add(span.offset);
            let length = span.length as usize;
            if left <= length {
                let index = index.wrapping_add_unsigned(left as u32).wrapping_sub(1);
                return Self { span: i, passed: (length - left) as u32, index };
            }
            left -= length;
            index = index.wrapping_add_unsigned(span.length);
        }
        Self { span: 0, passed: 0, index }
    }

    /// Goes on to a span that has a bucket left.
    fn skip_front(&mut self, spans: &[Span]) {
        while spans.get(self.span).is_some_and(|s| self.passed >= s.length) {
            self.span += 1;
            self.passed = 0;
            self.index = self.index.wrapping_add(spans.get(self.span).map_or(0, |s| s.offset));
        }
    }

    fn skip_back(&mut self, spans: &[Span]) {
        while self.span > 0 && spans.get(self.span).is_some_and(|s| self.passed >= s.length) {
            self.index = self.index.wrapping_sub(spans[self.span].offset);
            self.span -= 1;
            self.passed = 0;
        }
    }

    fn step_back(&mut self) {
        self.passed += 1;
        self.index = self.index.wrapping_sub(1);
    }
}

impl<C: Copy> Iterator for Buckets<'_, C> {
    type Item = Bucket<C>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.from == self.to {
            return None;
        }
        self.front.skip_front(self.spans);
        let bucket = self.bucket(self.front.index, self.counts[self.from]);
        self.from += 1;
        self.front.passed += 1;
        self.front.index = self.front.index.wrapping_add(1);
        Some(bucket)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.to - self.from, Some(self.to - self.from))
    }
}

impl<C: Copy> DoubleEndedIterator for Buckets<'_, C> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.from == self.to {
            return None;
        }
        self.back.skip_back(self.spans);
        self.to -= 1;
        let bucket = self.bucket(self.back.index, self.counts[self.to]);
        self.back.step_back();
        Some(bucket)
    }
}

impl<C: Copy> ExactSizeIterator for Buckets<'_, C> {}

fn zero_bucket<C>(threshold: f64, count: C) -> Bucket<C> {
    Bucket {
        lower: -threshold,
        upper: threshold,
        lower_inclusive: true,
        upper_inclusive: true,
        count,
        index: 0,
    }
}

impl FloatHistogram {
    /// Positive buckets, ascending.
    pub fn iter_positive(&self) -> Buckets<'_> {
        let counts = Cow::Borrowed(&*self.positive_buckets);
        Buckets::new(&self.positive_spans, counts, self.schema, true, &self.custom_values)
    }

    /// Negative buckets, descending: from the zero bucket outwards.
    pub fn iter_negative(&self) -> Buckets<'_> {
        let counts = Cow::Borrowed(&*self.negative_buckets);
        Buckets::new(&self.negative_spans, counts, self.schema, false, &[])
    }

    /// The zero bucket; custom schemas have none, there it is empty and of no width.
    pub fn zero_bucket(&self) -> Bucket {
        zero_bucket(self.zero_threshold, self.zero_count)
    }

    /// Negative buckets, the zero bucket if it is populated, positive buckets: ascending.
    ///
    /// A bucket that reaches into the zero bucket is cut at the zero threshold. `rev()` is descending.
    pub fn iter_all(&self) -> impl DoubleEndedIterator<Item = Bucket> + '_ {
        let threshold = self.zero_threshold;
        let cut = move |mut b: Bucket| {
            if b.upper < 0.0 && b.upper > -threshold {
                b.upper = -threshold;
            } else if b.lower > 0.0 && b.lower < threshold {
                b.lower = threshold;
            }
            b
        };
        let zero = (self.zero_count > 0.0).then(|| self.zero_bucket());
        let negative = self.iter_negative().rev().map(cut);
        negative.chain(zero).chain(self.iter_positive().map(cut))
    }
}

impl Histogram {
    /// Positive buckets, ascending.
    pub fn iter_positive(&self) -> Buckets<'_, u64> {
        let counts = Cow::Owned(counts(&self.positive_buckets));
        Buckets::new(&self.positive_spans, counts, self.schema, true, &self.custom_values)
    }

    /// Negative buckets, descending: from the zero bucket outwards.
    pub fn iter_negative(&self) -> Buckets<'_, u64> {
        let counts = Cow::Owned(counts(&self.negative_buckets));
        Buckets::new(&self.negative_spans, counts, self.schema, false, &[])
    }

    /// The zero bucket; custom schemas have none, there it is empty and of no width.
    pub fn zero_bucket(&self) -> Bucket<u64> {
        zero_bucket(self.zero_threshold, self.zero_count)
    }
}

/// Counts of buckets stored as differences; a negative count, which is invalid, wraps.
fn counts(deltas: &[i64]) -> Vec<u64> {
    super::absolute(deltas).map(|c| c as u64).collect()
}
