//! `anchored` and `smoothed` over histograms, alone or between floats.
//!
//! As in [`super::histogram`], the floats of the series have been evaluated as if there were no histograms,
//! and steps that see histograms are corrected.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/functions.go> (`extendedHistogramRate`),
//! `engine.go` (`smoothSeries`)

use std::borrow::Cow;
use std::sync::Arc;

use promontory_tsdb::TimestampMs;
use promontory_tsdb::histogram::{CounterResetHint, FloatHistogram};
use promontory_tsdb::query::HistogramSample;

use super::extended::{Ends, neighbours, widened};
use super::extrapolate::go_seconds;
use super::histogram::{Point, changed, points, was_reset};
use crate::histogram::layout::{divide, multiply};
use crate::histogram::{Added, Incompatible, add, sub};
use crate::kernels::{Samples, StepRow, Windows};
use crate::logical::spec::{RangeFunction, WindowExtension};
use crate::notes::{Notes, Operation};
use crate::parser::RangeExtension;

/// Corrects `out`, evaluated from `floats` alone, for the `histograms` of the series. Neither has stale
/// markers. `windows` are the plain ones.
pub fn overlay(
    function: RangeFunction,
    extension: WindowExtension,
    windows: &Windows,
    floats: Samples<'_>,
    histograms: &[HistogramSample],
    notes: &Notes<'_>,
    out: &mut StepRow,
) {
    let smoothed = extension.kind == RangeExtension::Smoothed;
    let (before, after) = extension.reach();
    each(windows, (before, after), floats, histograms, out, &|end, floats, histograms| {
        let ends = (end.saturating_sub(windows.width_ms), end);
        if matches!(function, RangeFunction::Resets | RangeFunction::Changes) {
            let counts = if function == RangeFunction::Resets { was_reset } else { changed };
            return count(ends.0, floats, histograms, counts).map(Seen::Float);
        }
        if !floats.values.is_empty() {
            notes.mixed_floats();
            return None;
        }
        let counter = function != RangeFunction::Delta;
        let mut result = Growth { ends, smoothed, counter, notes }.of(histograms)?;
        if function == RangeFunction::Rate {
            divide(&mut result, go_seconds(windows.width_ms));
        }
        result.counter_reset_hint = CounterResetHint::Gauge;
        result.compact(0);
        Some(Seen::Histogram(result))
    });
}

/// As [`overlay`], for `selector smoothed`.
pub fn overlay_instant(
    lookback_ms: i64,
    windows: &Windows,
    floats: Samples<'_>,
    histograms: &[HistogramSample],
    notes: &Notes<'_>,
    out: &mut StepRow,
) {
    let around = Windows { width_ms: 0, ..*windows };
    each(&around, (lookback_ms, lookback_ms), floats, histograms, out, &|at, floats, histograms| {
        if !floats.values.is_empty() {
            notes.mixed_floats();
            return None;
        }
        let next = histograms.partition_point(|h| h.timestamp < at);
        let previous = histograms[..next].last();
        let result = match (previous, histograms.get(next)) {
            (_, Some(exact)) if exact.timestamp == at => exact.histogram.as_ref().clone(),
            (Some(a), Some(b)) => {
                if a.histogram.has_custom_bounds() != b.histogram.has_custom_bounds() {
                    notes.mixed_schemas();
                    return None;
                }
                let is_gauge =
                    |h: &HistogramSample| h.histogram.counter_reset_hint == CounterResetHint::Gauge;
                on_the_line(a, b, at, !(is_gauge(a) && is_gauge(b)), notes)?
            }
            // The hint tells of the samples around and not of the value.
            (Some(a), None) => FloatHistogram {
                counter_reset_hint: CounterResetHint::Unknown,
                ..a.histogram.as_ref().clone()
            },
            (None, _) => return None,
        };
        Some(Seen::Histogram(result))
    });
}

/// What a step gives.
enum Seen {
    Float(f64),
    Histogram(FloatHistogram),
}

/// From the end of the plain window, and the floats and histograms around it, to a value.
type AtStep<'a> = dyn Fn(TimestampMs, Samples<'_>, &[HistogramSample]) -> Option<Seen> + 'a;

/// Computes anew all steps that see a histogram. `f` gets the end of the plain window and what lies
/// around it.
fn each(
    windows: &Windows,
    (before, after): (i64, i64),
    floats: Samples<'_>,
    histograms: &[HistogramSample],
    out: &mut StepRow,
    f: &AtStep<'_>,
) {
    if histograms.is_empty() {
        return;
    }
    let steps = windows.grid.steps;
    if windows.is_pinned() && steps > 1 {
        let mut one = StepRow::default();
        one.reset(1);
        if let Some(v) = out.get(0) {
            one.set(0, v);
        }
        each(&windows.first_step(), (before, after), floats, histograms, &mut one, f);
        out.repeat(steps, &one);
        return;
    }
    let windows = widened(windows, before, after);
    let timestamps: Vec<TimestampMs> = histograms.iter().map(|h| h.timestamp).collect();
    let mut ranges = Vec::with_capacity(steps);
    windows.walk(&timestamps, |_, _, lo, hi| ranges.push(lo..hi));
    windows.walk(floats.timestamps, |step, end, lo, hi| {
        let histograms = &histograms[ranges[step].clone()];
        if histograms.is_empty() {
            return;
        }
        match f(end.saturating_sub(after), floats.slice(lo, hi), histograms) {
            Some(Seen::Float(v)) => out.set(step, v),
            Some(Seen::Histogram(h)) => out.set_histogram(step, Arc::new(h)),
            None => out.unset(step),
        }
    });
}

/// Counts neighbours for which `counts` holds, from the last sample at or before `start` on.
fn count(
    start: TimestampMs,
    floats: Samples<'_>,
    histograms: &[HistogramSample],
    counts: fn(Point<'_>, Point<'_>) -> bool,
) -> Option<f64> {
    let all: Vec<_> = points(floats, histograms).collect();
    let within = all.partition_point(|point| point.timestamp() <= start);
    if within == all.len() {
        return None;
    }
    let anchored = &all[within.saturating_sub(1)..];
    Some(anchored.windows(2).filter(|pair| counts(pair[0], pair[1])).count() as f64)
}

/// `increase` (`counter`) and `delta` over a window.
struct Growth<'a> {
    ends: Ends,
    smoothed: bool,
    counter: bool,
    notes: &'a Notes<'a>,
}

impl Growth<'_> {
    fn of(&self, samples: &[HistogramSample]) -> Option<FloatHistogram> {
        let (start, end) = self.ends;
        let times: Vec<TimestampMs> = samples.iter().map(|h| h.timestamp).collect();
        let (first, last) = neighbours(&times, self.ends, self.smoothed)?;
        if self.smoothed && times[first] > end {
            return None;
        }
        self.check(&samples[first..=last])?;
        let left = if self.smoothed && times[first] < start {
            Cow::Owned(on_the_line(&samples[first], &samples[first + 1], start, self.counter, self.notes)?)
        } else {
            Cow::Borrowed(samples[first].histogram.as_ref())
        };
        let right = if self.smoothed && last > 0 && times[last] > end {
            Cow::Owned(on_the_line(&samples[last - 1], &samples[last], end, self.counter, self.notes)?)
        } else {
            Cow::Borrowed(samples[last].histogram.as_ref())
        };
        let is_gauge = |h: &FloatHistogram| h.counter_reset_hint == CounterResetHint::Gauge;
        let gauges = is_gauge(&left) && is_gauge(&right);
        if !self.counter && !gauges {
            self.notes.not_a_gauge();
        }
        let mut result = told(sub(&right, &left), Operation::Subtraction, self.notes)?;
        if self.counter
            && let Some(lost) = self.lost_to_resets(samples, (first, last), &left, &right)?
        {
            result = told(add(&result, &lost), Operation::Addition, self.notes)?;
        }
        Some(result)
    }

    /// All samples have the same kind of buckets, and those of counters are no gauges.
    fn check(&self, samples: &[HistogramSample]) -> Option<()> {
        let custom = samples.first().is_some_and(|h| h.histogram.has_custom_bounds());
        for sample in samples {
            if sample.histogram.has_custom_bounds() != custom {
                self.notes.mixed_schemas();
                return None;
            }
            if self.counter && sample.histogram.counter_reset_hint == CounterResetHint::Gauge {
                self.notes.not_a_counter();
            }
        }
        Some(())
    }

    /// What stood before each reset between the ends, added up; `Some(None)` if there was no reset.
    fn lost_to_resets(
        &self,
        samples: &[HistogramSample],
        (first, last): (usize, usize),
        left: &FloatHistogram,
        right: &FloatHistogram,
    ) -> Option<Option<FloatHistogram>> {
        let mut from = first + 1;
        let mut before = left;
        if self.smoothed
            && samples[first].timestamp < self.ends.0
            && samples[first + 1].histogram.detect_reset(&samples[first].histogram)
        {
            // The line on the left spans this reset and accounts for it.
            before = &samples[first + 1].histogram;
            from += 1;
        }
        if from > last {
            return Some(None);
        }
        let mut lost: Option<FloatHistogram> = None;
        // The last sample is where `right` comes from, with its hint.
        for now in samples[from..last].iter().map(|h| h.histogram.as_ref()).chain([right]) {
            if now.detect_reset(before) {
                lost = Some(match lost {
                    None => before.clone(),
                    Some(lost) => told(add(&lost, before), Operation::Addition, self.notes)?,
                });
            }
            before = now;
        }
        Some(lost)
    }
}

/// The histogram at `t` on the line between two samples. A counter that was reset in between is taken to
/// have begun empty where the first one is.
fn on_the_line(
    a: &HistogramSample,
    b: &HistogramSample,
    t: TimestampMs,
    counter: bool,
    notes: &Notes<'_>,
) -> Option<FloatHistogram> {
    if t == a.timestamp {
        return Some(a.histogram.as_ref().clone());
    }
    if t == b.timestamp {
        return Some(b.histogram.as_ref().clone());
    }
    let part = (t - a.timestamp) as f64 / (b.timestamp - a.timestamp) as f64;
    if counter && b.histogram.detect_reset(&a.histogram) {
        let mut result = b.histogram.as_ref().clone();
        multiply(&mut result, part);
        return Some(result);
    }
    let mut grown = told(sub(&b.histogram, &a.histogram), Operation::Subtraction, notes)?;
    multiply(&mut grown, part);
    told(add(&grown, &a.histogram), Operation::Addition, notes)
}

/// The result, with what there is to tell; `None` if histograms do not fit each other.
fn told(
    result: Result<(FloatHistogram, Added), Incompatible>,
    operation: Operation,
    notes: &Notes<'_>,
) -> Option<FloatHistogram> {
    let Ok((histogram, added)) = result else {
        notes.mixed_schemas();
        return None;
    };
    if added.reconciled {
        notes.mismatched_bounds(operation);
    }
    Some(histogram)
}
