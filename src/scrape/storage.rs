//! Where scraped samples go.

use std::fmt;
use std::sync::Arc;

use promontory_tsdb::{Appender, Db, Error, Labels, Result, SeriesRef, TimestampMs};

/// Takes scrapes. A seam, so that the scraper can be tested without a database.
pub trait Storage: fmt::Debug + Send + Sync {
    /// A batch that becomes visible all at once.
    fn appender(self: Arc<Self>) -> Box<dyn Append>;
}

/// A batch of samples; dropping it takes nothing in.
pub trait Append: Send {
    /// Adds a sample. `known` is what an earlier call returned for these labels, or zero.
    ///
    /// # Errors
    /// If the storage refuses the sample.
    fn append(
        &mut self,
        known: SeriesRef,
        labels: &Labels,
        t: TimestampMs,
        v: f64,
    ) -> Result<SeriesRef, Error>;

    /// Takes the batch in.
    ///
    /// # Errors
    /// If it could not be written; then nothing of it is there.
    fn commit(self: Box<Self>) -> Result<()>;
}

impl Storage for Db {
    fn appender(self: Arc<Self>) -> Box<dyn Append> {
        Box::new(Db::appender(&self))
    }
}

impl Append for Appender {
    fn append(
        &mut self,
        known: SeriesRef,
        labels: &Labels,
        t: TimestampMs,
        v: f64,
    ) -> Result<SeriesRef, Error> {
        Ok(Appender::append(self, known, labels, t, v)?)
    }

    fn commit(self: Box<Self>) -> Result<()> {
        Appender::commit(*self)
    }
}
