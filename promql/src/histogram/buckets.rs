//! Buckets in order, their bounds, and the text of a histogram.

use std::fmt::Write as _;

use promontory_tsdb::histogram::{FloatHistogram, Span};

use super::{CUSTOM_SCHEMA, is_custom};
use crate::operators::format::go_g;

/// `(index, count)` of one side, in ascending order of indexes.
pub fn indexed<'a>(spans: &'a [Span], counts: &'a [f64]) -> impl Iterator<Item = (i32, f64)> + 'a {
    let mut next = 0_i32;
    let indexes = spans.iter().flat_map(move |span| {
        let first = next.wrapping_add(span.offset);
        next = first.wrapping_add_unsigned(span.length);
        (0..span.length).map(move |i| first.wrapping_add_unsigned(i))
    });
    indexes.zip(counts.iter().copied())
}

/// Index of the bucket that takes in bucket `index` when the schema sinks by `shift`.
pub fn coarser(index: i32, shift: u32) -> i32 {
    // More than 31 would be an overflow, and all buckets are one long before that.
    (index.wrapping_sub(1) >> shift.min(31)).wrapping_add(1)
}

/// Upper bound of positive bucket `index`; the lower one is that of `index - 1`.
pub fn bound(index: i32, schema: i32, custom_values: &[f64]) -> f64 {
    if schema != CUSTOM_SCHEMA {
        return exponential_bound(index, schema);
    }
    match usize::try_from(index) {
        Err(_) => f64::NEG_INFINITY,
        Ok(i) => custom_values.get(i).copied().unwrap_or(f64::INFINITY),
    }
}

/// `2^(index · 2^-schema)`; the bucket of the largest float ends with it and not at infinity.
fn exponential_bound(index: i32, schema: i32) -> f64 {
    let index = i64::from(index);
    if schema <= 0 {
        let exponent = index << schema.unsigned_abs().min(31);
        return if exponent == 1024 { f64::MAX } else { (exponent as f64).exp2() };
    }
    let parts = 1_i64 << schema.min(30);
    let (whole, part) = (index.div_euclid(parts), index.rem_euclid(parts));
    if part == 0 && whole == 1024 {
        return f64::MAX;
    }
    // The root alone, then a power of two: exact but for the root.
    let root = (part as f64 / parts as f64).exp2();
    if whole >= 1024 { f64::INFINITY } else { scale(root, whole) }
}

/// `v · 2^exponent` for `1 <= v < 2` and exponents below 1024.
fn scale(v: f64, exponent: i64) -> f64 {
    v * (exponent as f64).exp2()
}

/// A bucket with its bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Observations.
    pub count: f64,
}

/// Where a bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Negative bucket of this index.
    Negative(i32),
    /// The zero bucket.
    Zero,
    /// Positive (or custom) bucket of this index.
    Positive(i32),
}

/// All buckets from the lowest to the highest, empty ones that are there included; the zero bucket
/// only if it has observations.
pub fn places(h: &FloatHistogram) -> Vec<(Place, f64)> {
    let mut all = Vec::with_capacity(h.negative_buckets.len() + 1 + h.positive_buckets.len());
    all.extend(indexed(&h.negative_spans, &h.negative_buckets).map(|(i, n)| (Place::Negative(i), n)));
    all.reverse();
    if h.zero_count > 0.0 {
        all.push((Place::Zero, h.zero_count));
    }
    all.extend(indexed(&h.positive_spans, &h.positive_buckets).map(|(i, n)| (Place::Positive(i), n)));
    all
}

/// The bucket at `place`, cut where the zero bucket reaches into it.
pub fn bucket(h: &FloatHistogram, place: Place, count: f64) -> Bucket {
    let width = h.zero_threshold;
    let mut bucket = whole_bucket(h, place, count);
    if bucket.upper < 0.0 && bucket.upper > -width {
        bucket.upper = -width;
    }
    if bucket.lower > 0.0 && bucket.lower < width {
        bucket.lower = width;
    }
    bucket
}

/// The bucket at `place`.
pub fn whole_bucket(h: &FloatHistogram, place: Place, count: f64) -> Bucket {
    let of = |i: i32| bound(i, h.schema, &h.custom_values);
    let (lower, upper) = match place {
        Place::Zero => (-h.zero_threshold, h.zero_threshold),
        Place::Positive(i) => (of(i.wrapping_sub(1)), of(i)),
        Place::Negative(i) => (-of(i), -of(i.wrapping_sub(1))),
    };
    Bucket { lower, upper, count }
}

/// The histogram as upstream prints it: `{count:3, sum:2.5, [-1,-0.5):1, (0.5,1]:2}`.
pub fn text(h: &FloatHistogram) -> String {
    let mut out = format!("{{count:{}, sum:{}", go_g(h.count), go_g(h.sum));
    for (place, count) in places(h).into_iter().filter(|(_, count)| *count != 0.0) {
        let Bucket { lower, upper, .. } = whole_bucket(h, place, count);
        let (lower_in, upper_in) = match place {
            Place::Zero => (true, true),
            Place::Positive(i) if is_custom(h) => (i == 0, true),
            _ => (lower < 0.0, upper > 0.0),
        };
        let (open, close) = (if lower_in { '[' } else { '(' }, if upper_in { ']' } else { ')' });
        let _ = write!(out, ", {open}{},{}{close}:{}", go_g(lower), go_g(upper), go_g(count));
    }
    out.push('}');
    out
}
