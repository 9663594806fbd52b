//! Puts right what Prometheus 2.1 wrote: an index whose version byte says 1 where it is 2, and a meta whose
//! version says 2 where it is 1.
//!
//! # Crash safety
//! The index is right before the meta says so; in between the repair is done again.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/repair.go>

use std::path::Path;

use crate::error::{Error, Result};
use crate::meta::Meta;
use crate::{fs, index};

/// Version of the meta of such a block.
const WRONG_META_VERSION: u32 = 2;
/// Where the version is in an index.
const INDEX_VERSION_AT: u64 = 4;

/// Repairs the block in `dir` if it needs to be, and says whether it did.
///
/// # Errors
/// If the meta cannot be read, or the operating system refuses. The block is then as it was.
pub fn repair(dir: &Path) -> Result<bool> {
    let mut meta = Meta::read_any_version(dir)?;
    if meta.version != WRONG_META_VERSION {
        return Ok(false);
    }
    let (index, repaired) = (dir.join(index::FILE_NAME), dir.join("index.repaired"));
    let bytes = fs::map(&index)?;
    let at = INDEX_VERSION_AT as usize;
    let (Some(before), Some(behind)) = (bytes.get(..at), bytes.get(at + 1..)) else {
        return Err(Error::corrupt(index, 0, "the index ends too early"));
    };
    let mut file = fs::FileWriter::create(&repaired)?;
    file.write(before)?;
    file.write(&[2])?;
    file.write(behind)?;
    file.finish()?;
    fs::replace(&repaired, &index)?;
    meta.version = 1;
    meta.write(dir)?;
    tracing::info!(block = %meta.ulid, "repaired the versions that Prometheus 2.1 wrote");
    Ok(true)
}
