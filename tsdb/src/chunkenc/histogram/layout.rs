//! The layout of buckets at the head of a chunk.

use super::super::ChunkError;
use super::super::bits::{BitReader, BitWriter};
use crate::histogram::{CUSTOM_SCHEMA, SCHEMA_MAX, Span, is_known_schema};

/// Greatest number of custom bounds that all samples of a chunk may have together when read: 64 MiB.
const MAX_BOUNDS: usize = 1 << 23;

/// What all samples of a chunk have in common.
#[derive(Debug, Clone, Default)]
pub(super) struct Layout {
    pub(super) schema: i32,
    pub(super) zero_threshold: f64,
    pub(super) positive: Vec<Span>,
    pub(super) negative: Vec<Span>,
    /// Empty unless the schema is custom.
    pub(super) custom_values: Vec<f64>,
}

/// Number of buckets that spans lay out.
pub(super) fn length(spans: &[Span]) -> usize {
    spans.iter().fold(0usize, |n, s| n.saturating_add(s.length as usize))
}

impl Layout {
    pub(super) fn write(&self, out: &mut BitWriter) {
        put_zero_threshold(out, self.zero_threshold);
        out.put_varbit(i64::from(self.schema));
        for spans in [&self.positive, &self.negative] {
            out.put_uvarbit(spans.len() as u64);
            for span in spans {
                out.put_uvarbit(u64::from(span.length));
                out.put_varbit(i64::from(span.offset));
            }
        }
        if self.schema == CUSTOM_SCHEMA {
            out.put_uvarbit(self.custom_values.len() as u64);
            for bound in &self.custom_values {
                put_custom_bound(out, *bound);
            }
        }
    }

    /// Reads the layout of a chunk with `samples` samples, whose first one has at least
    /// `bits_per_bucket` bits for each bucket: no more buckets are believed than there are bits.
    pub(super) fn read(
        bits: &mut BitReader<'_>,
        samples: u16,
        bits_per_bucket: usize,
    ) -> Result<Self, ChunkError> {
        let zero_threshold = zero_threshold(bits);
        let schema = bits.varbit() as i32;
        if !is_known_schema(schema) {
            return Err(bits.error("histogram has an unknown schema"));
        }
        let positive = read_spans(bits)?;
        let negative = read_spans(bits)?;
        let custom_values =
            if schema == CUSTOM_SCHEMA { read_custom_bounds(bits, samples)? } else { Vec::new() };
        let buckets = length(&positive).saturating_add(length(&negative));
        if buckets.saturating_mul(bits_per_bucket) > bits.left() {
            return Err(bits.error("more buckets than the chunk can hold"));
        }
        // Such a schema is brought down when read, which needs spans in order.
        if schema > SCHEMA_MAX
            && [&positive, &negative].iter().any(|s| s.iter().skip(1).any(|s| s.offset < 0))
        {
            return Err(bits.error("span offset is negative"));
        }
        Ok(Self { schema, zero_threshold, positive, negative, custom_values })
    }
}

/// Reads spans. Empty ones are left out, which changes nothing but how the layout is spelled; so there
/// are no more spans than buckets, and a copy in each sample is no more than the bits can pay for.
fn read_spans(bits: &mut BitReader<'_>) -> Result<Vec<Span>, ChunkError> {
    let count = bits.uvarbit();
    if count > bits.left() as u64 / 2 {
        return Err(bits.error("more spans than the chunk can hold"));
    }
    let mut spans = Vec::new();
    let mut offset = 0i32;
    for _ in 0..count {
        let length = bits.uvarbit() as u32;
        offset = offset.wrapping_add(bits.varbit() as i32);
        if length > 0 {
            spans.push(Span { offset: std::mem::take(&mut offset), length });
        }
    }
    bits.check()?;
    Ok(spans)
}

fn read_custom_bounds(bits: &mut BitReader<'_>, samples: u16) -> Result<Vec<f64>, ChunkError> {
    let count = usize::try_from(bits.uvarbit()).unwrap_or(usize::MAX);
    if count > bits.left() / 5 || count.saturating_mul(usize::from(samples)) > MAX_BOUNDS {
        return Err(bits.error("more custom bounds than the chunk can hold"));
    }
    let bounds = (0..count).map(|_| custom_bound(bits)).collect();
    bits.check()?;
    Ok(bounds)
}

/// Exponents of powers of two that fit in one byte, as IEEE 754 counts them for `[1, 2)`.
const SHORT_EXPONENTS: std::ops::RangeInclusive<i32> = -243..=10;

/// A byte for none and for usual powers of two, else 0xff and the float.
fn put_zero_threshold(out: &mut BitWriter, threshold: f64) {
    let bits = threshold.to_bits();
    let exponent = (bits >> 52) as i32 - 1023;
    if threshold == 0.0 {
        out.put(0, 8);
    } else if bits << 12 == 0 && SHORT_EXPONENTS.contains(&exponent) {
        out.put((exponent + 244) as u64, 8);
    } else {
        out.put(0xff, 8);
        out.put(bits, 64);
    }
}

fn zero_threshold(bits: &mut BitReader<'_>) -> f64 {
    match bits.take(8) {
        0 => 0.0,
        0xff => f64::from_bits(bits.take(64)),
        code => f64::from_bits((code + 1023 - 244) << 52),
    }
}

/// Greatest bound, in thousandths, that has the short form.
const MAX_SHORT_BOUND: f64 = 33_554_430.0;

/// Whole thousandths in a varbit number, plus one; anything else as a zero bit and the float.
#[expect(clippy::float_cmp, reason = "the short form is for bounds that come back the same")]
fn put_custom_bound(out: &mut BitWriter, bound: f64) {
    let thousandths = bound * 1000.0;
    let rounded = thousandths.round();
    if (0.0..=MAX_SHORT_BOUND).contains(&thousandths) && rounded / 1000.0 == bound {
        out.put_uvarbit(rounded as u64 + 1);
    } else {
        out.put(0, 1);
        out.put(bound.to_bits(), 64);
    }
}

fn custom_bound(bits: &mut BitReader<'_>) -> f64 {
    match bits.uvarbit() {
        0 => f64::from_bits(bits.take(64)),
        thousandths => (thousandths - 1) as f64 / 1000.0,
    }
}
