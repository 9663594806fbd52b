//! The symbol table: every label name and value once, in order.

use crate::encoding::{Cursor, DecodeError, uvarint_len};

/// Every how many symbols an offset is kept in memory. Looking one up passes over half as many on
/// average, so this trades memory of an open block for time per label.
const SAMPLE: u32 = 4;
/// Longest symbol, so that a length always fits where [`crate::Labels`] keeps it.
const MAX_LEN: usize = 1 << 28;

/// Offsets of some symbols; the texts stay in the mapped file.
#[derive(Debug)]
pub(super) struct Symbols {
    offsets: Vec<u32>,
    count: u32,
}

impl Symbols {
    /// Walks the table in `bytes` (after its length, before its checksum) and checks all of it:
    /// texts are UTF-8, strictly ascending, and their lengths encoded in the shortest way.
    pub(super) fn open(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(bytes);
        let count = cursor.be32()?;
        let mut offsets = Vec::with_capacity((count.div_ceil(SAMPLE) as usize).min(bytes.len()));
        let mut previous: Option<&str> = None;
        for i in 0..count {
            let start = cursor.offset();
            if i % SAMPLE == 0 {
                offsets.push(start as u32);
            }
            let text = cursor.string()?;
            let prefix = cursor.offset() - start - text.len();
            if prefix != uvarint_len(text.len() as u64) || text.len() >= MAX_LEN {
                return Err(DecodeError { offset: start, reason: "length of a symbol is malformed" });
            }
            if previous.is_some_and(|p| p >= text) {
                return Err(DecodeError { offset: start, reason: "symbols are out of order" });
            }
            previous = Some(text);
        }
        Ok(Self { offsets, count })
    }

    /// Number of symbols.
    pub(super) fn len(&self) -> u32 {
        self.count
    }

    /// Symbol `number` with its length before it, which is how [`crate::Labels`] keeps texts; `bytes`
    /// are those of [`Symbols::open`].
    #[inline]
    pub(super) fn raw<'a>(&self, bytes: &'a [u8], number: u32) -> Option<&'a [u8]> {
        if number >= self.count {
            return None;
        }
        let mut rest = bytes.get(*self.offsets.get((number / SAMPLE) as usize)? as usize..)?;
        for _ in 0..number % SAMPLE {
            rest = rest.get(entry_len(rest)?..)?;
        }
        rest.get(..entry_len(rest)?)
    }

    /// Where each symbol begins in the file, if `bytes` begin at `base`.
    pub(super) fn starts(&self, bytes: &[u8], base: usize) -> Vec<u32> {
        let mut cursor = Cursor::at(bytes, 4);
        (0..self.count)
            .map_while(|_| {
                let start = base + cursor.offset();
                cursor.prefixed().ok().map(|_| start as u32)
            })
            .collect()
    }

    /// All symbols in order.
    pub(super) fn iter<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut cursor = Cursor::at(bytes, 4);
        std::iter::from_fn(move || {
            let text = cursor.prefixed().ok()?;
            // SAFETY: `open` read the same entries of the same immutable bytes with `Cursor::string`,
            // which checks that each is UTF-8.
            Some(unsafe { std::str::from_utf8_unchecked(text) })
        })
    }

    /// Symbol `number`.
    pub(super) fn get<'a>(&self, bytes: &'a [u8], number: u32) -> Option<&'a str> {
        let text = Cursor::new(self.raw(bytes, number)?).prefixed().ok()?;
        // SAFETY: `open` read the same entries of the same immutable bytes with `Cursor::string`,
        // which checks that each is UTF-8.
        Some(unsafe { std::str::from_utf8_unchecked(text) })
    }
}

/// Length of the entry at the start of `bytes`, prefix included.
#[inline]
fn entry_len(bytes: &[u8]) -> Option<usize> {
    // Nearly every symbol is shorter than 128 bytes.
    let first = usize::from(*bytes.first()?);
    if first < 0x80 {
        return Some(1 + first);
    }
    let (len, prefix) = crate::encoding::uvarint(bytes).ok()?;
    Some(prefix + len as usize)
}
