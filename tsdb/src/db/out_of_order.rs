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
use crate::wal::{self, segment};

/// Compacts what there is; called after the head was cut.
pub(super) fn compact(db: &Db, done: &mut Maintenance) -> Result<()> {
    let first_needed = {
        let mut log = db.log()?;
        log.behind.as_mut().map(|behind| behind.next_segment()).transpose()?
    };
    let compaction = db.head.begin_ooo_compaction();
    if let Some(compaction) = &compaction {
        cut(db, compaction, done)?;
        db.head.finish_ooo_compaction(compaction);
    }
    truncate_log(db, first_needed)
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
    let dir = wal::wbl_dir(&db.options.path);
    for number in segment::list(&dir)? {
        if first_needed.is_none_or(|first| number < first) {
            crate::fs::remove_file(&segment::path(&dir, number))?;
        }
    }
    Ok(())
}
