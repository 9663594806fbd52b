//! [`SeriesAggregateExec`]: groups are looked up once a run of rows.
//!
//! Rows come series after series in ascending time. Where an aggregate groups by labels and by functions of time that
//! never fall (`time_bucket`, `date_bin`, `date_trunc`), hundreds of rows in a row are of the same group. This takes
//! the place of an aggregate's first phase and of the scan below: labels are looked up once a series, functions of time
//! once a step ([`Staircase`]), and what is left for each row is the aggregate itself.
//!
//! # Memory
//! Groups of the first phase are given out, and forgotten, once there are many or memory is short; the second phase
//! puts them together.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, filter, take};
use arrow::datatypes::SchemaRef;
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::projection::{ProjectionExpr, update_expr};
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputOrderMode, Partitioning, PlanProperties,
};
use futures::stream::{self, BoxStream, TryStreamExt};
use promontory_tsdb::{Needed, SeriesBatch};

use super::decode::{self, SeriesRows};
use super::exec::SeriesScanExec;
use super::per_series::{in_place_of_first_phase, is_of_labels, scan_below};
use super::staircase::{Staircase, Steps};
use crate::catalog::columns::{ColumnKind, Columns};

/// Groups that are held at once.
const GROUPS: usize = 1 << 17;
/// Batches of series after which memory is counted anew, which takes time by groups.
const COUNTED_BATCHES: usize = 16;

/// What takes the place of `aggregate`, if its groups come in runs.
pub(super) fn in_place_of(aggregate: &AggregateExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let grouping = aggregate.group_expr();
    let plain = grouping.is_single()
        && !grouping.expr().is_empty()
        && aggregate.limit_options().is_none()
        && *aggregate.input_order_mode() == InputOrderMode::Linear
        && aggregate.aggr_expr().iter().all(|function| is_of_any_order(function));
    let Some((scan, projections)) = scan_and_projections(aggregate.input()).filter(|_| plain) else {
        return Ok(None);
    };
    let in_scan = |expr: &Arc<dyn PhysicalExpr>| -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let mut expr = Arc::clone(expr);
        for projection in &projections {
            let Some(below) = update_expr(&expr, projection, true)? else { return Ok(None) };
            expr = below;
        }
        Ok(Some(expr))
    };
    let mut keys = Vec::new();
    for (expr, _) in grouping.expr() {
        let Some(expr) = in_scan(expr)? else { return Ok(None) };
        let Some(key) = Key::of(expr, scan)? else { return Ok(None) };
        keys.push(key);
    }
    let mut folds = Vec::new();
    for (function, condition) in aggregate.aggr_expr().iter().zip(aggregate.filter_expr()) {
        let arguments = function.expressions().iter().map(in_scan).collect::<Result<Option<Vec<_>>>>()?;
        let condition = condition.as_ref().map(in_scan).transpose()?;
        let (Some(arguments), false) = (arguments, matches!(condition, Some(None))) else { return Ok(None) };
        folds.push(Fold { function: Arc::clone(function), arguments, condition: condition.flatten() });
    }
    in_place_of_first_phase(aggregate, scan, |schema| {
        Ok(Arc::new(SeriesAggregateExec::try_new(scan, keys, folds, schema)?))
    })
}

/// Whether rows may come in any order. What stands behind `WITHIN GROUP` sorts for itself.
fn is_of_any_order(function: &AggregateFunctionExpr) -> bool {
    function.order_bys().is_empty() || function.fun().supports_within_group_clause()
}

/// The scan below, past operators that pass all rows on, and what projections between make of their inputs, the
/// uppermost first.
fn scan_and_projections(plan: &Arc<dyn ExecutionPlan>) -> Option<(&SeriesScanExec, Vec<&[ProjectionExpr]>)> {
    if let Some(scan) = scan_below(plan) {
        return Some((scan, Vec::new()));
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let (scan, mut below) = scan_and_projections(projection.input())?;
        below.insert(0, projection.expr());
        return Some((scan, below));
    }
    match plan.name() {
        "CooperativeExec" => plan.children().first().copied().and_then(scan_and_projections),
        _ => None,
    }
}

/// What rows are grouped by.
#[derive(Debug, Clone)]
enum Key {
    /// The same in all rows of a series.
    Series(Arc<dyn PhysicalExpr>),
    /// Never falls within a series.
    Time(Arc<dyn PhysicalExpr>, Steps),
}

impl Key {
    fn of(expr: Arc<dyn PhysicalExpr>, scan: &SeriesScanExec) -> Result<Option<Self>> {
        if is_of_labels(&expr, scan.columns()) {
            return Ok(Some(Self::Series(expr)));
        }
        let kinds = scan.columns().kinds();
        let of_time = |i: usize| kinds.get(i) == Some(&ColumnKind::Timestamp);
        let Some((mint, maxt)) = scan.times() else { return Ok(None) };
        if !collect_columns(&expr).iter().all(|column| of_time(column.index())) {
            return Ok(None);
        }
        Ok(Steps::of(&expr, mint, maxt)?.map(|steps| Self::Time(expr, steps)))
    }
}

/// An aggregate function, with its arguments in terms of the scan's columns.
#[derive(Debug, Clone)]
struct Fold {
    function: Arc<AggregateFunctionExpr>,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    /// Rows for which this is not true are left out.
    condition: Option<Arc<dyn PhysicalExpr>>,
}

/// Groups and the states of their aggregates, in the form of an aggregate's first phase.
#[derive(Debug)]
struct SeriesAggregateExec {
    scan: Arc<SeriesScanExec>,
    keys: Vec<Key>,
    /// Over the columns `read`.
    folds: Vec<Fold>,
    read: Columns,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl SeriesAggregateExec {
    fn try_new(scan: &SeriesScanExec, keys: Vec<Key>, folds: Vec<Fold>, schema: SchemaRef) -> Result<Self> {
        let exprs = folds.iter().flat_map(|fold| fold.arguments.iter().chain(&fold.condition));
        let mut wanted: Vec<_> = exprs.flat_map(collect_columns).map(|column| column.index()).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let read = scan.columns().project(Some(&wanted));
        let over_read = |expr: Arc<dyn PhysicalExpr>| reassign_expr_columns(expr, read.schema());
        let folds = folds.into_iter().map(|fold| {
            let arguments = fold.arguments.into_iter().map(over_read).collect::<Result<_>>()?;
            Ok(Fold { arguments, condition: fold.condition.map(over_read).transpose()?, ..fold })
        });
        let folds = folds.collect::<Result<_>>()?;
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(scan.partitions()),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Ok(Self {
            scan: Arc::new(scan.giving(super::PerSeries::All)),
            keys,
            folds,
            read,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

impl DisplayAs for SeriesAggregateExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut of_series, mut of_time) = (Vec::new(), Vec::new());
        for key in &self.keys {
            match key {
                Key::Series(expr) => of_series.push(expr.to_string()),
                Key::Time(expr, _) => of_time.push(expr.to_string()),
            }
        }
        let aggregates = self.folds.iter().map(|fold| fold.function.name()).collect::<Vec<_>>().join(", ");
        write!(f, "SeriesAggregateExec: by series=[{}]", of_series.join(", "))?;
        write!(f, ", by time=[{}], aggr=[{aggregates}], ", of_time.join(", "))?;
        self.scan.fmt_as(t, f)
    }
}

impl ExecutionPlan for SeriesAggregateExec {
    fn name(&self) -> &'static str {
        "SeriesAggregateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { exec_err!("an aggregate of series has no children") }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let batch_rows = context.session_config().batch_size();
        let memory = MemoryConsumer::new(format!("{}[{partition}]", self.name()));
        let running = Running {
            series: self.scan.series(partition, batch_rows, Needed::All),
            columns: self.scan.columns().clone(),
            read: self.read.clone(),
            groups: Groups::new(&self.keys, &self.folds, self.schema())?,
            batches: 0,
            memory: memory.register(context.memory_pool()),
            metrics: BaselineMetrics::new(&self.metrics, partition),
        };
        let batches = stream::try_unfold(Some(running), async move |running| {
            let Some(mut running) = running else { return Ok::<_, DataFusionError>(None) };
            let (batch, more) = running.next().await?;
            running.metrics.output_rows().add(batch.num_rows());
            Ok(Some((batch, more.then_some(running))))
        });
        let slices = batches.map_ok(move |batch| {
            let rows = batch.num_rows();
            let starts = (0..rows).step_by(batch_rows.max(1));
            stream::iter(starts.map(move |at| Ok(batch.slice(at, batch_rows.min(rows - at)))))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), slices.try_flatten())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        self.scan.forget_streams();
        Ok(self)
    }
}

/// A partition on its way.
struct Running {
    series: BoxStream<'static, Result<SeriesBatch>>,
    columns: Columns,
    read: Columns,
    groups: Groups,
    batches: usize,
    memory: MemoryReservation,
    metrics: BaselineMetrics,
}

impl Running {
    /// Groups, and whether there may be more of them.
    async fn next(&mut self) -> Result<(RecordBatch, bool)> {
        while let Some(batch) = self.series.try_next().await? {
            {
                let _timer = self.metrics.elapsed_compute().timer();
                self.groups.add(&decode::series_rows(batch, &self.columns, &self.read)?)?;
                self.batches += 1;
                let count = self.batches.is_multiple_of(COUNTED_BATCHES);
                let short = count && self.memory.try_resize(self.groups.size()).is_err();
                if short || self.groups.len() >= GROUPS {
                    let groups = self.groups.take()?;
                    self.memory.resize(self.groups.size());
                    return Ok((groups, true));
                }
            }
            tokio::task::consume_budget().await;
        }
        let _timer = self.metrics.elapsed_compute().timer();
        Ok((self.groups.take()?, false))
    }
}

/// Groups so far.
struct Groups {
    schema: SchemaRef,
    /// What the columns of the key are.
    keys: Vec<KeyColumn>,
    of_series: Vec<Arc<dyn PhysicalExpr>>,
    converter: RowConverter,
    /// By the labels' values, numbers of sets of series.
    sets: HashMap<OwnedRow, u32>,
    rows: Vec<OwnedRow>,
    staircases: Vec<Staircase>,
    /// By the number of a set of series and those of steps.
    numbers: HashMap<Box<[u32]>, usize>,
    of_groups: Vec<Box<[u32]>>,
    states: Vec<State>,
}

/// Where a column of the key comes from.
#[derive(Debug, Clone, Copy)]
enum KeyColumn {
    Series(usize),
    Time(usize),
}

impl Groups {
    fn new(keys: &[Key], folds: &[Fold], schema: SchemaRef) -> Result<Self> {
        let (mut of_series, mut staircases, mut columns, mut fields) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (key, field) in keys.iter().zip(schema.fields()) {
            columns.push(match key {
                Key::Series(expr) => {
                    of_series.push(Arc::clone(expr));
                    fields.push(SortField::new(field.data_type().clone()));
                    KeyColumn::Series(of_series.len() - 1)
                }
                Key::Time(_, steps) => {
                    staircases.push(Staircase::new(steps.clone()));
                    KeyColumn::Time(staircases.len() - 1)
                }
            });
        }
        Ok(Self {
            schema,
            keys: columns,
            of_series,
            converter: RowConverter::new(fields)?,
            sets: HashMap::new(),
            rows: Vec::new(),
            staircases,
            numbers: HashMap::new(),
            of_groups: Vec::new(),
            states: folds.iter().map(State::new).collect::<Result<_>>()?,
        })
    }

    fn len(&self) -> usize {
        self.of_groups.len()
    }

    fn add(&mut self, rows: &SeriesRows) -> Result<()> {
        let runs = self.runs(rows)?;
        let mut of_rows = Vec::with_capacity(rows.timestamps.len());
        for run in &runs {
            of_rows.resize(run.end, run.group);
        }
        let groups = self.len();
        self.states.iter_mut().try_for_each(|state| state.add(&rows.all, &runs, &of_rows, groups))
    }

    /// The runs that `rows` are made of, one after the other.
    fn runs(&mut self, rows: &SeriesRows) -> Result<Vec<Run>> {
        let sets = self.sets(&rows.first)?;
        let mut runs = Vec::with_capacity(sets.len());
        let (mut key, mut start) = (vec![0; 1 + self.staircases.len()], 0);
        for (&set, &end) in sets.iter().zip(&rows.ends) {
            key[0] = set;
            while start < end {
                let mut length = end - start;
                for (i, staircase) in self.staircases.iter_mut().enumerate() {
                    let (step, reach) = staircase.run(&rows.timestamps[start..start + length])?;
                    key[1 + i] = step;
                    length = reach;
                }
                start += length;
                runs.push(Run { group: self.group(&key), end: start });
            }
        }
        Ok(runs)
    }

    fn group(&mut self, key: &[u32]) -> usize {
        if let Some(&group) = self.numbers.get(key) {
            return group;
        }
        let group = self.of_groups.len();
        self.numbers.insert(key.into(), group);
        self.of_groups.push(key.into());
        group
    }

    /// The number of each series' set.
    fn sets(&mut self, series: &RecordBatch) -> Result<Vec<u32>> {
        let rows = series.num_rows();
        if self.of_series.is_empty() {
            return Ok(vec![0; rows]);
        }
        let values = self.of_series.iter().map(|expr| expr.evaluate(series)?.into_array(rows));
        let converted = self.converter.convert_columns(&values.collect::<Result<Vec<_>>>()?)?;
        let mut sets = Vec::with_capacity(rows);
        for row in &converted {
            let row = row.owned();
            let next = u32::try_from(self.rows.len()).expect("groups are limited");
            let set = *self.sets.entry(row.clone()).or_insert(next);
            if set == next {
                self.rows.push(row);
            }
            sets.push(set);
        }
        Ok(sets)
    }

    /// All groups with their states; they are forgotten.
    fn take(&mut self) -> Result<RecordBatch> {
        let groups = std::mem::take(&mut self.of_groups);
        self.numbers.clear();
        let number = |place: usize| groups.iter().map(|key| key[place]).collect::<Vec<_>>();
        let of_series = self.converter.convert_rows(self.rows.iter().map(OwnedRow::row))?;
        let sets = UInt32Array::from(number(0));
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for key in &self.keys {
            columns.push(match key {
                KeyColumn::Series(i) => take(&of_series[*i], &sets, None)?,
                KeyColumn::Time(i) => self.staircases[*i].values(&number(1 + i))?,
            });
        }
        (self.sets, self.rows) = (HashMap::new(), Vec::new());
        for state in &mut self.states {
            columns.extend(state.take()?);
        }
        let typed = columns.into_iter().zip(self.schema.fields()).map(|(column, field)| {
            if column.data_type() == field.data_type() {
                Ok(column)
            } else {
                cast(&column, field.data_type())
            }
        });
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), typed.collect::<Result<_, _>>()?)?)
    }

    /// Bytes held, about.
    fn size(&self) -> usize {
        let of_rows: usize = self.rows.iter().map(|row| 2 * row.as_ref().len() + 64).sum();
        let of_groups = self.of_groups.len() * (2 * 4 * (1 + self.staircases.len()) + 64);
        let of_steps: usize = self.staircases.iter().map(Staircase::size).sum();
        of_rows + of_groups + of_steps + self.states.iter().map(State::size).sum::<usize>()
    }
}

/// Rows of one group that stand one after the other, up to `end`.
#[derive(Debug, Clone, Copy)]
struct Run {
    group: usize,
    end: usize,
}

/// One aggregate of all groups.
struct State {
    fold: Fold,
    accumulators: Accumulators,
}

enum Accumulators {
    OfAll(Box<dyn GroupsAccumulator>),
    /// By group. A run goes to its accumulator whole.
    Each(Vec<Box<dyn Accumulator>>),
}

impl State {
    fn new(fold: &Fold) -> Result<Self> {
        let accumulators = if fold.function.groups_accumulator_supported() {
            Accumulators::OfAll(fold.function.create_groups_accumulator()?)
        } else {
            Accumulators::Each(Vec::new())
        };
        Ok(Self { fold: fold.clone(), accumulators })
    }

    fn add(&mut self, rows: &RecordBatch, runs: &[Run], of_rows: &[usize], groups: usize) -> Result<()> {
        let count = of_rows.len();
        let arguments = self.fold.arguments.iter().map(|expr| expr.evaluate(rows)?.into_array(count));
        let arguments = arguments.collect::<Result<Vec<_>>>()?;
        let kept =
            self.fold.condition.as_ref().map(|expr| expr.evaluate(rows)?.into_array(count)).transpose()?;
        let kept: Option<&BooleanArray> = kept.as_ref().map(|kept| kept.as_boolean());
        match &mut self.accumulators {
            Accumulators::OfAll(all) => all.update_batch(&arguments, of_rows, kept, groups),
            Accumulators::Each(each) => {
                while each.len() < groups {
                    each.push(self.fold.function.create_accumulator()?);
                }
                let mut start = 0;
                for run in runs {
                    let length = run.end - start;
                    let of_run = |column: &ArrayRef| match kept {
                        Some(kept) => filter(&column.slice(start, length), &kept.slice(start, length)),
                        None => Ok(column.slice(start, length)),
                    };
                    let arguments = arguments.iter().map(of_run).collect::<Result<Vec<_>, _>>()?;
                    each[run.group].update_batch(&arguments)?;
                    start = run.end;
                }
                Ok(())
            }
        }
    }

    /// The states of all groups, which are forgotten.
    fn take(&mut self) -> Result<Vec<ArrayRef>> {
        let each = match &mut self.accumulators {
            Accumulators::OfAll(all) => return all.state(EmitTo::All),
            Accumulators::Each(each) => std::mem::take(each),
        };
        let fields = self.fold.function.state_fields()?;
        let mut columns = vec![Vec::with_capacity(each.len()); fields.len()];
        for mut accumulator in each {
            for (column, value) in columns.iter_mut().zip(accumulator.state()?) {
                column.push(value);
            }
        }
        let columns = columns.into_iter().zip(&fields).map(|(values, field)| match values.is_empty() {
            true => Ok(arrow::array::new_empty_array(field.data_type())),
            false => ScalarValue::iter_to_array(values),
        });
        columns.collect()
    }

    fn size(&self) -> usize {
        match &self.accumulators {
            Accumulators::OfAll(all) => all.size(),
            Accumulators::Each(each) => each.iter().map(|accumulator| accumulator.size()).sum(),
        }
    }
}
