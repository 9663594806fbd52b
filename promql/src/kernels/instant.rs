//! Instant selectors: the newest sample of a look back.

use std::sync::Arc;

use promontory_tsdb::query::HistogramSample;
use promontory_tsdb::{TimestampMs, is_stale};

use super::{Samples, StepRow, Windows};
use crate::logical::spec::SampleRead;

/// Per step, the newest sample in `(end - lookback, end]`; nothing if it is a stale marker.
///
/// `samples` still has its stale markers.
pub fn evaluate(windows: &Windows, samples: Samples<'_>, read: SampleRead, out: &mut StepRow) {
    let steps = windows.grid.steps;
    if windows.is_pinned() && steps > 1 {
        let mut one = StepRow::default();
        evaluate(&windows.first_step(), samples, read, &mut one);
        out.fill(steps, one.get(0));
        return;
    }
    out.reset(steps);
    windows.walk(samples.timestamps, |i, _, lo, hi| {
        if lo < hi {
            let v = samples.values[hi - 1];
            let shown = match read {
                SampleRead::Value => v,
                SampleRead::Timestamp | SampleRead::FloatTimestamp => {
                    samples.timestamps[hi - 1] as f64 / 1000.0
                }
                SampleRead::StartTimestamp => samples.starts.get(hi - 1).map_or(0.0, |s| *s as f64 / 1000.0),
            };
            out.set_if(i, shown, !is_stale(v));
        }
    });
}

/// Corrects `out`, evaluated from `floats` alone, for the `histograms` of the series. Both still have
/// their stale markers.
pub fn overlay(
    windows: &Windows,
    floats: &[TimestampMs],
    histograms: &[HistogramSample],
    read: SampleRead,
    out: &mut StepRow,
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
        overlay(&windows.first_step(), floats, histograms, read, &mut one);
        out.repeat(steps, &one);
        return;
    }
    let mut newest_floats = Vec::with_capacity(steps);
    windows.walk(floats, |_, _, lo, hi| newest_floats.push((lo < hi).then(|| floats[hi - 1])));
    let timestamps: Vec<TimestampMs> = histograms.iter().map(|h| h.timestamp).collect();
    windows.walk(&timestamps, |step, _, lo, hi| {
        if lo == hi {
            return;
        }
        let newest = &histograms[hi - 1];
        if newest_floats[step].is_some_and(|t| t > newest.timestamp) {
            return;
        }
        if is_stale(newest.histogram.sum) {
            out.unset(step);
        } else if read == SampleRead::Timestamp {
            out.set(step, newest.timestamp as f64 / 1000.0);
        } else if read == SampleRead::StartTimestamp {
            out.set(step, newest.start_timestamp as f64 / 1000.0);
        } else {
            out.set_histogram(step, Arc::clone(&newest.histogram));
        }
    });
}
