//! Arithmetic over native histograms, as PromQL defines it.
//!
//! - [`buckets`]: walking over buckets, their bounds, their text.
//! - [`layout`]: sums of histograms whose buckets differ, plain or compensated.
//! - [`reset`]: counter resets and equality.
//! - [`total`]: sums and means of many.
//! - [`stats`]: quantiles, fractions, variance.
//! - [`trim`]: the operators `</` and `>/`.
//! - [`lanes`]: how the histograms of a tile are kept in a column.
//!
//! The model is [`FloatHistogram`]. A histogram whose spans promise more buckets than there are is
//! read as far as the buckets go.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/model/histogram/float_histogram.go>

pub mod buckets;
pub mod lanes;
pub mod layout;
pub mod reset;
pub mod stats;
pub mod total;
pub mod trim;
#[cfg(test)]
mod tests;

use promontory_tsdb::histogram::FloatHistogram;

pub use layout::{Added, Incompatible, Kahan, Layout, add, sub};
pub use reset::{detect_reset, equal};

/// The schema of histograms that list their bounds.
pub const CUSTOM_SCHEMA: i32 = -53;

/// Whether `h` lists its bounds.
pub fn is_custom(h: &FloatHistogram) -> bool {
    h.schema == CUSTOM_SCHEMA
}

/// How many float samples a histogram counts for, where samples held in memory are counted.
pub fn weight(h: &FloatHistogram) -> usize {
    let spans = h.positive_spans.len() + h.negative_spans.len();
    let floats = h.positive_buckets.len() + h.negative_buckets.len() + h.custom_values.len();
    // 168 bytes of the struct and 8 of the timestamp, of 16 bytes that a float sample takes.
    (168 + 8 + 8 * (spans + floats)) / 16
}
