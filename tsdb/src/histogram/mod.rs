//! Native histograms as values: what is appended, stored and queried.
//!
//! Storage keeps what was appended, integer or float ([`HistogramValue`]); a query always sees
//! [`FloatHistogram`]s.

use std::sync::Arc;

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
