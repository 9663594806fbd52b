//! Instant selectors: the newest sample of a look back.

use promontory_tsdb::is_stale;

use super::{Samples, StepRow, Windows};

/// Per step, the newest sample in `(end - lookback, end]`; nothing if it is a stale marker.
///
/// `samples` still has its stale markers. With `timestamp`, gives the time of the sample in
/// seconds and not its value.
pub fn evaluate(windows: &Windows, samples: Samples<'_>, timestamp: bool, out: &mut StepRow) {
    let steps = windows.grid.steps;
    if windows.is_pinned() && steps > 1 {
        let mut one = StepRow::default();
        evaluate(&windows.first_step(), samples, timestamp, &mut one);
        out.fill(steps, one.get(0));
        return;
    }
    out.reset(steps);
    windows.walk(samples.timestamps, |i, _, lo, hi| {
        if lo < hi {
            let v = samples.values[hi - 1];
            let shown = if timestamp { samples.timestamps[hi - 1] as f64 / 1000.0 } else { v };
            out.set_if(i, shown, !is_stale(v));
        }
    });
}
