//! Reads chunk segments.

use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::{ChunkRef, HEADER_LEN, MAGIC, VERSION};
use crate::chunkenc::{Encoding, num_samples};
use crate::encoding::{Cursor, checksum_fits, crc32c};
use crate::error::{Error, Result};
use crate::fs;
use crate::prefetch::prefetch;

/// Bytes from the start of a chunk that are asked for beforehand: most of a usual chunk. What is behind them comes by
/// itself, as the processor sees that memory is read in order.
const AHEAD: usize = 256;

/// All chunk segments of a block, mapped.
#[derive(Debug)]
pub struct Reader {
    segments: Vec<Segment>,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    map: Mmap,
}

impl Reader {
    /// Maps `000001` and on from `dir` and checks their headers. No directory is no chunks.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a header is not that of a chunk segment, or a number is missing.
    pub fn open(dir: &Path) -> Result<Self> {
        let mut names = Vec::new();
        match std::fs::read_dir(dir) {
            Ok(entries) => {
                for entry in entries {
                    let name = entry.map_err(Error::io("list", dir))?.file_name();
                    names.extend(name.to_str().and_then(|n| n.parse::<u32>().ok()).map(|n| (n, name)));
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("list", dir)(e)),
        }
        names.sort();
        let mut segments = Vec::with_capacity(names.len());
        for (i, (number, name)) in names.into_iter().enumerate() {
            let path = dir.join(name);
            // A reference counts segments in order, so a gap would shift all that follow.
            if number as usize != i + 1 {
                return Err(Error::corrupt(path, 0, format!("chunk segment {:06} is missing", i + 1)));
            }
            segments.push(Segment::open(path)?);
        }
        Ok(Self { segments })
    }

    /// Encoding and data of a chunk, after its checksum was verified.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is no sound chunk at that place.
    pub fn chunk(&self, reference: ChunkRef) -> Result<(Encoding, &[u8])> {
        let segment = self.segment(reference)?;
        segment.entry(reference.offset())
    }

    /// Starts to load the begin of a chunk that is about to be read. A reference may lead anywhere.
    #[inline]
    pub(crate) fn prefetch(&self, reference: ChunkRef) {
        const LINE: usize = 64;
        if let Some(segment) = self.segments.get(reference.segment() as usize) {
            let start = segment.map.as_ptr().wrapping_add(reference.offset() as usize);
            (0..AHEAD / LINE).for_each(|line| prefetch(start.wrapping_add(line * LINE)));
        }
    }

    /// Encoding and number of samples of a chunk, without looking at the rest of it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is no chunk header at that place.
    pub fn header(&self, reference: ChunkRef) -> Result<(Encoding, u16)> {
        let segment = self.segment(reference)?;
        let offset = reference.offset();
        let mut cursor = Cursor::at(&segment.map, offset as usize);
        let read = cursor.uvarint32().and_then(|len| cursor.bytes(len as usize + 1));
        let body = read.map_err(|e| Error::corrupt(&segment.path, u64::from(offset), e.reason))?;
        segment.split(offset, body).map(|(encoding, data)| (encoding, num_samples(encoding, data)))
    }

    /// The file that a reference points into.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is no such segment.
    pub fn file(&self, reference: ChunkRef) -> Result<&Path> {
        Ok(&self.segment(reference)?.path)
    }

    fn segment(&self, reference: ChunkRef) -> Result<&Segment> {
        self.segments.get(reference.segment() as usize).ok_or_else(|| {
            let last = self.segments.last().map(|s| s.path.clone()).unwrap_or_default();
            let number = reference.segment() + 1;
            Error::corrupt(last, 0, format!("a chunk lies in segment {number:06}, which does not exist"))
        })
    }

    /// Size of all segments, bytes.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.map.len() as u64).sum()
    }
}

impl Segment {
    fn open(path: PathBuf) -> Result<Self> {
        let map = fs::map(&path)?;
        let mut cursor = Cursor::new(&map);
        let header = cursor.be32().and_then(|magic| Ok((magic, cursor.u8()?, cursor.bytes(3)?)));
        match header {
            Ok((MAGIC, VERSION, _)) => Ok(Self { path, map }),
            Ok((MAGIC, version, _)) => {
                Err(Error::Unsupported(format!("chunk segment version {version} of {}", path.display())))
            }
            Ok((magic, ..)) => {
                Err(Error::corrupt(path, 0, format!("magic is {magic:08x}, a chunk segment has {MAGIC:08x}")))
            }
            Err(e) => Err(e.in_file(&path, 0)),
        }
    }

    fn entry(&self, offset: u32) -> Result<(Encoding, &[u8])> {
        let corrupt = |reason: String| Error::corrupt(&self.path, u64::from(offset), reason);
        if u64::from(offset) < HEADER_LEN {
            return Err(corrupt("a chunk cannot lie in the header".to_owned()));
        }
        let mut cursor = Cursor::at(&self.map, offset as usize);
        let read = cursor.uvarint32().and_then(|len| {
            let body = cursor.bytes(len as usize + 1)?;
            Ok((body, cursor.be32()?))
        });
        let (body, expected) = read.map_err(|e| corrupt(e.reason.to_owned()))?;
        let found = crc32c(body);
        if !checksum_fits(found, expected) {
            return Err(corrupt(format!("chunk checksum is {found:08x}, expected {expected:08x}")));
        }
        self.split(offset, body)
    }

    /// Encoding and data from the body of the entry at `offset`.
    fn split<'a>(&self, offset: u32, body: &'a [u8]) -> Result<(Encoding, &'a [u8])> {
        let corrupt = |reason: String| Error::corrupt(&self.path, u64::from(offset), reason);
        let Some((code, data)) = body.split_first() else {
            return Err(corrupt("chunk has no encoding".to_owned()));
        };
        let encoding = Encoding::from_code(*code)
            .ok_or_else(|| corrupt(format!("chunk encoding {code} is not known")))?;
        Ok((encoding, data))
    }
}
