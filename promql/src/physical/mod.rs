//! Operators: how logical nodes run.
//!
//! [`LeafPlanner`] turns the nodes of leaves, subqueries and quantiles into their operators; vector
//! aggregates run as DataFusion's own aggregate with the functions of [`aggregate`].

pub mod aggregate;
mod count;
pub mod histograms;
mod partial;
pub mod quantile;
mod scalars;
pub mod selector;
pub(crate) mod shared;
pub mod subquery;
pub mod tiles;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures::{Stream, StreamExt, TryStreamExt};

pub(crate) use partial::AggregateInLeaf;
pub(crate) use shared::SettleShared;

use crate::logical::quantile::QuantileNode;
use crate::logical::selector::SelectorNode;
use crate::logical::shared::SharedNode;
use crate::logical::subquery::SubqueryNode;
use crate::params::Grid;
use crate::tile::tile_schema;

/// Plans [`SelectorNode`], [`SubqueryNode`], [`QuantileNode`] and places of what is shared.
#[derive(Debug, Default, Clone, Copy)]
pub struct LeafPlanner;

#[async_trait]
impl ExtensionPlanner for LeafPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let inputs = physical_inputs.to_vec();
        let node = node.as_any();
        if let Some(leaf) = node.downcast_ref::<SelectorNode>() {
            let partitions = session.config().target_partitions().max(1);
            let exec = selector::SelectorExec::new(
                Arc::clone(leaf.source()),
                Arc::clone(leaf.spec()),
                inputs,
                partitions,
            );
            return Ok(Some(Arc::new(exec)));
        }
        if let Some(window) = node.downcast_ref::<SubqueryNode>() {
            let exec = subquery::SubqueryExec::try_new(Arc::clone(window.spec()), inputs)?;
            return Ok(Some(Arc::new(exec)));
        }
        if let Some(quantile) = node.downcast_ref::<QuantileNode>() {
            return Ok(Some(Arc::new(quantile::QuantileExec::try_new(quantile.grid(), inputs)?)));
        }
        if let Some(place) = node.downcast_ref::<SharedNode>() {
            return Ok(Some(shared_place(place, inputs, session.config().target_partitions().max(1))));
        }
        Ok(None)
    }
}

/// A place of a subexpression; just that where there is no other place.
fn shared_place(
    place: &SharedNode,
    mut inputs: Vec<Arc<dyn ExecutionPlan>>,
    partitions: usize,
) -> Arc<dyn ExecutionPlan> {
    let (shared, input) = (place.shared(), inputs.pop());
    match input {
        Some(input) if shared.places() < 2 => input,
        input => {
            let label = shared::Label { number: shared.number(), places: shared.places() };
            let partitions = if place.single() { 1 } else { partitions };
            let run = Arc::clone(shared.run());
            Arc::new(shared::SharedExec::new(run, label, *place.grid(), partitions, input))
        }
    }
}

/// Properties of an operator that emits tiles on `grid` in no order.
fn tile_properties(grid: &Grid, partitions: usize, emission: EmissionType) -> Arc<PlanProperties> {
    leaf_properties(tile_schema(grid), partitions, emission)
}

/// Properties of an operator that emits `schema` in no order.
fn leaf_properties(schema: SchemaRef, partitions: usize, emission: EmissionType) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(schema),
        Partitioning::UnknownPartitioning(partitions),
        emission,
        Boundedness::Bounded,
    ))
}

/// All batches of all partitions of `plan`, as they come: the partitions run on their own tasks
/// when there are several.
fn all_partitions(
    plan: &Arc<dyn ExecutionPlan>,
    context: &Arc<TaskContext>,
) -> Result<SendableRecordBatchStream> {
    datafusion::physical_plan::execute_stream(Arc::clone(plan), Arc::clone(context))
}

/// A stream of tile batches that is made by `start` when it is first polled.
fn tile_stream<S>(
    grid: &Grid,
    start: impl Future<Output = Result<S>> + Send + 'static,
) -> SendableRecordBatchStream
where
    S: Stream<Item = Result<RecordBatch>> + Send + 'static,
{
    batch_stream(tile_schema(grid), start)
}

/// As [`tile_stream`], for any schema.
fn batch_stream<S>(
    schema: SchemaRef,
    start: impl Future<Output = Result<S>> + Send + 'static,
) -> SendableRecordBatchStream
where
    S: Stream<Item = Result<RecordBatch>> + Send + 'static,
{
    let stream = futures::stream::once(start).try_flatten();
    Box::pin(RecordBatchStreamAdapter::new(schema, stream.boxed()))
}

#[cfg(test)]
mod tests;
