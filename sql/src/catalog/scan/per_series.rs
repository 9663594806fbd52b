//! [`OneRowPerSeries`]: aggregates for which one row of each series is enough.
//!
//! `SELECT DISTINCT job` needs to know that a series has a row; the last value per series (`DISTINCT ON (…) … ORDER BY
//! timestamp DESC`, `last(timestamp, value)`, `max(timestamp)`) needs its newest. Where groups are made of labels
//! alone and all aggregates look at one end, the scan gives that row of each series and the aggregate sees one row
//! where there were thousands. Where rows are counted as well, the scan counts them per series ([`totals`]).

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, config::ConfigOptions};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, expressions::Column};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::{
    ExecutionPlan, ExecutionPlanProperties, Partitioning, replace_children_if_necessary,
};

use super::exec::SeriesScanExec;
use super::totals;
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
            let Some(scan) = scan_below(aggregate.input()) else { return Ok(Transformed::no(node)) };
            let wanted = rows_needed(aggregate, scan.columns());
            if wanted == PerSeries::All {
                return Ok(match totals::in_place_of(aggregate, scan)? {
                    Some(totals) => Transformed::yes(totals),
                    None => Transformed::no(node),
                });
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

/// The scan below, past operators that pass all rows on as they are.
fn scan_below(plan: &Arc<dyn ExecutionPlan>) -> Option<&SeriesScanExec> {
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
    collect_columns(expr).iter().all(|column| {
        matches!(columns.kinds().get(column.index()), Some(ColumnKind::Label(_) | ColumnKind::LabelsJson))
    })
}

/// The column that `expr` is.
pub(super) fn kind_of<'a>(expr: &Arc<dyn PhysicalExpr>, columns: &'a Columns) -> Option<&'a ColumnKind> {
    columns.kinds().get(expr.downcast_ref::<Column>()?.index())
}

/// The end of a series that `function` looks at; `All` if it looks at more.
fn end_looked_at(function: &AggregateFunctionExpr, columns: &Columns) -> PerSeries {
    let is_time = |expr: &Arc<dyn PhysicalExpr>| kind_of(expr, columns) == Some(&ColumnKind::Timestamp);
    let over_time = function.expressions().first().is_some_and(is_time);
    // What is the same in all rows of a series does not order them.
    let order = function.order_bys().iter().find(|order| !is_of_labels(&order.expr, columns));
    match (function.fun().name(), order) {
        ("max", None) if over_time => PerSeries::Last,
        ("min", None) if over_time => PerSeries::First,
        // `last(timestamp, value)` leaves out values that are NULL, of which samples have none.
        ("last", None) if over_time && !has_histograms(columns) => PerSeries::Last,
        ("first", None) if over_time && !has_histograms(columns) => PerSeries::First,
        // With histograms there are NULLs to look past.
        ("first_value" | "last_value", _) if function.ignore_nulls() && has_histograms(columns) => {
            PerSeries::All
        }
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
