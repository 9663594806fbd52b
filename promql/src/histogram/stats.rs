//! Quantiles, fractions and variance of a histogram.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/quantile.go> (`HistogramQuantile`,
//! `HistogramFraction`), `functions.go` (`histogramVariance`).

use promontory_tsdb::histogram::{Bucket, FloatHistogram};

use crate::kernels::kahan;

/// What is to be told of a histogram with NaN observations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NanObservations {
    /// The quantile is NaN.
    Result,
    /// The quantile is too high, as NaN counts as greatest.
    Skew,
    /// They are in no fraction.
    Excluded,
}

/// The `q`-quantile. Within a bucket observations are taken to be spread evenly, on a logarithmic
/// scale for exponential buckets.
pub fn quantile(q: f64, h: &FloatHistogram) -> (f64, Option<NanObservations>) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if h.count == 0.0 || q.is_nan() {
        return (f64::NAN, None);
    }
    // NaN observations are in the count but in no bucket: then ranks hold from below only.
    let forward = h.sum.is_nan() || q < 0.5;
    let mut rank = if forward { q * h.count } else { (1.0 - q) * h.count };
    let (mut count, mut hit) = (0.0, None);
    let mut ascending = h.iter_all();
    let mut reached = |bucket: &Bucket| {
        count += bucket.count;
        hit = Some(*bucket);
        count >= rank
    };
    let populated = |bucket: &Bucket| bucket.count != 0.0;
    if forward {
        ascending.by_ref().filter(populated).find(&mut reached);
    } else {
        h.iter_all().rev().filter(populated).find(&mut reached);
    }
    let Some(mut hit) = hit else {
        // Observations, but none in a bucket.
        return if h.sum.is_nan() { (f64::NAN, Some(NanObservations::Result)) } else { (0.0, None) };
    };
    if !h.has_custom_bounds() && hit.lower < 0.0 && hit.upper > 0.0 {
        narrow_zero(h, &mut hit);
    } else if h.has_custom_bounds() {
        if hit.lower == f64::NEG_INFINITY {
            if hit.upper <= 0.0 {
                return (hit.upper, None);
            }
            hit.lower = 0.0;
        } else if hit.upper == f64::INFINITY {
            return (hit.lower, None);
        }
    }
    // Rounding may have made it more than there are.
    if count > h.count {
        count = h.count;
    }
    if count < rank {
        return if h.sum.is_nan() { (f64::NAN, Some(NanObservations::Result)) } else { (hit.upper, None) };
    }
    if forward {
        rank -= count - hit.count;
    } else {
        rank = count - rank;
    }
    let mut note = None;
    if h.sum.is_nan() {
        // Infinities of both signs make the sum NaN, too; then all observations are in buckets.
        count += ascending.map(|b| b.count).sum::<f64>();
        if count < h.count {
            note = Some(NanObservations::Skew);
        }
    }
    (interpolate(h, hit, rank / hit.count), note)
}

/// The value below which `fraction` of the bucket's observations lie.
fn interpolate(h: &FloatHistogram, bucket: Bucket, fraction: f64) -> f64 {
    let Bucket { lower, upper, .. } = bucket;
    if h.has_custom_bounds() || (lower <= 0.0 && upper >= 0.0) {
        return lower + (upper - lower) * fraction;
    }
    let (log_lower, log_upper) = (lower.abs().log2(), upper.abs().log2());
    if lower > 0.0 {
        (log_lower + (log_upper - log_lower) * fraction).exp2()
    } else {
        -(log_upper + (log_lower - log_upper) * (1.0 - fraction)).exp2()
    }
}

/// If all other buckets are on one side of zero, so is the zero bucket.
fn narrow_zero(h: &FloatHistogram, bucket: &mut Bucket) {
    if h.negative_buckets.is_empty() && !h.positive_buckets.is_empty() {
        bucket.lower = 0.0;
    } else if h.positive_buckets.is_empty() && !h.negative_buckets.is_empty() {
        bucket.upper = 0.0;
    }
}

/// Which part of the bucket lies below `v`, which is in it.
pub(super) fn fraction_below(bucket: Bucket, v: f64, linear: bool) -> f64 {
    let Bucket { lower, upper, .. } = bucket;
    if linear {
        return (v - lower) / (upper - lower);
    }
    let (log_lower, log_upper, log_v) = (lower.abs().log2(), upper.abs().log2(), v.abs().log2());
    if v > 0.0 {
        (log_v - log_lower) / (log_upper - log_lower)
    } else {
        1.0 - (log_v - log_upper) / (log_lower - log_upper)
    }
}

/// The part of observations between `lower` and `upper`.
pub fn fraction(lower: f64, upper: f64, h: &FloatHistogram) -> (f64, Option<NanObservations>) {
    if h.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, None);
    }
    if lower >= upper {
        return (0.0, None);
    }
    let (mut count, mut rank) = (0.0, 0.0);
    let mut ranks: [Option<f64>; 2] = [None, None];
    let mut rest = h.iter_all();
    for mut b in rest.by_ref() {
        let n = b.count;
        count += n;
        let is_zero = b.lower <= 0.0 && b.upper >= 0.0;
        if is_zero {
            narrow_zero(h, &mut b);
        }
        let linear = h.has_custom_bounds() || is_zero;
        for (wanted, found) in [lower, upper].into_iter().zip(&mut ranks) {
            if found.is_none() && b.lower >= wanted {
                *found = Some(rank);
            }
        }
        if ranks.iter().all(Option::is_some) {
            break;
        }
        for (wanted, found) in [lower, upper].into_iter().zip(&mut ranks) {
            if found.is_none() && b.lower < wanted && b.upper > wanted {
                // Nothing can be interpolated towards -Inf.
                let unbounded = linear && b.lower == f64::NEG_INFINITY;
                *found = Some(if unbounded { n } else { rank + n * fraction_below(b, wanted, linear) });
            }
        }
        if ranks.iter().all(Option::is_some) {
            break;
        }
        rank += n;
    }
    let mut note = None;
    if h.sum.is_nan() {
        count += rest.map(|b| b.count).sum::<f64>();
        if count < h.count {
            note = Some(NanObservations::Excluded);
        }
    } else {
        count = h.count;
    }
    let [low, high] = ranks.map(|rank| rank.filter(|r| *r <= count).unwrap_or(count));
    ((high - low) / h.count, note)
}

/// The variance: observations are taken to be in the middle of their bucket, geometrically for
/// exponential buckets, and at 0 in the zero bucket.
pub fn variance(h: &FloatHistogram) -> f64 {
    let mean = h.sum / h.count;
    let (mut variance, mut c) = (0.0, 0.0);
    for b in h.iter_all().filter(|b| b.count != 0.0) {
        let middle = if h.has_custom_bounds() {
            (b.upper + b.lower) / 2.0
        } else if b.lower <= 0.0 && b.upper >= 0.0 {
            0.0
        } else {
            let root = (b.upper * b.lower).sqrt();
            if b.upper < 0.0 { -root } else { root }
        };
        let delta = middle - mean;
        (variance, c) = kahan::inc(b.count * delta * delta, variance, c);
    }
    (variance + c) / h.count
}
