//! Comparison operators on one pair of floats: IEEE. With a NaN on either side only `!=` holds, and
//! −0 equals 0; Arrow's comparison kernels say otherwise.

/// `==`
#[inline(always)]
pub fn eq(a: f64, b: f64) -> bool {
    a == b
}

/// `!=`
#[inline(always)]
pub fn ne(a: f64, b: f64) -> bool {
    a != b
}

/// `>`
#[inline(always)]
pub fn gt(a: f64, b: f64) -> bool {
    a > b
}

/// `<`
#[inline(always)]
pub fn lt(a: f64, b: f64) -> bool {
    a < b
}

/// `>=`
#[inline(always)]
pub fn ge(a: f64, b: f64) -> bool {
    a >= b
}

/// `<=`
#[inline(always)]
pub fn le(a: f64, b: f64) -> bool {
    a <= b
}
