//! The values of a window in order of size, kept up while it slides.

use std::ops::Range;

use crate::kernels::{Samples, Windows, quantile};

/// Whether keeping values in order is cheaper than selecting in each window anew: windows overlap.
pub(super) fn pays(windows: &Windows, samples: Samples<'_>) -> bool {
    /// Windows that a sample is in, on average.
    const OFTEN: usize = 4;
    let mut looked_at = 0;
    windows.walk(samples.timestamps, |_, _, lo, hi| looked_at += hi - lo);
    looked_at > samples.values.len() * OFTEN
}

/// The values of one window of a series, NaN before everything, then ascending.
///
/// They are kept as whole numbers of the same order ([`key`]), which compare without branches. Which NaN it was is
/// forgotten; −0 comes before 0.
#[derive(Debug, Default)]
pub(super) struct Ranked {
    keys: Vec<i64>,
    /// Where in the series they are from.
    held: Range<usize>,
}

impl Ranked {
    /// Begins a series.
    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.held = 0..0;
    }

    /// Holds `window` of `values` from now on. Neither of its ends is before that of the window before.
    pub(super) fn slide(&mut self, values: &[f64], window: Range<usize>) {
        if window.start >= self.held.end {
            self.keys.clear();
            self.keys.extend(values[window.clone()].iter().map(|v| key(*v)));
            self.keys.sort_unstable();
            self.held = window;
            return;
        }
        let gone = &values[self.held.start..window.start];
        let new = &values[self.held.end..window.end];
        for (old, new) in gone.iter().zip(new) {
            self.replace(key(*old), key(*new));
        }
        for old in gone.get(new.len()..).unwrap_or_default() {
            self.keys.remove(self.place(key(*old)));
        }
        for new in new.get(gone.len()..).unwrap_or_default() {
            let new = key(*new);
            self.keys.insert(self.place(new), new);
        }
        self.held = window;
    }

    /// The φ-quantile; see [`quantile::quantile`].
    pub(super) fn quantile(&self, phi: f64) -> f64 {
        quantile::of_ranks(phi, self.keys.len(), |lower| {
            let low = self.keys[lower];
            (value(low), value(self.keys.get(lower + 1).copied().unwrap_or(low)))
        })
    }

    fn place(&self, key: i64) -> usize {
        self.keys.partition_point(|k| *k < key)
    }

    /// `old` is one of the keys. Moves only what is between the two.
    fn replace(&mut self, old: i64, new: i64) {
        let (from, to) = (self.place(old), self.place(new));
        if to <= from {
            self.keys.copy_within(to..from, to + 1);
            self.keys[to] = new;
        } else {
            self.keys.copy_within(from + 1..to, from);
            self.keys[to - 1] = new;
        }
    }
}

/// A whole number of the same order among those of other values; the least one for NaN.
fn key(v: f64) -> i64 {
    if v.is_nan() { i64::MIN } else { turned(v.to_bits().cast_signed()) }
}

fn value(key: i64) -> f64 {
    if key == i64::MIN { f64::NAN } else { f64::from_bits(turned(key).cast_unsigned()) }
}

/// Bits of a float as a number that ascends with it, and back.
fn turned(bits: i64) -> i64 {
    bits ^ (bits >> 63 & i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::quantile::nan_first;

    #[test]
    fn keys_have_the_order_of_floats_and_lead_back() {
        let ascending = [f64::NEG_INFINITY, -1e300, -1.0, -5e-324, -0.0, 0.0, 5e-324, 1.0, f64::INFINITY];
        assert!(ascending.is_sorted_by(|a, b| key(*a) < key(*b)));
        for v in ascending {
            assert_eq!(value(key(v)).to_bits(), v.to_bits());
            assert!(key(f64::NAN) < key(v) && key(-f64::NAN) < key(v));
        }
        assert!(value(key(f64::NAN)).is_nan());
    }

    proptest! {
        #[test]
        fn a_window_that_slid_holds_what_sorting_gives(
            values in prop::collection::vec(
                prop_oneof![(-3..3i32).prop_map(f64::from), Just(f64::NAN), Just(f64::INFINITY), any::<f64>()],
                1..60,
            ),
            moves in prop::collection::vec((0..9usize, 0..9usize), 1..40),
            phi in -0.2..1.2,
        ) {
            let mut ranked = Ranked::default();
            let mut window = 0..0;
            for (lo, hi) in moves {
                let end = (window.end + hi).min(values.len());
                window = (window.start + lo).min(end)..end;
                if window.is_empty() {
                    continue;
                }
                ranked.slide(&values, window.clone());
                let mut want = values[window.clone()].to_vec();
                let got = ranked.quantile(phi);
                let by_selection = quantile::quantile(phi, &mut want);
                prop_assert!(got == by_selection || (got.is_nan() && by_selection.is_nan()), "{got} {by_selection}");
                want.sort_by(nan_first);
                // −0 and 0 are equal, and NaN is told apart.
                let shown = |values: &[f64]| values.iter().map(|v| (*v + 0.0).to_string()).collect::<Vec<_>>();
                let kept = ranked.keys.iter().map(|k| value(*k)).collect::<Vec<_>>();
                prop_assert_eq!(shown(&kept), shown(&want));
            }
        }
    }
}
