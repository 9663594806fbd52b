//! [`Notes`]: what is told about histograms, in upstream's words.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/util/annotations/annotations.go>

use promontory_tsdb::labels::go_quote;

use crate::context::QueryContext;
use crate::histogram::stats::NanObservations;

/// What was done with histograms when something came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Adding two.
    Addition,
    /// Subtracting one from another.
    Subtraction,
    /// Adding up many.
    Aggregation,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Addition => "addition",
            Self::Subtraction => "subtraction",
            Self::Aggregation => "aggregation",
        }
    }
}

/// Annotates a query about one expression of it.
#[derive(Debug, Clone, Copy)]
pub struct Notes<'a> {
    /// The query.
    pub context: &'a QueryContext,
    /// ` (line:col)` of the expression.
    pub position: &'a str,
    /// The metric name; empty if there is none.
    pub name: &'a str,
}

impl Notes<'_> {
    fn warn(&self, text: &str) {
        self.context.warn(&format!("{text}{}", self.position));
    }

    fn info(&self, text: &str) {
        self.context.info(&format!("{text}{}", self.position));
    }

    fn quoted(&self) -> String {
        go_quote(self.name).into_owned()
    }

    fn with_name(&self, text: &str) -> String {
        if self.name.is_empty() {
            return text.to_owned();
        }
        format!("{text} for metric name {}", self.quoted())
    }

    /// A range holds floats and histograms.
    pub fn mixed_floats(&self) {
        let name = self.quoted();
        self.warn(&format!("encountered a mix of histograms and floats for metric name {name}"));
    }

    /// An aggregation got floats and histograms.
    pub fn mixed_floats_in_aggregation(&self) {
        self.warn("encountered a mix of histograms and floats for aggregation");
    }

    /// Classic buckets and a native histogram have the same labels.
    pub fn mixed_classic(&self) {
        self.warn(&self.with_name("vector contains a mix of classic and native histograms"));
    }

    /// A rate of gauges.
    pub fn not_a_counter(&self) {
        let name = self.quoted();
        self.warn(&format!("this native histogram metric is not a counter: {name}"));
    }

    /// A delta of counters.
    pub fn not_a_gauge(&self) {
        let name = self.quoted();
        self.warn(&format!("this native histogram metric is not a gauge: {name}"));
    }

    /// Exponential and custom buckets.
    pub fn mixed_schemas(&self) {
        let name = self.quoted();
        self.warn(&format!(
            "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {name}"
        ));
    }

    /// Exponential and custom buckets as operands.
    pub fn incompatible_layout(&self, operator: &str) {
        self.warn(&format!("incompatible bucket layout encountered for binary operator {operator}"));
    }

    /// Operands that the operator does not go with.
    pub fn incompatible_types(&self, left: &str, operator: &str, right: &str) {
        let quoted = go_quote(operator);
        self.info(&format!(
            "incompatible sample types encountered for binary operator {quoted}: {left} {operator} {right}"
        ));
    }

    /// An aggregation that knows floats only.
    pub fn ignored_in_aggregation(&self, aggregation: &str) {
        self.info(&format!("ignored histogram in {aggregation} aggregation"));
    }

    /// A range function that knows floats only.
    pub fn ignored_in_range(&self) {
        let name = self.quoted();
        self.info(&format!(
            "ignored histograms in a range containing both floats and histograms for metric name {name}"
        ));
    }

    /// Hints contradict each other.
    pub fn reset_collision(&self, operation: Operation) {
        self.warn(&format!("conflicting counter resets during histogram {}", operation.name()));
    }

    /// Custom bounds differed.
    pub fn mismatched_bounds(&self, operation: Operation) {
        self.info(&format!("mismatched custom buckets were reconciled during {}", operation.name()));
    }

    /// Observations are NaN.
    pub fn nan_observations(&self, what: NanObservations) {
        let text = match what {
            NanObservations::Result => "input to histogram_quantile has NaN observations, result is NaN",
            NanObservations::Skew => {
                "input to histogram_quantile has NaN observations, result is skewed higher"
            }
            NanObservations::Excluded => {
                "input to histogram_fraction has NaN observations, which are excluded from all fractions"
            }
        };
        self.info(&self.with_name(text));
    }
}
