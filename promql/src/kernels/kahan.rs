//! Compensated sums, as Prometheus adds.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/util/kahansum/kahansum.go>

/// Adds `inc` to `sum` with compensation `c` (Kahan's algorithm with Neumaier's improvement).
/// An infinite sum has no compensation.
#[inline(always)]
pub fn inc(inc: f64, sum: f64, c: f64) -> (f64, f64) {
    let t = sum + inc;
    let (big, small) = if sum.abs() >= inc.abs() { (sum, inc) } else { (inc, sum) };
    let next = c + ((big - t) + small);
    (t, if t.is_infinite() { 0.0 } else { next })
}

/// A running compensated sum.
#[derive(Debug, Clone, Copy, Default)]
pub struct KahanSum {
    /// The sum without compensation.
    pub sum: f64,
    /// What rounding took away.
    pub c: f64,
}

impl KahanSum {
    /// Adds `v`.
    #[inline(always)]
    pub fn add(&mut self, v: f64) {
        (self.sum, self.c) = inc(v, self.sum, self.c);
    }

    /// The sum with compensation.
    #[inline(always)]
    pub fn total(self) -> f64 {
        self.sum + self.c
    }
}
