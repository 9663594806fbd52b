//! Checkpoints: what is still needed of old segments, rewritten so that they can be deleted.
//!
//! # Crash safety
//! A checkpoint is written to `checkpoint.N.tmp`, synced, then renamed; segments up to `N` and older
//! checkpoints are deleted after that. A crash between the steps leaves segments that the next
//! checkpoint deletes, and replay ignores.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/wlog/checkpoint.go>. Differences:
//! samples keep their start timestamps whatever the options say; metadata is written in records of
//! about a MiB instead of one; samples and exemplars go with their series, so that no reference is left that
//! another series could get.

use std::collections::BTreeMap;
use std::path::Path;

use super::record::{self, RecordKind};
use super::{Compression, Writer, read_records, segment};
use crate::encoding::DecodeError;
use crate::error::{Error, Result};
use crate::metadata::Metadata;
use crate::sample::{SeriesRef, TimestampMs};

/// Records are handed to the operating system in batches of about this many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// What a checkpoint did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckpointStats {
    /// Last segment that it covers.
    pub last: u32,
    /// Series kept and dropped.
    pub series: (u64, u64),
    /// Samples kept and dropped, histograms included.
    pub samples: (u64, u64),
    /// Tombstone intervals kept and dropped.
    pub tombstones: (u64, u64),
    /// Exemplars kept and dropped.
    pub exemplars: (u64, u64),
    /// Metadata entries kept and dropped: the latest of each series stays.
    pub metadata: (u64, u64),
}

/// Which segments to fold into a checkpoint: the older two thirds of the closed ones.
///
/// `first..=last_closed` are the closed segments. `None` if there is too little to gain.
pub fn plan(first: u32, last_closed: u32) -> Option<u32> {
    let last = first + last_closed.checked_sub(first)? * 2 / 3;
    (last > first).then_some(last)
}

/// Writes the checkpoint that covers the current one and segments up to `last`, then deletes those.
///
/// Keeps series for which `keep(ref)` holds, with their latest metadata, and of their samples, exemplars and
/// tombstones what is at or after `mint`. The answer of `keep` for a reference must not change meanwhile.
///
/// # Errors
/// If something cannot be read or written; then the old segments are still there.
pub fn write(
    dir: &Path,
    last: u32,
    segment_bytes: usize,
    compression: Compression,
    mint: TimestampMs,
    keep: impl Fn(SeriesRef) -> bool,
) -> Result<CheckpointStats> {
    let target = segment::checkpoint_path(dir, last);
    let tmp = target.with_extension(format!("{last:08}.tmp"));
    remove_dir(&tmp)?;
    let stats = write_to(&tmp, dir, last, segment_bytes, compression, mint, keep).inspect_err(|_| {
        // A full disk needs the room; what cannot be removed goes at the next attempt.
        drop(remove_dir(&tmp));
    })?;
    crate::fs::replace(&tmp, &target)?;
    delete_covered(dir, last)?;
    Ok(stats)
}

fn write_to(
    tmp: &Path,
    dir: &Path,
    last: u32,
    segment_bytes: usize,
    compression: Compression,
    mint: TimestampMs,
    keep: impl Fn(SeriesRef) -> bool,
) -> Result<CheckpointStats> {
    let mut filter = Filter {
        out: Writer::open(tmp, segment_bytes, compression)?,
        mint,
        keep,
        batch: Vec::new(),
        batch_bytes: 0,
        stats: CheckpointStats { last, ..CheckpointStats::default() },
        error: None,
        metadata: BTreeMap::new(),
    };
    let first = match segment::last_checkpoint(dir)? {
        Some((old, covered)) => {
            filter.copy(&old, 0, u32::MAX)?;
            covered + 1
        }
        None => 0,
    };
    filter.copy(dir, first, last)?;
    filter.put_metadata()?;
    filter.flush()?;
    filter.out.close()?;
    crate::fs::sync_dir(tmp)?;
    Ok(filter.stats)
}

/// Deletes what the checkpoint `last` replaces.
fn delete_covered(dir: &Path, last: u32) -> Result<()> {
    for number in segment::list(dir)?.into_iter().filter(|n| *n <= last) {
        let path = segment::path(dir, number);
        crate::fs::remove_file(&path)?;
    }
    for number in segment::checkpoints(dir)?.into_iter().filter(|n| *n < last) {
        remove_dir(&segment::checkpoint_path(dir, number))?;
    }
    Ok(())
}

fn remove_dir(path: &Path) -> Result<()> {
    match crate::fs::remove_dir_all(path) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

struct Filter<K> {
    out: Writer,
    mint: TimestampMs,
    keep: K,
    batch: Vec<Vec<u8>>,
    batch_bytes: usize,
    stats: CheckpointStats,
    error: Option<Error>,
    /// Latest of each series that is kept.
    metadata: BTreeMap<u64, Metadata>,
}

impl<K: Fn(SeriesRef) -> bool> Filter<K> {
    fn copy(&mut self, dir: &Path, first: u32, last: u32) -> Result<()> {
        let result = read_records(dir, first..=last, |record| {
            self.filter(record).map_err(|e| e.to_string())?;
            if self.batch_bytes >= BATCH_BYTES
                && let Err(error) = self.flush()
            {
                self.error = Some(error);
                return Err("the checkpoint could not be written".into());
            }
            Ok(())
        });
        match self.error.take() {
            Some(error) => Err(error),
            None => result.map_err(|e| e.into_error(dir)),
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.out.log(self.batch.iter().map(Vec::as_slice))?;
        self.batch.clear();
        self.batch_bytes = 0;
        Ok(())
    }

    fn put(&mut self, record: Vec<u8>) {
        self.batch_bytes += record.len();
        self.batch.push(record);
    }

    /// Puts the part of `record` that is still needed.
    fn filter(&mut self, record: &[u8]) -> Result<(), DecodeError> {
        match RecordKind::of(record) {
            RecordKind::Series => self.filter_series(record),
            RecordKind::Samples => self.filter_samples(record),
            RecordKind::Histograms => self.filter_histograms(record),
            RecordKind::Tombstones => self.filter_tombstones(record),
            RecordKind::Exemplars => self.filter_exemplars(record),
            RecordKind::Metadata => self.note_metadata(record),
            RecordKind::MmapMarkers | RecordKind::Unknown => Ok(()),
        }
    }

    fn filter_series(&mut self, record: &[u8]) -> Result<(), DecodeError> {
        let mut series = Vec::new();
        record::decode_series(record, &mut series)?;
        retain(&mut series, &mut self.stats.series, |s| (self.keep)(s.series));
        if !series.is_empty() {
            let mut out = Vec::new();
            record::begin_series(&mut out);
            series.iter().for_each(|s| record::put_series(&mut out, s.series, &s.labels));
            self.put(out);
        }
        Ok(())
    }

    fn filter_samples(&mut self, record: &[u8]) -> Result<(), DecodeError> {
        let (mut samples, mut out) = (Vec::new(), Vec::new());
        record::decode_samples(record, &mut samples)?;
        retain(&mut samples, &mut self.stats.samples, |s| s.t >= self.mint && (self.keep)(s.series));
        if samples.is_empty() {
            return Ok(());
        }
        if samples.iter().any(|s| s.start_timestamp != 0) {
            record::encode_samples_v2(&mut out, samples);
        } else {
            record::encode_samples(&mut out, samples);
        }
        self.put(out);
        Ok(())
    }

    fn filter_histograms(&mut self, record: &[u8]) -> Result<(), DecodeError> {
        let mut samples = Vec::new();
        self.stats.samples.1 += record::decode_histograms(record, &mut samples)?;
        retain(&mut samples, &mut self.stats.samples, |s| s.t >= self.mint && (self.keep)(s.series));
        let start_timestamps = samples.iter().any(|s| s.start_timestamp != 0);
        for kept in record::histogram_records(&samples, start_timestamps) {
            self.put(kept);
        }
        Ok(())
    }

    fn filter_tombstones(&mut self, record: &[u8]) -> Result<(), DecodeError> {
        let (mut tombstones, mut out) = (Vec::new(), Vec::new());
        record::decode_tombstones(record, &mut tombstones)?;
        let keep = |t: &record::RefTombstone| (self.keep)(t.series) && t.maxt >= self.mint;
        retain(&mut tombstones, &mut self.stats.tombstones, keep);
        if !tombstones.is_empty() {
            record::encode_tombstones(&mut out, &tombstones);
            self.put(out);
        }
        Ok(())
    }

    fn filter_exemplars(&mut self, record: &[u8]) -> Result<(), DecodeError> {
        let (mut exemplars, mut out) = (Vec::new(), Vec::new());
        record::decode_exemplars(record, &mut exemplars)?;
        retain(&mut exemplars, &mut self.stats.exemplars, |e| e.t >= self.mint && (self.keep)(e.series));
        if !exemplars.is_empty() {
            record::encode_exemplars(&mut out, &exemplars);
            self.put(out);
        }
        Ok(())
    }

    fn note_metadata(&mut self, record: &[u8]) -> Result<(), DecodeError> {
        let mut entries = Vec::new();
        record::decode_metadata(record, &mut entries)?;
        self.stats.metadata.1 += entries.len() as u64;
        for entry in entries {
            if (self.keep)(entry.series) && self.metadata.insert(entry.series.0, entry.metadata).is_none() {
                self.stats.metadata.0 += 1;
                self.stats.metadata.1 -= 1;
            }
        }
        Ok(())
    }

    /// Writes the latest metadata of every series.
    fn put_metadata(&mut self) -> Result<()> {
        const BATCH_ENTRIES: usize = 4096;
        let entries = std::mem::take(&mut self.metadata).into_iter().collect::<Vec<_>>();
        for batch in entries.chunks(BATCH_ENTRIES) {
            let mut out = Vec::new();
            record::encode_metadata(&mut out, batch.iter().map(|(series, m)| (SeriesRef(*series), m)));
            self.put(out);
            self.flush()?;
        }
        Ok(())
    }
}

/// Keeps what `keep` says, and counts.
fn retain<T>(entries: &mut Vec<T>, counts: &mut (u64, u64), keep: impl Fn(&T) -> bool) {
    let all = entries.len();
    entries.retain(keep);
    counts.0 += entries.len() as u64;
    counts.1 += (all - entries.len()) as u64;
}
