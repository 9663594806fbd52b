//! Expressions as text on one line, as upstream's `String()`. What is printed parses to the same tree,
//! up to places, the order of matchers, and how numbers were written.
//!
//! Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/parser/printer.go>

use std::fmt::{self, Display, Formatter, Write as _};

use promontory_tsdb::labels::{METRIC_NAME, is_legacy_label_name};
use promontory_tsdb::{MatchOp, Matcher};

use super::ast::{
    AggregateExpr, AtModifier, BinaryExpr, BinaryOp, Call, Cardinality, DurationExpr, DurationExprKind, Expr,
    ExprKind, MatrixSelector, NumberLiteral, RangeExtension, SubqueryExpr, TimeShift, UnaryOp,
    VectorMatching, VectorSelector,
};
use super::literal::{format_duration, format_float, quote, quote_exact};
use crate::operators::format::go_g;

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl Display for ExprKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => n.fmt(f),
            Self::String(s) => f.write_str(&quote_exact(s)),
            Self::Paren(e) => write!(f, "({e})"),
            Self::Unary(op, e) => write!(f, "{op}{e}"),
            Self::Binary(b) => b.fmt(f),
            Self::Aggregate(a) => a.fmt(f),
            Self::Call(c) => c.fmt(f),
            Self::VectorSelector(s) => s.fmt(f),
            Self::MatrixSelector(m) => m.fmt(f),
            Self::Subquery(s) => s.fmt(f),
        }
    }
}

impl Display for UnaryOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plus => "+",
            Self::Minus => "-",
        })
    }
}

impl Display for BinaryOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.symbol())
    }
}

impl Display for NumberLiteral {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_duration {
            // Upstream cuts off instead, and so prints some durations a millisecond short.
            return f.write_str(&format_duration((self.value * 1000.0).round() as i64));
        }
        f.write_str(&format_float(self.value))
    }
}

impl Display for BinaryExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // Chains lean to the left and may be long, so they are followed without recursion.
        let mut links = vec![self];
        let mut leftmost = &self.lhs;
        while let ExprKind::Binary(b) = &leftmost.kind {
            links.push(b);
            leftmost = &b.lhs;
        }
        leftmost.fmt(f)?;
        for link in links.iter().rev() {
            write!(f, " {}{} {}", link.op, link.modifiers(), link.rhs)?;
        }
        Ok(())
    }
}

impl BinaryExpr {
    /// All between operator and right side, with a space in front of each part.
    pub(super) fn modifiers(&self) -> String {
        let mut out = String::new();
        if self.return_bool {
            out.push_str(" bool");
        }
        if let Some(matching) = &self.matching {
            // Writing to a `String` does not fail.
            let _ = write_matching(&mut out, matching);
        }
        out
    }
}

fn write_matching(out: &mut String, matching: &VectorMatching) -> fmt::Result {
    let group = match matching.cardinality {
        Cardinality::ManyToOne => Some("group_left"),
        Cardinality::OneToMany => Some("group_right"),
        Cardinality::OneToOne | Cardinality::ManyToMany => None,
    };
    if !matching.labels.is_empty() || matching.on || group.is_some() {
        let word = if matching.on { "on" } else { "ignoring" };
        write!(out, " {word} ({})", label_list(&matching.labels))?;
    }
    if let Some(group) = group {
        write!(out, " {group} ({})", label_list(&matching.include))?;
    }
    match (matching.fill_left, matching.fill_right) {
        (Some(l), Some(r)) if l == r => write!(out, " fill ({})", go_g(l))?,
        (left, right) => {
            for (word, value) in [("fill_left", left), ("fill_right", right)] {
                if let Some(value) = value {
                    write!(out, " {word} ({})", go_g(value))?;
                }
            }
        }
    }
    Ok(())
}

fn label_list(labels: &[String]) -> String {
    let mut out = String::new();
    for (i, label) in labels.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        if is_legacy_label_name(label) {
            out.push_str(label);
        } else {
            out.push_str(&quote(label));
        }
    }
    out
}

impl Display for AggregateExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.head())?;
        if let Some(param) = &self.param {
            write!(f, "{param}, ")?;
        }
        write!(f, "{})", self.expr)
    }
}

impl AggregateExpr {
    /// All in front of the parenthesis.
    pub(super) fn head(&self) -> String {
        let name = self.op.name();
        match (self.without, self.grouping.is_empty()) {
            (true, _) => format!("{name} without ({}) ", label_list(&self.grouping)),
            (false, false) => format!("{name} by ({}) ", label_list(&self.grouping)),
            (false, true) => name.to_owned(),
        }
    }
}

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.function.name)?;
        for (i, arg) in self.args.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            arg.fmt(f)?;
        }
        f.write_str(")")
    }
}

impl Display for VectorSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.fmt_core(f)?;
        fmt_at(f, &self.time)?;
        fmt_extension(f, self.extension)?;
        fmt_offset(f, &self.time)
    }
}

impl VectorSelector {
    /// Name and matchers.
    fn fmt_core(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or_default();
        f.write_str(name)?;
        let is_name = |m: &&Matcher| {
            m.name() == METRIC_NAME && m.op() == MatchOp::Eq && m.value() == name && !name.is_empty()
        };
        let mut matchers: Vec<String> =
            self.matchers.iter().filter(|m| !is_name(m)).map(matcher_text).collect();
        if !matchers.is_empty() {
            matchers.sort_unstable();
            write!(f, "{{{}}}", matchers.join(","))?;
        }
        Ok(())
    }
}

fn matcher_text(m: &Matcher) -> String {
    if is_legacy_label_name(m.name()) {
        m.to_string()
    } else {
        format!("{}{}{}", quote(m.name()), m.op(), quote(m.value()))
    }
}

fn fmt_at(f: &mut Formatter<'_>, time: &TimeShift) -> fmt::Result {
    match time.at {
        Some(AtModifier::At(ms)) => write!(f, " @ {:.3}", ms as f64 / 1000.0),
        Some(AtModifier::Start) => f.write_str(" @ start()"),
        Some(AtModifier::End) => f.write_str(" @ end()"),
        None => Ok(()),
    }
}

fn fmt_extension(f: &mut Formatter<'_>, extension: Option<RangeExtension>) -> fmt::Result {
    match extension {
        Some(RangeExtension::Anchored) => f.write_str(" anchored"),
        Some(RangeExtension::Smoothed) => f.write_str(" smoothed"),
        None => Ok(()),
    }
}

fn fmt_offset(f: &mut Formatter<'_>, time: &TimeShift) -> fmt::Result {
    match &time.offset {
        Some(offset) if !matches!(offset.kind, DurationExprKind::Literal(n) if n.value == 0.0) => {
            write!(f, " offset {}", Outermost(offset))
        }
        _ => Ok(()),
    }
}

impl Display for MatrixSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.selector.fmt_core(f)?;
        write!(f, "[{}]", Outermost(&self.range))?;
        fmt_extension(f, self.selector.extension)?;
        fmt_at(f, &self.selector.time)?;
        fmt_offset(f, &self.selector.time)
    }
}

impl Display for SubqueryExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.expr, self.suffix())
    }
}

impl SubqueryExpr {
    /// Brackets and what stands behind them.
    pub(super) fn suffix(&self) -> String {
        struct Suffix<'a>(&'a SubqueryExpr);
        impl Display for Suffix<'_> {
            fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
                write!(f, "[{}:", Outermost(&self.0.range))?;
                if let Some(step) = &self.0.step {
                    Outermost(step).fmt(f)?;
                }
                f.write_str("]")?;
                fmt_at(f, &self.0.time)?;
                fmt_offset(f, &self.0.time)
            }
        }
        Suffix(self).to_string()
    }
}

/// A duration in its own place, where a plain number is printed as a duration: `[300]` is `[5m]`.
struct Outermost<'a>(&'a DurationExpr);

impl Display for Outermost<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.kind {
            DurationExprKind::Literal(n) => {
                f.write_str(&format_duration((n.value * 1e9).round() as i64 / 1_000_000))
            }
            _ => self.0.fmt(f),
        }
    }
}

impl Display for DurationExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            DurationExprKind::Literal(n) => n.fmt(f),
            DurationExprKind::Unary(UnaryOp::Plus, d) => d.fmt(f),
            DurationExprKind::Unary(UnaryOp::Minus, d) => write!(f, "-{d}"),
            DurationExprKind::Binary(op, a, b) => write!(f, "{a} {op} {b}"),
            DurationExprKind::Paren(d) => write!(f, "({d})"),
            DurationExprKind::Step => f.write_str("step()"),
            DurationExprKind::Range => f.write_str("range()"),
            DurationExprKind::MinOf(a, b) => write!(f, "min_of({a}, {b})"),
            DurationExprKind::MaxOf(a, b) => write!(f, "max_of({a}, {b})"),
        }
    }
}
