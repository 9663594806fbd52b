//! Writes records into pages and segments.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{HEADER_BYTES, PAGE_BYTES, fragment, segment};
use crate::error::{Error, Result};
use crate::fs::{self, File};

/// How records are compressed; smaller wins, record by record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Never.
    None,
    /// Snappy block format, upstream's default.
    #[default]
    Snappy,
    /// zstd: smaller, slower.
    Zstd,
}

/// What a writer has done since it was opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct WriterStats {
    /// Records logged.
    pub records: u64,
    /// Bytes handed to the operating system.
    pub bytes: u64,
    /// Pages that were filled.
    pub pages: u64,
    /// Syncs.
    pub syncs: u64,
    /// Time spent in syncs.
    pub sync_time: Duration,
    /// Number of the segment being written.
    pub segment: u32,
}

/// Appends records to the newest segment of one log.
///
/// Buffers only within a [`Writer::log`] call. After an error nothing more is accepted: what of
/// the last record reached the disk is not known, and only a restart reads it back.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    segment_bytes: usize,
    file: File,
    /// Bytes of the current segment, unwritten ones included.
    position: usize,
    /// Not yet handed to the operating system.
    pending: Vec<u8>,
    compressed: Vec<u8>,
    packer: Packer,
    poisoned: bool,
    stats: WriterStats,
}

/// Packs records one by one, with working memory that is kept.
enum Packer {
    None,
    Snappy(snap::raw::Encoder),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Snappy(_) => "Snappy",
            Self::Zstd(_) => "Zstd",
        })
    }
}

impl Packer {
    fn new(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None,
            Compression::Snappy => Self::Snappy(snap::raw::Encoder::new()),
            // Without working memory for zstd, records stay as they are: every reader takes that.
            Compression::Zstd => {
                zstd::bulk::Compressor::new(zstd::DEFAULT_COMPRESSION_LEVEL).map_or(Self::None, Self::Zstd)
            }
        }
    }

    /// Flag and length of the packed form in `out`, if that is smaller.
    fn pack(&mut self, record: &[u8], out: &mut Vec<u8>) -> Option<(u8, usize)> {
        let room = match self {
            Self::None => return None,
            Self::Snappy(_) => snap::raw::max_compress_len(record.len()),
            Self::Zstd(_) => zstd::zstd_safe::compress_bound(record.len()),
        };
        if out.len() < room {
            out.resize(room, 0);
        }
        let (flag, length) = match self {
            Self::None => return None,
            Self::Snappy(encoder) => (fragment::SNAPPY, encoder.compress(record, out).ok()?),
            Self::Zstd(encoder) => {
                (fragment::ZSTD, encoder.compress_to_buffer(record, out.as_mut_slice()).ok()?)
            }
        };
        (length < record.len()).then_some((flag, length))
    }
}

impl Writer {
    /// Starts a new segment after the newest in `dir`, and after the newest checkpoint.
    ///
    /// # Errors
    /// If `segment_bytes` is not a positive multiple of the page, or files cannot be made.
    pub fn open(dir: &Path, segment_bytes: usize, compression: Compression) -> Result<Self> {
        if segment_bytes == 0 || !segment_bytes.is_multiple_of(PAGE_BYTES) {
            return Err(Error::Invalid(format!(
                "wal segment size {segment_bytes} is not a multiple of the page size {PAGE_BYTES}"
            )));
        }
        fs::create_dir_all(dir)?;
        let last_segment = segment::list(dir)?.last().copied();
        let last_checkpoint = segment::last_checkpoint(dir)?.map(|(_, n)| n);
        let number = last_segment.max(last_checkpoint).map_or(0, |n| n + 1);
        Self::create(dir, number, segment_bytes, compression)
    }

    /// Starts with segment `number`, which must not exist.
    pub(super) fn create(
        dir: &Path,
        number: u32,
        segment_bytes: usize,
        compression: Compression,
    ) -> Result<Self> {
        let file = create_segment(dir, number)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            segment_bytes,
            file,
            position: 0,
            pending: Vec::new(),
            compressed: Vec::new(),
            packer: Packer::new(compression),
            poisoned: false,
            stats: WriterStats { segment: number, ..WriterStats::default() },
        })
    }

    /// Writes `records` and hands them to the operating system.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after an earlier failure; otherwise the I/O error, which poisons.
    pub fn log<'a>(&mut self, records: impl IntoIterator<Item = &'a [u8]>) -> Result<()> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        let result = self.try_log(records);
        self.note(result)
    }

    /// Poisons the log if `result` is an error, and says so; the checks before make it once.
    fn note(&mut self, result: Result<()>) -> Result<()> {
        if let Err(error) = &result {
            self.poisoned = true;
            tracing::error!(dir = %self.dir.display(), error = error as &dyn std::error::Error,
                "the write-ahead log could not be written; nothing more is stored until a restart");
        }
        result
    }

    fn try_log<'a>(&mut self, records: impl IntoIterator<Item = &'a [u8]>) -> Result<()> {
        for record in records {
            self.put_record(record)?;
            self.stats.records += 1;
        }
        self.flush()
    }

    /// Makes everything logged survive a power cut.
    ///
    /// # Errors
    /// As [`Writer::log`].
    pub fn sync(&mut self) -> Result<()> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        let result = self.sync_file();
        self.note(result)
    }

    /// Ends the current segment (padded and synced) and starts the next; returns its number.
    ///
    /// # Errors
    /// As [`Writer::log`].
    pub fn next_segment(&mut self) -> Result<u32> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        let result = self.start_segment();
        self.note(result).map(|()| self.stats.segment)
    }

    /// Pads the last page and syncs.
    ///
    /// # Errors
    /// As [`Writer::log`].
    pub fn close(&mut self) -> Result<()> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        self.pad_page();
        let result = self.flush().and_then(|()| self.sync_file());
        // Nothing may follow a close, whether it worked or not.
        self.poisoned = true;
        result
    }

    /// Whether an earlier failure stopped this log.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Counters.
    pub fn stats(&self) -> WriterStats {
        self.stats
    }

    /// Directory of the log.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes every later write fail.
    #[cfg(test)]
    pub(super) fn break_file(&mut self) {
        self.file.break_writes();
    }

    fn put_record(&mut self, record: &[u8]) -> Result<()> {
        let mut compressed = std::mem::take(&mut self.compressed);
        let result = match self.packer.pack(record, &mut compressed) {
            Some((flag, length)) => self.put_fragments(&compressed[..length], flag),
            None => self.put_fragments(record, 0),
        };
        self.compressed = compressed;
        result
    }

    fn put_fragments(&mut self, mut rest: &[u8], compression: u8) -> Result<()> {
        if self.page_left() < HEADER_BYTES {
            self.pad_page();
        }
        let pages_after = (self.segment_bytes / PAGE_BYTES).saturating_sub(self.position / PAGE_BYTES + 1);
        let room = (self.page_left() - HEADER_BYTES) + pages_after * (PAGE_BYTES - HEADER_BYTES);
        // A record longer than a whole segment makes one long segment of its own.
        if self.position >= self.segment_bytes || (rest.len() > room && self.position > 0) {
            self.start_segment()?;
        }
        let mut first = true;
        loop {
            if self.page_left() < HEADER_BYTES {
                self.pad_page();
            }
            let (part, tail) = rest.split_at(rest.len().min(self.page_left() - HEADER_BYTES));
            let kind = match (first, tail.is_empty()) {
                (true, true) => fragment::FULL,
                (true, false) => fragment::FIRST,
                (false, true) => fragment::LAST,
                (false, false) => fragment::MIDDLE,
            };
            self.pending.push(kind | compression);
            self.pending.extend_from_slice(&(part.len() as u16).to_be_bytes());
            self.pending.extend_from_slice(&crc32c::crc32c(part).to_be_bytes());
            self.pending.extend_from_slice(part);
            self.position += HEADER_BYTES + part.len();
            rest = tail;
            first = false;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    fn page_left(&self) -> usize {
        PAGE_BYTES - self.position % PAGE_BYTES
    }

    /// Fills the started page with zeros.
    fn pad_page(&mut self) {
        let used = self.position % PAGE_BYTES;
        if used > 0 {
            let padding = PAGE_BYTES - used;
            self.pending.resize(self.pending.len() + padding, 0);
            self.position += padding;
            self.stats.pages += 1;
        }
    }

    fn start_segment(&mut self) -> Result<()> {
        self.pad_page();
        self.flush()?;
        self.sync_file()?;
        let number = self.stats.segment + 1;
        self.file = create_segment(&self.dir, number)?;
        self.position = 0;
        self.stats.segment = number;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if !self.pending.is_empty() {
            self.file.write_all(&self.pending)?;
            self.stats.bytes += self.pending.len() as u64;
            self.pending.clear();
        }
        Ok(())
    }

    fn sync_file(&mut self) -> Result<()> {
        let start = Instant::now();
        self.file.sync_data()?;
        self.stats.syncs += 1;
        self.stats.sync_time += start.elapsed();
        Ok(())
    }
}

fn create_segment(dir: &Path, number: u32) -> Result<File> {
    let path = segment::path(dir, number);
    let file = File::create_new(&path)?;
    // Crash safety: the name must be on disk before records that only this file holds.
    fs::sync_dir(dir)?;
    Ok(file)
}
