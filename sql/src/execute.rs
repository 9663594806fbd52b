//! Running a plan, on the runtime for queries.

use std::future::Future;
use std::sync::Arc;

use datafusion::common::{DataFusionError, ParamValues};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::{RecordBatchReceiverStream, RecordBatchStreamAdapter};
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use pgwire::error::PgWireResult;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::pgwire::{sqlstate, stoppable};

/// Batches that a query may compute before its client has taken the last one.
const BATCHES_AHEAD: usize = 2;

/// Does `work` on `queries`. Dropping the future aborts it.
///
/// # Errors
/// Those of `work`, with their SQLSTATE.
pub(crate) async fn on<T: Send + 'static>(
    queries: &Handle,
    work: impl Future<Output = Result<T, DataFusionError>> + Send + 'static,
) -> PgWireResult<T> {
    let mut task = JoinSet::new();
    task.spawn_on(work, queries);
    match task.join_next().await {
        Some(Ok(done)) => done.map_err(|error| sqlstate::from_datafusion(&error)),
        Some(Err(error)) => Err(sqlstate::error("XX000", format!("the statement failed: {error}"))),
        None => Err(sqlstate::error("XX000", "the statement was not run")),
    }
}

/// Runs `plan` on `queries`. Dropping the stream stops it.
///
/// # Errors
/// If it cannot be planned or started, with the SQLSTATE that fits.
pub(crate) async fn start(
    session: &SessionContext,
    plan: &Arc<LogicalPlan>,
    parameters: Option<ParamValues>,
    queries: &Handle,
) -> PgWireResult<SendableRecordBatchStream> {
    let (session, plan) = (session.clone(), Arc::clone(plan));
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let started = on(queries, async move {
        let plan = match parameters {
            Some(parameters) => Arc::unwrap_or_clone(plan).replace_params_with_values(&parameters)?,
            None => Arc::unwrap_or_clone(plan),
        };
        let state = session.state();
        let plan = stoppable(state.create_physical_plan(&plan).await?, &stopped)?;
        datafusion::physical_plan::execute_stream(plan, state.task_ctx())
    });
    let stop = stop.drop_guard();
    let mut batches = started.await?;
    let mut receiver = RecordBatchReceiverStream::builder(batches.schema(), BATCHES_AHEAD);
    let sender = receiver.tx();
    let pump = async move {
        while let Some(batch) = batches.next().await {
            if sender.send(batch).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    receiver.spawn_on(pump, queries);
    let batches = receiver.build();
    let schema = batches.schema();
    let batches = batches.map(move |batch| {
        let _until_dropped = &stop;
        batch
    });
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
}
