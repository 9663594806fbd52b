//! Which blocks are too old, or too many.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/db.go>, `BeyondTimeRetention` and
//! `BeyondSizeRetention`.

use std::sync::atomic::Ordering;

use ulid::Ulid;

use super::{Db, DbOptions, Maintenance};
use crate::error::Result;
use crate::sample::TimestampMs;
use crate::wal;

/// What is kept. All limits hold at once; none of them touches the head.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Retention {
    /// How long blocks are kept, ms, measured from the end of the newest block; `None` keeps all.
    pub time_ms: Option<i64>,
    /// How many bytes logs, head chunks and blocks may take together; `None` is no limit.
    pub bytes: Option<u64>,
    /// The same in percent of the size of the filesystem; counts instead of `bytes`.
    pub percentage: Option<f64>,
}

impl Retention {
    pub(super) fn of(options: &DbOptions) -> Self {
        Self {
            time_ms: options.retention_ms,
            bytes: options.retention_bytes,
            percentage: options.retention_percentage,
        }
    }
}

impl Db {
    /// What is kept.
    pub fn retention(&self) -> Retention {
        *self.retention.lock()
    }

    /// Changes what is kept, from the next [`Db::maintain`] on.
    pub fn set_retention(&self, retention: Retention) {
        *self.retention.lock() = retention;
    }

    /// How long blocks are kept, ms; `None` keeps all.
    pub fn retention_ms(&self) -> Option<i64> {
        self.retention().time_ms
    }

    /// Changes how long blocks are kept, from the next [`Db::maintain`] on.
    pub fn set_retention_ms(&self, retention_ms: Option<i64>) {
        self.retention.lock().time_ms = retention_ms;
    }

    /// The limit in bytes that holds now; `None` is no limit.
    pub(super) fn retention_bytes(&self) -> Option<u64> {
        let Retention { bytes, percentage, .. } = self.retention();
        let Some(percentage) = percentage.filter(|p| *p > 0.0) else { return bytes.filter(|b| *b > 0) };
        match crate::fs::filesystem_bytes(&self.options.path) {
            Ok(size) if size > 0 => Some((size as f64 * percentage / 100.0) as u64),
            unknown => {
                let error = unknown.err().map(|e| e.to_string()).unwrap_or_default();
                tracing::warn!(dir = %self.options.path.display(), %error,
                    "the size of the filesystem is not known, so no percentage of it limits the blocks");
                bytes.filter(|b| *b > 0)
            }
        }
    }

    /// Bytes of what is not in blocks: logs and head chunks.
    fn head_bytes(&self) -> u64 {
        let dir = &self.options.path;
        [wal::wal_dir(dir), wal::wbl_dir(dir), dir.join("chunks_head")]
            .iter()
            .map(|dir| crate::fs::dir_size(dir))
            .sum()
    }
}

/// Deletes the blocks that no limit leaves a place for.
pub(super) fn apply(db: &Db, done: &mut Maintenance) -> Result<()> {
    let blocks = db.blocks.loaded();
    let kept: Vec<Kept> = blocks.iter().map(|b| Kept { maxt: b.max_time(), bytes: b.bytes() }).collect();
    let too_old = too_old(&kept, db.retention_ms());
    let limit = db.retention_bytes();
    let too_many = limit.map_or_else(Vec::new, |limit| too_many(&kept, db.head_bytes(), limit));
    for (chosen, counter, why) in [
        (&too_old, &db.counters.time_retentions, "the retention time"),
        (&too_many, &db.counters.size_retentions, "the retention size"),
    ] {
        if !chosen.is_empty() {
            counter.fetch_add(1, Ordering::Relaxed);
            let ulids: Vec<String> = chosen.iter().map(|&i| blocks[i].ulid().to_string()).collect();
            tracing::info!(blocks = ?ulids, "deleting blocks beyond {why}");
        }
    }
    let mut chosen: Vec<usize> = too_old.into_iter().chain(too_many).collect();
    chosen.sort_unstable();
    chosen.dedup();
    if chosen.is_empty() {
        return Ok(());
    }
    let ulids: Vec<Ulid> = chosen.into_iter().map(|i| blocks[i].ulid()).collect();
    drop(blocks);
    db.blocks.delete(&ulids)?;
    db.counters.blocks_deleted.fetch_add(ulids.len() as u64, Ordering::Relaxed);
    done.blocks_deleted.extend(ulids.iter().map(ToString::to_string));
    Ok(())
}

/// A block as retention sees it.
#[derive(Debug, Clone, Copy)]
struct Kept {
    /// End, ms (excluded).
    maxt: TimestampMs,
    bytes: u64,
}

/// Blocks that end `retention_ms` or more before the newest.
fn too_old(blocks: &[Kept], retention_ms: Option<i64>) -> Vec<usize> {
    let (Some(retention_ms), Some(newest)) =
        (retention_ms.filter(|ms| *ms > 0), blocks.iter().map(|b| b.maxt).max())
    else {
        return Vec::new();
    };
    (0..blocks.len()).filter(|&i| newest.saturating_sub(blocks[i].maxt) >= retention_ms).collect()
}

/// From the newest on, the first block with which all take more than `limit`, and every older one.
fn too_many(blocks: &[Kept], head_bytes: u64, limit: u64) -> Vec<usize> {
    let mut newest_first: Vec<usize> = (0..blocks.len()).collect();
    newest_first.sort_by_key(|&i| std::cmp::Reverse(blocks[i].maxt));
    let mut sum = head_bytes;
    let fit = newest_first.iter().take_while(|&&i| {
        sum += blocks[i].bytes;
        sum <= limit
    });
    let fit = fit.count();
    newest_first.split_off(fit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(of: &[(i64, u64)]) -> Vec<Kept> {
        of.iter().map(|&(maxt, bytes)| Kept { maxt, bytes }).collect()
    }

    #[test]
    fn time_counts_from_the_end_of_the_newest_block() {
        let blocks = blocks(&[(100, 0), (200, 0), (300, 0)]);
        assert_eq!(too_old(&blocks, Some(200)), [0]);
        assert_eq!(too_old(&blocks, Some(201)), [0; 0]);
        assert_eq!(too_old(&blocks, None), [0; 0]);
        assert_eq!(too_old(&blocks, Some(0)), [0; 0], "no limit");
    }

    #[test]
    fn size_counts_the_head_and_then_blocks_from_the_newest_on() {
        let blocks = blocks(&[(100, 1), (200, 50), (300, 30)]);
        assert_eq!(too_many(&blocks, 10, 91), [0; 0]);
        assert_eq!(too_many(&blocks, 10, 90), [0]);
        assert_eq!(too_many(&blocks, 10, 89), [1, 0], "older ones go too, even if they would fit");
        assert_eq!(too_many(&blocks, 70, 99), [2, 1, 0]);
        assert_eq!(too_many(&[], 70, 9), [0; 0]);
    }
}
