//! Samples of either kind, and their encoding in one go.

use std::sync::Arc;

use super::open_chunk::{ChunkRules, HistogramAppended, OpenChunk, SAMPLES_PER_CHUNK, append_histogram};
use super::series::ClosedChunk;
use crate::chunkenc::Decoded;
use crate::chunkenc::histogram::{FloatCoder, IntegerCoder};
use crate::histogram::{FloatHistogram, Histogram, HistogramValue};
use crate::sample::{STALE_NAN_BITS, TimestampMs};

/// A value on its way in.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Float(f64),
    Histogram(HistogramValue),
}

/// A sample of either kind.
#[derive(Debug, Clone)]
pub(crate) struct AnySample {
    pub(crate) t: TimestampMs,
    /// ms; 0 if not known.
    pub(crate) start: TimestampMs,
    pub(crate) value: Value,
}

/// A stale marker of the kind of `like`.
pub(crate) fn stale_like(like: &HistogramValue) -> HistogramValue {
    let sum = f64::from_bits(STALE_NAN_BITS);
    match like {
        HistogramValue::Integer(_) => {
            HistogramValue::Integer(Arc::new(Histogram { sum, ..Histogram::default() }))
        }
        HistogramValue::Float(_) => {
            HistogramValue::Float(Arc::new(FloatHistogram { sum, ..FloatHistogram::default() }))
        }
    }
}

/// Encodes ascending samples as chunks: a chunk ends where the kind changes, where a histogram does not fit,
/// and, for floats, after `max_floats`.
pub(super) fn encode<'a>(
    samples: impl IntoIterator<Item = &'a AnySample>,
    rules: ChunkRules,
    max_floats: usize,
) -> Vec<ClosedChunk> {
    // Where samples are, not when, decides.
    let rules = ChunkRules { block_range_ms: i64::MAX, ..rules };
    let mut out = Vec::new();
    let mut open: Option<OpenChunk> = None;
    for AnySample { t, start, value } in samples {
        let next = match value {
            Value::Float(v) => match &mut open {
                Some(o) if !o.encoding().is_histogram() && o.len() < max_floats => {
                    o.append_float(*t, *start, *v);
                    None
                }
                _ => {
                    let mut next = OpenChunk::floats(*t, rules);
                    next.append_float(*t, *start, *v);
                    Some(next)
                }
            },
            Value::Histogram(h) => {
                let appended = match h {
                    HistogramValue::Integer(h) => {
                        append_histogram::<IntegerCoder>(open.as_mut(), *t, *start, h, rules)
                    }
                    HistogramValue::Float(h) => {
                        append_histogram::<FloatCoder>(open.as_mut(), *t, *start, h, rules)
                    }
                };
                // Malformed histograms were refused when they came.
                match appended {
                    Ok(HistogramAppended::Next(next)) => Some(next),
                    Ok(HistogramAppended::Same) | Err(_) => None,
                }
            }
        };
        if let Some(next) = next {
            out.extend(open.replace(next).map(OpenChunk::into_closed));
        }
    }
    out.extend(open.map(OpenChunk::into_closed));
    out
}

/// Encodes the decoded samples of one series as chunks for a block.
pub(super) fn encode_decoded(decoded: &Decoded, rules: ChunkRules) -> Vec<ClosedChunk> {
    let mut samples = Vec::with_capacity(decoded.values.len() + decoded.histograms.len());
    for (i, (t, v)) in decoded.timestamps.iter().zip(&decoded.values).enumerate() {
        let start = decoded.start_timestamps.get(i).copied().unwrap_or_default();
        samples.push(AnySample { t: *t, start, value: Value::Float(*v) });
    }
    for h in &decoded.histograms {
        let value = Value::Histogram(h.histogram.clone());
        samples.push(AnySample { t: h.timestamp, start: h.start_timestamp, value });
    }
    if !decoded.histograms.is_empty() {
        samples.sort_by_key(|s| s.t);
    }
    encode(&samples, rules, SAMPLES_PER_CHUNK)
}
