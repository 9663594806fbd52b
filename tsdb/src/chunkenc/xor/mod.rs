//! XOR chunks: the usual encoding of float samples.
//!
//! # Format
//! `docs/format/chunks.md`. A big-endian sample count, then one bit stream. Timestamps are stored as
//! the change of their distance, values as the bits that differ from the previous value.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/chunkenc/xor.go>; bytes written here
//! equal those that Prometheus writes for the same samples.

mod bulk;
#[cfg(target_arch = "x86_64")]
mod lanes;
mod many;
#[cfg(target_arch = "x86_64")]
mod side_by_side;

pub use bulk::decode_into;
pub use many::decode_many_into;

use std::ops::{Deref, DerefMut};

use super::bits::{BitReader, BitWriter, Window, lopsided};
use super::{ChunkError, FloatChunk};
use crate::encoding::zigzag;
use crate::sample::{Sample, TimestampMs};

const HEADER: usize = 2;
/// Payload widths of a delta-of-delta by the number of leading ones of its prefix.
const DOD_BITS: [u32; 5] = [0, 14, 17, 20, 64];

/// Appends samples to a chunk.
///
/// Timestamps may be any `i64`; keeping them ascending is up to the caller.
#[derive(Debug, Clone)]
pub struct Appender {
    chunk: FloatChunk,
}

impl Default for Appender {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Appender {
    type Target = FloatChunk;

    fn deref(&self) -> &FloatChunk {
        &self.chunk
    }
}

impl DerefMut for Appender {
    fn deref_mut(&mut self) -> &mut FloatChunk {
        &mut self.chunk
    }
}

impl Appender {
    /// An empty chunk.
    pub fn new() -> Self {
        Self::with_capacity(128)
    }

    /// An empty chunk with room for `bytes` bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { chunk: FloatChunk::with_capacity(HEADER, bytes) }
    }

    /// Continues a chunk that [`FloatChunk::bytes`] (or Prometheus) gave.
    ///
    /// # Errors
    /// If the chunk is damaged.
    pub fn resume(data: Vec<u8>) -> Result<Self, ChunkError> {
        let (mut iter, mut last) = (Iter::new(&data)?, Sample { t: 0, v: 0.0 });
        for sample in iter.by_ref() {
            last = sample?;
        }
        let Iter { state, count, .. } = iter;
        let bits = state.bits.pos();
        let window = state.saw_window.then_some(state.window);
        let t_delta = state.t_delta as u64;
        if count == 0 {
            return Ok(Self::new());
        }
        let out = BitWriter::resume(data, bits);
        Ok(Self { chunk: FloatChunk { out, last, t_delta, window, count } })
    }

    /// Appends one sample.
    ///
    /// # Panics
    /// If the chunk already holds `u16::MAX` samples.
    pub fn append(&mut self, t: TimestampMs, v: f64) {
        let chunk = &mut self.chunk;
        let delta = t.wrapping_sub(chunk.last.t) as u64;
        match chunk.count {
            0 => {
                chunk.out.put_uvarint(zigzag(t));
                chunk.out.put(v.to_bits(), 64);
                return chunk.wrote(t, v);
            }
            1 => chunk.out.put_uvarint(delta),
            _ => put_dod(&mut chunk.out, delta.wrapping_sub(chunk.t_delta) as i64),
        }
        chunk.t_delta = delta;
        match v.to_bits() ^ chunk.last.v.to_bits() {
            0 => chunk.out.put(0, 1),
            xor => Window::write(&mut chunk.window, &mut chunk.out, xor, (0b10, 2), (0b11, 2)),
        }
        chunk.wrote(t, v);
    }

    /// The finished chunk.
    pub fn into_bytes(self) -> Vec<u8> {
        self.chunk.out.bytes
    }
}

fn put_dod(out: &mut BitWriter, dod: i64) {
    // Compat: n bits hold -(2^(n-1)-1) ..= 2^(n-1).
    let fits = |n: u32| -((1 << (n - 1)) - 1) <= dod && dod <= 1 << (n - 1);
    let low = |n: u32| dod as u64 & ((1 << n) - 1);
    if dod == 0 {
        out.put(0, 1);
    } else if fits(14) {
        out.put(0b10 << 14 | low(14), 16);
    } else if fits(17) {
        out.put(0b110 << 17 | low(17), 20);
    } else if fits(20) {
        out.put(0b1110 << 20 | low(20), 24);
    } else {
        out.put(0b1111, 4);
        out.put(dod as u64, 64);
    }
}

/// Encodes samples in one go.
///
/// # Panics
/// If there are more than `u16::MAX`.
pub fn encode(samples: impl IntoIterator<Item = Sample>) -> Vec<u8> {
    let mut appender = Appender::new();
    for s in samples {
        appender.append(s.t, s.v);
    }
    appender.into_bytes()
}

/// Samples of a chunk, one by one. Ends after an error.
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    state: State<'a>,
    count: u16,
    done: u16,
}

impl<'a> Iter<'a> {
    /// Starts at the first sample.
    ///
    /// # Errors
    /// If the header is damaged.
    pub fn new(data: &'a [u8]) -> Result<Self, ChunkError> {
        let (state, count) = State::open(data)?;
        Ok(Self { state, count, done: 0 })
    }
}

impl Iterator for Iter<'_> {
    type Item = Result<Sample, ChunkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done == self.count {
            return None;
        }
        let step = match self.done {
            0 => self.state.first(),
            1 => self.state.second(),
            _ => self.state.next(),
        };
        self.done += 1;
        match step.and_then(|()| self.state.bits.check()) {
            Ok(()) => Some(Ok(Sample { t: self.state.t, v: f64::from_bits(self.state.v) })),
            Err(e) => {
                self.done = self.count;
                Some(Err(e))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(usize::from(self.count - self.done)))
    }
}

#[derive(Debug, Clone)]
struct State<'a> {
    bits: BitReader<'a>,
    t: TimestampMs,
    t_delta: i64,
    v: u64,
    window: Window,
    saw_window: bool,
}

impl<'a> State<'a> {
    fn open(data: &'a [u8]) -> Result<(Self, u16), ChunkError> {
        let bits = BitReader::new(data, HEADER);
        let Some(count) = data.first_chunk::<HEADER>() else {
            return Err(ChunkError::Corrupt { bit: 0, reason: "chunk has no header" });
        };
        let count = u16::from_be_bytes(*count);
        // At least 72 bits for the first sample, 9 for the second and 2 for every other: a count that
        // cannot be true is refused before anything is allocated for it.
        let least = match usize::from(count) {
            0 => 0,
            1 => 72,
            n => 72 + 9 + 2 * (n - 2),
        };
        if least > (data.len() - HEADER) * 8 {
            return Err(ChunkError::Corrupt {
                bit: 0,
                reason: "sample count is more than the chunk can hold",
            });
        }
        Ok((Self { bits, t: 0, t_delta: 0, v: 0, window: Window::WHOLE, saw_window: false }, count))
    }

    fn first(&mut self) -> Result<(), ChunkError> {
        self.t = self.bits.varint()?;
        self.v = self.bits.take(64);
        Ok(())
    }

    fn second(&mut self) -> Result<(), ChunkError> {
        self.t_delta = self.bits.uvarint()? as i64;
        self.t = self.t.wrapping_add(self.t_delta);
        self.value(self.bits.peek())
    }

    #[inline(always)]
    fn next(&mut self) -> Result<(), ChunkError> {
        let mut word = self.bits.peek();
        if word >> 63 == 0 {
            // The timestamp is where it is expected.
            self.bits.skip(1);
            word <<= 1;
        } else if word >> 62 == 0b10 {
            // A branch of its own for jitter: the next position is then known once the branch is
            // predicted, not only once this word was looked at.
            self.t_delta = self.t_delta.wrapping_add(lopsided(word << 2, 14));
            self.bits.skip(16);
            word <<= 16;
        } else {
            let ones = (!word).leading_zeros().min(4);
            let n = DOD_BITS[ones as usize];
            if n < 64 {
                let prefix = ones + 1;
                self.t_delta = self.t_delta.wrapping_add(lopsided(word << prefix, n));
                self.bits.skip((prefix + n) as usize);
                word <<= prefix + n;
            } else {
                self.bits.skip(4);
                self.t_delta = self.t_delta.wrapping_add(self.bits.take(64) as i64);
                word = self.bits.peek();
            }
        }
        self.t = self.t.wrapping_add(self.t_delta);
        self.value(word)
    }

    /// Reads a value; `word` is what [`BitReader::peek`] gives here, at least its first 13 bits.
    #[inline(always)]
    fn value(&mut self, word: u64) -> Result<(), ChunkError> {
        if word >> 63 == 0 {
            self.bits.skip(1);
            return Ok(());
        }
        if word >> 62 == 0b11 {
            let Some(window) = Window::parse(word << 2) else {
                return Err(self.bits.error("value window is wider than a value"));
            };
            self.window = window;
            self.saw_window = true;
            self.bits.skip(13);
        } else {
            self.bits.skip(2);
        }
        self.v ^= self.window.read(&mut self.bits);
        Ok(())
    }
}
