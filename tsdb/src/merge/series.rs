//! One series of several sources: its samples by time.
//!
//! Of samples with the same timestamp, that of the first part counts. A histogram that does not follow one of its
//! own part loses its counter reset hint, unless it is a gauge.

use std::ops::Range;
use std::sync::Arc;

use crate::histogram::CounterResetHint;
use crate::query::{HistogramSample, SeriesBatch};
use crate::sample::TimestampMs;

/// What is left of a series of one source.
#[derive(Debug)]
pub(super) struct Part<'s> {
    /// What its float samples lie in.
    pub(super) batch: &'s SeriesBatch,
    /// Where they do.
    pub(super) floats: Range<usize>,
    pub(super) histograms: &'s [HistogramSample],
}

impl<'s> Part<'s> {
    fn next_float_time(&self) -> Option<TimestampMs> {
        (!self.floats.is_empty()).then(|| self.batch.timestamps[self.floats.start])
    }

    fn next_time(&self) -> Option<TimestampMs> {
        self.next_float_time().into_iter().chain(self.histograms.first().map(|h| h.timestamp)).min()
    }

    /// The histogram at `t`, if that is what comes next.
    fn next_histogram(&self, t: TimestampMs) -> Option<&'s HistogramSample> {
        self.histograms.first().filter(|h| h.timestamp == t && self.next_float_time() != Some(t))
    }

    /// Goes on behind `t`.
    fn skip(&mut self, t: TimestampMs) {
        self.floats.start += usize::from(self.next_float_time() == Some(t));
        let n = usize::from(self.histograms.first().is_some_and(|h| h.timestamp == t));
        self.histograms = &self.histograms[n..];
    }
}

/// Appends a series of a single source to `out`.
pub(super) fn copy(out: &mut SeriesBatch, part: &Part<'_>) {
    extend(out, part.batch, part.floats.clone());
    let series = out.len() as u32;
    out.histograms.extend(part.histograms.iter().map(|h| HistogramSample { series, ..h.clone() }));
}

/// Appends a series of several sources to `out`; they are in the order in which they are trusted.
pub(super) fn merge(out: &mut SeriesBatch, parts: Vec<Part<'_>>) {
    if parts.iter().any(|part| !part.histograms.is_empty()) {
        merge_any(out, parts);
    } else {
        merge_floats(out, parts);
    }
}

fn merge_floats(out: &mut SeriesBatch, mut parts: Vec<Part<'_>>) {
    parts.retain(|part| !part.floats.is_empty());
    let mut by_time: Vec<&Part<'_>> = parts.iter().collect();
    by_time.sort_by_key(|part| part.batch.timestamps[part.floats.start]);
    let apart = by_time
        .windows(2)
        .all(|w| w[0].batch.timestamps[w[0].floats.end - 1] < w[1].batch.timestamps[w[1].floats.start]);
    if apart {
        return by_time.into_iter().for_each(|part| extend(out, part.batch, part.floats.clone()));
    }
    loop {
        // The first of equals: the most trusted source.
        let times = parts.iter().enumerate().filter_map(|(p, part)| Some((part.next_float_time()?, p)));
        let Some((t, p)) = times.min() else { break };
        push(out, parts[p].batch, parts[p].floats.start);
        for part in &mut parts {
            part.floats.start += usize::from(part.next_float_time() == Some(t));
        }
    }
}

/// Merges parts of which at least one has histograms.
fn merge_any(out: &mut SeriesBatch, mut parts: Vec<Part<'_>>) {
    let series = out.len() as u32;
    let mut before = None;
    loop {
        let times = parts.iter().enumerate().filter_map(|(p, part)| Some((part.next_time()?, p)));
        let Some((t, p)) = times.min() else { break };
        let consecutive = before.replace(p) == Some(p);
        match parts[p].next_histogram(t) {
            Some(sample) => {
                let mut sample = HistogramSample { series, ..sample.clone() };
                let hint = sample.histogram.counter_reset_hint;
                if !consecutive && !matches!(hint, CounterResetHint::Gauge | CounterResetHint::Unknown) {
                    Arc::make_mut(&mut sample.histogram).counter_reset_hint = CounterResetHint::Unknown;
                }
                out.histograms.push(sample);
            }
            None => push(out, parts[p].batch, parts[p].floats.start),
        }
        parts.iter_mut().for_each(|part| part.skip(t));
    }
}

/// Appends float samples of `batch` to `out`.
fn extend(out: &mut SeriesBatch, batch: &SeriesBatch, range: Range<usize>) {
    let before = out.values.len();
    out.timestamps.extend_from_slice(&batch.timestamps[range.clone()]);
    out.values.extend_from_slice(&batch.values[range.clone()]);
    if !batch.start_timestamps.is_empty() {
        out.start_timestamps.resize(before, 0);
        out.start_timestamps.extend_from_slice(&batch.start_timestamps[range]);
    } else if !out.start_timestamps.is_empty() {
        out.start_timestamps.resize(out.values.len(), 0);
    }
}

/// Appends float sample `at` of `batch` to `out`.
#[inline]
fn push(out: &mut SeriesBatch, batch: &SeriesBatch, at: usize) {
    out.timestamps.push(batch.timestamps[at]);
    out.values.push(batch.values[at]);
    let start = batch.start_timestamps.get(at).copied().unwrap_or_default();
    if start != 0 || !out.start_timestamps.is_empty() {
        out.start_timestamps.resize(out.values.len() - 1, 0);
        out.start_timestamps.push(start);
    }
}
