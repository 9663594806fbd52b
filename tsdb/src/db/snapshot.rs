//! Copies of the data directory that cost no space: hard links to blocks, which never change.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/db.go>, `DB.Snapshot`. Difference: upstream leaves
//! late samples of the head out.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use ulid::Ulid;

use super::Db;
use crate::block::{self, BlockSpec};
use crate::error::{Error, Result};
use crate::query::Queryable as _;

impl Db {
    /// Makes `dir` a data directory with what is in blocks now and, `with_head`, in the head.
    ///
    /// Blocks are linked, or copied where links are not possible; the head, late samples included, becomes one
    /// block over `[oldest sample, newest sample + 1)`. What was deleted from blocks comes along as tombstones.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `dir` is the data directory itself, or is named as a block is; or if the
    /// operating system refuses, and what was made so far then stays.
    pub fn snapshot(&self, dir: &Path, with_head: bool) -> Result<()> {
        let is_block_name = dir.to_str().is_some_and(|d| Ulid::from_string(d).is_ok());
        if dir == self.options.path || is_block_name {
            return Err(Error::Invalid(format!("{} cannot be a snapshot", dir.display())));
        }
        // No block comes or goes meanwhile.
        let _pass = self.maintenance.lock();
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        crate::fs::create_dir_all(dir)?;
        for block in self.blocks.loaded().iter() {
            link_all(block.dir(), &dir.join(block.ulid().to_string()))?;
        }
        if with_head && let Some((mint, maxt)) = self.head.time_bounds() {
            let ulid = block::new_ulid(self.options.clock.now_ms(), &mut rand::rng());
            let spec = BlockSpec::new(ulid, mint, maxt.saturating_add(1));
            block::write(dir, spec, self.head.copy(mint, maxt))?;
        }
        crate::fs::sync_dir(dir)
    }
}

/// Links a directory and all below it; copies what cannot be linked.
pub(super) fn link_all(from: &Path, to: &Path) -> Result<()> {
    crate::fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).map_err(Error::io("list", from))? {
        let path = entry.map_err(Error::io("list", from))?.path();
        let Some(name) = path.file_name() else { continue };
        let target = to.join(name);
        if path.is_dir() {
            link_all(&path, &target)?;
        } else if crate::fs::hard_link(&path, &target).is_err() {
            crate::fs::copy(&path, &target)?;
        }
    }
    crate::fs::sync_dir(to)
}
