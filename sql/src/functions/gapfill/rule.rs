//! [`FindGapFill`]: puts a [`GapFillNode`] over aggregates that group by `time_bucket_gapfill`.

use std::ops::Bound;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchemaRef, Result, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::{Between, BinaryExpr, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Aggregate, Expr, Extension, LogicalPlan, Operator, ScalarUDF};
use datafusion::optimizer::AnalyzerRule;

use super::GAPFILL;
use super::node::{Fill, FillKind, GapFillNode};
use crate::functions::time_bucket::TimeBucket;

/// The rule. It comes after types are coerced.
#[derive(Debug)]
pub(super) struct FindGapFill;

impl AnalyzerRule for FindGapFill {
    fn name(&self) -> &'static str {
        "find_gap_fill"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_down_with_subqueries(|node| {
            if let LogicalPlan::Projection(_) = &node
                && find_aggregate(&node).is_some()
            {
                return fill(&node).map(Transformed::yes);
            }
            Ok(Transformed::no(node))
        })
        .data()
    }
}

/// The aggregate to fill below `projection`, past what may stand between the two.
fn find_aggregate(projection: &LogicalPlan) -> Option<&Aggregate> {
    let mut node = projection.inputs().first().copied()?;
    loop {
        match node {
            LogicalPlan::Aggregate(aggregate) => {
                return aggregate.group_expr.iter().any(contains_gapfill).then_some(aggregate);
            }
            LogicalPlan::Filter(_) | LogicalPlan::Window(_) | LogicalPlan::Sort(_) => {
                node = node.inputs().first().copied()?;
            }
            _ => return None,
        }
    }
}

fn contains_gapfill(expr: &Expr) -> bool {
    expr.exists(|e| Ok(gapfill_arguments(e).is_some())).unwrap_or(false)
}

fn gapfill_arguments(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == GAPFILL => Some(args),
        _ => None,
    }
}

fn fill(projection: &LogicalPlan) -> Result<LogicalPlan> {
    let Some(aggregate) = find_aggregate(projection) else { return Ok(projection.clone()) };
    let mut fills = Vec::new();
    let names = NamePreserver::new(projection);
    let exprs = projection.expressions().into_iter().map(|expr| {
        let name = names.save(&expr);
        take_fills(expr, &aggregate.schema, &mut fills).map(|expr| name.restore(expr))
    });
    let exprs = exprs.collect::<Result<Vec<_>>>()?;
    let filled = gap_fill(aggregate, fills)?;
    let input = over(projection.inputs()[0], &filled)?;
    projection.with_new_exprs(exprs, vec![input])
}

/// What stands between, over the new input, with its expressions as they were.
fn over(node: &LogicalPlan, filled: &LogicalPlan) -> Result<LogicalPlan> {
    match (node, node.inputs().first()) {
        (LogicalPlan::Aggregate(_), _) | (_, None) => Ok(filled.clone()),
        (_, Some(input)) => node.with_new_exprs(node.expressions(), vec![over(input, filled)?]),
    }
}

/// Puts columns in the place of `locf(…)` and `interpolate(…)`.
fn take_fills(expr: Expr, aggregate: &DFSchemaRef, fills: &mut Vec<Fill>) -> Result<Expr> {
    expr.transform_down(|expr| {
        let Expr::ScalarFunction(ScalarFunction { func, args }) = &expr else {
            return Ok(Transformed::no(expr));
        };
        let kind = match func.name() {
            "locf" => FillKind::Locf,
            "interpolate" => FillKind::Interpolate,
            _ => return Ok(Transformed::no(expr)),
        };
        let Some(value) = args.first() else { return plan_err!("{}() takes a value", func.name()) };
        for column in value.column_refs() {
            if !aggregate.has_column(column) {
                return plan_err!("{}() takes an expression over aggregates, not over {column}", func.name());
            }
        }
        let name = expr.schema_name().to_string();
        if !fills.iter().any(|fill| fill.name == name) {
            fills.push(Fill { kind, value: value.clone(), name: name.clone() });
        }
        Ok(Transformed::new(Expr::Column(Column::new_unqualified(name)), true, TreeNodeRecursion::Jump))
    })
    .data()
}

fn gap_fill(aggregate: &Aggregate, fills: Vec<Fill>) -> Result<LogicalPlan> {
    let mut found = None;
    let mut group_expr = aggregate.group_expr.clone();
    for (i, expr) in group_expr.iter_mut().enumerate().filter(|(_, expr)| contains_gapfill(expr)) {
        let plain = expr.clone().unalias_nested().data;
        let Some(arguments) = gapfill_arguments(&plain).filter(|_| found.is_none()) else {
            return plan_err!("{GAPFILL}() must be one expression of GROUP BY by itself");
        };
        let bucket = Arc::new(ScalarUDF::from(TimeBucket::new()));
        *expr = bucket.call(arguments[..2].to_vec());
        found = Some((i, arguments.to_vec()));
    }
    let Some((time, arguments)) = found else { return plan_err!("{GAPFILL}() must stand in GROUP BY") };
    let (start, finish) = match &arguments[2..] {
        [start, finish] => (Some(start.clone()), Bound::Excluded(finish.clone())),
        _ => bounds_below(&aggregate.input, &arguments[1]),
    };
    let groups = group_expr.len();
    let input = Aggregate::try_new(Arc::clone(&aggregate.input), group_expr, aggregate.aggr_expr.clone())?;
    let schema = GapFillNode::schema_of(&aggregate.schema, groups, &fills)?;
    let node = GapFillNode {
        input: Arc::new(LogicalPlan::Aggregate(input)),
        aggregate: Arc::clone(&aggregate.schema),
        groups,
        time,
        width: arguments[0].clone(),
        start,
        finish,
        fills,
        schema,
    };
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

/// From when to when rows can be, as far as filters right below say so of column `time`.
fn bounds_below(plan: &LogicalPlan, time: &Expr) -> (Option<Expr>, Bound<Expr>) {
    let (mut start, mut finish) = (None, Bound::Unbounded);
    let Some(column) = plain_column(time) else { return (start, finish) };
    let mut node = plan;
    loop {
        match node {
            LogicalPlan::Filter(filter) => {
                for part in split_conjunction(&filter.predicate) {
                    bound(part, &column.name, &mut start, &mut finish);
                }
                node = &filter.input;
            }
            LogicalPlan::SubqueryAlias(alias) => node = &alias.input,
            _ => return (start, finish),
        }
    }
}

/// The column that `expr` is, seen through casts.
fn plain_column(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Cast(cast) => plain_column(&cast.expr),
        Expr::Alias(alias) => plain_column(&alias.expr),
        _ => None,
    }
}

/// Notes what `part` says; of several bounds the first counts.
fn bound(part: &Expr, column: &str, start: &mut Option<Expr>, finish: &mut Bound<Expr>) {
    let is_time = |expr: &Expr| plain_column(expr).is_some_and(|c| c.name == column);
    let constant = |expr: &Expr| !expr.any_column_refs() && !expr.contains_outer();
    let mut finishes = |bound: Bound<Expr>| {
        if matches!(finish, Bound::Unbounded) {
            *finish = bound;
        }
    };
    match part {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (op, value) = if is_time(left) && constant(right) {
                (*op, right)
            } else if is_time(right) && constant(left) {
                let Some(op) = op.swap() else { return };
                (op, left)
            } else {
                return;
            };
            let value = value.as_ref().clone();
            match op {
                Operator::Gt | Operator::GtEq => drop(start.get_or_insert(value)),
                Operator::Lt => finishes(Bound::Excluded(value)),
                Operator::LtEq => finishes(Bound::Included(value)),
                _ => {}
            }
        }
        Expr::Between(Between { expr, negated: false, low, high })
            if is_time(expr) && constant(low) && constant(high) =>
        {
            start.get_or_insert(low.as_ref().clone());
            finishes(Bound::Included(high.as_ref().clone()));
        }
        _ => {}
    }
}
