//! [`Planners`]: from a logical plan to one that runs, and what it runs in.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::context::SessionState;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::combine_partial_final_agg::CombinePartialFinalAggregate;
use datafusion::physical_optimizer::ensure_requirements::EnsureRequirements;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use datafusion::prelude::SessionConfig;

use super::Size;
use super::pool::QueryPool;
use crate::context::QueryContext;
use crate::error::QueryError;
use crate::operators::OperatorPlanner;
use crate::physical::{AggregateInLeaf, LeafPlanner, SettleShared};
use crate::stack::as_deep_as;

/// What turns logical plans into physical ones, made once: session states with short rule lists.
pub(super) struct Planners {
    runtime: Arc<RuntimeEnv>,
    extensions: Vec<Arc<dyn ExtensionPlanner + Send + Sync>>,
    /// One partition, for queries that are done before a second core could help.
    single: SessionState,
    /// Partitioned leaves and aggregates.
    parallel: SessionState,
}

impl fmt::Debug for Planners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Planners").finish_non_exhaustive()
    }
}

impl Planners {
    pub(super) fn new(partitions: usize) -> Self {
        let extensions: Vec<Arc<dyn ExtensionPlanner + Send + Sync>> =
            vec![Arc::new(LeafPlanner), Arc::new(OperatorPlanner)];
        // What does not fit into memory is refused, and not written to disk.
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let runtime = RuntimeEnv {
            disk_manager: Arc::new(disk.build().expect("nothing is made where nothing is written")),
            ..RuntimeEnv::default()
        };
        let runtime = Arc::new(runtime);
        let single = state(
            1,
            vec![
                Arc::new(AggregateInLeaf),
                Arc::new(CombinePartialFinalAggregate::new()),
                Arc::new(SettleShared),
            ],
            &runtime,
        );
        let parallel = state(
            partitions.max(1),
            vec![Arc::new(AggregateInLeaf), Arc::new(EnsureRequirements::new()), Arc::new(SettleShared)],
            &runtime,
        );
        Self { runtime, extensions, single, parallel }
    }

    fn state(&self, size: Size) -> &SessionState {
        match size {
            Size::Small => &self.single,
            Size::Large => &self.parallel,
        }
    }

    /// Nothing in planning our nodes waits, so that it can be done on a stack as deep as the plan.
    ///
    /// DataFusion takes a tokio lock per inner node. Such locks pretend to wait once a task has used
    /// up its share, which would go on forever within one poll; hence `unconstrained`.
    pub(super) fn physical(
        &self,
        logical: &LogicalPlan,
        size: Size,
        depth: usize,
        context: &Arc<QueryContext>,
    ) -> Result<Arc<dyn ExecutionPlan>, QueryError> {
        let watch = Watch { context: Arc::clone(context), nodes: AtomicUsize::new(0) };
        let mut extensions = self.extensions.clone();
        extensions.insert(0, Arc::new(watch));
        let planner = DefaultPhysicalPlanner::with_extension_planners(extensions);
        let planned = as_deep_as(depth, || {
            let plan = planner.create_physical_plan(logical, self.state(size));
            futures::executor::block_on(tokio::task::unconstrained(plan))
        });
        planned.map_err(QueryError::from_datafusion)
    }

    pub(super) fn task(&self, size: Size, context: &Arc<QueryContext>) -> Arc<TaskContext> {
        let config = self.state(size).config().clone().with_extension(Arc::clone(context));
        Arc::new(TaskContext::new(
            None,
            String::new(),
            config,
            Default::default(),
            Default::default(),
            Default::default(),
            Default::default(),
            Arc::new(RuntimeEnv {
                memory_pool: Arc::new(QueryPool::new(Arc::clone(context))),
                ..self.runtime.as_ref().clone()
            }),
        ))
    }
}

/// Plans nothing, and ends planning when the query is to end.
struct Watch {
    context: Arc<QueryContext>,
    nodes: AtomicUsize,
}

/// How many nodes are planned between two looks at token and deadline.
const NODES_PER_CHECK: usize = 64;

#[async_trait]
impl ExtensionPlanner for Watch {
    async fn plan_extension(
        &self,
        _: &dyn PhysicalPlanner,
        _: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        _: &[Arc<dyn ExecutionPlan>],
        _: &dyn Session,
        _: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>, DataFusionError> {
        if self.nodes.fetch_add(1, Ordering::Relaxed).is_multiple_of(NODES_PER_CHECK) {
            self.context.check()?;
        }
        Ok(None)
    }
}

fn state(
    partitions: usize,
    rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>,
    runtime: &Arc<RuntimeEnv>,
) -> SessionState {
    // A tile is up to a kibibyte of values: fewer rows make a batch than elsewhere.
    let mut config = SessionConfig::new().with_target_partitions(partitions).with_batch_size(1024);
    config.options_mut().optimizer.enable_round_robin_repartition = false;
    SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(Arc::clone(runtime))
        .with_analyzer_rules(Vec::new())
        .with_optimizer_rules(Vec::new())
        .with_physical_optimizer_rules(rules)
        .build()
}
