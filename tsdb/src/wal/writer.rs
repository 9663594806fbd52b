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
    /// Calls that failed.
    pub failures: u64,
}

/// Appends records to the newest segment of one log.
///
/// Buffers only within a [`Writer::log`] call, of which all or nothing is in the log when it returns.
///
/// # Failures
/// When there is no room or no permission, the call fails; the next one takes back what of it reached the
/// disk, starts a segment, and goes on: no restart is needed once there is room. After a failed sync, or any
/// other failed write, nothing more is accepted: what the disk holds is not known, and only a restart reads
/// it back.
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
    health: Health,
    stats: WriterStats,
    /// How many bytes there were when the last sync began.
    synced_bytes: u64,
}

/// What a log is to sync; see [`Writer::unsynced`].
#[derive(Debug)]
pub struct Unsynced {
    file: File,
    bytes: u64,
}

impl Unsynced {
    /// Carries the sync out; [`Writer::note_synced`] is to be told what came of it.
    pub fn sync(self) -> Synced {
        let start = Instant::now();
        let result = self.file.sync_data();
        Synced { result, bytes: self.bytes, time: start.elapsed() }
    }
}

/// What came of a sync.
#[derive(Debug)]
#[must_use]
pub struct Synced {
    result: Result<()>,
    bytes: u64,
    time: Duration,
}

impl Synced {
    /// Whether it worked.
    pub fn is_ok(&self) -> bool {
        self.result.is_ok()
    }
}

/// What the log can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    /// A write failed; what is behind the mark is to be taken back before anything else.
    Torn(Mark),
    /// Nothing any more.
    Poisoned,
    Closed,
}

/// End of what was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    segment: u32,
    position: usize,
}

/// Packs records one by one, with working memory that is kept.
enum Packer {
    None,
    Snappy(Box<snap::raw::Encoder>),
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
            Compression::Snappy => Self::Snappy(Box::new(snap::raw::Encoder::new())),
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
        if let Some(last) = last_segment {
            // Crash safety: whoever was killed did not sync it, and nobody will after this. If a power cut
            // tore it, all that follows it would go with the repair, synced or not.
            fs::sync(&segment::path(dir, last))?;
        }
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
            health: Health::Good,
            stats: WriterStats { segment: number, ..WriterStats::default() },
            synced_bytes: 0,
        })
    }

    /// Writes `records` and hands them to the operating system.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after an earlier failure that cannot be taken back; otherwise the I/O error, after
    /// which none of `records` is in the log.
    pub fn log<'a>(&mut self, records: impl IntoIterator<Item = &'a [u8]>) -> Result<()> {
        self.attempt(|writer| {
            for record in records {
                writer.put_record(record)?;
                writer.stats.records += 1;
            }
            writer.flush()
        })
    }

    /// Makes everything logged survive a power cut; does nothing if that is so already.
    ///
    /// # Errors
    /// As [`Writer::log`].
    pub fn sync(&mut self) -> Result<()> {
        if self.is_synced() { Ok(()) } else { self.attempt(Self::sync_file) }
    }

    /// Whether everything logged survives a power cut.
    fn is_synced(&self) -> bool {
        self.health == Health::Good && self.synced_bytes == self.stats.bytes
    }

    /// Whether [`Writer::log`] of `records` may sync what was logged before: it ends the segment, or takes back what a
    /// failed call left. Errs on the safe side.
    pub fn may_sync(&self, records: &[&[u8]]) -> bool {
        let bytes: usize = records.iter().map(|r| r.len() + 2 * HEADER_BYTES).sum();
        let in_pages = bytes + (bytes / PAGE_BYTES + 1) * 2 * HEADER_BYTES;
        self.is_stuck() || self.position + in_pages >= self.segment_bytes
    }

    /// What there is to sync, so that the log need not wait meanwhile; `None` if that is nothing.
    ///
    /// # Errors
    /// As [`Writer::log`].
    pub fn unsynced(&mut self) -> Result<Option<Unsynced>> {
        if self.is_synced() {
            return Ok(None);
        }
        let mut unsynced = None;
        self.attempt(|writer| {
            unsynced = Some(Unsynced { file: writer.file.duplicate()?, bytes: writer.stats.bytes });
            Ok(())
        })?;
        Ok(unsynced)
    }

    /// Takes note of a sync.
    ///
    /// # Errors
    /// That of the sync; nothing more is accepted then.
    pub fn note_synced(&mut self, synced: Synced) -> Result<()> {
        let Synced { result, bytes, time } = synced;
        if let Err(error) = &result {
            self.note_failure(error, self.mark(), true);
            return result;
        }
        self.synced_bytes = self.synced_bytes.max(bytes);
        self.stats.syncs += 1;
        self.stats.sync_time += time;
        Ok(())
    }

    /// Ends the current segment (padded and synced) and starts the next; returns its number.
    ///
    /// # Errors
    /// As [`Writer::log`].
    pub fn next_segment(&mut self) -> Result<u32> {
        self.attempt(Self::start_segment)?;
        Ok(self.stats.segment)
    }

    /// Pads the last page and syncs.
    ///
    /// # Errors
    /// As [`Writer::log`].
    pub fn close(&mut self) -> Result<()> {
        let result = self.attempt(|writer| {
            writer.pad_page();
            writer.flush()?;
            writer.sync_file()
        });
        // Nothing may follow a close, whether it worked or not.
        self.health = Health::Closed;
        result
    }

    /// Whether an earlier failure stopped this log for good.
    pub fn is_poisoned(&self) -> bool {
        self.health == Health::Poisoned
    }

    /// Whether the last call failed for lack of room or permission.
    pub fn is_stuck(&self) -> bool {
        matches!(self.health, Health::Torn(_))
    }

    /// Where the next record goes: segment and offset, bytes.
    pub fn end(&self) -> (u32, u64) {
        (self.stats.segment, self.position as u64)
    }

    /// Carries out one call, and keeps account of whether it worked.
    fn attempt(&mut self, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let torn = match self.health {
            Health::Good => None,
            Health::Torn(mark) => Some(mark),
            Health::Poisoned => return Err(Error::Poisoned),
            Health::Closed => return Err(Error::Closed),
        };
        let mut mark = torn.unwrap_or(self.mark());
        let result = torn.map_or(Ok(()), |torn| self.take_back(torn)).and_then(|()| {
            mark = self.mark();
            act(self)
        });
        match &result {
            Ok(()) => {
                self.health = Health::Good;
                if torn.is_some() {
                    tracing::info!(dir = %self.dir.display(), segment = self.stats.segment,
                        "the log can be written again");
                }
            }
            Err(error) => self.note_failure(error, mark, torn.is_none()),
        }
        result
    }

    fn note_failure(&mut self, error: &Error, mark: Mark, first: bool) {
        self.stats.failures += 1;
        let dir = self.dir.display();
        if !can_be_taken_back(error) {
            self.health = Health::Poisoned;
            tracing::error!(%dir, error = error as &dyn std::error::Error,
                "the log could not be written; nothing more is stored until a restart");
            return;
        }
        self.health = Health::Torn(mark);
        if first {
            tracing::error!(%dir, error = error as &dyn std::error::Error,
                "the log could not be written; nothing is stored until it can be again");
        }
    }

    fn mark(&self) -> Mark {
        Mark { segment: self.stats.segment, position: self.position }
    }

    /// Cuts the log back to `mark` and starts a segment there.
    ///
    /// Crash safety: what is cut off was not acknowledged, so it makes no difference to a restart whether
    /// it is there. From the newest segment on, so that no gap is left.
    fn take_back(&mut self, mark: Mark) -> Result<()> {
        self.pending.clear();
        let newest = segment::list(&self.dir)?.last().copied().unwrap_or(mark.segment);
        for number in (mark.segment + 1..=newest).rev() {
            fs::remove_file(&segment::path(&self.dir, number))?;
        }
        self.stats.segment = mark.segment;
        self.file = File::open(&segment::path(&self.dir, mark.segment))?;
        self.file.set_len(mark.position as u64)?;
        self.file.sync_data()?;
        self.position = mark.position;
        if mark.position == 0 {
            self.file = File::open(&segment::path(&self.dir, mark.segment))?;
            return Ok(());
        }
        // Its last page is short; readers take the rest of it for zeros.
        let number = mark.segment + 1;
        self.file = create_segment(&self.dir, number)?;
        self.position = 0;
        self.stats.segment = number;
        Ok(())
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
        self.synced_bytes = self.stats.bytes;
        self.stats.syncs += 1;
        self.stats.sync_time += start.elapsed();
        Ok(())
    }
}

/// Whether it is known what a failed call left on the disk, and that a later one may work: there was no room
/// or no permission, and no sync failed.
fn can_be_taken_back(error: &Error) -> bool {
    use std::io::ErrorKind;
    let Error::Io { action, source, .. } = error else { return false };
    // A file that cannot be made leaves nothing behind; one that is in the way has to be looked at.
    let made_nothing = matches!(*action, "create" | "open") && source.kind() != ErrorKind::AlreadyExists;
    let refused = matches!(
        source.kind(),
        ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::FileTooLarge
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::PermissionDenied
    );
    *action != "sync" && (made_nothing || refused)
}

fn create_segment(dir: &Path, number: u32) -> Result<File> {
    let path = segment::path(dir, number);
    let file = File::create_new(&path)?;
    // Crash safety: the name must be on disk before records that only this file holds.
    fs::sync_dir(dir)?;
    Ok(file)
}
