//! [`Listing`]: a table of what there is at the moment, small enough to be made whole.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::viewer::Viewer;

/// A small table whose rows are made anew for each scan.
pub struct Listing {
    schema: SchemaRef,
    rows: Box<Rows>,
}

/// What the rows are for somebody.
type Rows = dyn Fn(&Viewer) -> Result<RecordBatch> + Send + Sync;

impl Listing {
    /// The table whose rows, of `schema`, are what `rows` gives when a scan is planned.
    pub fn table(
        schema: SchemaRef,
        rows: impl Fn() -> Result<RecordBatch> + Send + Sync + 'static,
    ) -> Arc<dyn TableProvider> {
        Self::for_viewer(schema, move |_: &Viewer| rows())
    }

    /// The same, with rows that depend on who asks.
    pub(crate) fn for_viewer(
        schema: SchemaRef,
        rows: impl Fn(&Viewer) -> Result<RecordBatch> + Send + Sync + 'static,
    ) -> Arc<dyn TableProvider> {
        Arc::new(Self { schema, rows: Box::new(rows) })
    }
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing").field("schema", &self.schema).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for Listing {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = MemTable::try_new(self.schema(), vec![vec![(self.rows)(&Viewer::of(state))?]])?;
        rows.scan(state, projection, filters, limit).await
    }
}
