//! `rate`, `increase`, `delta`, and their instant forms.

use std::ops::Range;

use promontory_tsdb::TimestampMs;

use super::{OneWindow, Scratch};
#[cfg(target_arch = "x86_64")]
use crate::kernels::{Samples, StepRow, Windows};

/// Steps that are computed together.
const LANES: usize = 128;

/// What the arithmetic needs of each window, one array per quantity so that the compiler can take
/// several windows at a time: the formula has seven divisions, which would otherwise dominate.
#[derive(Debug)]
pub(super) struct Lanes {
    /// Last value − first value, plus the value before each reset; 0 in lanes without a result.
    result: [f64; LANES],
    first: [f64; LANES],
    /// Number of samples − 1; at least 1.
    gaps: [f64; LANES],
    /// First to last sample, ms.
    sampled: [f64; LANES],
    /// Window start to first sample, ms.
    to_start: [f64; LANES],
    /// Last sample to window end, ms.
    to_end: [f64; LANES],
}

impl Default for Lanes {
    fn default() -> Self {
        let zero = [0.0; LANES];
        Self {
            result: zero,
            first: zero,
            gaps: [1.0; LANES],
            sampled: [1.0; LANES],
            to_start: zero,
            to_end: zero,
        }
    }
}

/// `rate` (`COUNTER`, `RATE`), `increase` (`COUNTER`) and `delta`.
pub(super) fn evaluate<const COUNTER: bool, const RATE: bool>(
    windows: &Windows,
    samples: Samples<'_>,
    scratch: &mut Scratch,
    out: &mut StepRow,
) {
    let Samples { timestamps, values, .. } = samples;
    let resets = &mut scratch.indexes;
    resets.clear();
    if COUNTER && !samples.rising {
        find_resets(values, resets);
    }
    if let Some(regular) = Regular::of(windows, timestamps) {
        return evaluate_regular::<COUNTER, RATE>(windows, samples, &regular, resets, out);
    }
    let lanes = &mut *scratch.lanes;
    let range_s = go_seconds(windows.width_ms);
    let steps = windows.grid.steps;
    let mut first_reset = 0;
    windows.walk(timestamps, |i, end, lo, hi| {
        let lane = i % LANES;
        if hi >= lo + 2 {
            let (t0, t1) = (timestamps[lo], timestamps[hi - 1]);
            let mut result = values[hi - 1] - values[lo];
            if COUNTER && !resets.is_empty() {
                while first_reset < resets.len() && resets[first_reset] as usize <= lo {
                    first_reset += 1;
                }
                for &r in resets[first_reset..].iter().take_while(|r| (**r as usize) < hi) {
                    result += values[r as usize - 1];
                }
            }
            lanes.result[lane] = result;
            lanes.first[lane] = values[lo];
            lanes.gaps[lane] = (hi - lo - 1) as f64;
            lanes.sampled[lane] = (t1 - t0) as f64;
            lanes.to_start[lane] = (t0 - (end - windows.width_ms)) as f64;
            lanes.to_end[lane] = (end - t1) as f64;
            out.set(i, 0.0);
        }
        if lane == LANES - 1 || i + 1 == steps {
            let first = i - lane;
            extrapolate::<COUNTER, RATE>(lanes, range_s, &mut out.values_mut()[first..=i]);
        }
    });
}

/// The same of one window, for all of `samples`.
pub(super) fn one<const COUNTER: bool, const RATE: bool>(
    window: OneWindow,
    samples: Samples<'_>,
    scratch: &mut Scratch,
) -> Option<f64> {
    let Samples { timestamps: t, values: v, .. } = samples;
    let last = v.len().checked_sub(1).filter(|last| *last > 0)?;
    let mut result = v[last] - v[0];
    if COUNTER {
        let resets = &mut scratch.indexes;
        resets.clear();
        find_resets(v, resets);
        resets.iter().for_each(|r| result += v[*r as usize - 1]);
    }
    let lanes = &mut *scratch.lanes;
    lanes.result[0] = result;
    lanes.first[0] = v[0];
    lanes.gaps[0] = last as f64;
    lanes.sampled[0] = (t[last] - t[0]) as f64;
    lanes.to_start[0] = (t[0] - window.start) as f64;
    lanes.to_end[0] = (window.end - t[last]) as f64;
    let mut out = [0.0];
    extrapolate::<COUNTER, RATE>(lanes, go_seconds(window.end - window.start), &mut out);
    Some(out[0])
}

/// The extrapolation of all lanes. Lanes without a result give garbage, which their absence hides.
#[inline(always)]
fn extrapolate<const COUNTER: bool, const RATE: bool>(lanes: &Lanes, range_s: f64, out: &mut [f64]) {
    // A loop of its own: the compiler would otherwise move this division behind a branch.
    let mut zero = [0.0; LANES];
    if COUNTER {
        for (j, slot) in zero.iter_mut().enumerate() {
            *slot = lanes.first[j] / lanes.result[j];
        }
    }
    for (j, slot) in out.iter_mut().enumerate().take(LANES) {
        let window = Edges {
            gaps: lanes.gaps[j],
            sampled: lanes.sampled[j],
            to_start: lanes.to_start[j],
            to_end: lanes.to_end[j],
        };
        let edges = window.bounded();
        let (result, first) = (lanes.result[j], lanes.first[j]);
        *slot = result * edges.factor::<COUNTER, RATE>(result, first, zero[j], range_s);
    }
}

/// Where the samples of a window lie in it.
#[derive(Debug, Clone, Copy)]
struct Edges {
    /// Number of samples − 1; at least 1.
    gaps: f64,
    /// First to last sample, ms.
    sampled: f64,
    /// Window start to first sample, ms.
    to_start: f64,
    /// Last sample to window end, ms.
    to_end: f64,
}

impl Edges {
    /// How far the samples are taken to reach, all in seconds.
    #[inline(always)]
    fn bounded(self) -> Bounded {
        let sampled = self.sampled / 1000.0;
        let average = sampled / self.gaps;
        let threshold = average * 1.1;
        let to_start = self.to_start / 1000.0;
        let to_end = self.to_end / 1000.0;
        Bounded {
            sampled,
            to_start: if to_start >= threshold { average / 2.0 } else { to_start },
            to_end: if to_end >= threshold { average / 2.0 } else { to_end },
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Bounded {
    sampled: f64,
    to_start: f64,
    to_end: f64,
}

impl Bounded {
    /// What the difference of the samples is multiplied with; `zero` is `first / result`.
    #[inline(always)]
    fn factor<const COUNTER: bool, const RATE: bool>(
        &self,
        result: f64,
        first: f64,
        zero: f64,
        range_s: f64,
    ) -> f64 {
        let mut to_start = self.to_start;
        if COUNTER {
            // A counter does not start below zero: not further back than where its slope meets zero.
            let to_zero = self.sampled * zero;
            let known = (result > 0.0) & (first >= 0.0);
            to_start = if known & (to_zero < to_start) { to_zero } else { to_start };
        }
        self.times::<RATE>(to_start, range_s)
    }

    #[inline(always)]
    fn times<const RATE: bool>(&self, to_start: f64, range_s: f64) -> f64 {
        let mut factor = (self.sampled + to_start + self.to_end) / self.sampled;
        if RATE {
            factor /= range_s;
        }
        factor
    }

    /// Whether it is certain, without a division, that the slope does not meet zero within `to_start`.
    #[inline(always)]
    fn is_far_from_zero(&self, result: f64, first: f64) -> bool {
        // Rounding is much less than a millionth, as long as nothing comes near the ends of the exponent.
        let product = first * self.sampled;
        let safe = (product > 1e-200) & (product < 1e200);
        (result <= 0.0) | result.is_nan() | (safe & (product >= result * (self.to_start * 1.000_001)))
    }
}

/// [`evaluate`] for samples at one distance from each other: all windows between the first and the last sample
/// look alike, so that what does not depend on values is computed once.
#[inline(always)]
fn evaluate_regular<const COUNTER: bool, const RATE: bool>(
    windows: &Windows,
    samples: Samples<'_>,
    regular: &Regular,
    resets: &[u32],
    out: &mut StepRow,
) {
    let values = samples.values;
    let range_s = go_seconds(windows.width_ms);
    let steps = windows.grid.steps;
    let inside = regular.inside(steps);
    for i in (0..inside.start).chain(inside.end..steps) {
        let (lo, hi) = regular.window(i);
        if hi < lo + 2 {
            continue;
        }
        let mut result = values[hi - 1] - values[lo];
        let lost = resets.iter().map(|r| *r as usize).filter(|r| lo < *r && *r < hi);
        lost.for_each(|r| result += values[r - 1]);
        let bounded = regular.edges(windows, i).bounded();
        let zero = if COUNTER { values[lo] / result } else { 0.0 };
        out.set(i, result * bounded.factor::<COUNTER, RATE>(result, values[lo], zero, range_s));
    }
    let (lo, hi) = regular.window(inside.start);
    if inside.is_empty() || hi < lo + 2 {
        return;
    }
    out.set_all(inside.clone());
    let row = &mut out.values_mut()[inside.clone()];
    let firsts = || values[lo..].iter().step_by(regular.stride);
    for ((slot, first), last) in
        row.iter_mut().zip(firsts()).zip(values[hi - 1..].iter().step_by(regular.stride))
    {
        *slot = last - first;
    }
    for &r in resets {
        let seen = regular.seeing(r as usize, &inside);
        row[seen].iter_mut().for_each(|slot| *slot += values[r as usize - 1]);
    }
    let bounded = regular.edges(windows, inside.start).bounded();
    let usual = bounded.times::<RATE>(bounded.to_start, range_s);
    let near = |result: f64, first: f64| !bounded.is_far_from_zero(result, first);
    if COUNTER && row.iter().zip(firsts()).fold(false, |any, (result, first)| any | near(*result, *first)) {
        for (slot, &first) in row.iter_mut().zip(firsts()) {
            let result = *slot;
            *slot = result * bounded.factor::<COUNTER, RATE>(result, first, first / result, range_s);
        }
    } else {
        row.iter_mut().for_each(|slot| *slot *= usual);
    }
}

/// Samples that come every so many ms, under windows that move on by a multiple of that.
#[derive(Debug)]
struct Regular {
    first: TimestampMs,
    delta: i64,
    samples: i64,
    /// First sample of the window of step 0, and the one behind its last, if samples went on for ever.
    lo: i64,
    hi: i64,
    /// Samples from one step to the next.
    stride: usize,
}

impl Regular {
    #[inline(always)]
    fn of(windows: &Windows, timestamps: &[TimestampMs]) -> Option<Self> {
        let [first, second, ..] = *timestamps else { return None };
        let delta = second - first;
        let step = windows.grid.step;
        if windows.is_pinned() || delta <= 0 || step % delta != 0 {
            return None;
        }
        let pairs = timestamps.iter().zip(&timestamps[1..]);
        if pairs.fold(0, |differs, (a, b)| differs | ((b - a) ^ delta)) != 0 {
            return None;
        }
        let end = windows.end(0).checked_sub(first)?;
        let lo = end.checked_sub(windows.width_ms)?.div_euclid(delta) + 1;
        let hi = end.div_euclid(delta) + 1;
        let stride = usize::try_from(step / delta).ok()?;
        Some(Self { first, delta, samples: timestamps.len() as i64, lo, hi, stride })
    }

    /// Samples `lo..hi` are those of step `i`.
    fn window(&self, i: usize) -> (usize, usize) {
        let moved = (i * self.stride) as i64;
        let index = |at: i64| at.saturating_add(moved).clamp(0, self.samples) as usize;
        (index(self.lo), index(self.hi))
    }

    fn edges(&self, windows: &Windows, i: usize) -> Edges {
        let (lo, hi) = self.window(i);
        let time = |k: usize| self.first + k as i64 * self.delta;
        let end = windows.end(i);
        Edges {
            gaps: (hi - lo - 1) as f64,
            sampled: (time(hi - 1) - time(lo)) as f64,
            to_start: (time(lo) - (end - windows.width_ms)) as f64,
            to_end: (end - time(hi - 1)) as f64,
        }
    }

    /// Steps whose windows lie between the first and the last sample.
    fn inside(&self, steps: usize) -> Range<usize> {
        let stride = self.stride as i64;
        let first = (-self.lo).max(0).saturating_add(stride - 1) / stride;
        let end = (self.samples - self.hi).div_euclid(stride).saturating_add(1);
        let first = first.clamp(0, steps as i64) as usize;
        first..(end.clamp(0, steps as i64) as usize).max(first)
    }

    /// Of the steps `inside`, those in whose windows sample `r` is not the first; counted from the first of
    /// `inside`.
    fn seeing(&self, r: usize, inside: &Range<usize>) -> Range<usize> {
        let (r, stride) = (r as i64, self.stride as i64);
        let place = |i: i64| i.clamp(inside.start as i64, inside.end as i64) as usize - inside.start;
        let first = place((r - self.hi).div_euclid(stride) + 1);
        first..place((r - self.lo - 1).div_euclid(stride) + 1).max(first)
    }
}

/// Indexes of values below the value before.
#[inline(always)]
fn find_resets(values: &[f64], resets: &mut Vec<u32>) {
    const CHUNK: usize = 64;
    for start in (1..values.len()).step_by(CHUNK) {
        let end = (start + CHUNK).min(values.len());
        let (before, after) = (&values[start - 1..end - 1], &values[start..end]);
        // Counters rarely reset: counting vectorises, and only a chunk with a hit is looked at again.
        if before.iter().zip(after).filter(|(b, a)| a < b).count() > 0 {
            resets.extend(
                before.iter().zip(after).zip(start as u32..).filter(|((b, a), _)| a < b).map(|(_, i)| i),
            );
        }
    }
}

/// `Duration.Seconds` of Go: whole seconds and the rest are converted apart.
pub(super) fn go_seconds(ms: i64) -> f64 {
    (ms / 1000) as f64 + (ms % 1000 * 1_000_000) as f64 / 1e9
}

/// `irate` (`RATE`) and `idelta`: the last two samples only.
pub(super) fn last_two<const RATE: bool>(windows: &Windows, samples: Samples<'_>, out: &mut StepRow) {
    let Samples { timestamps, values, .. } = samples;
    windows.walk(timestamps, |i, _, lo, hi| {
        if hi >= lo + 2 {
            let (before, last) = (values[hi - 2], values[hi - 1]);
            let mut v = if RATE && last < before { last } else { last - before };
            if RATE {
                v /= (timestamps[hi - 1] - timestamps[hi - 2]) as f64 / 1000.0;
            }
            out.set(i, v);
        }
    });
}
