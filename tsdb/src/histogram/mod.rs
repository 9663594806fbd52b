//! Native histograms as values: what is appended, stored and queried.
//!
//! Storage keeps what was appended, integer or float ([`HistogramValue`]); a query always sees
//! [`FloatHistogram`]s. Here is what follows from one or two histograms alone: bounds and walks over
//! buckets, validity, layout, text, whether a counter reset lies between. Arithmetic is PromQL's.
//!
//! # Invariants
//! Fields are public and may hold anything: nothing here panics on a histogram that
//! [`Histogram::validate`] would refuse, or allocates for buckets that it only claims to have.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/tree/v3.14.0/model/histogram>

mod bounds;
mod buckets;
mod layout;
mod reset;
#[cfg(test)]
mod tests;
mod text;
mod validate;

use std::fmt;
use std::sync::Arc;

use crate::sample::is_stale;

pub use bounds::{
    CUSTOM_SCHEMA, SCHEMA_MAX, SCHEMA_MAX_RESERVED, SCHEMA_MIN, SCHEMA_MIN_RESERVED, coarser_index,
    exponential_bound, is_known_schema, is_valid_schema, same_bounds, upper_bound,
};
pub use buckets::{Bucket, Buckets, Indexed, indexed};
pub use text::Count;
pub(crate) use validate::check_spans;
pub use validate::{InvalidHistogram, InvalidKind};

/// A run of `length` populated buckets, `offset` buckets after the end of the previous run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Gap to the previous span (or bucket index of the first one).
    pub offset: i32,
    /// Number of consecutive buckets.
    pub length: u32,
}

/// Whether a histogram is known to follow a counter reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CounterResetHint {
    /// Not known; detect by comparing.
    #[default]
    Unknown,
    /// There was a reset between the previous histogram and this one.
    Reset,
    /// There was none.
    NotReset,
    /// A gauge histogram, where resets mean nothing.
    Gauge,
}

/// A histogram with integer counts, as scraped: schemas −4..=8 exponential, −53 custom bucket bounds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    /// See [`CounterResetHint`].
    pub counter_reset_hint: CounterResetHint,
    /// Resolution; −53 means `custom_values` holds the upper bounds.
    pub schema: i32,
    /// Half-width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: u64,
    /// Observations in all.
    pub count: u64,
    /// Sum of observations; the stale marker here makes the whole histogram one.
    pub sum: f64,
    /// Layout of `positive_buckets`.
    pub positive_spans: Vec<Span>,
    /// Layout of `negative_buckets`.
    pub negative_spans: Vec<Span>,
    /// The first count, then each count less the one before.
    pub positive_buckets: Vec<i64>,
    /// The first count, then each count less the one before.
    pub negative_buckets: Vec<i64>,
    /// Upper bounds for schema −53, ascending, without +Inf.
    pub custom_values: Vec<f64>,
}

/// A histogram as it was appended.
#[derive(Debug, Clone, PartialEq)]
pub enum HistogramValue {
    /// Counts are integers.
    Integer(Arc<Histogram>),
    /// Counts are floats.
    Float(Arc<FloatHistogram>),
}

/// A histogram with float counts: schemas −4..=8 exponential, −53 custom bucket bounds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FloatHistogram {
    /// See [`CounterResetHint`].
    pub counter_reset_hint: CounterResetHint,
    /// Resolution; −53 means `custom_values` holds the upper bounds.
    pub schema: i32,
    /// Half-width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// Observations in all.
    pub count: f64,
    /// Sum of observations; the stale marker here makes the whole histogram one.
    pub sum: f64,
    /// Layout of `positive_buckets`.
    pub positive_spans: Vec<Span>,
    /// Layout of `negative_buckets`.
    pub negative_spans: Vec<Span>,
    /// Absolute counts.
    pub positive_buckets: Vec<f64>,
    /// Absolute counts.
    pub negative_buckets: Vec<f64>,
    /// Upper bounds for schema −53, ascending, without +Inf.
    pub custom_values: Vec<f64>,
}

/// What both flavours have.
macro_rules! of_both {
    ($($flavour:ty),*) => {$(
        impl $flavour {
            /// A stale marker: nothing but the marker as sum.
            pub fn stale() -> Self {
                Self { sum: crate::sample::stale_nan(), ..Self::default() }
            }

            /// Whether this is a stale marker.
            pub fn is_stale(&self) -> bool {
                is_stale(self.sum)
            }

            /// Whether bounds are listed rather than given by the schema.
            pub fn has_custom_bounds(&self) -> bool {
                self.schema == CUSTOM_SCHEMA
            }

            /// Whether both are the same but for their counts.
            #[expect(clippy::float_cmp, reason = "thresholds are the same or they are not")]
            fn same_but_counts(&self, other: &Self) -> bool {
                self.schema == other.schema
                    && same(self.sum, other.sum)
                    && (!self.has_custom_bounds() || same_bounds(&self.custom_values, &other.custom_values))
                    && self.zero_threshold == other.zero_threshold
                    && same_layout(&self.negative_spans, &other.negative_spans)
                    && same_layout(&self.positive_spans, &other.positive_spans)
            }
        }
    )*};
}

of_both!(Histogram, FloatHistogram);

impl FloatHistogram {
    /// Whether both are the same to the bit, counter reset hints aside. Spans may be cut differently
    /// as long as they lay out the same buckets.
    pub fn equals(&self, other: &Self) -> bool {
        let bits = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(*a, *b));
        self.same_but_counts(other)
            && same(self.count, other.count)
            && same(self.zero_count, other.zero_count)
            && bits(&self.negative_buckets, &other.negative_buckets)
            && bits(&self.positive_buckets, &other.positive_buckets)
    }
}

impl Histogram {
    /// See [`FloatHistogram::equals`].
    pub fn equals(&self, other: &Self) -> bool {
        self.same_but_counts(other)
            && self.count == other.count
            && self.zero_count == other.zero_count
            && self.negative_buckets == other.negative_buckets
            && self.positive_buckets == other.positive_buckets
    }

    /// The same histogram with float counts. Fields that its schema does not use are left out.
    pub fn to_float(&self) -> FloatHistogram {
        let mut out = FloatHistogram {
            counter_reset_hint: self.counter_reset_hint,
            schema: self.schema,
            count: self.count as f64,
            sum: self.sum,
            positive_spans: self.positive_spans.clone(),
            positive_buckets: float_counts(&self.positive_buckets),
            ..FloatHistogram::default()
        };
        if self.has_custom_bounds() {
            out.custom_values.clone_from(&self.custom_values);
        } else {
            out.zero_threshold = self.zero_threshold;
            out.zero_count = self.zero_count as f64;
            out.negative_spans.clone_from(&self.negative_spans);
            out.negative_buckets = float_counts(&self.negative_buckets);
        }
        out
    }
}

impl HistogramValue {
    /// Whether this is a stale marker.
    pub fn is_stale(&self) -> bool {
        match self {
            Self::Integer(h) => h.is_stale(),
            Self::Float(h) => h.is_stale(),
        }
    }

    /// The schema.
    pub fn schema(&self) -> i32 {
        match self {
            Self::Integer(h) => h.schema,
            Self::Float(h) => h.schema,
        }
    }

    /// Whether it is known to follow a counter reset.
    pub fn counter_reset_hint(&self) -> CounterResetHint {
        match self {
            Self::Integer(h) => h.counter_reset_hint,
            Self::Float(h) => h.counter_reset_hint,
        }
    }

    /// Forgets whether it is known to follow a counter reset: what it followed is not there, or something came
    /// in between. A gauge stays one.
    pub fn forget_hint(&mut self) {
        if !matches!(self.counter_reset_hint(), CounterResetHint::Reset | CounterResetHint::NotReset) {
            return;
        }
        match self {
            Self::Integer(h) => Arc::make_mut(h).counter_reset_hint = CounterResetHint::Unknown,
            Self::Float(h) => Arc::make_mut(h).counter_reset_hint = CounterResetHint::Unknown,
        }
    }

    /// The histogram as queries see it; shared if it has float counts already.
    pub fn to_float(&self) -> Arc<FloatHistogram> {
        match self {
            Self::Integer(h) => Arc::new(h.to_float()),
            Self::Float(h) => Arc::clone(h),
        }
    }

    /// Whether both are of one kind and the same to the bit, counter reset hints aside.
    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.equals(b),
            (Self::Float(a), Self::Float(b)) => a.equals(b),
            _ => false,
        }
    }

    /// See [`Histogram::validate`] and [`FloatHistogram::validate`].
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), InvalidHistogram> {
        match self {
            Self::Integer(h) => h.validate(),
            Self::Float(h) => h.validate(),
        }
    }

    /// Brings schemas 9..=52, which are reserved, down to 8.
    ///
    /// # Errors
    /// If spans and buckets do not agree.
    pub fn limit_resolution(&mut self) -> Result<(), InvalidHistogram> {
        if !(SCHEMA_MAX + 1..=SCHEMA_MAX_RESERVED).contains(&self.schema()) {
            return Ok(());
        }
        match self {
            Self::Integer(h) => Arc::make_mut(h).limit_resolution(),
            Self::Float(h) => Arc::make_mut(h).limit_resolution(),
        }
    }

    /// Bytes of memory, without those that are shared.
    pub fn size(&self) -> usize {
        let spans = |a: &[Span], b: &[Span]| (a.len() + b.len()) * size_of::<Span>();
        match self {
            Self::Integer(h) => {
                let buckets = h.positive_buckets.len() + h.negative_buckets.len() + h.custom_values.len();
                size_of::<Histogram>() + spans(&h.positive_spans, &h.negative_spans) + buckets * 8
            }
            Self::Float(h) => {
                let buckets = h.positive_buckets.len() + h.negative_buckets.len() + h.custom_values.len();
                size_of::<FloatHistogram>() + spans(&h.positive_spans, &h.negative_spans) + buckets * 8
            }
        }
    }
}

impl fmt::Display for HistogramValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(h) => h.fmt(f),
            Self::Float(h) => h.fmt(f),
        }
    }
}

impl From<Histogram> for HistogramValue {
    fn from(h: Histogram) -> Self {
        Self::Integer(Arc::new(h))
    }
}

impl From<FloatHistogram> for HistogramValue {
    fn from(h: FloatHistogram) -> Self {
        Self::Float(Arc::new(h))
    }
}

impl From<Arc<Histogram>> for HistogramValue {
    fn from(h: Arc<Histogram>) -> Self {
        Self::Integer(h)
    }
}

impl From<Arc<FloatHistogram>> for HistogramValue {
    fn from(h: Arc<FloatHistogram>) -> Self {
        Self::Float(h)
    }
}

/// Whether two floats are the same to the bit.
fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits()
}

/// Whether two lists of spans lay out the same buckets.
fn same_layout(a: &[Span], b: &[Span]) -> bool {
    a == b || runs(a).eq(runs(b))
}

/// Spans without the empty ones, whose offsets count towards the next.
fn runs(spans: &[Span]) -> impl Iterator<Item = Span> + '_ {
    let mut offset = 0i32;
    spans.iter().filter_map(move |s| {
        offset = offset.wrapping_add(s.offset);
        (s.length > 0).then(|| Span { offset: std::mem::take(&mut offset), length: s.length })
    })
}

/// Counts of buckets that are stored as differences.
pub(crate) fn absolute(deltas: &[i64]) -> impl Iterator<Item = i64> + '_ {
    let mut count = 0i64;
    deltas.iter().map(move |d| {
        count = count.wrapping_add(*d);
        count
    })
}

/// Differences of counts, the first to none.
pub(crate) fn deltas(counts: impl IntoIterator<Item = i64>) -> impl Iterator<Item = i64> {
    let mut before = 0i64;
    counts.into_iter().map(move |c| c.wrapping_sub(std::mem::replace(&mut before, c)))
}

/// Counts of buckets that are stored as differences, as floats.
///
/// Compat: differences are turned into floats before they are summed, as Prometheus does it.
pub(crate) fn float_counts(deltas: &[i64]) -> Vec<f64> {
    let mut count = 0.0;
    deltas
        .iter()
        .map(|d| {
            count += *d as f64;
            count
        })
        .collect()
}
