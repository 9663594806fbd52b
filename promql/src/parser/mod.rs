//! The PromQL language of Prometheus 3.14: lexer, parser, type checks, printer.
//!
//! Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/parser/generated_parser.y>

pub mod ast;

pub use ast::*;

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
    /// `use-start-timestamps`: the function `start_timestamp`.
    pub start_timestamps: bool,
}

/// A syntax or type error: upstream's text, `line:col: parse error: …`, with 1-based byte columns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: parse error: {message}")]
pub struct ParseError {
    /// Bytes of the query that the error is about.
    pub span: Span,
    /// 1-based line.
    pub line: usize,
    /// 1-based byte column.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}
