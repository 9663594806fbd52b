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

/// A small table whose rows are made anew for each scan.
pub struct Listing<F> {
    schema: SchemaRef,
    rows: F,
}

impl<F: Fn() -> Result<RecordBatch> + Send + Sync + 'static> Listing<F> {
    /// The table whose rows, of `schema`, are what `rows` gives when a scan is planned.
    pub fn table(schema: SchemaRef, rows: F) -> Arc<dyn TableProvider> {
        Arc::new(Self { schema, rows })
    }
}

impl<F> fmt::Debug for Listing<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing").field("schema", &self.schema).finish_non_exhaustive()
    }
}

#[async_trait]
impl<F: Fn() -> Result<RecordBatch> + Send + Sync + 'static> TableProvider for Listing<F> {
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
        let rows = MemTable::try_new(self.schema(), vec![vec![(self.rows)()?]])?;
        rows.scan(state, projection, filters, limit).await
    }
}
