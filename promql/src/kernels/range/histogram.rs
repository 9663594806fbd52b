//! Range functions over windows that hold histograms, alone or between floats.
//!
//! # Contract
//! The floats of the series have been evaluated as if there were no histograms. [`overlay`] then
//! changes the steps whose window has a histogram: functions that know histograms give one, functions
//! that do not leave them out and say so, and for the rest a mix is no result.

use std::sync::Arc;

use promontory_tsdb::TimestampMs;
use promontory_tsdb::histogram::{CounterResetHint, FloatHistogram};
use promontory_tsdb::query::HistogramSample;

use super::extrapolate::go_seconds;
use super::regression::check_factors;
use super::starts::start_reset;
use crate::context::QueryContext;
use crate::error::QueryError;
use crate::histogram::layout::{divide, multiply};
use crate::histogram::total::Total;
use crate::histogram::{Layout, sub};
use crate::kernels::{Samples, StepRow, StepScalar, Windows};
use crate::logical::spec::RangeFunction;
use crate::notes::{Notes, Operation};
use crate::value::SampleValue;

/// Histograms looked at between two looks at token and deadline.
const HISTOGRAMS_PER_CHECK: usize = 1 << 10;

/// `function` of all of `histograms` as of one window `(start, end]`, ms, without looking whether they are in
/// it. Without a window `rate`, `increase` and `delta` look at nothing beyond the histograms. `None` where
/// there is no result, and for functions that do not know histograms.
pub fn evaluate_one(
    function: RangeFunction,
    window: Option<(TimestampMs, TimestampMs)>,
    histograms: &[HistogramSample],
    context: &QueryContext,
) -> Option<SampleValue> {
    use RangeFunction as F;
    let notes = Notes { context, position: "", name: "" };
    let (first, last) = (histograms.first()?, histograms.last()?);
    let outcome = match (function, window) {
        (F::Rate | F::Increase | F::Delta, None) => {
            let mut change = difference(histograms, function != F::Delta, &notes)?;
            if function == F::Rate {
                divide(&mut change, (last.timestamp - first.timestamp) as f64 / 1000.0);
            }
            Outcome::Histogram(change)
        }
        _ => {
            let (start, end) = window.unwrap_or((first.timestamp.saturating_sub(1), last.timestamp));
            let floats = Samples::new(&[], &[]);
            evaluate(function, Window { end, width_ms: end - start, floats, histograms }, &notes)
        }
    };
    match outcome {
        Outcome::Float(v) => Some(SampleValue::Float(v)),
        Outcome::Histogram(h) => Some(SampleValue::Histogram(Arc::new(h))),
        Outcome::Shared(h) => Some(SampleValue::Histogram(h)),
        Outcome::Absent | Outcome::Floats => None,
    }
}

/// One step: its floats and its histograms, of which there is at least one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window<'a> {
    /// End of the window, ms.
    pub(super) end: TimestampMs,
    /// Its width, ms.
    width_ms: i64,
    pub(super) floats: Samples<'a>,
    pub(super) histograms: &'a [HistogramSample],
}

/// What a step gives.
pub(super) enum Outcome {
    Float(f64),
    Histogram(FloatHistogram),
    Shared(Arc<FloatHistogram>),
    /// Nothing.
    Absent,
    /// What the floats alone give.
    Floats,
}

/// Corrects `out`, evaluated from `floats` alone, for the `histograms` of the series. Neither has
/// stale markers. When the query is over, steps are left without a result: callers ask it afterwards.
pub fn overlay(
    function: RangeFunction,
    windows: &Windows,
    floats: Samples<'_>,
    histograms: &[HistogramSample],
    notes: &Notes<'_>,
    out: &mut StepRow,
) {
    let (mut work, mut over) = (0, false);
    overlay_steps(windows, floats, histograms, out, |window| {
        work += window.histograms.len();
        if work >= HISTOGRAMS_PER_CHECK {
            work = 0;
            over = over || notes.context.check().is_err();
        }
        if over { Outcome::Absent } else { evaluate(function, window, notes) }
    });
}

/// Looks at the scalar arguments of `function` at each step whose window has a histogram: [`super::evaluate`] looks at
/// those whose window has a float.
///
/// # Errors
/// [`QueryError::Execution`] when an argument is out of the function's domain.
pub fn check_scalars(
    function: RangeFunction,
    windows: &Windows,
    histograms: &[HistogramSample],
    scalars: &[StepScalar],
) -> Result<(), QueryError> {
    let (RangeFunction::DoubleExponentialSmoothing, [smoothing, trend]) = (function, scalars) else {
        return Ok(());
    };
    let timestamps: Vec<TimestampMs> = histograms.iter().map(|h| h.timestamp).collect();
    let mut found = Ok(());
    windows.walk(&timestamps, |step, _, lo, hi| {
        if lo < hi && found.is_ok() {
            found = check_factors(smoothing.at(step), trend.at(step));
        }
    });
    found
}

/// Puts what `f` gives at each step whose window has a histogram.
pub(super) fn overlay_steps(
    windows: &Windows,
    floats: Samples<'_>,
    histograms: &[HistogramSample],
    out: &mut StepRow,
    mut f: impl FnMut(Window<'_>) -> Outcome,
) {
    if histograms.is_empty() {
        return;
    }
    let steps = windows.grid.steps;
    if windows.is_pinned() && steps > 1 {
        // All steps see one window; what floats give may differ from step to step through scalars.
        let mut one = StepRow::default();
        one.reset(1);
        let before = out.get(0);
        if let Some(v) = before {
            one.set(0, v);
        }
        overlay_each(&windows.first_step(), floats, histograms, &mut one, &mut f);
        if one.get(0).map(f64::to_bits) != before.map(f64::to_bits) || !one.histograms().is_empty() {
            out.repeat(steps, &one);
        }
        return;
    }
    overlay_each(windows, floats, histograms, out, &mut f);
}

fn overlay_each(
    windows: &Windows,
    floats: Samples<'_>,
    histograms: &[HistogramSample],
    out: &mut StepRow,
    f: &mut impl FnMut(Window<'_>) -> Outcome,
) {
    let timestamps: Vec<TimestampMs> = histograms.iter().map(|h| h.timestamp).collect();
    let mut ranges = Vec::with_capacity(windows.grid.steps);
    windows.walk(&timestamps, |_, _, lo, hi| ranges.push(lo..hi));
    windows.walk(floats.timestamps, |step, end, lo, hi| {
        let histograms = &histograms[ranges[step].clone()];
        if histograms.is_empty() {
            return;
        }
        let floats = floats.slice(lo, hi);
        let window = Window { end, width_ms: windows.width_ms, floats, histograms };
        match f(window) {
            Outcome::Float(v) => out.set(step, v),
            Outcome::Histogram(h) => out.set_histogram(step, Arc::new(h)),
            Outcome::Shared(h) => out.set_histogram(step, h),
            Outcome::Absent => out.unset(step),
            Outcome::Floats => {}
        }
    });
}

fn evaluate(function: RangeFunction, w: Window<'_>, notes: &Notes<'_>) -> Outcome {
    use RangeFunction as F;
    let floats = w.floats.values.len();
    match function {
        F::Rate | F::Increase | F::Delta | F::AvgOverTime | F::SumOverTime if floats > 0 => {
            notes.mixed_floats();
            Outcome::Absent
        }
        F::Rate | F::Increase | F::Delta => extrapolated(function, w, notes),
        F::AvgOverTime | F::SumOverTime => total(function, w.histograms, notes),
        F::Irate => last_two(w, true, notes),
        F::Idelta => last_two(w, false, notes),
        F::Changes => Outcome::Float(count_steps(points(w.floats, w.histograms), changed)),
        F::Resets => Outcome::Float(count_steps(points(w.floats, w.histograms), was_reset)),
        F::CountOverTime => Outcome::Float((floats + w.histograms.len()) as f64),
        F::PresentOverTime | F::AbsentOverTime => Outcome::Float(1.0),
        F::FirstOverTime | F::LastOverTime | F::TsOfFirstOverTime | F::TsOfLastOverTime => edge(function, w),
        F::Deriv
        | F::PredictLinear
        | F::DoubleExponentialSmoothing
        | F::MinOverTime
        | F::MaxOverTime
        | F::QuantileOverTime
        | F::StddevOverTime
        | F::StdvarOverTime
        | F::MadOverTime
        | F::TsOfMaxOverTime
        | F::TsOfMinOverTime => {
            if floats > 0 {
                notes.ignored_in_range();
            }
            Outcome::Floats
        }
    }
}

/// `sum_over_time`, `avg_over_time`.
fn total(function: RangeFunction, histograms: &[HistogramSample], notes: &Notes<'_>) -> Outcome {
    let [first, rest @ ..] = histograms else { return Outcome::Absent };
    let mut total = Total::of(&first.histogram);
    let mean = function == RangeFunction::AvgOverTime;
    for sample in rest {
        if mean {
            total.add_to_mean(&sample.histogram);
        } else {
            total.add_to_sum(&sample.histogram);
        }
    }
    let result = if mean { total.mean(false) } else { total.sum(false) };
    let Some(result) = result else {
        notes.mixed_schemas();
        return Outcome::Absent;
    };
    if total.seen.collision() {
        notes.reset_collision(Operation::Aggregation);
    }
    if total.seen.reconciled {
        notes.mismatched_bounds(Operation::Aggregation);
    }
    Outcome::Histogram(result)
}

/// The first or the last sample of the window, or its time.
fn edge(function: RangeFunction, w: Window<'_>) -> Outcome {
    use RangeFunction as F;
    let last = matches!(function, F::LastOverTime | F::TsOfLastOverTime);
    let (float, histogram) = if last {
        (w.floats.timestamps.last(), w.histograms.last())
    } else {
        (w.floats.timestamps.first(), w.histograms.first())
    };
    let Some(histogram) = histogram else { return Outcome::Floats };
    if float.is_some_and(|t| if last { histogram.timestamp < *t } else { *t < histogram.timestamp }) {
        return Outcome::Floats;
    }
    if matches!(function, F::TsOfFirstOverTime | F::TsOfLastOverTime) {
        Outcome::Float(histogram.timestamp as f64 / 1000.0)
    } else {
        Outcome::Shared(Arc::clone(&histogram.histogram))
    }
}

/// A sample of either kind.
#[derive(Debug, Clone, Copy)]
pub(super) enum Point<'a> {
    Float {
        t: TimestampMs,
        v: f64,
        /// 0 for none.
        start: TimestampMs,
    },
    Histogram(&'a HistogramSample),
}

impl Point<'_> {
    pub(super) fn timestamp(&self) -> TimestampMs {
        match self {
            Self::Float { t, .. } => *t,
            Self::Histogram(h) => h.timestamp,
        }
    }
}

/// All samples of the window in the order of time.
pub(super) fn points<'a>(
    floats: Samples<'a>,
    histograms: &'a [HistogramSample],
) -> impl Iterator<Item = Point<'a>> + 'a {
    let mut floats = (0..floats.values.len())
        .map(move |i| {
            let start = floats.starts.get(i).copied().unwrap_or(0);
            Point::Float { t: floats.timestamps[i], v: floats.values[i], start }
        })
        .peekable();
    let mut histograms = histograms.iter().peekable();
    std::iter::from_fn(move || {
        let before = histograms.peek().map_or(TimestampMs::MAX, |h| h.timestamp);
        floats.next_if(|float| float.timestamp() < before).or_else(|| histograms.next().map(Point::Histogram))
    })
}

/// How many neighbours `counts` holds for.
pub(super) fn count_steps<'a>(
    points: impl Iterator<Item = Point<'a>>,
    counts: fn(Point<'_>, Point<'_>) -> bool,
) -> f64 {
    let (mut count, mut before) = (0.0, None);
    for now in points {
        if before.is_some_and(|before| counts(before, now)) {
            count += 1.0;
        }
        before = Some(now);
    }
    count
}

#[expect(clippy::float_cmp, reason = "any change counts")]
pub(super) fn changed(before: Point<'_>, now: Point<'_>) -> bool {
    match (before, now) {
        (Point::Float { v: a, .. }, Point::Float { v: b, .. }) => a != b && !(a.is_nan() && b.is_nan()),
        (Point::Histogram(a), Point::Histogram(b)) => !a.histogram.equals(&b.histogram),
        _ => true,
    }
}

pub(super) fn was_reset(before: Point<'_>, now: Point<'_>) -> bool {
    match (before, now) {
        (Point::Float { t: t_before, v: a, start: start_before }, Point::Float { t, v: b, start }) => {
            b < a || start_reset(start_before, t_before, start, t)
        }
        (Point::Histogram(a), Point::Histogram(b)) => {
            started_anew(a, b) || b.histogram.detect_reset(&a.histogram)
        }
        _ => true,
    }
}

/// Whether the start timestamps alone tell of a reset between two samples.
fn started_anew(before: &HistogramSample, now: &HistogramSample) -> bool {
    start_reset(before.start_timestamp, before.timestamp, now.start_timestamp, now.timestamp)
}

/// `irate` and `idelta`: the last two samples only.
fn last_two(w: Window<'_>, is_rate: bool, notes: &Notes<'_>) -> Outcome {
    let mut last: [Option<Point<'_>>; 2] = [None, None];
    for point in points(w.floats, w.histograms) {
        last = [last[1], Some(point)];
    }
    let (before, now) = match last {
        [Some(Point::Histogram(before)), Some(Point::Histogram(now))] => (before, now),
        [Some(Point::Float { .. }), Some(Point::Float { .. })] => return Outcome::Floats,
        [Some(_), Some(_)] => {
            notes.mixed_floats();
            return Outcome::Absent;
        }
        _ => return Outcome::Absent,
    };
    let is_gauge = |s: &HistogramSample| s.histogram.counter_reset_hint == CounterResetHint::Gauge;
    if is_rate && (is_gauge(before) || is_gauge(now)) {
        notes.not_a_counter();
    }
    let are_gauges = is_gauge(before) && is_gauge(now);
    if !is_rate && !are_gauges {
        notes.not_a_gauge();
    }
    let was_reset = is_rate && (started_anew(before, now) || now.histogram.detect_reset(&before.histogram));
    let mut result = if was_reset {
        now.histogram.as_ref().clone()
    } else {
        let Ok((difference, added)) = sub(&now.histogram, &before.histogram) else {
            notes.mixed_schemas();
            return Outcome::Absent;
        };
        if added.reconciled {
            notes.mismatched_bounds(Operation::Subtraction);
        }
        difference
    };
    result.counter_reset_hint = CounterResetHint::Gauge;
    result.compact(0);
    if is_rate {
        divide(&mut result, (now.timestamp - before.timestamp) as f64 / 1000.0);
    }
    Outcome::Histogram(result)
}

/// `rate`, `increase`, `delta` over histograms.
fn extrapolated(function: RangeFunction, w: Window<'_>, notes: &Notes<'_>) -> Outcome {
    let is_counter = function != RangeFunction::Delta;
    let samples = w.histograms;
    let [first, .., last] = samples else { return single(function, w) };
    let Some(mut result) = difference(samples, is_counter, notes) else { return Outcome::Absent };
    let range_start = w.end - w.width_ms;
    let mut to_start = (first.timestamp - range_start) as f64 / 1000.0;
    let mut to_end = (w.end - last.timestamp) as f64 / 1000.0;
    let mut sampled = (last.timestamp - first.timestamp) as f64 / 1000.0;
    let average = sampled / (samples.len() - 1) as f64;
    let threshold = average * 1.1;
    if is_counter && started_within(first, range_start) {
        // The counter is known to have begun within the window, at zero.
        to_start = 0.0;
        sampled = (last.timestamp - first.start_timestamp) as f64 / 1000.0;
        let Ok((with_first, added)) = crate::histogram::add(&result, &first.histogram) else {
            notes.mixed_schemas();
            return Outcome::Absent;
        };
        if added.reconciled {
            notes.mismatched_bounds(Operation::Addition);
        }
        result = with_first;
    } else {
        if to_start >= threshold {
            to_start = average / 2.0;
        }
        if is_counter && result.count > 0.0 && first.histogram.count >= 0.0 {
            to_start = to_start.min(sampled * (first.histogram.count / result.count));
        }
    }
    if to_end >= threshold {
        to_end = average / 2.0;
    }
    let mut factor = (sampled + to_start + to_end) / sampled;
    if function == RangeFunction::Rate {
        factor /= go_seconds(w.width_ms);
    }
    multiply(&mut result, factor);
    Outcome::Histogram(result)
}

/// One sample is enough if it tells that its counter began within the window.
fn single(function: RangeFunction, w: Window<'_>) -> Outcome {
    let ([only], true) = (w.histograms, function != RangeFunction::Delta) else { return Outcome::Absent };
    if !started_within(only, w.end - w.width_ms) {
        return Outcome::Absent;
    }
    // Nothing is extrapolated: without a distance between samples any gap to the end is too wide.
    let mut result = only.histogram.as_ref().clone();
    if function == RangeFunction::Rate {
        multiply(&mut result, 1.0 / go_seconds(w.width_ms));
    }
    Outcome::Histogram(result)
}

fn started_within(first: &HistogramSample, range_start: TimestampMs) -> bool {
    let start = first.start_timestamp;
    start != 0 && start > range_start && start < first.timestamp
}

/// Last − first, plus what stood before each reset. There are at least two samples.
fn difference(samples: &[HistogramSample], is_counter: bool, notes: &Notes<'_>) -> Option<FloatHistogram> {
    let [first, second, ..] = samples else { return None };
    let last = samples.last()?;
    let is_gauge = |s: &HistogramSample| s.histogram.counter_reset_hint == CounterResetHint::Gauge;
    if is_counter && (is_gauge(first) || is_gauge(last)) {
        notes.not_a_counter();
    }
    let mut previous = Arc::clone(&first.histogram);
    if is_counter && (started_anew(first, second) || second.histogram.detect_reset(&first.histogram)) {
        // The first sample does not count, and its layout does not matter.
        previous = Arc::new(FloatHistogram {
            schema: second.histogram.schema,
            custom_values: second.histogram.custom_values.clone(),
            ..FloatHistogram::default()
        });
    }
    let custom = previous.has_custom_bounds();
    let between = &samples[1..samples.len() - 1];
    if last.histogram.has_custom_bounds() != custom
        || (is_counter && between.iter().any(|s| s.histogram.has_custom_bounds() != custom))
    {
        notes.mixed_schemas();
        return None;
    }
    let mut schema = last.histogram.schema.min(previous.schema);
    if is_counter {
        for sample in between {
            if is_gauge(sample) {
                notes.not_a_counter();
            }
            schema = schema.min(sample.histogram.schema);
        }
    }
    let mut result = Layout::<f64>::of(&last.histogram);
    if schema < result.schema {
        result.reduce_resolution(schema);
    }
    let told = |added: Result<crate::histogram::Added, _>, operation| match added {
        Ok(added) => {
            if added.reconciled {
                notes.mismatched_bounds(operation);
            }
            Some(())
        }
        Err(crate::histogram::Incompatible) => {
            notes.mixed_schemas();
            None
        }
    };
    told(result.sub(&Layout::of(&previous)), Operation::Subtraction)?;
    if is_counter {
        for pair in samples.windows(2) {
            let (before, now) = (&pair[0], &pair[1]);
            if started_anew(before, now) || now.histogram.detect_reset(&previous) {
                told(result.add(&Layout::of(&previous)), Operation::Addition)?;
            }
            previous = Arc::clone(&now.histogram);
        }
    } else if !(is_gauge(first) && is_gauge(last)) {
        notes.not_a_gauge();
    }
    result.hint = CounterResetHint::Gauge;
    Some(result.histogram(true))
}
