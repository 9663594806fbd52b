//! Arithmetic over native histograms, as PromQL defines it.
//!
//! - [`layout`]: sums of histograms whose buckets differ, plain or compensated.
//! - [`total`]: sums and means of many.
//! - [`stats`]: quantiles, fractions, variance.
//! - [`trim`]: the operators `</` and `>/`.
//! - [`lanes`]: how the histograms of a tile are kept in a column.
//!
//! The model is [`FloatHistogram`], which knows its buckets, their bounds, counter resets and its text.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/model/histogram/float_histogram.go>

pub mod lanes;
pub mod layout;
pub mod stats;
#[cfg(test)]
mod tests;
pub mod total;
pub mod trim;

use promontory_tsdb::histogram::FloatHistogram;

pub use layout::{Added, Incompatible, Kahan, Layout, add, sub};

/// How many float samples a histogram counts for, where samples held in memory are counted.
pub fn weight(h: &FloatHistogram) -> usize {
    let spans = h.positive_spans.len() + h.negative_spans.len();
    let floats = h.positive_buckets.len() + h.negative_buckets.len() + h.custom_values.len();
    // 168 bytes of the struct and 8 of the timestamp, of 16 bytes that a float sample takes.
    (168 + 8 + 8 * (spans + floats)) / 16
}
