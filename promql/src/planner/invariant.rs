//! Which subtrees have the same value at every step, because `@` fixes their time.
//!
//! Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/engine.go> (`PreprocessExpr`).

use std::collections::HashSet;

use super::{children, unwrap_parens};
use crate::parser::{Expr, ExprKind};
use crate::stack::deeper;

/// Functions whose value depends on the evaluation time even if their arguments do not.
const TIME_DEPENDENT: [&str; 11] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "time",
    "timestamp",
];

/// What is known of a subtree: whether it is invariant, and whether it is worth evaluating once.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    invariant: bool,
    wrap: bool,
}

/// The highest invariant subtrees, by address.
pub(super) fn find(root: &Expr) -> HashSet<*const Expr> {
    // No selector with `@`, nothing to gain: the usual case, and no recursion in it.
    let mut todo = vec![root];
    let mut pinned = false;
    while let Some(expr) = todo.pop() {
        pinned |= match &expr.kind {
            ExprKind::VectorSelector(selector) => selector.time.at.is_some(),
            ExprKind::MatrixSelector(matrix) => matrix.selector.time.at.is_some(),
            ExprKind::Subquery(subquery) => subquery.time.at.is_some(),
            _ => false,
        };
        children(expr, |child| todo.push(child));
    }
    let mut wrapped = HashSet::new();
    if pinned && look(root, &mut wrapped).wrap {
        wrapped.insert(std::ptr::from_ref(root));
    }
    wrapped
}

/// Whether `expr` has the same value at every step.
pub(super) fn is_invariant(expr: &Expr) -> bool {
    look(expr, &mut HashSet::new()).invariant
}

fn look(expr: &Expr, wrapped: &mut HashSet<*const Expr>) -> Found {
    deeper(|| look_here(expr, wrapped))
}

fn look_here(expr: &Expr, wrapped: &mut HashSet<*const Expr>) -> Found {
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => Found { invariant: true, wrap: false },
        ExprKind::VectorSelector(selector) => {
            let invariant = selector.time.at.is_some();
            Found { invariant, wrap: invariant }
        }
        ExprKind::MatrixSelector(matrix) => {
            Found { invariant: matrix.selector.time.at.is_some(), wrap: false }
        }
        ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => look(inner, wrapped),
        ExprKind::Aggregate(aggregate) => {
            // As upstream, the parameter does not count.
            look(unwrap_parens(&aggregate.expr), wrapped)
        }
        ExprKind::Subquery(subquery) => {
            if look(&subquery.expr, wrapped).invariant {
                wrapped.insert(std::ptr::from_ref(subquery.expr.as_ref()));
            }
            Found { invariant: subquery.time.at.is_some(), wrap: false }
        }
        ExprKind::Binary(binary) => both(&[&binary.lhs, &binary.rhs], true, wrapped),
        ExprKind::Call(call) => {
            let args: Vec<_> = call.args.iter().map(unwrap_parens).collect();
            let name = call.function.name;
            let of_selector =
                name == "timestamp" && args.iter().all(|arg| matches!(arg.kind, ExprKind::VectorSelector(_)));
            both(&args, !TIME_DEPENDENT.contains(&name) || of_selector, wrapped)
        }
    }
}

/// A node over `args`: invariant if it is `able` to be and all of them are; otherwise they are on their own.
fn both(args: &[&Expr], able: bool, wrapped: &mut HashSet<*const Expr>) -> Found {
    let found: Vec<_> = args.iter().map(|arg| look(arg, wrapped)).collect();
    if able && found.iter().all(|f| f.invariant) {
        return Found { invariant: true, wrap: true };
    }
    for (arg, _) in args.iter().zip(found).filter(|(_, f)| f.wrap) {
        wrapped.insert(std::ptr::from_ref(*arg));
    }
    Found::default()
}
