//! The blocks of a data directory.

use std::path::Path;

use crate::error::{Error, Result};

/// Loaded blocks.
#[derive(Debug, Default)]
pub(super) struct Blocks;

impl Blocks {
    /// Loads the blocks of `dir`.
    pub(super) fn load(dir: &Path) -> Result<Self> {
        for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
            let entry = entry.map_err(Error::io("list", dir))?;
            if entry.file_name().to_str().is_some_and(|n| ulid::Ulid::from_string(n).is_ok()) {
                return Err(Error::Unsupported("reading blocks".into()));
            }
        }
        Ok(Self)
    }

    /// End of the newest in-order block.
    pub(super) fn in_order_end(&self) -> Option<i64> {
        None
    }
}
