//! [`Entry`]: the steps of one result, and how they become part of another.

use std::cmp::Ordering;
use std::ops::Range;

use promontory_tsdb::changes::Version;
use promontory_tsdb::{Labels, TimestampMs};

use super::Reach;
use crate::params::Grid;
use crate::value::RangeSeries;

/// What an entry and a series take besides values, bytes.
const ENTRY_BYTES: usize = 256;
const SERIES_BYTES: usize = 96;

/// The result of a range query.
#[derive(Debug)]
pub(crate) struct Entry {
    /// What the read that gave it saw.
    pub(super) version: Version,
    first: TimestampMs,
    step: i64,
    steps: usize,
    /// In label order.
    series: Vec<Kept>,
    pub(super) bytes: usize,
}

/// The floats of a series, dense from its first to its last step.
#[derive(Debug)]
struct Kept {
    labels: Labels,
    /// Step of the first value.
    first: usize,
    values: Box<[f64]>,
    /// Which values there are, bit by bit; `None` if all.
    present: Option<Box<[u64]>>,
}

impl Entry {
    /// `None` if it would take more than `most_bytes`, or holds what is not kept.
    pub(super) fn new(
        version: Version,
        grid: &Grid,
        series: &[RangeSeries],
        most_bytes: usize,
    ) -> Option<Self> {
        let mut entry = Self {
            version,
            first: grid.start,
            step: grid.step,
            steps: grid.steps,
            series: Vec::new(),
            bytes: ENTRY_BYTES,
        };
        entry.series.reserve_exact(series.len());
        for series in series {
            let kept = Kept::new(grid, series)?;
            entry.bytes += kept.bytes();
            if entry.bytes > most_bytes {
                return None;
            }
            entry.series.push(kept);
        }
        Some(entry)
    }

    /// The longest run of steps of `grid` that are here and looked at nothing of `changed`.
    pub(super) fn holding(
        &self,
        grid: &Grid,
        reach: Reach,
        changed: &[(TimestampMs, TimestampMs)],
    ) -> Range<usize> {
        let Some(shift) = self.first.checked_sub(grid.start) else { return 0..0 };
        if self.step != grid.step || shift % grid.step != 0 {
            return 0..0;
        }
        let (shift, steps) = (shift / grid.step, grid.steps as i64);
        let start = shift.clamp(0, steps);
        let end = shift.saturating_add(self.steps as i64).clamp(0, steps);
        // Steps at `[first, last]` looked at what changed.
        let index = |t: TimestampMs| t.saturating_sub(grid.start).div_euclid(grid.step);
        let mut touched: Vec<(i64, i64)> = changed
            .iter()
            .map(|(mint, maxt)| {
                let first = index(mint.saturating_sub(reach.after_ms).saturating_sub(1)).saturating_add(1);
                (first, index(maxt.saturating_add(reach.before_ms)))
            })
            .collect();
        touched.push((end, i64::MAX));
        touched.sort_unstable();
        let (mut best, mut from) = (start..start, start);
        for (first, last) in touched {
            let until = first.clamp(from, end);
            if until - from > best.end - best.start {
                best = from..until;
            }
            from = from.max(last.saturating_add(1)).min(end);
        }
        best.start as usize..best.end as usize
    }

    /// Appends the values of series `i` at `steps` of `grid` to `floats`.
    fn append(&self, i: usize, grid: &Grid, steps: &Range<usize>, floats: &mut Vec<(TimestampMs, f64)>) {
        let kept = &self.series[i];
        // Where the series begins, as a step of `grid`.
        let shift = (self.first - grid.start) / grid.step + kept.first as i64;
        let from = (steps.start as i64 - shift).clamp(0, kept.values.len() as i64) as usize;
        let until = (steps.end as i64 - shift).clamp(from as i64, kept.values.len() as i64) as usize;
        let mut t = grid.start + (shift + from as i64) * grid.step;
        for (k, v) in (from..until).zip(&kept.values[from..until]) {
            if kept.present.as_ref().is_none_or(|bits| bits[k / 64] >> (k % 64) & 1 == 1) {
                floats.push((t, *v));
            }
            t += grid.step;
        }
    }
}

impl Kept {
    fn new(grid: &Grid, series: &RangeSeries) -> Option<Self> {
        if !series.histograms.is_empty() {
            return None;
        }
        let index = |t: TimestampMs| ((t - grid.start) / grid.step) as usize;
        let first = index(series.floats.first()?.0);
        let len = index(series.floats.last()?.0) - first + 1;
        if len == series.floats.len() {
            let values = series.floats.iter().map(|(_, v)| *v).collect();
            return Some(Self { labels: series.labels.clone(), first, values, present: None });
        }
        let mut values = vec![0.0; len].into_boxed_slice();
        let mut present = vec![0_u64; len.div_ceil(64)].into_boxed_slice();
        for (t, v) in &series.floats {
            let k = index(*t) - first;
            values[k] = *v;
            present[k / 64] |= 1 << (k % 64);
        }
        Some(Self { labels: series.labels.clone(), first, values, present: Some(present) })
    }

    fn bytes(&self) -> usize {
        let bits = self.present.as_ref().map_or(0, |bits| bits.len() * size_of::<u64>());
        SERIES_BYTES + self.labels.as_bytes().len() + self.values.len() * size_of::<f64>() + bits
    }
}

/// The result on `grid` whose `steps` are those of `entry`, with `before` and `after` them. All are in label order,
/// and so is what comes out.
pub(crate) fn join(
    grid: &Grid,
    before: Vec<RangeSeries>,
    entry: &Entry,
    steps: &Range<usize>,
    after: Vec<RangeSeries>,
) -> Vec<RangeSeries> {
    let mut out = Vec::with_capacity(entry.series.len().max(after.len()));
    let (mut before, mut after) = (before.into_iter().peekable(), after.into_iter().peekable());
    let mut at = 0;
    loop {
        let known = entry.series.get(at).map(|s| &s.labels);
        let first = [before.peek().map(|s| &s.labels), known, after.peek().map(|s| &s.labels)];
        let Some(labels) = first.into_iter().flatten().min().cloned() else { return out };
        let is_next = |s: &RangeSeries| s.labels == labels;
        let (head, tail) = (before.next_if(is_next), after.next_if(is_next));
        let here = known.is_some_and(|known| known.cmp(&labels) == Ordering::Equal);
        let mut series = head.unwrap_or_default();
        if here {
            let more = steps.len() + tail.as_ref().map_or(0, |t| t.floats.len());
            series.floats.reserve_exact(more);
            entry.append(at, grid, steps, &mut series.floats);
            at += 1;
        }
        if let Some(tail) = tail {
            series.floats.extend(tail.floats);
            series.histograms.extend(tail.histograms);
        }
        if !series.floats.is_empty() || !series.histograms.is_empty() {
            series.labels = labels;
            out.push(series);
        }
    }
}
