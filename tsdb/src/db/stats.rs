//! Figures for status pages and `/metrics`.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::Db;
use crate::labels::METRIC_NAME;
use crate::query::Queryable;
use crate::wal;

/// Where the head's cardinality comes from: the largest entries of each kind, largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cardinality {
    /// Series in the head.
    pub series: u64,
    /// Distinct label pairs in the head.
    pub label_pairs: u64,
    /// Series by metric name.
    pub series_by_metric_name: Vec<(String, u64)>,
    /// Distinct values by label name.
    pub values_by_label_name: Vec<(String, u64)>,
    /// Bytes of label values, counted once per series, by label name.
    pub bytes_by_label_name: Vec<(String, u64)>,
    /// Series by `name=value`.
    pub series_by_label_pair: Vec<(String, u64)>,
}

/// Counters and gauges of a database. Counters start at 0 when it is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DbMetrics {
    /// Whether the last owner released the lock; `None` without lock file.
    pub clean_start: Option<bool>,
    /// Series in the head.
    pub head_series: u64,
    /// Series made.
    pub head_series_created: u64,
    /// Series forgotten.
    pub head_series_removed: u64,
    /// Head truncations.
    pub head_truncations: u64,
    /// Start of the head's window, ms.
    pub head_min_time: Option<i64>,
    /// Newest sample, ms.
    pub head_max_time: Option<i64>,
    /// Samples appended.
    pub samples_appended: u64,
    /// Samples refused: older than the newest of their series.
    pub out_of_order: u64,
    /// Samples refused: below the head's floor, or too far ahead of the clock.
    pub out_of_bounds: u64,
    /// Samples refused: same timestamp, other value.
    pub duplicates: u64,
    /// Samples refused: older than the out-of-order window.
    pub too_old: u64,
    /// Samples taken out of order.
    pub out_of_order_appended: u64,
    /// Current log segment.
    pub wal_segment: u32,
    /// Records logged.
    pub wal_records: u64,
    /// Log pages filled.
    pub wal_pages: u64,
    /// Bytes logged.
    pub wal_bytes: u64,
    /// Syncs of the log.
    pub wal_syncs: u64,
    /// Time spent in them.
    pub wal_sync_time: Duration,
    /// Bytes of log and write-behind log on disk.
    pub wal_storage_bytes: u64,
    /// Damage found in logs.
    pub wal_corruptions: u64,
    /// Calls of the log that failed, for whatever reason.
    pub wal_writes_failed: u64,
    /// Whether a failed write or sync stopped the log until a restart.
    pub wal_poisoned: bool,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Blocks cut and merged.
    pub compactions: u64,
    /// Cuts and merges that failed.
    pub compactions_failed: u64,
    /// Merges of blocks that overlapped.
    pub vertical_compactions: u64,
    /// Time spent merging blocks.
    pub compaction_time: Duration,
    /// Times that blocks were written anew without what was deleted.
    pub tombstone_cleanings: u64,
    /// Blocks loaded.
    pub blocks_loaded: u64,
    /// Bytes of loaded blocks.
    pub blocks_bytes: u64,
    /// Blocks left out because they are damaged.
    pub blocks_quarantined: u64,
    /// Blocks deleted by retention.
    pub blocks_deleted: u64,
    /// Times that the retention time deleted blocks.
    pub time_retentions: u64,
    /// Times that the retention size deleted blocks.
    pub size_retentions: u64,
    /// The limit of the retention size, bytes; 0 is none.
    pub retention_limit_bytes: u64,
    /// Times that blocks were loaded.
    pub reloads: u64,
    /// Times that loading blocks failed.
    pub reloads_failed: u64,
}

impl Db {
    /// The largest contributors to the head's cardinality, at most `limit` of each kind.
    pub fn cardinality(&self, limit: usize) -> Cardinality {
        self.head.index.with_postings(|postings| {
            let mut out = Cardinality { series: postings.all.len() as u64, ..Cardinality::default() };
            for (name, values) in &postings.by_name {
                let bytes = values.iter().map(|(v, refs)| (v.len() * refs.len()) as u64).sum();
                out.label_pairs += values.len() as u64;
                out.values_by_label_name.push((name.to_string(), values.len() as u64));
                out.bytes_by_label_name.push((name.to_string(), bytes));
                let mut pairs = values.iter().map(|(v, refs)| (v, refs.len() as u64)).collect::<Vec<_>>();
                keep_largest(&mut pairs, limit);
                out.series_by_label_pair.extend(pairs.iter().map(|(v, n)| (format!("{name}={v}"), *n)));
                if &**name == METRIC_NAME {
                    out.series_by_metric_name = pairs.iter().map(|(v, n)| (v.to_string(), *n)).collect();
                }
            }
            keep_largest(&mut out.values_by_label_name, limit);
            keep_largest(&mut out.bytes_by_label_name, limit);
            keep_largest(&mut out.series_by_label_pair, limit);
            out
        })
    }

    /// Counters and gauges; cheap except for a listing of the log's directory.
    pub fn metrics(&self) -> DbMetrics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (log, failures, poisoned) = {
            let log = self.log.as_ref().map(Mutex::lock);
            log.map_or_else(Default::default, |log| (log.stats(), log.failures(), log.is_poisoned()))
        };
        let (head, db) = (&self.head.counters, &self.counters);
        let bounds = self.head.bounds();
        let path = &self.options.path;
        let blocks = self.blocks();
        DbMetrics {
            clean_start: self.clean_start,
            head_series: self.head.index.len() as u64,
            head_series_created: get(&head.series_created),
            head_series_removed: get(&head.series_removed),
            head_truncations: get(&head.truncations),
            head_min_time: bounds.map(|b| b.0),
            head_max_time: bounds.map(|b| b.1),
            samples_appended: get(&head.samples_appended),
            out_of_order: get(&head.out_of_order),
            out_of_bounds: get(&head.out_of_bounds),
            duplicates: get(&head.duplicates),
            too_old: get(&head.too_old),
            out_of_order_appended: get(&head.out_of_order_appended),
            wal_segment: log.segment,
            wal_records: log.records,
            wal_pages: log.pages,
            wal_bytes: log.bytes,
            wal_syncs: log.syncs,
            wal_sync_time: log.sync_time,
            wal_storage_bytes: crate::fs::dir_size(&wal::wal_dir(path))
                + crate::fs::dir_size(&wal::wbl_dir(path)),
            wal_corruptions: get(&db.wal_corruptions),
            wal_writes_failed: failures,
            wal_poisoned: poisoned && !self.closed.load(Ordering::Acquire),
            checkpoints: get(&db.checkpoints),
            compactions: get(&db.compactions),
            compactions_failed: get(&db.compactions_failed),
            vertical_compactions: get(&db.vertical_compactions),
            compaction_time: Duration::from_micros(get(&db.compaction_micros)),
            tombstone_cleanings: get(&db.tombstone_cleanings),
            blocks_loaded: blocks.len() as u64,
            blocks_bytes: blocks.iter().map(|b| b.bytes).sum(),
            blocks_quarantined: self.blocks.damaged() as u64,
            blocks_deleted: get(&db.blocks_deleted),
            time_retentions: get(&db.time_retentions),
            size_retentions: get(&db.size_retentions),
            retention_limit_bytes: self.retention_bytes().unwrap_or(0),
            reloads: get(&db.reloads),
            reloads_failed: get(&db.reloads_failed),
        }
    }
}

/// Largest first, names ascending among equals, cut to `limit`.
fn keep_largest<N: Ord + Clone>(entries: &mut Vec<(N, u64)>, limit: usize) {
    entries.sort_unstable_by_key(|(name, n)| (Reverse(*n), name.clone()));
    entries.truncate(limit);
}
