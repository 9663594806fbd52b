//! What a log record holds, to and from bytes.
//!
//! # Format
//! The first byte is the type; bodies are in `tsdb/docs/format/wal.md`. Series, samples and
//! tombstones are written and read; samples with start timestamps (type 11) are read without them.
//! Exemplars, metadata and histograms are recognised, so that they can be counted and kept.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/record/record.go>

use crate::encoding::{Cursor, DecodeError, put_be64, put_uvarint, put_varint};
use crate::labels::Labels;
use crate::sample::{SeriesRef, TimestampMs};

const SERIES: u8 = 1;
const SAMPLES: u8 = 2;
const TOMBSTONES: u8 = 3;
const SAMPLES_V2: u8 = 11;

/// Kind of a record, from its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// Labels of new series.
    Series,
    /// Float samples, with or without start timestamps.
    Samples,
    /// Deleted intervals.
    Tombstones,
    /// Exemplars; kept, not understood.
    Exemplars,
    /// References to m-mapped out-of-order chunks (`wbl/` only); not needed for replay.
    MmapMarkers,
    /// Type, unit and help of metrics; kept, not understood.
    Metadata,
    /// Native histograms of any form; kept, not understood.
    Histograms,
    /// Not known to this build; skipped, as upstream does.
    Unknown,
}

impl RecordKind {
    /// Kind of `record`.
    pub fn of(record: &[u8]) -> Self {
        match record.first() {
            Some(&SERIES) => Self::Series,
            Some(&SAMPLES | &SAMPLES_V2) => Self::Samples,
            Some(&TOMBSTONES) => Self::Tombstones,
            Some(4) => Self::Exemplars,
            Some(5) => Self::MmapMarkers,
            Some(6) => Self::Metadata,
            Some(7..=10 | 12 | 13) => Self::Histograms,
            _ => Self::Unknown,
        }
    }
}

/// A series and its reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefSeries {
    /// Reference in all records of this log.
    pub series: SeriesRef,
    /// Its labels.
    pub labels: Labels,
}

/// A float sample of a referenced series.
#[derive(Debug, Clone, Copy)]
pub struct RefSample {
    /// Which series.
    pub series: SeriesRef,
    /// Timestamp, ms.
    pub t: TimestampMs,
    /// Value.
    pub v: f64,
}

/// Equality is by bits: a record gives back the very NaN that was written.
impl PartialEq for RefSample {
    fn eq(&self, other: &Self) -> bool {
        (self.series, self.t, self.v.to_bits()) == (other.series, other.t, other.v.to_bits())
    }
}

/// A deleted interval `[mint, maxt]` of a referenced series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefTombstone {
    /// Which series.
    pub series: SeriesRef,
    /// First deleted instant, ms.
    pub mint: TimestampMs,
    /// Last deleted instant, ms.
    pub maxt: TimestampMs,
}

/// Starts a series record in `out`; follow with [`put_series`].
pub fn begin_series(out: &mut Vec<u8>) {
    out.clear();
    out.push(SERIES);
}

/// Adds one series to a record.
pub fn put_series(out: &mut Vec<u8>, series: SeriesRef, labels: &Labels) {
    put_be64(out, series.0);
    put_uvarint(out, labels.len() as u64);
    // The canonical label bytes are length-prefixed pairs, as here.
    out.extend_from_slice(labels.as_bytes());
}

/// Writes a samples record to `out`, replacing what it held.
pub fn encode_samples(out: &mut Vec<u8>, samples: impl IntoIterator<Item = RefSample>) {
    out.clear();
    out.push(SAMPLES);
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

/// Writes a tombstones record to `out`, replacing what it held.
pub fn encode_tombstones(out: &mut Vec<u8>, tombstones: &[RefTombstone]) {
    out.clear();
    out.push(TOMBSTONES);
    for tombstone in tombstones {
        put_be64(out, tombstone.series.0);
        put_varint(out, tombstone.mint);
        put_varint(out, tombstone.maxt);
    }
}

/// Appends the series of `record` to `out`.
///
/// # Errors
/// If it is not a well-formed series record.
pub fn decode_series(record: &[u8], out: &mut Vec<RefSeries>) -> Result<(), DecodeError> {
    let mut cursor = body(record, &[SERIES])?.0;
    while !cursor.is_empty() {
        let series = SeriesRef(cursor.be64()?);
        let count = cursor.uvarint()?;
        let start = cursor.offset();
        for _ in 0..count {
            cursor.string()?;
            cursor.string()?;
        }
        let bytes = &record[start..cursor.offset()];
        let labels = Labels::from_bytes(bytes).map_or_else(|| sort_labels(bytes), Ok)?;
        out.push(RefSeries { series, labels });
    }
    Ok(())
}

/// Labels that another writer left unsorted or with empty values.
fn sort_labels(bytes: &[u8]) -> Result<Labels, DecodeError> {
    let mut cursor = Cursor::new(bytes);
    let mut pairs = Vec::new();
    while !cursor.is_empty() {
        pairs.push((cursor.string()?, cursor.string()?));
    }
    Ok(Labels::from_pairs(pairs))
}

/// Appends the samples of `record` to `out`.
///
/// # Errors
/// If it is not a well-formed samples record; `out` may then hold some of its samples.
pub fn decode_samples(record: &[u8], out: &mut Vec<RefSample>) -> Result<(), DecodeError> {
    let (mut cursor, kind) = body(record, &[SAMPLES, SAMPLES_V2])?;
    if kind == SAMPLES_V2 {
        return decode_samples_v2(cursor, out);
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
        out.push(RefSample { series, t, v: cursor.be_f64()? });
    }
    Ok(())
}

/// References are relative to the previous sample, timestamps to the first.
fn decode_samples_v2(mut cursor: Cursor<'_>, out: &mut Vec<RefSample>) -> Result<(), DecodeError> {
    const ST_EXPLICIT: u8 = 2;
    let mut first: Option<TimestampMs> = None;
    let mut series = 0u64;
    while !cursor.is_empty() {
        series = series.wrapping_add(cursor.varint()? as u64);
        let delta = cursor.varint()?;
        let t = if let Some(first_t) = first {
            if cursor.u8()? >= ST_EXPLICIT {
                cursor.varint()?;
            }
            first_t.wrapping_add(delta)
        } else {
            cursor.varint()?;
            first = Some(delta);
            delta
        };
        out.push(RefSample { series: SeriesRef(series), t, v: cursor.be_f64()? });
    }
    Ok(())
}

/// Timestamp of the first entry of an exemplar or histogram record, which is about that of all: such a
/// record is one batch. `None` if there is none.
pub fn first_time(record: &[u8]) -> Option<TimestampMs> {
    let mut cursor = Cursor::new(record);
    match cursor.u8().ok()? {
        4 | 7..=10 => {
            cursor.be64().ok()?;
            cursor.be64_i64().ok()
        }
        12 | 13 => {
            cursor.varint().ok()?;
            cursor.varint().ok()
        }
        _ => None,
    }
}

/// Appends the tombstones of `record` to `out`.
///
/// # Errors
/// If it is not a well-formed tombstones record.
pub fn decode_tombstones(record: &[u8], out: &mut Vec<RefTombstone>) -> Result<(), DecodeError> {
    let mut cursor = body(record, &[TOMBSTONES])?.0;
    while !cursor.is_empty() {
        let series = SeriesRef(cursor.be64()?);
        out.push(RefTombstone { series, mint: cursor.varint()?, maxt: cursor.varint()? });
    }
    Ok(())
}

fn body<'a>(record: &'a [u8], kinds: &[u8]) -> Result<(Cursor<'a>, u8), DecodeError> {
    let mut cursor = Cursor::new(record);
    let kind = cursor.u8()?;
    if kinds.contains(&kind) {
        Ok((cursor, kind))
    } else {
        Err(DecodeError { offset: 0, reason: "another record type was expected" })
    }
}
