//! Trends: `deriv`, `predict_linear`, `double_exponential_smoothing`.

use promontory_tsdb::TimestampMs;

use crate::error::QueryError;
use crate::kernels::Samples;
use crate::kernels::kahan::KahanSum;

/// Slope per second; needs two samples.
pub(super) fn deriv(window: Samples<'_>) -> Option<f64> {
    // The origin is a sample's time, because large times would cost precision.
    (window.values.len() >= 2).then(|| least_squares(window, window.timestamps[0]).0)
}

/// Where the line through the samples is `ahead_s` seconds after `now`; needs two samples.
pub(super) fn predict_linear(window: Samples<'_>, now: TimestampMs, ahead_s: f64) -> Option<f64> {
    (window.values.len() >= 2).then(|| {
        let (slope, intercept) = least_squares(window, now);
        slope * ahead_s + intercept
    })
}

/// Slope per second, and value at `origin`.
fn least_squares(window: Samples<'_>, origin: TimestampMs) -> (f64, f64) {
    let first = window.values[0];
    if window.values[1..].iter().all(|v| *v == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let [mut x_sum, mut y_sum, mut xy_sum, mut xx_sum] = [KahanSum::default(); 4];
    for (&t, &y) in window.timestamps.iter().zip(window.values) {
        let x = (t - origin) as f64 / 1e3;
        x_sum.add(x);
        y_sum.add(y);
        xy_sum.add(x * y);
        xx_sum.add(x * x);
    }
    let n = window.values.len() as f64;
    let [x, y, xy, xx] = [x_sum, y_sum, xy_sum, xx_sum].map(KahanSum::total);
    let covariance = xy - x * y / n;
    let variance = xx - x * x / n;
    let slope = covariance / variance;
    (slope, y / n - slope * x / n)
}

/// That both factors of [`smooth`] are in `(0, 1)`, or NaN.
pub(super) fn check_factors(smoothing: f64, trend: f64) -> Result<(), QueryError> {
    for (what, factor, short) in [("smoothing", smoothing, "sf"), ("trend", trend, "tf")] {
        if factor <= 0.0 || factor >= 1.0 {
            return Err(QueryError::Execution(format!(
                "invalid {what} factor. Expected: 0 < {short} < 1, got: {factor:.6}"
            )));
        }
    }
    Ok(())
}

/// Holt's linear method; nothing for less than two values.
pub(super) fn smooth(values: &[f64], smoothing: f64, trend: f64) -> Result<Option<f64>, QueryError> {
    check_factors(smoothing, trend)?;
    let [first, second, ..] = values else { return Ok(None) };
    let (mut before, mut smoothed, mut slope) = (0.0, *first, second - first);
    for (i, v) in values.iter().enumerate().skip(1) {
        if i > 1 {
            slope = trend * (smoothed - before) + (1.0 - trend) * slope;
        }
        let next = smoothing * v + (1.0 - smoothing) * (smoothed + slope);
        (before, smoothed) = (smoothed, next);
    }
    Ok(Some(smoothed))
}
