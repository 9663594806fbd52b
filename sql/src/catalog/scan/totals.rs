//! [`SeriesTotalsExec`]: rows are counted where they are decoded.
//!
//! `SELECT job, count(*), max(timestamp) FROM up GROUP BY job` needs of each series how many rows it has and when its
//! newest is. This takes the place of an aggregate's first phase and of the scan below: a row per series goes to the
//! second phase, and neither labels nor timestamps of single samples are ever written.
//!
//! Samples are decoded all the same where rows are counted: chunk headers count stale markers, and nothing but the
//! values tells them.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, TimestampMillisecondArray};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, exec_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputOrderMode, Partitioning, PlanProperties,
};
use futures::StreamExt;
use promontory_tsdb::Needed;

use super::decode::{self, SeriesTotals};
use super::exec::SeriesScanExec;
use super::per_series::{has_histograms, in_place_of_first_phase, is_of_labels, kind_of};
use crate::catalog::columns::{ColumnKind, Columns};

/// What of a series is aggregated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Total {
    Rows,
    Oldest,
    Newest,
}

impl Total {
    /// What `function` aggregates, if it is one of these.
    fn of(function: &AggregateFunctionExpr, columns: &Columns) -> Option<Self> {
        if function.is_distinct() || !function.order_bys().is_empty() {
            return None;
        }
        let arguments = function.expressions();
        let [argument] = &arguments[..] else { return None };
        let kind = kind_of(argument, columns);
        let constant = argument.downcast_ref::<Literal>().is_some_and(|literal| !literal.value().is_null());
        let never_null = match kind {
            Some(ColumnKind::Timestamp) => true,
            Some(ColumnKind::Value) => !has_histograms(columns),
            _ => constant,
        };
        match (function.fun().name(), kind) {
            ("count", _) if never_null => Some(Self::Rows),
            ("min", Some(ColumnKind::Timestamp)) => Some(Self::Oldest),
            ("max", Some(ColumnKind::Timestamp)) => Some(Self::Newest),
            _ => None,
        }
    }

    fn column(self, of: &[SeriesTotals]) -> ArrayRef {
        let times = |time: fn(&SeriesTotals) -> i64| {
            TimestampMillisecondArray::from_iter_values(of.iter().map(time)).with_timezone("UTC")
        };
        match self {
            Self::Rows => Arc::new(Int64Array::from_iter_values(of.iter().map(|series| series.rows))),
            Self::Oldest => Arc::new(times(|series| series.oldest)),
            Self::Newest => Arc::new(times(|series| series.newest)),
        }
    }
}

/// What takes the place of `aggregate` over `scan`, if totals of series are all that it needs.
pub(super) fn in_place_of(
    aggregate: &AggregateExec,
    scan: &SeriesScanExec,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let columns = scan.columns();
    let grouping = aggregate.group_expr();
    let plain = grouping.is_single()
        && aggregate.limit_options().is_none()
        && *aggregate.input_order_mode() == InputOrderMode::Linear
        && aggregate.filter_expr().iter().all(Option::is_none)
        && grouping.expr().iter().all(|(expr, _)| is_of_labels(expr, columns));
    let totals: Option<Vec<_>> =
        aggregate.aggr_expr().iter().map(|function| Total::of(function, columns)).collect();
    let Some(totals) = totals.filter(|totals| plain && !totals.is_empty()) else { return Ok(None) };
    let groups: Vec<_> = grouping.expr().iter().map(|(expr, _)| Arc::clone(expr)).collect();
    in_place_of_first_phase(aggregate, scan, |schema| {
        Ok(Arc::new(SeriesTotalsExec::new(scan, groups, totals, schema)))
    })
}

/// A row per series: the groups it belongs to, and its totals in the form of an aggregate's first phase.
#[derive(Debug)]
struct SeriesTotalsExec {
    scan: Arc<SeriesScanExec>,
    groups: Vec<Arc<dyn PhysicalExpr>>,
    totals: Vec<Total>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl SeriesTotalsExec {
    fn new(
        scan: &SeriesScanExec,
        groups: Vec<Arc<dyn PhysicalExpr>>,
        totals: Vec<Total>,
        schema: arrow::datatypes::SchemaRef,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(scan.partitions()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            scan: Arc::new(scan.giving(super::PerSeries::All)),
            groups,
            totals,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    fn needed(&self) -> Needed {
        if self.totals.contains(&Total::Rows) { Needed::All } else { Needed::LiveEnds }
    }
}

impl DisplayAs for SeriesTotalsExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let totals = self.totals.iter().map(|total| match total {
            Total::Rows => "rows",
            Total::Oldest => "oldest",
            Total::Newest => "newest",
        });
        let totals = totals.collect::<Vec<_>>().join(", ");
        write!(f, "SeriesTotalsExec: groups=[{groups}], totals=[{totals}]")?;
        if self.needed() != Needed::All {
            write!(f, ", rows=first and last of each series")?;
        }
        write!(f, ", ")?;
        self.scan.fmt_as(t, f)
    }
}

impl ExecutionPlan for SeriesTotalsExec {
    fn name(&self) -> &'static str {
        "SeriesTotalsExec"
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
        if children.is_empty() { Ok(self) } else { exec_err!("totals of series have no children") }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let batch_rows = context.session_config().batch_size();
        let series = self.scan.series(partition, batch_rows, self.needed());
        let columns = self.scan.columns().clone();
        let (groups, totals, schema) = (self.groups.clone(), self.totals.clone(), self.schema());
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let rows = series.map(move |batch| {
            let _timer = metrics.elapsed_compute().timer();
            let (of_series, first_rows) = decode::totals(batch?, &columns)?;
            let mut arrays = Vec::with_capacity(schema.fields().len());
            for group in &groups {
                arrays.push(group.evaluate(&first_rows)?.into_array(of_series.len())?);
            }
            arrays.extend(totals.iter().map(|total| total.column(&of_series)));
            let options = RecordBatchOptions::new().with_row_count(Some(of_series.len()));
            let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), arrays, &options)?;
            metrics.output_rows().add(batch.num_rows());
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        self.scan.forget_streams();
        Ok(self)
    }
}
