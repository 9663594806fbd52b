//! One partition of several sources as a stream: which series come next, and from which sources.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::series::{self, Part};
use crate::error::Result;
use crate::labels::Labels;
use crate::needed::Needed;
use crate::query::{HistogramSample, SelectHints, SeriesBatch, SeriesStream};

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

    /// The series that comes next.
    fn part(&self) -> Part<'_> {
        Part { batch: &self.batch, floats: self.samples(), histograms: self.histograms() }
    }
}

/// A partition of several sources.
pub(super) struct Merge {
    sources: Vec<Source>,
    /// Sources whose next batch is wanted.
    due: Vec<usize>,
    /// Next series of each source that is neither due nor at its end; equal labels in source order.
    heads: BinaryHeap<Reverse<(Labels, usize)>>,
    /// Sources that have the series being merged; kept to reuse its memory.
    equal: Vec<usize>,
    out: SeriesBatch,
    batch_samples: usize,
    needed: Needed,
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
    pub(super) fn new(streams: Vec<SeriesStream>, hints: &SelectHints) -> Self {
        Self {
            due: (0..streams.len()).collect(),
            sources: streams.into_iter().map(Source::new).collect(),
            heads: BinaryHeap::new(),
            equal: Vec::new(),
            out: SeriesBatch::new(),
            batch_samples: hints.batch_samples.max(1),
            needed: hints.needed,
            left: if hints.series_limit == 0 { usize::MAX } else { hints.series_limit },
        }
    }

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
        match equal[..] {
            [only] => series::copy(&mut self.out, &self.sources[only].part()),
            _ => {
                let (floats, histograms) = (self.out.values.len(), self.out.histograms.len());
                series::merge(&mut self.out, equal.iter().map(|&i| self.sources[i].part()).collect());
                if self.needed == Needed::Newest {
                    // An older one may be hidden by one that its source left out.
                    self.out.keep_newest(floats, histograms);
                }
            }
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
}
