//! Writes chunk segments.

use std::path::{Path, PathBuf};

use super::{ChunkMeta, ChunkRef, ChunkView, HEADER_LEN, MAGIC, VERSION};
use crate::encoding::{MAX_VARINT_LEN, crc32c, put_be32, put_uvarint};
use crate::error::{Error, Result};
use crate::fs::{self, FileWriter};

/// Appends chunks to numbered segments in one directory.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    segment_bytes: u64,
    /// Number of segments begun.
    segments: u32,
    file: Option<FileWriter>,
    buffer: Vec<u8>,
    written: u64,
}

impl Writer {
    /// Makes the directory. A segment is closed before it would grow past `segment_bytes`
    /// (usually [`super::SEGMENT_BYTES`]).
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn create(dir: &Path, segment_bytes: u64) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let segment_bytes = segment_bytes.min(u64::from(u32::MAX));
        Ok(Self {
            dir: dir.to_owned(),
            segment_bytes,
            segments: 0,
            file: None,
            buffer: Vec::new(),
            written: 0,
        })
    }

    /// Appends one chunk and says where it went.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn write(&mut self, chunk: ChunkView<'_>) -> Result<ChunkMeta> {
        self.buffer.clear();
        put_uvarint(&mut self.buffer, chunk.bytes.len() as u64);
        let start = self.buffer.len();
        self.buffer.push(chunk.encoding.code());
        self.buffer.extend_from_slice(chunk.bytes);
        let crc = crc32c(&self.buffer[start..]);
        put_be32(&mut self.buffer, crc);
        if self.buffer.len() as u64 + HEADER_LEN + MAX_VARINT_LEN as u64 > u64::from(u32::MAX) {
            return Err(Error::Invalid(format!("a chunk of {} bytes is too large", chunk.bytes.len())));
        }
        let full = self.file.as_ref().is_none_or(|f| {
            f.position() > HEADER_LEN && f.position() + self.buffer.len() as u64 > self.segment_bytes
        });
        if full {
            self.next_segment()?;
        }
        let Some(file) = &mut self.file else {
            return Err(Error::Invalid("no chunk segment is open".to_owned()));
        };
        let reference = ChunkRef::new(self.segments - 1, file.position() as u32);
        file.write(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        Ok(ChunkMeta { mint: chunk.mint, maxt: chunk.maxt, reference })
    }

    fn next_segment(&mut self) -> Result<()> {
        if let Some(file) = self.file.take() {
            file.finish()?;
        }
        self.segments += 1;
        let mut file = FileWriter::create(self.dir.join(format!("{:06}", self.segments)))?;
        let [a, b, c, d] = MAGIC.to_be_bytes();
        file.write(&[a, b, c, d, VERSION, 0, 0, 0])?;
        self.file = Some(file);
        Ok(())
    }

    /// Bytes of entries written, without segment headers.
    pub fn bytes_written(&self) -> u64 {
        self.written
    }

    /// Syncs everything.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn finish(mut self) -> Result<()> {
        if let Some(file) = self.file.take() {
            file.finish()?;
        }
        fs::sync_dir(&self.dir)
    }
}
