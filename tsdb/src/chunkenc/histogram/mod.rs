//! Histogram chunks: encodings 2 (integer counts) and 3 (float counts), and 5 and 6, which are the
//! same with start timestamps.
//!
//! # Format
//! `docs/format/chunks.md`. The layout of buckets is written once, ahead of the first sample; every
//! sample then stores all its buckets in that layout. Integers are stored as changes of changes,
//! floats as the bits that differ from the sample before.
//!
//! # Invariants
//! All samples of a chunk share schema, zero threshold, bounds and layout, and none but the first
//! follows a counter reset. [`ChunkAppender::append`] sees to that: see [`Appended`].
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/chunkenc/histogram.go> and
//! `float_histogram.go`; bytes written here equal those that Prometheus writes.

mod appender;
mod coder;
mod fit;
mod iter;
mod layout;

pub use appender::{Appended, ChunkAppender};
pub use coder::{Coder, FloatCoder, IntegerCoder};
pub use iter::Iter;

use super::Encoding;
use crate::histogram::CounterResetHint;

/// Appends histograms with integer counts.
pub type Appender = ChunkAppender<IntegerCoder>;
/// Appends histograms with float counts.
pub type FloatAppender = ChunkAppender<FloatCoder>;

/// Length of the header of a chunk: a count, a counter reset header, perhaps start timestamps.
const HEADER: usize = 3;

/// Greatest number of samples in a chunk.
fn max_samples(encoding: Encoding) -> u16 {
    if encoding.has_start_timestamps() { 0x3fff } else { u16::MAX }
}

/// The counter reset header as the two top bits of a byte.
fn header_bits(header: CounterResetHint) -> u8 {
    match header {
        CounterResetHint::Unknown => 0,
        CounterResetHint::NotReset => 0x40,
        CounterResetHint::Reset => 0x80,
        CounterResetHint::Gauge => 0xc0,
    }
}

/// The counter reset header of a chunk: what its first sample is to the chunk before.
///
/// Samples that are read do not have it as hint, because nobody knows whether that chunk is there.
pub fn counter_reset_header(encoding: Encoding, data: &[u8]) -> CounterResetHint {
    let byte = if encoding.has_start_timestamps() { 0 } else { 2 };
    match data.get(byte).map_or(0, |b| b & 0xc0) {
        0 => CounterResetHint::Unknown,
        0x40 => CounterResetHint::NotReset,
        0x80 => CounterResetHint::Reset,
        _ => CounterResetHint::Gauge,
    }
}
