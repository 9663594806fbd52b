//! Tables over series: what DataFusion asks of a table, said to a [`Queryable`].
//!
//! Flow: [`pushdown`] turns filters into matchers and a time range, [`exec`] selects and streams
//! partitions in parallel, [`decode`] makes record batches of series batches. [`per_series`] is a rule of the
//! optimizer for what needs one row of each series, [`before_join`] one for what can be grouped before it is joined.

mod aggregate;
mod before_join;
pub(crate) mod decode;
pub(crate) mod exec;
mod per_series;
pub(crate) mod pushdown;
mod staircase;
mod totals;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExecBuilder;
use promontory_tsdb::{Matcher, Queryable};

use crate::catalog::columns::Columns;
pub(crate) use before_join::GroupBeforeJoin;
use exec::SeriesScanExec;
pub(crate) use per_series::{OneRowPerSeries, PerSeries};
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
        let scan = |columns, limit| {
            SeriesScanExec::try_new(
                self.name.clone(),
                Arc::clone(&self.source),
                pushed,
                columns,
                self.rows,
                limit,
                state.config().target_partitions(),
            )
        };
        // DataFusion may rewrite a filter after it heard that the scan takes it over, into something
        // that cannot be said to the storage. Nobody else looks at it then.
        let exact = TableProviderFilterPushDown::Exact;
        let rest = filters.iter().filter(|filter| pushdown::support(filter, &self.columns) != exact);
        let Some(rest) = conjunction(rest.cloned()) else {
            return Ok(Arc::new(scan(self.columns.project(projection), limit)?));
        };
        let mut read = projection.map_or_else(|| (0..self.columns.kinds().len()).collect(), Vec::clone);
        let wanted = (0..read.len()).collect();
        for column in rest.column_refs() {
            let index = self.columns.schema().index_of(&column.name)?;
            if !read.contains(&index) {
                read.push(index);
            }
        }
        let columns = self.columns.project(Some(&read));
        let schema = DFSchema::try_from(Arc::clone(columns.schema()))?;
        let predicate = state.create_physical_expr(rest, &schema)?;
        let filter = FilterExecBuilder::new(predicate, Arc::new(scan(columns, None)?));
        Ok(Arc::new(filter.apply_projection(Some(wanted))?.build()?))
    }
}
