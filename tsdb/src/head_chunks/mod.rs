//! Finished chunks of the head on disk: `chunks_head/000001`, `000002`, …, mapped into memory.
//!
//! Keeps the head small: it holds a reference and a time range where it held bytes. Nothing here is
//! the only copy of a sample: the log has the in-order ones, the write-behind log the others, until a
//! block has them. So nothing is synced before a file ends. There are two exceptions, as a start then does not read all
//! of the logs: a snapshot of the head, and late samples that went to blocks: [`HeadChunks::close_durably`].
//!
//! # Format
//! `docs/format/head_chunks.md`. Eight bytes of header, then entries: series reference, time range, encoding
//! with a bit for out of order, length, data, CRC-32C. What follows the last entry is zero.
//!
//! # Invariants
//! Files are numbered without a gap, and a file that a process did not create is never continued.
//! [`HeadChunkRef`]s grow in the order of writing. An entry that has a reference is readable.
//!
//! # Concurrency
//! Writers take turns. Reads go through [`Files`], which keep files readable after they are deleted.
//!
//! # Errors
//! Opening drops the first damaged file and all after it ([`Loaded::damage`]): the logs bring back what
//! they held. Reading an entry reports damage with file and offset.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/chunks/head_chunks.go>

mod load;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use parking_lot::{Mutex, RwLock};

use crate::chunkenc::Encoding;
use crate::encoding::{Cursor, put_be64, put_uvarint};
use crate::error::{Error, Result};
use crate::fs::{self, FileWriter};
use crate::sample::{SeriesRef, TimestampMs};

pub use load::Loaded;

const MAGIC: u32 = 0x0130_BC91;
const VERSION: u8 = 1;
const HEADER: [u8; 8] = {
    let m = MAGIC.to_be_bytes();
    [m[0], m[1], m[2], m[3], VERSION, 0, 0, 0]
};
/// Reference, mint, maxt, encoding, the longest length and the checksum.
const MAX_ENTRY_OVERHEAD: usize = 8 + 8 + 8 + 1 + 5 + 4;
const OUT_OF_ORDER: u8 = 0x80;

/// Size at which a file is closed, bytes.
pub const FILE_BYTES: u64 = 128 << 20;

/// Where an entry lies: `number of the file << 32 | byte offset`. Zero is no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HeadChunkRef(pub u64);

impl HeadChunkRef {
    /// A reference from its parts.
    pub fn new(file: u32, offset: u32) -> Self {
        Self(u64::from(file) << 32 | u64::from(offset))
    }

    /// Number of the file, from 1.
    pub fn file(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Byte offset of the entry in the file.
    pub fn offset(self) -> u32 {
        self.0 as u32
    }
}

/// A chunk on its way to disk; `[mint, maxt]`.
#[derive(Debug, Clone, Copy)]
pub struct NewChunk<'a> {
    /// Series that it belongs to.
    pub series: SeriesRef,
    /// Oldest sample, ms.
    pub mint: TimestampMs,
    /// Newest sample, ms.
    pub maxt: TimestampMs,
    /// How `data` is encoded.
    pub encoding: Encoding,
    /// Whether its samples came out of order.
    pub out_of_order: bool,
    /// The encoded samples.
    pub data: &'a [u8],
}

/// What the head keeps of a chunk on disk; `[mint, maxt]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedChunk {
    /// Where it is.
    pub at: HeadChunkRef,
    /// Oldest sample, ms.
    pub mint: TimestampMs,
    /// Newest sample, ms.
    pub maxt: TimestampMs,
    /// Number of samples.
    pub samples: u16,
    /// How it is encoded.
    pub encoding: Encoding,
}

impl MappedChunk {
    /// Whether it may hold samples in `[mint, maxt]`.
    pub fn overlaps(&self, mint: TimestampMs, maxt: TimestampMs) -> bool {
        self.mint <= maxt && self.maxt >= mint
    }
}

/// The directory `chunks_head/` in use.
#[derive(Debug)]
pub struct HeadChunks {
    dir: PathBuf,
    file_bytes: u64,
    files: RwLock<Files>,
    current: Mutex<Current>,
}

/// Where the next chunk goes.
#[derive(Debug)]
struct Current {
    /// Number of the newest file there ever was.
    last: u32,
    /// The file being written; `None` before the first write and after a cut.
    writer: Option<FileWriter>,
    /// Entries of a batch.
    buffer: Vec<u8>,
    /// Files that nobody may have synced: a process that was killed left them, or a write to them failed.
    unsynced: Vec<u32>,
}

/// A file in memory.
#[derive(Debug, Clone)]
struct MappedFile {
    path: PathBuf,
    /// As long as a file may get; only what was written is ever touched.
    map: Arc<Mmap>,
}

/// The files as they were at one instant; what they held then stays readable as long as this lives.
#[derive(Debug, Clone, Default)]
pub struct Files(Arc<BTreeMap<u32, MappedFile>>);

impl Files {
    /// Data of the chunk at `at`, checked.
    ///
    /// # Errors
    /// If there is no such entry, or it is damaged.
    pub fn chunk(&self, at: HeadChunkRef) -> Result<&[u8]> {
        let Some(file) = self.0.get(&at.file()) else {
            return Err(Error::corrupt(
                format!("{:06}", at.file()),
                0,
                "there is no such file of head chunks",
            ));
        };
        let entry = parse(&file.map, at.offset() as usize).map_err(|e| e.in_file(&file.path, 0))?;
        Ok(&file.map[entry.data])
    }
}

/// Files that lost their place in the directory's list, to be deleted.
#[derive(Debug)]
#[must_use]
pub struct Forgotten(Vec<PathBuf>);

impl HeadChunks {
    /// Writes chunks and gives their references, in the same order.
    ///
    /// # Errors
    /// If the operating system refuses; then none of the chunks has a reference, and the next write goes
    /// to a new file.
    pub fn write<'a>(&self, chunks: impl IntoIterator<Item = NewChunk<'a>>) -> Result<Vec<HeadChunkRef>> {
        let mut current = self.current.lock();
        let mut refs = Vec::new();
        let mut buffer = std::mem::take(&mut current.buffer);
        buffer.clear();
        let result = chunks.into_iter().try_for_each(|chunk| {
            let ends = current.position() + (buffer.len() + MAX_ENTRY_OVERHEAD + chunk.data.len()) as u64;
            if current.writer.is_none() || ends > self.file_bytes {
                self.write_out(&mut current, &mut buffer)?;
                self.cut(&mut current)?;
            }
            let offset = current.position() + buffer.len() as u64;
            refs.push(HeadChunkRef::new(current.last, offset as u32));
            put_entry(&mut buffer, &chunk);
            Ok(())
        });
        let result = result.and_then(|()| self.write_out(&mut current, &mut buffer));
        current.buffer = buffer;
        result.map(|()| refs)
    }

    /// Hands what was put to the operating system.
    fn write_out(&self, current: &mut Current, buffer: &mut Vec<u8>) -> Result<()> {
        let Some(writer) = current.writer.as_mut().filter(|_| !buffer.is_empty()) else { return Ok(()) };
        let good = writer.position();
        let result = writer.write(buffer).and_then(|()| writer.flush());
        buffer.clear();
        if result.is_err() {
            // What was torn would cost this file and all after it at the next start.
            let path = writer.path().to_path_buf();
            current.writer = None;
            current.unsynced.push(current.last);
            if let Err(error) = fs::shorten(&path, good) {
                tracing::warn!(path = %path.display(), %error, "cannot take back a failed write");
            }
        }
        result
    }

    /// Ends the current file and begins the next.
    fn cut(&self, current: &mut Current) -> Result<()> {
        current.end()?;
        fs::create_dir_all(&self.dir)?;
        let number = current.last + 1;
        let path = file_path(&self.dir, number);
        // Crash safety: Prometheus does not start with a file whose header is torn.
        fs::write_atomic(&path, &HEADER)?;
        let writer = FileWriter::open(&path)?;
        let map = fs::map_growing(&path, self.file_bytes)?;
        Arc::make_mut(&mut self.files.write().0).insert(number, MappedFile { path, map: Arc::new(map) });
        current.last = number;
        current.writer = Some(writer);
        Ok(())
    }

    /// The files as they are now.
    pub fn files(&self) -> Files {
        self.files.read().clone()
    }

    /// A reference that all entries so far are at or before, and that the next entry will exceed.
    pub fn last_ref(&self) -> HeadChunkRef {
        let current = self.current.lock();
        let end = current.writer.as_ref().map_or(u64::MAX, |writer| writer.position() - 1);
        HeadChunkRef::new(current.last, end.min(u64::from(u32::MAX)) as u32)
    }

    /// Forgets files numbered below `first_needed`, and begins a new file at the next write.
    ///
    /// # Errors
    /// If the operating system refuses to end the current file.
    pub fn forget(&self, first_needed: u32) -> Result<Forgotten> {
        let mut current = self.current.lock();
        let open = current.writer.as_ref().map(|_| current.last);
        // As upstream: the next truncation can then delete what is written up to now.
        if current.position() > HEADER.len() as u64 {
            current.end()?;
        }
        let mut forgotten = Vec::new();
        let mut files = self.files.write();
        Arc::make_mut(&mut files.0).retain(|number, file| {
            let keep = *number >= first_needed || Some(*number) == open;
            if !keep {
                forgotten.push(file.path.clone());
            }
            keep
        });
        Ok(Forgotten(forgotten))
    }

    /// Deletes what [`HeadChunks::forget`] gave, oldest first.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn delete(&self, forgotten: &Forgotten) -> Result<()> {
        forgotten.0.iter().try_for_each(|path| fs::remove_file(path))
    }

    /// Syncs and closes the file being written.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn close(&self) -> Result<()> {
        self.current.lock().end()
    }

    /// Closes the file being written, and makes all files durable, whoever wrote them.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn close_durably(&self) -> Result<()> {
        self.close()?;
        let unsynced = self.current.lock().unsynced.clone();
        let files = self.files();
        let paths = unsynced.iter().filter_map(|number| files.0.get(number)).map(|file| &file.path);
        paths.into_iter().try_for_each(|path| fs::sync(path))?;
        self.current.lock().unsynced.retain(|number| !unsynced.contains(number));
        // Files there are only in a directory that there is.
        if files.0.is_empty() { Ok(()) } else { fs::sync_dir(&self.dir) }
    }

    /// Bytes of all files.
    pub fn size_bytes(&self) -> u64 {
        fs::dir_size(&self.dir)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Current {
    /// Syncs and closes the file being written.
    fn end(&mut self) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        writer.finish().inspect_err(|_| self.unsynced.push(self.last))
    }

    fn position(&self) -> u64 {
        self.writer.as_ref().map_or(0, FileWriter::position)
    }
}

fn file_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:06}"))
}

fn put_entry(out: &mut Vec<u8>, chunk: &NewChunk<'_>) {
    let start = out.len();
    put_be64(out, chunk.series.0);
    put_be64(out, chunk.mint as u64);
    put_be64(out, chunk.maxt as u64);
    out.push(chunk.encoding.code() | if chunk.out_of_order { OUT_OF_ORDER } else { 0 });
    put_uvarint(out, chunk.data.len() as u64);
    out.extend_from_slice(chunk.data);
    let crc = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&crc.to_be_bytes());
}

/// An entry as it lies in a file.
#[derive(Debug)]
struct Entry {
    series: SeriesRef,
    mint: TimestampMs,
    maxt: TimestampMs,
    /// With the out-of-order bit.
    encoding: u8,
    data: Range<usize>,
    /// Where the next entry begins.
    end: usize,
}

/// Reads the entry at `offset` of a file, and checks it.
fn parse(bytes: &[u8], offset: usize) -> Result<Entry, crate::encoding::DecodeError> {
    let mut cursor = Cursor::at(bytes, offset);
    let series = SeriesRef(cursor.be64()?);
    let (mint, maxt) = (cursor.be64_i64()?, cursor.be64_i64()?);
    let encoding = cursor.u8()?;
    let data = cursor.prefixed()?.len();
    let end = cursor.offset();
    let expected = cursor.be32()?;
    if !crate::encoding::checksum_fits(crc32c::crc32c(&bytes[offset..end]), expected) {
        return Err(crate::encoding::DecodeError {
            offset,
            reason: "checksum of a head chunk does not match",
        });
    }
    Ok(Entry { series, mint, maxt, encoding, data: end - data..end, end: cursor.offset() })
}
