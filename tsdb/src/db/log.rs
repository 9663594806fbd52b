//! The logs of a database: what a commit writes before the head takes it, and after.

use std::collections::HashMap;
use std::sync::Arc;

use crate::appender::Batch;
use crate::error::Result;
use crate::head::MemSeries;
use crate::sample::TimestampMs;
use crate::wal::record::{self, RefExemplar};
use crate::wal::{RefSample, Writer};

/// Writers and buffers that commits reuse.
#[derive(Debug)]
pub(super) struct Log {
    /// The write-ahead log.
    pub(super) writer: Writer,
    /// The write-behind log of out-of-order samples, where there are any.
    pub(super) behind: Option<Writer>,
    series_record: Vec<u8>,
    samples_record: Vec<u8>,
    /// Whether records have start timestamps.
    start_timestamps: bool,
    /// References without a series of their own that records may still use; checkpoints keep them.
    pub(super) expiring: HashMap<u64, Expiry>,
}

/// Until when a reference is kept in checkpoints: as long as either holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expiry {
    /// Segments up to this one exist.
    pub(super) segment: u32,
    /// Samples up to this time are needed.
    pub(super) maxt: TimestampMs,
}

impl Log {
    pub(super) fn new(writer: Writer, behind: Option<Writer>, start_timestamps: bool) -> Self {
        Self {
            writer,
            behind,
            series_record: Vec::new(),
            samples_record: Vec::new(),
            start_timestamps,
            expiring: HashMap::new(),
        }
    }

    /// Writes what a commit takes over: one record of series that the log does not know, and per batch
    /// metadata, floats, histograms, exemplars.
    pub(super) fn write(&mut self, batches: &[Batch]) -> Result<()> {
        let new_series = self.encode_series(batches);
        let mut records = Vec::new();
        for (i, batch) in batches.iter().enumerate() {
            if !batch.metadata.is_empty() {
                let mut out = Vec::new();
                let entries = batch.metadata.iter().map(|(series, metadata)| (series.series, metadata));
                record::encode_metadata(&mut out, entries);
                records.push(out);
            }
            if !batch.samples.is_empty() {
                // The usual record has a buffer that stays.
                let mut out = if i == 0 { std::mem::take(&mut self.samples_record) } else { Vec::new() };
                encode_floats(&mut out, &batch.samples, self.start_timestamps);
                records.push(out);
            }
            records.extend(record::histogram_records(&batch.histograms, self.start_timestamps));
            if !batch.exemplars.is_empty() {
                records.push(encode_exemplars(batch));
            }
        }
        let series_record = (!new_series.is_empty()).then_some(self.series_record.as_slice());
        let logged = self.writer.log(series_record.into_iter().chain(records.iter().map(Vec::as_slice)));
        if logged.is_err() {
            // None of it is in the log, and the log may go on: the next sample has to bring the series.
            new_series.into_iter().for_each(|series| series.set_logged(false));
        }
        if let Some(buffer) =
            records.into_iter().find(|r| record::RecordKind::of(r) == record::RecordKind::Samples)
        {
            self.samples_record = buffer;
        }
        logged
    }

    /// Writes the series record, and gives the series that are in it.
    fn encode_series<'a>(&mut self, batches: &'a [Batch]) -> Vec<&'a Arc<MemSeries>> {
        record::begin_series(&mut self.series_record);
        let mut new = Vec::new();
        for batch in batches {
            let others = batch.exemplars.iter().map(|e| &e.0).chain(batch.metadata.iter().map(|m| &m.0));
            for series in batch.series.iter().chain(&batch.histogram_series).chain(others) {
                if !series.is_logged() {
                    record::put_series(&mut self.series_record, series.series, &series.labels);
                    // Two samples of a new series must not log it twice.
                    series.set_logged(true);
                    new.push(series);
                }
            }
        }
        new
    }

    /// Writes records of out-of-order samples that the head has taken.
    pub(super) fn write_behind(&mut self, records: &[Vec<u8>]) {
        let Some(behind) = self.behind.as_mut().filter(|_| !records.is_empty()) else { return };
        if let Err(error) = behind.log(records.iter().map(Vec::as_slice)) {
            // As upstream: the head has the samples, and the write-ahead log too, though not as ones to insert.
            tracing::error!(%error, "out-of-order samples could not be logged; a restart will lose them");
        }
    }
}

fn encode_floats(out: &mut Vec<u8>, samples: &[RefSample], start_timestamps: bool) {
    if start_timestamps {
        record::encode_samples_v2(out, samples.iter().copied());
    } else {
        record::encode_samples(out, samples.iter().copied());
    }
}

fn encode_exemplars(batch: &Batch) -> Vec<u8> {
    let mut out = Vec::new();
    let exemplars = batch.exemplars.iter().map(|(series, exemplar)| RefExemplar {
        series: series.series,
        t: exemplar.timestamp,
        v: exemplar.value,
        labels: exemplar.labels.clone(),
    });
    record::encode_exemplars(&mut out, &exemplars.collect::<Vec<_>>());
    out
}
