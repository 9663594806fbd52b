//! Write-ahead log: makes appended samples durable before the head accepts them.
//!
//! Owns the segment files and checkpoints under `wal/` (and reads `wbl/`). Knows records, not
//! series state: [`crate::head`] decides what a record means and when to truncate.
//!
//! # Format
//! `tsdb/docs/format/wal.md`: 32 KiB pages, fragments with CRC-32C, records that never span
//! segments, snappy per record where that is smaller.
//!
//! # Invariants
//! A record is either wholly readable or ends the log. A writer never continues a segment that it
//! did not create.
//!
//! # Concurrency
//! One [`Writer`], owned behind the database's commit lock; readers work on closed files.
//!
//! # Crash safety
//! [`Writer::log`] hands whole pages and the partial last page to the operating system before it
//! returns, so a killed process loses nothing that was logged. [`Writer::sync`] makes it survive a
//! power cut; segments are synced when they end and at close.
//!
//! # Errors
//! Damage is [`Corruption`] with segment and offset. A failed write or sync poisons the writer.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/wlog/wlog.go>. Difference: replay
//! comes before the new segment is made, so repair has no empty segment to delete.

pub mod checkpoint;
pub mod reader;
pub mod record;
pub mod repair;
pub mod segment;
pub mod writer;

use std::path::{Path, PathBuf};

use crate::error::Error;

pub use reader::{SegmentReader, read_records, read_segment, read_segment_from};
pub use record::{
    RecordKind, RefExemplar, RefHistogramSample, RefMetadata, RefMmapMarker, RefSample, RefSeries,
    RefTombstone,
};
pub use writer::{Compression, Synced, Unsynced, Writer, WriterStats};

/// Bytes of a page.
pub const PAGE_BYTES: usize = 32 * 1024;

/// Bytes of a segment unless the options say otherwise.
pub const DEFAULT_SEGMENT_BYTES: usize = 128 * 1024 * 1024;

/// Bytes of a fragment header: type, BE16 length, BE32 CRC-32C.
pub(crate) const HEADER_BYTES: usize = 7;

/// Low bits of the type byte: which fragment of its record this is.
pub(crate) mod fragment {
    /// The rest of the page is zero.
    pub(crate) const PAGE_END: u8 = 0;
    pub(crate) const FULL: u8 = 1;
    pub(crate) const FIRST: u8 = 2;
    pub(crate) const MIDDLE: u8 = 3;
    pub(crate) const LAST: u8 = 4;
    pub(crate) const MASK: u8 = 0x07;
    pub(crate) const SNAPPY: u8 = 0x08;
    pub(crate) const ZSTD: u8 = 0x10;
    pub(crate) const RESERVED: u8 = 0xe0;
}

/// Where and why a log stops being readable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("corrupt record in segment {segment} at byte {offset}: {reason}")]
pub struct Corruption {
    /// Number of the segment.
    pub segment: u32,
    /// Offset of the first byte of the record that cannot be read; all before it can.
    pub offset: u64,
    /// What was expected and found.
    pub reason: String,
}

impl Corruption {
    /// The error of the facade, with the file's path.
    pub fn into_error(self, dir: &Path) -> Error {
        Error::corrupt(segment::path(dir, self.segment), self.offset, self.reason)
    }
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes are damaged.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The file could not be read, or the visitor gave up.
    #[error(transparent)]
    Other(#[from] Error),
}

impl ReadError {
    /// The error of the facade.
    pub fn into_error(self, dir: &Path) -> Error {
        match self {
            Self::Corrupt(corruption) => corruption.into_error(dir),
            Self::Other(error) => error,
        }
    }
}

/// `wal` under a data directory.
pub fn wal_dir(data: &Path) -> PathBuf {
    data.join("wal")
}

/// `wbl` (write-behind log of out-of-order samples) under a data directory.
pub fn wbl_dir(data: &Path) -> PathBuf {
    data.join("wbl")
}

#[cfg(test)]
mod tests;
