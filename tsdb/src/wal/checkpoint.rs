//! Checkpoints: what is still needed of old segments, rewritten so that they can be deleted.
//!
//! # Crash safety
//! A checkpoint is written to `checkpoint.N.tmp`, synced, then renamed; segments up to `N` and older
//! checkpoints are deleted after that. A crash between the steps leaves segments that the next
//! checkpoint deletes, and replay ignores.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/wlog/checkpoint.go>. Difference:
//! exemplar and histogram records are kept or dropped as a whole, and metadata is always kept, since
//! this build does not look into them.

use std::path::Path;

use super::record::{self, RecordKind, RefSample};
use super::{Compression, Writer, read_records, segment};
use crate::error::{Error, Result};
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
    /// Samples kept and dropped.
    pub samples: (u64, u64),
    /// Tombstone intervals kept and dropped.
    pub tombstones: (u64, u64),
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
/// Keeps series for which `keep(ref)` holds, and what is at or after `mint`.
///
/// # Errors
/// If something cannot be read or written; then the old segments are still there.
pub fn write(
    dir: &Path,
    last: u32,
    segment_bytes: usize,
    mint: TimestampMs,
    keep: impl Fn(SeriesRef) -> bool,
) -> Result<CheckpointStats> {
    let target = segment::checkpoint_path(dir, last);
    let tmp = target.with_extension(format!("{last:08}.tmp"));
    remove_dir(&tmp)?;
    let mut filter = Filter {
        out: Writer::open(&tmp, segment_bytes, Compression::Snappy)?,
        mint,
        keep,
        batch: Vec::new(),
        batch_bytes: 0,
        stats: CheckpointStats { last, ..CheckpointStats::default() },
        error: None,
        series: Vec::new(),
        samples: Vec::new(),
        tombstones: Vec::new(),
    };
    let first = match segment::last_checkpoint(dir)? {
        Some((old, covered)) => {
            filter.copy(&old, 0, u32::MAX)?;
            covered + 1
        }
        None => 0,
    };
    filter.copy(dir, first, last)?;
    filter.flush()?;
    filter.out.close()?;
    let stats = filter.stats;
    drop(filter);
    crate::fs::sync_dir(&tmp)?;
    crate::fs::replace(&tmp, &target)?;
    delete_covered(dir, last)?;
    Ok(stats)
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
    series: Vec<record::RefSeries>,
    samples: Vec<RefSample>,
    tombstones: Vec<record::RefTombstone>,
}

impl<K: Fn(SeriesRef) -> bool> Filter<K> {
    fn copy(&mut self, dir: &Path, first: u32, last: u32) -> Result<()> {
        let result = read_records(dir, first..=last, |record| {
            let Some(kept) = self.filter(record).map_err(|e| e.to_string())? else { return Ok(()) };
            self.batch_bytes += kept.len();
            self.batch.push(kept);
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

    /// The part of `record` that is still needed.
    fn filter(&mut self, record: &[u8]) -> Result<Option<Vec<u8>>, crate::encoding::DecodeError> {
        let mut out = Vec::new();
        let kept = match RecordKind::of(record) {
            RecordKind::Series => self.filter_series(record, &mut out)?,
            RecordKind::Samples => {
                self.samples.clear();
                record::decode_samples(record, &mut self.samples)?;
                let all = self.samples.len();
                self.samples.retain(|s| s.t >= self.mint);
                count(&mut self.stats.samples, all, self.samples.len());
                record::encode_samples(&mut out, self.samples.iter().copied());
                !self.samples.is_empty()
            }
            RecordKind::Tombstones => {
                self.tombstones.clear();
                record::decode_tombstones(record, &mut self.tombstones)?;
                let all = self.tombstones.len();
                self.tombstones.retain(|t| t.maxt >= self.mint);
                count(&mut self.stats.tombstones, all, self.tombstones.len());
                record::encode_tombstones(&mut out, &self.tombstones);
                !self.tombstones.is_empty()
            }
            RecordKind::Exemplars | RecordKind::Histograms => {
                out.extend_from_slice(record);
                record::first_time(record).is_none_or(|t| t >= self.mint)
            }
            RecordKind::Metadata => {
                out.extend_from_slice(record);
                true
            }
            RecordKind::MmapMarkers | RecordKind::Unknown => false,
        };
        Ok(kept.then_some(out))
    }

    fn filter_series(
        &mut self,
        record: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, crate::encoding::DecodeError> {
        self.series.clear();
        record::decode_series(record, &mut self.series)?;
        let all = self.series.len();
        self.series.retain(|s| (self.keep)(s.series));
        count(&mut self.stats.series, all, self.series.len());
        record::begin_series(out);
        for s in &self.series {
            record::put_series(out, s.series, &s.labels);
        }
        Ok(!self.series.is_empty())
    }
}

fn count(into: &mut (u64, u64), all: usize, kept: usize) {
    into.0 += kept as u64;
    into.1 += (all - kept) as u64;
}
