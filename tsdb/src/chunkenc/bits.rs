//! Bit streams, most significant bit first, and the value windows that XOR encodings share.

use super::ChunkError;

/// Reads bits at any position of a byte slice.
///
/// There is no buffer to refill: every read is an unaligned wide load at `pos`. The position then
/// advances by amounts that predicted branches know, so loads of several samples are in flight at
/// once. Past the end the stream reads as zeros; [`BitReader::check`] says whether that happened.
#[derive(Debug, Clone)]
pub(super) struct BitReader<'a> {
    data: &'a [u8],
    /// Bits read so far, from the start of `data`.
    pos: usize,
    /// The last eight bytes of `data`, for loads that would run over the end.
    tail: u64,
}

impl<'a> BitReader<'a> {
    /// A reader of `data` that starts at byte `start`.
    pub(super) fn new(data: &'a [u8], start: usize) -> Self {
        let tail = match data.last_chunk::<8>() {
            Some(last) => u64::from_be_bytes(*last),
            None => data.iter().fold(0, |w, b| w << 8 | u64::from(*b)),
        };
        Self { data, pos: start * 8, tail }
    }

    /// Bits read so far.
    pub(super) fn pos(&self) -> usize {
        self.pos
    }

    /// Bits that are left; 0 past the end.
    pub(super) fn left(&self) -> usize {
        (self.data.len() * 8).saturating_sub(self.pos)
    }

    /// The next 64 bits.
    #[inline(always)]
    pub(super) fn peek(&self) -> u64 {
        let (byte, bit) = (self.pos >> 3, self.pos & 7);
        if let Some(window) = self.data.get(byte..).and_then(|rest| rest.first_chunk::<9>()) {
            let [head @ .., last] = *window;
            u64::from_be_bytes(head) << bit | u64::from(last) >> (8 - bit)
        } else {
            self.peek_tail()
        }
    }

    fn peek_tail(&self) -> u64 {
        // `tail` ends where the data ends, so what lies before `pos` is shifted out. Data shorter
        // than eight bytes is right-aligned in `tail` in the same way.
        let shift = (self.pos + 64).saturating_sub(self.data.len() * 8);
        if shift < 64 { self.tail << shift } else { 0 }
    }

    #[inline(always)]
    pub(super) fn skip(&mut self, bits: usize) {
        self.pos += bits;
    }

    /// The next `n` bits, `1..=64`, right-aligned.
    #[inline(always)]
    pub(super) fn take(&mut self, n: u32) -> u64 {
        let out = self.peek() >> (64 - n);
        self.pos += n as usize;
        out
    }

    /// LEB128 at any bit position.
    pub(super) fn uvarint(&mut self) -> Result<u64, ChunkError> {
        let mut value = 0u64;
        for i in 0..crate::encoding::MAX_VARINT_LEN {
            let b = self.take(8);
            value |= (b & 0x7f) << (7 * i);
            if b < 0x80 {
                return if i == 9 && b > 1 { Err(self.error("number is too long")) } else { Ok(value) };
            }
        }
        Err(self.error("number is too long"))
    }

    pub(super) fn varint(&mut self) -> Result<i64, ChunkError> {
        Ok(crate::encoding::unzigzag(self.uvarint()?))
    }

    /// Whether everything read so far was there.
    #[inline]
    pub(super) fn check(&self) -> Result<(), ChunkError> {
        if self.pos <= self.data.len() * 8 { Ok(()) } else { Err(self.error("chunk ends too early")) }
    }

    #[cold]
    pub(super) fn error(&self, reason: &'static str) -> ChunkError {
        ChunkError::Corrupt { bit: self.pos, reason }
    }
}

/// Sign-extends the top `n` bits of `word` with the range `-(2^(n-1)-1) ..= 2^(n-1)`.
///
/// Compat: Prometheus' ranges are lopsided, one value is the other way around than in two's
/// complement. Counting from one less makes it two's complement again, without a branch.
#[inline(always)]
pub(super) fn lopsided(word: u64, n: u32) -> i64 {
    ((word.wrapping_sub(1 << (64 - n)) as i64) >> (64 - n)) + 1
}

/// Which bits of a value differ from the previous one: `significant` of them above `trailing` zeros.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) significant: u32,
    pub(super) trailing: u32,
}

impl Window {
    /// What a decoder has before the first window is read.
    pub(super) const WHOLE: Self = Self { significant: 64, trailing: 0 };

    /// A window from its 11 bits at the top of `word`: 5 of leading zeros, 6 of width (0 is 64).
    #[inline(always)]
    pub(super) fn parse(word: u64) -> Option<Self> {
        let leading = (word >> 59) as u32;
        let significant = ((word >> 53) as u32 & 63).wrapping_sub(1) % 64 + 1;
        let trailing = 64u32.checked_sub(leading + significant)?;
        Some(Self { significant, trailing })
    }

    /// Writes differing bits, of which there are some: behind the code `same` if they lie in `window`, else behind
    /// `other` and a window of their own, which is `window` from then on. A code is its bits and their number.
    #[inline]
    pub(super) fn write(
        window: &mut Option<Self>,
        out: &mut BitWriter,
        xor: u64,
        same: (u64, u32),
        other: (u64, u32),
    ) {
        let leading = xor.leading_zeros().min(31);
        let trailing = xor.trailing_zeros();
        if let Some(w) = window
            && leading >= 64 - w.significant - w.trailing
            && trailing >= w.trailing
        {
            out.put(same.0, same.1);
            return out.put(xor >> w.trailing, w.significant);
        }
        let significant = 64 - leading - trailing;
        *window = Some(Self { significant, trailing });
        let code = other.0 << 11 | u64::from(leading) << 6 | u64::from(significant & 63);
        out.put(code, other.1 + 11);
        out.put(xor >> trailing, significant);
    }

    /// Reads the differing bits and puts them in place.
    #[inline(always)]
    pub(super) fn read(self, bits: &mut BitReader<'_>) -> u64 {
        bits.take(self.significant) << self.trailing
    }
}

/// Appends bits to bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct BitWriter {
    pub(super) bytes: Vec<u8>,
    /// Free bits in the last byte, `0..8`.
    pub(super) free: u32,
}

impl BitWriter {
    /// Goes on after the first `bits` bits of `bytes`; what is behind them goes, as damage may have left anything.
    pub(super) fn resume(mut bytes: Vec<u8>, bits: usize) -> Self {
        bytes.truncate(bits.div_ceil(8));
        let free = (bytes.len() * 8 - bits) as u32;
        if let Some(last) = bytes.last_mut() {
            *last &= 0xff << free;
        }
        Self { bytes, free }
    }

    /// The low `n` bits of `value`, `1..=64`.
    #[inline]
    pub(super) fn put(&mut self, value: u64, n: u32) {
        // Always nine bytes, then back to what counts: no branch on lengths that vary from bit to bit.
        let last = if self.free > 0 { self.bytes.pop().unwrap_or_default() } else { 0 };
        let bit = (8 - self.free) % 8;
        let whole = self.bytes.len() + (bit + n).div_ceil(8) as usize;
        let top = value << (64 - n);
        let mut out = [0; 9];
        out[..8].copy_from_slice(&(u64::from(last) << 56 | top >> bit).to_be_bytes());
        out[8] = (top << (8 - bit)) as u8;
        self.bytes.extend_from_slice(&out);
        self.bytes.truncate(whole);
        self.free = (8 - (bit + n) % 8) % 8;
    }

    pub(super) fn put_uvarint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.put(v & 0x7f | 0x80, 8);
            v >>= 7;
        }
        self.put(v, 8);
    }
}
