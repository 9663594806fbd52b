//! Vector aggregates as plans.
//!
//! A standard DataFusion aggregate, grouped by `(labels_key, tile)`, with one of our functions over
//! the lanes. What it groups is a key that holds the group's labels only: a leaf right below
//! computes it once per series, anything else gets a projection.

use std::sync::Arc;

use datafusion::common::Result as DfResult;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Projection, ScalarUDF, col};

use super::quantile::QuantileNode;
use super::selector::SelectorNode;
use super::spec::Grouping;
use crate::error::QueryError;
use crate::keys::GroupKey;
use crate::operators::{FloatsOnly, Notice, Totals, operator_plan};
use crate::params::Grid;
use crate::parser::ast::AggregateOp;
use crate::physical::aggregate::{counts, vector_aggregate};
use crate::physical::histograms::{HistogramAggregation, histogram_aggregate};
use crate::tile::{FLOATS, HISTOGRAMS, LABELS_KEY, TILE};

/// What is aggregated, for annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// The metric name; empty if it is not known.
    pub name: String,
    /// ` (line:col)` of the expression.
    pub position: String,
    /// What is to be told if it has floats.
    pub notices: Vec<Notice>,
}

/// Plans `sum`, `avg`, `count`, `min`, `max`, `group`, `stddev`, `stdvar` or `quantile` over
/// `input`, tiles on `grid`. `param` is φ: a plan of scalar type on `grid`.
///
/// Notices are told of the groups, of which there are fewer: a group has floats wherever a member has. In a sum or a
/// mean it may lose them to histograms, so the notices come before that.
///
/// # Errors
/// [`QueryError::Unsupported`] for the other operators; [`QueryError::Internal`] when `quantile`
/// has no `param`, or `input` does not give tiles.
#[expect(clippy::needless_pass_by_value, reason = "a plan takes over what it is made of")]
pub fn aggregate_plan(
    input: LogicalPlan,
    grid: Grid,
    op: AggregateOp,
    grouping: Grouping,
    param: Option<LogicalPlan>,
    subject: &Subject,
) -> Result<LogicalPlan, QueryError> {
    let mut grouped = group_input(input, &grouping).map_err(QueryError::from_datafusion)?;
    if !counts(op) && !matches!(op, AggregateOp::Sum | AggregateOp::Avg) {
        let floats = FloatsOnly { aggregation: Some(op.name()), position: subject.position.clone() };
        grouped = operator_plan(floats, grid, vec![grouped]);
    }
    if op == AggregateOp::Quantile {
        let phi = param.ok_or_else(|| QueryError::Internal("quantile without its parameter".into()))?;
        return Ok(told(QuantileNode::plan(grouped, phi, grid), grid, subject));
    }
    let function = vector_aggregate(op)
        .ok_or_else(|| QueryError::Unsupported(format!("{} as a vector aggregate", op.name())))?;
    let of_histograms = match op {
        AggregateOp::Sum => HistogramAggregation::Sum,
        AggregateOp::Avg => HistogramAggregation::Mean,
        _ => HistogramAggregation::Nothing,
    };
    let mut arguments = vec![col(FLOATS.1)];
    if counts(op) {
        arguments.push(col(HISTOGRAMS.1));
    }
    let lanes = function.call(arguments).alias(FLOATS.1);
    let histograms = histogram_aggregate(of_histograms).call(vec![col(HISTOGRAMS.1)]).alias(HISTOGRAMS.1);
    let mut plan =
        Aggregate::try_new(Arc::new(grouped), vec![col(LABELS_KEY.1), col(TILE.1)], vec![lanes, histograms])
            .map(LogicalPlan::Aggregate)
            .map_err(QueryError::from_datafusion)?;
    plan = told(plan, grid, subject);
    if of_histograms == HistogramAggregation::Nothing {
        return Ok(plan);
    }
    let totals = Totals {
        mean: op == AggregateOp::Avg,
        name: subject.name.clone(),
        position: subject.position.clone(),
    };
    Ok(operator_plan(totals, grid, vec![plan]))
}

/// `plan`, and what is to be told of its floats.
fn told(plan: LogicalPlan, grid: Grid, subject: &Subject) -> LogicalPlan {
    let notices = subject.notices.iter().cloned();
    notices.fold(plan, |plan, notice| operator_plan(notice, grid, vec![plan]))
}

/// `input` with group keys in place of label keys.
///
/// # Errors
/// If the input is not a relation of tiles.
pub fn group_input(input: LogicalPlan, grouping: &Grouping) -> DfResult<LogicalPlan> {
    if let LogicalPlan::Extension(leaf) = &input
        && let Some(leaf) = leaf.node.as_any().downcast_ref::<SelectorNode>()
        && let Some(pushed) = leaf.with_group_key(grouping)
    {
        return Ok(pushed);
    }
    let key = ScalarUDF::new_from_impl(GroupKey::new(grouping.clone()));
    let key = Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(key), vec![col(LABELS_KEY.1)]));
    let columns = vec![key.alias(LABELS_KEY.1), col(TILE.1), col(FLOATS.1), col(HISTOGRAMS.1)];
    Projection::try_new(columns, Arc::new(input)).map(LogicalPlan::Projection)
}
