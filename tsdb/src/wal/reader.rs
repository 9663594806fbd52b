//! Reads records back: joins fragments, checks sums, names the place of damage.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::ops::RangeInclusive;
use std::path::Path;

use super::{Corruption, HEADER_BYTES, PAGE_BYTES, ReadError, fragment, segment};
use crate::error::{Error, Result};

/// A record may not unpack to more than this; upstream's largest are some MiB.
const MAX_RECORD_BYTES: usize = 256 * 1024 * 1024;

/// Records of one segment, in order.
///
/// Never panics, whatever the bytes. After damage or the end it gives nothing more.
#[derive(Debug)]
pub struct SegmentReader<R> {
    source: R,
    number: u32,
    page: Box<[u8]>,
    /// Bytes of `page` that were read; the rest of a short last page counts as zero.
    page_len: usize,
    /// Offset of `page` in the segment.
    page_offset: u64,
    /// Next byte of `page`.
    at: usize,
    /// Fragments of the current record, as stored.
    stored: Vec<u8>,
    unpacked: Vec<u8>,
    /// Offset behind the last good record.
    good: u64,
    done: bool,
}

/// A problem inside a segment, before it is given its place.
enum Fault {
    Bad(String),
    Io(io::Error),
}

impl<R: Read> SegmentReader<R> {
    /// Reads segment `number` from `source`.
    pub fn new(source: R, number: u32) -> Self {
        Self {
            source,
            number,
            page: vec![0; PAGE_BYTES].into_boxed_slice(),
            page_len: 0,
            page_offset: 0,
            at: PAGE_BYTES,
            stored: Vec::new(),
            unpacked: Vec::new(),
            good: 0,
            done: false,
        }
    }

    /// As [`SegmentReader::new`], for a source that stands at `offset` of the segment, where a page starts.
    pub fn at_page(source: R, number: u32, offset: u64) -> Self {
        Self { page_offset: offset, good: offset, ..Self::new(source, number) }
    }

    /// Number of the segment.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Offset behind the last record that was read, where the next one (or padding) starts.
    pub fn offset(&self) -> u64 {
        self.good
    }

    /// The next record, unpacked; `None` at the end.
    ///
    /// # Errors
    /// [`Corruption`] that starts at [`SegmentReader::offset`], or an I/O error.
    pub fn next_record(&mut self) -> Option<Result<&[u8], ReadError>> {
        if self.done {
            return None;
        }
        match self.read_record() {
            Ok(Some(compression)) => {
                self.good = self.page_offset + self.at as u64;
                let bytes = if compression == 0 { &self.stored } else { &self.unpacked };
                Some(Ok(bytes))
            }
            Ok(None) => {
                self.done = true;
                None
            }
            Err(fault) => {
                self.done = true;
                Some(Err(self.locate(fault)))
            }
        }
    }

    fn locate(&self, fault: Fault) -> ReadError {
        match fault {
            Fault::Bad(reason) => Corruption { segment: self.number, offset: self.good, reason }.into(),
            Fault::Io(source) => {
                Error::Io { action: "read", path: format!("{:08}", self.number).into(), source }.into()
            }
        }
    }

    /// Collects one record; the value is its compression bits, `None` is the end of the segment.
    fn read_record(&mut self) -> Result<Option<u8>, Fault> {
        self.stored.clear();
        let mut compression = 0;
        let mut fragments = 0usize;
        loop {
            if self.at == PAGE_BYTES && !self.read_page()? {
                if fragments > 0 {
                    return Err(Fault::Bad("last record is torn".into()));
                }
                return Ok(None);
            }
            let type_byte = self.page[self.at];
            if type_byte & fragment::MASK == fragment::PAGE_END && type_byte & fragment::RESERVED == 0 {
                if self.page[self.at..].iter().any(|b| *b != 0) {
                    return Err(Fault::Bad("unexpected non-zero byte in padded page".into()));
                }
                self.at = PAGE_BYTES;
                continue;
            }
            self.take_fragment(type_byte, fragments)?;
            if fragments == 0 {
                compression = type_byte & (fragment::SNAPPY | fragment::ZSTD);
            }
            fragments += 1;
            if matches!(type_byte & fragment::MASK, fragment::FULL | fragment::LAST) {
                self.unpack(compression)?;
                return Ok(Some(compression));
            }
        }
    }

    /// Checks the fragment at `at` and moves its payload to `stored`.
    fn take_fragment(&mut self, type_byte: u8, index: usize) -> Result<(), Fault> {
        let kind = type_byte & fragment::MASK;
        if type_byte & fragment::RESERVED != 0 || kind > fragment::LAST {
            return Err(Fault::Bad(format!("unexpected record type {type_byte:#04x}")));
        }
        let begins = matches!(kind, fragment::FULL | fragment::FIRST);
        if begins != (index == 0) {
            return Err(Fault::Bad(format!(
                "unexpected fragment type {kind} at position {index} of a record"
            )));
        }
        let rest = &self.page[self.at..];
        let (Some(header), Some(body)) = (rest.get(..HEADER_BYTES), rest.get(HEADER_BYTES..)) else {
            return Err(Fault::Bad("record header crosses the end of its page".into()));
        };
        let length = usize::from(u16::from_be_bytes([header[1], header[2]]));
        let expected = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
        let Some(payload) = body.get(..length) else {
            return Err(Fault::Bad(format!("record of {length} bytes crosses the end of its page")));
        };
        if self.at + HEADER_BYTES + length > self.page_len {
            return Err(Fault::Bad("last record is torn".into()));
        }
        let found = crc32c::crc32c(payload);
        if !crate::encoding::checksum_fits(found, expected) {
            return Err(Fault::Bad(format!("unexpected checksum {found:08x}, expected {expected:08x}")));
        }
        self.stored.extend_from_slice(payload);
        self.at += HEADER_BYTES + length;
        Ok(())
    }

    fn unpack(&mut self, compression: u8) -> Result<(), Fault> {
        match compression {
            0 => Ok(()),
            fragment::SNAPPY => self.unpack_snappy(),
            fragment::ZSTD => self.unpack_zstd(),
            _ => Err(Fault::Bad("record claims to be both snappy and zstd".into())),
        }
    }

    fn unpack_snappy(&mut self) -> Result<(), Fault> {
        let bad = |e: snap::Error| Fault::Bad(format!("snappy: {e}"));
        let length = snap::raw::decompress_len(&self.stored).map_err(bad)?;
        // Snappy cannot expand by more than a factor of 64 / 3; a larger claim is a lie.
        if length > MAX_RECORD_BYTES || length > self.stored.len().saturating_mul(32) + 64 {
            return Err(Fault::Bad(format!("snappy: claims {length} bytes from {}", self.stored.len())));
        }
        self.unpacked.resize(length, 0);
        snap::raw::Decoder::new().decompress(&self.stored, &mut self.unpacked).map_err(bad)?;
        Ok(())
    }

    fn unpack_zstd(&mut self) -> Result<(), Fault> {
        let bad = |e: io::Error| Fault::Bad(format!("zstd: {e}"));
        self.unpacked.clear();
        let decoder = zstd::Decoder::with_buffer(self.stored.as_slice()).map_err(bad)?;
        let read = decoder.take(MAX_RECORD_BYTES as u64 + 1).read_to_end(&mut self.unpacked).map_err(bad)?;
        if read > MAX_RECORD_BYTES {
            return Err(Fault::Bad(format!("zstd: record is larger than {MAX_RECORD_BYTES} bytes")));
        }
        Ok(())
    }

    /// Reads the next page; false at the end of the source.
    fn read_page(&mut self) -> Result<bool, Fault> {
        if self.page_len > 0 {
            // A short page is the last one. What a writer has added since would not start at a page.
            if self.page_len < PAGE_BYTES {
                return Ok(false);
            }
            self.page_offset += PAGE_BYTES as u64;
        }
        let mut filled = 0;
        while filled < PAGE_BYTES {
            match self.source.read(&mut self.page[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Fault::Io(e)),
            }
        }
        self.page[filled..].fill(0);
        self.page_len = filled;
        self.at = 0;
        if filled == 0 {
            self.at = PAGE_BYTES;
        }
        Ok(filled > 0)
    }
}

/// Visits all records of the segments of `dir` whose number is in `numbers`, in order.
///
/// # Errors
/// The first damage (a reason from the visitor counts as damage of its record) or I/O error.
pub fn read_records(
    dir: &Path,
    numbers: RangeInclusive<u32>,
    mut visit: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), ReadError> {
    for number in segment::list_from(dir, *numbers.start())?.into_iter().filter(|n| numbers.contains(n)) {
        read_segment(&segment::path(dir, number), number, &mut visit)?;
    }
    Ok(())
}

/// Visits all records of the file at `path`, which is segment `number`.
///
/// # Errors
/// As [`read_records`].
pub fn read_segment(
    path: &Path,
    number: u32,
    visit: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), ReadError> {
    read_segment_from(path, number, 0, visit)
}

/// As [`read_segment`], from the page at `offset` on; past the end there is nothing.
///
/// # Errors
/// As [`read_records`].
pub fn read_segment_from(
    path: &Path,
    number: u32,
    offset: u64,
    mut visit: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), ReadError> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    file.seek(SeekFrom::Start(offset)).map_err(Error::io("read", path))?;
    let mut reader = SegmentReader::at_page(file, number, offset);
    loop {
        let offset = reader.offset();
        match reader.next_record() {
            None => return Ok(()),
            Some(Err(e)) => return Err(e),
            Some(Ok(record)) => {
                visit(record).map_err(|reason| Corruption { segment: number, offset, reason })?;
            }
        }
    }
}
