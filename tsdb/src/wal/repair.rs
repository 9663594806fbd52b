//! Cuts a damaged log back to what can be read.

use std::fs::File;
use std::path::Path;

use super::{Compression, Corruption, SegmentReader, Writer, segment};
use crate::error::{Error, Result};

/// Deletes every segment behind the damage and rewrites the damaged one up to it.
///
/// Records behind the damage are lost, as upstream: a log with a hole would replay samples whose
/// series records are gone.
///
/// # Errors
/// If files cannot be read or written.
pub fn repair(dir: &Path, damage: &Corruption, segment_bytes: usize) -> Result<()> {
    tracing::warn!(dir = %dir.display(), segment = damage.segment, offset = damage.offset,
        reason = %damage.reason, "repairing the write-ahead log; records behind the damage are dropped");
    // Crash safety: from the newest on, so that no gap is left if this is cut short.
    for number in segment::list(dir)?.into_iter().rev().take_while(|n| *n > damage.segment) {
        let path = segment::path(dir, number);
        crate::fs::remove_file(&path)?;
    }
    let damaged = segment::path(dir, damage.segment);
    let aside = segment::repair_path(dir, damage.segment);
    crate::fs::replace(&damaged, &aside)?;
    let mut writer = Writer::create(dir, damage.segment, segment_bytes, Compression::Snappy)?;
    let mut reader =
        SegmentReader::new(File::open(&aside).map_err(Error::io("open", &aside))?, damage.segment);
    while reader.offset() < damage.offset {
        match reader.next_record() {
            Some(Ok(record)) => writer.log([record])?,
            Some(Err(_)) | None => break,
        }
    }
    writer.close()?;
    crate::fs::remove_file(&aside)
}
