//! [`reach`]: how far from its own time a step of a query looks.

use crate::parser::ast::{AggregateOp, Call, DurationExpr, DurationExprKind, TimeShift, UnaryOp};
use crate::parser::{Expr, ExprKind, RangeExtension, VectorSelector};
use crate::planner::metric_name;
use crate::stack::deeper;

/// A step at `t` looks at samples in `[t - before_ms, t + after_ms]` at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reach {
    pub(crate) before_ms: i64,
    pub(crate) after_ms: i64,
}

/// Functions whose result at a step is about more than the samples near it: the range of the query, all of the
/// info series, the order of a whole result.
const NOT_PER_STEP: [&str; 9] =
    ["end", "info", "range", "sort", "sort_by_label", "sort_by_label_desc", "sort_desc", "start", "step"];

/// The reach of `expr`; `None` if there is no bound, if its steps depend on each other, or if it reads nothing.
pub(crate) fn reach(expr: &Expr, lookback_ms: i64) -> Option<Reach> {
    let mut reads = false;
    let reach = Walk { lookback_ms, reads: &mut reads }.of(expr)?;
    reads.then_some(reach)
}

struct Walk<'a> {
    lookback_ms: i64,
    reads: &'a mut bool,
}

impl Walk<'_> {
    fn of(&mut self, expr: &Expr) -> Option<Reach> {
        deeper(|| self.here(expr))
    }

    fn here(&mut self, expr: &Expr) -> Option<Reach> {
        match &expr.kind {
            ExprKind::Number(_) | ExprKind::String(_) => Some(Reach::default()),
            ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => self.of(inner),
            ExprKind::Binary(binary) => Some(wider(self.of(&binary.lhs)?, self.of(&binary.rhs)?)),
            ExprKind::Aggregate(aggregate) => {
                // Which series `limitk` takes depends on the order in which they come.
                if aggregate.op == AggregateOp::LimitK {
                    return None;
                }
                let inner = self.of(&aggregate.expr)?;
                let param =
                    aggregate.param.as_ref().map_or(Some(Reach::default()), |param| self.of(param))?;
                Some(wider(inner, param))
            }
            ExprKind::Call(call) => self.call(call),
            ExprKind::VectorSelector(selector) => self.selector(selector, 0),
            ExprKind::MatrixSelector(matrix) => self.selector(&matrix.selector, milliseconds(&matrix.range)?),
            ExprKind::Subquery(subquery) => {
                let range_ms = milliseconds(&subquery.range)?;
                let inner = self.of(&subquery.expr)?;
                let before_ms = inner.before_ms.checked_add(range_ms)?;
                shifted(Reach { before_ms, ..inner }, &subquery.time)
            }
        }
    }

    fn call(&mut self, call: &Call) -> Option<Reach> {
        if NOT_PER_STEP.contains(&call.function.name) {
            return None;
        }
        let mut reach = Reach::default();
        for arg in &call.args {
            let mut inner = arg;
            while let ExprKind::Paren(within) = &inner.kind {
                inner = within;
            }
            let several_names = match &inner.kind {
                ExprKind::MatrixSelector(matrix) => metric_name(&matrix.selector).is_none(),
                ExprKind::Subquery(subquery) => !has_one_name(&subquery.expr),
                _ => false,
            };
            if several_names {
                return None;
            }
            reach = wider(reach, self.of(inner)?);
        }
        Some(reach)
    }

    fn selector(&mut self, selector: &VectorSelector, range_ms: i64) -> Option<Reach> {
        *self.reads = true;
        let smoothed = selector.extension == Some(RangeExtension::Smoothed);
        let before_ms = range_ms.checked_add(self.lookback_ms)?;
        let after_ms = if smoothed { self.lookback_ms } else { 0 };
        shifted(Reach { before_ms, after_ms }, &selector.time)
    }
}

/// Whether series of `expr` cannot become one when names go: they have none, or all the same.
fn has_one_name(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => has_one_name(inner),
        ExprKind::VectorSelector(selector) => metric_name(selector).is_some(),
        ExprKind::Aggregate(aggregate) => {
            aggregate.op != AggregateOp::TopK
                && aggregate.op != AggregateOp::BottomK
                && !aggregate.without
                && !aggregate.grouping.iter().any(|l| l == promontory_tsdb::METRIC_NAME)
        }
        ExprKind::Call(call) => call.args.iter().all(|arg| match &arg.kind {
            ExprKind::MatrixSelector(matrix) => metric_name(&matrix.selector).is_some(),
            ExprKind::VectorSelector(selector) => metric_name(selector).is_some(),
            ExprKind::Number(_) => true,
            _ => false,
        }),
        _ => false,
    }
}

fn wider(a: Reach, b: Reach) -> Reach {
    Reach { before_ms: a.before_ms.max(b.before_ms), after_ms: a.after_ms.max(b.after_ms) }
}

fn shifted(reach: Reach, time: &TimeShift) -> Option<Reach> {
    if time.at.is_some() {
        return None;
    }
    let offset_ms = time.offset.as_ref().map_or(Some(0), milliseconds)?;
    Some(Reach {
        before_ms: reach.before_ms.checked_add(offset_ms.max(0))?,
        after_ms: reach.after_ms.checked_add(-offset_ms.min(0))?,
    })
}

/// A duration that is known without the query's step and range, rounded away from zero.
fn milliseconds(expr: &DurationExpr) -> Option<i64> {
    match &expr.kind {
        DurationExprKind::Literal(n) => {
            let ms = n.value * 1000.0;
            (ms.abs() < 9e15).then_some((ms.abs().ceil() as i64 + 1) * if ms < 0.0 { -1 } else { 1 })
        }
        DurationExprKind::Paren(inner) | DurationExprKind::Unary(UnaryOp::Plus, inner) => milliseconds(inner),
        DurationExprKind::Unary(UnaryOp::Minus, inner) => Some(-milliseconds(inner)?),
        _ => None,
    }
}
