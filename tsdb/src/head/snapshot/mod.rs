//! Snapshots of the head, written at shutdown so that a start need not replay the whole log.
//!
//! # Format
//! `tsdb/docs/format/snapshot.md`: a directory `chunk_snapshot.SEGMENT.OFFSET` of log segments. It holds the
//! open chunk of every series, deletions and exemplars; finished chunks are in `chunks_head/`. The name
//! says up to where in the log it stands; a start replays the log from there.
//!
//! # Crash safety
//! A snapshot is complete and synced before it has its name, and so are the finished chunks that it counts on. It
//! repeats what the log has: one that is damaged, does not fit the log or was written by Prometheus is passed over, and
//! the log is replayed whole. A start that does not use a snapshot takes it away: what is appended then may count on series
//! records, and on chunks of the head, that only the whole log brings back.
//!
//! # References
//! Series that are gone are not in it, while the log before it may still know them: if another series got such a
//! reference, a later start from the whole log would give it what was theirs. So a snapshot names the largest reference
//! that was given out, by a [`stamp`]. The stamp also names the snapshot's place in the log: Prometheus keeps it when it
//! writes its own snapshot, which lacks other things that only the log has (references that stand for a series with
//! another, which deletions the write-behind log knows).
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/head_wal.go>. As there, metadata is not in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Head;
use super::index::MAX_REF;
use super::series::ClosedChunk;
use crate::chunkenc::{self, Decoded, Encoding};
use crate::encoding::{Cursor, DecodeError, put_be_f64, put_be64, put_prefixed, put_uvarint, put_varint};
use crate::error::{Error, Result};
use crate::histogram::HistogramValue;
use crate::labels::Labels;
use crate::sample::{SeriesRef, TimestampMs};
use crate::wal::record::{self, RefExemplar, RefTombstone};
use crate::wal::{Compression, Writer, read_records, segment};

const PREFIX: &str = "chunk_snapshot.";

const SERIES: u8 = 1;
const TOMBSTONES: u8 = 2;
const EXEMPLARS: u8 = 3;

/// Version of the list of tombstones.
const TOMBSTONES_VERSION: u8 = 1;
/// Records are handed to the operating system in batches of about this many bytes.
const BATCH_BYTES: usize = 1 << 20;
const EXEMPLARS_PER_RECORD: usize = 10_000;
/// Bits of a page's number in a [`stamp`]: segments are shorter than 32 TiB.
const STAMP_PAGE_BITS: u32 = 30;
/// Samples before the last one that early versions stored, 16 bytes each; zero since.
const UNUSED_SAMPLES: usize = 3;

/// A snapshot that was read.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Segment of the log up to which it stands,
    pub(crate) segment: u32,
    /// and offset in it, bytes.
    pub(crate) offset: u64,
    /// Largest reference that was given out.
    pub(crate) last_ref: SeriesRef,
    pub(super) series: Vec<SnapshotSeries>,
    pub(super) tombstones: Vec<RefTombstone>,
    pub(super) exemplars: Vec<RefExemplar>,
}

/// A series with the chunk that was open.
#[derive(Debug)]
pub(super) struct SnapshotSeries {
    pub(super) series: SeriesRef,
    pub(super) labels: Labels,
    pub(super) chunk: Option<ClosedChunk>,
}

/// Directory of the snapshot that stands at `end` of the log.
fn path(dir: &Path, end: (u32, u64)) -> PathBuf {
    dir.join(format!("{PREFIX}{:06}.{:010}", end.0, end.1))
}

/// All snapshots of a data directory, by their place in the log.
fn list(dir: &Path) -> Result<Vec<((u32, u64), PathBuf)>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let path = entry.map_err(Error::io("list", dir))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix(PREFIX));
        let end = name.and_then(|n| n.split_once('.'));
        if let Some((Ok(segment), Ok(offset))) = end.map(|(s, o)| (s.parse(), o.parse()))
            && path.is_dir()
        {
            out.push(((segment, offset), path));
        }
    }
    out.sort();
    Ok(out)
}

/// Reads the newest snapshot of the data directory `dir`, if it fits the log. Otherwise there is none left when this
/// returns: those that cannot be used are set aside.
///
/// # Errors
/// If they cannot be set aside.
pub(crate) fn read(dir: &Path, wal_dir: &Path) -> Result<Option<Snapshot>> {
    let mut snapshots = list(dir)?;
    while let Some((end, path)) = snapshots.pop() {
        let unusable = match fits(end, wal_dir) {
            Ok(true) => match read_from(&path, end) {
                Ok(snapshot) => return Ok(Some(snapshot)),
                Err(error) => error.to_string(),
            },
            Ok(false) => "it does not fit the log".to_owned(),
            Err(error) => error.to_string(),
        };
        let aside = path.with_added_extension("unused");
        tracing::warn!(snapshot = %path.display(), aside = %aside.display(), reason = unusable,
            "the snapshot of the head cannot be used and is set aside; replaying the log");
        if aside.exists() {
            crate::fs::remove_dir_all(&aside)?;
        }
        crate::fs::replace(&path, &aside)?;
    }
    Ok(None)
}

fn read_from(path: &Path, (segment, offset): (u32, u64)) -> Result<Snapshot> {
    let mut snapshot = Snapshot { segment, offset, ..Snapshot::default() };
    read_records(path, 0..=u32::MAX, |record| snapshot.take(record).map_err(|e| e.to_string()))
        .map_err(|e| e.into_error(path))?;
    let stamped = |t: &RefTombstone| *t == stamp(t.series, (segment, offset));
    let Some(found) = snapshot.tombstones.iter().position(stamped) else {
        return Err(Error::corrupt(path, 0, "it was written by another server"));
    };
    snapshot.last_ref = snapshot.tombstones.swap_remove(found).series;
    Ok(snapshot)
}

/// A tombstone that deletes nothing, as no sample is of its time: it says that `last_ref` is the largest reference that
/// was given out before the place `end` of the log.
fn stamp(last_ref: SeriesRef, (segment, offset): (u32, u64)) -> RefTombstone {
    let page = (offset / crate::wal::PAGE_BYTES as u64).min((1 << STAMP_PAGE_BITS) - 1);
    // At most 2^62, so that the sum is far before any sample.
    let place = (i64::from(segment) << STAMP_PAGE_BITS) + page as i64;
    let t = TimestampMs::MIN + 1 + place;
    RefTombstone { series: last_ref, mint: t, maxt: t }
}

/// Removes all snapshots of the data directory `dir`.
///
/// # Errors
/// If they cannot be removed.
pub(crate) fn remove_all(dir: &Path) -> Result<()> {
    list(dir)?.iter().try_for_each(|(_, path)| remove(path))
}

/// Removes snapshots that stand for a part of the log up to segment `covered`.
///
/// # Errors
/// If they cannot be removed.
pub(crate) fn remove_covered(dir: &Path, covered: u32) -> Result<()> {
    list(dir)?.iter().filter(|(end, _)| end.0 <= covered).try_for_each(|(_, path)| remove(path))
}

/// Crash safety: the new name marks the directory as gone before its files go one by one.
fn remove(path: &Path) -> Result<()> {
    let doomed = path.with_added_extension("tmp");
    if doomed.exists() {
        crate::fs::remove_dir_all(&doomed)?;
    }
    crate::fs::replace(path, &doomed)?;
    crate::fs::remove_dir_all(&doomed)
}

/// Whether the log is one that a snapshot at this place can stand for.
fn fits((number, offset): (u32, u64), wal_dir: &Path) -> Result<bool> {
    let log_path = segment::path(wal_dir, number);
    let log_len = fs::metadata(&log_path).ok().map(|m| m.len());
    let covered = segment::last_checkpoint(wal_dir)?.is_some_and(|(_, last)| last >= number);
    // Prometheus pads the last page before it takes a snapshot. What is beyond the end of the log stands
    // for a log that is gone.
    let fits =
        log_len.is_some_and(|len| offset <= len) && offset.is_multiple_of(crate::wal::PAGE_BYTES as u64);
    Ok(covered || fits)
}

impl Snapshot {
    /// Takes in one record.
    fn take(&mut self, record: &[u8]) -> Result<(), DecodeError> {
        let mut cursor = Cursor::new(record);
        match cursor.u8()? {
            SERIES => self.series.push(decode_series(&mut cursor)?),
            TOMBSTONES => {
                decode_tombstones(&mut cursor, &mut self.tombstones)?;
            }
            EXEMPLARS => record::decode_exemplars_body(cursor, &mut self.exemplars)?,
            _ => return Err(DecodeError { offset: 0, reason: "unsupported snapshot record type" }),
        }
        Ok(())
    }
}

fn decode_series(cursor: &mut Cursor<'_>) -> Result<SnapshotSeries, DecodeError> {
    let series = SeriesRef(cursor.be64()?);
    if series > MAX_REF {
        return Err(cursor.error("series reference is too large"));
    }
    let labels = record::decode_labels(cursor)?;
    cursor.be64()?;
    if cursor.uvarint()? == 0 {
        return Ok(SnapshotSeries { series, labels, chunk: None });
    }
    let (mint, maxt) = (cursor.be64_i64()?, cursor.be64_i64()?);
    let encoding = Encoding::from_code(cursor.u8()?).ok_or(cursor.error("unknown chunk encoding"))?;
    let data = Arc::from(cursor.prefixed()?);
    // The last value follows; the chunk has it too.
    if chunkenc::num_samples(encoding, &data) == 0 || mint > maxt {
        return Err(cursor.error("the chunk is empty"));
    }
    Ok(SnapshotSeries { series, labels, chunk: Some(ClosedChunk { mint, maxt, encoding, data }) })
}

fn decode_tombstones(cursor: &mut Cursor<'_>, out: &mut Vec<RefTombstone>) -> Result<(), DecodeError> {
    let mut list = Cursor::new(cursor.prefixed()?);
    if list.u8()? != TOMBSTONES_VERSION {
        return Err(list.error("unknown version of tombstones"));
    }
    while !list.is_empty() {
        let series = SeriesRef(list.uvarint()?);
        out.push(RefTombstone { series, mint: list.varint()?, maxt: list.varint()? });
    }
    Ok(())
}

impl Head {
    /// Writes a snapshot of the head to the data directory `dir`, and deletes older ones. `end` is the end of
    /// the log, which was closed; nothing may be appended meanwhile, and finished chunks must be on disk. The
    /// write-behind log, of which nothing is in a snapshot, may use `aliases` of series.
    ///
    /// # Errors
    /// If it cannot be written; then older ones are still there.
    pub(crate) fn write_snapshot(
        &self,
        dir: &Path,
        end: (u32, u64),
        aliases: &[(SeriesRef, SeriesRef)],
        segment_bytes: usize,
        compression: Compression,
    ) -> Result<()> {
        let older = list(dir)?;
        if older.last().is_some_and(|(newest, _)| *newest == end) {
            return Ok(());
        }
        let target = path(dir, end);
        let tmp = target.with_added_extension("tmp");
        let written = self.write_snapshot_to(&tmp, end, aliases, segment_bytes, compression);
        if let Err(error) = written {
            // What cannot be removed goes at the next start.
            drop(crate::fs::remove_dir_all(&tmp));
            return Err(error);
        }
        crate::fs::replace(&tmp, &target)?;
        older.iter().try_for_each(|(_, path)| remove(path))
    }

    fn write_snapshot_to(
        &self,
        tmp: &Path,
        end: (u32, u64),
        aliases: &[(SeriesRef, SeriesRef)],
        segment_bytes: usize,
        compression: Compression,
    ) -> Result<()> {
        if tmp.exists() {
            crate::fs::remove_dir_all(tmp)?;
        }
        let mut out =
            Batch { writer: Writer::open(tmp, segment_bytes, compression)?, records: Vec::new(), bytes: 0 };
        let mut result = Ok(());
        self.index.for_each(|series| {
            // Without a series record in the log, a later start that passes over the snapshot would not
            // know the series.
            if result.is_err() || !series.is_logged() {
                return;
            }
            let mut record = begin_series(series.series, &series.labels);
            let open = series.lock().open.as_ref().map(|open| ClosedChunk {
                mint: open.mint,
                maxt: open.maxt(),
                encoding: open.encoding(),
                data: Arc::from(open.bytes()),
            });
            result = put_chunk(&mut record, open.as_ref()).and_then(|()| out.put(record));
        });
        result?;
        for (alias, of) in aliases {
            if let Some(series) = self.index.get(*of).filter(|s| s.is_logged()) {
                let mut record = begin_series(*alias, &series.labels);
                put_chunk(&mut record, None)?;
                out.put(record)?;
            }
        }
        out.put(self.encode_tombstones(end))?;
        self.put_exemplars(&mut out)?;
        out.flush()?;
        out.writer.close()?;
        crate::fs::sync_dir(tmp)
    }

    fn encode_tombstones(&self, end: (u32, u64)) -> Vec<u8> {
        let mut list = vec![TOMBSTONES_VERSION];
        let mut put = |stone: RefTombstone| {
            put_uvarint(&mut list, stone.series.0);
            put_varint(&mut list, stone.mint);
            put_varint(&mut list, stone.maxt);
        };
        for (series, intervals) in self.tombstones.read().iter() {
            intervals.iter().for_each(|(mint, maxt)| put(RefTombstone { series, mint: *mint, maxt: *maxt }));
        }
        put(stamp(self.index.last_ref(), end));
        let mut record = vec![TOMBSTONES];
        put_prefixed(&mut record, list);
        record
    }

    fn put_exemplars(&self, out: &mut Batch) -> Result<()> {
        let mut exemplars = Vec::new();
        self.exemplars.for_each(|labels, exemplar| {
            // One whose series is gone is of no use.
            if let Some(series) = self.index.get_by_labels(labels).filter(|s| s.is_logged()) {
                let labels = exemplar.labels.clone();
                exemplars.push(RefExemplar {
                    series: series.series,
                    t: exemplar.timestamp,
                    v: exemplar.value,
                    labels,
                });
            }
        });
        for batch in exemplars.chunks(EXEMPLARS_PER_RECORD) {
            let mut record = vec![EXEMPLARS];
            record::encode_exemplars_body(&mut record, batch);
            out.put(record)?;
        }
        Ok(())
    }
}

/// Records that are on their way.
struct Batch {
    writer: Writer,
    records: Vec<Vec<u8>>,
    bytes: usize,
}

impl Batch {
    fn put(&mut self, record: Vec<u8>) -> Result<()> {
        self.bytes += record.len();
        self.records.push(record);
        if self.bytes < BATCH_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<()> {
        self.writer.log(self.records.iter().map(Vec::as_slice))?;
        self.records.clear();
        self.bytes = 0;
        Ok(())
    }
}

fn begin_series(series: SeriesRef, labels: &Labels) -> Vec<u8> {
    let mut record = vec![SERIES];
    put_be64(&mut record, series.0);
    record::put_labels(&mut record, labels);
    put_be64(&mut record, 0);
    record
}

/// Appends the open chunk, with its last value behind it.
fn put_chunk(record: &mut Vec<u8>, open: Option<&ClosedChunk>) -> Result<()> {
    let Some(open) = open else {
        record.push(0);
        return Ok(());
    };
    record.push(1);
    put_be64(record, open.mint as u64);
    put_be64(record, open.maxt as u64);
    record.push(open.encoding.code());
    put_prefixed(record, &open.data);
    let mut samples = Decoded::default();
    chunkenc::decode(open.encoding, &open.data, &mut samples)
        .map_err(|e| Error::Invalid(format!("the open chunk of a series cannot be read: {e}")))?;
    match samples.histograms.last().map(|h| &h.histogram) {
        Some(HistogramValue::Integer(h)) => record::put_histogram(record, h),
        Some(HistogramValue::Float(h)) => record::put_float_histogram(record, h),
        None => {
            record.extend_from_slice(&[0; 16 * UNUSED_SAMPLES + 8]);
            put_be_f64(record, samples.values.last().copied().unwrap_or_default());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
