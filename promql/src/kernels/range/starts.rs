//! Counters whose samples know when they began to count: a start timestamp tells of a reset also where
//! the value did not fall, and of a zero in front of the first sample.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/functions.go> (`extrapolatedRate`,
//! `isStartTimestampReset`, `checkStartTimeOverlap`, `instantValue`, `funcResets`)

use super::Scratch;
use super::extrapolate::go_seconds;
use crate::kernels::{Samples, StepRow, Windows};
use crate::logical::spec::RangeFunction;

/// Whether start timestamps change what `function` gives.
pub(super) fn looks_at(function: RangeFunction) -> bool {
    use RangeFunction as F;
    matches!(function, F::Rate | F::Increase | F::Irate | F::Resets)
}

/// Evaluates one of the functions that look at start timestamps.
pub(super) fn evaluate(
    function: RangeFunction,
    windows: &Windows,
    samples: Samples<'_>,
    scratch: &mut Scratch,
    out: &mut StepRow,
) {
    let range_s = go_seconds(windows.width_ms);
    windows.walk(samples.timestamps, |i, end, lo, hi| {
        if lo == hi {
            return;
        }
        let s = samples.slice(lo, hi);
        let ends = (end.saturating_sub(windows.width_ms), end);
        let value = match function {
            RangeFunction::Resets => Some((1..s.values.len()).filter(|i| is_reset(s, *i)).count() as f64),
            RangeFunction::Irate => last_two(s),
            _ => {
                scratch.start_overlaps += usize::from((1..s.values.len()).any(|i| overlaps(s, i)));
                growth(s, ends, (function == RangeFunction::Rate).then_some(range_s))
            }
        };
        if let Some(v) = value {
            out.set(i, v);
        }
    });
}

/// `increase`, or `rate` over `per_second` seconds.
fn growth(s: Samples<'_>, (start, end): (i64, i64), per_second: Option<f64>) -> Option<f64> {
    let last = s.values.len() - 1;
    let mut result = s.values[last] - s.values[0];
    for i in 1..=last {
        if is_reset(s, i) {
            result += s.values[i - 1];
        }
    }
    let (first_t, last_t) = (s.timestamps[0], s.timestamps[last]);
    let mut to_start = (first_t - start) as f64 / 1000.0;
    let mut to_end = (end - last_t) as f64 / 1000.0;
    let mut sampled = (last_t - first_t) as f64 / 1000.0;
    let average = if last > 0 { sampled / last as f64 } else { 0.0 };
    let threshold = average * 1.1;
    let began = s.starts[0];
    if began != 0 && began > start && began < first_t {
        // The counter began within the window: a zero is known, and nothing is guessed on that side.
        to_start = 0.0;
        sampled = (last_t - began) as f64 / 1000.0;
        result += s.values[0];
    } else if last == 0 {
        return None;
    } else {
        if to_start >= threshold {
            to_start = average / 2.0;
        }
        if result > 0.0 && s.values[0] >= 0.0 {
            let to_zero = sampled * (s.values[0] / result);
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
    }
    if to_end >= threshold {
        to_end = average / 2.0;
    }
    let mut factor = if sampled == 0.0 { 1.0 } else { (sampled + to_start + to_end) / sampled };
    if let Some(seconds) = per_second {
        factor /= seconds;
    }
    Some(result * factor)
}

fn last_two(s: Samples<'_>) -> Option<f64> {
    let last = s.values.len() - 1;
    let before = last.checked_sub(1)?;
    let grown = if is_reset(s, last) { s.values[last] } else { s.values[last] - s.values[before] };
    Some(grown / ((s.timestamps[last] - s.timestamps[before]) as f64 / 1000.0))
}

fn is_reset(s: Samples<'_>, i: usize) -> bool {
    s.values[i] < s.values[i - 1] || is_start_reset(s, i)
}

/// Whether sample `i` began to count after the one in front of it was taken.
pub(super) fn is_start_reset(s: Samples<'_>, i: usize) -> bool {
    let (Some(&start_before), Some(&start)) = (s.starts.get(i - 1), s.starts.get(i)) else { return false };
    start_reset(start_before, s.timestamps[i - 1], start, s.timestamps[i])
}

/// Whether a sample at `t` that began at `start` counts anew since the one at `t_before`, which began at
/// `start_before`; all ms, 0 is no start.
pub(crate) fn start_reset(start_before: i64, t_before: i64, start: i64, t: i64) -> bool {
    // No start, one that cannot be, or OpenTelemetry's "not known", which is the sample's own time.
    if start == 0 || start >= t || start < t_before {
        return false;
    }
    if start > t_before {
        return true;
    }
    // It began with the sample before. Deltas do so, and so does a counter whose start is not known; what
    // is known of the sample before tells them apart.
    start_before <= t_before && start_before != 0 && start_before != t_before
}

/// Whether sample `i` began before the one in front of it was taken, and not together with it.
fn overlaps(s: Samples<'_>, i: usize) -> bool {
    let (start, start_before) = (s.starts[i], s.starts[i - 1]);
    start != 0 && start < s.timestamps[i - 1] && start != start_before
}
