//! XOR2 chunks, read only: floats with joint timestamp and value control bits.
//!
//! # Format
//! `docs/format/chunks.md`. As [`super::xor`], with a header byte for start timestamps, byte-friendly
//! delta-of-delta widths, and a short code for the stale marker, which never becomes the value that
//! the next one is XORed with. Start timestamps are decoded only to be skipped.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/chunkenc/xor2.go>

use super::bits::{BitReader, Window, lopsided};
use super::{ChunkError, fill_samples};
use crate::sample::{STALE_NAN_BITS, TimestampMs};

const HEADER: usize = 3;
/// Payload widths of a start timestamp change by the number of leading ones of its prefix.
const VARBIT_BITS: [u32; 9] = [0, 3, 6, 9, 12, 18, 25, 56, 64];

/// Appends all samples of a chunk to `timestamps` and `values`.
///
/// # Errors
/// If the chunk is damaged; the vectors are then as they were.
pub fn decode_into(
    data: &[u8],
    timestamps: &mut Vec<TimestampMs>,
    values: &mut Vec<f64>,
) -> Result<(), ChunkError> {
    let Some([hi, lo, start_times]) = data.first_chunk::<HEADER>().copied() else {
        return Err(ChunkError::Corrupt { bit: 0, reason: "chunk has no header" });
    };
    let count = usize::from(u16::from_be_bytes([hi, lo]));
    let least = match count {
        0 => 0,
        1 => 72,
        n => 72 + 9 + (n - 2),
    };
    if least > (data.len() - HEADER) * 8 {
        return Err(ChunkError::Corrupt { bit: 0, reason: "sample count is more than the chunk can hold" });
    }
    let first_known = start_times & 0x80 != 0;
    // Index of the first sample that carries a start timestamp; from there on every sample does.
    let from = match usize::from(start_times & 0x7f) {
        0 => usize::MAX,
        n => n,
    };
    let mut state =
        State { bits: BitReader::new(data, HEADER), t: 0, t_delta: 0, v: 0, base: 0, window: Window::WHOLE };
    fill_samples(timestamps, values, count, |ts, vs| {
        for (i, (t, v)) in ts.iter_mut().zip(vs).enumerate() {
            match i {
                0 => state.first(first_known)?,
                1 => state.second()?,
                _ => state.next()?,
            }
            if i >= from {
                // Decoded only to know its length.
                varbit(&mut state.bits);
            }
            (*t, *v) = (state.t, f64::from_bits(state.v));
        }
        state.bits.check()
    })
}

struct State<'a> {
    bits: BitReader<'a>,
    t: TimestampMs,
    t_delta: i64,
    v: u64,
    /// The newest value that is not a stale marker: what the next one is XORed with.
    base: u64,
    window: Window,
}

impl State<'_> {
    fn first(&mut self, start_time_known: bool) -> Result<(), ChunkError> {
        self.t = self.bits.varint()?;
        self.v = self.bits.take(64);
        if self.v != STALE_NAN_BITS {
            self.base = self.v;
        }
        if start_time_known {
            self.bits.varint()?;
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
            ones @ 2..=4 => {
                let n = [13, 20, 64][ones as usize - 2];
                self.bits.skip(ones as usize + 1);
                // Two's complement here, unlike in XOR chunks.
                let dod = (self.bits.take(n) << (64 - n)) as i64 >> (64 - n);
                self.t_delta = self.t_delta.wrapping_add(dod);
                self.t = self.t.wrapping_add(self.t_delta);
                self.value()
            }
            _ => {
                self.bits.skip(5);
                self.t = self.t.wrapping_add(self.t_delta);
                self.v = STALE_NAN_BITS;
                Ok(())
            }
        }
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
            self.bits.skip(11);
        }
        self.base ^= self.window.read(&mut self.bits);
        self.v = self.base;
        Ok(())
    }
}

/// A number in Prometheus' "varbit" code.
fn varbit(bits: &mut BitReader<'_>) -> i64 {
    let word = bits.peek();
    let ones = (!word).leading_zeros().min(8);
    bits.skip((ones + 1).min(8) as usize);
    match VARBIT_BITS[ones as usize] {
        0 => 0,
        64 => bits.take(64) as i64,
        n => {
            let word = bits.peek();
            bits.skip(n as usize);
            lopsided(word, n)
        }
    }
}
