//! Carries out what [`super::plan`] decides.

use std::path::Path;
use std::sync::atomic::Ordering;

use ulid::Ulid;

use super::{Db, Expiry, compact, out_of_order, plan, retention};
use crate::block::{self, BlockSpec};
use crate::error::{Error, Result};
use crate::head::snapshot;
use crate::sample::TimestampMs;
use crate::wal::{self, checkpoint, segment};

/// What a maintenance pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// Names of blocks that were cut from the head.
    pub blocks_cut: Vec<String>,
    /// Names of blocks that others were merged into.
    pub blocks_merged: Vec<String>,
    /// Names of blocks that retention deleted.
    pub blocks_deleted: Vec<String>,
    /// Series that the head forgot.
    pub series_removed: u64,
    /// Last segment of the checkpoint that was written, if one was.
    pub checkpoint: Option<u32>,
}

pub(super) fn run(db: &Db) -> Result<Maintenance> {
    let _pass = db.maintenance.lock();
    if db.closed.load(Ordering::Acquire) {
        return Err(Error::Closed);
    }
    if db.is_read_only() {
        return Err(Error::ReadOnly);
    }
    let mut done = Maintenance::default();
    // What cannot be written stays in memory, and nothing is lost.
    if let Err(error) = db.head.map_finished_chunks(|| db.sync_logs()) {
        tracing::warn!(%error, "finished chunks could not be written to chunks_head/");
    }
    let shrunk = shrink_head(db, &mut done);
    // Whatever became of the head: a full disk is what retention frees.
    let reloaded = reload(db);
    let retained = retention::apply(db, &mut done);
    // Last, because it may take long; upstream too frees space before.
    let merged = if shrunk.is_ok() && reloaded.is_ok() { compact::run(db, &mut done) } else { Ok(()) };
    shrunk.and(reloaded).and(retained).and(merged).map(|()| done)
}

/// Moves what is due from the head to blocks, and cuts the log.
fn shrink_head(db: &Db, done: &mut Maintenance) -> Result<()> {
    let mut truncated = None;
    while let Some((mint, maxt)) = next_cut(db) {
        cut(db, mint, maxt, done).inspect_err(|_| {
            db.counters.compactions_failed.fetch_add(1, Ordering::Relaxed);
        })?;
        truncate_head(db, maxt, done)?;
        truncated = Some(db.head.min_valid_time());
    }
    if let Some(mint) = truncated {
        truncate_log(db, mint, done)?;
        out_of_order::compact(db, done)?;
        remove_snapshots(&db.options.path)?;
    }
    Ok(())
}

fn reload(db: &Db) -> Result<()> {
    db.counters.reloads.fetch_add(1, Ordering::Relaxed);
    db.blocks.reload().inspect_err(|_| {
        db.counters.reloads_failed.fetch_add(1, Ordering::Relaxed);
    })
}

pub(super) fn next_cut(db: &Db) -> Option<(TimestampMs, TimestampMs)> {
    plan::next_cut(db.head.bounds(), db.head.block_range_ms())
}

/// Writes the head's `[mint, maxt)` as a block and loads it.
fn cut(db: &Db, mint: TimestampMs, maxt: TimestampMs, done: &mut Maintenance) -> Result<()> {
    db.head.close_for_cut(maxt);
    let ulid = block::new_ulid(db.options.clock.now_ms(), &mut rand::rng());
    let spec = BlockSpec::new(ulid, mint, maxt);
    let Some(meta) = block::write(&db.options.path, spec, db.head.cut(mint, maxt - 1))? else {
        return Ok(());
    };
    load_cut(db, ulid)?;
    tracing::info!(block = %ulid, mint, maxt, series = meta.stats.num_series, samples = meta.stats.num_samples,
        "cut a block from the head");
    db.counters.compactions.fetch_add(1, Ordering::Relaxed);
    done.blocks_cut.push(ulid.to_string());
    Ok(())
}

/// Loads a block that was just written. What it was made of is still there, so if it cannot be loaded it
/// goes: the next pass writes it again.
///
/// Crash safety: never truncate the head on the word of a block that cannot be read back, nor delete blocks.
pub(super) fn load_cut(db: &Db, ulid: Ulid) -> Result<()> {
    db.blocks.expect_moved(ulid);
    let reloaded = db.blocks.reload();
    if db.blocks.loaded().iter().any(|b| b.ulid() == ulid) {
        // Crash safety: from here on it is needed. Blocks that it replaces may be gone already, even if
        // others of them could not be removed; a later pass, or the next start, sees to those.
        if let Err(error) = &reloaded {
            tracing::warn!(block = %ulid, %error, "a block that was replaced could not be removed");
        }
        return Ok(());
    }
    db.blocks.delete(&[ulid])?;
    reloaded?;
    let path = db.options.path.join(ulid.to_string());
    Err(Error::corrupt(path, 0, "the new block could not be loaded, and was removed"))
}

fn truncate_head(db: &Db, maxt: TimestampMs, done: &mut Maintenance) -> Result<()> {
    let removed = db.head.truncate(maxt);
    done.series_removed += removed.len() as u64;
    let mut log = db.log()?;
    let segment = log.stats().segment;
    log.expiring
        .extend(removed.into_iter().map(|s| (s.0, Expiry { segment, maxt: i64::MIN, alias_of: None })));
    Ok(())
}

/// Folds old segments into a checkpoint without what is before `mint`.
fn truncate_log(db: &Db, mint: TimestampMs, done: &mut Maintenance) -> Result<()> {
    let dir = wal::wal_dir(&db.options.path);
    let (last, expiring) = {
        let mut log = db.log()?;
        let first = segment::list(&dir)?.first().copied().unwrap_or_default();
        // A new segment, so that a quiet database does not keep more log than it needs. The one that
        // ends here is left out, as upstream.
        let last_closed = log.next_ahead()?.checked_sub(2);
        let Some(last) = last_closed.and_then(|closed| checkpoint::plan(first, closed)) else {
            return Ok(());
        };
        (last, log.expiring.clone())
    };
    // Asked once, so that the answers below agree.
    let late = db.head.ooo_min_time().is_some();
    let keep = |series: crate::SeriesRef| {
        db.head.index.get(series).is_some()
            || expiring.get(&series.0).is_some_and(|e| e.is_needed(last, mint, late))
    };
    let stats =
        checkpoint::write(&dir, last, db.options.wal_segment_bytes, db.options.wal_compression, mint, keep)?;
    tracing::info!(?stats, "wrote a checkpoint of the write-ahead log");
    db.log()?.expiring.retain(|_, e| e.is_needed(last, mint, late));
    db.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
    done.checkpoint = Some(last);
    Ok(())
}

/// Removes snapshots of the head that stand for a part of the log that is gone: Prometheus would put them before a
/// log that does not follow them.
fn remove_snapshots(dir: &Path) -> Result<()> {
    match segment::last_checkpoint(&wal::wal_dir(dir))? {
        Some((_, covered)) => snapshot::remove_covered(dir, covered),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::DbOptions;

    #[test]
    fn a_cut_that_cannot_be_read_back_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(DbOptions::new(dir.path())).unwrap();
        let ulid = block::new_ulid(1, &mut rand::rng());
        let path = dir.path().join(ulid.to_string());
        fs::create_dir(&path).unwrap();
        fs::write(path.join("meta.json"), "{").unwrap();
        assert!(matches!(load_cut(&db, ulid), Err(Error::Corrupt { .. })));
        assert!(!path.exists());
        assert_eq!(db.metrics().blocks_quarantined, 0);
    }
}
