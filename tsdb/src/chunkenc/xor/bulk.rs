//! All samples of a chunk at once: what queries spend most of their time in.
//!
//! Same bits as [`super::Iter`], read in another way. The state is in registers, and a sample is read from one
//! wide load where it fits into that; only what a sample needs beyond it is loaded anew. What is wrong is
//! remembered and told at the end, so that nothing is checked from sample to sample but that there are bytes left.

use std::mem::MaybeUninit;

use super::{HEADER, State};
use crate::chunkenc::ChunkError;
use crate::chunkenc::bits::{Window, lopsided};
use crate::encoding::{self, unzigzag};
use crate::sample::TimestampMs;

/// Bytes that one sample may touch: seven bits of the sample before, 68 of a timestamp, 77 of a value, and the rest of
/// the last load.
pub(super) const NEAR: usize = 24;

/// Appends all samples of a chunk to `timestamps` and `values`.
///
/// # Errors
/// If the chunk is damaged; the vectors are then as they were.
pub fn decode_into(
    data: &[u8],
    timestamps: &mut Vec<TimestampMs>,
    values: &mut Vec<f64>,
) -> Result<(), ChunkError> {
    let (_, count) = State::open(data)?;
    let count = usize::from(count);
    timestamps.reserve(count);
    values.reserve(count);
    let room = (&mut timestamps.spare_capacity_mut()[..count], &mut values.spare_capacity_mut()[..count]);
    decode(data, room.0, room.1)?;
    // SAFETY: there is room for `count` more, and `decode` wrote all of `count` slots behind the present end.
    unsafe {
        timestamps.set_len(timestamps.len() + count);
        values.set_len(values.len() + count);
    }
    Ok(())
}

/// Writes every slot, or gives an error. There are as many timestamps as values.
pub(super) fn decode(
    data: &[u8],
    timestamps: &mut [MaybeUninit<TimestampMs>],
    values: &mut [MaybeUninit<f64>],
) -> Result<(), ChunkError> {
    match begin(data, timestamps, values)? {
        Some((state, rest)) => finish(rest, state, timestamps, values, 2).map_err(|e| e.of(data)),
        None => Ok(()),
    }
}

/// Reads the first two samples, which are unlike all others: the state behind them and the bytes that it counts its
/// bits in. `None` if there are no more than one, which is then written.
#[inline(always)]
pub(super) fn begin<'a>(
    data: &'a [u8],
    timestamps: &mut [MaybeUninit<TimestampMs>],
    values: &mut [MaybeUninit<f64>],
) -> Result<Option<(Registers, &'a [u8])>, ChunkError> {
    let (Some(first_t), Some(first_v)) = (timestamps.first_mut(), values.first_mut()) else {
        return Ok(None);
    };
    let mut at = HEADER;
    let t = unzigzag(uvarint(data, &mut at)?);
    let bytes = data.get(at..).and_then(|rest| rest.first_chunk::<8>());
    let bytes = bytes.ok_or_else(|| Damage::TooShort.of(data))?;
    at += 8;
    let v = u64::from_be_bytes(*bytes);
    first_t.write(t);
    first_v.write(f64::from_bits(v));
    if timestamps.len() == 1 {
        return Ok(None);
    }
    let t_delta = uvarint(data, &mut at)?.cast_signed();
    let t = t.wrapping_add(t_delta);
    let Window { significant, trailing } = Window::WHOLE;
    let mut state = Registers { bit: 0, t, t_delta, v, significant, trailing, wrong: 0 };

    // The last few bytes are read with zeros behind them, which are no samples.
    let rest = data.get(at..).unwrap_or_default();
    let first = rest.first_chunk::<NEAR>().copied().unwrap_or_else(|| padded(rest));
    state.value(&first, 0, first_word(&first), 56);
    timestamps[1].write(state.t);
    values[1].write(f64::from_bits(state.v));
    Ok(Some((state, rest)))
}

/// Reads samples `from..`, which follow `state`.
pub(super) fn finish(
    rest: &[u8],
    mut state: Registers,
    timestamps: &mut [MaybeUninit<TimestampMs>],
    values: &mut [MaybeUninit<f64>],
    from: usize,
) -> Result<(), Damage> {
    let count = timestamps.len();
    let mut done;
    (state, done) = state.run(rest, timestamps, values, from);
    if done < count {
        let mut last = [0; 3 * NEAR];
        let skipped = match rest.last_chunk::<NEAR>() {
            Some(end) => {
                last[..NEAR].copy_from_slice(end);
                (rest.len() - NEAR) * 8
            }
            None => {
                last[..NEAR].copy_from_slice(&padded(rest));
                0
            }
        };
        // What was read so far ends within these bytes, or behind them.
        state.bit -= skipped;
        (state, done) = state.run(&last, timestamps, values, done);
        state.bit += skipped;
    }
    if done < count { Err(Damage::TooShort) } else { state.check(rest) }
}

/// What is found wrong with a chunk at its end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Damage {
    TooShort,
    WideWindow,
}

impl Damage {
    #[cold]
    fn of(self, data: &[u8]) -> ChunkError {
        let reason = match self {
            Self::TooShort => "chunk ends too early",
            Self::WideWindow => "value window is wider than a value",
        };
        ChunkError::Corrupt { bit: data.len() * 8, reason }
    }
}

/// `rest`, which is shorter, and zeros.
#[cold]
fn padded(rest: &[u8]) -> [u8; NEAR] {
    let mut out = [0; NEAR];
    out.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    out
}

/// LEB128 at byte `at`, which moves on.
#[inline(always)]
fn uvarint(data: &[u8], at: &mut usize) -> Result<u64, ChunkError> {
    let number = encoding::uvarint(data.get(*at..).unwrap_or_default());
    let (value, len) = number.map_err(|reason| ChunkError::Corrupt { bit: *at * 8, reason })?;
    *at += len;
    Ok(value)
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Registers {
    /// Bits read so far.
    pub(super) bit: usize,
    pub(super) t: TimestampMs,
    pub(super) t_delta: i64,
    pub(super) v: u64,
    /// See [`Window`].
    pub(super) significant: u32,
    pub(super) trailing: u32,
    /// More than 63 once a window was wider than a value.
    pub(super) wrong: u32,
}

impl Registers {
    /// Whether what was read was there, and was sound.
    pub(super) fn check(&self, rest: &[u8]) -> Result<(), Damage> {
        if self.bit > rest.len() * 8 {
            Err(Damage::TooShort)
        } else if self.wrong > 63 {
            Err(Damage::WideWindow)
        } else {
            Ok(())
        }
    }

    /// Reads samples `from..` as long as there are bytes for a whole one, and gives the number of the next.
    ///
    /// A function of its own with a copy of the state, which that keeps in registers.
    #[inline(never)]
    fn run(
        &self,
        bytes: &[u8],
        timestamps: &mut [MaybeUninit<TimestampMs>],
        values: &mut [MaybeUninit<f64>],
        from: usize,
    ) -> (Self, usize) {
        let mut state = *self;
        let count = timestamps.len();
        // One length for both, so that one check is enough.
        let values = &mut values[..count];
        let mut i = from;
        while i < count {
            let first = state.bit >> 3;
            let Some(near) = bytes.get(first..first + NEAR).and_then(|near| near.first_chunk::<NEAR>())
            else {
                break;
            };
            state.sample(near);
            timestamps[i].write(state.t);
            values[i].write(f64::from_bits(state.v));
            i += 1;
        }
        (state, i)
    }

    #[inline(always)]
    pub(super) fn sample(&mut self, near: &[u8; NEAR]) {
        let bit = self.bit & 7;
        let mut word = first_word(near) << bit;
        let (read, left);
        if word >> 63 == 0 {
            // The timestamp is where it is expected.
            (read, left) = (1, 56);
            word <<= 1;
        } else if word >> 62 == 0b10 {
            self.t_delta = self.t_delta.wrapping_add(lopsided(word << 2, 14));
            (read, left) = (16, 41);
            word <<= 16;
        } else {
            let change;
            (change, read) = rare_change(near, bit, word);
            self.t_delta = self.t_delta.wrapping_add(change);
            left = 57;
            word = word_at(near, bit + read);
        }
        self.t = self.t.wrapping_add(self.t_delta);
        self.bit += read;
        self.value(near, bit + read, word, left);
    }

    /// Reads a value at bit `at` of `near`. `word` has the next `left` bits at its top.
    #[inline(always)]
    fn value(&mut self, near: &[u8; NEAR], at: usize, word: u64, left: u32) {
        if word >> 63 == 0 {
            self.bit += 1;
            return;
        }
        let mut prefix = 2;
        if word >> 62 == 0b11 {
            let leading = (word >> 57) as u32 & 31;
            self.significant = ((word >> 51) as u32 & 63).wrapping_sub(1) % 64 + 1;
            self.trailing = 64u32.wrapping_sub(leading + self.significant);
            self.wrong |= self.trailing;
            prefix = 13;
        }
        let mut bits = word << prefix;
        if prefix + self.significant > left {
            bits = word_at(near, at + prefix as usize);
        }
        // The mask is for windows that are wrong.
        self.v ^= bits >> (64 - self.significant) << (self.trailing & 63);
        self.bit += (prefix + self.significant) as usize;
    }
}

/// How far a timestamp is from where it is expected, and in how many bits that is said, if it is far. `word` is what
/// stands at bit `bit` of `near`.
///
/// Not a method: the state would have to be in memory for it.
#[cold]
fn rare_change(near: &[u8; NEAR], bit: usize, word: u64) -> (i64, usize) {
    let ones = (!word).leading_zeros().min(4);
    match super::DOD_BITS[ones as usize] {
        64 => (word_at(near, bit + 4).cast_signed(), 68),
        n => (lopsided(word << (ones + 1), n), (ones + 1 + n) as usize),
    }
}

#[inline(always)]
fn first_word(near: &[u8; NEAR]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *near;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// 64 bits from bit `at` on.
#[inline(always)]
fn word_at(near: &[u8; NEAR], at: usize) -> u64 {
    // A sample has no more than that, so the mask changes nothing; it spares a check.
    let first = (at / 8) & 15;
    let mut wide = [0; 9];
    wide.copy_from_slice(&near[first..first + 9]);
    let [head @ .., last] = wide;
    let bit = at % 8;
    u64::from_be_bytes(head) << bit | u64::from(last) >> (8 - bit)
}
