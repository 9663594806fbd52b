//! Range kernels against the definitions, written down as plainly as they can be.

use promontory_tsdb::{is_stale, stale_nan};
use proptest::prelude::*;

use super::*;
use crate::kernels::quantile::{nan_first, quantile};
use crate::kernels::{instant, kahan};
use crate::logical::spec::{SampleRead, TimeView};
use crate::params::Grid;

const ALL: [RangeFunction; 26] = {
    use RangeFunction::*;
    [
        Rate,
        Increase,
        Delta,
        Irate,
        Idelta,
        Deriv,
        PredictLinear,
        DoubleExponentialSmoothing,
        Changes,
        Resets,
        AvgOverTime,
        MinOverTime,
        MaxOverTime,
        SumOverTime,
        CountOverTime,
        QuantileOverTime,
        StddevOverTime,
        StdvarOverTime,
        LastOverTime,
        FirstOverTime,
        PresentOverTime,
        MadOverTime,
        TsOfFirstOverTime,
        TsOfLastOverTime,
        TsOfMaxOverTime,
        TsOfMinOverTime,
    ]
};

type Points = Vec<(i64, f64)>;

/// What `function` gives for the points of one window, by definition.
fn reference(
    function: RangeFunction,
    p: &Points,
    start: i64,
    end: i64,
    now: i64,
    args: [f64; 2],
) -> Option<f64> {
    use RangeFunction as F;
    let values = p.iter().map(|x| x.1).collect::<Vec<_>>();
    let (first, last) = (*p.first()?, *p.last()?);
    let n = p.len() as f64;
    let pairs = || p.windows(2).map(|w| (w[0].1, w[1].1));
    let pick = |better: fn(f64, f64) -> bool| {
        p.iter().fold(first, |best, x| if better(x.1, best.1) || best.1.is_nan() { *x } else { best })
    };
    match function {
        F::Rate => extrapolated(p, start, end, true)
            .map(|(v, factor)| v * (factor / extrapolate::go_seconds(end - start))),
        F::Increase => extrapolated(p, start, end, true).map(|(v, factor)| v * factor),
        F::Delta => extrapolated(p, start, end, false).map(|(v, factor)| v * factor),
        F::Irate | F::Idelta => {
            let [.., a, b] = p.as_slice() else { return None };
            if function == F::Idelta {
                return Some(b.1 - a.1);
            }
            Some(if b.1 < a.1 { b.1 } else { b.1 - a.1 } / ((b.0 - a.0) as f64 / 1000.0))
        }
        F::Deriv => (p.len() > 1).then(|| line(p, first.0).0),
        F::PredictLinear => (p.len() > 1).then(|| {
            let (slope, at) = line(p, now);
            slope * args[0] + at
        }),
        F::DoubleExponentialSmoothing => {
            if p.len() < 2 {
                return None;
            }
            let [sf, tf] = args;
            let (mut levels, mut trend) = (vec![first.1], values[1] - values[0]);
            for i in 1..p.len() {
                if i > 1 {
                    trend = tf * (levels[i - 1] - levels[i - 2]) + (1.0 - tf) * trend;
                }
                levels.push(sf * values[i] + (1.0 - sf) * (levels[i - 1] + trend));
            }
            levels.last().copied()
        }
        F::Changes => Some(pairs().filter(|(a, b)| a != b && !(a.is_nan() && b.is_nan())).count() as f64),
        F::Resets => Some(pairs().filter(|(a, b)| b < a).count() as f64),
        F::AvgOverTime => Some(average(&values)),
        F::SumOverTime => {
            let (s, c) = values.iter().fold((0.0, 0.0), |(s, c), v| kahan::inc(*v, s, c));
            Some(if f64::is_infinite(s) { s } else { s + c })
        }
        F::CountOverTime => Some(n),
        F::PresentOverTime | F::AbsentOverTime => Some(1.0),
        F::LastOverTime => Some(last.1),
        F::FirstOverTime => Some(first.1),
        F::TsOfFirstOverTime => Some(first.0 as f64 / 1e3),
        F::TsOfLastOverTime => Some(last.0 as f64 / 1e3),
        F::MinOverTime => Some(pick(|a, b| a < b).1),
        F::MaxOverTime => Some(pick(|a, b| a > b).1),
        F::TsOfMinOverTime => Some(pick(|a, b| a <= b).0 as f64 / 1e3),
        F::TsOfMaxOverTime => Some(pick(|a, b| a >= b).0 as f64 / 1e3),
        F::StdvarOverTime => Some(variance(&values)),
        F::StddevOverTime => Some(variance(&values).sqrt()),
        F::QuantileOverTime => Some(sorted_quantile(values, args[0])),
        F::MadOverTime => {
            if values.iter().any(|v| v.is_nan()) {
                return Some(f64::NAN);
            }
            let median = sorted_quantile(values.clone(), 0.5);
            Some(sorted_quantile(values.iter().map(|v| (v - median).abs()).collect(), 0.5))
        }
    }
}

fn extrapolated(p: &Points, start: i64, end: i64, counter: bool) -> Option<(f64, f64)> {
    let [first, .., last] = p.as_slice() else { return None };
    let mut v = last.1 - first.1;
    if counter {
        p.windows(2).filter(|w| w[1].1 < w[0].1).for_each(|w| v += w[0].1);
    }
    let sampled = (last.0 - first.0) as f64 / 1000.0;
    let average = sampled / (p.len() - 1) as f64;
    let mut to_start = (first.0 - start) as f64 / 1000.0;
    let mut to_end = (end - last.0) as f64 / 1000.0;
    if to_start >= average * 1.1 {
        to_start = average / 2.0;
    }
    if counter && v > 0.0 && first.1 >= 0.0 {
        to_start = to_start.min(sampled * (first.1 / v));
    }
    if to_end >= average * 1.1 {
        to_end = average / 2.0;
    }
    Some((v, (sampled + to_start + to_end) / sampled))
}

fn average(values: &[f64]) -> f64 {
    let (mut sum, mut c, mut mean) = (values[0], 0.0, None);
    for (i, v) in values.iter().enumerate().skip(1) {
        let count = (i + 1) as f64;
        if mean.is_none() {
            let (s, next_c) = kahan::inc(*v, sum, c);
            if s.is_finite() || s.is_nan() {
                (sum, c) = (s, next_c);
                continue;
            }
            mean = Some(sum / (count - 1.0));
            c /= count - 1.0;
        }
        let q = (count - 1.0) / count;
        let (m, next_c) = kahan::inc(v / count, q * mean.unwrap(), q * c);
        (mean, c) = (Some(m), next_c);
    }
    let n = values.len() as f64;
    mean.map_or(sum / n + c / n, |m| m + c)
}

fn variance(values: &[f64]) -> f64 {
    let (mut n, mut mean, mut mean_c, mut aux, mut aux_c) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for v in values {
        n += 1.0;
        let delta = v - (mean + mean_c);
        (mean, mean_c) = kahan::inc(delta / n, mean, mean_c);
        (aux, aux_c) = kahan::inc(delta * (v - (mean + mean_c)), aux, aux_c);
    }
    (aux + aux_c) / n
}

fn line(p: &Points, origin: i64) -> (f64, f64) {
    let y0 = p[0].1;
    if p.iter().skip(1).all(|x| x.1 == y0) {
        return if y0.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, y0) };
    }
    let sum = |f: &dyn Fn(f64, f64) -> f64| {
        let (s, c) =
            p.iter().fold((0.0, 0.0), |(s, c), (t, y)| kahan::inc(f((t - origin) as f64 / 1e3, *y), s, c));
        s + c
    };
    let n = p.len() as f64;
    let (x, y, xy, xx) = (sum(&|x, _| x), sum(&|_, y| y), sum(&|x, y| x * y), sum(&|x, _| x * x));
    let slope = (xy - x * y / n) / (xx - x * x / n);
    (slope, y / n - slope * x / n)
}

fn sorted_quantile(mut values: Vec<f64>, phi: f64) -> f64 {
    if phi.is_nan() {
        return f64::NAN;
    }
    if !(0.0..=1.0).contains(&phi) {
        return phi.signum() * f64::INFINITY;
    }
    values.sort_by(nan_first);
    let rank = phi * (values.len() - 1) as f64;
    let lower = rank.floor();
    let upper = (lower as usize + 1).min(values.len() - 1);
    values[lower as usize] * (1.0 - (rank - lower)) + values[upper] * (rank - lower)
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        20 => (0u32..50).prop_map(f64::from),
        8 => -1e6..1e6f64,
        2 => Just(f64::NAN),
        2 => Just(0.0),
        1 => Just(-0.0),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
        1 => Just(f64::MAX),
        4 => Just(stale_nan()),
    ]
}

fn series() -> impl Strategy<Value = (Vec<i64>, Vec<f64>)> {
    prop_oneof![2 => irregular(), 1 => counter()]
}

prop_compose! {
    /// Samples at one distance from each other, of a counter that is reset now and then, starts near zero or
    /// far from it, and may have a value that is no counter's.
    fn counter()(
        first in -20_000i64..100_000,
        delta in prop_oneof![Just(15_000i64), Just(30_000), Just(1_000), Just(7_500)],
        start in prop_oneof![Just(0.0), Just(50.0), Just(1e9), Just(1e300), Just(1e-300)],
        scale in prop_oneof![3 => Just(1.0), 1 => Just(1e-305), 1 => Just(1e290)],
        steps in prop::collection::vec(prop_oneof![20 => 0f64..20.0, 1 => Just(-1.0), 2 => Just(0.0)], 0..150),
        odd in prop::option::weighted(0.2, (0usize..150, value())),
    ) -> (Vec<i64>, Vec<f64>) {
        let mut v = start;
        let mut values = Vec::new();
        for step in &steps {
            v = if *step < 0.0 { 0.0 } else { v + step * scale };
            values.push(v);
        }
        if let Some((at, odd)) = odd && let Some(slot) = values.get_mut(at) {
            *slot = odd;
        }
        ((0..steps.len() as i64).map(|i| first + i * delta).collect(), values)
    }
}

prop_compose! {
    fn irregular()(gaps in prop::collection::vec((prop_oneof![9 => Just(15_000i64), 1 => 1i64..200_000], value()), 0..120))
        -> (Vec<i64>, Vec<f64>)
    {
        let mut t = 0;
        gaps.into_iter().map(|(gap, v)| { t += gap; (t, v) }).unzip()
    }
}

prop_compose! {
    fn windows()(
        start in -100_000i64..400_000,
        step in prop_oneof![Just(15_000i64), Just(60_000), 1i64..300_000],
        steps in 1usize..150,
        width_ms in prop_oneof![Just(300_000i64), Just(15_000), 1i64..900_000],
        offset_ms in prop_oneof![3 => Just(0i64), 1 => -50_000i64..50_000],
        at in prop_oneof![4 => Just(None), 1 => (0i64..1_000_000).prop_map(Some)],
    ) -> Windows {
        let grid = Grid::new(start, start + step * (steps as i64 - 1), step, 128);
        Windows { grid, view: TimeView { offset_ms, at }, width_ms }
    }
}

fn same(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_function_equals_its_definition((t, v) in series(), w in windows(), phi in 0.01..0.99f64, tf in 0.01..0.99f64) {
        let mut live = Default::default();
        let samples = Samples::new(&t, &v).without_stale_rising(&mut live);
        let scalars = [StepScalar::Constant(phi), StepScalar::Constant(tf)];
        let (mut scratch, mut row) = (Scratch::default(), StepRow::default());
        for function in ALL {
            evaluate(function, &w, samples, &scalars, &mut scratch, &mut row).unwrap();
            for i in 0..w.grid.steps {
                let end = w.end(i);
                let window = t.iter().copied().zip(v.iter().copied())
                    .filter(|(t, v)| *t > end - w.width_ms && *t <= end && !is_stale(*v))
                    .collect::<Points>();
                // A pinned window is the same at all steps; where its line leads to is not.
                let now = w.grid.at(i);
                let expected = reference(function, &window, end - w.width_ms, end, now, [phi, tf]);
                let got = row.get(i);
                prop_assert!(
                    match (got, expected) { (Some(a), Some(b)) => same(a, b), (a, b) => a.is_none() && b.is_none() },
                    "{function:?} step {i}: {got:?}, expected {expected:?} of {window:?}"
                );
            }
        }
    }

    #[test]
    fn an_instant_sees_the_newest_sample((t, v) in series(), w in windows(), timestamp: bool) {
        let mut row = StepRow::default();
        let read = if timestamp { SampleRead::Timestamp } else { SampleRead::Value };
        instant::evaluate(&w, Samples::new(&t, &v), read, &mut row);
        for i in 0..w.grid.steps {
            let end = w.end(i);
            let newest = t.iter().zip(&v).rfind(|(t, _)| **t > end - w.width_ms && **t <= end);
            let expected = newest.filter(|(_, v)| !is_stale(**v))
                .map(|(t, v)| if timestamp { *t as f64 / 1000.0 } else { *v });
            prop_assert_eq!(row.get(i).map(f64::to_bits), expected.map(f64::to_bits));
        }
    }

    #[test]
    fn selecting_gives_the_quantile_of_sorting(values in prop::collection::vec(value(), 1..60), phi in -0.2..1.2f64) {
        let expected = sorted_quantile(values.clone(), phi);
        let got = quantile(phi, &mut values.clone());
        prop_assert!(same(got, expected), "{got} {expected}");
    }

    #[test]
    fn masks_of_any_tile_width_say_what_is_present(present in prop::collection::vec(any::<bool>(), 1..400), log2 in 0u32..8) {
        let lanes = 1usize << log2;
        let mut row = StepRow::default();
        row.reset(present.len());
        present.iter().enumerate().for_each(|(i, p)| row.set_if(i, i as f64, *p));
        for tile in 0..present.len().div_ceil(lanes) {
            let mask = row.mask(tile, lanes);
            for j in 0..128 {
                let expected = j < lanes && present.get(tile * lanes + j).copied().unwrap_or(false);
                prop_assert_eq!(mask >> j & 1 == 1, expected, "tile {} lane {}", tile, j);
            }
        }
    }
}

#[test]
fn a_bad_smoothing_factor_fails_only_where_there_are_samples() {
    let w = Windows { grid: Grid::instant(60_000), view: TimeView::default(), width_ms: 60_000 };
    let scalars = [StepScalar::Constant(1.0), StepScalar::Constant(0.5)];
    let (mut scratch, mut row) = (Scratch::default(), StepRow::default());
    let mut run = |t: &[i64], v: &[f64]| {
        let f = RangeFunction::DoubleExponentialSmoothing;
        evaluate(f, &w, Samples::new(t, v), &scalars, &mut scratch, &mut row).map_err(|e| e.to_string())
    };
    assert_eq!(run(&[], &[]), Ok(()));
    let expected = "invalid smoothing factor. Expected: 0 < sf < 1, got: 1.000000";
    assert_eq!(run(&[30_000], &[1.0]), Err(expected.to_owned()));
}
