//! Exemplars: values with labels, such as the trace that they come from.

use super::{body, decode_labels, kind, put_labels};
use crate::encoding::{Cursor, DecodeError, put_be64, put_varint};
use crate::labels::Labels;
use crate::sample::{SeriesRef, TimestampMs};

/// An exemplar of a referenced series.
#[derive(Debug, Clone)]
pub struct RefExemplar {
    /// Which series.
    pub series: SeriesRef,
    /// Timestamp, ms.
    pub t: TimestampMs,
    /// Observed value.
    pub v: f64,
    /// Labels of the exemplar itself.
    pub labels: Labels,
}

/// Equality is by bits.
impl PartialEq for RefExemplar {
    fn eq(&self, other: &Self) -> bool {
        (self.series, self.t, self.v.to_bits(), &self.labels)
            == (other.series, other.t, other.v.to_bits(), &other.labels)
    }
}

/// Writes an exemplars record to `out`, replacing what it held.
pub fn encode_exemplars(out: &mut Vec<u8>, exemplars: &[RefExemplar]) {
    out.clear();
    out.push(kind::EXEMPLARS);
    encode_exemplars_body(out, exemplars);
}

/// Appends what follows the type byte; nothing if there are no exemplars.
pub(crate) fn encode_exemplars_body(out: &mut Vec<u8>, exemplars: &[RefExemplar]) {
    let Some(first) = exemplars.first() else { return };
    put_be64(out, first.series.0);
    put_be64(out, first.t as u64);
    for exemplar in exemplars {
        put_varint(out, exemplar.series.0.wrapping_sub(first.series.0) as i64);
        put_varint(out, exemplar.t.wrapping_sub(first.t));
        put_be64(out, exemplar.v.to_bits());
        put_labels(out, &exemplar.labels);
    }
}

/// Appends the exemplars of `record` to `out`.
///
/// # Errors
/// If it is not a well-formed exemplars record.
pub fn decode_exemplars(record: &[u8], out: &mut Vec<RefExemplar>) -> Result<(), DecodeError> {
    decode_exemplars_body(body(record, &[kind::EXEMPLARS])?.0, out)
}

/// Appends the exemplars of all that is left of `cursor`.
pub(crate) fn decode_exemplars_body(
    mut cursor: Cursor<'_>,
    out: &mut Vec<RefExemplar>,
) -> Result<(), DecodeError> {
    if cursor.is_empty() {
        return Ok(());
    }
    let base_ref = cursor.be64()?;
    let base_t = cursor.be64_i64()?;
    while !cursor.is_empty() {
        out.push(RefExemplar {
            series: SeriesRef(base_ref.wrapping_add(cursor.varint()? as u64)),
            t: base_t.wrapping_add(cursor.varint()?),
            v: cursor.be_f64()?,
            labels: decode_labels(&mut cursor)?,
        });
    }
    Ok(())
}
