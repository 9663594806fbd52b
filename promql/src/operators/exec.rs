//! [`OperatorExec`]: runs an [`Operator`].

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, Gauge, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::OnceCell;

use super::rows::{Held, TileWriter, bytes, lanes, rows};
use super::{Operator, Scope};
use crate::context::{HeldBytes, QueryContext};
use crate::params::Grid;
use crate::stack::{DeepStream, deeper};
use crate::tile::tile_schema;

/// Runs one operator.
///
/// A streaming operator keeps the partitions of its vector input; anything else reads whole inputs
/// and has one partition. Scalar inputs are evaluated once per run, whatever the number of partitions.
#[derive(Debug)]
pub struct OperatorExec {
    operator: Arc<Operator>,
    grid: Grid,
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    properties: Arc<PlanProperties>,
    scalars: Arc<OnceCell<Vec<Vec<f64>>>>,
    metrics: ExecutionPlanMetricsSet,
}

impl OperatorExec {
    /// `operator` over `inputs`: vectors, then scalars.
    pub fn new(operator: Arc<Operator>, grid: Grid, mut inputs: Vec<Arc<dyn ExecutionPlan>>) -> Self {
        let streams = operator.evaluate().streams();
        for (i, input) in inputs.iter_mut().enumerate() {
            let keeps_partitions = streams && i == 0;
            if !keeps_partitions && input.output_partitioning().partition_count() > 1 {
                *input = Arc::new(CoalescePartitionsExec::new(Arc::clone(input)));
            }
        }
        let partitions = if streams { inputs[0].output_partitioning().partition_count() } else { 1 };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(tile_schema(&grid)),
            Partitioning::UnknownPartitioning(partitions),
            if streams { EmissionType::Incremental } else { EmissionType::Final },
            Boundedness::Bounded,
        );
        Self {
            operator,
            grid,
            inputs,
            properties: Arc::new(properties),
            scalars: Arc::default(),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// What it runs.
    pub(crate) fn operator(&self) -> &Operator {
        &self.operator
    }

    fn scalar_inputs(&self) -> &[Arc<dyn ExecutionPlan>] {
        &self.inputs[self.operator.evaluate().vector_inputs().min(self.inputs.len())..]
    }

    fn job(&self, partition: usize, context: &Arc<TaskContext>) -> Result<Job> {
        Ok(Job {
            operator: Arc::clone(&self.operator),
            grid: self.grid,
            schema: self.schema(),
            query: QueryContext::of(context)?,
            task: Arc::clone(context),
            scalar_inputs: self.scalar_inputs().to_vec(),
            scalars: Arc::clone(&self.scalars),
            figures: BaselineMetrics::new(&self.metrics, partition),
            memory: MetricBuilder::new(&self.metrics).mem_used(partition),
        })
    }
}

impl DisplayAs for OperatorExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = self.operator.evaluate();
        write!(f, "{}Exec: {operator}", operator.name())
    }
}

impl ExecutionPlan for OperatorExec {
    fn name(&self) -> &str {
        "OperatorExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; self.inputs.len()]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inputs.iter().collect()
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(Arc::clone(&self.operator), self.grid, children)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        deeper(|| self.start(partition, &context))
    }
}

impl OperatorExec {
    fn start(&self, partition: usize, context: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let job = Arc::new(self.job(partition, context)?);
        let operator = self.operator.evaluate();
        let inputs = self.inputs[..operator.vector_inputs()]
            .iter()
            .map(|input| input.execute(partition, Arc::clone(context)))
            .collect::<Result<Vec<_>>>()?;
        let batches = if operator.streams() {
            let input = inputs.into_iter().next().expect("a streaming operator has an input");
            let rows = operator.rows_per_run(&self.grid);
            // Scalars first: what is wrong with them is told also where there is nothing to apply them to.
            let first = Arc::clone(&job);
            let scalars = stream::once(async move { first.scalars().await.map(|_| ()) });
            let input = scalars.try_filter_map(|()| std::future::ready(Ok(None))).chain(input);
            input
                .map_ok(move |batch| stream::iter(slices(&batch, rows).map(Ok)))
                .try_flatten()
                .and_then(move |batch| {
                    let job = Arc::clone(&job);
                    async move { job.run_batch(&batch).await }
                })
                .map_ok(|batches| stream::iter(batches.map(Ok)))
                .try_flatten()
                .boxed()
        } else {
            stream::once(async move { job.run_whole(inputs).await })
                .map_ok(|batches| stream::iter(batches.map(Ok)))
                .try_flatten()
                .boxed()
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), DeepStream::new(batches))))
    }
}

impl Drop for OperatorExec {
    fn drop(&mut self) {
        deeper(|| self.inputs.clear());
    }
}

/// `batch` in pieces of up to `rows` rows; nothing is copied.
fn slices(batch: &RecordBatch, rows: usize) -> impl Iterator<Item = RecordBatch> + Send + use<> {
    let batch = batch.clone();
    let total = batch.num_rows();
    let step = rows.clamp(1, total.max(1));
    (0..total).step_by(step).map(move |first| batch.slice(first, step.min(total - first)))
}

/// Batches that wait until they are taken, accounted for until the last one was.
#[derive(Debug)]
struct Waiting {
    batches: std::vec::IntoIter<RecordBatch>,
    held: HeldBytes<Arc<QueryContext>>,
}

impl Waiting {
    fn new(batches: Vec<RecordBatch>, query: &Arc<QueryContext>) -> Result<Self> {
        let mut held = HeldBytes::new(Arc::clone(query));
        held.add(batches.iter().map(bytes).sum())?;
        Ok(Self { batches: batches.into_iter(), held })
    }
}

impl Iterator for Waiting {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        let batch = self.batches.next()?;
        self.held.give_back(bytes(&batch));
        Some(batch)
    }
}

/// One run of an operator.
#[derive(Debug)]
struct Job {
    operator: Arc<Operator>,
    grid: Grid,
    schema: SchemaRef,
    query: Arc<QueryContext>,
    task: Arc<TaskContext>,
    scalar_inputs: Vec<Arc<dyn ExecutionPlan>>,
    scalars: Arc<OnceCell<Vec<Vec<f64>>>>,
    figures: BaselineMetrics,
    /// Bytes of inputs that are held, at most.
    memory: Gauge,
}

impl Job {
    async fn run_batch(&self, batch: &RecordBatch) -> Result<Waiting> {
        self.query.check()?;
        if self.operator.evaluate().passes(batch) {
            return Waiting::new(vec![batch.clone()], &self.query);
        }
        let scalars = self.scalars().await?;
        self.evaluate(scalars, &[rows(batch)?])
    }

    async fn run_whole(&self, inputs: Vec<SendableRecordBatchStream>) -> Result<Waiting> {
        let held = futures::future::try_join_all(inputs.into_iter().map(|input| self.hold(input))).await?;
        let scalars = self.scalars().await?;
        self.query.check()?;
        let vectors = held.iter().map(Held::rows).collect::<Result<Vec<_>>>()?;
        self.evaluate(scalars, &vectors)
    }

    async fn hold(&self, mut input: SendableRecordBatchStream) -> Result<Held> {
        let mut held = Held::new(&self.query);
        loop {
            // Before the input goes on: an input that never waits must let others run, too.
            tokio::task::consume_budget().await;
            let Some(batch) = input.next().await else { return Ok(held) };
            self.query.check()?;
            let batch = batch?;
            self.memory.add(batch.get_array_memory_size());
            held.push(batch)?;
        }
    }

    fn evaluate(&self, scalars: &[Vec<f64>], vectors: &[Vec<super::rows::Row<'_>>]) -> Result<Waiting> {
        let _timer = self.figures.elapsed_compute().timer();
        let mut out = TileWriter::new(&self.grid, &self.query);
        let scope = Scope { grid: &self.grid, context: &self.query, scalars };
        self.operator.evaluate().run(scope, vectors, &mut out)?;
        let batches = out.finish();
        batches.iter().for_each(|batch| self.figures.record_output(batch.num_rows()));
        debug_assert!(
            batches.iter().all(|b| b.schema() == self.schema),
            "operators write tiles of their grid"
        );
        Waiting::new(batches, &self.query)
    }

    /// Values of all scalar inputs; the first who asks evaluates them.
    async fn scalars(&self) -> Result<&[Vec<f64>]> {
        if self.scalar_inputs.is_empty() {
            return Ok(&[]);
        }
        let values = self.scalars.get_or_try_init(|| async {
            let mut all = Vec::with_capacity(self.scalar_inputs.len());
            for input in &self.scalar_inputs {
                all.push(self.scalar(input).await?);
            }
            Ok::<_, DataFusionError>(all)
        });
        Ok(values.await?)
    }

    async fn scalar(&self, input: &Arc<dyn ExecutionPlan>) -> Result<Vec<f64>> {
        // Kept, and held, as long as the plan.
        self.query.hold_samples(self.grid.steps)?;
        let mut values = vec![f64::NAN; self.grid.steps];
        let mut batches = input.execute(0, Arc::clone(&self.task))?;
        while let Some(batch) = batches.next().await {
            self.query.check()?;
            for row in rows(&batch?)? {
                let first = row.tile as usize * self.grid.tile_steps;
                for lane in lanes(row.mask) {
                    if let Some(slot) = values.get_mut(first + lane) {
                        *slot = row.values[lane];
                    }
                }
            }
        }
        Ok(values)
    }
}
