//! Quantiles of a few floats, by linear interpolation between ranks.

use std::cmp::Ordering;

/// PromQL's order for quantiles: NaN before everything, then ascending.
pub fn nan_first(a: &f64, b: &f64) -> Ordering {
    a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// φ-quantile of `values`, which are reordered.
///
/// NaN if there is no value or φ is NaN; −Inf for φ < 0, +Inf for φ > 1.
pub fn quantile(phi: f64, values: &mut [f64]) -> f64 {
    of_ranks(phi, values.len(), |lower| {
        let (_, low, above) = values.select_nth_unstable_by(lower, nan_first);
        // The upper neighbour is the smallest of what is above, or the lower one itself at the end.
        (*low, above.iter().copied().min_by(nan_first).unwrap_or(*low))
    })
}

/// φ-quantile of `count` values of which `neighbours(rank)` gives the one at that rank and the next (at the end, the
/// same again).
///
/// As [`quantile`] where there is no rank to ask for.
pub fn of_ranks(phi: f64, count: usize, neighbours: impl FnOnce(usize) -> (f64, f64)) -> f64 {
    if count == 0 || phi.is_nan() {
        return f64::NAN;
    }
    if phi < 0.0 {
        return f64::NEG_INFINITY;
    }
    if phi > 1.0 {
        return f64::INFINITY;
    }
    let rank = phi * (count - 1) as f64;
    let lower = rank.floor();
    let weight = rank - lower;
    let (low, high) = neighbours(lower as usize);
    low * (1.0 - weight) + high * weight
}
