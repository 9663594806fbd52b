//! Head: the mutable, in-memory, newest window of the database.
//!
//! Holds series with their chunks, and answers reads over them. Does not write the log: the
//! database logs first and then applies here.
//!
//! # Invariants
//! In-order samples of a series are strictly ascending. Chunks never cross a block boundary. A chunk is
//! in memory until it is readable on disk.
//!
//! # Concurrency
//! Appends are checked under the series' own lock, and applied under the database's commit lock.
//! A commit holds the visibility lock for writing while it applies its samples, a read holds it
//! for reading while it takes its snapshot, so a read sees all of a commit or nothing.
//! Lock order: commit lock → visibility → index locks → series state.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/head.go>. Difference: isolation by a
//! lock that is held for the copy of chunk handles, instead of append ids in every sample.

mod append;
mod cut;
mod delete;
mod gc;
mod index;
mod mapping;
mod memory;
mod merge;
mod ooo;
mod ooo_compact;
mod open_chunk;
mod postings;
mod read;
mod ref_table;
mod replay;
mod sample;
mod series;
pub(crate) mod snapshot;
mod tombstones;
mod values;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::changes::Changes;
use crate::chunkenc::Encoding;
use crate::error::AppendError;
use crate::exemplar::ExemplarStorage;
use crate::head_chunks::{HeadChunks, Loaded};
use crate::labels::Labels;
use crate::metadata::MetadataStore;
use crate::sample::{SeriesRef, TimestampMs};

pub(crate) use delete::Deletions;
pub(crate) use index::Index;
pub use memory::HeadMemory;
pub(crate) use ooo_compact::{COMPACTED, OooCompaction};
pub(crate) use open_chunk::ChunkRules;
pub(crate) use open_chunk::range_end;
pub use replay::ReplayStats;
pub(crate) use replay::{Replayed, Replayer, replay};
pub(crate) use sample::{AnySample, Value, stale_like};
pub(crate) use series::{Acceptance, Appended, Limits, MemSeries};
use tombstones::HeadTombstones;

/// No time yet: the head is empty.
const NO_MIN: i64 = i64::MAX;
const NO_MAX: i64 = i64::MIN;

/// The newest window; see the module.
#[derive(Debug)]
pub struct Head {
    rules: ChunkRules,
    /// How late samples may be, ms; 0 takes no late ones.
    ooo_window_ms: AtomicI64,
    pub(crate) index: Index,
    tombstones: RwLock<HeadTombstones>,
    pub(crate) exemplars: ExemplarStorage,
    pub(crate) metadata: RwLock<MetadataStore>,
    /// Held for reading while a snapshot is taken, for writing while a commit is applied.
    pub(crate) visibility: RwLock<()>,
    min_time: AtomicI64,
    max_time: AtomicI64,
    /// Oldest out-of-order sample, which may be before the window.
    ooo_min_time: AtomicI64,
    /// Oldest out-of-order sample since the last look at all series began.
    ooo_min_recent: AtomicI64,
    /// Newest out-of-order sample ever seen.
    ooo_max_time: AtomicI64,
    /// Nothing older is taken: blocks hold what was before.
    min_valid_time: AtomicI64,
    /// Where finished chunks go; `None` keeps them in memory.
    chunks: Option<HeadChunks>,
    /// Chunks on disk whose series the log did not name yet; empty once it was replayed.
    loaded: Mutex<Loaded>,
    /// Series with finished chunks in memory.
    pending: Mutex<Vec<SeriesRef>>,
    /// Held while finished chunks are written: each must be written once.
    mapping: Mutex<()>,
    pub(crate) counters: HeadCounters,
    /// What was appended and deleted, and what the database notes about blocks.
    changes: Arc<Changes>,
}

/// Counters of a head; they only go up.
#[derive(Debug, Default)]
pub(crate) struct HeadCounters {
    pub(crate) samples_appended: AtomicU64,
    pub(crate) out_of_order: AtomicU64,
    pub(crate) out_of_bounds: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) too_old: AtomicU64,
    pub(crate) out_of_order_appended: AtomicU64,
    pub(crate) series_created: AtomicU64,
    pub(crate) series_removed: AtomicU64,
    pub(crate) chunks_created: AtomicU64,
    pub(crate) chunks_removed: AtomicU64,
    pub(crate) truncations: AtomicU64,
}

/// What a head holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeadStats {
    /// Series.
    pub series: u64,
    /// Chunks, open ones included.
    pub chunks: u64,
    /// Start of the head's window, ms; `None` while it is empty.
    pub min_time: Option<TimestampMs>,
    /// Newest in-order sample, ms; `None` while the head is empty.
    pub max_time: Option<TimestampMs>,
    /// Samples appended since the start.
    pub samples_appended: u64,
}

impl Head {
    /// An empty head that takes nothing older than `min_valid_time`.
    pub(crate) fn new(block_range_ms: i64, min_valid_time: TimestampMs) -> Self {
        Self {
            rules: ChunkRules { block_range_ms, xor2: false, start_timestamps: false },
            ooo_window_ms: AtomicI64::new(0),
            index: Index::default(),
            tombstones: RwLock::default(),
            exemplars: ExemplarStorage::new(0, 0),
            metadata: RwLock::default(),
            visibility: RwLock::default(),
            min_time: AtomicI64::new(NO_MIN),
            max_time: AtomicI64::new(NO_MAX),
            ooo_min_time: AtomicI64::new(NO_MIN),
            ooo_min_recent: AtomicI64::new(NO_MIN),
            ooo_max_time: AtomicI64::new(NO_MAX),
            min_valid_time: AtomicI64::new(min_valid_time),
            chunks: None,
            loaded: Mutex::default(),
            pending: Mutex::default(),
            mapping: Mutex::default(),
            counters: HeadCounters::default(),
            changes: Arc::default(),
        }
    }

    /// The history of the database that the head belongs to.
    pub(crate) fn changes(&self) -> &Arc<Changes> {
        &self.changes
    }

    /// Oldest timestamp that an append may have.
    pub(crate) fn floor(&self) -> TimestampMs {
        let window = self.max_time.load(Ordering::Acquire).saturating_sub(self.rules.block_range_ms / 2);
        window.max(self.min_valid_time.load(Ordering::Acquire))
    }

    /// `[min, max]` of what the head holds; `None` while it is empty.
    pub(crate) fn bounds(&self) -> Option<(TimestampMs, TimestampMs)> {
        let (min, max) = (self.min_time.load(Ordering::Acquire), self.max_time.load(Ordering::Acquire));
        (min != NO_MIN && max != NO_MAX).then_some((min, max))
    }

    /// Oldest timestamp that is not in a block.
    pub(crate) fn min_valid_time(&self) -> TimestampMs {
        self.min_valid_time.load(Ordering::Acquire)
    }

    /// Widens the window to hold `[mint, maxt]`.
    pub(crate) fn extend_bounds(&self, mint: TimestampMs, maxt: TimestampMs) {
        self.min_time.fetch_min(mint, Ordering::AcqRel);
        self.max_time.fetch_max(maxt, Ordering::AcqRel);
    }

    /// `[min, max]` that holds the out-of-order samples.
    pub(crate) fn ooo_bounds(&self) -> Option<(TimestampMs, TimestampMs)> {
        self.ooo_min_time().map(|min| (min, self.ooo_max_time.load(Ordering::Acquire).max(min)))
    }

    /// Oldest out-of-order sample.
    pub(crate) fn ooo_min_time(&self) -> Option<TimestampMs> {
        Some(self.ooo_min_time.load(Ordering::Acquire)).filter(|t| *t != NO_MIN)
    }

    /// Remembers that there is an out-of-order sample at `t`.
    fn note_out_of_order(&self, t: TimestampMs) {
        self.ooo_min_time.fetch_min(t, Ordering::AcqRel);
        self.ooo_min_recent.fetch_min(t, Ordering::AcqRel);
        self.ooo_max_time.fetch_max(t, Ordering::AcqRel);
    }

    /// Sets what the options say about chunks and late samples.
    pub(crate) fn configure(&mut self, options: &crate::DbOptions) {
        self.rules.xor2 = options.float_encoding == Encoding::Xor2;
        self.rules.start_timestamps = options.start_timestamps;
        self.set_out_of_order_window_ms(options.out_of_order_window_ms);
    }

    /// How late samples may be from now on, ms; 0 takes no late ones.
    pub(crate) fn set_out_of_order_window_ms(&self, window_ms: i64) {
        self.ooo_window_ms.store(window_ms.max(0), Ordering::Relaxed);
        self.exemplars.set_out_of_order_window_ms(window_ms.max(0));
    }

    /// How chunks are made.
    pub(crate) fn rules(&self) -> ChunkRules {
        self.rules
    }

    /// Length of the slots at which blocks are cut.
    pub(crate) fn block_range_ms(&self) -> i64 {
        self.rules.block_range_ms
    }

    /// Finds the series of a sample: by reference if that is known, else by labels.
    pub(crate) fn series_for(
        &self,
        known: SeriesRef,
        labels: &Labels,
    ) -> Result<Arc<MemSeries>, AppendError> {
        if known.0 != 0
            && let Some(series) = self.index.get(known)
        {
            return Ok(series);
        }
        if labels.is_empty() {
            return Err(AppendError::InvalidLabels("empty label set".into()));
        }
        if labels.iter().any(|(name, _)| name.is_empty()) {
            return Err(AppendError::InvalidLabels(format!("empty label name in {labels}")));
        }
        let (series, created) = self.index.get_or_create(labels, None);
        if created {
            self.counters.series_created.fetch_add(1, Ordering::Relaxed);
        }
        Ok(series)
    }

    /// Counts a sample that is out of bounds whatever its series.
    pub(crate) fn refuse_out_of_bounds(&self) -> AppendError {
        self.counters.out_of_bounds.fetch_add(1, Ordering::Relaxed);
        AppendError::OutOfBounds
    }

    /// What the head holds now.
    pub fn stats(&self) -> HeadStats {
        let removed = self.counters.chunks_removed.load(Ordering::Relaxed);
        let chunks = self.counters.chunks_created.load(Ordering::Relaxed).saturating_sub(removed);
        let bounds = self.bounds();
        HeadStats {
            series: self.index.len() as u64,
            chunks,
            min_time: bounds.map(|b| b.0),
            max_time: bounds.map(|b| b.1),
            samples_appended: self.counters.samples_appended.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests;
