//! Metadata: type, unit and help of the metric that a series belongs to.

use super::{body, kind};
use crate::encoding::{DecodeError, put_prefixed, put_uvarint};
use crate::metadata::{Metadata, MetricKind};
use crate::sample::SeriesRef;

const UNIT: &[u8] = b"UNIT";
const HELP: &[u8] = b"HELP";

/// Metadata of a referenced series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefMetadata {
    /// Which series.
    pub series: SeriesRef,
    /// What is known about its metric.
    pub metadata: Metadata,
}

/// Writes a metadata record to `out`, replacing what it held.
pub fn encode_metadata<'a>(out: &mut Vec<u8>, entries: impl IntoIterator<Item = (SeriesRef, &'a Metadata)>) {
    out.clear();
    out.push(kind::METADATA);
    for (series, metadata) in entries {
        put_uvarint(out, series.0);
        out.push(metadata.kind.to_byte());
        let fields = [(UNIT, &metadata.unit), (HELP, &metadata.help)];
        put_uvarint(out, fields.len() as u64);
        for (name, value) in fields {
            put_prefixed(out, name);
            put_prefixed(out, value.as_bytes());
        }
    }
}

/// Appends the metadata of `record` to `out`; fields of other names are skipped.
///
/// # Errors
/// If it is not a well-formed metadata record.
pub fn decode_metadata(record: &[u8], out: &mut Vec<RefMetadata>) -> Result<(), DecodeError> {
    let mut cursor = body(record, &[kind::METADATA])?.0;
    while !cursor.is_empty() {
        let series = SeriesRef(cursor.uvarint()?);
        let kind = MetricKind::from_byte(cursor.u8()?);
        let (mut unit, mut help) = (String::new(), String::new());
        for _ in 0..cursor.uvarint()? {
            let (name, value) = (cursor.prefixed()?, cursor.prefixed()?);
            // A help text in another encoding is no reason to call the log damaged.
            let text = || String::from_utf8_lossy(value).into_owned();
            match name {
                UNIT => unit = text(),
                HELP => help = text(),
                _ => {}
            }
        }
        let metadata = Metadata { kind, unit, help };
        out.push(RefMetadata { series, metadata });
    }
    Ok(())
}
