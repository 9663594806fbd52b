//! [`SeriesCursor`]: series of several selectors of one source, one at a time, each once.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::executor::block_on;
use promontory_tsdb::query::HistogramSample;
use promontory_tsdb::{
    Labels, Matcher, Queryable, Result, SelectHints, SeriesBatch, SeriesStream, TimestampMs,
};

/// One series, taken out of its batch.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) labels: Labels,
    pub(crate) timestamps: Vec<TimestampMs>,
    pub(crate) values: Vec<f64>,
    /// In order of time.
    pub(crate) histograms: Vec<HistogramSample>,
}

/// Merges the selectors' series in label order. A series that several selectors reach comes once; its
/// samples are the same in each, because the source is.
pub(crate) struct SeriesCursor {
    inputs: Vec<Input>,
    histograms: u64,
}

struct Input {
    stream: SeriesStream,
    batch: SeriesBatch,
    next: usize,
}

impl SeriesCursor {
    pub(crate) fn open(
        source: &Arc<dyn Queryable>,
        selectors: &[Vec<Matcher>],
        start: TimestampMs,
        end: TimestampMs,
    ) -> Result<Self> {
        let mut inputs = Vec::with_capacity(selectors.len());
        for matchers in selectors {
            let selection = source.select(matchers, start, end, &SelectHints::default())?;
            for stream in selection.partitions {
                inputs.push(Input { stream, batch: SeriesBatch::new(), next: 0 });
            }
        }
        Ok(Self { inputs, histograms: 0 })
    }

    /// The next series in label order.
    pub(crate) fn next(&mut self) -> Result<Option<Series>> {
        let mut least: Option<usize> = None;
        for i in 0..self.inputs.len() {
            let Some(labels) = self.inputs[i].peek(&mut self.histograms)?.cloned() else { continue };
            let is_less = match least {
                None => true,
                Some(l) => self.inputs[l].peek(&mut self.histograms)?.is_some_and(|best| labels < *best),
            };
            if is_less {
                least = Some(i);
            }
        }
        let Some(least) = least else { return Ok(None) };
        let series = self.inputs[least].take();
        for input in &mut self.inputs {
            if input.peek(&mut self.histograms)? == Some(&series.labels) {
                input.next += 1;
            }
        }
        Ok(Some(series))
    }

    /// Histogram samples met so far.
    pub(crate) fn histograms(&self) -> u64 {
        self.histograms
    }
}

impl Input {
    fn peek(&mut self, histograms: &mut u64) -> Result<Option<&Labels>> {
        while self.next >= self.batch.len() {
            match block_on(self.stream.next()) {
                None => return Ok(None),
                Some(batch) => {
                    self.batch = batch?;
                    *histograms += self.batch.histograms.len() as u64;
                    self.next = 0;
                }
            }
        }
        Ok(self.batch.labels.get(self.next))
    }

    fn take(&mut self) -> Series {
        let (labels, timestamps, values) = self.batch.series(self.next);
        let here = self.next as u32;
        let histograms = &self.batch.histograms;
        let from = histograms.partition_point(|h| h.series < here);
        let histograms = histograms[from..].iter().take_while(|h| h.series == here).cloned().collect();
        let series = Series {
            labels: labels.clone(),
            timestamps: timestamps.to_vec(),
            values: values.to_vec(),
            histograms,
        };
        self.next += 1;
        series
    }
}
