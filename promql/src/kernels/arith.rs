//! Arithmetic operators on one pair of floats, as Go computes them.

/// `+`
#[inline(always)]
pub fn add(a: f64, b: f64) -> f64 {
    a + b
}

/// `-`
#[inline(always)]
pub fn sub(a: f64, b: f64) -> f64 {
    a - b
}

/// `*`
#[inline(always)]
pub fn mul(a: f64, b: f64) -> f64 {
    a * b
}

/// `/`: IEEE; division by zero gives an infinity or NaN.
#[inline(always)]
pub fn div(a: f64, b: f64) -> f64 {
    a / b
}

/// `%`: the remainder has the sign of the dividend (`math.Mod`).
#[inline(always)]
pub fn modulo(a: f64, b: f64) -> f64 {
    a % b
}

/// `^`
#[inline(always)]
pub fn pow(a: f64, b: f64) -> f64 {
    a.powf(b)
}

/// `atan2`
#[inline(always)]
pub fn atan2(a: f64, b: f64) -> f64 {
    a.atan2(b)
}
