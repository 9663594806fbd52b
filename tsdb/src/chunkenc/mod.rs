//! Chunk encodings: compressed runs of samples of one series.
//!
//! [`xor`] and [`xor2`] hold floats, [`histogram`] holds native histograms; all are read and written.
//! [`decode_into`] is the fast way to floats, [`histogram::Iter`] to histograms, [`decode`] to either.
//!
//! # Errors
//! Decoding never panics on damaged bytes, and allocates no more than the bytes can hold samples.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/chunkenc/chunk.go>

mod bits;
mod float_chunk;
pub mod histogram;
#[cfg(test)]
mod tests;
mod varbit;
pub mod xor;
pub mod xor2;

pub use float_chunk::FloatChunk;

use crate::histogram::HistogramValue;
use crate::sample::{Sample, TimestampMs};

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

    /// Whether there is room for start timestamps.
    pub fn has_start_timestamps(self) -> bool {
        matches!(self, Self::Xor2 | Self::HistogramSt | Self::FloatHistogramSt)
    }

    /// The name that Prometheus gives it, as in `promtool tsdb analyze`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xor => "XOR",
            Self::Histogram => "histogram",
            Self::FloatHistogram => "floathistogram",
            Self::Xor2 => "XOR2",
            Self::HistogramSt => "histogramST",
            Self::FloatHistogramSt => "floathistogramST",
        }
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
    /// The chunk holds histograms where floats were asked for, or the other way around.
    #[error("chunk encoding {} does not hold what is read", .0.name())]
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

/// The first sample of a chunk of floats where it can be read by itself; `None` where it cannot, for whatever reason.
pub fn first_float(encoding: Encoding, data: &[u8]) -> Option<Sample> {
    match encoding {
        Encoding::Xor => xor::Iter::new(data).ok()?.next()?.ok(),
        _ => None,
    }
}

/// The samples of some chunks of one series.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decoded {
    /// Times of float samples, ms.
    pub timestamps: Vec<TimestampMs>,
    /// Float samples.
    pub values: Vec<f64>,
    /// Start timestamps of float samples, ms, 0 where there is none. As long as `values`, or empty: no
    /// sample has one.
    pub start_timestamps: Vec<TimestampMs>,
    /// Histogram samples.
    pub histograms: Vec<DecodedHistogram>,
}

/// A histogram out of a chunk.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedHistogram {
    /// ms since the epoch.
    pub timestamp: TimestampMs,
    /// When what it counts began, ms; 0 if not known.
    pub start_timestamp: TimestampMs,
    /// The value as it was appended.
    pub histogram: HistogramValue,
}

/// Appends all samples of a chunk of any encoding to `out`.
///
/// # Errors
/// If the chunk is damaged; `out` is then as it was.
pub fn decode(encoding: Encoding, data: &[u8], out: &mut Decoded) -> Result<(), ChunkError> {
    if !encoding.is_histogram() {
        let Decoded { timestamps, values, start_timestamps, .. } = out;
        return decode_with_start_into(encoding, data, timestamps, values, start_timestamps);
    }
    let before = out.histograms.len();
    let mut samples = histogram::Iter::new(encoding, data)?;
    loop {
        match samples.advance() {
            Ok(true) => out.histograms.push(DecodedHistogram {
                timestamp: samples.timestamp(),
                start_timestamp: samples.start_timestamp(),
                histogram: samples.value(),
            }),
            Ok(false) => return Ok(()),
            Err(e) => {
                out.histograms.truncate(before);
                return Err(e);
            }
        }
    }
}

/// Appends all float samples of a chunk to `timestamps` and `values`, and their start timestamps to
/// `start_timestamps`, which is as long as `values` or, while no sample has one, empty.
///
/// # Errors
/// If the chunk is damaged or holds histograms; the vectors are then as they were.
pub fn decode_with_start_into(
    encoding: Encoding,
    data: &[u8],
    timestamps: &mut Vec<TimestampMs>,
    values: &mut Vec<f64>,
    start_timestamps: &mut Vec<TimestampMs>,
) -> Result<(), ChunkError> {
    if encoding == Encoding::Xor2 {
        return xor2::decode_with_start_into(data, timestamps, values, start_timestamps);
    }
    decode_into(encoding, data, timestamps, values)?;
    if !start_timestamps.is_empty() {
        start_timestamps.resize(values.len(), 0);
    }
    Ok(())
}

/// Appends all float samples of a chunk to `timestamps` and `values`; start timestamps are passed over.
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
