//! Range functions: from the samples in `(t - range, t]` to one value per step.
//!
//! # Contract
//! [`evaluate`] takes samples without stale markers and gives, bit for bit, what Prometheus gives
//! for floats. Timestamps are walked once with two cursors. Where a result can be kept up exactly
//! while the window slides (counters of things, extremes, reset corrections) it is; compensated
//! sums are added up anew for each window, because taking values out again would not be exact.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/functions.go>

pub mod extended;
pub mod extended_histogram;
mod extrapolate;
pub mod histogram;
mod over_time;
mod ranked;
mod regression;
mod starts;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use promontory_tsdb::TimestampMs;

use super::{Samples, StepRow, StepScalar, Windows};
use crate::context::QueryContext;
use crate::error::QueryError;
use crate::logical::spec::{RangeFunction, TimeView};
use crate::params::Grid;

/// Buffers that [`evaluate`] uses again for the next series.
#[derive(Debug, Default)]
pub struct Scratch {
    floats: Vec<f64>,
    indexes: Vec<u32>,
    ranked: ranked::Ranked,
    lanes: Box<extrapolate::Lanes>,
    /// Windows in which a sample starts before the one in front of it was taken, counted up; whoever
    /// tells the user sets it back.
    pub start_overlaps: usize,
    /// Asked from time to time whether to go on.
    query: Option<Arc<QueryContext>>,
}

impl Scratch {
    /// Buffers of a query that may end early: [`evaluate`] looks at it by the work done.
    pub(crate) fn watching(query: Arc<QueryContext>) -> Self {
        Self { query: Some(query), ..Self::default() }
    }
}

/// Samples looked at, and steps, between two looks at token and deadline: well below a millisecond.
pub(crate) const WORK_PER_CHECK: usize = 1 << 16;

/// Evaluates `function` for every step. `samples` has no stale markers; `scalars` are the
/// function's scalar arguments in the order of the call.
///
/// # Errors
/// [`QueryError::Execution`] when a scalar argument is out of the function's domain;
/// [`QueryError::Internal`] when there are too few of them.
pub fn evaluate(
    function: RangeFunction,
    windows: &Windows,
    samples: Samples<'_>,
    scalars: &[StepScalar],
    scratch: &mut Scratch,
    out: &mut StepRow,
) -> Result<(), QueryError> {
    let wanted = scalar_arguments(function);
    if scalars.len() < wanted {
        return Err(QueryError::Internal(format!(
            "{function:?} takes {wanted} scalar arguments, got {}",
            scalars.len()
        )));
    }
    let steps = windows.grid.steps;
    // Where a line leads to depends on the step, also if the samples do not.
    let same = function != RangeFunction::PredictLinear && scalars.iter().all(StepScalar::is_constant);
    if windows.is_pinned() && steps > 1 && same {
        let mut one = StepRow::default();
        evaluate(function, &windows.first_step(), samples, scalars, scratch, &mut one)?;
        out.fill(steps, one.get(0));
        return Ok(());
    }
    out.reset(steps);
    dispatch(function, windows, samples, scalars, scratch, out)
}

/// `function` of all of `samples` as of one window, evaluated at `at`. What looks at the window's width and
/// ends (`rate`, `increase`, `delta`) takes it to be `(start, end]`, ms, without looking whether the samples
/// are in it.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_one(
    function: RangeFunction,
    (start, end): (TimestampMs, TimestampMs),
    at: TimestampMs,
    samples: Samples<'_>,
    scalars: &[StepScalar],
    scratch: &mut Scratch,
) -> Result<Option<f64>, QueryError> {
    use RangeFunction as F;
    let window = OneWindow { start, end };
    let extrapolated = match function {
        F::Rate => extrapolate::one::<true, true>(window, samples, scratch),
        F::Increase => extrapolate::one::<true, false>(window, samples, scratch),
        F::Delta => extrapolate::one::<false, false>(window, samples, scratch),
        _ => {
            let (Some(first), Some(last)) = (samples.timestamps.first(), samples.timestamps.last()) else {
                return Ok(None);
            };
            let view = TimeView { offset_ms: 0, at: Some(*last) };
            // One more than they span, as windows do not take in their start.
            let width_ms = last.saturating_sub(*first).saturating_add(1);
            let windows = Windows { grid: Grid::instant(at), view, width_ms };
            let mut row = StepRow::default();
            evaluate(function, &windows, samples, scalars, scratch, &mut row)?;
            return Ok(row.get(0));
        }
    };
    Ok(extrapolated)
}

/// A window by itself: `(start, end]`, ms.
#[derive(Debug, Clone, Copy)]
struct OneWindow {
    start: TimestampMs,
    end: TimestampMs,
}

/// Number of scalar arguments of `function`.
pub fn scalar_arguments(function: RangeFunction) -> usize {
    use RangeFunction as F;
    match function {
        F::PredictLinear | F::QuantileOverTime => 1,
        F::DoubleExponentialSmoothing => 2,
        _ => 0,
    }
}

fn dispatch(
    function: RangeFunction,
    w: &Windows,
    s: Samples<'_>,
    scalars: &[StepScalar],
    scratch: &mut Scratch,
    out: &mut StepRow,
) -> Result<(), QueryError> {
    use RangeFunction as F;
    let seconds = |t: TimestampMs| t as f64 / 1000.0;
    if s.starts.iter().any(|start| *start != 0) && starts::looks_at(function) {
        starts::evaluate(function, w, s, scratch, out);
        return Ok(());
    }
    let query = scratch.query.clone();
    let query = query.as_deref();
    match function {
        F::Rate => extrapolate::evaluate::<true, true>(w, s, scratch, out),
        F::Increase => extrapolate::evaluate::<true, false>(w, s, scratch, out),
        F::Delta => extrapolate::evaluate::<false, false>(w, s, scratch, out),
        F::Irate => extrapolate::last_two::<true>(w, s, out),
        F::Idelta => extrapolate::last_two::<false>(w, s, out),
        F::Deriv => each(w, s, (query, out), |_, x| regression::deriv(x))?,
        F::PredictLinear => {
            each(w, s, (query, out), |i, x| regression::predict_linear(x, w.grid.at(i), scalars[0].at(i)))?;
        }
        F::DoubleExponentialSmoothing => {
            let mut error = None;
            each(w, s, (query, out), |i, x| {
                regression::smooth(x.values, scalars[0].at(i), scalars[1].at(i)).unwrap_or_else(|e| {
                    error.get_or_insert(e);
                    None
                })
            })?;
            return error.map_or(Ok(()), Err);
        }
        F::Changes => {
            over_time::count_steps(w, s, scratch, out, |a, b| b != a && !(a.is_nan() && b.is_nan()))
        }
        F::Resets => over_time::count_steps(w, s, scratch, out, |a, b| b < a),
        F::AvgOverTime => each(w, s, (query, out), |_, x| Some(over_time::avg(x.values)))?,
        F::SumOverTime => each(w, s, (query, out), |_, x| Some(over_time::sum(x.values)))?,
        F::CountOverTime => each(w, s, (query, out), |_, x| Some(x.values.len() as f64))?,
        F::PresentOverTime | F::AbsentOverTime => each(w, s, (query, out), |_, _| Some(1.0))?,
        F::LastOverTime => each(w, s, (query, out), |_, x| x.values.last().copied())?,
        F::FirstOverTime => each(w, s, (query, out), |_, x| x.values.first().copied())?,
        F::TsOfFirstOverTime => each(w, s, (query, out), |_, x| x.timestamps.first().map(|t| seconds(*t)))?,
        F::TsOfLastOverTime => each(w, s, (query, out), |_, x| x.timestamps.last().map(|t| seconds(*t)))?,
        F::MinOverTime => over_time::least_or_greatest::<false>(w, s, scratch, out),
        F::MaxOverTime => over_time::least_or_greatest::<true>(w, s, scratch, out),
        F::TsOfMinOverTime => {
            over_time::extreme(w, s, scratch, out, |new, old| new <= old, |k| seconds(s.timestamps[k]));
        }
        F::TsOfMaxOverTime => {
            over_time::extreme(w, s, scratch, out, |new, old| new >= old, |k| seconds(s.timestamps[k]));
        }
        F::StdvarOverTime => each(w, s, (query, out), |_, x| Some(over_time::variance(x.values)))?,
        F::StddevOverTime => each(w, s, (query, out), |_, x| Some(over_time::variance(x.values).sqrt()))?,
        F::QuantileOverTime if ranked::pays(w, s) => {
            let ranked = &mut scratch.ranked;
            ranked.clear();
            each_window(w, s, (query, out), |i, window| {
                ranked.slide(s.values, window);
                Some(ranked.quantile(scalars[0].at(i)))
            })?;
        }
        F::QuantileOverTime => {
            let buffer = &mut scratch.floats;
            each(w, s, (query, out), |i, x| Some(over_time::quantile(x.values, scalars[0].at(i), buffer)))?;
        }
        F::MadOverTime => {
            let buffer = &mut scratch.floats;
            each(w, s, (query, out), |_, x| Some(over_time::mad(x.values, buffer)))?;
        }
    }
    Ok(())
}

/// Calls `f(step, samples)` for every window that has a sample; ends early when `query` is over.
#[inline(always)]
fn each(
    windows: &Windows,
    samples: Samples<'_>,
    to: (Option<&QueryContext>, &mut StepRow),
    mut f: impl FnMut(usize, Samples<'_>) -> Option<f64>,
) -> Result<(), QueryError> {
    each_window(windows, samples, to, |i, window| f(i, samples.slice(window.start, window.end)))
}

/// As [`each`], with the indexes of the window's samples.
#[inline(always)]
fn each_window(
    windows: &Windows,
    samples: Samples<'_>,
    (query, out): (Option<&QueryContext>, &mut StepRow),
    mut f: impl FnMut(usize, Range<usize>) -> Option<f64>,
) -> Result<(), QueryError> {
    let (mut work, mut outcome) = (0, Ok(()));
    windows.walk(samples.timestamps, |i, _, lo, hi| {
        if lo >= hi || outcome.is_err() {
            return;
        }
        work += hi - lo;
        if work >= WORK_PER_CHECK {
            work = 0;
            outcome = query.map_or(Ok(()), QueryContext::check);
        }
        if let Some(v) = f(i, lo..hi) {
            out.set(i, v);
        }
    });
    outcome
}
