//! `anchored` and `smoothed`: windows that know the samples around them.
//!
//! An anchored window begins at the last sample at or before its start; a smoothed one has a value on
//! the line between two samples at either end. No extrapolation takes place.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/functions.go> (`extendedRate`,
//! `pickFirstSampleIndices`), `engine.go` (`smoothSeries`, `extendFloats`)

use promontory_tsdb::TimestampMs;

use super::extrapolate::go_seconds;
use super::starts::is_start_reset;
use crate::error::QueryError;
use crate::kernels::{Samples, StepRow, Windows};
use crate::logical::spec::{RangeFunction, TimeView, WindowExtension};
use crate::parser::RangeExtension;

/// Functions that take an anchored window, in the order in which errors name them.
pub const ANCHORED_FUNCTIONS: [&str; 5] = ["changes", "delta", "increase", "rate", "resets"];
/// Functions that take a smoothed window.
pub const SMOOTHED_FUNCTIONS: [&str; 3] = ["delta", "increase", "rate"];

/// Evaluates `function` for every step over the extended windows. `windows` are the plain ones.
///
/// # Errors
/// [`QueryError::Internal`] for a function that the planner should have refused.
pub fn evaluate(
    function: RangeFunction,
    extension: WindowExtension,
    windows: &Windows,
    samples: Samples<'_>,
    out: &mut StepRow,
) -> Result<(), QueryError> {
    use RangeFunction as F;
    let smoothed = extension.kind == RangeExtension::Smoothed;
    let range_s = go_seconds(windows.width_ms);
    match function {
        F::Rate => each(extension, windows, samples, out, |s, ends| {
            growth(s, ends, smoothed, true).map(|v| v / range_s)
        }),
        F::Increase => each(extension, windows, samples, out, |s, ends| growth(s, ends, smoothed, true)),
        F::Delta => each(extension, windows, samples, out, |s, ends| growth(s, ends, smoothed, false)),
        F::Resets => each(extension, windows, samples, out, |s, ends| {
            count(s, ends, |s, i| {
                let (before, after) = (i - 1, i);
                s.values[after] < s.values[before] || is_start_reset(s, after)
            })
        }),
        F::Changes => each(extension, windows, samples, out, |s, ends| {
            count(s, ends, |s, i| {
                let (a, b) = (s.values[i - 1], s.values[i]);
                b != a && !(a.is_nan() && b.is_nan())
            })
        }),
        other => return Err(QueryError::Internal(format!("{other:?} over an extended window"))),
    }
    Ok(())
}

/// Start (excluded) and end of a plain window, ms.
pub(super) type Ends = (TimestampMs, TimestampMs);

/// Calls `f` with the samples around each window, where there are any.
fn each(
    extension: WindowExtension,
    windows: &Windows,
    samples: Samples<'_>,
    out: &mut StepRow,
    f: impl Fn(Samples<'_>, Ends) -> Option<f64>,
) {
    let steps = windows.grid.steps;
    if windows.is_pinned() && steps > 1 {
        let mut one = StepRow::default();
        each(extension, &windows.first_step(), samples, &mut one, f);
        out.fill(steps, one.get(0));
        return;
    }
    out.reset(steps);
    let (before, after) = extension.reach();
    widened(windows, before, after).walk(samples.timestamps, |i, end, lo, hi| {
        let end = end.saturating_sub(after);
        if lo < hi
            && let Some(v) = f(samples.slice(lo, hi), (end.saturating_sub(windows.width_ms), end))
        {
            out.set(i, v);
        }
    });
}

/// The same windows, with so many milliseconds more on either side.
pub(super) fn widened(windows: &Windows, before: i64, after: i64) -> Windows {
    let view = TimeView { offset_ms: windows.view.offset_ms.saturating_sub(after), ..windows.view };
    let width_ms = windows.width_ms.saturating_add(before).saturating_add(after);
    Windows { view, width_ms, ..*windows }
}

/// The samples that bound a window: indexes of the first and the last one, which may lie outside.
/// `None` if nothing was measured within.
fn bounding(s: Samples<'_>, (start, end): Ends, smoothed: bool) -> Option<(usize, usize)> {
    let (first, last) = neighbours(s.timestamps, (start, end), smoothed)?;
    (!smoothed || s.timestamps[first] <= end).then_some((first, last))
}

/// As [`bounding`], but samples that all lie behind the window count.
pub(super) fn neighbours(t: &[TimestampMs], (start, end): Ends, smoothed: bool) -> Option<(usize, usize)> {
    let mut last = t.len().checked_sub(1)?;
    let first = t[..last].partition_point(|t| *t <= start).saturating_sub(1);
    if smoothed {
        last = t[..last].partition_point(|t| *t < end);
    }
    (t[last] > start).then_some((first, last))
}

/// Values at both ends of the window.
fn values_at_ends(
    s: Samples<'_>,
    (start, end): Ends,
    (first, last): (usize, usize),
    smoothed: bool,
    counter: bool,
) -> (f64, f64) {
    let left = if smoothed && s.timestamps[first] < start {
        on_the_line(s, first, start, counter)
    } else {
        s.values[first]
    };
    let right = if smoothed && last > 0 && s.timestamps[last] > end {
        on_the_line(s, last - 1, end, counter)
    } else {
        s.values[last]
    };
    (left, right)
}

/// The value at `t` on the line from sample `i` to the next one. A counter that was reset between the
/// two is taken to have begun at 0 where sample `i` is.
fn on_the_line(s: Samples<'_>, i: usize, t: TimestampMs, counter: bool) -> f64 {
    let (mut y1, y2) = (s.values[i], s.values[i + 1]);
    if counter && y2 < y1 {
        y1 = 0.0;
    }
    let (t1, t2) = (s.timestamps[i], s.timestamps[i + 1]);
    y1 + (y2 - y1) * (t - t1) as f64 / (t2 - t1) as f64
}

/// How much the value grew from one end of the window to the other.
fn growth(s: Samples<'_>, ends: Ends, smoothed: bool, counter: bool) -> Option<f64> {
    let (first, last) = bounding(s, ends, smoothed)?;
    let (left, right) = values_at_ends(s, ends, (first, last), smoothed, counter);
    let mut result = right - left;
    if counter {
        // What lies on or outside of an end is accounted for in the value there.
        let from = first + usize::from(s.timestamps[first] <= ends.0);
        let to = last + usize::from(s.timestamps[last] < ends.1);
        let mut correction = 0.0;
        let mut before = left;
        for &v in s.values.get(from..to).unwrap_or_default().iter().chain(&[right]) {
            if v < before {
                correction += before;
            }
            before = v;
        }
        result += correction;
    }
    Some(result)
}

/// Counts the samples of an anchored window for which `counts(samples, index)` holds, the anchor left out.
fn count(s: Samples<'_>, (start, _): Ends, counts: impl Fn(Samples<'_>, usize) -> bool) -> Option<f64> {
    let within = s.timestamps.partition_point(|t| *t <= start);
    if within == s.timestamps.len() {
        return None;
    }
    let anchor = within.saturating_sub(1);
    Some((anchor + 1..s.timestamps.len()).filter(|i| counts(s, *i)).count() as f64)
}

/// `selector smoothed`: per step, the value on the line between the samples on either side, no further
/// away than `lookback_ms`; the sample before where there is none behind.
pub fn smoothed_instant(lookback_ms: i64, windows: &Windows, samples: Samples<'_>, out: &mut StepRow) {
    let steps = windows.grid.steps;
    if windows.is_pinned() && steps > 1 {
        let mut one = StepRow::default();
        smoothed_instant(lookback_ms, &windows.first_step(), samples, &mut one);
        out.fill(steps, one.get(0));
        return;
    }
    out.reset(steps);
    let around = Windows { width_ms: 0, ..*windows };
    widened(&around, lookback_ms, lookback_ms).walk(samples.timestamps, |step, end, lo, hi| {
        let (s, at) = (samples.slice(lo, hi), end.saturating_sub(lookback_ms));
        let next = s.timestamps.partition_point(|t| *t < at);
        match s.timestamps.get(next) {
            Some(t) if *t == at => out.set(step, s.values[next]),
            Some(_) if next > 0 => out.set(step, on_the_line(s, next - 1, at, false)),
            None if next > 0 => out.set(step, s.values[next - 1]),
            _ => {}
        }
    });
}

/// The points of `selector[range] anchored` or `smoothed` that is not the argument of a function: a
/// point at each end of `(start, end]`, and the samples between.
pub fn points(
    samples: Samples<'_>,
    ends: (TimestampMs, TimestampMs),
    smoothed: bool,
) -> Vec<(TimestampMs, f64)> {
    let Some(bounds @ (first, last)) = neighbours(samples.timestamps, ends, smoothed) else {
        return Vec::new();
    };
    // Whether it is a counter is not known here.
    let (left, right) = values_at_ends(samples, ends, bounds, smoothed, false);
    let from = first + usize::from(samples.timestamps[first] <= ends.0);
    let to = last + usize::from(samples.timestamps[last] < ends.1);
    let between = (from..to).map(|i| (samples.timestamps[i], samples.values[i]));
    std::iter::once((ends.0, left)).chain(between).chain([(ends.1, right)]).collect()
}
