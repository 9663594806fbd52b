//! What a log record holds, to and from bytes: one file per family of records.
//!
//! # Format
//! The first byte is the type; bodies are drawn in `tsdb/docs/format/wal.md`. All types of Prometheus 3.14
//! are written and read (1–13), byte for byte as it writes them. Snapshots of the head use the same
//! bodies (`head/snapshot.rs`).
//!
//! # Errors
//! Decoders never panic and never allocate more than a small multiple of the record's length. After an
//! error the output may hold some entries of the record.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/record/record.go>

mod exemplars;
mod histograms;
mod metadata;
mod samples;
mod series;

use crate::encoding::{Cursor, DecodeError, put_varint};
use crate::sample::TimestampMs;

pub use exemplars::{RefExemplar, decode_exemplars, encode_exemplars};
pub(crate) use exemplars::{decode_exemplars_body, encode_exemplars_body};
pub use histograms::{
    HistogramRecord, RefHistogramSample, decode_histograms, encode_histograms, histogram_records,
};
pub(crate) use histograms::{put_float_histogram, put_histogram};
pub use metadata::{RefMetadata, decode_metadata, encode_metadata};
pub use samples::{RefSample, decode_samples, encode_samples, encode_samples_v2};
pub use series::{
    RefMmapMarker, RefSeries, RefTombstone, begin_series, decode_mmap_markers, decode_series,
    decode_tombstones, encode_mmap_markers, encode_tombstones, put_series,
};
pub(crate) use series::{decode_labels, put_labels};

/// Type bytes.
pub(crate) mod kind {
    pub(crate) const SERIES: u8 = 1;
    pub(crate) const SAMPLES: u8 = 2;
    pub(crate) const TOMBSTONES: u8 = 3;
    pub(crate) const EXEMPLARS: u8 = 4;
    pub(crate) const MMAP_MARKERS: u8 = 5;
    pub(crate) const METADATA: u8 = 6;
    pub(crate) const HISTOGRAMS: u8 = 7;
    pub(crate) const FLOAT_HISTOGRAMS: u8 = 8;
    pub(crate) const CUSTOM_HISTOGRAMS: u8 = 9;
    pub(crate) const CUSTOM_FLOAT_HISTOGRAMS: u8 = 10;
    pub(crate) const SAMPLES_V2: u8 = 11;
    pub(crate) const HISTOGRAMS_V2: u8 = 12;
    pub(crate) const FLOAT_HISTOGRAMS_V2: u8 = 13;
}

/// Kind of a record, from its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// Labels of new series.
    Series,
    /// Float samples, with or without start timestamps.
    Samples,
    /// Deleted intervals.
    Tombstones,
    /// Exemplars.
    Exemplars,
    /// References to m-mapped out-of-order chunks (`wbl/` only).
    MmapMarkers,
    /// Type, unit and help of metrics.
    Metadata,
    /// Native histograms of any form.
    Histograms,
    /// Not known to this build; skipped, as upstream does.
    Unknown,
}

impl RecordKind {
    /// Kind of `record`.
    pub fn of(record: &[u8]) -> Self {
        match record.first() {
            Some(&kind::SERIES) => Self::Series,
            Some(&kind::SAMPLES | &kind::SAMPLES_V2) => Self::Samples,
            Some(&kind::TOMBSTONES) => Self::Tombstones,
            Some(&kind::EXEMPLARS) => Self::Exemplars,
            Some(&kind::MMAP_MARKERS) => Self::MmapMarkers,
            Some(&kind::METADATA) => Self::Metadata,
            Some(&(kind::HISTOGRAMS..=kind::CUSTOM_FLOAT_HISTOGRAMS)) => Self::Histograms,
            Some(&kind::HISTOGRAMS_V2 | &kind::FLOAT_HISTOGRAMS_V2) => Self::Histograms,
            _ => Self::Unknown,
        }
    }
}

/// The cursor behind the type byte, and the type, which must be one of `kinds`.
fn body<'a>(record: &'a [u8], kinds: &[u8]) -> Result<(Cursor<'a>, u8), DecodeError> {
    let mut cursor = Cursor::new(record);
    let kind = cursor.u8()?;
    if kinds.contains(&kind) {
        Ok((cursor, kind))
    } else {
        Err(DecodeError { offset: 0, reason: "another record type was expected" })
    }
}

/// Start timestamps in records of the second form: a byte says whether there is one, and whether it is
/// that of the entry before.
mod start_marker {
    pub(super) const NONE: u8 = 0;
    pub(super) const SAME: u8 = 1;
    pub(super) const EXPLICIT: u8 = 2;
}

fn put_start(out: &mut Vec<u8>, start: TimestampMs, first: TimestampMs, previous: TimestampMs) {
    if start == 0 {
        out.push(start_marker::NONE);
    } else if start == previous {
        out.push(start_marker::SAME);
    } else {
        out.push(start_marker::EXPLICIT);
        put_varint(out, start.wrapping_sub(first));
    }
}

fn take_start(
    cursor: &mut Cursor<'_>,
    first: TimestampMs,
    previous: TimestampMs,
) -> Result<TimestampMs, DecodeError> {
    match cursor.u8()? {
        start_marker::NONE => Ok(0),
        start_marker::SAME => Ok(previous),
        _ => Ok(first.wrapping_add(cursor.varint()?)),
    }
}

#[cfg(test)]
mod tests;
