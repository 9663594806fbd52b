//! XOR2 chunks: floats with joint timestamp and value control bits, and start timestamps.
//!
//! # Format
//! `docs/format/chunks.md`. As [`super::xor`], with a header byte for start timestamps, byte-friendly
//! delta-of-delta widths, and a short code for the stale marker, which never becomes the value that
//! the next one is XORed with.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/chunkenc/xor2.go>; bytes written here
//! equal those that Prometheus writes for the same samples.

use std::ops::{Deref, DerefMut};

use super::bits::{BitReader, BitWriter, Window};
use super::varbit::StartTimestamps;
use super::{ChunkError, FloatChunk, fill_samples};
use crate::encoding::zigzag;
use crate::sample::{STALE_NAN_BITS, Sample, TimestampMs};

const HEADER: usize = 3;

/// Appends samples to a chunk.
///
/// Timestamps may be any `i64`; keeping them ascending is up to the caller.
#[derive(Debug, Clone)]
pub struct Appender {
    chunk: FloatChunk,
    /// The newest value that is not a stale marker.
    base: u64,
    start: StartTimestamps,
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
        let chunk = FloatChunk::with_capacity(HEADER, bytes);
        Self { chunk, base: 0, start: StartTimestamps::default() }
    }

    /// Continues a chunk that [`FloatChunk::bytes`] (or Prometheus) gave.
    ///
    /// # Errors
    /// If the chunk is damaged.
    pub fn resume(mut data: Vec<u8>) -> Result<Self, ChunkError> {
        let mut iter = Iter::new(&data)?;
        while iter.next().transpose()?.is_some() {}
        let Iter { state, mut start, count, .. } = iter;
        let bits = state.bits.pos();
        let last = Sample { t: state.t, v: f64::from_bits(state.v) };
        let (t_delta, base) = (state.t_delta as u64, state.base);
        let window = state.saw_window.then_some(state.window);
        start.resume(&mut data, count);
        let out = BitWriter::resume(data, bits);
        Ok(Self { chunk: FloatChunk { out, last, t_delta, window, count }, base, start })
    }

    /// Appends one sample. `start` is when what it counts began, ms; 0 if not known.
    ///
    /// # Panics
    /// If the chunk already holds `u16::MAX` samples.
    pub fn append(&mut self, start: TimestampMs, t: TimestampMs, v: f64) {
        let before = self.chunk.last.t;
        let delta = t.wrapping_sub(before) as u64;
        let bits = v.to_bits();
        match self.chunk.count {
            0 => {
                self.chunk.out.put_uvarint(zigzag(t));
                self.chunk.out.put(bits, 64);
            }
            1 => {
                self.chunk.out.put_uvarint(delta);
                self.put_value(bits);
                self.chunk.t_delta = delta;
            }
            _ => {
                self.put_joint(delta.wrapping_sub(self.chunk.t_delta) as i64, bits);
                self.chunk.t_delta = delta;
            }
        }
        if bits != STALE_NAN_BITS {
            self.base = bits;
        }
        self.start.write(&mut self.chunk.out, self.chunk.count, before, t, start);
        self.chunk.wrote(t, v);
    }

    /// The change of distance and the value.
    fn put_joint(&mut self, dod: i64, v: u64) {
        let out = &mut self.chunk.out;
        match dod {
            0 if v == self.base => return out.put(0, 1),
            0 if v == STALE_NAN_BITS => return out.put(0b11111, 5),
            0 => return self.put_changed(v, (0b100, 3), (0b101, 3)),
            -4096..=4095 => out.put(0b110 << 13 | dod as u64 & 0x1fff, 16),
            -524_288..=524_287 => out.put(0b1110 << 20 | dod as u64 & 0xf_ffff, 24),
            _ => {
                out.put(0b11110, 5);
                out.put(dod as u64, 64);
            }
        }
        self.put_value(v);
    }

    /// The four-way value code.
    fn put_value(&mut self, v: u64) {
        if v == STALE_NAN_BITS {
            self.chunk.out.put(0b111, 3);
        } else if v == self.base {
            self.chunk.out.put(0, 1);
        } else {
            self.put_changed(v, (0b10, 2), (0b110, 3));
        }
    }

    /// A value that is not the one before, behind the code for the same window or for another.
    fn put_changed(&mut self, v: u64, same: (u64, u32), other: (u64, u32)) {
        let FloatChunk { out, window, .. } = &mut self.chunk;
        Window::write(window, out, v ^ self.base, same, other);
    }

    /// The finished chunk.
    pub fn into_bytes(self) -> Vec<u8> {
        self.chunk.out.bytes
    }
}

/// Encodes samples without start timestamps in one go.
///
/// # Panics
/// If there are more than `u16::MAX`.
pub fn encode(samples: impl IntoIterator<Item = Sample>) -> Vec<u8> {
    let mut appender = Appender::new();
    for s in samples {
        appender.append(0, s.t, s.v);
    }
    appender.into_bytes()
}

/// Appends all samples of a chunk to `timestamps` and `values`; start timestamps are passed over.
///
/// # Errors
/// If the chunk is damaged; the vectors are then as they were.
pub fn decode_into(
    data: &[u8],
    timestamps: &mut Vec<TimestampMs>,
    values: &mut Vec<f64>,
) -> Result<(), ChunkError> {
    let (mut state, mut start, count) = open(data)?;
    fill_samples(timestamps, values, usize::from(count), |ts, vs| {
        if start.any() {
            fill(&mut state, &mut start, ts, vs, |_| {})
        } else {
            fill_without_start(&mut state, ts, vs)
        }
    })
}

/// Appends all samples of a chunk to `timestamps` and `values`, and their start timestamps to
/// `start_timestamps`, which is as long as `values` or, while no sample has one, empty.
///
/// # Errors
/// If the chunk is damaged; the vectors are then as they were.
pub fn decode_with_start_into(
    data: &[u8],
    timestamps: &mut Vec<TimestampMs>,
    values: &mut Vec<f64>,
    start_timestamps: &mut Vec<TimestampMs>,
) -> Result<(), ChunkError> {
    let (mut state, mut start, count) = open(data)?;
    let (before, had) = (values.len(), start_timestamps.len());
    if !start.any() {
        decode_into(data, timestamps, values)?;
        if had > 0 {
            start_timestamps.resize(values.len(), 0);
        }
        return Ok(());
    }
    start_timestamps.resize(before, 0);
    let result = fill_samples(timestamps, values, usize::from(count), |ts, vs| {
        start_timestamps.reserve(ts.len());
        fill(&mut state, &mut start, ts, vs, |st| start_timestamps.push(st))
    });
    if result.is_err() {
        start_timestamps.truncate(had);
    }
    result
}

fn open(data: &[u8]) -> Result<(State<'_>, StartTimestamps, u16), ChunkError> {
    let Some([hi, lo, header]) = data.first_chunk::<HEADER>().copied() else {
        return Err(ChunkError::Corrupt { bit: 0, reason: "chunk has no header" });
    };
    let count = u16::from_be_bytes([hi, lo]);
    let least = match usize::from(count) {
        0 => 0,
        1 => 72,
        n => 72 + 9 + (n - 2),
    };
    if least > (data.len() - HEADER) * 8 {
        return Err(ChunkError::Corrupt { bit: 0, reason: "sample count is more than the chunk can hold" });
    }
    let state = State {
        bits: BitReader::new(data, HEADER),
        t: 0,
        t_delta: 0,
        v: 0,
        base: 0,
        window: Window::WHOLE,
        saw_window: false,
    };
    Ok((state, StartTimestamps::open(header), count))
}

fn fill_without_start(
    state: &mut State<'_>,
    timestamps: &mut [TimestampMs],
    values: &mut [f64],
) -> Result<(), ChunkError> {
    let mut out = timestamps.iter_mut().zip(values);
    for (step, (t, v)) in [State::first, State::second].into_iter().zip(out.by_ref()) {
        step(state)?;
        (*t, *v) = (state.t, f64::from_bits(state.v));
    }
    for (t, v) in out {
        state.next()?;
        (*t, *v) = (state.t, f64::from_bits(state.v));
    }
    state.bits.check()
}

fn fill(
    state: &mut State<'_>,
    start: &mut StartTimestamps,
    timestamps: &mut [TimestampMs],
    values: &mut [f64],
    mut see: impl FnMut(TimestampMs),
) -> Result<(), ChunkError> {
    for (i, (t, v)) in timestamps.iter_mut().zip(values).enumerate() {
        let before = state.t;
        state.step(i)?;
        start.read(&mut state.bits, i, before, state.t)?;
        (*t, *v) = (state.t, f64::from_bits(state.v));
        see(start.newest);
    }
    state.bits.check()
}

/// Samples of a chunk, one by one, each with its start timestamp (ms, 0 if not known). Ends after an
/// error.
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    state: State<'a>,
    start: StartTimestamps,
    count: u16,
    done: u16,
}

impl<'a> Iter<'a> {
    /// Starts at the first sample.
    ///
    /// # Errors
    /// If the header is damaged.
    pub fn new(data: &'a [u8]) -> Result<Self, ChunkError> {
        let (state, start, count) = open(data)?;
        Ok(Self { state, start, count, done: 0 })
    }
}

impl Iterator for Iter<'_> {
    type Item = Result<(TimestampMs, Sample), ChunkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done == self.count {
            return None;
        }
        let (index, before) = (usize::from(self.done), self.state.t);
        let step = self.state.step(index);
        let Self { state, start, .. } = self;
        let step = step
            .and_then(|()| start.read(&mut state.bits, index, before, state.t))
            .and_then(|()| state.bits.check());
        self.done += 1;
        match step {
            Ok(()) => {
                let sample = Sample { t: self.state.t, v: f64::from_bits(self.state.v) };
                Some(Ok((self.start.newest, sample)))
            }
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
    /// The newest value that is not a stale marker: what the next one is XORed with.
    base: u64,
    window: Window,
    saw_window: bool,
}

impl State<'_> {
    /// Sample `index`, without its start timestamp.
    #[inline(always)]
    fn step(&mut self, index: usize) -> Result<(), ChunkError> {
        match index {
            0 => self.first(),
            1 => self.second(),
            _ => self.next(),
        }
    }

    fn first(&mut self) -> Result<(), ChunkError> {
        self.t = self.bits.varint()?;
        self.v = self.bits.take(64);
        if self.v != STALE_NAN_BITS {
            self.base = self.v;
        }
        Ok(())
    }

    fn second(&mut self) -> Result<(), ChunkError> {
        self.t_delta = self.bits.uvarint()? as i64;
        self.t = self.t.wrapping_add(self.t_delta);
        self.value()
    }

    #[inline(always)]
    fn next(&mut self) -> Result<(), ChunkError> {
        let word = self.bits.peek();
        match (!word).leading_zeros() {
            0 => {
                self.bits.skip(1);
                self.t = self.t.wrapping_add(self.t_delta);
                self.v = self.base;
                Ok(())
            }
            1 => {
                self.t = self.t.wrapping_add(self.t_delta);
                self.bits.skip(3);
                if word << 2 >> 63 == 0 { self.changed(None) } else { self.changed(Some(word << 3)) }
            }
            // Not by table, as in XOR: the next position is known once the branch is predicted.
            2 => {
                self.bits.skip(16);
                self.distance((word << 3) as i64 >> 51)
            }
            3 => {
                self.bits.skip(24);
                self.distance((word << 4) as i64 >> 44)
            }
            4 => {
                self.bits.skip(5);
                let dod = self.bits.take(64) as i64;
                self.distance(dod)
            }
            _ => {
                self.bits.skip(5);
                self.t = self.t.wrapping_add(self.t_delta);
                self.v = STALE_NAN_BITS;
                Ok(())
            }
        }
    }

    /// A changed distance (in two's complement, unlike in XOR chunks), and the value.
    #[inline(always)]
    fn distance(&mut self, dod: i64) -> Result<(), ChunkError> {
        self.t_delta = self.t_delta.wrapping_add(dod);
        self.t = self.t.wrapping_add(self.t_delta);
        self.value()
    }

    /// The four-way value code.
    #[inline(always)]
    fn value(&mut self) -> Result<(), ChunkError> {
        let word = self.bits.peek();
        match (!word).leading_zeros() {
            0 => {
                self.bits.skip(1);
                self.v = self.base;
                Ok(())
            }
            1 => {
                self.bits.skip(2);
                self.changed(None)
            }
            2 => {
                self.bits.skip(3);
                self.changed(Some(word << 3))
            }
            _ => {
                self.bits.skip(3);
                self.v = STALE_NAN_BITS;
                Ok(())
            }
        }
    }

    /// A changed value, behind a new window if there is one at the top of `window`.
    #[inline(always)]
    fn changed(&mut self, window: Option<u64>) -> Result<(), ChunkError> {
        if let Some(word) = window {
            let Some(window) = Window::parse(word) else {
                return Err(self.bits.error("value window is wider than a value"));
            };
            self.window = window;
            self.saw_window = true;
            self.bits.skip(11);
        }
        self.base ^= self.window.read(&mut self.bits);
        self.v = self.base;
        Ok(())
    }
}
