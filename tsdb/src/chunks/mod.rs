//! Chunk segments of a block: `chunks/000001`, `000002`, …
//!
//! # Format
//! `docs/format/chunks.md`. Eight bytes of header, then entries of length, encoding, data and CRC-32C.
//!
//! # Concurrency
//! Segments are mapped once and never change; a [`Reader`] is shared freely.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/chunks/chunks.go>

mod reader;
mod writer;

use crate::chunkenc::Encoding;
use crate::sample::TimestampMs;

pub use reader::Reader;
pub use writer::Writer;

const MAGIC: u32 = 0x85BD_40DD;
const VERSION: u8 = 1;
const HEADER_LEN: u64 = 8;
/// Size at which a segment is closed, bytes.
pub const SEGMENT_BYTES: u64 = 512 << 20;

/// Where a chunk lies: `segment (0-based) << 32 | byte offset in the segment`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ChunkRef(pub u64);

impl ChunkRef {
    /// A reference from its parts.
    pub fn new(segment: u32, offset: u32) -> Self {
        Self(u64::from(segment) << 32 | u64::from(offset))
    }

    /// Index of the segment; file `000001` is 0.
    pub fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Byte offset of the entry in its segment.
    pub fn offset(self) -> u32 {
        self.0 as u32
    }
}

/// What the index says about a chunk. Both times are included: `[mint, maxt]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkMeta {
    /// Oldest sample, ms.
    pub mint: TimestampMs,
    /// Newest sample, ms.
    pub maxt: TimestampMs,
    /// Where its data is.
    pub reference: ChunkRef,
}

impl ChunkMeta {
    /// Whether it may hold samples in `[mint, maxt]`.
    #[inline]
    pub fn overlaps(&self, mint: TimestampMs, maxt: TimestampMs) -> bool {
        self.mint <= maxt && mint <= self.maxt
    }
}

/// A chunk whose data lies elsewhere. Both times are included: `[mint, maxt]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkView<'a> {
    /// Oldest sample, ms.
    pub mint: TimestampMs,
    /// Newest sample, ms.
    pub maxt: TimestampMs,
    /// How `bytes` is encoded.
    pub encoding: Encoding,
    /// The encoded samples.
    pub bytes: &'a [u8],
}

/// A chunk with its data. Both times are included: `[mint, maxt]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkData {
    /// Oldest sample, ms.
    pub mint: TimestampMs,
    /// Newest sample, ms.
    pub maxt: TimestampMs,
    /// How `bytes` is encoded.
    pub encoding: Encoding,
    /// The encoded samples.
    pub bytes: Vec<u8>,
}

impl ChunkData {
    /// The same without its own data.
    pub fn view(&self) -> ChunkView<'_> {
        let Self { mint, maxt, encoding, ref bytes } = *self;
        ChunkView { mint, maxt, encoding, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunkenc::xor;
    use crate::error::Error;
    use crate::sample::Sample;

    fn chunk(i: i64) -> ChunkData {
        let bytes = xor::encode((0..10 + i).map(|k| Sample { t: i * 100 + k, v: k as f64 }));
        ChunkData { mint: i * 100, maxt: i * 100 + 9 + i, encoding: Encoding::Xor, bytes }
    }

    fn write(dir: &std::path::Path, segment_bytes: u64) -> Vec<ChunkMeta> {
        let mut writer = Writer::create(dir, segment_bytes).unwrap();
        let metas = (0..50).map(|i| writer.write(chunk(i).view()).unwrap()).collect();
        writer.finish().unwrap();
        metas
    }

    #[test]
    fn chunks_are_read_where_they_were_written_across_segments() {
        let dir = tempfile::tempdir().unwrap();
        let metas = write(dir.path(), 300);
        assert!(metas[49].reference.segment() > 3);
        assert_eq!(metas[0].reference, ChunkRef::new(0, 8));
        let reader = Reader::open(dir.path()).unwrap();
        for (i, meta) in metas.iter().enumerate() {
            let expected = chunk(i as i64);
            assert_eq!(reader.chunk(meta.reference).unwrap(), (Encoding::Xor, expected.bytes.as_slice()));
        }
    }

    #[test]
    fn a_flipped_bit_is_reported_with_file_and_offset() {
        let dir = tempfile::tempdir().unwrap();
        let metas = write(dir.path(), SEGMENT_BYTES);
        let path = dir.path().join("000001");
        let mut bytes = std::fs::read(&path).unwrap();
        let at = metas[7].reference.offset() as usize + 4;
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let reader = Reader::open(dir.path()).unwrap();
        assert!(reader.chunk(metas[6].reference).is_ok());
        match reader.chunk(metas[7].reference).unwrap_err() {
            Error::Corrupt { file, offset, reason } => {
                assert_eq!((file, offset), (path, u64::from(metas[7].reference.offset())));
                assert!(reason.contains("checksum"), "{reason}");
            }
            e => panic!("{e}"),
        }
    }

    #[test]
    fn references_to_nowhere_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), SEGMENT_BYTES);
        let reader = Reader::open(dir.path()).unwrap();
        for (segment, offset) in [(1, 8), (0, u32::MAX), (0, 9), (0, 0)] {
            assert!(reader.chunk(ChunkRef::new(segment, offset)).is_err(), "{segment} {offset}");
        }
    }

    #[test]
    fn a_segment_with_another_magic_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("000001"), [0; 8]).unwrap();
        assert!(matches!(Reader::open(dir.path()), Err(Error::Corrupt { offset: 0, .. })));
    }
}
