//! [`Db`]: a data directory in use. Head, blocks and log together.
//!
//! # Layout
//! As Prometheus: ULID-named blocks, the log in `wal/`, out-of-order samples once more in `wbl/`, finished chunks
//! of the head in `chunks_head/`, `chunk_snapshot.*` if the option is set, and `lock`. All are written and read;
//! in which order they are read says `open.rs`.
//!
//! # Concurrency
//! Any number of appenders and readers; commits take turns at the log. One [`Db::maintain`] at a
//! time. Lock order: maintenance → log → head.
//!
//! # Crash safety
//! `docs/durability.md`. Every step of [`Db::maintain`] leaves a directory that opens to the same
//! answers: a block is complete before it has its name, the head is truncated after the block is
//! loaded, the log is cut after the head.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/db.go>

mod annotations;
mod blocks;
mod compact;
mod delete;
mod log;
mod maintain;
mod open;
mod out_of_order;
mod plan;
mod read;
mod read_only;
mod retention;
mod snapshot;
mod stats;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::appender::{Appender, Batch};
use crate::chunkenc::Encoding;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::fs::Lock;
use crate::head::{Head, HeadMemory, HeadStats, ReplayStats};
use crate::sample::SeriesRef;
use crate::wal;

use blocks::Blocks;
use log::{Expiry, Log};
pub use maintain::Maintenance;
pub use retention::Retention;
pub use stats::{Cardinality, DbMetrics};

/// How to open a [`Db`].
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct DbOptions {
    /// The data directory; made if there is none.
    pub path: PathBuf,
    /// How long blocks are kept, measured from the end of the newest block; `None` keeps all.
    pub retention_ms: Option<i64>,
    /// How many bytes logs, head chunks and blocks may take together; the oldest blocks go when it is more.
    /// `None` is no limit.
    pub retention_bytes: Option<u64>,
    /// The same in percent of the size of the filesystem; counts instead of `retention_bytes`.
    pub retention_percentage: Option<f64>,
    /// Length of the slots that blocks are cut at.
    pub block_range_ms: i64,
    /// How long blocks may become by merging. `None` is a tenth of `retention_ms`, at most 31 days.
    pub max_block_range_ms: Option<i64>,
    /// Size of a log segment; a multiple of 32 KiB.
    pub wal_segment_bytes: usize,
    /// Whether to compress log records.
    pub wal_compression: wal::Compression,
    /// How much older than the newest sample of the head a sample may be that is older than what its series has;
    /// 0 refuses all such samples.
    pub out_of_order_window_ms: i64,
    /// How chunks of floats are encoded: [`Encoding::Xor`] or [`Encoding::Xor2`].
    pub float_encoding: Encoding,
    /// Whether start timestamps are kept; then floats are encoded as [`Encoding::Xor2`] in any case.
    pub start_timestamps: bool,
    /// How many exemplars are kept in memory, of all series together; 0 keeps none.
    pub exemplars_max: usize,
    /// Whether to write a snapshot of the head at [`Db::close`], and to start from one, so that not all of
    /// the log is replayed.
    pub memory_snapshot: bool,
    /// Whether to take the lock file, so that two servers never share the directory.
    pub lockfile: bool,
    /// Whether to only read: takes no lock and changes nothing on disk, so that it works beside a server
    /// that uses the directory. Shows what was committed when it was opened.
    pub read_only: bool,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl DbOptions {
    /// Prometheus' defaults for the directory `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            retention_ms: Some(15 * 24 * 3600 * 1000),
            retention_bytes: None,
            retention_percentage: None,
            block_range_ms: 2 * 3600 * 1000,
            max_block_range_ms: None,
            wal_segment_bytes: wal::DEFAULT_SEGMENT_BYTES,
            wal_compression: wal::Compression::default(),
            out_of_order_window_ms: 0,
            float_encoding: Encoding::Xor,
            start_timestamps: false,
            exemplars_max: 0,
            memory_snapshot: false,
            lockfile: true,
            read_only: false,
            clock: Arc::new(SystemClock),
        }
    }
}

/// An open data directory; see the module.
#[derive(Debug)]
pub struct Db {
    options: DbOptions,
    /// As it was last set.
    retention: Mutex<Retention>,
    head: Arc<Head>,
    blocks: Blocks,
    /// The commit lock; `None` when reading only.
    log: Option<Mutex<Log>>,
    /// Held by the one maintenance pass.
    maintenance: Mutex<()>,
    closed: AtomicBool,
    lock: Mutex<Option<Lock>>,
    /// Whether the previous owner released the lock.
    clean_start: Option<bool>,
    replay: ReplayStats,
    counters: Counters,
}

/// Counters of maintenance; they only go up.
#[derive(Debug, Default)]
struct Counters {
    wal_corruptions: AtomicU64,
    compactions: AtomicU64,
    compactions_failed: AtomicU64,
    compaction_micros: AtomicU64,
    vertical_compactions: AtomicU64,
    time_retentions: AtomicU64,
    size_retentions: AtomicU64,
    reloads_failed: AtomicU64,
    tombstone_cleanings: AtomicU64,
    checkpoints: AtomicU64,
    blocks_deleted: AtomicU64,
    reloads: AtomicU64,
}

impl Db {
    /// Opens the data directory: takes the lock, removes what a crash left half-made, loads blocks,
    /// and replays checkpoint, log and write-behind log into the head.
    ///
    /// A damaged block is left out and logged as an error; damage in the log is repaired as
    /// Prometheus does, by dropping what comes after it.
    ///
    /// # Errors
    /// If another process holds the directory, the checkpoint is damaged, or files cannot be used. With
    /// [`DbOptions::read_only`], if there is no such directory.
    pub fn open(options: DbOptions) -> Result<Arc<Self>> {
        open::open(options)
    }

    /// Without log and lock.
    fn assemble(
        options: DbOptions,
        head: Head,
        blocks: Blocks,
        replay: ReplayStats,
        counters: Counters,
    ) -> Self {
        blocks.note_changes(Arc::clone(head.changes()));
        Self {
            head: Arc::new(head),
            blocks,
            log: None,
            maintenance: Mutex::default(),
            closed: AtomicBool::new(false),
            lock: Mutex::default(),
            clean_start: None,
            replay,
            counters,
            retention: Mutex::new(Retention::of(&options)),
            options,
        }
    }

    /// Takes the commit lock.
    fn log(&self) -> Result<MutexGuard<'_, Log>> {
        self.log.as_ref().map(Mutex::lock).ok_or(Error::ReadOnly)
    }

    /// Whether it was opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.log.is_none()
    }

    /// A new batch.
    pub fn appender(self: &Arc<Self>) -> Appender {
        Appender::new(Arc::clone(self))
    }

    /// One pass of upkeep: cuts blocks from the head when it spans more than one and a half block
    /// ranges, truncates head and log, loads blocks that appeared, applies retention, merges blocks.
    ///
    /// # Errors
    /// If files cannot be read or written. What was done before the error stays done. [`Error::ReadOnly`]
    /// when reading only.
    pub fn maintain(&self) -> Result<Maintenance> {
        maintain::run(self)
    }

    /// Makes every committed batch survive a power cut.
    ///
    /// # Errors
    /// If the sync fails; then the log takes no more writes. [`Error::ReadOnly`] when reading only.
    pub fn sync(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        self.log()?.sync()
    }

    /// Syncs the logs, while commits go on.
    fn sync_logs(&self) -> Result<()> {
        let unsynced = self.log()?.unsynced()?;
        let synced = unsynced.sync();
        self.log()?.note_synced(synced)
    }

    /// Syncs the log and releases the lock. Appends fail from now on; reads still answer.
    ///
    /// # Errors
    /// If the sync fails; the lock is released all the same.
    pub fn close(&self) -> Result<()> {
        let _pass = self.maintenance.lock();
        let mut log = self.log.as_ref().map(Mutex::lock);
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let mut result = log.as_mut().map_or(Ok(()), |log| log.close());
        let end = log.as_ref().map(|log| (log.end(), log.aliases()));
        // A snapshot holds open chunks only; and the next start has less to replay. What the log could not sync must not
        // be in chunks.
        let mapped = if result.is_ok() { self.head.map_finished_chunks(|| Ok(())).map(drop) } else { Ok(()) };
        result = result.and(self.head.close_chunks(self.options.memory_snapshot));
        if let (true, Some((end, aliases)), Ok(())) = (self.options.memory_snapshot, end, &result) {
            let written = mapped.and_then(|()| self.write_snapshot(end, &aliases));
            if let Err(error) = written {
                // The log has it all.
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "no snapshot of the head was written"
                );
            }
        }
        self.lock.lock().take();
        result
    }

    fn write_snapshot(&self, end: (u32, u64), aliases: &[(SeriesRef, SeriesRef)]) -> Result<()> {
        let DbOptions { path, wal_segment_bytes, wal_compression, .. } = &self.options;
        self.head.write_snapshot(path, end, aliases, *wal_segment_bytes, *wal_compression)
    }

    /// Whether a failed write stopped the log: nothing more is stored until a restart. Waits for a
    /// commit that is under way.
    pub fn is_log_poisoned(&self) -> bool {
        let poisoned = self.log.as_ref().is_some_and(|log| log.lock().is_poisoned());
        poisoned && !self.closed.load(Ordering::Acquire)
    }

    /// Changes how late samples may come, from the next batch on; 0 refuses late ones again.
    ///
    /// # Errors
    /// If that log cannot be begun.
    pub fn set_out_of_order_window_ms(&self, window_ms: i64) -> Result<()> {
        if window_ms > 0 {
            let mut log = self.log()?;
            if !log.has_behind() {
                let behind = open::write_behind(&self.options)?;
                log.begin_behind(behind);
            }
        }
        self.head.set_out_of_order_window_ms(window_ms);
        Ok(())
    }

    /// What the head holds.
    pub fn head_stats(&self) -> HeadStats {
        self.head.stats()
    }

    /// Where the memory of the head is; looks at every series.
    pub fn head_memory(&self) -> HeadMemory {
        self.head.memory()
    }

    /// What was met when the directory was opened.
    pub fn replay_stats(&self) -> ReplayStats {
        self.replay
    }

    /// The options that it was opened with.
    pub fn options(&self) -> &DbOptions {
        &self.options
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// Writes batches to the log, then applies them to the head.
    pub(crate) fn commit(&self, batches: Vec<Batch>) -> Result<()> {
        let mut log = self.log()?;
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        if batches.is_empty() {
            return Ok(());
        }
        log.catch_up()?;
        log.write(&batches)?;
        let behind = self.head.apply(batches);
        // Only now is it known which samples are late, and what became of them.
        log.write_behind_done(behind)
    }
}
