//! Math functions on one float where Go's result is not plainly the method of [`f64`].

/// `round(v, to)`: ties go up.
#[inline(always)]
pub fn round(v: f64, to: f64) -> f64 {
    // Dividing by the inverse loses less than multiplying by `to`.
    let inverse = 1.0 / to;
    (v * inverse + 0.5).floor() / inverse
}

/// `sgn`: zero and NaN give themselves.
#[inline(always)]
pub fn sgn(v: f64) -> f64 {
    if v < 0.0 {
        -1.0
    } else if v > 0.0 {
        1.0
    } else {
        v
    }
}

/// `clamp(v, min, max)` for `min <= max`: a NaN anywhere gives NaN.
#[inline(always)]
pub fn clamp(v: f64, min: f64, max: f64) -> f64 {
    if v.is_nan() || min.is_nan() || max.is_nan() { f64::NAN } else { v.min(max).max(min) }
}
