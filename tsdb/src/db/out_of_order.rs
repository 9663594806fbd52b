//! Moves out-of-order samples of the head to blocks of their own.
//!
//! # Crash safety
//! See the protocol of `head/ooo_compact.rs`: until the last step the samples are in the write-behind log.
//!
//! # Source
//! `compactOOOHead` of <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/db.go>

use std::sync::atomic::Ordering;

use super::maintain::load_cut;
use super::{Db, Maintenance};
use crate::block::{self, BlockSpec};
use crate::error::Result;
use crate::head::OooCompaction;
use crate::meta::HINT_OUT_OF_ORDER;
use crate::wal::{self, record, segment};

/// Compacts what there is; called after the head was cut.
pub(super) fn compact(db: &Db, done: &mut Maintenance) -> Result<()> {
    // Most of it while commits go on.
    db.head.write_late_samples()?;
    db.sync_logs()?;
    let (first_needed, mut compaction) = {
        let mut log = db.log()?;
        (log.next_behind()?, db.head.begin_ooo_compaction()?)
    };
    compaction.iter_mut().for_each(OooCompaction::sort);
    if let Some(compaction) = &compaction {
        cut(db, compaction, done)?;
        // Crash safety: a replay takes samples for those of the blocks if it has the chunks that the log says they are in.
        db.head.close_chunks(true)?;
    }
    note_compacted(db, compaction.as_ref())?;
    if let Some(compaction) = &compaction {
        db.head.finish_ooo_compaction(compaction);
    }
    truncate_log(db, first_needed)
}

/// Tells the write-behind log which chunks on disk are not needed any more.
fn note_compacted(db: &Db, compaction: Option<&OooCompaction>) -> Result<()> {
    let mut record = Vec::new();
    record::encode_mmap_markers(&mut record, &db.head.compacted_markers(compaction));
    {
        let mut log = db.log()?;
        log.catch_up()?;
        log.write_behind(&[record])?;
    }
    // Crash safety: the segments that go have what the markers say is not needed.
    db.sync_logs()
}

fn cut(db: &Db, compaction: &OooCompaction, done: &mut Maintenance) -> Result<()> {
    for (mint, maxt) in compaction.slots(db.head.block_range_ms()) {
        let ulid = block::new_ulid(db.options.clock.now_ms(), &mut rand::rng());
        let mut spec = BlockSpec::new(ulid, mint, maxt);
        spec.hints.push(HINT_OUT_OF_ORDER.to_owned());
        let series = compaction.cut(&db.head, mint, maxt - 1);
        let Some(meta) = block::write(&db.options.path, spec, series).inspect_err(|_| {
            db.counters.compactions_failed.fetch_add(1, Ordering::Relaxed);
        })?
        else {
            continue;
        };
        load_cut(db, ulid)?;
        // As for vertical merges: kept answers do not rely on which of two samples counts.
        db.head.changes().changed(mint, maxt);
        tracing::info!(block = %ulid, mint, maxt, series = meta.stats.num_series,
            samples = meta.stats.num_samples, "cut a block of out-of-order samples from the head");
        db.counters.compactions.fetch_add(1, Ordering::Relaxed);
        done.blocks_cut.push(ulid.to_string());
    }
    Ok(())
}

/// Deletes segments of the write-behind log before `first_needed`; all, if there is no writer.
fn truncate_log(db: &Db, first_needed: Option<u32>) -> Result<()> {
    let no_writer = if first_needed.is_none() { Some(db.log()?) } else { None };
    if no_writer.as_ref().is_some_and(|log| log.has_behind()) {
        // One was begun meanwhile; the next pass does it.
        return Ok(());
    }
    let dir = wal::wbl_dir(&db.options.path);
    let mut numbers = segment::list(&dir)?;
    numbers.retain(|number| first_needed.is_none_or(|first| *number < first));
    numbers.iter().try_for_each(|number| crate::fs::remove_file(&segment::path(&dir, *number)))?;
    // Crash safety: they go before the chunks that they name.
    if numbers.is_empty() { Ok(()) } else { crate::fs::sync_dir(&dir) }
}
