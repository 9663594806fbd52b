//! XOR chunks: the usual encoding of float samples.
//!
//! # Format
//! `docs/format/chunks.md`. A big-endian sample count, then one bit stream. Timestamps are stored as
//! the change of their distance, values as the bits that differ from the previous value.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/chunkenc/xor.go>; bytes written here
//! equal those that Prometheus writes for the same samples.

use super::bits::{BitReader, BitWriter, Window, lopsided};
use super::{ChunkError, fill_samples};
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
    out: BitWriter,
    last: Sample,
    t_delta: u64,
    /// `None` before the first window is written.
    window: Option<Window>,
    count: u16,
}

impl Default for Appender {
    fn default() -> Self {
        Self::new()
    }
}

impl Appender {
    /// An empty chunk.
    pub fn new() -> Self {
        Self::with_capacity(128)
    }

    /// An empty chunk with room for `bytes` bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes.max(HEADER));
        buffer.extend_from_slice(&[0; HEADER]);
        Self {
            out: BitWriter { bytes: buffer, free: 0 },
            last: Sample { t: 0, v: 0.0 },
            t_delta: 0,
            window: None,
            count: 0,
        }
    }

    /// Continues a chunk that [`Appender::bytes`] (or Prometheus) gave.
    ///
    /// # Errors
    /// If the chunk is damaged.
    pub fn resume(mut data: Vec<u8>) -> Result<Self, ChunkError> {
        let (mut iter, mut last) = (Iter::new(&data)?, Sample { t: 0, v: 0.0 });
        for sample in iter.by_ref() {
            last = sample?;
        }
        let Iter { state, count, .. } = iter;
        let bits = state.bits.pos();
        let window = state.saw_window.then_some(state.window);
        let t_delta = state.t_delta as u64;
        data.truncate(bits.div_ceil(8));
        if count == 0 {
            return Ok(Self::new());
        }
        let free = (data.len() * 8 - bits) as u32;
        Ok(Self { out: BitWriter { bytes: data, free }, last, t_delta, window, count })
    }

    /// Appends one sample.
    ///
    /// # Panics
    /// If the chunk already holds `u16::MAX` samples.
    pub fn append(&mut self, t: TimestampMs, v: f64) {
        match self.count {
            0 => {
                self.out.put_uvarint(zigzag(t));
                self.out.put(v.to_bits(), 64);
            }
            1 => {
                self.t_delta = t.wrapping_sub(self.last.t) as u64;
                self.out.put_uvarint(self.t_delta);
                self.put_value(v);
            }
            _ => {
                let delta = t.wrapping_sub(self.last.t) as u64;
                self.put_dod(delta.wrapping_sub(self.t_delta) as i64);
                self.t_delta = delta;
                self.put_value(v);
            }
        }
        self.last = Sample { t, v };
        self.count = self.count.checked_add(1).expect("a chunk is cut before it holds 2^16 samples");
        self.out.bytes[..HEADER].copy_from_slice(&self.count.to_be_bytes());
    }

    /// Bytes that the buffer can hold.
    pub fn capacity(&self) -> usize {
        self.out.bytes.capacity()
    }

    /// Makes room for one more sample, by growing the buffer by no more than `step` bytes if it is full.
    /// For many chunks that stay open: doubling wastes a quarter of their memory.
    pub fn reserve_step(&mut self, step: usize) {
        // 145 bits, and the nine bytes that a write touches before it takes back what it does not need.
        const LARGEST: usize = 19 + 9;
        let bytes = &mut self.out.bytes;
        let room = bytes.capacity() - bytes.len();
        if room < LARGEST {
            bytes.reserve_exact(room + step.max(LARGEST));
        }
    }

    fn put_dod(&mut self, dod: i64) {
        // Compat: n bits hold -(2^(n-1)-1) ..= 2^(n-1).
        let fits = |n: u32| -((1 << (n - 1)) - 1) <= dod && dod <= 1 << (n - 1);
        let low = |n: u32| dod as u64 & ((1 << n) - 1);
        if dod == 0 {
            self.out.put(0, 1);
        } else if fits(14) {
            self.out.put(0b10 << 14 | low(14), 16);
        } else if fits(17) {
            self.out.put(0b110 << 17 | low(17), 20);
        } else if fits(20) {
            self.out.put(0b1110 << 20 | low(20), 24);
        } else {
            self.out.put(0b1111, 4);
            self.out.put(dod as u64, 64);
        }
    }

    fn put_value(&mut self, v: f64) {
        let xor = v.to_bits() ^ self.last.v.to_bits();
        if xor == 0 {
            return self.out.put(0, 1);
        }
        let leading = xor.leading_zeros().min(31);
        let trailing = xor.trailing_zeros();
        if let Some(w) = self.window
            && leading >= 64 - w.significant - w.trailing
            && trailing >= w.trailing
        {
            self.out.put(0b10, 2);
            return self.out.put(xor >> w.trailing, w.significant);
        }
        let significant = 64 - leading - trailing;
        self.window = Some(Window { significant, trailing });
        self.out.put(0b11 << 11 | u64::from(leading) << 6 | u64::from(significant & 63), 13);
        self.out.put(xor >> trailing, significant);
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The newest sample; meaningless while the chunk is empty.
    pub fn last(&self) -> Sample {
        self.last
    }

    /// The chunk so far, valid after every append.
    pub fn bytes(&self) -> &[u8] {
        &self.out.bytes
    }

    /// The finished chunk.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out.bytes
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

/// Appends all samples of a chunk to `timestamps` and `values`.
///
/// # Errors
/// If the chunk is damaged; the vectors are then as they were.
pub fn decode_into(
    data: &[u8],
    timestamps: &mut Vec<TimestampMs>,
    values: &mut Vec<f64>,
) -> Result<(), ChunkError> {
    let (mut state, count) = State::open(data)?;
    fill_samples(timestamps, values, usize::from(count), |ts, vs| {
        let mut out = ts.iter_mut().zip(vs);
        for (step, (t, v)) in [State::first, State::second].into_iter().zip(out.by_ref()) {
            step(&mut state)?;
            (*t, *v) = (state.t, f64::from_bits(state.v));
        }
        for (t, v) in out {
            state.next()?;
            (*t, *v) = (state.t, f64::from_bits(state.v));
        }
        state.bits.check()
    })
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
