//! Durations with arithmetic, as they stand inside `[…]` and behind `offset`.

use super::ast::{BinaryOp, DurationExpr, DurationExprKind, NumberLiteral, Span, UnaryOp};
use super::grammar::{Parser, Result, precedence};
use super::token::Kind;

/// Precedence of a sign: that of `*`.
const SIGN_PRECEDENCE: u8 = 5;

impl Parser<'_> {
    /// A duration for a range or a step: a plain number must be above 0.
    pub(super) fn parse_positive_duration(&mut self) -> Result<DurationExpr> {
        self.duration_ops = 0;
        let duration = self.parse_duration_expr(0)?;
        match duration.kind {
            DurationExprKind::Literal(n) if n.value <= 0.0 => {
                Err(self.error(duration.span, "duration must be greater than 0"))
            }
            _ => Ok(duration),
        }
    }

    /// A duration behind `offset`. Arithmetic needs parentheses there: `a offset 5m + b` adds `b` to `a`.
    pub(super) fn parse_offset_duration(&mut self) -> Result<DurationExpr> {
        self.duration_ops = 0;
        let token = self.peek()?;
        let sign = match token.kind {
            Kind::Op(BinaryOp::Add) => Some(UnaryOp::Plus),
            Kind::Op(BinaryOp::Sub) => Some(UnaryOp::Minus),
            // Compat: a parenthesis opens a whole expression, so `a offset (5m) + 1m` is an offset of 6m.
            Kind::LeftParen => return self.parse_duration_expr(0),
            _ => return self.parse_duration_operand(),
        };
        self.bump()?;
        if matches!(self.peek()?.kind, Kind::Op(BinaryOp::Add | BinaryOp::Sub)) {
            let inner = self.parse_duration_expr(SIGN_PRECEDENCE + 1)?;
            let first = self.apply_sign(sign, token.span, inner)?;
            return self.parse_duration_tail(first, 0);
        }
        let operand = self.parse_duration_operand()?;
        self.apply_sign(sign, token.span, operand)
    }

    fn parse_duration_expr(&mut self, min: u8) -> Result<DurationExpr> {
        self.nested(|p| {
            let token = p.peek()?;
            let sign = match token.kind {
                Kind::Op(BinaryOp::Add) => Some(UnaryOp::Plus),
                Kind::Op(BinaryOp::Sub) => Some(UnaryOp::Minus),
                _ => None,
            };
            let first = if sign.is_some() {
                p.bump()?;
                let inner = p.parse_duration_expr(SIGN_PRECEDENCE + 1)?;
                p.apply_sign(sign, token.span, inner)?
            } else {
                p.parse_duration_operand()?
            };
            p.parse_duration_tail(first, min)
        })
    }

    /// Operators and operands behind `lhs`.
    fn parse_duration_tail(&mut self, mut lhs: DurationExpr, min: u8) -> Result<DurationExpr> {
        loop {
            let token = self.peek()?;
            let op = match token.kind {
                Kind::Op(op) if is_duration_op(op) && precedence(op) >= min => op,
                _ => return Ok(lhs),
            };
            self.duration_ops += 1;
            if self.duration_ops > super::MAX_DEPTH {
                return Err(self.error(token.span, "duration expression is too long"));
            }
            self.bump()?;
            let level = precedence(op);
            let rhs = self.parse_duration_expr(if op == BinaryOp::Pow { level } else { level + 1 })?;
            let by_zero = matches!(rhs.kind, DurationExprKind::Literal(n) if n.value == 0.0);
            match op {
                BinaryOp::Div if by_zero => return Err(self.error(token.span, "division by zero")),
                BinaryOp::Mod if by_zero => return Err(self.error(token.span, "modulo by zero")),
                _ => {}
            }
            let span = Span { start: lhs.span.start, end: rhs.span.end };
            let kind = DurationExprKind::Binary(op, Box::new(lhs), Box::new(rhs));
            lhs = DurationExpr { span, kind };
        }
    }

    fn parse_duration_operand(&mut self) -> Result<DurationExpr> {
        let token = self.peek()?;
        let start = token.span.start;
        match token.kind {
            Kind::Number | Kind::Duration => {
                let (span, number) = self.parse_number_or_duration()?;
                self.duration_literal(span, span, number)
            }
            Kind::Step | Kind::Range => {
                self.bump()?;
                self.expect(Kind::LeftParen)?;
                let end = self.expect(Kind::RightParen)?.span.end;
                let kind =
                    if token.kind == Kind::Step { DurationExprKind::Step } else { DurationExprKind::Range };
                Ok(DurationExpr { span: Span { start, end }, kind })
            }
            Kind::MinOf | Kind::MaxOf => {
                self.bump()?;
                self.expect(Kind::LeftParen)?;
                let a = Box::new(self.parse_duration_expr(0)?);
                self.expect(Kind::Comma)?;
                let b = Box::new(self.parse_duration_expr(0)?);
                self.expect(Kind::RightParen)?;
                // Compat: upstream's errors about it name the place of its arguments.
                let span = Span { start: a.span.start, end: b.span.end };
                let kind = if token.kind == Kind::MinOf {
                    DurationExprKind::MinOf(a, b)
                } else {
                    DurationExprKind::MaxOf(a, b)
                };
                Ok(DurationExpr { span, kind })
            }
            Kind::LeftParen => {
                self.bump()?;
                let inner = self.parse_duration_expr(0)?;
                let end = self.expect(Kind::RightParen)?.span.end;
                let span = Span { start, end };
                // Upstream remembers that there were parentheses, not how many.
                let kind = match inner.kind {
                    kind @ DurationExprKind::Paren(_) => kind,
                    kind => DurationExprKind::Paren(Box::new(DurationExpr { span: inner.span, kind })),
                };
                Ok(DurationExpr { span, kind })
            }
            _ => Err(self.unexpected()),
        }
    }

    fn apply_sign(&self, sign: Option<UnaryOp>, place: Span, duration: DurationExpr) -> Result<DurationExpr> {
        let span = Span { start: place.start, end: duration.span.end };
        match (duration.kind, sign) {
            (DurationExprKind::Literal(n), _) => {
                let value = if sign == Some(UnaryOp::Minus) { -n.value } else { n.value };
                self.duration_literal(span, place, NumberLiteral { value, ..n })
            }
            (kind, Some(UnaryOp::Minus)) => {
                let inner = Box::new(DurationExpr { span: duration.span, kind });
                Ok(DurationExpr { span, kind: DurationExprKind::Unary(UnaryOp::Minus, inner) })
            }
            // A plus changes nothing and is not kept.
            (kind, _) => Ok(DurationExpr { span, kind }),
        }
    }

    /// A literal in seconds, if it fits 64 bits of nanoseconds as upstream keeps it.
    fn duration_literal(&self, span: Span, place: Span, number: NumberLiteral) -> Result<DurationExpr> {
        const LIMIT: f64 = 9_223_372_036_854_775_808.0 / 1e9;
        if number.value.is_nan() || number.value.abs() > LIMIT {
            return Err(self.error(place, "duration out of range"));
        }
        Ok(DurationExpr { span, kind: DurationExprKind::Literal(number) })
    }
}

fn is_duration_op(op: BinaryOp) -> bool {
    matches!(
        op,
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Pow
    )
}
