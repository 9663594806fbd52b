//! Eight chunks in lockstep, a sample of each at every step, in vectors of four.
//!
//! What one chunk after the other costs is branches that cannot be predicted, on whether a value differs and on whether
//! its bits lie where those before did, and that a sample begins only where the one before is known to end. Here there is
//! no branch but on what is rare, for all lanes together, and lanes do not wait for each other.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::bulk::{NEAR, Registers};
use crate::sample::TimestampMs;

/// Chunks that are read at the same time.
pub(super) const LANES: usize = 8;
/// Lanes of one vector.
pub(super) const HALF: usize = 4;
/// Bytes of a chunk that a lane has room for; Prometheus makes no larger chunks of floats.
pub(super) const ROOM: usize = 1024;
/// Most steps of one run.
pub(super) const STEPS: usize = 128;

/// A chunk, zeros behind it, and what reading at its last byte touches. Positions are taken modulo [`ROOM`], so that
/// damage leads to samples that are wrong, but not astray.
type Buffer = [u8; ROOM + NEAR];

/// Where the samples of a lane go.
#[derive(Debug)]
pub(super) struct Out<'a> {
    pub(super) timestamps: &'a mut [MaybeUninit<TimestampMs>],
    pub(super) values: &'a mut [MaybeUninit<f64>],
}

/// Chunks that are being read, with the CPU's AVX2.
#[derive(Debug)]
pub(super) struct Lanes {
    buffers: [[Buffer; HALF]; 2],
    states: [Four; 2],
}

/// What [`Registers`] has, of four lanes.
#[derive(Debug, Clone, Copy, Default)]
struct Four {
    bit: [u64; HALF],
    t: [u64; HALF],
    t_delta: [u64; HALF],
    v: [u64; HALF],
    /// Bits that a value has beyond its significant ones, `0..64`.
    spare: [u64; HALF],
    trailing: [u64; HALF],
    /// Has its top bit once a window was wider than a value.
    wrong: [u64; HALF],
}

impl Lanes {
    /// Whether this CPU can do it.
    pub(super) fn available() -> bool {
        is_x86_feature_detected!("avx2")
    }

    /// Lanes without chunks.
    pub(super) fn new() -> Self {
        Self { buffers: [[[0; ROOM + NEAR]; HALF]; 2], states: [Four::default(); 2] }
    }

    /// Puts a chunk into a lane, at most [`ROOM`] bytes from where `state` counts.
    pub(super) fn set(&mut self, lane: usize, state: Registers, rest: &[u8]) {
        let (four, lane) = (lane / HALF, lane % HALF);
        let (chunk, behind) = self.buffers[four][lane].split_at_mut(rest.len());
        chunk.copy_from_slice(rest);
        let zeros = behind.len().min(NEAR);
        behind[..zeros].fill(0);
        self.states[four].set(lane, state);
    }

    /// Makes a lane idle: it goes on reading, zeros.
    pub(super) fn clear(&mut self, lane: usize) {
        let (four, lane) = (lane / HALF, lane % HALF);
        // Two bits a step.
        self.buffers[four][lane][..STEPS / 4 + NEAR].fill(0);
        self.states[four].bit[lane] = 0;
    }

    pub(super) fn state(&self, lane: usize) -> Registers {
        self.states[lane / HALF].get(lane % HALF)
    }

    /// Reads one sample of any sort in one lane.
    pub(super) fn step(&mut self, lane: usize) -> Registers {
        let mut state = self.state(lane);
        let (four, lane) = (lane / HALF, lane % HALF);
        let at = state.bit / 8 % ROOM;
        if let Some(near) = self.buffers[four][lane][at..].first_chunk() {
            state.sample(near);
        }
        self.states[four].set(lane, state);
        state
    }

    /// Takes `steps` steps, at most [`STEPS`], in the first lanes, four for each of `groups`; of lanes without a place
    /// to go the samples are lost. Stops before a step in which a timestamp needs 64 bits: how many steps were
    /// taken, and which lanes have such, as bits; none after all steps.
    ///
    /// # Panics
    /// If a lane has room for less than `steps`, or the CPU has no lanes.
    pub(super) fn run(
        &mut self,
        outs: &mut [Option<Out<'_>>; LANES],
        steps: usize,
        groups: usize,
    ) -> (usize, u32) {
        assert!(Self::available() && steps <= STEPS, "the CPU has lanes, and the run is short");
        let mut nowhere = [MaybeUninit::<u64>::uninit(); STEPS];
        let nowhere = nowhere.as_mut_ptr().cast::<u64>();
        let places = outs.each_mut().map(|out| match out {
            Some(Out { timestamps, values }) => {
                assert!(timestamps.len() >= steps && values.len() >= steps, "there is room for what is read");
                (timestamps.as_mut_ptr().cast::<u64>(), values.as_mut_ptr().cast::<u64>())
            }
            None => (nowhere, nowhere),
        });
        // Idle lanes begin anew at their zeros, so that they never stop the others.
        for lane in (0..groups * HALF).filter(|lane| outs[*lane].is_none()) {
            self.states[lane / HALF].bit[lane % HALF] = 0;
        }
        // SAFETY: the CPU has AVX2, and behind each place there are `steps` slots, of the slices in `outs`, which are
        // borrowed here, or of `nowhere`.
        unsafe {
            match groups {
                1 => run::<1>(&self.buffers, &mut self.states, &places, steps),
                _ => run::<2>(&self.buffers, &mut self.states, &places, steps),
            }
        }
    }
}

impl Four {
    fn set(&mut self, lane: usize, state: Registers) {
        self.bit[lane] = state.bit as u64;
        self.t[lane] = state.t.cast_unsigned();
        self.t_delta[lane] = state.t_delta.cast_unsigned();
        self.v[lane] = state.v;
        self.spare[lane] = u64::from(64 - state.significant);
        self.trailing[lane] = i64::from(state.trailing.cast_signed()).cast_unsigned();
        self.wrong[lane] = if state.wrong > 63 { u64::MAX } else { 0 };
    }

    fn get(&self, lane: usize) -> Registers {
        Registers {
            bit: self.bit[lane] as usize,
            t: self.t[lane].cast_signed(),
            t_delta: self.t_delta[lane].cast_signed(),
            v: self.v[lane],
            significant: 64 - self.spare[lane] as u32,
            trailing: self.trailing[lane] as u32,
            wrong: (self.wrong[lane] >> 32) as u32,
        }
    }
}

/// A [`Four`] in registers.
#[derive(Clone, Copy)]
struct Vectors {
    bit: __m256i,
    t: __m256i,
    t_delta: __m256i,
    v: __m256i,
    spare: __m256i,
    trailing: __m256i,
    wrong: __m256i,
}

/// What stands where a sample begins.
#[derive(Clone, Copy)]
struct Near {
    /// 16 bytes from the one that has its first bit.
    high: __m256i,
    low: __m256i,
    /// Bits of those 16 bytes that are read.
    read: __m256i,
    /// What follows them: at least 57 bits at first, 33 behind a timestamp.
    word: __m256i,
}

/// As [`Lanes::run`].
///
/// # Safety
/// All `places` can take `steps`.
#[target_feature(enable = "avx2")]
#[inline(never)]
unsafe fn run<const GROUPS: usize>(
    buffers: &[[Buffer; HALF]; 2],
    states: &mut [Four; 2],
    places: &[(*mut u64, *mut u64); LANES],
    steps: usize,
) -> (usize, u32) {
    let places = *places;
    let mut vectors = [Vectors::load(&states[0]); GROUPS];
    for g in 1..GROUPS {
        vectors[g] = Vectors::load(&states[g]);
    }
    let (mut done, mut far) = (0, 0);
    while done < steps {
        let mut near = [vectors[0].near(&buffers[0]); GROUPS];
        for g in 1..GROUPS {
            near[g] = vectors[g].near(&buffers[g]);
        }
        far = read_times(&mut vectors, &mut near);
        if far != 0 {
            break;
        }
        for g in 0..GROUPS {
            vectors[g].sample(near[g]);
            let (t, v) = (unpack(vectors[g].t), unpack(vectors[g].v));
            for lane in 0..HALF {
                let (timestamps, values) = places[g * HALF + lane];
                // SAFETY: `done` is less than `steps`.
                unsafe {
                    timestamps.add(done).write(t[lane]);
                    values.add(done).write(v[lane]);
                }
            }
        }
        done += 1;
    }
    for g in 0..GROUPS {
        states[g] = vectors[g].store();
    }
    (done, far)
}

/// Reads how far timestamps are from where they are expected. If that takes 64 bits in some lanes, it tells which, and
/// nothing is read.
#[target_feature(enable = "avx2")]
#[inline]
fn read_times<const GROUPS: usize>(vectors: &mut [Vectors; GROUPS], near: &mut [Near; GROUPS]) -> u32 {
    // Which of the cases it is hardly changes from step to step.
    let (mut some, mut more) = (all(0), all(0));
    for near in &*near {
        some = _mm256_or_si256(some, near.word);
        more = _mm256_or_si256(more, near.first_bits::<2>());
    }
    if top_bits(some) == 0 {
        for near in near {
            near.skip_bit();
        }
        return 0;
    }
    if top_bits(more) == 0 {
        for (vectors, near) in vectors.iter_mut().zip(near) {
            vectors.change::<false>(near);
        }
        return 0;
    }
    let mut far = 0;
    for (g, near) in near.iter().enumerate() {
        far |= top_bits(near.first_bits::<4>()) << (g * HALF);
    }
    if far == 0 {
        for (vectors, near) in vectors.iter_mut().zip(near) {
            vectors.change::<true>(near);
        }
    }
    far
}

impl Vectors {
    #[target_feature(enable = "avx2")]
    #[inline]
    fn load(from: &Four) -> Self {
        Self {
            bit: pack(from.bit),
            t: pack(from.t),
            t_delta: pack(from.t_delta),
            v: pack(from.v),
            spare: pack(from.spare),
            trailing: pack(from.trailing),
            wrong: pack(from.wrong),
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn store(&self) -> Four {
        Four {
            bit: unpack(self.bit),
            t: unpack(self.t),
            t_delta: unpack(self.t_delta),
            v: unpack(self.v),
            spare: unpack(self.spare),
            trailing: unpack(self.trailing),
            wrong: unpack(self.wrong),
        }
    }

    /// Loads what stands at `bit`.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn near(&self, buffers: &[Buffer; HALF]) -> Near {
        let at = unpack(both(_mm256_srli_epi64::<3>(self.bit), all(ROOM as u64 - 1)));
        let load = |lane: usize| {
            // SAFETY: the position is less than `ROOM`, behind which there are `NEAR` bytes.
            unsafe { _mm_loadu_si128(buffers[lane].as_ptr().add(at[lane] as usize).cast()) }
        };
        let even = _mm256_set_m128i(load(2), load(0));
        let odd = _mm256_set_m128i(load(3), load(1));
        let big_endian =
            _mm256_broadcastsi128_si256(_mm_set_epi8(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
        let high = _mm256_shuffle_epi8(_mm256_unpacklo_epi64(even, odd), big_endian);
        let low = _mm256_shuffle_epi8(_mm256_unpackhi_epi64(even, odd), big_endian);
        let read = both(self.bit, all(7));
        Near { high, low, read, word: _mm256_sllv_epi64(high, read) }
    }

    /// Reads how far timestamps are from where they are expected: in one bit or sixteen, or, if `FAR`, in 20 or 24 too.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn change<const FAR: bool>(&mut self, near: &mut Near) {
        let (mut prefix, mut bits) = (all(2), all(14));
        if FAR {
            let (second, third) = (twice(near.word), _mm256_slli_epi64::<2>(near.word));
            prefix = select(second, select(third, all(4), all(3)), prefix);
            bits = select(second, select(third, all(20), all(17)), bits);
        }
        let is_there = _mm256_cmpgt_epi64(_mm256_setzero_si256(), near.word);
        // As `lopsided`.
        let above = _mm256_sub_epi64(all(64), bits);
        let field = _mm256_srlv_epi64(_mm256_sllv_epi64(near.word, prefix), above);
        let end = _mm256_sllv_epi64(all(1), bits);
        let negative = _mm256_cmpgt_epi64(field, _mm256_srli_epi64::<1>(end));
        let change = _mm256_sub_epi64(field, both(negative, end));
        self.t_delta = _mm256_add_epi64(self.t_delta, both(change, is_there));
        let width = select(near.word, _mm256_add_epi64(prefix, bits), all(1));
        near.word = _mm256_sllv_epi64(near.word, width);
        near.read = _mm256_add_epi64(near.read, width);
    }

    /// Reads values, which is the rest of a sample.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn sample(&mut self, near: Near) {
        self.t = _mm256_add_epi64(self.t, self.t_delta);
        let word = near.word;
        let second = twice(word);
        let is_new = both(word, second);
        // 5 bits of leading zeros and 6 of width, of which 0 is 64.
        let spare = _mm256_sub_epi64(_mm256_setzero_si256(), _mm256_srli_epi64::<51>(word));
        let spare = both(spare, all(63));
        let leading = both(_mm256_srli_epi64::<57>(word), all(31));
        self.spare = select(is_new, spare, self.spare);
        self.trailing = select(is_new, _mm256_sub_epi64(spare, leading), self.trailing);
        self.wrong = _mm256_or_si256(self.wrong, self.trailing);
        let prefix = select(word, select(second, all(13), all(2)), all(1));
        // An equal value has no significant bits; shifting by 64 leaves none.
        let spare = select(word, self.spare, all(64));
        let read = _mm256_add_epi64(near.read, prefix);
        let left = _mm256_sub_epi64(all(64), read);
        let bits = _mm256_or_si256(_mm256_sllv_epi64(near.high, read), _mm256_srlv_epi64(near.low, left));
        let bits = _mm256_sllv_epi64(_mm256_srlv_epi64(bits, spare), self.trailing);
        self.v = _mm256_xor_si256(self.v, bits);
        // From the first bit of the byte.
        let base = _mm256_add_epi64(_mm256_andnot_si256(all(7), self.bit), all(64));
        self.bit = _mm256_add_epi64(base, _mm256_sub_epi64(read, spare));
    }
}

impl Near {
    /// The top bits of this are whether the first `N` bits of what follows, two or four, are all ones.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn first_bits<const N: usize>(&self) -> __m256i {
        let two = both(self.word, twice(self.word));
        if N == 2 { two } else { both(two, _mm256_slli_epi64::<2>(two)) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn skip_bit(&mut self) {
        self.word = twice(self.word);
        self.read = _mm256_add_epi64(self.read, all(1));
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn pack(lanes: [u64; HALF]) -> __m256i {
    let [a, b, c, d] = lanes.map(u64::cast_signed);
    _mm256_set_epi64x(d, c, b, a)
}

#[target_feature(enable = "avx2")]
#[inline]
fn unpack(lanes: __m256i) -> [u64; HALF] {
    [
        _mm256_extract_epi64::<0>(lanes).cast_unsigned(),
        _mm256_extract_epi64::<1>(lanes).cast_unsigned(),
        _mm256_extract_epi64::<2>(lanes).cast_unsigned(),
        _mm256_extract_epi64::<3>(lanes).cast_unsigned(),
    ]
}

#[target_feature(enable = "avx2")]
#[inline]
fn all(value: u64) -> __m256i {
    _mm256_set1_epi64x(value.cast_signed())
}

#[target_feature(enable = "avx2")]
#[inline]
fn both(a: __m256i, b: __m256i) -> __m256i {
    _mm256_and_si256(a, b)
}

#[target_feature(enable = "avx2")]
#[inline]
fn twice(a: __m256i) -> __m256i {
    _mm256_add_epi64(a, a)
}

/// `then` in lanes in which `top` has its top bit, else `otherwise`.
#[target_feature(enable = "avx2")]
#[inline]
fn select(top: __m256i, then: __m256i, otherwise: __m256i) -> __m256i {
    let (then, otherwise) = (_mm256_castsi256_pd(then), _mm256_castsi256_pd(otherwise));
    _mm256_castpd_si256(_mm256_blendv_pd(otherwise, then, _mm256_castsi256_pd(top)))
}

/// The top bits of all lanes.
#[target_feature(enable = "avx2")]
#[inline]
fn top_bits(lanes: __m256i) -> u32 {
    _mm256_movemask_pd(_mm256_castsi256_pd(lanes)).cast_unsigned()
}
