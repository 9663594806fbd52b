//! Records about series: labels, deleted intervals, and markers of m-mapped chunks.

use super::{body, kind};
use crate::encoding::{Cursor, DecodeError, put_be64, put_uvarint, put_varint};
use crate::labels::Labels;
use crate::sample::{SeriesRef, TimestampMs};

/// A series and its reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefSeries {
    /// Reference in all records of this log.
    pub series: SeriesRef,
    /// Its labels.
    pub labels: Labels,
}

/// A deleted interval `[mint, maxt]` of a referenced series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RefTombstone {
    /// Which series.
    pub series: SeriesRef,
    /// First deleted instant, ms.
    pub mint: TimestampMs,
    /// Last deleted instant, ms.
    pub maxt: TimestampMs,
}

/// All out-of-order samples of a series that were logged before are in chunks on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefMmapMarker {
    /// Which series.
    pub series: SeriesRef,
    /// The newest of these chunks: number of the file of `chunks_head/` in the upper 32 bits, offset in it
    /// in the lower. Zero if the chunks are still to be written.
    pub chunk: u64,
}

/// Starts a series record in `out`; follow with [`put_series`].
pub fn begin_series(out: &mut Vec<u8>) {
    out.clear();
    out.push(kind::SERIES);
}

/// Adds one series to a record.
pub fn put_series(out: &mut Vec<u8>, series: SeriesRef, labels: &Labels) {
    put_be64(out, series.0);
    put_labels(out, labels);
}

/// Appends a label set: count, then length-prefixed names and values.
pub(crate) fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    put_uvarint(out, labels.len() as u64);
    // The canonical label bytes are length-prefixed pairs, as here.
    out.extend_from_slice(labels.as_bytes());
}

/// Appends the series of `record` to `out`.
///
/// # Errors
/// If it is not a well-formed series record.
pub fn decode_series(record: &[u8], out: &mut Vec<RefSeries>) -> Result<(), DecodeError> {
    let mut cursor = body(record, &[kind::SERIES])?.0;
    while !cursor.is_empty() {
        let series = SeriesRef(cursor.be64()?);
        out.push(RefSeries { series, labels: decode_labels(&mut cursor)? });
    }
    Ok(())
}

/// Takes a label set as [`put_labels`] writes it.
pub(crate) fn decode_labels(cursor: &mut Cursor<'_>) -> Result<Labels, DecodeError> {
    let count = cursor.uvarint()?;
    let (rest, start) = (cursor.rest(), cursor.offset());
    for _ in 0..count {
        cursor.string()?;
        cursor.string()?;
    }
    let bytes = &rest[..cursor.offset() - start];
    Labels::from_bytes(bytes).map_or_else(|| sort_labels(bytes), Ok)
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

/// Writes a tombstones record to `out`, replacing what it held.
pub fn encode_tombstones(out: &mut Vec<u8>, tombstones: &[RefTombstone]) {
    out.clear();
    out.push(kind::TOMBSTONES);
    for tombstone in tombstones {
        put_be64(out, tombstone.series.0);
        put_varint(out, tombstone.mint);
        put_varint(out, tombstone.maxt);
    }
}

/// Appends the tombstones of `record` to `out`.
///
/// # Errors
/// If it is not a well-formed tombstones record.
pub fn decode_tombstones(record: &[u8], out: &mut Vec<RefTombstone>) -> Result<(), DecodeError> {
    let mut cursor = body(record, &[kind::TOMBSTONES])?.0;
    while !cursor.is_empty() {
        let series = SeriesRef(cursor.be64()?);
        out.push(RefTombstone { series, mint: cursor.varint()?, maxt: cursor.varint()? });
    }
    Ok(())
}

/// Writes a record of m-map markers to `out`, replacing what it held.
pub fn encode_mmap_markers(out: &mut Vec<u8>, markers: &[RefMmapMarker]) {
    out.clear();
    out.push(kind::MMAP_MARKERS);
    for marker in markers {
        put_be64(out, marker.series.0);
        put_be64(out, marker.chunk);
    }
}

/// Appends the markers of `record` to `out`.
///
/// # Errors
/// If it is not a well-formed record of m-map markers.
pub fn decode_mmap_markers(record: &[u8], out: &mut Vec<RefMmapMarker>) -> Result<(), DecodeError> {
    let mut cursor = body(record, &[kind::MMAP_MARKERS])?.0;
    while !cursor.is_empty() {
        out.push(RefMmapMarker { series: SeriesRef(cursor.be64()?), chunk: cursor.be64()? });
    }
    Ok(())
}
