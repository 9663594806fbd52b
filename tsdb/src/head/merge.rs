//! The samples of one series at the end of decoded vectors: cut to a range, merged, thinned out.

use super::sample::{AnySample, Value};
use crate::chunkenc::{Decoded, DecodedHistogram};
use crate::sample::{TimestampMs, is_stale};

/// Where the samples of a series begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tail {
    floats: usize,
    histograms: usize,
}

impl Tail {
    /// The end of `decoded`.
    pub(super) fn of(decoded: &Decoded) -> Self {
        Self { floats: decoded.timestamps.len(), histograms: decoded.histograms.len() }
    }

    /// Whether floats, and histograms, are in strictly ascending time.
    pub(super) fn ascends(self, decoded: &Decoded) -> bool {
        decoded.timestamps[self.floats..].is_sorted_by(|a, b| a < b)
            && decoded.histograms[self.histograms..].is_sorted_by(|a, b| a.timestamp < b.timestamp)
    }

    /// Drops samples outside `[mint, maxt]`.
    pub(super) fn clip(self, decoded: &mut Decoded, mint: TimestampMs, maxt: TimestampMs) {
        let times = &decoded.timestamps[self.floats..];
        let end = self.floats + times.partition_point(|t| *t <= maxt);
        let start = self.floats + times.partition_point(|t| *t < mint);
        let Decoded { timestamps, values, start_timestamps, histograms } = decoded;
        timestamps.truncate(end);
        values.truncate(end);
        timestamps.drain(self.floats..start.min(end));
        values.drain(self.floats..start.min(end));
        if !start_timestamps.is_empty() {
            start_timestamps.truncate(end);
            start_timestamps.drain(self.floats..start.min(end));
        }
        let times = &histograms[self.histograms..];
        let end = self.histograms + times.partition_point(|h| h.timestamp <= maxt);
        let start = self.histograms + times.partition_point(|h| h.timestamp < mint);
        histograms.truncate(end);
        histograms.drain(self.histograms..start.min(end));
    }

    /// Whether a sample is no stale marker.
    pub(super) fn has_live(self, decoded: &Decoded) -> bool {
        decoded.values[self.floats..].iter().any(|v| !is_stale(*v))
            || decoded.histograms[self.histograms..].iter().any(|h| !h.histogram.is_stale())
    }

    /// Drops all samples.
    pub(super) fn cut(self, decoded: &mut Decoded) {
        decoded.timestamps.truncate(self.floats);
        decoded.values.truncate(self.floats);
        decoded.start_timestamps.truncate(self.floats);
        decoded.histograms.truncate(self.histograms);
    }

    /// Keeps samples at times for which `keep` holds.
    pub(super) fn retain(self, decoded: &mut Decoded, keep: impl Fn(TimestampMs) -> bool) {
        let mut kept = self.floats;
        for i in self.floats..decoded.timestamps.len() {
            if keep(decoded.timestamps[i]) {
                decoded.timestamps[kept] = decoded.timestamps[i];
                decoded.values[kept] = decoded.values[i];
                if let Some(start) = decoded.start_timestamps.get(i).copied() {
                    decoded.start_timestamps[kept] = start;
                }
                kept += 1;
            }
        }
        decoded.timestamps.truncate(kept);
        decoded.values.truncate(kept);
        decoded.start_timestamps.truncate(kept);
        let mut gone = false;
        for mut h in decoded.histograms.split_off(self.histograms) {
            if !keep(h.timestamp) {
                gone = true;
                continue;
            }
            if std::mem::take(&mut gone) {
                h.histogram.forget_hint();
            }
            decoded.histograms.push(h);
        }
    }

    /// Merges ascending `late` samples in; where there is a sample already, that one stays. A histogram that does
    /// not follow the one that it followed before loses its counter reset hint.
    pub(super) fn merge(self, decoded: &mut Decoded, late: Vec<AnySample>) {
        let mut own = Decoded {
            timestamps: decoded.timestamps.split_off(self.floats),
            values: decoded.values.split_off(self.floats),
            start_timestamps: Vec::new(),
            histograms: decoded.histograms.split_off(self.histograms),
        };
        if !decoded.start_timestamps.is_empty() {
            own.start_timestamps =
                decoded.start_timestamps.split_off(self.floats.min(decoded.start_timestamps.len()));
        }
        let mut in_order = Vec::with_capacity(own.timestamps.len() + own.histograms.len());
        drain(&mut own, &mut in_order);
        in_order.sort_by_key(|s| s.t);
        let place = |(i, s)| (Some(i), s);
        let mut all: Vec<(Option<usize>, AnySample)> = in_order.into_iter().enumerate().map(place).collect();
        all.extend(late.into_iter().map(|s| (None, s)));
        // Stable: what came in order is first.
        all.sort_by_key(|s| s.1.t);
        all.dedup_by_key(|s| s.1.t);
        let mut next = None;
        for (place, mut sample) in all {
            let follows = place.is_some() && place == next;
            next = place.map(|i| i + 1);
            if let (false, Value::Histogram(h)) = (follows, &mut sample.value) {
                h.forget_hint();
            }
            push(decoded, sample);
        }
    }
}

/// Moves all samples to `out`: floats, then histograms.
pub(super) fn drain(decoded: &mut Decoded, out: &mut Vec<AnySample>) {
    let Decoded { timestamps, values, start_timestamps, histograms } = decoded;
    for (i, (t, v)) in timestamps.drain(..).zip(values.drain(..)).enumerate() {
        let start = start_timestamps.get(i).copied().unwrap_or_default();
        out.push(AnySample { t, start, value: Value::Float(v) });
    }
    start_timestamps.clear();
    out.extend(histograms.drain(..).map(|h| AnySample {
        t: h.timestamp,
        start: h.start_timestamp,
        value: Value::Histogram(h.histogram),
    }));
}

fn push(decoded: &mut Decoded, sample: AnySample) {
    match sample.value {
        Value::Float(v) => {
            if sample.start != 0 && decoded.start_timestamps.is_empty() {
                decoded.start_timestamps.resize(decoded.values.len(), 0);
            }
            if sample.start != 0 || !decoded.start_timestamps.is_empty() {
                decoded.start_timestamps.push(sample.start);
            }
            decoded.timestamps.push(sample.t);
            decoded.values.push(v);
        }
        Value::Histogram(histogram) => decoded.histograms.push(DecodedHistogram {
            timestamp: sample.t,
            start_timestamp: sample.start,
            histogram,
        }),
    }
}
