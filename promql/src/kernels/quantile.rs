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
    if values.is_empty() || phi.is_nan() {
        return f64::NAN;
    }
    if phi < 0.0 {
        return f64::NEG_INFINITY;
    }
    if phi > 1.0 {
        return f64::INFINITY;
    }
    let rank = phi * (values.len() - 1) as f64;
    let lower = rank.floor();
    let weight = rank - lower;
    let (_, low, above) = values.select_nth_unstable_by(lower as usize, nan_first);
    let low = *low;
    // The upper neighbour is the smallest of what is above, or `low` itself at the end.
    let high = above.iter().copied().min_by(nan_first).unwrap_or(low);
    low * (1.0 - weight) + high * weight
}
