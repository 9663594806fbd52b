//! Chunk encodings: compressed runs of samples of one series.
//!
//! [`xor`] is read and written, [`xor2`] is read. The histogram encodings are recognised, so that a
//! reader can say what it skips, but give [`ChunkError::Unsupported`].
//!
//! # Errors
//! Decoding never panics on damaged bytes, and allocates no more than the bytes can hold samples.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/chunkenc/chunk.go>

mod bits;
#[cfg(test)]
mod tests;
pub mod xor;
pub mod xor2;

use crate::sample::TimestampMs;

/// How the samples of a chunk are encoded; the discriminant is the byte on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// Floats: delta-of-delta timestamps, XORed values.
    Xor = 1,
    /// Native histograms with integer counts.
    Histogram = 2,
    /// Native histograms with float counts.
    FloatHistogram = 3,
    /// Floats: timestamps and values behind joint control bits, optional start timestamps.
    Xor2 = 4,
    /// [`Encoding::Histogram`] with start timestamps.
    HistogramSt = 5,
    /// [`Encoding::FloatHistogram`] with start timestamps.
    FloatHistogramSt = 6,
}

impl Encoding {
    /// The encoding with this code; `None` if no version of the format defines it.
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Xor,
            2 => Self::Histogram,
            3 => Self::FloatHistogram,
            4 => Self::Xor2,
            5 => Self::HistogramSt,
            6 => Self::FloatHistogramSt,
            _ => return None,
        })
    }

    /// The byte on disk.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Whether the samples are histograms.
    pub fn is_histogram(self) -> bool {
        !matches!(self, Self::Xor | Self::Xor2)
    }
}

/// Why a chunk cannot be decoded.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The bytes are damaged.
    #[error("chunk is damaged near bit {bit}: {reason}")]
    Corrupt {
        /// Bit offset from the start of the chunk's data.
        bit: usize,
        /// What was found.
        reason: &'static str,
    },
    /// The encoding is known but not decoded by this build.
    #[error("chunk encoding {0:?} is not supported yet")]
    Unsupported(Encoding),
}

/// Number of samples that the header of a chunk claims; 0 if there is no header.
pub fn num_samples(encoding: Encoding, data: &[u8]) -> u16 {
    let count = data.first_chunk::<2>().map_or(0, |b| u16::from_be_bytes(*b));
    match encoding {
        // The two top bits are the counter reset hint.
        Encoding::HistogramSt | Encoding::FloatHistogramSt => count & 0x3fff,
        _ => count,
    }
}

/// Appends all float samples of a chunk to `timestamps` and `values`.
///
/// # Errors
/// If the chunk is damaged or holds histograms; the vectors are then as they were.
pub fn decode_into(
    encoding: Encoding,
    data: &[u8],
    timestamps: &mut Vec<TimestampMs>,
    values: &mut Vec<f64>,
) -> Result<(), ChunkError> {
    match encoding {
        Encoding::Xor => xor::decode_into(data, timestamps, values),
        Encoding::Xor2 => xor2::decode_into(data, timestamps, values),
        other => Err(ChunkError::Unsupported(other)),
    }
}

/// Grows both vectors for `count` samples, lets `fill` write them, and takes them back if it fails.
fn fill_samples(
    timestamps: &mut Vec<TimestampMs>,
    values: &mut Vec<f64>,
    count: usize,
    fill: impl FnOnce(&mut [TimestampMs], &mut [f64]) -> Result<(), ChunkError>,
) -> Result<(), ChunkError> {
    let (t_len, v_len) = (timestamps.len(), values.len());
    timestamps.resize(t_len + count, 0);
    values.resize(v_len + count, 0.0);
    let result = fill(&mut timestamps[t_len..], &mut values[v_len..]);
    if result.is_err() {
        timestamps.truncate(t_len);
        values.truncate(v_len);
    }
    result
}
