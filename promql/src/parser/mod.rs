//! The PromQL language of Prometheus 3.14: lexer, parser, type checks, printer.
//!
//! - [`parse`] makes an [`Expr`] of a query; syntax and types are right, the names of metrics are anyone's.
//! - `Display` for [`Expr`] writes it on one line; what it writes parses to the same tree. [`format`](fn@format)
//!   breaks long expressions into lines.
//! - [`parse_metric_selector`] is for `match[]`, [`series`] for the test scripts.
//!
//! # Errors
//! The first mistake, in upstream's words, with the bytes that it is about.
//!
//! # Limits
//! Time and memory are linear in the length of the query. Nesting is bounded ([`MAX_DEPTH`]); chains
//! of binary operators are not.
//!
//! Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/parser/generated_parser.y>

pub mod ast;
mod check;
mod duration;
pub mod functions;
mod grammar;
mod lexer;
mod literal;
mod pretty;
mod print;
mod selector;
pub mod series;
mod token;

#[cfg(test)]
mod tests;

use std::fmt;

use promontory_tsdb::Matcher;

pub use ast::*;
pub use literal::{format_duration, parse_duration};
pub(crate) use literal::{parse_number, quote_exact, stray_bytes_shown, unquote};
pub use pretty::format;

/// How deep parentheses, calls, signs and right-associative operators may nest.
pub const MAX_DEPTH: usize = 250;

/// Which parts of the language are on. Upstream's feature flags; `@`, negative offsets and duration
/// expressions are always on, as in 3.14.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ParserOptions {
    /// `promql-experimental-functions`: experimental functions, `limitk`, `limit_ratio`.
    pub experimental_functions: bool,
    /// `promql-extended-range-selectors`: `anchored`, `smoothed`.
    pub extended_range_selectors: bool,
    /// `promql-binop-fill-modifiers`: `fill`, `fill_left`, `fill_right`.
    pub binop_fill_modifiers: bool,
}

impl ParserOptions {
    /// Everything on.
    pub fn all() -> Self {
        Self { experimental_functions: true, extended_range_selectors: true, binop_fill_modifiers: true }
    }
}

/// A syntax or type error: upstream's text, `line:col: parse error: …`, with 1-based byte columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// Bytes of the query that the error is about.
    pub span: Span,
    /// 1-based line; 0 if there is no text to point at.
    pub line: usize,
    /// 1-based byte column.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

impl std::error::Error for ParseError {}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(f, "unknown position: parse error: {}", self.message);
        }
        write!(f, "{}:{}: parse error: {}", self.line, self.column, self.message)
    }
}

impl ParseError {
    fn new(input: &str, span: Span, message: impl Into<String>) -> Self {
        let message = message.into();
        if input.is_empty() {
            return Self { span, line: 0, column: 0, message };
        }
        let before = &input.as_bytes()[..span.start.min(input.len())];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
        Self { span, line, column, message }
    }
}

/// Parses a query and checks its types.
///
/// # Errors
/// The first mistake.
pub fn parse(input: &str, options: &ParserOptions) -> Result<Expr, ParseError> {
    let mut expr = grammar::Parser::new(input, *options).parse_query()?;
    check::check(input, &mut expr)?;
    Ok(expr)
}

/// Parses a vector selector without offset and `@`, as in `match[]`, and gives its matchers. Unlike in
/// a query, all of them may match the empty string; callers that mind check that themselves.
///
/// # Errors
/// The first mistake.
pub fn parse_metric_selector(input: &str) -> Result<Vec<Matcher>, ParseError> {
    grammar::Parser::new(input, ParserOptions::default()).parse_metric_selector()
}
