//! Where scraped samples go.

use std::fmt;
use std::sync::Arc;

use promontory_tsdb::exemplar::{Exemplar, ExemplarError};
use promontory_tsdb::histogram::HistogramValue;
use promontory_tsdb::metadata::Metadata;
use promontory_tsdb::{AppendError, Appender, Db, Error, Labels, Result, SeriesRef, TimestampMs};

/// Takes scrapes. A seam, so that the scraper can be tested without a database.
pub trait Storage: fmt::Debug + Send + Sync {
    /// A batch that becomes visible all at once.
    fn appender(self: Arc<Self>) -> Box<dyn Append>;
}

/// What a batch takes besides floats; nothing else is worth reading off a page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Takes {
    /// Native histograms.
    pub histograms: bool,
    /// Exemplars.
    pub exemplars: bool,
    /// Type, unit and help of series.
    pub metadata: bool,
}

/// A batch of samples; dropping it takes nothing in.
pub trait Append: Send {
    /// What it takes besides floats.
    fn takes(&self) -> Takes {
        Takes::default()
    }

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

    /// Adds a native histogram, as [`Append::append`].
    ///
    /// # Errors
    /// If the storage refuses the sample.
    fn append_histogram(
        &mut self,
        _known: SeriesRef,
        _labels: &Labels,
        _t: TimestampMs,
        _value: &HistogramValue,
    ) -> Result<SeriesRef, Error> {
        Err(Error::Unsupported("native histograms in this storage".to_owned()))
    }

    /// Adds an exemplar of a series that this batch has a sample of.
    ///
    /// # Errors
    /// Why it is refused; a scrape goes on without it.
    fn append_exemplar(
        &mut self,
        _series: SeriesRef,
        _labels: &Labels,
        _exemplar: Exemplar,
    ) -> Result<(), ExemplarError> {
        Err(ExemplarError::Disabled)
    }

    /// Says what a series is about.
    fn set_metadata(&mut self, _series: SeriesRef, _metadata: Metadata) {}

    /// Takes the batch in.
    ///
    /// # Errors
    /// If it could not be written; then nothing of it is there.
    fn commit(self: Box<Self>) -> Result<()>;
}

impl Storage for Db {
    fn appender(self: Arc<Self>) -> Box<dyn Append> {
        let exemplars = self.exemplars().stats().max > 0;
        let takes = Takes { histograms: true, exemplars, metadata: false };
        Box::new(DbBatch { appender: Self::appender(&self), takes })
    }
}

/// A database that keeps type, unit and help of series too, in its log.
#[derive(Debug)]
pub struct WithMetadata(pub Arc<Db>);

impl Storage for WithMetadata {
    fn appender(self: Arc<Self>) -> Box<dyn Append> {
        let exemplars = self.0.exemplars().stats().max > 0;
        let takes = Takes { histograms: true, exemplars, metadata: true };
        Box::new(DbBatch { appender: Db::appender(&self.0), takes })
    }
}

/// A batch for a database.
struct DbBatch {
    appender: Appender,
    takes: Takes,
}

impl Append for DbBatch {
    fn takes(&self) -> Takes {
        self.takes
    }

    fn append(
        &mut self,
        known: SeriesRef,
        labels: &Labels,
        t: TimestampMs,
        v: f64,
    ) -> Result<SeriesRef, Error> {
        Ok(self.appender.append(known, labels, t, v)?)
    }

    fn append_histogram(
        &mut self,
        known: SeriesRef,
        labels: &Labels,
        t: TimestampMs,
        value: &HistogramValue,
    ) -> Result<SeriesRef, Error> {
        Ok(self.appender.append_histogram(known, labels, t, 0, value.clone())?)
    }

    fn append_exemplar(
        &mut self,
        series: SeriesRef,
        _labels: &Labels,
        exemplar: Exemplar,
    ) -> Result<(), ExemplarError> {
        match self.appender.append_exemplar(series, exemplar) {
            Err(AppendError::Exemplar(reason)) => Err(reason),
            // Any other reason has already been the sample's.
            _ => Ok(()),
        }
    }

    fn set_metadata(&mut self, series: SeriesRef, metadata: Metadata) {
        // The series has just taken a sample.
        let _ = self.appender.set_metadata(series, metadata);
    }

    fn commit(self: Box<Self>) -> Result<()> {
        self.appender.commit()
    }
}
