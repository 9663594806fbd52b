//! Float samples, in both forms: without start timestamps (2) and with them (11).

use super::{body, kind, put_start, take_start};
use crate::encoding::{Cursor, DecodeError, put_be64, put_varint};
use crate::sample::{SeriesRef, TimestampMs};

/// A float sample of a referenced series.
#[derive(Debug, Clone, Copy)]
pub struct RefSample {
    /// Which series.
    pub series: SeriesRef,
    /// Timestamp, ms.
    pub t: TimestampMs,
    /// When the counter began, ms; 0 if that is not known.
    pub start_timestamp: TimestampMs,
    /// Value.
    pub v: f64,
}

impl RefSample {
    /// A sample without start timestamp.
    pub fn new(series: SeriesRef, t: TimestampMs, v: f64) -> Self {
        Self { series, t, start_timestamp: 0, v }
    }
}

/// Equality is by bits: a record gives back the very NaN that was written.
impl PartialEq for RefSample {
    fn eq(&self, other: &Self) -> bool {
        (self.series, self.t, self.start_timestamp, self.v.to_bits())
            == (other.series, other.t, other.start_timestamp, other.v.to_bits())
    }
}

/// Writes a samples record to `out`, replacing what it held. Start timestamps are left out.
pub fn encode_samples(out: &mut Vec<u8>, samples: impl IntoIterator<Item = RefSample>) {
    out.clear();
    out.push(kind::SAMPLES);
    let mut base = None;
    for sample in samples {
        let (base_ref, base_t) = *base.get_or_insert_with(|| {
            put_be64(out, sample.series.0);
            put_be64(out, sample.t as u64);
            (sample.series.0, sample.t)
        });
        put_varint(out, sample.series.0.wrapping_sub(base_ref) as i64);
        put_varint(out, sample.t.wrapping_sub(base_t));
        put_be64(out, sample.v.to_bits());
    }
}

/// As [`encode_samples`], with start timestamps.
pub fn encode_samples_v2(out: &mut Vec<u8>, samples: impl IntoIterator<Item = RefSample>) {
    out.clear();
    out.push(kind::SAMPLES_V2);
    let mut state: Option<(RefSample, RefSample)> = None;
    for sample in samples {
        let (first, previous) = state.get_or_insert((sample, sample));
        if out.len() == 1 {
            put_varint(out, sample.series.0 as i64);
            put_varint(out, sample.t);
            put_varint(out, sample.start_timestamp);
        } else {
            put_varint(out, sample.series.0.wrapping_sub(previous.series.0) as i64);
            put_varint(out, sample.t.wrapping_sub(first.t));
            put_start(out, sample.start_timestamp, first.start_timestamp, previous.start_timestamp);
        }
        put_be64(out, sample.v.to_bits());
        *previous = sample;
    }
}

/// Appends the samples of `record`, of either form, to `out`.
///
/// # Errors
/// If it is not a well-formed samples record; `out` may then hold some of its samples.
pub fn decode_samples(record: &[u8], out: &mut Vec<RefSample>) -> Result<(), DecodeError> {
    let (mut cursor, kind) = body(record, &[kind::SAMPLES, kind::SAMPLES_V2])?;
    if kind == kind::SAMPLES_V2 {
        return decode_v2(cursor, out);
    }
    if cursor.is_empty() {
        return Ok(());
    }
    let base_ref = cursor.be64()?;
    let base_t = cursor.be64_i64()?;
    // An entry is at least two one-byte varints and a value.
    out.reserve(cursor.remaining() / 10);
    while !cursor.is_empty() {
        let series = SeriesRef(base_ref.wrapping_add(cursor.varint()? as u64));
        let t = base_t.wrapping_add(cursor.varint()?);
        out.push(RefSample::new(series, t, cursor.be_f64()?));
    }
    Ok(())
}

/// References are relative to the previous sample, timestamps to the first.
fn decode_v2(mut cursor: Cursor<'_>, out: &mut Vec<RefSample>) -> Result<(), DecodeError> {
    if cursor.is_empty() {
        return Ok(());
    }
    out.reserve(cursor.remaining() / 11);
    let first = RefSample {
        series: SeriesRef(cursor.varint()? as u64),
        t: cursor.varint()?,
        start_timestamp: cursor.varint()?,
        v: cursor.be_f64()?,
    };
    out.push(first);
    let mut previous = first;
    while !cursor.is_empty() {
        previous = RefSample {
            series: SeriesRef(previous.series.0.wrapping_add(cursor.varint()? as u64)),
            t: first.t.wrapping_add(cursor.varint()?),
            start_timestamp: take_start(&mut cursor, first.start_timestamp, previous.start_timestamp)?,
            v: cursor.be_f64()?,
        };
        out.push(previous);
    }
    Ok(())
}
