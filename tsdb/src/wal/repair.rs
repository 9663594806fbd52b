//! Cuts a damaged log back to what can be read.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{Compression, Corruption, SegmentReader, Writer, segment};
use crate::error::{Error, Result};
use crate::fs;
use crate::sample::TimestampMs;

/// Puts every segment behind the damage aside and rewrites the damaged one up to it.
///
/// Records behind the damage are not replayed, as upstream: a log with a hole would replay samples whose
/// series records are gone. Unlike upstream, nothing is deleted: the damaged segment and those behind it
/// move to `<dir>-damaged-<now_ms>` beside `dir`.
///
/// # Errors
/// If files cannot be read or written.
pub fn repair(dir: &Path, damage: &Corruption, segment_bytes: usize, now_ms: TimestampMs) -> Result<()> {
    let kept = damaged_dir(dir, now_ms);
    tracing::warn!(dir = %dir.display(), segment = damage.segment, offset = damage.offset,
        reason = %damage.reason, kept = %kept.display(),
        "repairing the write-ahead log; records behind the damage are put aside");
    fs::create_dir_all(&kept)?;
    // Crash safety: from the newest on, so that no gap is left if this is cut short.
    for number in segment::list(dir)?.into_iter().rev().take_while(|n| *n > damage.segment) {
        put_aside(&segment::path(dir, number), &segment::path(&kept, number))?;
    }
    let damaged = segment::path(dir, damage.segment);
    let aside = segment::repair_path(dir, damage.segment);
    fs::replace(&damaged, &aside)?;
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
    put_aside(&aside, &segment::path(&kept, damage.segment))
}

/// Where the damaged part of the log in `dir` goes.
fn damaged_dir(dir: &Path, now_ms: TimestampMs) -> PathBuf {
    let name = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy();
    dir.with_file_name(format!("{name}-damaged-{now_ms}"))
}

/// Moves a file, which may be to another disk if `wal/` is a link.
fn put_aside(from: &Path, to: &Path) -> Result<()> {
    if fs::replace(from, to).is_ok() {
        return from.parent().map_or(Ok(()), fs::sync_dir);
    }
    fs::copy(from, to)?;
    to.parent().map_or(Ok(()), fs::sync_dir)?;
    fs::remove_file(from)
}
