//! `rate`, `increase`, `delta`, and their instant forms.

use super::{OneWindow, Scratch};
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
    if COUNTER {
        find_resets(values, resets);
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
fn extrapolate<const COUNTER: bool, const RATE: bool>(lanes: &Lanes, range_s: f64, out: &mut [f64]) {
    // A loop of its own: the compiler would otherwise move this division behind a branch.
    let mut zero = [0.0; LANES];
    if COUNTER {
        for (j, slot) in zero.iter_mut().enumerate() {
            *slot = lanes.first[j] / lanes.result[j];
        }
    }
    for (j, slot) in out.iter_mut().enumerate().take(LANES) {
        let (result, first) = (lanes.result[j], lanes.first[j]);
        let sampled = lanes.sampled[j] / 1000.0;
        let average = sampled / lanes.gaps[j];
        let threshold = average * 1.1;
        let mut to_start = lanes.to_start[j] / 1000.0;
        let mut to_end = lanes.to_end[j] / 1000.0;
        to_start = if to_start >= threshold { average / 2.0 } else { to_start };
        if COUNTER {
            // A counter does not start below zero: not further back than where its slope meets zero.
            let to_zero = sampled * zero[j];
            let known = (result > 0.0) & (first >= 0.0);
            to_start = if known & (to_zero < to_start) { to_zero } else { to_start };
        }
        to_end = if to_end >= threshold { average / 2.0 } else { to_end };
        let mut factor = (sampled + to_start + to_end) / sampled;
        if RATE {
            factor /= range_s;
        }
        *slot = result * factor;
    }
}

/// Indexes of values below the value before.
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
