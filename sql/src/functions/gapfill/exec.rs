//! [`GapFillExec`]: makes the rows of empty buckets, and fills columns.
//!
//! The input is one sorted partition; all of it and of the result is held, which the session's memory
//! limit counts. An aggregate by buckets is small beside its samples.

use std::fmt;
use std::ops::{Bound, Range};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Float64Builder, Int64Array, RecordBatch, UInt32Array,
};
use arrow::compute::{SortOptions, cast, concat_batches, partition, take};
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err, internal_err, plan_err, resources_err};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{ColumnarValue, Expr, LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::EmissionType;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties,
    InputDistributionRequirements, Partitioning, PlanProperties, common,
};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use futures::{TryStreamExt, stream};

use super::node::{FillKind, GapFillNode};
use crate::functions::time_bucket::BucketWidth;

/// Rows that a gap fill may make.
const MAX_ROWS: usize = 10_000_000;

/// DataFusion's planner, which also knows the node.
#[derive(Debug)]
pub(super) struct GapFillPlanner;

#[async_trait]
impl QueryPlanner for GapFillPlanner {
    async fn create_physical_plan(
        &self,
        logical_plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(Self)]);
        planner.create_physical_plan(logical_plan, session).await
    }
}

#[async_trait]
impl ExtensionPlanner for GapFillPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<GapFillNode>() else { return Ok(None) };
        let [input] = physical_inputs else { return internal_err!("a gap fill has one input") };
        let time_type = node.schema.field(node.time).data_type().clone();
        let DataType::Timestamp(unit, _) = time_type else { return internal_err!("buckets are timestamps") };
        let ScalarValue::IntervalMonthDayNano(Some(width)) = constant(&node.width, session)? else {
            return plan_err!("the width of time_bucket_gapfill() must be a constant");
        };
        let bound = |expr: &Expr| instant(&constant(expr, session)?, &time_type);
        let finish = match &node.finish {
            Bound::Included(finish) => bound(finish)?,
            Bound::Excluded(finish) => bound(finish)?.map(|t| t.saturating_sub(1)),
            Bound::Unbounded => None,
        };
        let fills = node
            .fills
            .iter()
            .map(|fill| Ok((fill.kind, session.create_physical_expr(fill.value.clone(), &node.aggregate)?)));
        let buckets = Buckets {
            width: BucketWidth::try_new(width)?,
            unit,
            start: node.start.as_ref().map(bound).transpose()?.flatten(),
            finish,
        };
        let shape = Shape { groups: node.groups, time: node.time, fills: fills.collect::<Result<_>>()? };
        let schema = Arc::clone(node.schema.inner());
        Ok(Some(Arc::new(GapFillExec::new(Arc::clone(input), buckets, shape, schema))))
    }
}

/// The value of an expression over nothing.
fn constant(expr: &Expr, session: &dyn Session) -> Result<ScalarValue> {
    let expr = session.create_physical_expr(expr.clone(), &DFSchema::empty())?;
    let row = RecordBatch::try_new_with_options(
        Arc::new(arrow::datatypes::Schema::empty()),
        Vec::new(),
        &arrow::array::RecordBatchOptions::new().with_row_count(Some(1)),
    )?;
    match expr.evaluate(&row)? {
        ColumnarValue::Scalar(value) => Ok(value),
        ColumnarValue::Array(array) => ScalarValue::try_from_array(&array, 0),
    }
}

/// A time in the unit of `time_type`; `None` for NULL.
fn instant(value: &ScalarValue, time_type: &DataType) -> Result<Option<i64>> {
    match value.cast_to(time_type)? {
        ScalarValue::TimestampSecond(t, _)
        | ScalarValue::TimestampMillisecond(t, _)
        | ScalarValue::TimestampMicrosecond(t, _)
        | ScalarValue::TimestampNanosecond(t, _) => Ok(t),
        _ => plan_err!("{value} is not a time"),
    }
}

/// Which buckets there are to be.
#[derive(Debug, Clone, Copy)]
struct Buckets {
    width: BucketWidth,
    unit: TimeUnit,
    /// The first bucket is the one of this time.
    start: Option<i64>,
    /// The last bucket is the one of this time.
    finish: Option<i64>,
}

/// Where things are among the columns.
#[derive(Debug, Clone)]
struct Shape {
    groups: usize,
    time: usize,
    fills: Vec<(FillKind, Arc<dyn PhysicalExpr>)>,
}

impl Shape {
    /// Sorted by group, then by time.
    fn ordering(&self, schema: &SchemaRef) -> Option<LexOrdering> {
        let others = (0..self.groups).filter(|i| *i != self.time);
        LexOrdering::new(others.chain([self.time]).map(|i| {
            let column = Arc::new(Column::new(schema.field(i).name(), i));
            PhysicalSortExpr::new(column, SortOptions { descending: false, nulls_first: true })
        }))
    }
}

/// The operator.
#[derive(Debug)]
struct GapFillExec {
    input: Arc<dyn ExecutionPlan>,
    buckets: Buckets,
    shape: Shape,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl GapFillExec {
    fn new(input: Arc<dyn ExecutionPlan>, buckets: Buckets, shape: Shape, schema: SchemaRef) -> Self {
        let mut equivalence = EquivalenceProperties::new(Arc::clone(&schema));
        if let Some(ordering) = shape.ordering(&schema) {
            equivalence.add_ordering(ordering);
        }
        let properties = Arc::new(PlanProperties::new(
            equivalence,
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            input.boundedness(),
        ));
        Self { input, buckets, shape, schema, properties }
    }
}

impl DisplayAs for GapFillExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fills: Vec<_> = self.schema.fields().iter().rev().take(self.shape.fills.len()).collect();
        let fills: Vec<_> = fills.iter().rev().map(|field| field.name().as_str()).collect();
        write!(f, "GapFillExec: time={}", self.schema.field(self.shape.time).name())?;
        for (name, bound) in [("start", self.buckets.start), ("finish", self.buckets.finish)] {
            if let Some(bound) = bound {
                write!(f, ", {name}={bound}")?;
            }
        }
        if fills.is_empty() { Ok(()) } else { write!(f, ", fills=[{}]", fills.join(", ")) }
    }
}

impl ExecutionPlan for GapFillExec {
    fn name(&self) -> &'static str {
        "GapFillExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![self.shape.ordering(&self.input.schema()).map(OrderingRequirements::from)]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for (_, expr) in &self.shape.fills {
            if f(expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => {
                let (buckets, shape) = (self.buckets, self.shape.clone());
                Ok(Arc::new(Self::new(input, buckets, shape, Arc::clone(&self.schema))))
            }
            _ => internal_err!("a gap fill has one input"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let (buckets, shape, schema) = (self.buckets, self.shape.clone(), Arc::clone(&self.schema));
        let memory = MemoryConsumer::new("GapFillExec").register(context.memory_pool());
        let rows_per_batch = context.session_config().batch_size().max(1);
        let batches = stream::once(async move {
            let batches = common::collect(input).await?;
            let Some(first) = batches.first() else { return Ok(stream::iter(Vec::new())) };
            let rows = concat_batches(&first.schema(), &batches)?;
            drop(batches);
            memory.try_grow(rows.get_array_memory_size())?;
            let filled = Filling::new(&rows, &buckets, &shape)?.run(&schema)?;
            memory.try_grow(filled.get_array_memory_size())?;
            let starts = (0..filled.num_rows()).step_by(rows_per_batch);
            let pieces = starts.map(|at| filled.slice(at, rows_per_batch.min(filled.num_rows() - at)));
            let pieces: Vec<_> = pieces.map(Ok).collect();
            drop(memory);
            Ok::<_, datafusion::common::DataFusionError>(stream::iter(pieces))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches.try_flatten())))
    }
}

/// One run over all rows.
struct Filling<'a> {
    rows: &'a RecordBatch,
    buckets: &'a Buckets,
    shape: &'a Shape,
    /// Buckets of the rows, in their unit.
    times: Int64Array,
    /// First and last bucket to be.
    range: (i64, i64),
    /// Of each output row: the input row, if it is one; a row of its group; its bucket.
    sources: Vec<Option<u32>>,
    members: Vec<u32>,
    filled_times: Vec<i64>,
    /// Output rows of each group.
    groups: Vec<Range<usize>>,
}

impl<'a> Filling<'a> {
    fn new(rows: &'a RecordBatch, buckets: &'a Buckets, shape: &'a Shape) -> Result<Self> {
        let times = cast(rows.column(shape.time), &DataType::Int64)?;
        let times = times.as_primitive::<Int64Type>().clone();
        let bucket = |t: i64| -> Result<i64> {
            let t = ScalarValue::Int64(Some(t)).cast_to(&DataType::Timestamp(buckets.unit, None))?;
            let start = cast(&buckets.width.starts(&t.to_array()?)?, &DataType::Int64)?;
            Ok(start.as_primitive::<Int64Type>().value(0))
        };
        let first = match buckets.start {
            Some(start) => bucket(start)?,
            None => arrow::compute::min(&times).unwrap_or(i64::MAX),
        };
        let last = match buckets.finish {
            Some(finish) => bucket(finish)?,
            None => arrow::compute::max(&times).unwrap_or(i64::MIN),
        };
        Ok(Self {
            rows,
            buckets,
            shape,
            times,
            range: (first, last),
            sources: Vec::new(),
            members: Vec::new(),
            filled_times: Vec::new(),
            groups: Vec::new(),
        })
    }

    fn run(mut self, schema: &SchemaRef) -> Result<RecordBatch> {
        let others: Vec<ArrayRef> = (0..self.shape.groups)
            .filter(|i| *i != self.shape.time)
            .map(|i| Arc::clone(self.rows.column(i)))
            .collect();
        let ranges = match (others.is_empty(), self.rows.num_rows()) {
            (_, 0) => Vec::new(),
            (true, rows) => std::iter::once(0..rows).collect(),
            (false, _) => partition(&others)?.ranges(),
        };
        for range in ranges {
            self.group(range)?;
        }
        let (sources, members) =
            (UInt32Array::from(self.sources.clone()), UInt32Array::from(self.members.clone()));
        let mut columns = Vec::with_capacity(schema.fields().len());
        for (i, column) in self.rows.columns().iter().enumerate() {
            columns.push(if i == self.shape.time {
                let times: ArrayRef = Arc::new(Int64Array::from(self.filled_times.clone()));
                cast(&times, column.data_type())?
            } else if i < self.shape.groups {
                take(column, &members, None)?
            } else {
                take(column, &sources, None)?
            });
        }
        for (kind, expr) in &self.shape.fills {
            let value = expr.evaluate(self.rows)?.into_array(self.rows.num_rows())?;
            columns.push(match kind {
                FillKind::Locf => self.locf(&value)?,
                FillKind::Interpolate => self.interpolate(&value)?,
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }

    /// Lays out the rows of one group: those that there are, and those of empty buckets among them.
    fn group(&mut self, rows: Range<usize>) -> Result<()> {
        let began = self.sources.len();
        let member = u32::try_from(rows.start).or_else(|_| exec_err!("too many rows"))?;
        let (mut next, last) = self.range;
        for row in rows {
            if self.times.is_null(row) {
                return exec_err!("a row without a time cannot be in a bucket");
            }
            let t = self.times.value(row);
            self.empty_until(member, &mut next, t.min(last.saturating_add(1)))?;
            if t == next {
                next = self.buckets.width.next(next, self.buckets.unit)?;
            }
            self.push(Some(row as u32), member, t)?;
        }
        self.empty_until(member, &mut next, last.saturating_add(1))?;
        self.groups.push(began..self.sources.len());
        Ok(())
    }

    /// Rows for the buckets in `[next, end)`.
    fn empty_until(&mut self, member: u32, next: &mut i64, end: i64) -> Result<()> {
        while *next < end {
            self.push(None, member, *next)?;
            *next = self.buckets.width.next(*next, self.buckets.unit)?;
        }
        Ok(())
    }

    fn push(&mut self, source: Option<u32>, member: u32, t: i64) -> Result<()> {
        if self.sources.len() >= MAX_ROWS {
            return resources_err!("time_bucket_gapfill() would make more than {MAX_ROWS} rows");
        }
        self.sources.push(source);
        self.members.push(member);
        self.filled_times.push(t);
        Ok(())
    }

    fn locf(&self, value: &ArrayRef) -> Result<ArrayRef> {
        let nulls = value.logical_nulls();
        let known = |row: u32| nulls.as_ref().is_none_or(|n| n.is_valid(row as usize));
        let mut rows = Vec::with_capacity(self.sources.len());
        for group in &self.groups {
            let mut last = None;
            for source in &self.sources[group.clone()] {
                last = source.filter(|row| known(*row)).or(last);
                rows.push(last);
            }
        }
        Ok(take(value, &UInt32Array::from(rows), None)?)
    }

    fn interpolate(&self, value: &ArrayRef) -> Result<ArrayRef> {
        let value = cast(value, &DataType::Float64)?;
        let value: &Float64Array = value.as_primitive::<Float64Type>();
        let known = |i: usize| {
            let row = self.sources[i]? as usize;
            value.is_valid(row).then(|| value.value(row))
        };
        let mut out = Float64Builder::with_capacity(self.sources.len());
        for group in &self.groups {
            let mut before: Option<(usize, f64)> = None;
            let mut i = group.start;
            while i < group.end {
                if let Some(v) = known(i) {
                    out.append_value(v);
                    before = Some((i, v));
                    i += 1;
                    continue;
                }
                let after = (i..group.end).find_map(|j| known(j).map(|v| (j, v)));
                let gap_end = after.map_or(group.end, |(j, _)| j);
                for at in i..gap_end {
                    out.append_option(before.zip(after).map(|(a, b)| self.between(a, b, at)));
                }
                i = gap_end;
            }
        }
        Ok(Arc::new(out.finish()))
    }

    /// On the line between two known rows.
    fn between(&self, (i, v): (usize, f64), (j, w): (usize, f64), at: usize) -> f64 {
        let t = |k: usize| self.filled_times[k];
        v + (w - v) * ((t(at) - t(i)) as f64 / (t(j) - t(i)) as f64)
    }
}
