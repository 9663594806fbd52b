//! Deletion of samples, and getting their space back.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/db.go>, `DB.Delete` and `DB.CleanTombstones`.

use std::sync::atomic::Ordering;

use super::{Db, compact};
use crate::block;
use crate::error::{Error, Result};
use crate::matcher::Matcher;
use crate::sample::TimestampMs;

impl Db {
    /// Deletes samples of matching series in `[mint, maxt]`. They are out of sight at once; their space
    /// comes back with the next compaction of their block, or [`Db::clean_tombstones`].
    ///
    /// Gives the number of series that lost samples, counted in each block and the head.
    ///
    /// # Errors
    /// If an index cannot be read, or tombstones or log cannot be written. What was deleted before the
    /// error stays deleted.
    pub fn delete(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Result<u64> {
        let _pass = self.begin_change()?;
        let mut series = 0;
        for block in self.blocks.loaded().iter() {
            if block.min_time() <= maxt && mint < block.max_time() {
                let deleted = block.delete(matchers, mint, maxt);
                // Also if it failed: the deletion may hold all the same.
                self.head.changes().changed(mint, maxt);
                series += deleted?;
            }
        }
        Ok(series + self.delete_from_head(matchers, mint, maxt)?)
    }

    fn delete_from_head(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Result<u64> {
        // Held to the end: a sample that is committed later must not be deleted.
        let mut log = self.log()?;
        log.catch_up()?;
        let deletions = self.head.deletions(matchers, mint, maxt);
        if deletions.stones.is_empty() {
            return Ok(0);
        }
        if log.has_behind() {
            let records = self.head.deletions_for_write_behind(&deletions)?;
            log.write_behind(&records)?;
        }
        self.head.apply_late_deletions(&deletions);
        log.write_ahead(&[&deletions.for_write_ahead()])?;
        self.head.apply_deletions(&deletions);
        Ok(deletions.stones.len() as u64)
    }

    /// Writes blocks with tombstones anew, without what is deleted, and gives the names of the new blocks.
    /// Of the newest block the shell stays, should nothing else be left.
    ///
    /// # Errors
    /// If a block cannot be read or written. What was done before the error stays done.
    pub fn clean_tombstones(&self) -> Result<Vec<String>> {
        let _pass = self.begin_change()?;
        let mut made = Vec::new();
        for block in self.blocks.loaded().iter().filter(|b| !b.tombstones().is_empty()) {
            let rewrite = |dir: &std::path::Path, ulid, _: &[_]| block::rewrite(dir, ulid, block);
            let new = compact::merge(self, std::slice::from_ref(block), rewrite)?;
            made.extend(new.map(|ulid| ulid.to_string()));
        }
        self.counters.tombstone_cleanings.fetch_add(1, Ordering::Relaxed);
        Ok(made)
    }

    /// Takes the maintenance lock for changing blocks.
    fn begin_change(&self) -> Result<parking_lot::MutexGuard<'_, ()>> {
        let pass = self.maintenance.lock();
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        if self.is_read_only() {
            return Err(Error::ReadOnly);
        }
        Ok(pass)
    }
}
