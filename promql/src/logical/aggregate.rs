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
use crate::params::Grid;
use crate::parser::ast::AggregateOp;
use crate::physical::aggregate::vector_aggregate;
use crate::tile::{FLOATS, LABELS_KEY, TILE};

/// Plans `sum`, `avg`, `count`, `min`, `max`, `group`, `stddev`, `stdvar` or `quantile` over
/// `input`, tiles on `grid`. `param` is φ: a plan of scalar type on `grid`.
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
) -> Result<LogicalPlan, QueryError> {
    let grouped = group_input(input, &grouping).map_err(QueryError::from_datafusion)?;
    if op == AggregateOp::Quantile {
        let phi = param.ok_or_else(|| QueryError::Internal("quantile without its parameter".into()))?;
        return Ok(QuantileNode::plan(grouped, phi, grid));
    }
    let function = vector_aggregate(op)
        .ok_or_else(|| QueryError::Unsupported(format!("{} as a vector aggregate", op.name())))?;
    let lanes = function.call(vec![col(FLOATS.1)]).alias(FLOATS.1);
    Aggregate::try_new(Arc::new(grouped), vec![col(LABELS_KEY.1), col(TILE.1)], vec![lanes])
        .map(LogicalPlan::Aggregate)
        .map_err(QueryError::from_datafusion)
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
    let columns = vec![key.alias(LABELS_KEY.1), col(TILE.1), col(FLOATS.1)];
    Projection::try_new(columns, Arc::new(input)).map(LogicalPlan::Projection)
}
