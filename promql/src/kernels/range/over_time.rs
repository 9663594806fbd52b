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
