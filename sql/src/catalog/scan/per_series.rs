//! [`OneRowPerSeries`]: aggregates for which one row of each series is enough.
//!
//! `SELECT DISTINCT job` needs to know that a series has a row; the last value per series (`DISTINCT ON (…) … ORDER BY
//! timestamp DESC`, `last(timestamp, value)`, `max(timestamp)`) needs its newest. Where groups are made of labels
//! alone and all aggregates look at one end, the scan gives that row of each series and the aggregate sees one row
//! where there were thousands. Where rows are counted as well, the scan counts them per series ([`totals`]), and where
//! more is asked of them, they are at least grouped by the run and not by the row ([`aggregate`]).

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, config::ConfigOptions};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, expressions::Column};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::{
    ExecutionPlan, ExecutionPlanProperties, Partitioning, replace_children_if_necessary,
};

use super::exec::SeriesScanExec;
use super::{aggregate, totals};
use crate::catalog::columns::{ColumnKind, Columns};

/// Which rows of a series a scan gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PerSeries {
    /// All.
    All,
    /// Any one.
    Any,
    /// The oldest.
    First,
    /// The newest.
    Last,
}

/// The rule. It comes last, when it is settled which aggregate stands over the scan.
#[derive(Debug)]
pub(crate) struct OneRowPerSeries;

impl PhysicalOptimizerRule for OneRowPerSeries {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let Some(aggregate) = node.downcast_ref::<AggregateExec>() else {
                return Ok(Transformed::no(node));
            };
            let Some(scan) = scan_below(aggregate.input()) else { return over_runs(aggregate, &node) };
            let wanted = rows_needed(aggregate, scan.columns());
            if wanted == PerSeries::All {
                let totals = totals::in_place_of(aggregate, scan)?;
                return match totals {
                    Some(totals) => Ok(Transformed::yes(totals)),
                    None => over_runs(aggregate, &node),
                };
            }
            let scan = Arc::new(scan.giving(wanted)) as Arc<dyn ExecutionPlan>;
            let input = with_scan(aggregate.input(), &scan)?;
            Ok(Transformed::yes(replace_children_if_necessary(node, vec![input])?))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "one_row_per_series"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn over_runs(
    aggregate: &AggregateExec,
    node: &Arc<dyn ExecutionPlan>,
) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let runs = aggregate::in_place_of(aggregate)?;
    Ok(runs.map_or_else(|| Transformed::no(Arc::clone(node)), Transformed::yes))
}

/// The scan below, past operators that pass all rows on as they are.
pub(super) fn scan_below(plan: &Arc<dyn ExecutionPlan>) -> Option<&SeriesScanExec> {
    if let Some(scan) = plan.downcast_ref::<SeriesScanExec>() {
        return scan.is_whole().then_some(scan);
    }
    match plan.name() {
        "RepartitionExec" if !matches!(plan.output_partitioning(), Partitioning::RoundRobinBatch(_)) => None,
        "CooperativeExec" | "RepartitionExec" | "CoalescePartitionsExec" => {
            plan.children().first().copied().and_then(scan_below)
        }
        _ => None,
    }
}

/// `plan` over `scan` in place of the one that [`scan_below`] finds.
pub(super) fn with_scan(
    plan: &Arc<dyn ExecutionPlan>,
    scan: &Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>> {
    match plan.children().first() {
        None => Ok(Arc::clone(scan)),
        Some(below) => replace_children_if_necessary(Arc::clone(plan), vec![with_scan(below, scan)?]),
    }
}

/// `aggregate` with what `first_phase` makes for the given schema in place of its first phase; `None` if it cannot be
/// told apart from the second.
pub(super) fn in_place_of_first_phase(
    aggregate: &AggregateExec,
    scan: &SeriesScanExec,
    first_phase: impl FnOnce(SchemaRef) -> Result<Arc<dyn ExecutionPlan>>,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let one_phase = matches!(aggregate.mode(), AggregateMode::Single | AggregateMode::SinglePartitioned);
    if *aggregate.mode() == AggregateMode::Partial {
        return first_phase(aggregate.schema()).map(Some);
    }
    if !one_phase || scan.partitions() != 1 {
        return Ok(None);
    }
    let (grouping, functions) = (aggregate.group_expr(), aggregate.aggr_expr().to_vec());
    let (filters, schema) = (aggregate.filter_expr().to_vec(), aggregate.input_schema());
    let partial = AggregateExec::try_new(
        AggregateMode::Partial,
        grouping.clone(),
        functions.clone(),
        filters.clone(),
        Arc::clone(aggregate.input()),
        Arc::clone(&schema),
    )?;
    let first_phase = first_phase(partial.schema())?;
    let mode = AggregateMode::Final;
    let last = AggregateExec::try_new(mode, grouping.as_final(), functions, filters, first_phase, schema)?;
    Ok((last.schema() == aggregate.schema()).then(|| Arc::new(last) as _))
}

fn rows_needed(aggregate: &AggregateExec, columns: &Columns) -> PerSeries {
    let groups = aggregate.group_expr().expr();
    let filtered = aggregate.filter_expr().iter().any(Option::is_some);
    if filtered || !groups.iter().all(|(expr, _)| is_of_labels(expr, columns)) {
        return PerSeries::All;
    }
    let mut ends = aggregate.aggr_expr().iter().map(|function| end_looked_at(function, columns));
    match ends.next() {
        // Without an aggregate any row will do.
        None => PerSeries::Any,
        Some(first) if ends.all(|end| end == first) => first,
        Some(_) => PerSeries::All,
    }
}

/// Whether `expr` is the same in all rows of a series.
pub(super) fn is_of_labels(expr: &Arc<dyn PhysicalExpr>, columns: &Columns) -> bool {
    let of_labels = collect_columns(expr).iter().all(|column| {
        matches!(columns.kinds().get(column.index()), Some(ColumnKind::Label(_) | ColumnKind::LabelsJson))
    });
    of_labels && !is_volatile(expr)
}

/// The column that `expr` is.
pub(super) fn kind_of<'a>(expr: &Arc<dyn PhysicalExpr>, columns: &'a Columns) -> Option<&'a ColumnKind> {
    columns.kinds().get(expr.downcast_ref::<Column>()?.index())
}

/// The end of a series that `function` looks at; `All` if it looks at more.
fn end_looked_at(function: &AggregateFunctionExpr, columns: &Columns) -> PerSeries {
    let is_time = |expr: &Arc<dyn PhysicalExpr>| kind_of(expr, columns) == Some(&ColumnKind::Timestamp);
    let over_time = function.expressions().first().is_some_and(is_time);
    // Whether an argument may be NULL in some rows of a series and in others not.
    let nulls = |argument: usize| {
        function.expressions().get(argument).is_none_or(|expr| match kind_of(expr, columns) {
            Some(ColumnKind::Value) => has_histograms(columns),
            Some(ColumnKind::Timestamp) => false,
            _ => !is_of_labels(expr, columns),
        })
    };
    // What is the same in all rows of a series does not order them.
    let order = function.order_bys().iter().find(|order| !is_of_labels(&order.expr, columns));
    match (function.fun().name(), order) {
        ("max", None) if over_time => PerSeries::Last,
        ("min", None) if over_time => PerSeries::First,
        // They leave out values that are NULL.
        ("last", None) if over_time && !nulls(1) => PerSeries::Last,
        ("first", None) if over_time && !nulls(1) => PerSeries::First,
        ("first_value" | "last_value", _) if function.ignore_nulls() && nulls(0) => PerSeries::All,
        (name @ ("first_value" | "last_value"), Some(order)) if is_time(&order.expr) => {
            let newest_first = order.options.descending;
            if (name == "first_value") == newest_first { PerSeries::Last } else { PerSeries::First }
        }
        _ => PerSeries::All,
    }
}

pub(super) fn has_histograms(columns: &Columns) -> bool {
    columns.with_histograms()
}
