//! Rebuilds the head from log records.
//!
//! # Concurrency
//! The caller's thread reads, decodes and makes series; samples go to workers, each of which has the
//! series of its share of references, so that the samples of a series stay in order. What must see all
//! samples before it waits for the workers.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/head_wal.go>

mod worker;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use super::index::MAX_REF;
use super::snapshot::{Snapshot, SnapshotSeries};
use super::{AnySample, Deletions, Head, MemSeries, NO_MAX, NO_MIN, Value};
use crate::exemplar::{Exemplar, ExemplarError};
use crate::head_chunks::HeadChunkRef;
use crate::labels::Labels;
use crate::sample::{SeriesRef, TimestampMs};
use crate::wal::record::{self, RecordKind, RefExemplar, RefSample, RefSeries, RefTombstone};
use worker::Workers;

/// What a replay met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplayStats {
    /// Records read.
    pub records: u64,
    /// Samples that the head took.
    pub samples: u64,
    /// Out-of-order samples that the head took.
    pub ooo_samples: u64,
    /// Samples that a block already holds.
    pub too_old: u64,
    /// Entries whose series record is missing.
    pub unknown_series: u64,
    /// Histograms of unknown schemas, or that contradict themselves.
    pub histograms_skipped: u64,
    /// Series that came from a snapshot; metadata did not.
    pub snapshot_series: u64,
    /// Chunks that came from a snapshot.
    pub snapshot_chunks: u64,
    /// Exemplars that were taken.
    pub exemplars: u64,
    /// Metadata entries that were taken.
    pub metadata: u64,
    /// Records of unknown types.
    pub skipped_records: u64,
}

/// What a replay leaves to be known.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) stats: ReplayStats,
    /// References that stand for a series with another reference, and that.
    pub(crate) aliases: HashMap<u64, SeriesRef>,
    /// Deletions that the write-behind log does not know; to be applied to late samples yet.
    pub(crate) foreign_deletions: Deletions,
}

/// Runs `read`, which hands records to the replayer, and waits until all are applied.
pub(crate) fn replay<T>(head: &Head, read: impl FnOnce(&mut Replayer<'_>) -> T) -> (T, Replayed) {
    thread::scope(|scope| {
        let mut replayer = Replayer::new(head, Workers::spawn(scope, head));
        let result = read(&mut replayer);
        (result, replayer.finish())
    })
}

/// Applies records in log order.
#[derive(Debug)]
pub(crate) struct Replayer<'a> {
    head: &'a Head,
    workers: Workers<'a>,
    /// References whose labels another reference already has.
    aliases: HashMap<u64, SeriesRef>,
    stats: ReplayStats,
    series: Vec<RefSeries>,
    samples: Vec<RefSample>,
    /// Largest reference of a sample, whether it has a series or not: no other series must get it.
    last_ref: SeriesRef,
    /// Deletions of the write-ahead log that the write-behind log does not know.
    deletions: Vec<RefTombstone>,
    /// Series that the write-behind log has deletions of.
    late_deletions: HashMap<SeriesRef, Arc<MemSeries>>,
}

impl<'a> Replayer<'a> {
    fn new(head: &'a Head, workers: Workers<'a>) -> Self {
        Self {
            head,
            workers,
            last_ref: SeriesRef(0),
            deletions: Vec::new(),
            late_deletions: HashMap::new(),
            aliases: HashMap::new(),
            stats: ReplayStats::default(),
            series: Vec::new(),
            samples: Vec::new(),
        }
    }

    /// Applies a record of `wal/`.
    ///
    /// # Errors
    /// Why it cannot be decoded.
    pub(crate) fn apply(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stats.records += 1;
        match RecordKind::of(bytes) {
            RecordKind::Series => self.apply_series(bytes),
            RecordKind::Samples => self.apply_samples(bytes),
            RecordKind::Tombstones => self.apply_tombstones(bytes),
            RecordKind::Exemplars => self.apply_exemplars(bytes),
            RecordKind::Metadata => self.apply_metadata(bytes),
            RecordKind::Histograms => self.apply_histograms(bytes),
            RecordKind::MmapMarkers | RecordKind::Unknown => {
                self.stats.skipped_records += 1;
                Ok(())
            }
        }
    }

    /// Applies a record of `wbl/`, whose samples are out of order.
    ///
    /// # Errors
    /// Why it cannot be decoded.
    pub(crate) fn apply_out_of_order(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stats.records += 1;
        // In-order samples come first, whatever worker has them.
        self.workers.wait();
        match RecordKind::of(bytes) {
            RecordKind::Samples => {
                let mut samples = std::mem::take(&mut self.samples);
                samples.clear();
                let decoded = record::decode_samples(bytes, &mut samples);
                for s in samples.drain(..) {
                    let value = Value::Float(s.v);
                    self.insert(s.series, AnySample { t: s.t, start: s.start_timestamp, value });
                }
                self.samples = samples;
                decoded.map_err(|e| format!("decode samples: {e}"))
            }
            RecordKind::Histograms => {
                let mut histograms = Vec::new();
                let decoded = record::decode_histograms(bytes, &mut histograms);
                for s in histograms {
                    let value = Value::Histogram(s.value);
                    self.insert(s.series, AnySample { t: s.t, start: s.start_timestamp, value });
                }
                let skipped = decoded.map_err(|e| format!("decode histograms: {e}"))?;
                self.stats.histograms_skipped += skipped;
                Ok(())
            }
            RecordKind::MmapMarkers => self.apply_markers(bytes),
            RecordKind::Tombstones => self.apply_late_tombstones(bytes),
            _ => {
                self.stats.skipped_records += 1;
                Ok(())
            }
        }
    }

    fn apply_markers(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut markers = Vec::new();
        record::decode_mmap_markers(bytes, &mut markers).map_err(|e| format!("decode markers: {e}"))?;
        // Those of one series hold together.
        for of_series in markers.chunk_by(|a, b| a.series == b.series) {
            let series = of_series[0].series;
            let chunks: Vec<_> = of_series.iter().map(|m| HeadChunkRef(m.chunk)).collect();
            if series == SeriesRef(0) {
                self.head.replay_compacted(&chunks);
            } else if let Some(series) = self.late_series(series) {
                let deletions = self.late_deletions.contains_key(&series.series);
                self.head.replay_marker(&series, &chunks, deletions);
            }
        }
        Ok(())
    }

    fn apply_late_tombstones(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut tombstones = Vec::new();
        record::decode_tombstones(bytes, &mut tombstones).map_err(|e| format!("decode tombstones: {e}"))?;
        for stone in tombstones {
            if let Some(series) = self.late_series(stone.series) {
                let stone = RefTombstone { series: series.series, ..stone };
                self.head.replay_late_deletion(&stone);
                self.late_deletions.entry(series.series).or_insert(series);
            }
        }
        Ok(())
    }

    /// The series that the write-behind log means.
    fn late_series(&mut self, series: SeriesRef) -> Option<Arc<MemSeries>> {
        let found = self.head.index.get(self.resolve(series));
        if found.is_none() {
            // After a power cut, the write-ahead log may have less: what follows must not be another series'.
            self.head.index.reserve_ref(series);
        }
        found
    }

    fn insert(&mut self, series: SeriesRef, sample: AnySample) {
        let Some(series) = self.late_series(series) else {
            self.stats.unknown_series += 1;
            return;
        };
        if self.head.replay_out_of_order(&series, sample) {
            self.stats.ooo_samples += 1;
        }
    }

    /// Applies a snapshot of the head, before anything else.
    pub(crate) fn apply_snapshot(&mut self, snapshot: Snapshot) {
        let min_valid_time = self.head.min_valid_time();
        let mut restored = Vec::new();
        self.stats.snapshot_series = snapshot.series.len() as u64;
        let enter = |SnapshotSeries { series, labels, chunk }| (self.enter(series, &labels), chunk);
        // All chunks on disk first, as one series may have some by several references: the open one is the newest.
        let entered: Vec<_> = snapshot.series.into_iter().map(enter).collect();
        for (found, chunk) in entered {
            let Some(chunk) = chunk.filter(|c| c.maxt >= min_valid_time) else { continue };
            let (mint, maxt) = (chunk.mint.max(min_valid_time), chunk.maxt);
            if found.lock().restore(chunk) {
                self.head.extend_bounds(mint, maxt);
                restored.push(found.series);
            }
        }
        self.stats.snapshot_chunks = restored.len() as u64;
        self.head.counters.chunks_created.fetch_add(restored.len() as u64, Ordering::Relaxed);
        self.head.note_finished(restored);
        self.delete(&snapshot.tombstones);
        // The write-behind log knows them: it is our snapshot.
        self.deletions.clear();
        self.take_exemplars(snapshot.exemplars);
    }

    /// Waits for the workers and tells the head which window it now holds.
    fn finish(mut self) -> Replayed {
        let done = self.workers.finish();
        if done.mint <= done.maxt {
            self.head.extend_bounds(done.mint, done.maxt);
        }
        self.head.finish_attaching();
        self.head.index.reserve_ref(self.last_ref);
        self.stats.samples += done.samples;
        self.stats.unknown_series += done.unknown_series;
        self.late_deletions.values().for_each(|series| self.head.drop_unnamed(series));
        let foreign_deletions = self.head.foreign_deletions(self.deletions);
        Replayed { stats: self.stats, aliases: self.aliases, foreign_deletions }
    }

    fn resolve(&self, series: SeriesRef) -> SeriesRef {
        if self.aliases.is_empty() {
            return series;
        }
        self.aliases.get(&series.0).copied().unwrap_or(series)
    }

    fn apply_series(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.series.clear();
        record::decode_series(bytes, &mut self.series).map_err(|e| format!("decode series: {e}"))?;
        for RefSeries { series, labels } in std::mem::take(&mut self.series) {
            if series > MAX_REF {
                return Err(format!("series reference {} is too large", series.0));
            }
            self.enter(series, &labels);
        }
        Ok(())
    }

    /// Makes a series known by a reference, with its chunks on disk.
    fn enter(&mut self, series: SeriesRef, labels: &Labels) -> Arc<MemSeries> {
        self.head.index.reserve_ref(series);
        let (found, created) = self.head.index.get_or_create(labels, Some(series));
        if !created && found.series != series {
            self.aliases.insert(series.0, found.series);
            // What was replayed counts before chunks that were written for the other reference.
            self.workers.wait();
        }
        self.head.attach_chunks(&found, series);
        found
    }

    fn apply_samples(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.samples.clear();
        record::decode_samples(bytes, &mut self.samples).map_err(|e| format!("decode samples: {e}"))?;
        let min_valid_time = self.head.min_valid_time();
        for mut sample in self.samples.drain(..) {
            self.last_ref = self.last_ref.max(sample.series);
            if sample.t < min_valid_time {
                self.stats.too_old += 1;
                continue;
            }
            if !self.aliases.is_empty()
                && let Some(series) = self.aliases.get(&sample.series.0)
            {
                sample.series = *series;
            }
            self.workers.push(sample);
        }
        Ok(())
    }

    fn apply_histograms(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut histograms = Vec::new();
        let skipped = record::decode_histograms(bytes, &mut histograms)
            .map_err(|e| format!("decode histograms: {e}"))?;
        self.stats.histograms_skipped += skipped;
        let min_valid_time = self.head.min_valid_time();
        for mut sample in histograms {
            self.last_ref = self.last_ref.max(sample.series);
            if sample.t < min_valid_time {
                self.stats.too_old += 1;
                continue;
            }
            sample.series = self.resolve(sample.series);
            self.workers.push_histogram(sample);
        }
        Ok(())
    }

    fn apply_tombstones(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut tombstones = Vec::new();
        record::decode_tombstones(bytes, &mut tombstones).map_err(|e| format!("decode tombstones: {e}"))?;
        self.delete(&tombstones);
        Ok(())
    }

    /// Applies tombstones of the write-ahead log to in-order samples. The write-behind log has those that are there twice
    /// in a row; the others are for late samples too, unless they come again so.
    fn delete(&mut self, tombstones: &[RefTombstone]) {
        let mut known = HashSet::new();
        for same in tombstones.chunk_by(|a, b| a == b) {
            let tombstone = same[0];
            self.head.index.reserve_ref(tombstone.series);
            if tombstone.maxt < self.head.min_valid_time() {
                continue;
            }
            let Some(series) = self.head.index.get(self.resolve(tombstone.series)) else {
                self.stats.unknown_series += 1;
                continue;
            };
            if (tombstone.mint, tombstone.maxt) == (i64::MIN, i64::MAX) {
                // The whole series was evicted; a later series record starts it anew.
                self.workers.wait();
                let labels = series.labels.clone();
                self.head.counters.chunks_removed.fetch_add(series.lock().chunks() as u64, Ordering::Relaxed);
                drop(series);
                let removed = self.head.index.remove_if(std::slice::from_ref(&labels), |_| true);
                self.head.metadata.write().remove(&removed);
            } else {
                self.head.tombstones.write().add(series.series, tombstone.mint, tombstone.maxt);
                let deletion = RefTombstone { series: series.series, ..tombstone };
                if same.len() > 1 {
                    known.insert(deletion);
                } else {
                    self.deletions.push(deletion);
                }
            }
        }
        if !known.is_empty() {
            self.deletions.retain(|deletion| !known.contains(deletion));
        }
    }

    fn apply_exemplars(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut exemplars = Vec::new();
        record::decode_exemplars(bytes, &mut exemplars).map_err(|e| format!("decode exemplars: {e}"))?;
        self.take_exemplars(exemplars);
        Ok(())
    }

    fn take_exemplars(&mut self, exemplars: Vec<RefExemplar>) {
        let min_valid_time = self.head.min_valid_time();
        for entry in exemplars {
            if entry.t < min_valid_time {
                self.stats.too_old += 1;
                continue;
            }
            let Some(series) = self.head.index.get(self.resolve(entry.series)) else {
                self.stats.unknown_series += 1;
                continue;
            };
            let exemplar =
                Exemplar { labels: entry.labels, value: entry.v, timestamp: entry.t, has_timestamp: false };
            match self.head.exemplars.add(&series.labels, exemplar) {
                Ok(()) => self.stats.exemplars += 1,
                // They were in order when they were logged; or their number was reduced to none since.
                Err(ExemplarError::OutOfOrder | ExemplarError::Disabled) => {}
                Err(error) => {
                    tracing::debug!(%error, series = %series.labels, "an exemplar of the log was refused")
                }
            }
        }
    }

    fn apply_metadata(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut entries = Vec::new();
        record::decode_metadata(bytes, &mut entries).map_err(|e| format!("decode metadata: {e}"))?;
        let mut store = self.head.metadata.write();
        for entry in entries {
            let Some(series) = self.head.index.get(self.resolve(entry.series)) else {
                self.stats.unknown_series += 1;
                continue;
            };
            store.set(series.series, &entry.metadata);
            self.stats.metadata += 1;
        }
        Ok(())
    }
}

/// Window of the samples that were applied.
#[derive(Debug, Clone, Copy)]
struct Applied {
    mint: TimestampMs,
    maxt: TimestampMs,
    samples: u64,
    unknown_series: u64,
}

impl Default for Applied {
    fn default() -> Self {
        Self { mint: NO_MIN, maxt: NO_MAX, samples: 0, unknown_series: 0 }
    }
}

impl Applied {
    fn add(&mut self, other: Self) {
        self.mint = self.mint.min(other.mint);
        self.maxt = self.maxt.max(other.maxt);
        self.samples += other.samples;
        self.unknown_series += other.unknown_series;
    }
}
