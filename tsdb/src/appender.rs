//! [`Appender`]: the one door in.
//!
//! # Transaction
//! Samples are checked and staged one by one; [`Appender::commit`] writes their records to the log (new series,
//! then per batch metadata, floats, histograms, exemplars), and then makes all visible at once. Dropping is a
//! rollback.
//!
//! # Batches
//! Within a commit, floats come before histograms. So that samples of a series stay in order, a float after a
//! histogram of the same series, or a histogram of another kind, begins a new batch.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/head_append.go>

use std::collections::HashMap;
use std::sync::Arc;

use crate::db::Db;
use crate::error::{AppendError, Result};
use crate::exemplar::{Exemplar, ExemplarError};
use crate::head::{Acceptance, Limits, MemSeries, Value, stale_like};
use crate::histogram::{CUSTOM_SCHEMA, HistogramValue};
use crate::labels::Labels;
use crate::metadata::Metadata;
use crate::sample::{SeriesRef, TimestampMs, is_stale};
use crate::wal::RefSample;
use crate::wal::record::RefHistogramSample;

/// How far ahead of the clock a sample may be. One far future sample would raise the head's floor over
/// everybody else's samples, for good.
const MAX_AHEAD_MS: i64 = 10 * 60 * 1000;

/// A batch of samples on its way into a [`Db`].
#[derive(Debug)]
pub struct Appender {
    db: Arc<Db>,
    staged: Staged,
    /// Newest timestamp that is taken, by the clock when the batch began.
    max_time: TimestampMs,
    limits: Limits,
}

/// What a commit takes over.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    /// One, unless a series changes its kind on the way.
    pub(crate) batches: Vec<Batch>,
    /// The kind of each series with histograms in the last batch.
    kinds: HashMap<SeriesRef, Kind>,
}

/// Samples in which a series has one kind, or floats and then one kind of histograms.
///
/// Series are held so that truncation keeps them, and so that commit looks nothing up.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) samples: Vec<RefSample>,
    /// Parallel to `samples`.
    pub(crate) series: Vec<Arc<MemSeries>>,
    pub(crate) histograms: Vec<RefHistogramSample>,
    /// Parallel to `histograms`.
    pub(crate) histogram_series: Vec<Arc<MemSeries>>,
    pub(crate) exemplars: Vec<(Arc<MemSeries>, Exemplar)>,
    pub(crate) metadata: Vec<(Arc<MemSeries>, Metadata)>,
}

/// Histograms that go to one kind of record, and to one kind of chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    float: bool,
    custom: bool,
}

impl Kind {
    fn of(value: &HistogramValue) -> Self {
        let custom = value.schema() == CUSTOM_SCHEMA;
        Self { float: matches!(value, HistogramValue::Float(_)), custom }
    }
}

impl Staged {
    /// The last batch, whatever it holds.
    fn last(&mut self) -> &mut Batch {
        if self.batches.is_empty() {
            self.batches.push(Batch::default());
        }
        let last = self.batches.len() - 1;
        &mut self.batches[last]
    }

    fn begin(&mut self) {
        self.kinds.clear();
        self.batches.push(Batch::default());
    }

    /// The batch that a float of `series` goes to.
    fn for_float(&mut self, series: SeriesRef) -> &mut Batch {
        if !self.kinds.is_empty() && self.kinds.contains_key(&series) {
            self.begin();
        }
        self.last()
    }

    /// The batch that a histogram of `series` goes to.
    fn for_histogram(&mut self, series: SeriesRef, kind: Kind) -> &mut Batch {
        if self.kinds.get(&series).is_some_and(|known| *known != kind) {
            self.begin();
        }
        self.kinds.insert(series, kind);
        self.last()
    }
}

impl Appender {
    pub(crate) fn new(db: Arc<Db>) -> Self {
        let max_time = db.options().clock.now_ms().saturating_add(MAX_AHEAD_MS);
        let limits = db.head().limits();
        Self { db, staged: Staged::default(), max_time, limits }
    }

    /// Stages one sample and returns the reference to pass next time.
    ///
    /// A live `known` reference is used as it is: `labels` are neither hashed nor compared. Zero or a
    /// reference of a removed series falls back to `labels`. A sample that the series already has,
    /// bit for bit, is accepted and ignored. Checks are made against committed samples: of two
    /// staged samples of one series, the later staged must be newer, or commit drops and counts it.
    /// A sample later than ten minutes after the start of the batch is out of bounds.
    ///
    /// With an out-of-order window ([`crate::DbOptions::out_of_order_window_ms`]) samples that are no older
    /// than that before the newest one of the head are taken in any order.
    ///
    /// # Errors
    /// Why the sample is refused. The rest of the batch is not affected.
    pub fn append(
        &mut self,
        known: SeriesRef,
        labels: &Labels,
        t: TimestampMs,
        v: f64,
    ) -> Result<SeriesRef, AppendError> {
        self.append_with_start(known, labels, t, 0, v)
    }

    /// As [`Appender::append`], for a counter that began at `start`, ms; 0 if that is not known. Kept only if
    /// [`crate::DbOptions::start_timestamps`] is set.
    ///
    /// # Errors
    /// Why the sample is refused. The rest of the batch is not affected.
    pub fn append_with_start(
        &mut self,
        known: SeriesRef,
        labels: &Labels,
        t: TimestampMs,
        start: TimestampMs,
        v: f64,
    ) -> Result<SeriesRef, AppendError> {
        let series = self.series_for(known, labels, t)?;
        let series_ref = series.series;
        if is_stale(v)
            && let Some(kind) = self.staged.kinds.get(&series_ref)
        {
            // The series ends as what it was in this batch.
            let like = if kind.float {
                HistogramValue::Float(Arc::default())
            } else {
                HistogramValue::Integer(Arc::default())
            };
            return self.stage_histogram(series, t, start, stale_like(&like));
        }
        if self.db.head().check(&series, t, &Value::Float(v), self.limits)? != Acceptance::Same {
            let batch = self.staged.for_float(series_ref);
            batch.samples.push(RefSample { series: series_ref, t, start_timestamp: start, v });
            batch.series.push(series);
        }
        Ok(series_ref)
    }

    /// Stages one native histogram, with the rules of [`Appender::append`]. `start` is when what it counts
    /// began, ms; 0 if not known.
    ///
    /// # Errors
    /// Why the histogram is refused: besides the reasons of floats, [`AppendError::InvalidHistogram`].
    pub fn append_histogram(
        &mut self,
        known: SeriesRef,
        labels: &Labels,
        t: TimestampMs,
        start: TimestampMs,
        value: HistogramValue,
    ) -> Result<SeriesRef, AppendError> {
        if !value.is_stale() {
            value.validate()?;
        }
        let series = self.series_for(known, labels, t)?;
        self.stage_histogram(series, t, start, value)
    }

    fn stage_histogram(
        &mut self,
        series: Arc<MemSeries>,
        t: TimestampMs,
        start_timestamp: TimestampMs,
        value: HistogramValue,
    ) -> Result<SeriesRef, AppendError> {
        let series_ref = series.series;
        let kind = Kind::of(&value);
        let value = Value::Histogram(value);
        if self.db.head().check(&series, t, &value, self.limits)? != Acceptance::Same
            && let Value::Histogram(value) = value
        {
            let batch = self.staged.for_histogram(series_ref, kind);
            batch.histograms.push(RefHistogramSample { series: series_ref, t, start_timestamp, value });
            batch.histogram_series.push(series);
        }
        Ok(series_ref)
    }

    /// Finds the series of a sample at `t`, or makes it.
    fn series_for(
        &self,
        known: SeriesRef,
        labels: &Labels,
        t: TimestampMs,
    ) -> Result<Arc<MemSeries>, AppendError> {
        if self.db.is_read_only() {
            return Err(AppendError::ReadOnly);
        }
        let head = self.db.head();
        if t > self.max_time || (self.limits.out_of_order_floor.is_none() && t < self.limits.floor) {
            return Err(head.refuse_out_of_bounds());
        }
        head.series_for(known, labels)
    }

    /// Stages an exemplar of a series that an append returned. One that the series already has, and any while
    /// exemplars are off, is accepted and ignored.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn append_exemplar(&mut self, series: SeriesRef, exemplar: Exemplar) -> Result<(), AppendError> {
        let series = self.known_series(series)?;
        match self.db.head().exemplars.check(&series.labels, &exemplar) {
            Ok(()) => self.staged.last().exemplars.push((series, exemplar)),
            Err(ExemplarError::Duplicate | ExemplarError::Disabled) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Stages what is known about the metric of a series that an append returned; ignored if it is known.
    ///
    /// # Errors
    /// If there is no such series.
    pub fn set_metadata(&mut self, series: SeriesRef, metadata: Metadata) -> Result<(), AppendError> {
        let series = self.known_series(series)?;
        let known = self.db.head().metadata.read().get(series.series);
        if known.is_none_or(|known| *known != metadata) {
            self.staged.last().metadata.push((series, metadata));
        }
        Ok(())
    }

    fn known_series(&self, series: SeriesRef) -> Result<Arc<MemSeries>, AppendError> {
        if self.db.is_read_only() {
            return Err(AppendError::ReadOnly);
        }
        self.db.head().index.get(series).ok_or(AppendError::UnknownSeries(series))
    }

    /// Number of staged samples.
    pub fn len(&self) -> usize {
        self.staged.batches.iter().map(|b| b.samples.len() + b.histograms.len()).sum()
    }

    /// Whether no sample is staged.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Logs the batch and makes it visible, all at once.
    ///
    /// When this returns `Ok`, the batch survives the end of the process; it survives a power cut
    /// after the next sync (`docs/durability.md`).
    ///
    /// # Errors
    /// [`crate::Error::Closed`], [`crate::Error::ReadOnly`], [`crate::Error::Poisoned`] or the I/O error;
    /// then nothing became visible.
    pub fn commit(self) -> Result<()> {
        self.db.commit(self.staged.batches)
    }

    /// Forgets the batch.
    pub fn rollback(self) {}
}
