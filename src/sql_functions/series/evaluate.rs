//! From the samples of a group to its value.

use datafusion::common::Result;
use promontory_promql::kernels::{Samples, StepScalar, range};
use promontory_promql::logical::spec::RangeFunction;
use promontory_tsdb::TimestampMs;

use super::super::promql::failed;

/// What an aggregate computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum SeriesFunction {
    Rate,
    Increase,
    Delta,
    Irate,
    Idelta,
    Changes,
    Resets,
    Deriv,
    PredictLinear,
    TimeWeightedAvg,
}

use SeriesFunction as F;

impl SeriesFunction {
    /// What it is of native histograms; `None` where it knows numbers only.
    pub(super) fn of_histograms(self) -> Option<RangeFunction> {
        Some(match self {
            F::Rate => RangeFunction::Rate,
            F::Increase => RangeFunction::Increase,
            F::Delta => RangeFunction::Delta,
            F::Irate => RangeFunction::Irate,
            F::Idelta => RangeFunction::Idelta,
            F::Changes => RangeFunction::Changes,
            F::Resets => RangeFunction::Resets,
            F::Deriv | F::PredictLinear | F::TimeWeightedAvg => return None,
        })
    }

    /// Whether the result is a number for histograms, too.
    pub(super) fn gives_float(self) -> bool {
        matches!(self, F::Changes | F::Resets)
    }
}

/// Further arguments of a group, NaN where there are none: start and end of the window (ms) of `rate` and
/// the like; seconds ahead and evaluation time (ms) of `predict_linear`.
pub(super) type Parameters = [f64; 2];

/// No further arguments.
pub(super) const NONE: Parameters = [f64::NAN; 2];

/// Computes group after group with the same buffers.
#[derive(Debug, Default)]
pub(super) struct Evaluator {
    order: Vec<(TimestampMs, f64)>,
    times: Vec<TimestampMs>,
    values: Vec<f64>,
    scratch: range::Scratch,
}

impl Evaluator {
    /// The value of a group of samples in any order.
    ///
    /// # Errors
    /// As the kernels, for arguments that make no sense.
    pub(super) fn evaluate(
        &mut self,
        function: SeriesFunction,
        times: &[TimestampMs],
        values: &[f64],
        parameters: Parameters,
    ) -> Result<Option<f64>> {
        if times.is_sorted_by(|a, b| a < b) {
            return evaluate(function, Samples::new(times, values), parameters, &mut self.scratch);
        }
        self.order.clear();
        self.order.extend(times.iter().copied().zip(values.iter().copied()));
        // Stable: of equal times the first that came stays first.
        self.order.sort_by_key(|(t, _)| *t);
        self.order.dedup_by_key(|(t, _)| *t);
        self.times.clear();
        self.values.clear();
        self.times.extend(self.order.iter().map(|(t, _)| *t));
        self.values.extend(self.order.iter().map(|(_, v)| *v));
        evaluate(function, Samples::new(&self.times, &self.values), parameters, &mut self.scratch)
    }
}

fn evaluate(
    function: SeriesFunction,
    samples: Samples<'_>,
    parameters: Parameters,
    scratch: &mut range::Scratch,
) -> Result<Option<f64>> {
    let function = match function {
        F::Rate | F::Increase | F::Delta if parameters[0].is_nan() || parameters[1].is_nan() => {
            return Ok(change(function, samples));
        }
        F::TimeWeightedAvg => return Ok(time_weighted(samples)),
        F::Rate => RangeFunction::Rate,
        F::Increase => RangeFunction::Increase,
        F::Delta => RangeFunction::Delta,
        F::Irate => RangeFunction::Irate,
        F::Idelta => RangeFunction::Idelta,
        F::Changes => RangeFunction::Changes,
        F::Resets => RangeFunction::Resets,
        F::Deriv => RangeFunction::Deriv,
        F::PredictLinear => RangeFunction::PredictLinear,
    };
    let Some(&last) = samples.timestamps.last() else { return Ok(None) };
    let (mut samples, mut window, mut at, mut scalars) = (samples, (last, last), last, Vec::new());
    if function == RangeFunction::PredictLinear {
        scalars.push(StepScalar::Constant(parameters[0]));
        at = if parameters[1].is_nan() { last } else { parameters[1] as TimestampMs };
    } else if !parameters[0].is_nan() {
        window = (parameters[0] as TimestampMs, parameters[1] as TimestampMs);
        samples = within(samples, window);
    }
    range::evaluate_one(function, window, at, samples, &scalars, scratch).map_err(failed)
}

/// The samples in `(start, end]`.
fn within(samples: Samples<'_>, (start, end): (TimestampMs, TimestampMs)) -> Samples<'_> {
    let Samples { timestamps: t, values: v, .. } = samples;
    let (lo, hi) = (t.partition_point(|t| *t <= start), t.partition_point(|t| *t <= end));
    let hi = hi.max(lo);
    Samples::new(&t[lo..hi], &v[lo..hi])
}

/// From the first sample to the last, without looking beyond them.
fn change(function: SeriesFunction, samples: Samples<'_>) -> Option<f64> {
    let Samples { timestamps: t, values: v, .. } = samples;
    let last = v.len().checked_sub(1).filter(|last| *last > 0)?;
    let mut change = v[last] - v[0];
    if function != F::Delta {
        // Before a reset the counter got as far as its value there.
        v.windows(2).filter(|w| w[1] < w[0]).for_each(|w| change += w[0]);
    }
    Some(if function == F::Rate { change / ((t[last] - t[0]) as f64 / 1000.0) } else { change })
}

fn time_weighted(samples: Samples<'_>) -> Option<f64> {
    let Samples { timestamps, values, .. } = samples;
    let (first, last) = (*timestamps.first()?, *timestamps.last()?);
    if first == last {
        return values.first().copied();
    }
    let weighted = timestamps.windows(2).zip(values).map(|(t, v)| v * (t[1] - t[0]) as f64);
    Some(weighted.sum::<f64>() / (last - first) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter that is scraped each ten seconds and starts over once.
    const TIMES: [i64; 5] = [10_000, 20_000, 30_000, 40_000, 50_000];
    const VALUES: [f64; 5] = [1.0, 3.0, 7.0, 2.0, 4.0];

    fn of(function: SeriesFunction, parameters: Parameters) -> Option<f64> {
        Evaluator::default().evaluate(function, &TIMES, &VALUES, parameters).unwrap()
    }

    #[test]
    fn functions_without_a_window_look_at_the_samples_alone() {
        for (function, expected) in [
            (F::Increase, 10.0),
            (F::Rate, 0.25),
            (F::Delta, 3.0),
            (F::Irate, 0.2),
            (F::Idelta, 2.0),
            (F::Changes, 4.0),
            (F::Resets, 1.0),
            (F::TimeWeightedAvg, 3.25),
        ] {
            assert_eq!(of(function, NONE), Some(expected), "{function:?}");
        }
        let slope = of(F::Deriv, NONE).unwrap();
        assert!((slope - 0.05).abs() < 1e-12, "{slope}");
        let ahead = of(F::PredictLinear, [20.0, f64::NAN]).unwrap();
        assert!((ahead - (3.4 + 0.05 * 40.0)).abs() < 1e-9, "{ahead}");
        assert_eq!(of(F::PredictLinear, [0.0, 70_000.0]).map(|v| (v * 1e9).round()), Some(5.4e9));
    }

    #[test]
    fn a_window_extrapolates_to_its_ends_and_leaves_out_its_start() {
        // At the pace of the samples, the counter was at zero four seconds before the first one.
        assert_eq!(of(F::Increase, [0.0, 55_000.0]), Some(10.0 * (4.0 + 40.0 + 5.0) / 40.0));
        assert_eq!(of(F::Delta, [10_000.0, 50_000.0]), Some(4.0 / 3.0));
        assert_eq!(of(F::Delta, [40_000.0, 50_000.0]), None);
        assert_eq!(of(F::Delta, [50_000.0, 10_000.0]), None);
    }

    #[test]
    fn order_does_not_matter_and_the_first_of_two_samples_at_a_time_counts() {
        let times = [30_000, 10_000, 30_000, 20_000];
        let got = Evaluator::default().evaluate(F::Delta, &times, &[5.0, 1.0, 9.0, 2.0], NONE);
        assert_eq!(got.unwrap(), Some(4.0));
    }

    #[test]
    fn too_few_samples_give_nothing() {
        for (function, least) in [
            (F::Rate, 2),
            (F::Increase, 2),
            (F::Delta, 2),
            (F::Irate, 2),
            (F::Idelta, 2),
            (F::Changes, 1),
            (F::Resets, 1),
            (F::Deriv, 2),
            (F::PredictLinear, 2),
            (F::TimeWeightedAvg, 1),
        ] {
            let parameters = if function == F::PredictLinear { [1.0, f64::NAN] } else { NONE };
            for n in 0..3 {
                let got = Evaluator::default().evaluate(function, &TIMES[..n], &VALUES[..n], parameters);
                assert_eq!(got.unwrap().is_some(), n >= least, "{function:?} of {n}");
            }
        }
    }
}
