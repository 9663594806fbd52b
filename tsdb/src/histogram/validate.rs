//! What makes a histogram acceptable.
//!
//! Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/model/histogram/generic.go>; messages
//! are those of Prometheus.

use std::fmt;

use super::bounds::{CUSTOM_SCHEMA, SCHEMA_MAX, SCHEMA_MIN};
use super::text::go_g;
use super::{FloatHistogram, Histogram, Span, absolute};

/// What is wrong with a histogram.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKind {
    /// Fewer observations in all than in the buckets.
    #[error(
        "histogram's observation count should be at least the number of observations found in the buckets"
    )]
    CountNotBigEnough,
    /// Not as many observations in all as in the buckets.
    #[error(
        "histogram's observation count should equal the number of observations found in the buckets (in absence of NaN)"
    )]
    CountMismatch,
    /// Fewer than no observations.
    #[error("histogram's observation count is negative")]
    NegativeCount,
    /// A bucket with fewer than no observations.
    #[error("histogram has a bucket whose observation count is negative")]
    NegativeBucketCount,
    /// Spans that overlap.
    #[error("histogram has a span whose offset is negative")]
    SpanNegativeOffset,
    /// Spans and buckets do not agree.
    #[error("histogram spans specify different number of buckets than provided")]
    SpansBucketsMismatch,
    /// Buckets that have no bound.
    #[error("histogram custom bounds are too few")]
    CustomBoundsTooFew,
    /// Bounds out of order.
    #[error("histogram custom bounds must be in strictly increasing order")]
    CustomBoundsInvalid,
    /// An infinite bound.
    #[error("histogram custom bounds must be finite")]
    CustomBoundsInfinite,
    /// A bound that is not a number.
    #[error("histogram custom bounds must not be NaN")]
    CustomBoundsNan,
    /// A populated zero bucket beside custom ones.
    #[error("custom buckets: must have zero count of 0")]
    CustomZeroCount,
    /// A wide zero bucket beside custom ones.
    #[error("custom buckets: must have zero threshold of 0")]
    CustomZeroThreshold,
    /// Negative spans beside custom buckets.
    #[error("custom buckets: must not have negative spans")]
    CustomNegativeSpans,
    /// Negative buckets beside custom ones.
    #[error("custom buckets: must not have negative buckets")]
    CustomNegativeBuckets,
    /// Bounds where the schema gives them.
    #[error("histogram with exponential schema must not have custom bounds")]
    ExponentialCustomBounds,
    /// A schema that is not appended.
    #[error(
        "histogram has an invalid schema, which must be between {SCHEMA_MIN} and {SCHEMA_MAX} for exponential buckets, or {CUSTOM_SCHEMA} for custom buckets"
    )]
    Schema,
    /// A resolution that cannot be reached.
    #[error("resolution cannot be reduced")]
    Resolution,
}

/// A histogram that is not acceptable, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct InvalidHistogram {
    /// What is wrong.
    pub kind: InvalidKind,
    text: String,
}

impl InvalidHistogram {
    pub(super) fn new(kind: InvalidKind, text: String) -> Self {
        Self { kind, text }
    }

    /// An error whose text starts with `detail`.
    fn at(kind: InvalidKind, detail: impl fmt::Display) -> Self {
        Self { kind, text: format!("{detail}: {kind}") }
    }

    fn within(self, place: &str) -> Self {
        Self { kind: self.kind, text: format!("{place}: {}", self.text) }
    }
}

impl From<InvalidKind> for InvalidHistogram {
    fn from(kind: InvalidKind) -> Self {
        Self { kind, text: kind.to_string() }
    }
}

impl fmt::Display for InvalidHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

type Result<T = (), E = InvalidHistogram> = std::result::Result<T, E>;

/// What validation looks at, whatever the counts are.
struct Shape<'a> {
    schema: i32,
    zero_threshold: f64,
    zero_is_empty: bool,
    positive: (&'a [Span], usize),
    negative: (&'a [Span], usize),
    custom_values: &'a [f64],
}

impl Shape<'_> {
    fn check(&self) -> Result {
        match self.schema {
            CUSTOM_SCHEMA => self.check_custom(),
            SCHEMA_MIN..=SCHEMA_MAX => {
                check_spans(self.positive.0, self.positive.1).map_err(|e| e.within(POSITIVE))?;
                check_spans(self.negative.0, self.negative.1).map_err(|e| e.within(NEGATIVE))
            }
            schema => {
                let text = format!("{}, got schema {schema}", InvalidKind::Schema);
                Err(InvalidHistogram::new(InvalidKind::Schema, text))
            }
        }
    }

    fn check_custom(&self) -> Result {
        check_custom_bounds(self.custom_values, self.positive).map_err(|e| e.within("custom buckets"))?;
        if !self.zero_is_empty {
            return Err(InvalidKind::CustomZeroCount.into());
        }
        if self.zero_threshold != 0.0 {
            return Err(InvalidKind::CustomZeroThreshold.into());
        }
        if !self.negative.0.is_empty() {
            return Err(InvalidKind::CustomNegativeSpans.into());
        }
        if self.negative.1 > 0 {
            return Err(InvalidKind::CustomNegativeBuckets.into());
        }
        Ok(())
    }

    /// What is checked after the counts of negative buckets.
    fn check_bounds(&self) -> Result {
        if self.schema != CUSTOM_SCHEMA && !self.custom_values.is_empty() {
            return Err(InvalidKind::ExponentialCustomBounds.into());
        }
        Ok(())
    }
}

const POSITIVE: &str = "positive side";
const NEGATIVE: &str = "negative side";

pub(crate) fn check_spans(spans: &[Span], buckets: usize) -> Result {
    for (n, span) in spans.iter().enumerate().skip(1) {
        check_offset(n, span)?;
    }
    check_length(spans, buckets)
}

fn check_offset(n: usize, span: &Span) -> Result {
    if span.offset < 0 {
        let detail = format!("span number {} with offset {}", n + 1, span.offset);
        return Err(InvalidHistogram::at(InvalidKind::SpanNegativeOffset, detail));
    }
    Ok(())
}

fn check_length(spans: &[Span], buckets: usize) -> Result {
    let needed: u64 = spans.iter().map(|s| u64::from(s.length)).sum();
    if needed != buckets as u64 {
        let detail = format!("spans need {needed} buckets, have {buckets} buckets");
        return Err(InvalidHistogram::at(InvalidKind::SpansBucketsMismatch, detail));
    }
    Ok(())
}

fn check_custom_bounds(bounds: &[f64], (spans, buckets): (&[Span], usize)) -> Result {
    let mut before = f64::NEG_INFINITY;
    for (i, bound) in bounds.iter().copied().enumerate() {
        if bound.is_nan() {
            return Err(InvalidKind::CustomBoundsNan.into());
        }
        if i > 0 && bound <= before {
            let detail = format!("previous bound is {} and current is {}", go_f(before), go_f(bound));
            return Err(InvalidHistogram::at(InvalidKind::CustomBoundsInvalid, detail));
        }
        before = bound;
    }
    if before == f64::INFINITY {
        let detail = "last +Inf bound must not be explicitly defined";
        return Err(InvalidHistogram::at(InvalidKind::CustomBoundsInfinite, detail));
    }
    for (n, span) in spans.iter().enumerate() {
        check_offset(n, span)?;
    }
    check_length(spans, buckets)?;
    let reach: i64 = spans.iter().map(|s| i64::from(s.length) + i64::from(s.offset)).sum();
    if (bounds.len() as i64) + 1 < reach {
        let detail = format!(
            "only {} custom bounds defined which is insufficient to cover total span length of {reach}",
            bounds.len()
        );
        return Err(InvalidHistogram::at(InvalidKind::CustomBoundsTooFew, detail));
    }
    Ok(())
}

/// Go's `%f`.
fn go_f(v: f64) -> String {
    if v.is_finite() { format!("{v:.6}") } else { go_g(v) }
}

fn negative_bucket(i: usize, count: impl fmt::Display) -> InvalidHistogram {
    let detail = format!("bucket number {} has observation count of {count}", i + 1);
    InvalidHistogram::at(InvalidKind::NegativeBucketCount, detail)
}

/// The sum of integer counts, none of which may be negative.
fn sum_integer(buckets: &[i64]) -> Result<u64> {
    let mut sum = 0u64;
    for (i, count) in absolute(buckets).enumerate() {
        let count = u64::try_from(count).map_err(|_| negative_bucket(i, count))?;
        sum = sum.wrapping_add(count);
    }
    Ok(sum)
}

fn check_float(counts: &[f64]) -> Result {
    match counts.iter().position(|c| *c < 0.0) {
        Some(i) => Err(negative_bucket(i, go_g(counts[i]))),
        None => Ok(()),
    }
}

impl Histogram {
    /// Checks that spans and buckets agree, that no count is negative, and that the buckets add up to
    /// `count` (at most to `count` if `sum` is NaN, since observations of NaN are in no bucket).
    ///
    /// # Errors
    /// The first thing that is wrong, in Prometheus' words.
    pub fn validate(&self) -> Result {
        let shape = Shape {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_is_empty: self.zero_count == 0,
            positive: (&self.positive_spans, self.positive_buckets.len()),
            negative: (&self.negative_spans, self.negative_buckets.len()),
            custom_values: &self.custom_values,
        };
        shape.check()?;
        let negative = sum_integer(&self.negative_buckets).map_err(|e| e.within(NEGATIVE))?;
        shape.check_bounds()?;
        let positive = sum_integer(&self.positive_buckets).map_err(|e| e.within(POSITIVE))?;
        let sum = negative.wrapping_add(positive).wrapping_add(self.zero_count);
        let wrong = if self.sum.is_nan() {
            (sum > self.count).then_some(InvalidKind::CountNotBigEnough)
        } else {
            (sum != self.count).then_some(InvalidKind::CountMismatch)
        };
        match wrong {
            Some(kind) => {
                let detail =
                    format!("{sum} observations found in buckets, but the Count field is {}", self.count);
                Err(InvalidHistogram::at(kind, detail))
            }
            None => Ok(()),
        }
    }
}

impl FloatHistogram {
    /// Checks that spans and buckets agree and that no count is negative.
    ///
    /// # Errors
    /// The first thing that is wrong, in Prometheus' words.
    pub fn validate(&self) -> Result {
        let shape = Shape {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_is_empty: self.zero_count == 0.0,
            positive: (&self.positive_spans, self.positive_buckets.len()),
            negative: (&self.negative_spans, self.negative_buckets.len()),
            custom_values: &self.custom_values,
        };
        shape.check()?;
        check_float(&self.negative_buckets).map_err(|e| e.within(NEGATIVE))?;
        if self.zero_count < 0.0 {
            let detail = format!("zero bucket has observation count of {}", go_g(self.zero_count));
            return Err(InvalidHistogram::at(InvalidKind::NegativeBucketCount, detail));
        }
        shape.check_bounds()?;
        if self.count < 0.0 {
            // Compat: two spaces, as Prometheus has them.
            let detail = format!("observation count is  {}", go_g(self.count));
            return Err(InvalidHistogram::at(InvalidKind::NegativeCount, detail));
        }
        check_float(&self.positive_buckets).map_err(|e| e.within(POSITIVE))
    }
}
