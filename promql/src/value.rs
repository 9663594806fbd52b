//! What a query gives.

use std::sync::Arc;

use promontory_tsdb::histogram::FloatHistogram;
use promontory_tsdb::{Labels, TimestampMs};

/// The answer to a query, with what the user should know about it. By default a matrix without series.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QueryResult {
    /// The value.
    pub value: QueryValue,
    /// Things that are probably wrong, each text once, with the prefix `PromQL warning: `.
    pub warnings: Vec<String>,
    /// Things worth knowing, each text once, with the prefix `PromQL info: `.
    pub infos: Vec<String>,
}

/// A PromQL value; the variants are the API's `resultType`.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryValue {
    /// `scalar`: instant queries of scalar type.
    Scalar(TimestampMs, f64),
    /// `string`.
    String(TimestampMs, String),
    /// `vector`: one sample per series, all at the evaluation timestamp (except for a bare range
    /// selector, which gives a matrix). In the order that `sort` and `topk` gave, label order otherwise.
    Vector(Vec<InstantSample>),
    /// `matrix`: series in label order, each with at least one point.
    Matrix(Vec<RangeSeries>),
}

impl Default for QueryValue {
    fn default() -> Self {
        Self::Matrix(Vec::new())
    }
}

/// A float or a histogram.
#[derive(Debug, Clone, PartialEq)]
pub enum SampleValue {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<FloatHistogram>),
}

/// One element of a vector.
#[derive(Debug, Clone, PartialEq)]
pub struct InstantSample {
    /// Labels of the element.
    pub labels: Labels,
    /// ms since the epoch.
    pub timestamp: TimestampMs,
    /// The value.
    pub value: SampleValue,
}

/// One series of a matrix: float points and histogram points, each ascending in time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RangeSeries {
    /// Labels of the series.
    pub labels: Labels,
    /// `(ms, value)`.
    pub floats: Vec<(TimestampMs, f64)>,
    /// `(ms, value)`.
    pub histograms: Vec<(TimestampMs, Arc<FloatHistogram>)>,
}

impl RangeSeries {
    /// How many samples it counts for: a histogram counts for several.
    pub(crate) fn weight(&self) -> usize {
        self.floats.len() + self.histograms.iter().map(|(_, h)| crate::histogram::weight(h)).sum::<usize>()
    }
}
