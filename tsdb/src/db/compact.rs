//! Merges blocks into longer ones, as [`block::plan()`] decides.
//!
//! # Crash safety
//! The merged block is complete and synced before it has its name, and names its parents. They are deleted
//! once it is loaded, now or, after a crash, at the next start.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ulid::Ulid;

use super::maintain::{load_cut, next_cut};
use super::{Db, DbOptions, Maintenance};
use crate::block::{self, Block};
use crate::error::{Error, Result};
use crate::meta::Meta;

/// Longest block when retention does not say otherwise.
const LONGEST_MS: i64 = 31 * 24 * 3_600_000;

/// Merges blocks until there is nothing to merge, or the head must be cut first.
pub(super) fn run(db: &Db, done: &mut Maintenance) -> Result<()> {
    let ranges = ranges(&db.options);
    // Cutting the head has the right of way: a long merge must not let it grow.
    while next_cut(db).is_none() {
        let loaded = db.blocks.loaded();
        let metas: Vec<Meta> = loaded.iter().map(|b| b.meta()).collect();
        let chosen = block::plan(&metas, &ranges);
        if chosen.is_empty() {
            break;
        }
        let mut parents: Vec<Arc<Block>> = chosen.iter().map(|&i| Arc::clone(&loaded[i])).collect();
        // As for reads: of two samples at one time, that which came in order counts.
        parents.sort_by_key(|b| b.is_out_of_order());
        drop(loaded);
        match merge(db, &parents, block::compact)? {
            Some(ulid) => done.blocks_merged.push(ulid.to_string()),
            // The newest block stays, even if all of it is deleted, and would be chosen again.
            None => break,
        }
    }
    Ok(())
}

/// Lengths that blocks grow to.
fn ranges(options: &DbOptions) -> Vec<i64> {
    let by_retention = options.retention_ms.filter(|ms| *ms > 0).map_or(LONGEST_MS, |ms| ms / 10);
    let longest = options.max_block_range_ms.unwrap_or_else(|| by_retention.min(LONGEST_MS));
    block::ranges(options.block_range_ms, longest)
}

/// Writes what is left of `parents` by `write`, loads it and deletes them; `None` if nothing is left, and
/// then the newest block stays as it is. The caller is the one maintenance pass.
pub(super) fn merge(
    db: &Db,
    parents: &[Arc<Block>],
    write: impl FnOnce(&std::path::Path, Ulid, &[Arc<Block>]) -> Result<Option<Meta>>,
) -> Result<Option<Ulid>> {
    let started = Instant::now();
    let ulid = block::new_ulid(db.options.clock.now_ms(), &mut rand::rng());
    let names: Vec<String> = parents.iter().map(|b| b.ulid().to_string()).collect();
    let written = write(&db.options.path, ulid, parents);
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    db.counters.compaction_micros.fetch_add(micros, Ordering::Relaxed);
    let meta = written.inspect_err(|error| failed(db, parents, &names, error))?;
    db.counters.compactions.fetch_add(1, Ordering::Relaxed);
    let vertical = parents.windows(2).any(|w| w[1].min_time() < w[0].max_time());
    if vertical {
        db.counters.vertical_compactions.fetch_add(1, Ordering::Relaxed);
    }
    let Some(meta) = meta else {
        // Crash safety: where the newest block ends, the log begins to count. Without the block a restart
        // would take from the log what was deleted from it.
        let end = db.blocks.in_order_end();
        for parent in parents.iter().filter(|p| !p.meta().is_whole_view() || Some(p.max_time()) != end) {
            parent.set_deletable()?;
        }
        tracing::info!(parents = ?names, "nothing was left of the merged blocks");
        db.blocks.reload()?;
        return Ok(None);
    };
    load_cut(db, ulid).inspect_err(|error| failed(db, parents, &names, error))?;
    if vertical || parents.iter().any(|p| p.is_out_of_order()) {
        // Which of two samples at one time counts should be the same as before; kept answers do not rely on it.
        db.head.changes().changed(meta.min_time, meta.max_time);
    }
    tracing::info!(block = %ulid, parents = ?names, mint = meta.min_time, maxt = meta.max_time,
        level = meta.compaction.level, series = meta.stats.num_series, samples = meta.stats.num_samples,
        seconds = micros as f64 / 1e6, "merged blocks");
    Ok(Some(ulid))
}

fn failed(db: &Db, parents: &[Arc<Block>], names: &[String], error: &Error) {
    db.counters.compactions_failed.fetch_add(1, Ordering::Relaxed);
    tracing::error!(parents = ?names, %error, "blocks could not be merged; their range is left alone from now on");
    for parent in parents {
        if let Err(error) = parent.set_compaction_failed() {
            tracing::error!(block = %parent.ulid(), %error, "the failure could not be noted in the block");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_grow_to_a_tenth_of_the_retention() {
        let hour = 3_600_000;
        let mut options = DbOptions::new("");
        assert_eq!(ranges(&options), [2 * hour, 6 * hour, 18 * hour]);
        options.retention_ms = None;
        assert_eq!(ranges(&options).last(), Some(&(486 * hour)));
        options.retention_ms = Some(hour);
        assert_eq!(ranges(&options), [2 * hour]);
        options.max_block_range_ms = Some(6 * hour);
        assert_eq!(ranges(&options), [2 * hour, 6 * hour]);
    }
}
