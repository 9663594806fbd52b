//! Blocks: immutable directories of series over a time range.
//!
//! # Format
//! `docs/format/block.md`: a directory named by a ULID with `meta.json`, `index`, `chunks/` and
//! `tombstones`. Times of a block are half-open: `[mint, maxt)`.
//!
//! # Crash safety
//! [`write()`] works in `<ULID>.tmp-for-creation` and renames it once all of it is synced, so a block
//! with its final name is whole.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/block.go>

mod write;

pub use write::{BlockSpec, BlockWriter, new_ulid, write};

/// Suffix of the directory that a block is made in.
pub const TMP_FOR_CREATION: &str = ".tmp-for-creation";
/// Suffix of a directory that is about to be removed.
pub const TMP_FOR_DELETION: &str = ".tmp-for-deletion";
