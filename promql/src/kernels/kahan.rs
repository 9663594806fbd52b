//! Compensated sums, as Prometheus adds.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/util/kahansum/kahansum.go>

/// Adds `inc` to `sum` with compensation `c` (Kahan's algorithm with Neumaier's improvement).
/// An infinite sum has no compensation.
#[inline(always)]
pub fn inc(inc: f64, sum: f64, c: f64) -> (f64, f64) {
    let t = sum + inc;
    // What rounding took from the sum. Prometheus finds it from the larger of the two (Neumaier);
    // Knuth's way finds the same number, as it is exactly representable, without a branch. It is
    // not finite when the sum is not.
    let of_inc = t - sum;
    let lost = (sum - (t - of_inc)) + (inc - of_inc);
    (t, if lost.is_finite() { c + lost } else { 0.0 })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// As Prometheus writes it.
    fn neumaier(inc: f64, sum: f64, c: f64) -> (f64, f64) {
        let t = sum + inc;
        if t.is_infinite() {
            return (t, 0.0);
        }
        (t, c + if sum.abs() >= inc.abs() { (sum - t) + inc } else { (inc - t) + sum })
    }

    proptest! {
        #[test]
        fn a_step_equals_upstreams(values in prop::collection::vec(any::<f64>(), 2..20), scale in -20i32..20) {
            let (mut ours, mut theirs) = ((0.0, 0.0), (0.0, 0.0));
            for (i, v) in values.into_iter().enumerate() {
                let v = if i % 2 == 0 { v } else { v.signum() * 2f64.powi(scale * i as i32) };
                ours = super::inc(v, ours.0, ours.1);
                theirs = neumaier(v, theirs.0, theirs.1);
                // A NaN sum has no use for its compensation.
                prop_assert!(ours == theirs || ours.0.is_nan() && theirs.0.is_nan(), "{ours:?} {theirs:?}");
            }
        }
    }
}
