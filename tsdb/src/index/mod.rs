//! The index of a block: symbols, series with their chunks, and postings.
//!
//! # Format
//! `docs/format/index.md`. Version 2 is written; 1, 2 and 3 are read.
//!
//! # Limits
//! A file holds at most 64 GiB (series are referred to by their offset over 16 in 32 bits), a symbol
//! table and a postings table 4 GiB each.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/index/index.go>

mod reader;
mod symbols;
#[cfg(test)]
mod tests;
mod writer;

use crate::encoding::{Cursor, DecodeError, crc32c, put_be32, put_be64};

pub use reader::{Reader, SeriesEntry};
pub use writer::Writer;

/// Name of the file in a block.
pub const FILE_NAME: &str = "index";

const MAGIC: u32 = 0xBAAA_D700;
const VERSION: u8 = 2;
const HEADER_LEN: usize = 5;
/// Series entries begin at multiples of this; a reference is the offset divided by it.
const SERIES_ALIGN: u64 = 16;

/// Where the sections begin, bytes from the start of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Toc {
    symbols: u64,
    series: u64,
    /// Not a section any more: the end of the series.
    label_indices: u64,
    /// Not a section any more: the start of the postings table.
    label_indices_table: u64,
    postings: u64,
    postings_table: u64,
}

impl Toc {
    const LEN: usize = 6 * 8 + 4;

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LEN);
        for offset in [
            self.symbols,
            self.series,
            self.label_indices,
            self.label_indices_table,
            self.postings,
            self.postings_table,
        ] {
            put_be64(&mut out, offset);
        }
        let crc = crc32c(&out);
        put_be32(&mut out, crc);
        out
    }

    /// Reads the last bytes of an index.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let start = bytes.len().saturating_sub(Self::LEN);
        let mut cursor = Cursor::at(bytes, start);
        let mut offsets = [0; 6];
        for offset in &mut offsets {
            *offset = cursor.be64()?;
        }
        let body = &bytes[start..cursor.offset()];
        if !crate::encoding::checksum_fits(crc32c(body), cursor.be32()?) {
            return Err(DecodeError { offset: start, reason: "checksum of the table of contents is wrong" });
        }
        let [symbols, series, label_indices, label_indices_table, postings, postings_table] = offsets;
        let toc = Self { symbols, series, label_indices, label_indices_table, postings, postings_table };
        if offsets.iter().any(|o| *o > start as u64) || symbols > series {
            return Err(DecodeError { offset: start, reason: "table of contents points past the end" });
        }
        Ok(toc)
    }
}
