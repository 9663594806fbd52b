//! Durations: literals, and expressions over the step and the range of the query.

use super::Planner;
use crate::error::QueryError;
use crate::parser::{BinaryOp, DurationExpr, DurationExprKind, UnaryOp};

impl Planner<'_> {
    /// A width or a step, ms.
    pub(super) fn duration(&self, expr: &DurationExpr) -> Result<i64, QueryError> {
        self.milliseconds(expr, false)
    }

    /// An offset, ms.
    pub(super) fn offset(&self, expr: &DurationExpr) -> Result<i64, QueryError> {
        self.milliseconds(expr, true)
    }

    fn milliseconds(&self, expr: &DurationExpr, negative: bool) -> Result<i64, QueryError> {
        let seconds = self.seconds(expr)?;
        if !seconds.is_finite() {
            return Err(wrong(expr, "duration is NaN or infinite"));
        }
        if seconds <= 0.0 && !negative {
            return Err(wrong(expr, "duration must be greater than 0"));
        }
        if seconds.abs() > 9_223_372_036.854_775 {
            return Err(wrong(expr, "duration is out of range"));
        }
        if matches!(expr.kind, DurationExprKind::Literal(_)) {
            // As upstream: a literal is rounded to nanoseconds first, so that `1001ms` is not 1,000 ms.
            return Ok((seconds * 1e9).round() as i64 / 1_000_000);
        }
        Ok((seconds * 1000.0) as i64)
    }

    fn seconds(&self, expr: &DurationExpr) -> Result<f64, QueryError> {
        Ok(match &expr.kind {
            DurationExprKind::Literal(n) => n.value,
            DurationExprKind::Paren(inner) | DurationExprKind::Unary(UnaryOp::Plus, inner) => {
                self.seconds(inner)?
            }
            DurationExprKind::Unary(UnaryOp::Minus, inner) => -self.seconds(inner)?,
            DurationExprKind::Step => self.params.step as f64 / 1000.0,
            DurationExprKind::Range => (self.params.end - self.params.start) as f64 / 1000.0,
            DurationExprKind::MinOf(a, b) => crate::operators::go_min(self.seconds(a)?, self.seconds(b)?),
            DurationExprKind::MaxOf(a, b) => crate::operators::go_max(self.seconds(a)?, self.seconds(b)?),
            DurationExprKind::Binary(op, a, b) => {
                let (a, b) = (self.seconds(a)?, self.seconds(b)?);
                match op {
                    BinaryOp::Div if b == 0.0 => return Err(wrong(expr, "division by zero")),
                    BinaryOp::Mod if b == 0.0 => return Err(wrong(expr, "modulo by zero")),
                    op => crate::operators::arithmetic(*op, a, b),
                }
            }
        })
    }
}

/// Upstream names the bytes here, not line and column.
fn wrong(expr: &DurationExpr, text: &str) -> QueryError {
    QueryError::Invalid(format!("{}:{}: {text}", expr.span.start, expr.span.end))
}
