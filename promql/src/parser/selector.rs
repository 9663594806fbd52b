//! Selectors and what stands behind them: `{…}`, `[…]`, `offset`, `@`, `anchored`, `smoothed`.

use promontory_tsdb::labels::METRIC_NAME;
use promontory_tsdb::{MatchOp, Matcher, TimestampMs};

use super::ast::{
    AtModifier, BinaryOp, DurationExpr, DurationExprKind, Expr, ExprKind, MatrixSelector, RangeExtension,
    Span, SubqueryExpr, TimeShift, VectorSelector,
};
use super::grammar::{Context, Parser, Result};
use super::token::{Kind, Token};

const MATCHER: Context = Context::new("label matching", "identifier or \"}\"");
const MATCH_OP: Context = Context::new("label matching", "label matching operator");
const MATCH_VALUE: Context = Context::new("label matching", "string");
const MATCH_COMMA: Context = Context::new("label matching", "\",\" or \"}\"");
const RANGE: Context = Context::new("subquery or range selector", "number, duration, step(), or range()");
const RANGE_END: Context = Context::new("subquery or range", "\":\" or \"]\"");
const STEP: Context = Context::new("subquery selector", "number, duration, step(), range(), or \"]\"");
const STEP_END: Context = Context::new("subquery selector", "\"]\"");
const OFFSET: Context = Context::new("offset", "number, duration, step(), or range()");
const AT: Context = Context::new("@", "timestamp");

/// The parts of a selector or subquery that modifiers change.
struct Modified<'e> {
    time: &'e mut TimeShift,
    span: &'e mut Span,
}

impl Parser<'_> {
    pub(super) fn parse_selector_expr(&mut self) -> Result<Expr> {
        let (span, selector) = self.parse_vector_selector()?;
        Ok(Expr { span, kind: ExprKind::VectorSelector(selector) })
    }

    /// A selector whose name is read already.
    pub(super) fn parse_selector_expr_named(&mut self, name: Token) -> Result<Expr> {
        let (span, selector) = self.parse_braces(Some(name))?;
        Ok(Expr { span, kind: ExprKind::VectorSelector(selector) })
    }

    /// A name, braces, or both.
    pub(super) fn parse_vector_selector(&mut self) -> Result<(Span, VectorSelector)> {
        let name = if self.peek()?.kind == Kind::LeftBrace { None } else { Some(self.bump()?) };
        self.parse_braces(name)
    }

    fn parse_braces(&mut self, name: Option<Token>) -> Result<(Span, VectorSelector)> {
        let mut span = name.map_or(self.peek()?.span, |t| t.span);
        let mut matchers = Vec::new();
        if self.peek()?.kind == Kind::LeftBrace {
            self.bump()?;
            matchers = self.parse_matchers()?;
            span.end = self.position();
        }
        let name = name.map(|t| self.text(t).to_owned());
        matchers.extend(name.as_deref().map(|n| Matcher::eq(METRIC_NAME, n)));
        Ok((span, VectorSelector { name, matchers, ..VectorSelector::default() }))
    }

    /// Matchers up to and including `}`. Ends without a look at the token behind.
    fn parse_matchers(&mut self) -> Result<Vec<Matcher>> {
        let mut matchers = Vec::new();
        loop {
            if self.eat(Kind::RightBrace)?.is_some() {
                return Ok(matchers);
            }
            matchers.push(self.parse_matcher()?);
            if self.eat(Kind::Comma)?.is_none() && self.peek()?.kind != Kind::RightBrace {
                return Err(self.unexpected_in(MATCH_COMMA));
            }
        }
    }

    fn parse_matcher(&mut self) -> Result<Matcher> {
        let label = self.peek()?;
        let name = match label.kind {
            Kind::Identifier => {
                self.bump()?;
                self.text(label).to_owned()
            }
            Kind::String => {
                self.bump()?;
                self.unquote(label)?
            }
            _ => return Err(self.unexpected_in(MATCHER)),
        };
        let op = match self.peek()?.kind {
            Kind::Equals => MatchOp::Eq,
            Kind::Op(BinaryOp::Ne) => MatchOp::Ne,
            Kind::Matches => MatchOp::Re,
            Kind::MatchesNot => MatchOp::Nre,
            // A lone string is the metric's name.
            _ if label.kind == Kind::String => return Ok(Matcher::eq(METRIC_NAME, name)),
            _ => return Err(self.unexpected_in(MATCH_OP)),
        };
        self.bump()?;
        let value = self.peek()?;
        if value.kind != Kind::String {
            return Err(self.unexpected_in(MATCH_VALUE));
        }
        self.bump()?;
        let span = Span { start: label.span.start, end: value.span.end };
        Matcher::new(op, name, self.unquote(value)?).map_err(|e| self.error(span, e.to_string()))
    }

    /// A primary expression with all that is written behind it.
    pub(super) fn parse_postfix(&mut self) -> Result<Expr> {
        let mut expr = self.parse_primary()?;
        loop {
            let token = self.peek()?;
            match token.kind {
                Kind::LeftBracket => expr = self.parse_range(expr, token)?,
                Kind::Offset => self.parse_offset(&mut expr)?,
                Kind::At => self.parse_at(&mut expr)?,
                Kind::Anchored => self.parse_extension(&mut expr, RangeExtension::Anchored)?,
                Kind::Smoothed => self.parse_extension(&mut expr, RangeExtension::Smoothed)?,
                _ => return Ok(expr),
            }
        }
    }

    /// `[range]` or `[range:step]`.
    fn parse_range(&mut self, expr: Expr, bracket: Token) -> Result<Expr> {
        self.bump()?;
        let range = self.within(RANGE, Self::parse_positive_duration)?;
        let start = expr.span.start;
        match self.peek()?.kind {
            Kind::RightBracket => {
                let end = self.bump()?.span.end;
                let brackets = Span { start: bracket.span.start, end };
                let (selector_span, selector) = self.range_selector(expr, brackets)?;
                let matrix = MatrixSelector { selector, selector_span, range };
                Ok(Expr { span: Span { start, end }, kind: ExprKind::MatrixSelector(matrix) })
            }
            Kind::Colon => {
                self.bump()?;
                let (step, end) = self.parse_subquery_step()?;
                let span = Span { start, end };
                // Found by the type checks in any case; found here, a chain of them cannot grow deep.
                if matches!(expr.kind, ExprKind::Subquery(_) | ExprKind::MatrixSelector(_)) {
                    let message = "subquery is only allowed on instant vector, got matrix instead";
                    return Err(self.error(span, message));
                }
                let subquery = SubqueryExpr { expr: Box::new(expr), range, step, time: TimeShift::default() };
                Ok(Expr { span, kind: ExprKind::Subquery(subquery) })
            }
            _ => Err(self.unexpected_in(RANGE_END)),
        }
    }

    fn range_selector(&self, expr: Expr, brackets: Span) -> Result<(Span, VectorSelector)> {
        let message = match expr.kind {
            ExprKind::VectorSelector(selector) => {
                if is_set(selector.time.offset.as_ref()) {
                    "no offset modifiers allowed before range"
                } else if selector.time.at.is_some() {
                    "no @ modifiers allowed before range"
                } else {
                    return Ok((expr.span, selector));
                }
            }
            _ => "ranges only allowed for vector selectors",
        };
        Err(self.error(brackets, message))
    }

    /// What stands behind the colon, and where the closing bracket ends.
    fn parse_subquery_step(&mut self) -> Result<(Option<DurationExpr>, usize)> {
        if let Some(close) = self.eat(Kind::RightBracket)? {
            return Ok((None, close.span.end));
        }
        let step = self.within(STEP, Self::parse_positive_duration)?;
        match self.eat(Kind::RightBracket)? {
            Some(close) => Ok((Some(step), close.span.end)),
            None => Err(self.unexpected_in(STEP_END)),
        }
    }

    fn parse_offset(&mut self, expr: &mut Expr) -> Result<()> {
        self.bump()?;
        let offset = self.within(OFFSET, Self::parse_offset_duration)?;
        let (outer, end) = (expr.span, self.position());
        let Some(target) = modified(expr) else {
            return Err(self.error(
                outer,
                "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
            ));
        };
        if is_set(target.time.offset.as_ref()) {
            return Err(self.error(outer, "offset may not be set multiple times"));
        }
        target.time.offset = Some(offset);
        target.span.end = end;
        Ok(())
    }

    fn parse_at(&mut self, expr: &mut Expr) -> Result<()> {
        self.bump()?;
        let outer = expr.span;
        let (at, end) = self.within(AT, |p| p.parse_at_value(outer))?;
        let Some(target) = modified(expr) else {
            return Err(self.error(
                outer,
                "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery",
            ));
        };
        if target.time.at.is_some() {
            return Err(self.error(outer, "@ <timestamp> may not be set multiple times"));
        }
        target.time.at = Some(at);
        target.span.end = end;
        Ok(())
    }

    /// A timestamp, `start()` or `end()`, and where it ends.
    fn parse_at_value(&mut self, outer: Span) -> Result<(AtModifier, usize)> {
        let kind = self.peek()?.kind;
        if matches!(kind, Kind::Start | Kind::End) {
            self.bump()?;
            self.expect(Kind::LeftParen)?;
            let end = self.expect(Kind::RightParen)?.span.end;
            return Ok((if kind == Kind::Start { AtModifier::Start } else { AtModifier::End }, end));
        }
        let sign = match kind {
            Kind::Op(BinaryOp::Add) => Some(1.0),
            Kind::Op(BinaryOp::Sub) => Some(-1.0),
            _ => None,
        };
        if sign.is_some() {
            self.bump()?;
        }
        let (span, number) = self.parse_number_or_duration()?;
        let seconds = sign.unwrap_or(1.0) * number.value;
        match timestamp_ms(seconds) {
            Some(ms) => Ok((AtModifier::At(ms), span.end)),
            None => {
                let shown = if seconds.is_finite() {
                    format!("{seconds:.6}")
                } else {
                    super::literal::format_float(seconds)
                };
                Err(self.error(outer, format!("timestamp out of bounds for @ modifier: {shown}")))
            }
        }
    }

    fn parse_extension(&mut self, expr: &mut Expr, extension: RangeExtension) -> Result<()> {
        self.bump()?;
        let name = match extension {
            RangeExtension::Anchored => "anchored",
            RangeExtension::Smoothed => "smoothed",
        };
        let span = expr.span;
        if !self.options.extended_range_selectors {
            return Err(self.error(span, format!("{name} modifier is experimental and not enabled")));
        }
        let selector = match &mut expr.kind {
            ExprKind::VectorSelector(s) => s,
            ExprKind::MatrixSelector(m) => &mut m.selector,
            ExprKind::Subquery(_) => {
                return Err(self.error(span, format!("{name} modifier is not supported for subqueries")));
            }
            _ => return Err(self.error(span, format!("{name} modifier not implemented"))),
        };
        if selector.extension.is_some_and(|e| e != extension) {
            return Err(self.error(span, "anchored and smoothed modifiers cannot be used together"));
        }
        // Compat: to upstream the expression ends in front of the modifier.
        selector.extension = Some(extension);
        Ok(())
    }
}

/// Compat: an offset of zero counts as none, so that another one may follow it.
fn is_set(offset: Option<&DurationExpr>) -> bool {
    offset.is_some_and(|d| !matches!(d.kind, DurationExprKind::Literal(n) if n.value == 0.0))
}

/// `None` if the expression takes no `offset` and no `@`.
fn modified(expr: &mut Expr) -> Option<Modified<'_>> {
    let time = match &mut expr.kind {
        ExprKind::VectorSelector(s) => &mut s.time,
        ExprKind::MatrixSelector(m) => &mut m.selector.time,
        ExprKind::Subquery(s) => &mut s.time,
        _ => return None,
    };
    Some(Modified { time, span: &mut expr.span })
}

/// Seconds to ms; `None` if they are no time.
fn timestamp_ms(seconds: f64) -> Option<TimestampMs> {
    let representable = seconds.is_finite() && seconds < i64::MAX as f64 && seconds > i64::MIN as f64;
    // The cast saturates where Go's wraps; both are far outside of any data.
    representable.then_some((seconds * 1000.0).round() as i64)
}
