//! Tables over series: what DataFusion asks of a table, said to a [`Queryable`].
//!
//! Flow: [`pushdown`] turns filters into matchers and a time range, [`exec`] selects and streams
//! partitions in parallel, [`decode`] makes record batches of series batches.

pub(crate) mod decode;
pub(crate) mod exec;
pub(crate) mod pushdown;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use promontory_tsdb::{Matcher, Queryable};

use crate::catalog::columns::Columns;
use exec::SeriesScanExec;
use pushdown::Pushed;

/// What one row of a table stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    /// A sample; stale markers are none.
    Samples,
    /// A series; no sample is read.
    Series,
}

/// A table over the series that match some fixed matchers.
#[derive(Debug)]
pub(crate) struct SeriesTable {
    name: String,
    source: Arc<dyn Queryable>,
    /// Hold for every row, before any filter.
    matchers: Vec<Matcher>,
    columns: Columns,
    rows: Rows,
}

impl SeriesTable {
    /// A table called `name` (for `EXPLAIN`) over the series of `source` that `matchers` let pass.
    pub(crate) fn new(
        name: impl Into<String>,
        source: Arc<dyn Queryable>,
        matchers: Vec<Matcher>,
        columns: Columns,
        rows: Rows,
    ) -> Self {
        Self { name: name.into(), source, matchers, columns, rows }
    }
}

#[async_trait]
impl TableProvider for SeriesTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.columns.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(filters.iter().map(|filter| pushdown::support(filter, &self.columns)).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut pushed = Pushed::from_filters(filters, &self.columns);
        pushed.matchers.splice(0..0, self.matchers.iter().cloned());
        let scan = SeriesScanExec::try_new(
            self.name.clone(),
            Arc::clone(&self.source),
            pushed,
            self.columns.project(projection),
            self.rows,
            limit,
            state.config().target_partitions(),
        )?;
        Ok(Arc::new(scan))
    }
}
