//! Type checks: what each operator, function and aggregation may be applied to.
//!
//! Also settles what depends on types: [`BinaryExpr::matching`] remains just between vectors.
//!
//! Source: `checkAST` in <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/parser/parse.go>

use promontory_tsdb::labels::METRIC_NAME;

use super::ParseError;
use super::ast::{
    AggregateExpr, AggregateOp, BinaryExpr, Call, Cardinality, Expr, ExprKind, Span, ValueType,
    VectorMatching, VectorSelector,
};
use super::grammar::Result;
use super::literal::quote;

/// Checks `expr` and all below it; the error is the first that a walk from the leaves up finds.
pub(super) fn check(input: &str, expr: &mut Expr) -> Result<()> {
    Checker { input }.check(expr).map(|_| ())
}

/// The type in the words of the documentation.
pub(super) fn documented(t: ValueType) -> &'static str {
    match t {
        ValueType::Vector => "instant vector",
        ValueType::Matrix => "range vector",
        ValueType::Scalar => "scalar",
        ValueType::String => "string",
    }
}

struct Checker<'a> {
    input: &'a str,
}

impl Checker<'_> {
    fn error<T>(&self, span: Span, message: impl Into<String>) -> Result<T> {
        Err(ParseError::new(self.input, span, message))
    }

    fn check(&self, expr: &mut Expr) -> Result<ValueType> {
        let span = expr.span;
        match &mut expr.kind {
            ExprKind::Number(_) => Ok(ValueType::Scalar),
            ExprKind::String(_) => Ok(ValueType::String),
            ExprKind::Paren(inner) => self.check(inner),
            ExprKind::Unary(_, inner) => {
                let t = self.check(inner)?;
                if !is_number_like(t) {
                    let t = quote(documented(t));
                    return self.error(
                        span,
                        format!("unary expression only allowed on expressions of type scalar or instant vector, got {t}"),
                    );
                }
                Ok(t)
            }
            ExprKind::Binary(_) => self.check_binary_chain(expr),
            ExprKind::Aggregate(aggregate) => self.check_aggregate(aggregate),
            ExprKind::Call(call) => self.check_call(span, call),
            ExprKind::VectorSelector(selector) => {
                self.check_selector(span, selector, false)?;
                Ok(ValueType::Vector)
            }
            ExprKind::MatrixSelector(matrix) => {
                self.check_selector(matrix.selector_span, &matrix.selector, false)?;
                Ok(ValueType::Matrix)
            }
            ExprKind::Subquery(subquery) => {
                let t = self.check(&mut subquery.expr)?;
                if t != ValueType::Vector {
                    let t = match t {
                        ValueType::Matrix => "matrix",
                        other => documented(other),
                    };
                    let message = format!("subquery is only allowed on instant vector, got {t} instead");
                    return self.error(span, message);
                }
                Ok(ValueType::Matrix)
            }
        }
    }

    /// Checks `((a + b) + c) + …` from the left without recursion, since such chains may be very long:
    /// takes the links apart, then checks and joins them again one by one.
    fn check_binary_chain(&self, expr: &mut Expr) -> Result<ValueType> {
        let mut links = Vec::new();
        let mut leftmost = std::mem::take(expr);
        while let ExprKind::Binary(binary) = &mut leftmost.kind {
            let lhs = std::mem::take(&mut *binary.lhs);
            links.push(std::mem::replace(&mut leftmost, lhs));
        }
        let mut done = leftmost;
        let mut t = self.check(&mut done)?;
        for mut link in links.into_iter().rev() {
            let span = link.span;
            if let ExprKind::Binary(binary) = &mut link.kind {
                *binary.lhs = done;
                t = self.check_binary(span, binary, t)?;
            }
            done = link;
        }
        *expr = done;
        Ok(t)
    }

    fn check_binary(&self, span: Span, binary: &mut BinaryExpr, left: ValueType) -> Result<ValueType> {
        let right = self.check(&mut binary.rhs)?;
        let op = binary.op;
        let scalars = left == ValueType::Scalar && right == ValueType::Scalar;
        if binary.return_bool && !op.is_comparison() {
            let place = self.operator_span(binary);
            return self.error(place, "bool modifier can only be used on comparison operators");
        }
        if op.is_comparison() && !binary.return_bool && scalars {
            let place = self.operator_span(binary);
            return self.error(place, "comparisons between scalars must use BOOL modifier");
        }
        if let Some(matching) = &mut binary.matching
            && op.is_set()
            && matching.cardinality == Cardinality::OneToOne
        {
            matching.cardinality = Cardinality::ManyToMany;
        }
        if let Some(label) = binary.matching.as_ref().and_then(label_on_both_sides) {
            let message = format!("label {} must not occur in ON and GROUP clause at once", quote(label));
            return self.error(self.operator_span(binary), message);
        }
        for (t, side) in [(left, &binary.lhs), (right, &binary.rhs)] {
            if !is_number_like(t) {
                let message = "binary expression must contain only scalar and instant vector types";
                return self.error(side.span, message);
            }
        }
        let vectors = left == ValueType::Vector && right == ValueType::Vector;
        self.check_matching(span, binary, vectors)?;
        if !vectors {
            binary.matching = None;
            if op.is_set() {
                let op = quote(op.symbol());
                let message = format!("set operator {op} not allowed in binary scalar expression");
                return self.error(span, message);
            }
        }
        Ok(if scalars { ValueType::Scalar } else { ValueType::Vector })
    }

    fn check_matching(&self, span: Span, binary: &BinaryExpr, vectors: bool) -> Result<()> {
        let Some(matching) = &binary.matching else { return Ok(()) };
        let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
        let grouped = matches!(matching.cardinality, Cardinality::ManyToOne | Cardinality::OneToMany);
        let op = binary.op;
        if !vectors && !matching.labels.is_empty() {
            return self.error(span, "vector matching only allowed between instant vectors");
        }
        if !vectors && fills {
            return self.error(span, "filling in missing series only allowed between instant vectors");
        }
        if vectors && op.is_set() && grouped {
            let message = format!("no grouping allowed for {} operation", quote(op.symbol()));
            return self.error(span, message);
        }
        if vectors && op.is_set() && fills {
            return self.error(span, "filling in missing series not allowed for set operators");
        }
        Ok(())
    }

    /// The operator with its modifiers, without the space around.
    fn operator_span(&self, binary: &BinaryExpr) -> Span {
        let (from, to) = (binary.lhs.span.end, binary.rhs.span.start);
        let between = self.input.get(from..to).unwrap_or_default();
        let start = from + (between.len() - between.trim_start().len());
        Span { start, end: start + between.trim().len() }
    }

    fn check_aggregate(&self, aggregate: &mut AggregateExpr) -> Result<ValueType> {
        self.expect_type(&mut aggregate.expr, ValueType::Vector, "aggregation expression")?;
        if let Some(param) = &mut aggregate.param {
            let wanted = match aggregate.op {
                AggregateOp::CountValues => ValueType::String,
                _ => ValueType::Scalar,
            };
            self.expect_type(param, wanted, "aggregation parameter")?;
        }
        Ok(ValueType::Vector)
    }

    fn expect_type(&self, expr: &mut Expr, wanted: ValueType, place: &str) -> Result<()> {
        let t = self.check(expr)?;
        if t == wanted {
            return Ok(());
        }
        let (wanted, t) = (documented(wanted), documented(t));
        self.error(expr.span, format!("expected type {wanted} in {place}, got {t}"))
    }

    fn check_call(&self, span: Span, call: &mut Call) -> Result<ValueType> {
        let function = call.function;
        self.check_arg_count(span, call)?;
        if function.name == "info" {
            self.check_info_selector(span, call)?;
        }
        for (i, arg) in call.args.iter_mut().enumerate() {
            let Some(wanted) = function.arg_types.get(i).or(function.arg_types.last()) else { break };
            // The selector of `info` was looked at; unlike others it may match everything.
            let t = if function.name == "info" && i == 1 { ValueType::Vector } else { self.check(arg)? };
            if t != *wanted {
                let (wanted, name, t) = (documented(*wanted), quote(function.name), documented(t));
                let message = format!("expected type {wanted} in call to function {name}, got {t}");
                return self.error(arg.span, message);
            }
        }
        Ok(function.return_type)
    }

    fn check_arg_count(&self, span: Span, call: &Call) -> Result<()> {
        let (name, got) = (quote(call.function.name), call.args.len());
        let all = call.function.arg_types.len();
        let variadic = call.function.variadic;
        if variadic == 0 {
            if got != all {
                return self.error(span, format!("expected {all} argument(s) in call to {name}, got {got}"));
            }
            return Ok(());
        }
        let least = all - 1;
        if got < least {
            let message = format!("expected at least {least} argument(s) in call to {name}, got {got}");
            return self.error(span, message);
        }
        let most = usize::try_from(variadic).map_or(usize::MAX, |more| least + more);
        if got > most {
            let message = format!("expected at most {most} argument(s) in call to {name}, got {got}");
            return self.error(span, message);
        }
        Ok(())
    }

    /// The second argument of `info` is a selector of labels without a metric name.
    fn check_info_selector(&self, span: Span, call: &Call) -> Result<()> {
        let Some(arg) = call.args.get(1) else { return Ok(()) };
        let t = arg.value_type();
        if t != ValueType::Vector {
            let t = documented(t);
            let message = format!("expected type instant vector in call to function \"info\", got {t}");
            return self.error(span, message);
        }
        match &arg.kind {
            ExprKind::VectorSelector(selector) if selector.name.is_none() => {
                self.check_selector(arg.span, selector, true)
            }
            ExprKind::VectorSelector(_) => {
                self.error(arg.span, "expected label selectors only, got vector selector instead")
            }
            _ => self.error(arg.span, "expected label selectors only"),
        }
    }

    fn check_selector(&self, span: Span, selector: &VectorSelector, may_match_all: bool) -> Result<()> {
        let Some(name) = &selector.name else {
            if may_match_all || selector.matchers.iter().any(|m| !m.matches_empty()) {
                return Ok(());
            }
            return self.error(span, "vector selector must contain at least one non-empty matcher");
        };
        let others = &selector.matchers[..selector.matchers.len().saturating_sub(1)];
        match others.iter().find(|m| m.name() == METRIC_NAME) {
            None => Ok(()),
            Some(other) => {
                let (name, other) = (quote(name), quote(other.value()));
                self.error(span, format!("metric name must not be set twice: {name} or {other}"))
            }
        }
    }
}

fn is_number_like(t: ValueType) -> bool {
    matches!(t, ValueType::Scalar | ValueType::Vector)
}

fn label_on_both_sides(matching: &VectorMatching) -> Option<&str> {
    let on = matching.on.then_some(&matching.labels)?;
    on.iter().find(|l| matching.include.contains(l)).map(String::as_str)
}
