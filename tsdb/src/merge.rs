//! [`Fanout`]: several sources as one.
//!
//! # Contract
//! Every source gives partition `i` of the same partitioning, in label order, so partition `i` of the
//! whole is a k-way merge of them. Samples of the same series are merged by time; of two with the same
//! timestamp, the one from the source that comes first in the list counts, be it a float or a histogram.
//!
//! A histogram that does not follow one of its own source loses its counter reset hint, unless it is a gauge:
//! the hint was about another sample before it.
//!
//! # Concurrency
//! A merged stream holds one batch of each source. All sources that are due are polled before it
//! returns `Pending`, so remote sources work at the same time, and each has registered its waker.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use futures_core::Stream;

use crate::error::Result;
use crate::histogram::CounterResetHint;
use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::query::{
    BlockSummary, HistogramSample, Queryable, SelectHints, Selection, SeriesBatch, SeriesStats, SeriesStream,
};
use crate::sample::TimestampMs;

/// Reads several sources as if they were one. See the module for what counts when they overlap.
#[derive(Debug, Clone)]
pub struct Fanout {
    sources: Vec<Arc<dyn Queryable>>,
}

impl Fanout {
    /// The sources, the most trusted first.
    pub fn new(sources: Vec<Arc<dyn Queryable>>) -> Self {
        Self { sources }
    }

    /// Sources that may hold samples in `[mint, maxt]`.
    fn overlapping(&self, mint: TimestampMs, maxt: TimestampMs) -> impl Iterator<Item = &dyn Queryable> {
        self.sources
            .iter()
            .map(|s| &**s)
            .filter(move |s| s.time_bounds().is_some_and(|(first, last)| first <= maxt && mint <= last))
    }

    /// The union of what `list` gives for each source, sorted.
    fn union(
        &self,
        mint: TimestampMs,
        maxt: TimestampMs,
        list: impl Fn(&dyn Queryable) -> Result<Vec<String>>,
    ) -> Result<Vec<String>> {
        let mut lists = self.overlapping(mint, maxt).map(list).collect::<Result<Vec<_>>>()?;
        if lists.len() <= 1 {
            return Ok(lists.pop().unwrap_or_default());
        }
        Ok(lists.into_iter().flatten().collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// Counts different series; `None` if a source is not ready at once.
    fn distinct_series(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> Result<Option<u64>> {
        let hints = SelectHints { labels_only: true, ..SelectHints::default() };
        let mut series = 0;
        let mut context = Context::from_waker(Waker::noop());
        for mut partition in self.select(matchers, mint, maxt, &hints)?.partitions {
            loop {
                match partition.as_mut().poll_next(&mut context) {
                    Poll::Ready(Some(batch)) => series += batch?.len() as u64,
                    Poll::Ready(None) => break,
                    Poll::Pending => return Ok(None),
                }
            }
        }
        Ok(Some(series))
    }
}

impl Queryable for Fanout {
    fn select(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        hints: &SelectHints,
    ) -> Result<Selection> {
        let mut merged: Vec<Vec<SeriesStream>> = Vec::new();
        merged.resize_with(hints.partitions.max(1), Vec::new);
        let mut series = 0;
        for source in self.overlapping(mint, maxt) {
            let selection = source.select(matchers, mint, maxt, hints)?;
            if selection.series == 0 {
                continue;
            }
            series += selection.series;
            for (streams, stream) in merged.iter_mut().zip(selection.partitions) {
                streams.push(stream);
            }
        }
        let partitions = merged.into_iter().map(|streams| merge(streams, hints)).collect();
        Ok(Selection { partitions, series })
    }

    fn label_names(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Result<Vec<String>> {
        self.union(mint, maxt, |s| s.label_names(matchers, mint, maxt))
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> Result<Vec<String>> {
        self.union(mint, maxt, |s| s.label_values(name, matchers, mint, maxt))
    }

    fn series_stats(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> Result<SeriesStats> {
        let mut all = Vec::new();
        for source in self.overlapping(mint, maxt) {
            let stats = source.series_stats(matchers, mint, maxt)?;
            if stats.series > 0 {
                all.push(stats);
            }
        }
        if all.len() <= 1 {
            return Ok(all.pop().unwrap_or(SeriesStats { exact: true, ..SeriesStats::default() }));
        }
        // Where sources overlap in time, both may hold the same sample.
        all.sort_by_key(|s| s.min_time);
        let apart = all.windows(2).all(|w| w[0].max_time < w[1].min_time);
        let distinct = self.distinct_series(matchers, mint, maxt)?;
        Ok(SeriesStats {
            series: distinct.unwrap_or_else(|| all.iter().map(|s| s.series).sum()),
            chunks: all.iter().map(|s| s.chunks).sum(),
            samples: all.iter().map(|s| s.samples).sum(),
            min_time: all.iter().map(|s| s.min_time).min().unwrap_or_default(),
            max_time: all.iter().map(|s| s.max_time).max().unwrap_or_default(),
            exact: apart && distinct.is_some() && all.iter().all(|s| s.exact),
        })
    }

    fn series_estimate(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Result<u64> {
        self.overlapping(mint, maxt).map(|source| source.series_estimate(matchers, mint, maxt)).sum()
    }

    fn time_bounds(&self) -> Option<(TimestampMs, TimestampMs)> {
        self.sources
            .iter()
            .filter_map(|s| s.time_bounds())
            .reduce(|(first, last), (f, l)| (first.min(f), last.max(l)))
    }

    fn blocks(&self) -> Vec<BlockSummary> {
        let mut blocks: Vec<_> = self.sources.iter().flat_map(|s| s.blocks()).collect();
        blocks.sort_by(|a, b| (a.min_time, &a.ulid).cmp(&(b.min_time, &b.ulid)));
        blocks
    }
}

/// One partition of several sources as one stream.
pub fn merge(mut streams: Vec<SeriesStream>, hints: &SelectHints) -> SeriesStream {
    if streams.len() == 1
        && let Some(only) = streams.pop()
    {
        return only;
    }
    let due = (0..streams.len()).collect();
    let sources = streams.into_iter().map(Source::new).collect();
    Box::pin(Merge {
        sources,
        due,
        heads: BinaryHeap::new(),
        equal: Vec::new(),
        out: SeriesBatch::new(),
        batch_samples: hints.batch_samples.max(1),
        left: if hints.series_limit == 0 { usize::MAX } else { hints.series_limit },
    })
}

/// A source and the batch of it that is being consumed.
struct Source {
    stream: SeriesStream,
    batch: SeriesBatch,
    /// Series of `batch` that comes next.
    at: usize,
    /// First of `batch.histograms` that belongs to series `at` or a later one.
    histogram: usize,
}

impl Source {
    fn new(stream: SeriesStream) -> Self {
        Self { stream, batch: SeriesBatch::new(), at: 0, histogram: 0 }
    }

    fn samples(&self) -> Range<usize> {
        self.batch.offsets[self.at] as usize..self.batch.offsets[self.at + 1] as usize
    }

    fn histograms(&self) -> &[HistogramSample] {
        let rest = &self.batch.histograms[self.histogram..];
        &rest[..rest.iter().take_while(|h| h.series as usize == self.at).count()]
    }
}

struct Merge {
    sources: Vec<Source>,
    /// Sources whose next batch is wanted.
    due: Vec<usize>,
    /// Next series of each source that is neither due nor at its end; equal labels in source order.
    heads: BinaryHeap<Reverse<(Labels, usize)>>,
    /// Sources that have the series being merged; kept to reuse its memory.
    equal: Vec<usize>,
    out: SeriesBatch,
    batch_samples: usize,
    /// Series that may still be given.
    left: usize,
}

impl Stream for Merge {
    type Item = Result<SeriesBatch>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Err(e) = ready!(this.poll_due(cx)) {
                this.end();
                return Poll::Ready(Some(Err(e)));
            }
            if let Some(batch) = this.take_whole() {
                return Poll::Ready(Some(Ok(batch)));
            }
            while this.due.is_empty() && this.left > 0 && !this.is_full() && this.merge_next() {}
            if this.due.is_empty() || this.is_full() || this.left == 0 {
                let mut next = SeriesBatch::new();
                if this.is_full() {
                    // The next batch will be about as large.
                    next.timestamps.reserve(this.out.timestamps.len());
                    next.values.reserve(this.out.values.len());
                }
                let batch = std::mem::replace(&mut this.out, next);
                if this.left == 0 {
                    this.end();
                }
                return Poll::Ready((!batch.is_empty()).then_some(Ok(batch)));
            }
        }
    }
}

impl Merge {
    fn end(&mut self) {
        self.sources.clear();
        self.due.clear();
        self.heads.clear();
    }

    fn is_full(&self) -> bool {
        // Series without samples (labels only) bound a batch too.
        let samples = self.out.values.len() + self.out.histograms.len();
        samples >= self.batch_samples || self.out.len() >= self.batch_samples
    }

    /// Polls every source that is due; pending as long as one is.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let (sources, heads) = (&mut self.sources, &mut self.heads);
        let mut error = None;
        self.due.retain(|&i| {
            let source = &mut sources[i];
            loop {
                match source.stream.as_mut().poll_next(cx) {
                    Poll::Pending => return true,
                    Poll::Ready(None) => return false,
                    Poll::Ready(Some(Ok(batch))) if batch.is_empty() => {}
                    Poll::Ready(Some(Ok(batch))) => {
                        heads.push(Reverse((batch.labels[0].clone(), i)));
                        (source.batch, source.at, source.histogram) = (batch, 0, 0);
                        return false;
                    }
                    Poll::Ready(Some(Err(e))) => {
                        error = Some(e);
                        return false;
                    }
                }
            }
        });
        match error {
            Some(e) => Poll::Ready(Err(e)),
            None if self.due.is_empty() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    }

    /// A batch that no other source has a part in, as it came.
    fn take_whole(&mut self) -> Option<SeriesBatch> {
        if self.heads.len() != 1 || !self.due.is_empty() || !self.out.is_empty() {
            return None;
        }
        let i = self.heads.peek()?.0.1;
        let source = &mut self.sources[i];
        if source.at > 0 || source.batch.len() > self.left {
            return None;
        }
        self.heads.clear();
        self.due.push(i);
        self.left -= source.batch.len();
        Some(std::mem::take(&mut source.batch))
    }

    /// Moves the next series to `out`; false at the end.
    fn merge_next(&mut self) -> bool {
        let Some(Reverse((labels, first))) = self.heads.pop() else { return false };
        let mut equal = std::mem::take(&mut self.equal);
        equal.clear();
        equal.push(first);
        while let Some(Reverse((l, _))) = self.heads.peek()
            && *l == labels
        {
            equal.extend(self.heads.pop().map(|Reverse((_, i))| i));
        }
        let with_histograms = |i: &usize| !self.sources[*i].histograms().is_empty();
        match equal[..] {
            [only] => self.copy_series(only),
            _ if equal.iter().any(with_histograms) => self.merge_any(&equal),
            _ => self.merge_floats(&equal),
        }
        self.out.finish_series(labels);
        self.left -= 1;
        for &i in &equal {
            self.advance(i);
        }
        self.equal = equal;
        true
    }

    fn advance(&mut self, i: usize) {
        let source = &mut self.sources[i];
        source.histogram += source.histograms().len();
        source.at += 1;
        match source.batch.labels.get(source.at) {
            Some(labels) => self.heads.push(Reverse((labels.clone(), i))),
            None => self.due.push(i),
        }
    }

    fn copy_series(&mut self, i: usize) {
        let source = &self.sources[i];
        extend(&mut self.out, &source.batch, source.samples());
        let series = self.out.len() as u32;
        let histograms = source.histograms().iter();
        self.out.histograms.extend(histograms.map(|h| HistogramSample { series, ..h.clone() }));
    }

    fn merge_floats(&mut self, equal: &[usize]) {
        // (source, samples left), in source order.
        let mut parts: Vec<(usize, Range<usize>)> =
            equal.iter().map(|&i| (i, self.sources[i].samples())).filter(|(_, r)| !r.is_empty()).collect();
        let time = |i: usize, at: usize| self.sources[i].batch.timestamps[at];
        let mut by_time: Vec<usize> = (0..parts.len()).collect();
        by_time.sort_by_key(|&p| time(parts[p].0, parts[p].1.start));
        let apart = by_time.windows(2).all(|w| {
            let (a, b) = (&parts[w[0]], &parts[w[1]]);
            time(a.0, a.1.end - 1) < time(b.0, b.1.start)
        });
        if apart {
            for p in by_time {
                let (i, range) = &parts[p];
                extend(&mut self.out, &self.sources[*i].batch, range.clone());
            }
            return;
        }
        loop {
            // `min_by_key` takes the first of equals: the most trusted source.
            let next = parts.iter().filter(|(_, r)| !r.is_empty()).min_by_key(|(i, r)| time(*i, r.start));
            let Some((i, range)) = next else { break };
            let t = time(*i, range.start);
            push(&mut self.out, &self.sources[*i].batch, range.start);
            for (i, range) in &mut parts {
                if range.start < range.end && time(*i, range.start) == t {
                    range.start += 1;
                }
            }
        }
    }

    /// Merges series of which at least one has histograms.
    fn merge_any(&mut self, equal: &[usize]) {
        let mut parts: Vec<Part<'_>> = equal.iter().map(|&i| Part::new(&self.sources[i])).collect();
        let series = self.out.len() as u32;
        let mut before = None;
        loop {
            let next =
                parts.iter().enumerate().filter_map(|(p, part)| part.next_time().map(|t| (t, p))).min();
            let Some((t, p)) = next else { break };
            let consecutive = before.replace(p) == Some(p);
            match parts[p].next_histogram(t) {
                Some(sample) => {
                    let mut sample = HistogramSample { series, ..sample.clone() };
                    let hint = sample.histogram.counter_reset_hint;
                    if !consecutive && !matches!(hint, CounterResetHint::Gauge | CounterResetHint::Unknown) {
                        Arc::make_mut(&mut sample.histogram).counter_reset_hint = CounterResetHint::Unknown;
                    }
                    self.out.histograms.push(sample);
                }
                None => push(&mut self.out, parts[p].batch, parts[p].floats.start),
            }
            parts.iter_mut().for_each(|part| part.skip(t));
        }
    }
}

/// What is left of a series of one source.
struct Part<'s> {
    batch: &'s SeriesBatch,
    floats: Range<usize>,
    histograms: &'s [HistogramSample],
}

impl<'s> Part<'s> {
    fn new(source: &'s Source) -> Self {
        Self { batch: &source.batch, floats: source.samples(), histograms: source.histograms() }
    }

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures::StreamExt as _;
    use proptest::prelude::*;

    use super::*;
    use crate::error::Error;
    use crate::histogram::FloatHistogram;
    use crate::memory::MemoryStorage;

    type Samples = Vec<(TimestampMs, u64)>;
    type Model = BTreeMap<Labels, BTreeMap<TimestampMs, u64>>;

    fn collect(mut stream: SeriesStream) -> Result<Vec<(Labels, Samples)>> {
        futures::executor::block_on(async {
            let mut out = Vec::new();
            while let Some(batch) = stream.next().await {
                let batch = batch?;
                for i in 0..batch.len() {
                    let (labels, t, v) = batch.series(i);
                    let samples = t.iter().copied().zip(v.iter().map(|v| v.to_bits())).collect();
                    out.push((labels.clone(), samples));
                }
            }
            Ok(out)
        })
    }

    /// A stream that is pending before every item, and wakes at once.
    struct Reluctant(SeriesStream, bool);

    impl Stream for Reluctant {
        type Item = Result<SeriesBatch>;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            self.1 = !self.1;
            if self.1 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.0.as_mut().poll_next(cx)
        }
    }

    /// [`MemoryStorage`] over something slow.
    #[derive(Debug)]
    struct Remote(MemoryStorage);

    impl Queryable for Remote {
        fn select(&self, m: &[Matcher], mint: i64, maxt: i64, hints: &SelectHints) -> Result<Selection> {
            let mut selection = self.0.select(m, mint, maxt, hints)?;
            let slow = |s| Box::pin(Reluctant(s, false)) as SeriesStream;
            selection.partitions = selection.partitions.into_iter().map(slow).collect();
            Ok(selection)
        }
        fn label_names(&self, m: &[Matcher], mint: i64, maxt: i64) -> Result<Vec<String>> {
            self.0.label_names(m, mint, maxt)
        }
        fn label_values(&self, name: &str, m: &[Matcher], mint: i64, maxt: i64) -> Result<Vec<String>> {
            self.0.label_values(name, m, mint, maxt)
        }
        fn series_stats(&self, m: &[Matcher], mint: i64, maxt: i64) -> Result<SeriesStats> {
            self.0.series_stats(m, mint, maxt)
        }
        fn time_bounds(&self) -> Option<(i64, i64)> {
            self.0.time_bounds()
        }
    }

    fn sources() -> impl Strategy<Value = Vec<Model>> {
        let samples = prop::collection::btree_map(0i64..200, any::<u64>(), 1..20);
        let labels =
            (0u8..12).prop_map(|i| Labels::from_pairs([("__name__", "m".to_owned()), ("i", i.to_string())]));
        prop::collection::vec(prop::collection::btree_map(labels, samples, 0..10), 0..5)
    }

    fn fanout(models: &[Model], remote: bool) -> Fanout {
        let storage = |model: &Model| {
            let storage = MemoryStorage::new();
            for (labels, samples) in model {
                for (t, v) in samples {
                    storage.append(labels, *t, f64::from_bits(*v)).unwrap();
                }
            }
            if remote { Arc::new(Remote(storage)) as Arc<dyn Queryable> } else { Arc::new(storage) }
        };
        Fanout::new(models.iter().map(storage).collect())
    }

    proptest! {
        #[test]
        fn several_sources_read_as_one(models in sources(), remote in any::<bool>(), batch_samples in 1usize..40, partitions in 1usize..4) {
            let mut expected = Model::new();
            for (labels, samples) in models.iter().rev().flatten() {
                expected.entry(labels.clone()).or_default().extend(samples);
            }
            let (mint, maxt) = (20, 150);
            for samples in expected.values_mut() {
                samples.retain(|t, _| (mint..=maxt).contains(t));
            }
            expected.retain(|_, samples| !samples.is_empty());

            let fanout = fanout(&models, remote);
            let hints = SelectHints { partitions, batch_samples, ..SelectHints::default() };
            let selection = fanout.select(&[], mint, maxt, &hints).unwrap();
            prop_assert_eq!(selection.partitions.len(), partitions);
            let mut read = Model::new();
            for (i, stream) in selection.partitions.into_iter().enumerate() {
                let series = collect(stream).unwrap();
                prop_assert!(series.is_sorted_by(|a, b| a.0 < b.0));
                for (labels, samples) in series {
                    prop_assert_eq!(labels.partition(partitions), i);
                    prop_assert!(samples.is_sorted_by(|a, b| a.0 < b.0));
                    read.insert(labels, samples.into_iter().collect());
                }
            }
            prop_assert_eq!(&read, &expected);
            if !remote {
                let stats = fanout.series_stats(&[], mint, maxt).unwrap();
                prop_assert_eq!(stats.series, expected.len() as u64);
                let samples = expected.values().map(|s| s.len() as u64).sum::<u64>();
                let right = if stats.exact { stats.samples == samples } else { stats.samples >= samples };
                prop_assert!(right);
            }
        }
    }

    /// A batch of one series from `(t, float or counter hint, start)`.
    fn mixed(samples: &[(i64, Result<f64, CounterResetHint>, i64)]) -> SeriesStream {
        let mut batch = SeriesBatch::new();
        for &(t, value, start) in samples {
            match value {
                Ok(v) => {
                    batch.timestamps.push(t);
                    batch.values.push(v);
                    batch.start_timestamps.push(start);
                }
                Err(counter_reset_hint) => {
                    let histogram = FloatHistogram { counter_reset_hint, ..FloatHistogram::default() };
                    batch.histograms.push(HistogramSample {
                        series: 0,
                        timestamp: t,
                        start_timestamp: start,
                        histogram: Arc::new(histogram),
                    });
                }
            }
        }
        if batch.start_timestamps.iter().all(|s| *s == 0) {
            batch.start_timestamps.clear();
        }
        batch.finish_series(Labels::from_pairs([("a", "1")]));
        futures::stream::iter([Ok(batch)]).boxed()
    }

    #[test]
    fn floats_and_histograms_merge_by_time_and_hints_hold_within_a_source_only() {
        use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
        let first =
            mixed(&[(1, Err(Unknown), 0), (2, Err(NotReset), 0), (6, Err(NotReset), 0), (7, Ok(7.0), 5)]);
        let second = mixed(&[
            (2, Ok(-1.0), 0),
            (4, Err(Gauge), 3),
            (5, Ok(5.0), 0),
            (6, Ok(-1.0), 0),
            (8, Err(Reset), 0),
        ]);
        let mut merged = merge(vec![first, second], &SelectHints::default());
        let batch = futures::executor::block_on(merged.next()).unwrap().unwrap();
        assert_eq!(batch.timestamps, [5, 7]);
        assert_eq!(batch.values, [5.0, 7.0]);
        assert_eq!(batch.start_timestamps, [0, 5]);
        let of =
            |h: &HistogramSample| (h.series, h.timestamp, h.histogram.counter_reset_hint, h.start_timestamp);
        let histograms: Vec<_> = batch.histograms.iter().map(of).collect();
        assert_eq!(
            histograms,
            [
                (0, 1, Unknown, 0),
                (0, 2, NotReset, 0),
                (0, 4, Gauge, 3),
                (0, 6, Unknown, 0),
                (0, 8, Unknown, 0)
            ]
        );
        assert_eq!(batch.offsets, [0, 2]);
    }

    #[test]
    fn a_limit_holds_for_the_merged_series() {
        let model = |odd| -> Model {
            let labels = |i: i32| Labels::from_pairs([("i", format!("{i:02}"))]);
            (0..20).filter(|i| i % 2 == odd).map(|i| (labels(i), [(1, 0)].into())).collect()
        };
        let fanout = fanout(&[model(0), model(1)], true);
        let hints = SelectHints { series_limit: 5, batch_samples: 2, ..SelectHints::default() };
        let stream = fanout.select(&[], 0, 9, &hints).unwrap().partitions.remove(0);
        let series = collect(stream).unwrap();
        let values: Vec<_> = series.iter().map(|(l, _)| l.get("i").unwrap_or_default()).collect();
        assert_eq!(values, ["00", "01", "02", "03", "04"]);
    }

    #[test]
    fn an_error_of_one_source_ends_the_whole() {
        let broken = futures::stream::iter([Err(Error::Poisoned)]).boxed();
        let good = futures::stream::iter([Ok(SeriesBatch::new())]).boxed();
        let mut merged = merge(vec![good, broken], &SelectHints::default());
        futures::executor::block_on(async {
            assert!(matches!(merged.next().await, Some(Err(Error::Poisoned))));
            assert!(merged.next().await.is_none());
        });
    }
}
