//! Where scraped samples go.

use std::fmt;
use std::sync::Arc;

use promontory_tsdb::exemplar::{Exemplar, ExemplarError};
use promontory_tsdb::histogram::HistogramValue;
use promontory_tsdb::metadata::Metadata;
use promontory_tsdb::{Appender, Db, Error, Labels, Result, SeriesRef, TimestampMs};

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
        let appender = Db::appender(&self);
        Box::new(DbBatch { appender, exemplars: Vec::new(), db: self })
    }
}

/// A batch for a database.
struct DbBatch {
    db: Arc<Db>,
    appender: Appender,
    exemplars: Vec<(Labels, Exemplar)>,
}

impl Append for DbBatch {
    fn takes(&self) -> Takes {
        Takes { exemplars: self.db.exemplars().stats().max > 0, ..Takes::default() }
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

    fn append_exemplar(
        &mut self,
        _series: SeriesRef,
        labels: &Labels,
        exemplar: Exemplar,
    ) -> Result<(), ExemplarError> {
        match self.db.exemplars().check(labels, &exemplar) {
            // Seen in the scrape before; the usual case.
            Err(ExemplarError::Duplicate) => return Ok(()),
            checked => checked?,
        }
        self.exemplars.push((labels.clone(), exemplar));
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<()> {
        self.appender.commit()?;
        for (labels, exemplar) in self.exemplars {
            // One that has become too old meanwhile is no loss.
            let _ = self.db.exemplars().add(&labels, exemplar);
        }
        Ok(())
    }
}
