//! Schema `metrics`: a table per metric name.
//!
//! Columns of a table: `timestamp`, `value`, then one text column per label that any series of the
//! metric carries at that moment, sorted by label name. A series that lacks the label has NULL
//! there. If the metric has native histograms, there is a column `histogram` after `value`, and each row has
//! one of the two.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use futures::TryStreamExt;
use promontory_tsdb::{METRIC_NAME, Matcher, Queryable, SelectHints, TimestampMs};

use crate::catalog::METRICS;
use crate::catalog::columns::Columns;
use crate::catalog::scan::exec::storage_error;
use crate::catalog::scan::{Rows, SeriesTable};
use crate::catalog::schema::BuiltIn;

/// Series that are looked at to find out whether a metric has native histograms.
const PROBED: usize = 8;
const HOUR_MS: i64 = 60 * 60 * 1000;

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

    /// Whether the metric has native histograms, as far as its newest samples say.
    ///
    /// A source does not tell without decoding; so a few series are looked at, first of the newest hour.
    async fn has_histograms(&self, metric: &str) -> Result<bool> {
        let Some((oldest, newest)) = self.bounds() else { return Ok(false) };
        let matchers = [Matcher::eq(METRIC_NAME, metric)];
        let hints = SelectHints { series_limit: PROBED, batch_samples: 1, ..SelectHints::default() };
        for since in [newest.saturating_sub(HOUR_MS).max(oldest), oldest] {
            let selection = self.source.select(&matchers, since, newest, &hints).map_err(storage_error)?;
            let mut left = PROBED;
            for mut partition in selection.partitions {
                while let Some(batch) = partition.try_next().await.map_err(storage_error)? {
                    if !batch.histograms.is_empty() {
                        return Ok(true);
                    }
                    left = left.saturating_sub(batch.len().max(1));
                    if left == 0 {
                        return Ok(false);
                    }
                }
            }
            if left < PROBED {
                return Ok(false);
            }
        }
        Ok(false)
    }

    fn bounds(&self) -> Option<(TimestampMs, TimestampMs)> {
        self.source.time_bounds()
    }
}

#[async_trait]
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

    async fn open(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if name.is_empty() {
            return Ok(None);
        }
        // Every series of the metric has at least the label `__name__`.
        let labels = self.label_names(name)?;
        if labels.is_empty() {
            return Ok(None);
        }
        let names = labels.iter().map(String::as_str).filter(|l| *l != METRIC_NAME);
        let columns = Columns::of_metric(names, self.has_histograms(name).await?);
        Ok(Some(Arc::new(SeriesTable::new(
            format!("{METRICS}.{name}"),
            Arc::clone(&self.source),
            vec![Matcher::eq(METRIC_NAME, name)],
            columns,
            Rows::Samples,
        ))))
    }
}
