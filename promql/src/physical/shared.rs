//! [`SharedExec`]: one place of a subexpression that is evaluated once for all of its places.
//!
//! What it gives is collected by a future that all places share and any of them drives, so that none waits for another
//! one to be asked: a place may be read to its end before the others have begun. Its batches are kept, and their
//! bytes held, until all places have read them; a place that keeps them holds them again. Partitions of a place take batches in turn.

use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::EmissionType;
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, Gauge, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions, SendableRecordBatchStream,
};
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use parking_lot::Mutex;

use super::{all_partitions, tile_properties};
use crate::context::QueryContext;
use crate::error::QueryError;
use crate::operators::rows::Held;
use crate::params::Grid;
use crate::result;
use crate::stack::DeepStream;

/// What the places of a subexpression have in common.
#[derive(Default)]
pub(crate) struct SharedRun(Mutex<State>);

#[derive(Default)]
struct State {
    /// What is run; set when the physical plan is done.
    plan: Option<Arc<dyn ExecutionPlan>>,
    /// The run, as long as somebody is to ask for it.
    run: Option<Collected>,
    /// How many partitions of places have not asked yet.
    to_come: usize,
}

type Collected = Shared<BoxFuture<'static, Result<Arc<Held>, Arc<QueryError>>>>;

impl fmt::Debug for SharedRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRun").finish_non_exhaustive()
    }
}

impl SharedRun {
    /// The run that is under way, or else a new one, which `readers` will ask for.
    fn collected(&self, readers: usize, context: &Arc<TaskContext>, memory: Gauge) -> Result<Collected> {
        let mut state = self.0.lock();
        let run = match &state.run {
            Some(run) => run.clone(),
            None => {
                let missing = || internal_datafusion_err!("nobody said what a shared subexpression is");
                let plan = state.plan.clone().ok_or_else(missing)?;
                state.to_come = readers;
                collect(plan, Arc::clone(context), memory).map_err(Arc::new).boxed().shared()
            }
        };
        state.to_come = state.to_come.saturating_sub(1);
        // After the last one only those who read keep it alive.
        state.run = (state.to_come > 0).then(|| run.clone());
        Ok(run)
    }
}

/// Runs `plan`, and keeps all of it. As samples it counts only where a place keeps it too, so that no more samples are
/// counted than if each place evaluated it; its bytes are held until all have read it.
async fn collect(
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    memory: Gauge,
) -> Result<Arc<Held>, QueryError> {
    let query = QueryContext::of(&context).map_err(QueryError::from_datafusion)?;
    let batches = all_partitions(&plan, &context).map_err(QueryError::from_datafusion)?;
    let mut held = result::collect(batches, &query).await?;
    held.stop_counting();
    memory.add(held.batches().iter().map(|batch| batch.get_array_memory_size()).sum());
    Ok(Arc::new(held))
}

/// A place; see the module.
#[derive(Debug)]
pub(crate) struct SharedExec {
    run: Arc<SharedRun>,
    label: Label,
    grid: Grid,
    partitions: usize,
    /// The subexpression, at its first place.
    input: Option<Arc<dyn ExecutionPlan>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// Which subexpression it is, and how many places it has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label {
    pub(crate) number: usize,
    pub(crate) places: usize,
}

impl SharedExec {
    /// A place with that many partitions, the same as all others of this `run`. `input` is given at one place.
    pub(crate) fn new(
        run: Arc<SharedRun>,
        label: Label,
        grid: Grid,
        partitions: usize,
        input: Option<Arc<dyn ExecutionPlan>>,
    ) -> Self {
        let properties = tile_properties(&grid, partitions, EmissionType::Final);
        let metrics = ExecutionPlanMetricsSet::new();
        Self { run, label, grid, partitions, input, properties, metrics }
    }
}

impl DisplayAs for SharedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Label { number, places } = self.label;
        write!(f, "SharedExec: #{number} of {places} places")
    }
}

impl ExecutionPlan for SharedExec {
    fn name(&self) -> &'static str {
        "SharedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.input.iter().collect()
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; self.children().len()]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next();
        Ok(Arc::new(Self::new(Arc::clone(&self.run), self.label, self.grid, self.partitions, input)))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let query = QueryContext::of(&context)?;
        query.check()?;
        let figures = BaselineMetrics::new(&self.metrics, partition);
        let memory = MetricBuilder::new(&self.metrics).mem_used(partition);
        let run = self.run.collected(self.label.places * self.partitions, &context, memory)?;
        let partitions = self.partitions;
        let batches = async move {
            let held = run.await.map_err(|e| e.again())?;
            let mut next = partition;
            Ok::<_, DataFusionError>(futures::stream::poll_fn(move |_| {
                let batch = held.batches().get(next).cloned();
                next += partitions;
                std::task::Poll::Ready(batch.map(|batch| {
                    query.check()?;
                    figures.record_output(batch.num_rows());
                    Ok(batch)
                }))
            }))
        };
        let stream = futures::stream::once(batches).try_flatten().boxed();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), DeepStream::new(stream))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The last rule: tells each shared subexpression what it is, now that nothing changes the plan any more.
#[derive(Debug, Default)]
pub(crate) struct SettleShared;

impl PhysicalOptimizerRule for SettleShared {
    fn name(&self) -> &str {
        "PromSettleShared"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.apply(|node| {
            if let Some(shared) = node.downcast_ref::<SharedExec>()
                && let Some(input) = &shared.input
            {
                shared.run.0.lock().plan = Some(Arc::clone(input));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(plan)
    }
}
