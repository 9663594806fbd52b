//! The logs of a database: what a commit writes before the head takes it, and after.
//!
//! # Crash safety
//! The write-behind log is synced before the write-ahead log: where a batch survives a power cut, late samples and
//! deletions that were acknowledged before the sync do too.

use std::collections::HashMap;
use std::sync::Arc;

use crate::appender::Batch;
use crate::error::Result;
use crate::head::{Deletions, Head, MemSeries};
use crate::sample::{SeriesRef, TimestampMs};
use crate::wal::record::{self, RefExemplar};
use crate::wal::{self, RefSample, Writer, WriterStats};

/// Writers and buffers that commits reuse.
#[derive(Debug)]
pub(super) struct Log {
    /// The write-ahead log.
    ahead: Writer,
    /// The write-behind log of out-of-order samples, where there are any.
    behind: Option<Writer>,
    /// Records that are to go to the write-behind log before anything else: the head knows what they say, and they
    /// could not be written.
    unwritten: Vec<Vec<u8>>,
    /// What is to go to the write-ahead log after that, and before anything else.
    unwritten_ahead: Option<Vec<u8>>,
    series_record: Vec<u8>,
    samples_record: Vec<u8>,
    /// Whether records have start timestamps.
    start_timestamps: bool,
    /// References without a series of their own that records may still use; checkpoints keep them.
    pub(super) expiring: HashMap<u64, Expiry>,
}

/// What both logs are to sync; see [`Log::unsynced`].
#[derive(Debug)]
pub(super) struct Unsynced {
    behind: Option<wal::Unsynced>,
    ahead: Option<wal::Unsynced>,
}

impl Unsynced {
    /// Carries the syncs out; [`Log::note_synced`] is to be told what came of them.
    pub(super) fn sync(self) -> Synced {
        let behind = self.behind.map(wal::Unsynced::sync);
        // The write-ahead log is not to have more.
        let ahead = self.ahead.filter(|_| behind.as_ref().is_none_or(wal::Synced::is_ok));
        Synced { behind, ahead: ahead.map(wal::Unsynced::sync) }
    }
}

/// What came of syncing both logs.
#[derive(Debug)]
#[must_use]
pub(super) struct Synced {
    behind: Option<wal::Synced>,
    ahead: Option<wal::Synced>,
}

/// Until when a reference is kept in checkpoints: as long as either holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expiry {
    /// Segments up to this one exist.
    pub(super) segment: u32,
    /// Samples up to this time are needed.
    pub(super) maxt: TimestampMs,
    /// The series that it stands for, if that has another reference: two records have had its labels.
    pub(super) alias_of: Option<SeriesRef>,
}

impl Expiry {
    /// Whether a log without segments up to `last`, and without samples before `mint`, still needs it.
    /// `late` says whether the write-behind log has samples, which may be of any time.
    pub(super) fn is_needed(&self, last: u32, mint: TimestampMs, late: bool) -> bool {
        self.segment > last || self.maxt >= mint || late && self.alias_of.is_some()
    }
}

impl Log {
    pub(super) fn new(ahead: Writer, start_timestamps: bool) -> Self {
        Self {
            ahead,
            behind: None,
            unwritten: Vec::new(),
            unwritten_ahead: None,
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
        let series_record = std::mem::take(&mut self.series_record);
        let written = (!new_series.is_empty()).then_some(&series_record);
        let written: Vec<_> = written.into_iter().chain(&records).map(Vec::as_slice).collect();
        let logged = self.write_ahead(&written);
        self.series_record = series_record;
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

    /// Writes records to the write-ahead log.
    ///
    /// # Errors
    /// If they cannot be written, or the write-behind log cannot be synced where that has to come first; none of
    /// them is in the log then.
    pub(super) fn write_ahead(&mut self, records: &[&[u8]]) -> Result<()> {
        if self.ahead.may_sync(records) {
            self.sync_behind()?;
        }
        self.ahead.log(records.iter().copied())
    }

    /// Begins a segment of the write-ahead log, and gives its number.
    ///
    /// # Errors
    /// If it cannot be made, or the logs cannot be synced.
    pub(super) fn next_ahead(&mut self) -> Result<u32> {
        self.sync_behind()?;
        self.ahead.next_segment()
    }

    /// Where the next record of the write-ahead log goes: segment and offset, bytes.
    pub(super) fn end(&self) -> (u32, u64) {
        self.ahead.end()
    }

    /// Counters of the write-ahead log.
    pub(super) fn stats(&self) -> WriterStats {
        self.ahead.stats()
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

    /// References that stand for a series with another reference, and that.
    pub(super) fn aliases(&self) -> Vec<(SeriesRef, SeriesRef)> {
        self.expiring.iter().filter_map(|(alias, e)| Some((SeriesRef(*alias), e.alias_of?))).collect()
    }

    /// Whether there is a write-behind log.
    pub(super) fn has_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// Takes over a write-behind log.
    pub(super) fn begin_behind(&mut self, behind: Writer) {
        self.behind = Some(behind);
    }

    /// Applies deletions that Prometheus made to late samples of the head too, and tells the logs. If that cannot be
    /// written, nothing is taken until it can.
    ///
    /// Where late samples cannot go to disk for that, the deletion alone is logged: chunks that no marker names yet are
    /// then made again from the log.
    pub(super) fn adopt_deletions(&mut self, head: &Head, foreign: &Deletions) {
        if foreign.stones.is_empty() {
            return;
        }
        if self.behind.is_some() {
            let records = head.deletions_for_write_behind(foreign).unwrap_or_else(|error| {
                tracing::warn!(%error, "late samples could not be written to chunks_head/");
                foreign.for_write_behind().into_iter().collect()
            });
            self.unwritten.extend(records);
        }
        head.apply_late_deletions(foreign);
        self.unwritten_ahead = Some(foreign.for_write_ahead());
        if let Err(error) = self.catch_up() {
            tracing::error!(%error, "the logs cannot be written; nothing is stored until they can");
        }
    }

    /// Begins a segment of the write-behind log, and gives its number; `None` without such a log.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn next_behind(&mut self) -> Result<Option<u32>> {
        self.catch_up()?;
        self.behind.as_mut().map(Writer::next_segment).transpose()
    }

    /// Writes records of what the head does with out-of-order samples.
    ///
    /// # Errors
    /// If they cannot be written; none of them is in the log then.
    pub(super) fn write_behind(&mut self, records: &[Vec<u8>]) -> Result<()> {
        match &mut self.behind {
            Some(behind) if !records.is_empty() => behind.log(records.iter().map(Vec::as_slice)),
            _ => Ok(()),
        }
    }

    /// As [`Log::write_behind`], for what the head has done already: it is tried again until it works.
    ///
    /// # Errors
    /// If they cannot be written now.
    pub(super) fn write_behind_done(&mut self, records: Vec<Vec<u8>>) -> Result<()> {
        self.write_behind(&records).inspect_err(|_| self.unwritten = records)
    }

    /// Writes what the logs lack. To be called before anything new is taken.
    ///
    /// # Errors
    /// If it cannot be written, or the write-behind log takes nothing more.
    pub(super) fn catch_up(&mut self) -> Result<()> {
        let unwritten = std::mem::take(&mut self.unwritten);
        match &mut self.behind {
            Some(behind) if !unwritten.is_empty() || behind.is_poisoned() => {
                behind
                    .log(unwritten.iter().map(Vec::as_slice))
                    .inspect_err(|_| self.unwritten = unwritten)?;
            }
            _ => {}
        }
        let Some(record) = self.unwritten_ahead.take() else { return Ok(()) };
        // Crash safety: it says that the write-behind log has deletions which may be synced in this log already.
        let written = self.sync_behind().and_then(|()| self.write_ahead(&[&record]));
        written.inspect_err(|_| self.unwritten_ahead = Some(record))
    }

    /// Syncs both logs.
    ///
    /// # Errors
    /// If one cannot be synced.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.catch_up()?;
        self.sync_behind()?;
        self.ahead.sync()
    }

    /// What both logs have to sync, so that they need not wait meanwhile.
    ///
    /// # Errors
    /// If one takes nothing more.
    pub(super) fn unsynced(&mut self) -> Result<Unsynced> {
        self.catch_up()?;
        if self.ahead.is_stuck() {
            // To go on it syncs.
            self.sync_behind()?;
        }
        let behind = self.behind.as_mut().map(Writer::unsynced).transpose()?.flatten();
        Ok(Unsynced { behind, ahead: self.ahead.unsynced()? })
    }

    /// Takes note of a sync.
    ///
    /// # Errors
    /// That of the sync; nothing more is taken then.
    pub(super) fn note_synced(&mut self, synced: Synced) -> Result<()> {
        if let (Some(behind), Some(synced)) = (&mut self.behind, synced.behind) {
            behind.note_synced(synced)?;
        }
        synced.ahead.map_or(Ok(()), |synced| self.ahead.note_synced(synced))
    }

    /// Syncs the write-behind log.
    ///
    /// # Errors
    /// If that fails.
    fn sync_behind(&mut self) -> Result<()> {
        self.behind.as_mut().map_or(Ok(()), Writer::sync)
    }

    /// Syncs and closes both logs.
    ///
    /// # Errors
    /// As [`Log::sync`].
    pub(super) fn close(&mut self) -> Result<()> {
        let caught_up = self.catch_up();
        // The write-ahead log in any case: what it has is worth more than the order.
        let behind = self.behind.as_mut().map_or(Ok(()), Writer::close);
        caught_up.and(behind).and(self.ahead.close())
    }

    /// Whether a failure stopped one of the logs for good.
    pub(super) fn is_poisoned(&self) -> bool {
        self.ahead.is_poisoned() || self.behind.as_ref().is_some_and(Writer::is_poisoned)
    }

    /// Calls that failed, of both logs.
    pub(super) fn failures(&self) -> u64 {
        self.ahead.stats().failures + self.behind.as_ref().map_or(0, |behind| behind.stats().failures)
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
