//! [`Appender`]: the one door in.
//!
//! # Transaction
//! Samples are checked and staged one by one; [`Appender::commit`] writes one series record (if there
//! are new series) and one samples record to the log, and then makes all samples visible at once.
//! Dropping is a rollback.

use std::sync::Arc;

use crate::db::Db;
use crate::error::{AppendError, Result};
use crate::head::{Acceptance, MemSeries};
use crate::labels::Labels;
use crate::sample::{SeriesRef, TimestampMs};
use crate::wal::RefSample;

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
}

/// What a commit takes over; the two vectors are parallel.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    pub(crate) samples: Vec<RefSample>,
    /// Held so that truncation keeps the series, and so that commit looks nothing up.
    pub(crate) series: Vec<Arc<MemSeries>>,
}

impl Appender {
    pub(crate) fn new(db: Arc<Db>) -> Self {
        let max_time = db.options().clock.now_ms().saturating_add(MAX_AHEAD_MS);
        Self { db, staged: Staged::default(), max_time }
    }

    /// Stages one sample and returns the reference to pass next time.
    ///
    /// A live `known` reference is used as it is: `labels` are neither hashed nor compared. Zero or a
    /// reference of a removed series falls back to `labels`. A sample that the series already has,
    /// bit for bit, is accepted and ignored. Checks are made against committed samples: of two
    /// staged samples of one series, the later staged must be newer, or commit drops and counts it.
    /// A sample later than ten minutes after the start of the batch is out of bounds.
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
        if self.db.is_read_only() {
            return Err(AppendError::ReadOnly);
        }
        let head = self.db.head();
        if t > self.max_time {
            return Err(head.refuse_out_of_bounds());
        }
        let series = head.series_for(known, labels)?;
        let series_ref = series.series;
        if head.check(&series, t, v)? == Acceptance::Append {
            self.staged.samples.push(RefSample::new(series_ref, t, v));
            self.staged.series.push(series);
        }
        Ok(series_ref)
    }

    /// Number of staged samples.
    pub fn len(&self) -> usize {
        self.staged.samples.len()
    }

    /// Whether nothing is staged.
    pub fn is_empty(&self) -> bool {
        self.staged.samples.is_empty()
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
        self.db.commit(self.staged)
    }

    /// Forgets the batch.
    pub fn rollback(self) {}
}
