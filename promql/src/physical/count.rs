//! Samples that leaves and subqueries look at, counted for users who ask for it.
//!
//! Counted is what upstream counts: each step counts all of its window, as if it was a query of its own, and read is
//! what no step before it had in its window. What is computed in another way here, or less often, counts the same.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/util/stats/query_stats.go>

use promontory_tsdb::TimestampMs;
use promontory_tsdb::query::HistogramSample;

use crate::context::SampleCounts;
use crate::histogram::weight;
use crate::kernels::{StepRow, Windows};
use crate::logical::spec::WindowExtension;

/// Counts what an instant selector found of a series: a sample per step. `times` is how many steps of the query each
/// of them stands for.
pub(super) fn row(counts: &SampleCounts, times: usize, windows: &Windows, row: &StepRow) {
    let all = row.count();
    let read = if windows.is_pinned() {
        let histogram = row.histograms().first().filter(|(step, _)| *step == 0);
        usize::from(row.get(0).is_some()) + histogram.map_or(0, |(_, h)| weight(h))
    } else {
        all
    };
    counts.add(all * times, read);
}

/// Counts floats in windows.
pub(super) fn floats(counts: &SampleCounts, times: usize, windows: &Windows, timestamps: &[TimestampMs]) {
    let (all, read) = in_windows(windows, timestamps, |lo, hi| hi - lo);
    counts.add(all * times, read);
}

/// Counts histograms in windows.
pub(super) fn histograms(
    counts: &SampleCounts,
    times: usize,
    windows: &Windows,
    histograms: &[HistogramSample],
) {
    let timestamps: Vec<TimestampMs> = histograms.iter().map(|h| h.timestamp).collect();
    let mut sums = vec![0];
    sums.extend(histograms.iter().scan(0, |sum, h| {
        *sum += weight(&h.histogram);
        Some(*sum)
    }));
    let (all, read) = in_windows(windows, &timestamps, |lo, hi| sums[hi] - sums[lo]);
    counts.add(all * times, read);
}

/// `windows` with all that is looked at around them.
pub(super) fn extended(windows: &Windows, extension: Option<WindowExtension>) -> Windows {
    let (before, after) = extension.map_or((0, 0), |extension| extension.reach());
    let mut windows = *windows;
    windows.width_ms = windows.width_ms.saturating_add(before).saturating_add(after);
    windows.view.offset_ms = windows.view.offset_ms.saturating_sub(after);
    windows
}

/// What is in windows, by what `of` gives for a range of samples: over all windows, and without what the window before
/// had already.
fn in_windows(
    windows: &Windows,
    timestamps: &[TimestampMs],
    of: impl Fn(usize, usize) -> usize,
) -> (usize, usize) {
    let (mut all, mut read, mut seen) = (0, 0, 0);
    windows.walk(timestamps, |_, _, lo, hi| {
        all += of(lo, hi);
        let new = lo.max(seen);
        if new < hi {
            read += of(new, hi);
        }
        seen = seen.max(hi);
    });
    (all, read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logical::spec::TimeView;
    use crate::params::Grid;

    #[test]
    fn windows_that_overlap_count_a_sample_each_and_read_it_once() {
        let windows = Windows { grid: Grid::new(40, 60, 10, 4), view: TimeView::default(), width_ms: 20 };
        // (20, 40], (30, 50], (40, 60].
        let timestamps = [20, 21, 35, 40, 41, 55, 60, 61];
        assert_eq!(in_windows(&windows, &timestamps, |lo, hi| hi - lo), (3 + 3 + 3, 6));
        let apart = Windows { width_ms: 5, ..windows };
        // (35, 40], (45, 50], (55, 60].
        assert_eq!(in_windows(&apart, &timestamps, |lo, hi| hi - lo), (2, 2));
        let pinned = Windows { view: TimeView { at: Some(50), ..TimeView::default() }, ..windows };
        assert_eq!(in_windows(&pinned, &timestamps, |lo, hi| hi - lo), (9, 3));
    }
}
