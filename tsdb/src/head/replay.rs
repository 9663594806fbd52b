//! Rebuilds the head from log records.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/head_wal.go>

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::{Appended, Head, NO_MAX, NO_MIN};
use crate::sample::{Sample, SeriesRef, TimestampMs};
use crate::wal::record::{self, RecordKind, RefSample, RefSeries, RefTombstone};

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
    /// Samples or tombstones whose series record is missing.
    pub unknown_series: u64,
    /// Histogram records, which this build does not read.
    pub histogram_records: u64,
    /// Exemplar, metadata and unknown records.
    pub skipped_records: u64,
}

/// Applies records in log order.
#[derive(Debug)]
pub(crate) struct Replayer<'a> {
    head: &'a Head,
    /// References whose labels another reference already has.
    aliases: HashMap<u64, SeriesRef>,
    mint: TimestampMs,
    maxt: TimestampMs,
    pub(crate) stats: ReplayStats,
    series: Vec<RefSeries>,
    samples: Vec<RefSample>,
    tombstones: Vec<RefTombstone>,
}

impl<'a> Replayer<'a> {
    pub(crate) fn new(head: &'a Head) -> Self {
        Self {
            head,
            aliases: HashMap::new(),
            mint: NO_MIN,
            maxt: NO_MAX,
            stats: ReplayStats::default(),
            series: Vec::new(),
            samples: Vec::new(),
            tombstones: Vec::new(),
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
            kind => {
                self.count_skipped(kind);
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
        let kind = RecordKind::of(bytes);
        if kind != RecordKind::Samples {
            self.count_skipped(kind);
            return Ok(());
        }
        self.samples.clear();
        record::decode_samples(bytes, &mut self.samples).map_err(|e| format!("decode samples: {e}"))?;
        for sample in std::mem::take(&mut self.samples) {
            let Some(series) = self.head.index.get(self.resolve(sample.series)) else {
                self.stats.unknown_series += 1;
                continue;
            };
            let mut state = series.lock();
            let chunks = state.chunks() as u64;
            if state.insert_out_of_order(Sample { t: sample.t, v: sample.v }) {
                self.stats.ooo_samples += 1;
                self.head
                    .counters
                    .chunks_created
                    .fetch_add(state.chunks() as u64 - chunks, Ordering::Relaxed);
                self.head.note_out_of_order(sample.t);
            }
        }
        Ok(())
    }

    /// Tells the head which window it now holds; also gives the references that stand for a series
    /// with another reference.
    pub(crate) fn finish(self) -> (ReplayStats, Vec<SeriesRef>) {
        if self.mint <= self.maxt {
            self.head.extend_bounds(self.mint, self.maxt);
        }
        (self.stats, self.aliases.into_keys().map(SeriesRef).collect())
    }

    fn count_skipped(&mut self, kind: RecordKind) {
        match kind {
            RecordKind::Histograms => self.stats.histogram_records += 1,
            _ => self.stats.skipped_records += 1,
        }
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
        for RefSeries { series, labels } in self.series.drain(..) {
            self.head.index.reserve_ref(series);
            let (found, created) = self.head.index.get_or_create(&labels, Some(series));
            if !created && found.series != series {
                self.aliases.insert(series.0, found.series);
            }
        }
        Ok(())
    }

    fn apply_samples(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.samples.clear();
        record::decode_samples(bytes, &mut self.samples).map_err(|e| format!("decode samples: {e}"))?;
        let min_valid_time = self.head.min_valid_time();
        for sample in std::mem::take(&mut self.samples) {
            if sample.t < min_valid_time {
                self.stats.too_old += 1;
                continue;
            }
            let Some(series) = self.head.index.get(self.resolve(sample.series)) else {
                self.stats.unknown_series += 1;
                continue;
            };
            if self.head.append_in_order(&series, sample.t, sample.v) != Appended::NotNewer {
                self.stats.samples += 1;
                self.mint = self.mint.min(sample.t);
                self.maxt = self.maxt.max(sample.t);
            }
        }
        Ok(())
    }

    fn apply_tombstones(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.tombstones.clear();
        record::decode_tombstones(bytes, &mut self.tombstones)
            .map_err(|e| format!("decode tombstones: {e}"))?;
        for tombstone in std::mem::take(&mut self.tombstones) {
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
                let labels = series.labels.clone();
                self.head.counters.chunks_removed.fetch_add(series.lock().chunks() as u64, Ordering::Relaxed);
                drop(series);
                self.head.index.remove_if(std::slice::from_ref(&labels), |_| true);
            } else {
                self.head.tombstones.write().add(series.series, tombstone.mint, tombstone.maxt);
            }
        }
        Ok(())
    }
}
