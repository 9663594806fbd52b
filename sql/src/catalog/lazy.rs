//! [`LazyTable`]: a table whose rows are made while a query runs, batch by batch, and no further than its client reads.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::PartitionStream;

/// Batches that are made before the last one is taken.
const AHEAD: usize = 2;

/// Takes a batch; breaks off when nobody wants more.
pub(crate) type Take<'a> = &'a mut dyn FnMut(RecordBatch) -> ControlFlow<()>;

/// Where the rows come from.
pub(crate) trait Rows: fmt::Debug + Send + Sync + 'static {
    fn schema(&self) -> SchemaRef;

    /// Whether [`Rows::read`] leaves out rows that do not pass `filter`, at least some. It is applied again.
    fn narrows(&self, filter: &Expr) -> bool;

    /// Gives the rows, but for those that `filters` keep out. May block.
    fn read(&self, filters: &[Expr], take: Take<'_>) -> Result<()>;
}

/// The table.
#[derive(Debug)]
pub(crate) struct LazyTable<R>(Arc<R>);

impl<R: Rows> LazyTable<R> {
    /// The table of `rows`.
    pub(crate) fn table(rows: R) -> Arc<dyn TableProvider> {
        Arc::new(Self(Arc::new(rows)))
    }
}

#[async_trait]
impl<R: Rows> TableProvider for LazyTable<R> {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match self.0.narrows(filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let run = Run { rows: Arc::clone(&self.0), schema: self.0.schema(), filters: filters.to_vec() };
        let table = StreamingTable::try_new(self.0.schema(), vec![Arc::new(run)])?;
        table.scan(state, projection, &[], limit).await
    }
}

/// One run.
#[derive(Debug)]
struct Run<R> {
    rows: Arc<R>,
    schema: SchemaRef,
    filters: Vec<Expr>,
}

impl<R: Rows> PartitionStream for Run<R> {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut batches = RecordBatchReceiverStream::builder(Arc::clone(&self.schema), AHEAD);
        let (rows, filters, sender) = (Arc::clone(&self.rows), self.filters.clone(), batches.tx());
        batches.spawn_blocking(move || {
            rows.read(&filters, &mut |batch| match sender.blocking_send(Ok(batch)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            })
        });
        batches.build()
    }
}
