//! `*_over_time`, `changes` and `resets`: functions that look at values and not at their spacing.

use super::Scratch;
use crate::kernels::{Samples, StepRow, Windows, kahan, quantile as quantiles};

/// `sum_over_time`. `values` is not empty.
pub(super) fn sum(values: &[f64]) -> f64 {
    let mut sum = kahan::KahanSum::default();
    values.iter().for_each(|v| sum.add(*v));
    // An infinite sum must not become NaN by its compensation.
    if sum.sum.is_infinite() { sum.sum } else { sum.total() }
}

/// `avg_over_time`: the direct mean as long as the sum does not overflow, then an incremental one.
/// `values` is not empty.
pub(super) fn avg(values: &[f64]) -> f64 {
    let (mut sum, mut c) = (values[0], 0.0);
    for (i, &v) in values.iter().enumerate().skip(1) {
        let (next, next_c) = kahan::inc(v, sum, c);
        if next.is_infinite() {
            return incremental_avg(values, i, sum, c);
        }
        (sum, c) = (next, next_c);
    }
    let count = values.len() as f64;
    sum / count + c / count
}

/// Goes on from the sum of the first `done` values.
fn incremental_avg(values: &[f64], done: usize, sum: f64, c: f64) -> f64 {
    let (mut mean, mut c) = (sum / done as f64, c / done as f64);
    for (i, &v) in values.iter().enumerate().skip(done) {
        let count = (i + 1) as f64;
        let q = (count - 1.0) / count;
        (mean, c) = kahan::inc(v / count, q * mean, q * c);
    }
    mean + c
}

/// `stdvar_over_time`: population variance by Welford's method with compensation.
pub(super) fn variance(values: &[f64]) -> f64 {
    let mut count = 0.0;
    let (mut mean, mut mean_c) = (0.0, 0.0);
    let (mut aux, mut aux_c) = (0.0, 0.0);
    for &v in values {
        count += 1.0;
        let delta = v - (mean + mean_c);
        (mean, mean_c) = kahan::inc(delta / count, mean, mean_c);
        (aux, aux_c) = kahan::inc(delta * (v - (mean + mean_c)), aux, aux_c);
    }
    (aux + aux_c) / count
}

/// `quantile_over_time`.
pub(super) fn quantile(values: &[f64], phi: f64, buffer: &mut Vec<f64>) -> f64 {
    buffer.clear();
    buffer.extend_from_slice(values);
    quantiles::quantile(phi, buffer)
}

/// `mad_over_time`: the median of distances from the median; NaN if any value is NaN.
pub(super) fn mad(values: &[f64], buffer: &mut Vec<f64>) -> f64 {
    if values.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    let median = quantile(values, 0.5, buffer);
    buffer.iter_mut().for_each(|v| *v = (*v - median).abs());
    quantiles::quantile(0.5, buffer)
}

/// Counts neighbours in the window for which `counts(before, after)` holds: `changes`, `resets`.
/// Keeps running totals, so that a window is one subtraction.
pub(super) fn count_steps(
    windows: &Windows,
    samples: Samples<'_>,
    scratch: &mut Scratch,
    out: &mut StepRow,
    counts: impl Fn(f64, f64) -> bool,
) {
    let totals = &mut scratch.indexes;
    totals.clear();
    totals.push(0);
    let mut total = 0;
    for pair in samples.values.windows(2) {
        total += u32::from(counts(pair[0], pair[1]));
        totals.push(total);
    }
    windows.walk(samples.timestamps, |i, _, lo, hi| {
        if lo < hi {
            out.set(i, f64::from(totals[hi - 1] - totals[lo]));
        }
    });
}

/// `max_over_time` (`MAX`) and `min_over_time`.
///
/// Windows of few samples are looked at whole, several samples at a time, which is faster than to keep candidates.
pub(super) fn least_or_greatest<const MAX: bool>(
    windows: &Windows,
    samples: Samples<'_>,
    scratch: &mut Scratch,
    out: &mut StepRow,
) {
    /// Samples per window, on average.
    const FEW: usize = 128;
    let values = samples.values;
    // Which zero comes first counts, and NaN is neither less nor greater than anything.
    let is_odd = |v: &&f64| v.is_nan() | (v.to_bits() == (-0.0f64).to_bits());
    let mut looked_at = 0;
    windows.walk(samples.timestamps, |_, _, lo, hi| looked_at += hi - lo);
    if looked_at > windows.grid.steps * FEW || values.iter().filter(is_odd).count() > 0 {
        let replaces = |new: f64, old: f64| if MAX { new > old } else { new < old };
        return extreme(windows, samples, scratch, out, replaces, |k| values[k]);
    }
    windows.walk(samples.timestamps, |i, _, lo, hi| {
        if let Some(v) = extreme_of::<MAX>(&values[lo..hi]) {
            out.set(i, v);
        }
    });
}

/// The greatest (`MAX`) or least of `values`, none of which is NaN.
#[inline(always)]
fn extreme_of<const MAX: bool>(values: &[f64]) -> Option<f64> {
    const LANES: usize = 8;
    let pick = |a: f64, b: f64| if (MAX && b > a) || (!MAX && b < a) { b } else { a };
    let mut best = [*values.first()?; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for run in whole {
        for (lane, v) in best.iter_mut().zip(run) {
            *lane = pick(*lane, *v);
        }
    }
    best.into_iter().chain(rest.iter().copied()).reduce(pick)
}

/// Extremes: `min_over_time`, `max_over_time` and their `ts_of` forms.
///
/// `replaces(new, old)` says whether a later value takes over from an earlier one; `show` gives the
/// result for the index of the extreme. NaN is no extreme while there is anything else.
pub(super) fn extreme(
    windows: &Windows,
    samples: Samples<'_>,
    scratch: &mut Scratch,
    out: &mut StepRow,
    replaces: impl Fn(f64, f64) -> bool,
    show: impl Fn(usize) -> f64,
) {
    // Candidates: ascending indexes from `head` on, each not replaced by a later one. The first is
    // the extreme of the window.
    let candidates = &mut scratch.indexes;
    candidates.clear();
    let mut head = 0;
    let mut seen = 0;
    let values = samples.values;
    windows.walk(samples.timestamps, |i, _, lo, hi| {
        for k in seen.max(lo)..hi {
            let v = values[k];
            if v.is_nan() {
                continue;
            }
            while candidates.len() > head && replaces(v, values[candidates[candidates.len() - 1] as usize]) {
                candidates.pop();
            }
            candidates.push(k as u32);
        }
        seen = seen.max(hi);
        while head < candidates.len() && (candidates[head] as usize) < lo {
            head += 1;
        }
        if lo < hi {
            // Only NaNs: the last one.
            out.set(i, show(candidates.get(head).map_or(hi - 1, |k| *k as usize)));
        }
    });
}
