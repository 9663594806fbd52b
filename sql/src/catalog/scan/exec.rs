//! [`SeriesScanExec`]: the leaf of a plan, one partition per core.
//!
//! # Order
//! Within a partition series come in label order with ascending time, but that is Prometheus' order, in which a
//! missing label sorts by the next label's name and not as a NULL; so none is declared. Of a single series, rows
//! ascend in time and labels are constant, and that is declared; it is selected when the plan is made, so that no
//! second one can come up.
//!
//! # Snapshot
//! The source is asked once per run of the plan, when its first partition is polled, so that all
//! partitions show the same moment.
//!
//! # Cancellation
//! Dropping a partition's stream drops the source's stream; between batches DataFusion's
//! cooperative scheduling gives others their turn.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, Statistics, exec_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    AcrossPartitions, ConstExpr, EquivalenceProperties, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use promontory_tsdb::{Matcher, Needed, Queryable, SelectHints, SeriesBatch, SeriesStream, TimestampMs};

use crate::catalog::columns::{ColumnKind, Columns};
use crate::catalog::scan::pushdown::Pushed;
use crate::catalog::scan::{PerSeries, Rows, decode};

/// As many series are counted exactly when a plan is made.
const FEW_SERIES: u64 = 256;
/// How far samples of a series are apart, as far as estimates are concerned.
const ASSUMED_INTERVAL_MS: u64 = 30_000;

/// Reads series of a [`Queryable`] as record batches.
#[derive(Debug)]
pub(crate) struct SeriesScanExec {
    table: String,
    columns: Columns,
    limit: Option<usize>,
    per_series: PerSeries,
    selection: Arc<PendingSelection>,
    /// Series, and rows of all of them.
    rows_estimate: Option<(usize, usize)>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl SeriesScanExec {
    /// A scan with at most `partitions` partitions.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub(crate) fn try_new(
        table: String,
        source: Arc<dyn Queryable>,
        pushed: Pushed,
        columns: Columns,
        rows: Rows,
        limit: Option<usize>,
        partitions: usize,
    ) -> Result<Self> {
        let request = Request { source, pushed, rows };
        let (series, rows_estimate) = request.estimate()?;
        let partitions = partitions.clamp(1, series.max(1));
        let selection = PendingSelection::new(request);
        let mut equivalence = EquivalenceProperties::new(Arc::clone(columns.schema()));
        if series == 1 && rows == Rows::Samples && selection.select_one()? {
            order_of_one(&columns, &mut equivalence)?;
        }
        let properties = Arc::new(PlanProperties::new(
            equivalence,
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        Ok(Self {
            table,
            columns,
            limit,
            per_series: PerSeries::All,
            selection: Arc::new(selection),
            rows_estimate: rows_estimate.map(|rows| (series, rows)),
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// Its columns.
    pub(crate) fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Whether it gives all rows that there are.
    pub(crate) fn is_whole(&self) -> bool {
        self.limit.is_none()
            && self.per_series == PerSeries::All
            && self.selection.request.rows == Rows::Samples
    }

    /// The same, giving other rows of each series.
    pub(crate) fn giving(&self, per_series: PerSeries) -> Self {
        Self {
            table: self.table.clone(),
            columns: self.columns.clone(),
            limit: self.limit,
            per_series,
            selection: Arc::clone(&self.selection),
            rows_estimate: self.rows_estimate,
            properties: Arc::clone(&self.properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// Series of `partition`, with what is `needed` of their samples.
    pub(crate) fn series(
        &self,
        partition: usize,
        batch_rows: usize,
        needed: Needed,
    ) -> BoxStream<'static, Result<SeriesBatch>> {
        let rows = self.selection.request.rows;
        let hints = SelectHints {
            partitions: self.partitions(),
            batch_samples: self.limit.map_or(batch_rows, |limit| limit.clamp(1, batch_rows)),
            labels_only: rows == Rows::Series,
            series_limit: if rows == Rows::Series { self.limit.unwrap_or_default() } else { 0 },
            needed,
            ..SelectHints::default()
        };
        let selection = Arc::clone(&self.selection);
        // Where histograms are no rows, the one sample that comes may be one, and the float that counts another.
        let only_floats = needed != Needed::All && !self.columns.with_histograms();
        let whole = Arc::clone(&self.selection);
        stream::once(async move { selection.take(partition, &hints) })
            .map_ok(|stream| stream.map_err(storage_error))
            .try_flatten()
            .and_then(move |batch| {
                let whole = Arc::clone(&whole);
                async move {
                    let complete = !only_floats || batch.histograms.is_empty();
                    if complete { Ok(batch) } else { whole.request.read_again(batch).await }
                }
            })
            .boxed()
    }

    /// The times that are asked for, in ms since the epoch, as far as there is data; `None` if nothing can be in it.
    pub(crate) fn times(&self) -> Option<(TimestampMs, TimestampMs)> {
        self.selection.request.range()
    }

    /// The next run of the plan asks the source anew.
    pub(crate) fn forget_streams(&self) {
        self.selection.streams.lock().clear();
    }

    /// Runs of series that are read side by side.
    pub(crate) fn partitions(&self) -> usize {
        self.properties.partitioning.partition_count()
    }
}

impl DisplayAs for SeriesScanExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { pushed, .. } = &self.selection.request;
        let matchers = pushed.matchers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let columns = self.columns.schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>();
        if matches!(t, DisplayFormatType::TreeRender) {
            return write!(f, "table={}", self.table);
        }
        write!(f, "SeriesScanExec: table={}, matchers={{{matchers}}}", self.table)?;
        if pushed.is_empty() {
            write!(f, ", time=never")?;
        } else {
            write!(f, ", time=[{}, {}]", TimeBound(pushed.mint), TimeBound(pushed.maxt))?;
        }
        write!(f, ", columns=[{}]", columns.join(", "))?;
        match self.per_series {
            PerSeries::All => {}
            PerSeries::Any => write!(f, ", rows=any of each series")?,
            PerSeries::First => write!(f, ", rows=first of each series")?,
            PerSeries::Last => write!(f, ", rows=last of each series")?,
        }
        if let Some(limit) = self.limit {
            write!(f, ", limit={limit}")?;
        }
        write!(f, ", partitions={}", self.partitions())
    }
}

/// An end of a closed time range, for people.
struct TimeBound(TimestampMs);

impl fmt::Display for TimeBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match chrono::DateTime::from_timestamp_millis(self.0) {
            _ if self.0 == TimestampMs::MIN => f.write_str("-inf"),
            _ if self.0 == TimestampMs::MAX => f.write_str("+inf"),
            Some(time) => f.write_str(&time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)),
            None => write!(f, "{} ms", self.0),
        }
    }
}

impl ExecutionPlan for SeriesScanExec {
    fn name(&self) -> &'static str {
        "SeriesScanExec"
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
        if children.is_empty() { Ok(self) } else { exec_err!("a scan of {} has no children", self.table) }
    }

    /// A projection that only leaves out, repeats or orders columns is done here.
    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExec,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let column = |expr: &ProjectionExpr| expr.expr.downcast_ref::<Column>().map(Column::index);
        let Some(wanted) = projection.expr().iter().map(column).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let names = projection.expr().iter().map(|expr| expr.alias.as_str());
        let columns = self.columns.project(Some(&wanted)).named(names);
        let mut scan = self.giving(self.per_series);
        if *columns.schema() != projection.schema() {
            return Ok(None);
        }
        let mapping = projection.projection_expr().projection_mapping(self.columns.schema())?;
        let equivalence = self.properties.eq_properties.project(&mapping, Arc::clone(columns.schema()));
        scan.properties = Arc::new(self.properties.as_ref().clone().with_eq_properties(equivalence));
        scan.columns = columns;
        Ok(Some(Arc::new(scan)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let batch_rows = context.session_config().batch_size();
        let rows = self.selection.request.rows;
        let needed = match self.per_series {
            PerSeries::All => Needed::All,
            PerSeries::Any => Needed::AnyLive,
            PerSeries::First => Needed::OldestLive,
            PerSeries::Last => Needed::NewestLive,
        };
        let series = self.series(partition, batch_rows, needed);
        let (columns, per_series) = (self.columns.clone(), self.per_series);
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let batches = series
            .map(move |batch| {
                let _timer = metrics.elapsed_compute().timer();
                let batch = decode::decode(batch?, rows, per_series, &columns)?;
                metrics.output_rows().add(batch.num_rows());
                Ok::<_, DataFusionError>(batch)
            })
            .map_ok(move |batch| stream::iter(slices(batch, batch_rows).map(Ok)))
            .try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), limited(batches, self.limit))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        self.forget_streams();
        Ok(self)
    }

    fn statistics_from_inputs(
        &self,
        _input_stats: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(self.columns.schema());
        if let (Some((series, rows)), None) = (self.rows_estimate, args.partition()) {
            let rows = if self.per_series == PerSeries::All { rows } else { series };
            // Stale markers are counted and the ends of chunks stick out of the time range.
            statistics.num_rows = Precision::Inexact(self.limit.map_or(rows, |limit| rows.min(limit)));
        }
        Ok(Arc::new(statistics))
    }
}

/// What to ask the source for.
#[derive(Debug)]
struct Request {
    source: Arc<dyn Queryable>,
    pushed: Pushed,
    rows: Rows,
}

impl Request {
    /// The time range, without ends so far out that arithmetic on them could overflow.
    ///
    /// `None` if nothing can be in it.
    fn range(&self) -> Option<(TimestampMs, TimestampMs)> {
        if self.pushed.is_empty() {
            return None;
        }
        let (oldest, newest) = self.source.time_bounds()?;
        let (mint, maxt) = (self.pushed.mint.max(oldest), self.pushed.maxt.min(newest));
        (mint <= maxt).then_some((mint, maxt))
    }

    /// About how many series, and rows: of few series from chunk headers, of many from postings alone, for a plan must
    /// not cost as much as its query.
    fn estimate(&self) -> Result<(usize, Option<usize>)> {
        let Some((mint, maxt)) = self.range() else { return Ok((0, Some(0))) };
        let matchers = &self.pushed.matchers;
        let mut series = self.source.series_estimate(matchers, mint, maxt).map_err(storage_error)?;
        let mut rows = series.saturating_mul(maxt.abs_diff(mint) / ASSUMED_INTERVAL_MS + 1);
        if series <= FEW_SERIES {
            let stats = self.source.series_stats(matchers, mint, maxt).map_err(storage_error)?;
            (series, rows) = (stats.series, stats.samples);
        }
        let series = usize::try_from(series).unwrap_or(usize::MAX);
        let rows = match self.rows {
            Rows::Series => Some(series),
            Rows::Samples => usize::try_from(rows).ok(),
        };
        Ok((series, rows))
    }

    /// The series of `batch` with all their samples.
    async fn read_again(&self, batch: SeriesBatch) -> Result<SeriesBatch> {
        let mut whole = SeriesBatch::new();
        let Some((mint, maxt)) = self.range() else { return Ok(whole) };
        for labels in batch.labels {
            let matchers: Vec<_> = labels.iter().map(|(name, value)| Matcher::eq(name, value)).collect();
            let selection = self.source.select(&matchers, mint, maxt, &SelectHints::default());
            for mut partition in selection.map_err(storage_error)?.partitions {
                while let Some(found) = partition.try_next().await.map_err(storage_error)? {
                    let Some(i) = found.labels.iter().position(|other| *other == labels) else { continue };
                    let (_, timestamps, values) = found.series(i);
                    whole.timestamps.extend_from_slice(timestamps);
                    whole.values.extend_from_slice(values);
                }
            }
            whole.finish_series(labels);
        }
        Ok(whole)
    }

    /// Number of series, an upper bound, and a stream per partition.
    fn select(&self, hints: &SelectHints) -> promontory_tsdb::Result<(u64, Vec<SeriesStream>)> {
        let Some((mint, maxt)) = self.range() else {
            let nothing = (0..hints.partitions).map(|_| Box::pin(stream::empty()) as SeriesStream);
            return Ok((0, nothing.collect()));
        };
        let selection = self.source.select(&self.pushed.matchers, mint, maxt, hints)?;
        Ok((selection.series, selection.partitions))
    }
}

/// Rows of one series ascend in time, and its labels stay.
fn order_of_one(columns: &Columns, equivalence: &mut EquivalenceProperties) -> Result<()> {
    let column =
        |i: usize| Arc::new(Column::new(columns.schema().field(i).name(), i)) as Arc<dyn PhysicalExpr>;
    if let Some(i) = columns.timestamp() {
        let ascending = SortOptions { descending: false, nulls_first: false };
        equivalence.add_ordering([PhysicalSortExpr::new(column(i), ascending)]);
    }
    let labels = columns
        .kinds()
        .iter()
        .enumerate()
        .filter(|(_, kind)| matches!(kind, ColumnKind::Label(_) | ColumnKind::LabelsJson));
    let constants = labels.map(|(i, _)| ConstExpr::new(column(i), AcrossPartitions::Uniform(None)));
    equivalence.add_constants(constants)
}

/// The streams of one selection, waiting for their partitions to be executed.
struct PendingSelection {
    request: Request,
    streams: Mutex<Vec<Option<SeriesStream>>>,
    /// Plans rely on there being no more than one series.
    only_one: AtomicBool,
}

impl PendingSelection {
    fn new(request: Request) -> Self {
        Self { request, streams: Mutex::default(), only_one: AtomicBool::new(false) }
    }

    /// Selects now if that gives no more than one series; says whether it does.
    fn select_one(&self) -> Result<bool> {
        let hints = SelectHints { partitions: 1, ..SelectHints::default() };
        let (series, streams) = self.request.select(&hints).map_err(storage_error)?;
        if series > 1 {
            return Ok(false);
        }
        *self.streams.lock() = streams.into_iter().map(Some).collect();
        self.only_one.store(true, Ordering::Relaxed);
        Ok(true)
    }

    /// The stream of `partition`. A partition that is asked for twice starts a new selection: the
    /// plan is being run again.
    fn take(&self, partition: usize, hints: &SelectHints) -> Result<SeriesStream> {
        let mut streams = self.streams.lock();
        if let Some(stream) = streams.get_mut(partition).and_then(Option::take) {
            return Ok(stream);
        }
        let (series, selected) = self.request.select(hints).map_err(storage_error)?;
        if series > 1 && self.only_one.load(Ordering::Relaxed) {
            return exec_err!("a series came up while the statement was running: run it again");
        }
        *streams = selected.into_iter().map(Some).collect();
        let stream = streams.get_mut(partition).and_then(Option::take);
        Ok(stream.unwrap_or_else(|| Box::pin(stream::empty())))
    }
}

impl fmt::Debug for PendingSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingSelection").field("request", &self.request).finish_non_exhaustive()
    }
}

/// `batch` in pieces of at most `rows` rows that share its buffers: one series may be years long.
fn slices(batch: RecordBatch, rows: usize) -> impl Iterator<Item = RecordBatch> {
    let rows = rows.max(1);
    (0..batch.num_rows()).step_by(rows).map(move |at| batch.slice(at, rows.min(batch.num_rows() - at)))
}

/// The first `limit` rows. The source is dropped with the last of them.
fn limited(
    batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
    limit: Option<usize>,
) -> BoxStream<'static, Result<RecordBatch>> {
    let Some(limit) = limit else { return batches.boxed() };
    stream::try_unfold((batches.boxed(), limit), async |(mut batches, left)| {
        if left == 0 {
            return Ok(None);
        }
        let Some(batch) = batches.try_next().await? else { return Ok(None) };
        let batch = if batch.num_rows() > left { batch.slice(0, left) } else { batch };
        let left = left - batch.num_rows();
        Ok(Some((batch, (batches, left))))
    })
    .boxed()
}

/// Keeps the storage error whole, so that its kind finds its SQLSTATE.
pub(crate) fn storage_error(error: promontory_tsdb::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
