//! Keeps what Prometheus logged and this build cannot carry over: native histograms.
//!
//! A block that is cut from the head lacks them, and the truncation after it would delete the only copy.
//!
//! # Crash safety
//! The directory is complete before it has its name.

use std::sync::atomic::Ordering;

use super::Db;
use super::snapshot::link_all;
use crate::error::Result;

/// Start of the name of a directory with what was kept; the time of the keeping, ms, follows.
pub(super) const PREFIX: &str = "histograms-kept-";

/// What may hold histograms.
const LOGS: [&str; 3] = ["wal", "wbl", "chunks_head"];

/// Called before the first truncation: if the replay met histograms, links logs and head chunks to a
/// directory of their own.
pub(super) fn histograms(db: &Db) -> Result<()> {
    if db.replay.histogram_records == 0 || db.histograms_kept.load(Ordering::Acquire) {
        return Ok(());
    }
    let dir = &db.options.path;
    let target = dir.join(format!("{PREFIX}{}", db.options.clock.now_ms()));
    let tmp = target.with_added_extension("tmp");
    for name in LOGS.into_iter().filter(|name| dir.join(name).is_dir()) {
        link_all(&dir.join(name), &tmp.join(name))?;
    }
    crate::fs::sync_dir(&tmp)?;
    crate::fs::replace(&tmp, &target)?;
    db.histograms_kept.store(true, Ordering::Release);
    tracing::warn!(kept = %target.display(), records = db.replay.histogram_records,
        "blocks cut from now on lack the native histograms that Prometheus logged; the logs with them were kept. \
         To go back to Prometheus with them, use them as its wal/, wbl/ and chunks_head/; else the directory can go");
    Ok(())
}
