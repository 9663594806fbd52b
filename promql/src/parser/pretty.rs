//! Expressions over several lines: what does not fit a line is broken at its outermost level.
//!
//! Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/parser/prettier.go>

use super::ast::{Expr, ExprKind};

/// Longest expression, in bytes, that stays on one line.
const LINE: usize = 100;

/// Writes `expr` as upstream's `Prettify`.
pub fn format(expr: &Expr) -> String {
    Pretty { width: LINE }.expr(expr, 0)
}

/// Writes expressions with lines of at most `width` bytes where that can be had.
pub(super) struct Pretty {
    pub(super) width: usize,
}

fn indent(level: usize) -> String {
    "  ".repeat(level)
}

impl Pretty {
    pub(super) fn expr(&self, expr: &Expr, level: usize) -> String {
        let margin = indent(level);
        let line = expr.to_string();
        let fits = line.len() <= self.width;
        match &expr.kind {
            ExprKind::Unary(op, inner) => format!("{margin}{op}{}", self.expr(inner, level).trim()),
            // Compat: a subquery that fits has no margin.
            ExprKind::Subquery(_) if fits => line,
            ExprKind::Subquery(s) => format!("{}{}", self.expr(&s.expr, level), s.suffix()),
            _ if fits => format!("{margin}{line}"),
            ExprKind::Aggregate(a) => {
                let param =
                    a.param.as_ref().map(|p| format!("{},\n", self.expr(p, level + 1))).unwrap_or_default();
                format!("{margin}{}(\n{param}{}\n{margin})", a.head(), self.expr(&a.expr, level + 1))
            }
            ExprKind::Binary(_) => self.chain(expr, level),
            ExprKind::Call(c) => {
                let args: Vec<String> = c.args.iter().map(|a| self.expr(a, level + 1)).collect();
                format!("{margin}{}(\n{}\n{margin})", c.function.name, args.join(",\n"))
            }
            ExprKind::Paren(inner) => format!("{margin}(\n{}\n{margin})", self.expr(inner, level + 1)),
            ExprKind::Number(_)
            | ExprKind::String(_)
            | ExprKind::VectorSelector(_)
            | ExprKind::MatrixSelector(_) => {
                format!("{margin}{line}")
            }
        }
    }

    /// A binary expression that does not fit: operands on lines of their own, the left one a level deeper.
    /// Follows the chain on the left without recursion as far as the parts do not fit either.
    fn chain(&self, expr: &Expr, level: usize) -> String {
        let mut links = Vec::new();
        let mut leftmost = expr;
        let mut length = expr.to_string().len();
        while let ExprKind::Binary(b) = &leftmost.kind {
            if length <= self.width {
                break;
            }
            // The text of the left side is what stands in front of the operator.
            length -= b.op.symbol().len() + b.modifiers().len() + b.rhs.to_string().len() + 2;
            links.push(b);
            leftmost = &b.lhs;
        }
        let mut out = self.expr(leftmost, level + links.len());
        for (i, b) in links.iter().enumerate().rev() {
            let level = level + i;
            out.push_str(&format!(
                "\n{}{}{}\n{}",
                indent(level),
                b.op,
                b.modifiers(),
                self.expr(&b.rhs, level + 1)
            ));
        }
        out
    }
}
