//! Tokens to a tree: expressions, operators, aggregations and calls. Types are not looked at here.
//!
//! Operators are parsed by precedence climbing, all else by recursive descent. Upstream's parser is
//! made by yacc, whose error recovery decides what a message says: the error belongs to the innermost
//! construct that has a recovery rule. [`Context`] is that construct.

use promontory_tsdb::Matcher;

use super::ast::{
    AggregateExpr, AggregateOp, BinaryExpr, BinaryOp, Call, Cardinality, Expr, ExprKind, NumberLiteral, Span,
    UnaryOp, VectorMatching,
};
use super::lexer::Lexer;
use super::literal::{parse_duration, parse_number, quote, unquote, unquote_exact};
use super::token::{Kind, Token};
use super::{MAX_DEPTH, ParseError, ParserOptions, functions};

pub(super) type Result<T> = std::result::Result<T, ParseError>;

/// What a syntax error is about: the construct, and what was expected in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    name: &'static str,
    expected: &'static str,
}

impl Context {
    pub(super) const fn new(name: &'static str, expected: &'static str) -> Self {
        Self { name, expected }
    }
}

const NO_CONTEXT: Context = Context::new("", "");
const AGGREGATION: Context = Context::new("aggregation", "");
const GROUPING: Context = Context::new("grouping opts", "\"(\"");
const GROUPING_LABEL: Context = Context::new("grouping opts", "label");
const GROUPING_COMMA: Context = Context::new("grouping opts", "\",\" or \")\"");

/// Reads tokens on demand, one ahead at most.
#[derive(Debug)]
pub(super) struct Parser<'a> {
    pub(super) input: &'a str,
    pub(super) options: ParserOptions,
    pub(super) context: Context,
    /// Operators in the duration that is being read; bounded, because they nest to the left.
    pub(super) duration_ops: usize,
    lexer: Lexer<'a>,
    peeked: Option<Token>,
    /// The end of the last token that was taken.
    taken: usize,
    depth: usize,
}

/// What stands between a binary operator and its right side.
struct BinaryModifiers {
    return_bool: bool,
    matching: VectorMatching,
}

/// Precedence of `*`, which signs have as well: `-a * b` is `(-a) * b`, `-a ^ b` is `-(a ^ b)`.
const MUL_PRECEDENCE: u8 = 5;

pub(super) fn precedence(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::Or => 1,
        BinaryOp::And | BinaryOp::Unless => 2,
        BinaryOp::Eq
        | BinaryOp::Ne
        | BinaryOp::Lt
        | BinaryOp::Le
        | BinaryOp::Gt
        | BinaryOp::Ge
        | BinaryOp::TrimUpper
        | BinaryOp::TrimLower => 3,
        BinaryOp::Add | BinaryOp::Sub => 4,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Atan2 => MUL_PRECEDENCE,
        BinaryOp::Pow => 6,
    }
}

impl<'a> Parser<'a> {
    pub(super) fn new(input: &'a str, options: ParserOptions) -> Self {
        Self {
            input,
            options,
            context: NO_CONTEXT,
            duration_ops: 0,
            lexer: Lexer::new(input),
            peeked: None,
            taken: 0,
            depth: 0,
        }
    }

    pub(super) fn parse_query(mut self) -> Result<Expr> {
        if self.peek()?.kind == Kind::Eof {
            return Err(self.error(Span::default(), "no expression found in input"));
        }
        let expr = self.parse_expr()?;
        self.expect(Kind::Eof)?;
        Ok(expr)
    }

    pub(super) fn parse_metric_selector(mut self) -> Result<Vec<Matcher>> {
        let token = self.peek()?;
        if token.kind != Kind::LeftBrace && !token.kind.is_metric_name() {
            return Err(self.unexpected());
        }
        let selector = self.parse_vector_selector()?;
        self.expect(Kind::Eof)?;
        Ok(selector.1.matchers)
    }

    // Tokens.

    pub(super) fn peek(&mut self) -> Result<Token> {
        if let Some(token) = self.peeked {
            return Ok(token);
        }
        let token = self.lexer.next_token()?;
        self.peeked = Some(token);
        Ok(token)
    }

    pub(super) fn bump(&mut self) -> Result<Token> {
        let token = self.peek()?;
        self.peeked = None;
        self.taken = token.span.end;
        Ok(token)
    }

    pub(super) fn eat(&mut self, kind: Kind) -> Result<Option<Token>> {
        if self.peek()?.kind == kind { self.bump().map(Some) } else { Ok(None) }
    }

    pub(super) fn expect(&mut self, kind: Kind) -> Result<Token> {
        if self.peek()?.kind == kind { self.bump() } else { Err(self.unexpected()) }
    }

    pub(super) fn text(&self, token: Token) -> &'a str {
        &self.input[token.span.start..token.span.end]
    }

    /// Behind the last token that was taken.
    pub(super) fn position(&self) -> usize {
        self.taken
    }

    /// Gives the content of a string token.
    pub(super) fn unquote(&self, token: Token) -> Result<String> {
        let literal = self.text(token);
        unquote(literal).ok_or_else(|| {
            self.error(token.span, format!("error unquoting string {}: invalid syntax", quote(literal)))
        })
    }

    // Errors.

    pub(super) fn error(&self, span: Span, message: impl Into<String>) -> ParseError {
        ParseError::new(self.input, span, message)
    }

    /// The next token does not belong here. The error of the lexer if there is no next token.
    pub(super) fn unexpected(&mut self) -> ParseError {
        self.unexpected_in(self.context)
    }

    pub(super) fn unexpected_in(&mut self, context: Context) -> ParseError {
        let token = match self.peek() {
            Ok(token) => token,
            Err(e) => return e,
        };
        let mut message = format!("unexpected {}", token.describe(self.text(token)));
        for (word, what) in [(" in ", context.name), (", expected ", context.expected)] {
            if !what.is_empty() {
                message.push_str(word);
                message.push_str(what);
            }
        }
        self.error(token.span, message)
    }

    /// Runs `parse` with errors ascribed to `context`.
    pub(super) fn within<T>(
        &mut self,
        context: Context,
        parse: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let outer = std::mem::replace(&mut self.context, context);
        let result = parse(self);
        self.context = outer;
        result
    }

    /// Runs `parse` one level deeper, on a fresh piece of stack if little is left.
    pub(super) fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        const RED_ZONE_BYTES: usize = 128 * 1024;
        const SEGMENT_BYTES: usize = 1024 * 1024;
        if self.depth == MAX_DEPTH {
            let span = self.peek()?.span;
            return Err(self.error(span, format!("expression nests deeper than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        let result = stacker::maybe_grow(RED_ZONE_BYTES, SEGMENT_BYTES, || parse(self));
        self.depth -= 1;
        result
    }

    // Expressions.

    pub(super) fn parse_expr(&mut self) -> Result<Expr> {
        self.parse_binary(0)
    }

    /// An expression of operators that bind at least as tightly as `min`.
    fn parse_binary(&mut self, min: u8) -> Result<Expr> {
        self.nested(|p| {
            let mut lhs = p.parse_unary()?;
            while let Kind::Op(op) = p.peek()?.kind {
                let level = precedence(op);
                if level < min {
                    break;
                }
                p.bump()?;
                let modifiers = p.parse_binary_modifiers()?;
                let rhs = p.parse_binary(if op == BinaryOp::Pow { level } else { level + 1 })?;
                lhs = p.binary(op, lhs, modifiers, rhs)?;
            }
            Ok(lhs)
        })
    }

    fn binary(&self, op: BinaryOp, lhs: Expr, modifiers: BinaryModifiers, rhs: Expr) -> Result<Expr> {
        let span = Span { start: lhs.span.start, end: rhs.span.end };
        let BinaryModifiers { return_bool, matching } = modifiers;
        let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
        if fills && !self.options.binop_fill_modifiers {
            return Err(self.error(span, "binop fill modifiers are experimental and not enabled"));
        }
        let matching = Some(matching);
        let kind = ExprKind::Binary(BinaryExpr {
            op,
            lhs: Box::new(lhs),
            rhs: Box::new(rhs),
            return_bool,
            matching,
        });
        Ok(Expr { span, kind })
    }

    fn parse_unary(&mut self) -> Result<Expr> {
        let token = self.peek()?;
        let op = match token.kind {
            Kind::Op(BinaryOp::Add) => UnaryOp::Plus,
            Kind::Op(BinaryOp::Sub) => UnaryOp::Minus,
            _ => return self.parse_postfix(),
        };
        self.bump()?;
        let mut operand = self.parse_binary(MUL_PRECEDENCE + 1)?;
        let span = Span { start: token.span.start, end: operand.span.end };
        if let ExprKind::Number(n) = &mut operand.kind {
            if op == UnaryOp::Minus {
                n.value = -n.value;
            }
            operand.span = span;
            return Ok(operand);
        }
        Ok(Expr { span, kind: ExprKind::Unary(op, Box::new(operand)) })
    }

    pub(super) fn parse_primary(&mut self) -> Result<Expr> {
        let token = self.peek()?;
        match token.kind {
            Kind::Number | Kind::Duration => {
                let (span, number) = self.parse_number_or_duration()?;
                Ok(Expr { span, kind: ExprKind::Number(number) })
            }
            Kind::String => {
                self.bump()?;
                let exact = unquote_exact(self.text(token));
                let text = exact.map_or_else(|| self.unquote(token), Ok)?;
                Ok(Expr { span: token.span, kind: ExprKind::String(text) })
            }
            Kind::LeftParen => {
                self.bump()?;
                let inner = self.parse_expr()?;
                let end = self.expect(Kind::RightParen)?.span.end;
                let span = Span { start: token.span.start, end };
                Ok(Expr { span, kind: ExprKind::Paren(Box::new(inner)) })
            }
            Kind::LeftBrace => self.parse_selector_expr(),
            kind if kind.is_metric_name() => self.parse_name(token),
            _ => Err(self.unexpected()),
        }
    }

    /// An aggregation, a call or a selector: all begin with a name.
    fn parse_name(&mut self, token: Token) -> Result<Expr> {
        self.bump()?;
        match (token.kind, self.peek()?.kind) {
            (Kind::Aggregate(op), Kind::By | Kind::Without | Kind::LeftParen) => {
                self.within(AGGREGATION, |p| p.parse_aggregate(token, op))
            }
            (name, Kind::LeftParen) if name.is_function_name() => self.parse_call(token),
            _ => self.parse_selector_expr_named(token),
        }
    }

    pub(super) fn parse_number_or_duration(&mut self) -> Result<(Span, NumberLiteral)> {
        let token = self.peek()?;
        let text = self.text(token);
        let number = match token.kind {
            Kind::Number => parse_number(text)
                .map(|value| NumberLiteral { value, is_duration: false })
                .map_err(|e| self.error(token.span, format!("error parsing number: {e}")))?,
            Kind::Duration => parse_duration(text)
                .map(|ms| NumberLiteral { value: ms as f64 / 1000.0, is_duration: true })
                .map_err(|e| self.error(token.span, e))?,
            _ => return Err(self.unexpected()),
        };
        self.bump()?;
        Ok((token.span, number))
    }

    // Aggregations and calls.

    fn parse_aggregate(&mut self, name: Token, op: AggregateOp) -> Result<Expr> {
        let mut modifier = self.parse_aggregate_modifier()?;
        let args = self.parse_args()?;
        let mut end = self.position();
        if modifier.is_none() {
            modifier = self.parse_aggregate_modifier()?;
            if modifier.is_some() {
                end = self.position();
            }
        }
        let span = Span { start: name.span.start, end };
        let (without, grouping) = modifier.unwrap_or_default();
        let (param, expr) = self.aggregate_args(span, op, args)?;
        let kind = ExprKind::Aggregate(AggregateExpr { op, expr, param, grouping, without });
        Ok(Expr { span, kind })
    }

    fn aggregate_args(
        &self,
        span: Span,
        op: AggregateOp,
        args: Vec<Expr>,
    ) -> Result<(Option<Box<Expr>>, Box<Expr>)> {
        let count = args.len();
        if count == 0 {
            return Err(self.error(span, "no arguments for aggregate expression provided"));
        }
        if matches!(op, AggregateOp::LimitK | AggregateOp::LimitRatio) && !self.options.experimental_functions
        {
            let name = op.name();
            let message = format!(
                "{name}() is experimental and must be enabled with --enable-feature=promql-experimental-functions"
            );
            return Err(self.error(span, message));
        }
        let wanted = if op.has_param() { 2 } else { 1 };
        let mut args = args.into_iter().map(Box::new);
        match (args.next(), args.next(), args.next()) {
            (Some(param), Some(expr), None) if wanted == 2 => Ok((Some(param), expr)),
            (Some(expr), None, None) if wanted == 1 => Ok((None, expr)),
            _ => Err(self.error(
                span,
                format!(
                    "wrong number of arguments for aggregate expression provided, expected {wanted}, got {count}"
                ),
            )),
        }
    }

    /// `by (…)` or `without (…)`, if there is one; `true` is `without`.
    fn parse_aggregate_modifier(&mut self) -> Result<Option<(bool, Vec<String>)>> {
        let without = match self.peek()?.kind {
            Kind::By => false,
            Kind::Without => true,
            _ => return Ok(None),
        };
        self.bump()?;
        Ok(Some((without, self.parse_grouping_labels()?)))
    }

    fn parse_call(&mut self, name: Token) -> Result<Expr> {
        let args = self.parse_args()?;
        let span = Span { start: name.span.start, end: self.position() };
        let text = self.text(name);
        let Some(function) = functions::by_name(text) else {
            return Err(self.error(name.span, format!("unknown function with name {}", quote(text))));
        };
        if function.experimental && !self.options.experimental_functions {
            return Err(self.error(name.span, format!("function {} is not enabled", quote(text))));
        }
        Ok(Expr { span, kind: ExprKind::Call(Call { function, args }) })
    }

    /// `(…)` with expressions between commas. Ends without a look at the token behind.
    fn parse_args(&mut self) -> Result<Vec<Expr>> {
        self.expect(Kind::LeftParen)?;
        let mut args = Vec::new();
        if self.eat(Kind::RightParen)?.is_some() {
            return Ok(args);
        }
        loop {
            args.push(self.parse_expr()?);
            let Some(comma) = self.eat(Kind::Comma)? else { break };
            if !self.begins_expr()? {
                return Err(self.error(comma.span, "trailing commas not allowed in function call args"));
            }
        }
        self.expect(Kind::RightParen)?;
        Ok(args)
    }

    fn begins_expr(&mut self) -> Result<bool> {
        Ok(match self.peek()?.kind {
            Kind::Number | Kind::Duration | Kind::String | Kind::LeftParen | Kind::LeftBrace => true,
            Kind::Op(BinaryOp::Add | BinaryOp::Sub) => true,
            kind => kind.is_metric_name(),
        })
    }

    // Modifiers of binary operators.

    fn parse_binary_modifiers(&mut self) -> Result<BinaryModifiers> {
        let return_bool = self.eat(Kind::Bool)?.is_some();
        let mut matching = VectorMatching {
            cardinality: Cardinality::OneToOne,
            on: false,
            labels: Vec::new(),
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        };
        let kind = self.peek()?.kind;
        if matches!(kind, Kind::On | Kind::Ignoring) {
            self.bump()?;
            matching.on = kind == Kind::On;
            matching.labels = self.parse_grouping_labels()?;
            self.parse_group_modifier(&mut matching)?;
        }
        self.parse_fill_modifiers(&mut matching)?;
        Ok(BinaryModifiers { return_bool, matching })
    }

    fn parse_group_modifier(&mut self, matching: &mut VectorMatching) -> Result<()> {
        matching.cardinality = match self.peek()?.kind {
            Kind::GroupLeft => Cardinality::ManyToOne,
            Kind::GroupRight => Cardinality::OneToMany,
            _ => return Ok(()),
        };
        self.bump()?;
        if self.peek()?.kind == Kind::LeftParen || !self.begins_expr()? {
            matching.include = self.parse_grouping_labels()?;
        }
        Ok(())
    }

    fn parse_fill_modifiers(&mut self, matching: &mut VectorMatching) -> Result<()> {
        match self.peek()?.kind {
            Kind::Fill => {
                let value = self.parse_fill_value()?;
                matching.fill_left = Some(value);
                matching.fill_right = Some(value);
            }
            Kind::FillLeft => {
                matching.fill_left = Some(self.parse_fill_value()?);
                if self.peek()?.kind == Kind::FillRight {
                    matching.fill_right = Some(self.parse_fill_value()?);
                }
            }
            Kind::FillRight => {
                matching.fill_right = Some(self.parse_fill_value()?);
                if self.peek()?.kind == Kind::FillLeft {
                    matching.fill_left = Some(self.parse_fill_value()?);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn parse_fill_value(&mut self) -> Result<f64> {
        self.bump()?;
        self.expect(Kind::LeftParen)?;
        let negative = match self.peek()?.kind {
            Kind::Op(BinaryOp::Add) => Some(false),
            Kind::Op(BinaryOp::Sub) => Some(true),
            _ => None,
        };
        if negative.is_some() {
            self.bump()?;
        }
        let (_, number) = self.parse_number_or_duration()?;
        self.expect(Kind::RightParen)?;
        Ok(if negative == Some(true) { -number.value } else { number.value })
    }

    /// `(a, "b.c",)`. Ends without a look at the token behind.
    fn parse_grouping_labels(&mut self) -> Result<Vec<String>> {
        if self.eat(Kind::LeftParen)?.is_none() {
            return Err(self.unexpected_in(GROUPING));
        }
        let mut labels = Vec::new();
        loop {
            if self.eat(Kind::RightParen)?.is_some() {
                return Ok(labels);
            }
            let token = self.peek()?;
            match token.kind {
                Kind::String => {
                    self.bump()?;
                    let label = self.unquote(token)?;
                    if label.is_empty() || label.contains(char::REPLACEMENT_CHARACTER) {
                        let message = format!("invalid label name for grouping: {}", quote(&label));
                        return Err(self.error(token.span, message));
                    }
                    labels.push(label);
                }
                kind if kind.is_grouping_label() => {
                    self.bump()?;
                    labels.push(self.text(token).to_owned());
                }
                _ => return Err(self.unexpected_in(GROUPING_LABEL)),
            }
            if self.eat(Kind::Comma)?.is_none() && self.peek()?.kind != Kind::RightParen {
                return Err(self.unexpected_in(GROUPING_COMMA));
            }
        }
    }
}
