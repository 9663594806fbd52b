//! Schema `metrics`: a table per metric name.
//!
//! Columns of a table: `timestamp`, `value`, then one text column per label that any series of the
//! metric carries at that moment, sorted by label name. A series that lacks the label has NULL
//! there. Native histograms are not rows yet.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use promontory_tsdb::{METRIC_NAME, Matcher, Queryable, TimestampMs};

use crate::catalog::METRICS;
use crate::catalog::columns::Columns;
use crate::catalog::scan::exec::storage_error;
use crate::catalog::scan::{Rows, SeriesTable};
use crate::catalog::schema::BuiltIn;

/// The tables of schema `metrics`.
#[derive(Debug)]
pub(crate) struct MetricTables {
    source: Arc<dyn Queryable>,
}

impl MetricTables {
    /// A table per metric name of `source`.
    pub(crate) fn new(source: Arc<dyn Queryable>) -> Self {
        Self { source }
    }

    fn label_names(&self, metric: &str) -> Result<Vec<String>> {
        let Some((mint, maxt)) = self.bounds() else { return Ok(Vec::new()) };
        self.source.label_names(&[Matcher::eq(METRIC_NAME, metric)], mint, maxt).map_err(storage_error)
    }

    fn bounds(&self) -> Option<(TimestampMs, TimestampMs)> {
        self.source.time_bounds()
    }
}

impl BuiltIn for MetricTables {
    fn names(&self) -> Result<Vec<String>> {
        let Some((mint, maxt)) = self.bounds() else { return Ok(Vec::new()) };
        self.source.label_values(METRIC_NAME, &[], mint, maxt).map_err(storage_error)
    }

    fn exists(&self, name: &str) -> Result<bool> {
        let Some((mint, maxt)) = self.bounds().filter(|_| !name.is_empty()) else { return Ok(false) };
        let metric = Matcher::eq(METRIC_NAME, name);
        Ok(self.source.series_estimate(&[metric], mint, maxt).map_err(storage_error)? > 0)
    }

    fn open(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if name.is_empty() {
            return Ok(None);
        }
        // Every series of the metric has at least the label `__name__`.
        let labels = self.label_names(name)?;
        if labels.is_empty() {
            return Ok(None);
        }
        let columns = Columns::of_metric(labels.iter().map(String::as_str).filter(|l| *l != METRIC_NAME));
        Ok(Some(Arc::new(SeriesTable::new(
            format!("{METRICS}.{name}"),
            Arc::clone(&self.source),
            vec![Matcher::eq(METRIC_NAME, name)],
            columns,
            Rows::Samples,
        ))))
    }
}
