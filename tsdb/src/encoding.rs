//! Checked cursors over bytes from disk, and the writer helpers that mirror them.
//!
//! Everything that Prometheus stores is made of big-endian integers, LEB128 `uvarint`s, zig-zag
//! `varint`s (as Go's `encoding/binary`), and pieces prefixed with their `uvarint` length, guarded by
//! CRC-32C (Castagnoli).
//!
//! # Errors
//! A [`Cursor`] never panics and never allocates: what does not fit is a [`DecodeError`] that knows
//! its offset, to be placed in a file with [`DecodeError::in_file`].

use std::path::Path;

use crate::error::Error;

/// Longest encoding of a 64-bit varint.
pub const MAX_VARINT_LEN: usize = 10;

/// Bytes that are not what the format says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {reason}")]
pub struct DecodeError {
    /// Byte offset from the start of the slice that the cursor was made on.
    pub offset: usize,
    /// What was expected or found.
    pub reason: &'static str,
}

impl DecodeError {
    /// The same error as a corruption of `file`; `base` is where the slice starts in the file.
    pub fn in_file(self, file: &Path, base: u64) -> Error {
        Error::corrupt(file, base + self.offset as u64, self.reason)
    }
}

/// Reads forward through bytes that may be damaged.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// A cursor at `offset` of `bytes`; past the end it has nothing left to read.
    pub fn at(bytes: &'a [u8], offset: usize) -> Self {
        Self { bytes, offset: offset.min(bytes.len()) }
    }

    /// Bytes read so far.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Bytes left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.offset
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// What is left, without reading it.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.offset..]
    }

    /// An error at the current offset.
    pub fn error(&self, reason: &'static str) -> DecodeError {
        DecodeError { offset: self.offset, reason }
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// If fewer are left.
    #[inline]
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.offset.checked_add(n).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| self.error("ends too early"))?;
        let out = &self.bytes[self.offset..end];
        self.offset = end;
        Ok(out)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let out = self.rest().first_chunk::<N>().copied().ok_or_else(|| self.error("ends too early"))?;
        self.offset += N;
        Ok(out)
    }

    /// One byte.
    ///
    /// # Errors
    /// At the end.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// Big-endian 16 bits.
    ///
    /// # Errors
    /// If fewer bytes are left.
    pub fn be16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// Big-endian 32 bits.
    ///
    /// # Errors
    /// If fewer bytes are left.
    pub fn be32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Big-endian 64 bits.
    ///
    /// # Errors
    /// If fewer bytes are left.
    pub fn be64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// Big-endian 64 bits, two's complement.
    ///
    /// # Errors
    /// If fewer bytes are left.
    pub fn be64_i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// A float as big-endian bits.
    ///
    /// # Errors
    /// If fewer bytes are left.
    pub fn be_f64(&mut self) -> Result<f64, DecodeError> {
        Ok(f64::from_bits(self.be64()?))
    }

    /// LEB128, at most 64 bits.
    ///
    /// # Errors
    /// If it is cut off or longer than 64 bits.
    #[inline]
    pub fn uvarint(&mut self) -> Result<u64, DecodeError> {
        let (value, len) = uvarint(self.rest()).map_err(|reason| self.error(reason))?;
        self.offset += len;
        Ok(value)
    }

    /// A `uvarint` that must fit 32 bits.
    ///
    /// # Errors
    /// If it is cut off or does not fit.
    #[inline]
    pub fn uvarint32(&mut self) -> Result<u32, DecodeError> {
        let start = self.offset;
        u32::try_from(self.uvarint()?)
            .map_err(|_| DecodeError { offset: start, reason: "number does not fit 32 bits" })
    }

    /// Zig-zag LEB128, as Go's `binary.PutVarint`.
    ///
    /// # Errors
    /// If it is cut off or longer than 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<i64, DecodeError> {
        Ok(unzigzag(self.uvarint()?))
    }

    /// The next three `uvarint`s.
    ///
    /// # Errors
    /// If one of them is cut off or longer than 64 bits.
    #[inline]
    pub fn uvarint3(&mut self) -> Result<[u64; 3], DecodeError> {
        match self.word().and_then(uvarint3) {
            Some((values, len)) => {
                self.offset += len;
                Ok(values)
            }
            None => Ok([self.uvarint()?, self.uvarint()?, self.uvarint()?]),
        }
    }

    /// The next eight bytes, little-endian; behind the end are bytes that continue a number. `None` if the end is near
    /// and there are not as many bytes before it.
    #[inline]
    fn word(&self) -> Option<u64> {
        if let Some(word) = self.rest().first_chunk::<8>() {
            return Some(u64::from_le_bytes(*word));
        }
        let (last, bits) = (u64::from_le_bytes(*self.bytes.last_chunk::<8>()?), 8 * self.remaining() as u32);
        let word = last.checked_shr(64 - bits).unwrap_or(0);
        Some(word | CONTINUES << bits)
    }

    /// Bytes prefixed with their `uvarint` length.
    ///
    /// # Errors
    /// If the length or the bytes are cut off.
    #[inline]
    pub fn prefixed(&mut self) -> Result<&'a [u8], DecodeError> {
        let start = self.offset;
        let n = self.uvarint()?;
        usize::try_from(n)
            .ok()
            .and_then(|n| self.bytes(n).ok())
            .ok_or(DecodeError { offset: start, reason: "length runs past the end" })
    }

    /// Text prefixed with its `uvarint` length.
    ///
    /// # Errors
    /// If it is cut off or not UTF-8.
    pub fn string(&mut self) -> Result<&'a str, DecodeError> {
        let start = self.offset;
        std::str::from_utf8(self.prefixed()?)
            .map_err(|_| DecodeError { offset: start, reason: "text is not UTF-8" })
    }
}

/// The bits that tell in each byte that a number goes on.
const CONTINUES: u64 = 0x8080_8080_8080_8080;

/// Value and length of the LEB128 number at the start of `bytes`.
///
/// # Errors
/// Why there is none.
#[inline]
pub fn uvarint(bytes: &[u8]) -> Result<(u64, usize), &'static str> {
    match bytes {
        [first, ..] if *first < 0x80 => return Ok((u64::from(*first), 1)),
        [a, b, c, d, e, f, g, h, ..] => {
            // Up to eight bytes at once, without a branch that depends on how many.
            let word = u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            let last = !word & CONTINUES;
            if last != 0 {
                let w = join_sevens(word & (last ^ last.wrapping_sub(1)));
                return Ok((w, last.trailing_zeros() as usize / 8 + 1));
            }
        }
        _ => {}
    }
    uvarint_by_bytes(bytes)
}

/// The low seven bits of each byte next to each other: they are moved there two by two.
#[inline(always)]
fn join_sevens(word: u64) -> u64 {
    let w = word & !CONTINUES;
    let w = (w & 0x007f_007f_007f_007f) | (w & 0x7f00_7f00_7f00_7f00) >> 1;
    let w = (w & 0x0000_3fff_0000_3fff) | (w & 0x3fff_0000_3fff_0000) >> 2;
    (w & 0x0000_0000_0fff_ffff) | (w & 0x0fff_ffff_0000_0000) >> 4
}

/// Values and length together of three LEB128 numbers, if `word` holds all of them.
///
/// Where the next three begin depends on nothing but the places of three bits, so that the processor can look for them
/// while it still works out these.
#[inline(always)]
fn uvarint3(word: u64) -> Option<([u64; 3], usize)> {
    let first = !word & CONTINUES;
    let second = first & first.wrapping_sub(1);
    let third = second & second.wrapping_sub(1);
    if third == 0 {
        return None;
    }
    let through = |last: u64| last ^ last.wrapping_sub(1);
    let a = join_sevens(word & through(first));
    let b = join_sevens((word & through(second)) >> (first.trailing_zeros() + 1));
    let c = join_sevens((word & through(third)) >> (second.trailing_zeros() + 1));
    Some(([a, b, c], third.trailing_zeros() as usize / 8 + 1))
}

/// As [`uvarint`], byte by byte.
fn uvarint_by_bytes(bytes: &[u8]) -> Result<(u64, usize), &'static str> {
    let mut value = 0u64;
    for (i, &b) in bytes.iter().take(MAX_VARINT_LEN).enumerate() {
        if b < 0x80 {
            if i == MAX_VARINT_LEN - 1 && b > 1 {
                return Err("number does not fit 64 bits");
            }
            return Ok((value | u64::from(b) << (7 * i), i + 1));
        }
        value |= u64::from(b & 0x7f) << (7 * i);
    }
    Err(if bytes.len() < MAX_VARINT_LEN { "ends too early" } else { "number does not fit 64 bits" })
}

/// Undoes [`zigzag`].
#[inline]
pub fn unzigzag(u: u64) -> i64 {
    (u >> 1) as i64 ^ -((u & 1) as i64)
}

/// Maps small numbers of either sign to small unsigned ones.
#[inline]
pub fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)) as u64
}

/// Appends LEB128.
#[inline]
pub fn put_uvarint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Length of `v` as LEB128.
pub fn uvarint_len(v: u64) -> usize {
    (64 - (v | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends zig-zag LEB128.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, v: i64) {
    put_uvarint(out, zigzag(v));
}

/// Appends big-endian 16 bits.
pub fn put_be16(out: &mut Vec<u8>, v: u16) {
    out.extend_from_slice(&v.to_be_bytes());
}

/// Appends big-endian 32 bits.
pub fn put_be32(out: &mut Vec<u8>, v: u32) {
    out.extend_from_slice(&v.to_be_bytes());
}

/// Appends big-endian 64 bits.
pub fn put_be64(out: &mut Vec<u8>, v: u64) {
    out.extend_from_slice(&v.to_be_bytes());
}

/// Appends a float as big-endian bits.
pub fn put_be_f64(out: &mut Vec<u8>, v: f64) {
    put_be64(out, v.to_bits());
}

/// Appends bytes (or text) prefixed with their `uvarint` length.
pub fn put_prefixed(out: &mut Vec<u8>, bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    put_uvarint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// CRC-32C (Castagnoli) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() < SHORT && is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has the instructions, as was just seen.
        return unsafe { short_crc32c(bytes) };
    }
    ::crc32c::crc32c(bytes)
}

/// From this many bytes on it is quicker to work on three parts at once, as the crate does.
#[cfg(target_arch = "x86_64")]
const SHORT: usize = 768;

/// As [`crc32c()`]: for the few bytes of a series or a chunk the way to the loop is as long as the loop.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn short_crc32c(bytes: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64};
    let (words, rest) = bytes.as_chunks::<8>();
    let crc =
        words.iter().fold(u64::from(u32::MAX), |crc, word| _mm_crc32_u64(crc, u64::from_le_bytes(*word)));
    let mut crc = crc as u32;
    let (words, rest) = rest.as_chunks::<4>();
    for word in words {
        crc = _mm_crc32_u32(crc, u32::from_le_bytes(*word));
    }
    !rest.iter().fold(crc, |crc, byte| _mm_crc32_u8(crc, *byte))
}

/// Whether a checksum is the expected one. A fuzzer does not find right ones by chance, and what is
/// behind them must bear anything all the same, so there any checksum will do.
pub fn checksum_fits(found: u32, expected: u32) -> bool {
    found == expected || cfg!(fuzzing)
}

/// Continues a CRC-32C over more bytes; start with 0.
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    ::crc32c::crc32c_append(crc, bytes)
}

/// CRC-32C of two runs of bytes, the second `len` long, from that of each.
pub fn crc32c_combine(first: u32, second: u32, len: usize) -> u32 {
    ::crc32c::crc32c_combine(first, second, len)
}

/// The bytes of each example in a page of `docs/format`: what is left of two spaces in the lines of its code
/// blocks of kind `hex`.
#[cfg(test)]
pub(crate) fn examples_of(page: &str) -> Vec<Vec<u8>> {
    let blocks = page.split("```hex\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let bytes = |block: &str| {
        let left =
            block.lines().flat_map(|line| line.split("  ").next().unwrap_or_default().split_whitespace());
        left.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    };
    blocks.map(bytes).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn varints_are_those_of_go() {
        let mut out = Vec::new();
        put_varint(&mut out, -1);
        put_varint(&mut out, 64);
        put_uvarint(&mut out, 300);
        assert_eq!(out, [0x01, 0x80, 0x01, 0xac, 0x02]);
    }

    #[test]
    fn overlong_and_cut_numbers_are_errors() {
        assert!(Cursor::new(&[0x80]).uvarint().is_err());
        assert!(Cursor::new(&[0xff; 11]).uvarint().is_err());
        let mut max = Vec::new();
        put_uvarint(&mut max, u64::MAX);
        assert_eq!(Cursor::new(&max).uvarint(), Ok(u64::MAX));
        max[9] = 2;
        assert!(Cursor::new(&max).uvarint().is_err());
    }

    #[test]
    fn a_length_past_the_end_is_an_error_at_the_length() {
        let mut cursor = Cursor::new(&[7, 200, 1, b'x']);
        cursor.u8().unwrap();
        assert_eq!(cursor.prefixed().unwrap_err().offset, 1);
    }

    proptest! {
        #[test]
        fn reading_at_once_is_reading_byte_by_byte(bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x80u8..], 0..14)) {
            prop_assert_eq!(uvarint(&bytes), uvarint_by_bytes(&bytes));
        }

        #[test]
        fn three_numbers_at_once_are_three_numbers(
            bytes in prop::collection::vec(prop_oneof![3 => 0u8..0x80, 2 => 0x80u8..], 0..40), start in 0usize..12,
        ) {
            let (mut at_once, mut each) = (Cursor::at(&bytes, start), Cursor::at(&bytes, start));
            loop {
                let expected = [each.uvarint(), each.uvarint(), each.uvarint()];
                let expected = expected.into_iter().collect::<Result<Vec<_>, _>>();
                let found = at_once.uvarint3();
                prop_assert_eq!(found.map(Vec::from), expected.clone());
                if expected.is_err() {
                    break;
                }
                prop_assert_eq!(at_once.offset(), each.offset());
            }
        }

        #[test]
        fn a_checksum_is_that_of_its_parts(bytes in prop::collection::vec(any::<u8>(), 0..700), cut in any::<prop::sample::Index>()) {
            prop_assert_eq!(crc32c(&bytes), ::crc32c::crc32c(&bytes));
            // At any alignment.
            let (first, second) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(crc32c(second), ::crc32c::crc32c(second));
            prop_assert_eq!(crc32c_append(crc32c(first), second), crc32c(&bytes));
        }

        #[test]
        fn what_is_put_is_read(u in any::<u64>(), i in any::<i64>(), f in any::<u64>(), s in ".*", w in any::<u32>()) {
            let mut out = Vec::new();
            put_uvarint(&mut out, u);
            prop_assert_eq!(out.len(), uvarint_len(u));
            put_varint(&mut out, i);
            put_be_f64(&mut out, f64::from_bits(f));
            put_prefixed(&mut out, &s);
            put_be32(&mut out, w);
            let mut cursor = Cursor::new(&out);
            prop_assert_eq!(cursor.uvarint(), Ok(u));
            prop_assert_eq!(cursor.varint(), Ok(i));
            prop_assert_eq!(cursor.be_f64().map(f64::to_bits), Ok(f));
            prop_assert_eq!(cursor.string(), Ok(s.as_str()));
            prop_assert_eq!(cursor.be32(), Ok(w));
            prop_assert!(cursor.is_empty());
        }
    }
}
