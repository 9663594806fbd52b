//! Series of test scripts: `metric{a="b"} 1+2x3 _ _x2 stale {{schema:0 sum:1 buckets:[1 2]}}x3`.
//!
//! | item | stands for |
//! |---|---|
//! | `5`, `-5`, `NaN` | one value |
//! | `5x3` | `5 5 5 5`: the value and three more |
//! | `5+2x3`, `5-2x3` | `5 7 9 11`, `5 3 1 -1` |
//! | `_`, `_x3` | one, three points left out |
//! | `stale` | the stale marker |
//! | `{{…}}`, `{{…}}x3`, `{{…}}+{{…}}x3` | the same with native histograms |
//!
//! Keys of a histogram: `schema sum count z_bucket z_bucket_w buckets offset n_buckets n_offset
//! custom_values counter_reset_hint`.
//!
//! Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/docs/configuration/unit_testing_rules.md#series>

mod histogram;

use std::sync::Arc;

use promontory_tsdb::Labels;
use promontory_tsdb::histogram::{CounterResetHint, FloatHistogram, Span as BucketSpan};
use promontory_tsdb::labels::METRIC_NAME;
use promontory_tsdb::sample::STALE_NAN_BITS;

use super::grammar::{Context, Parser, Result};
use super::literal::parse_number;
use super::token::Kind;
use super::{ParseError, ParserOptions, Span};

/// Most values that one description may stand for.
const MAX_VALUES: usize = 10_000_000;

const LABEL: Context = Context::new("label set", "identifier or \"}\"");
const LABEL_EQUALS: Context = Context::new("label set", "\"=\"");
const LABEL_VALUE: Context = Context::new("label set", "string");
const LABEL_COMMA: Context = Context::new("label set", "\",\" or \"}\"");

/// A series with its values, the first at time 0.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesDescription {
    /// Its labels.
    pub labels: Labels,
    /// One per step.
    pub values: Vec<SequenceValue>,
}

/// What stands at one step.
#[derive(Debug, Clone, PartialEq)]
pub enum SequenceValue {
    /// `_`: nothing.
    Omitted,
    /// A float; `stale` is the stale marker.
    Float(f64),
    /// A histogram.
    Histogram {
        /// The value.
        value: Arc<FloatHistogram>,
        /// Whether the text says `counter_reset_hint`; else the hint is not to be compared.
        has_hint: bool,
    },
}

/// Parses a series description.
///
/// # Errors
/// The first mistake.
pub fn parse_series_description(input: &str) -> Result<SeriesDescription> {
    let (labels, end) = parse_metric_prefix(input)?;
    let values = Values { input, pos: end }.parse()?;
    Ok(SeriesDescription { labels, values })
}

/// Parses `metric{a="b"}`.
///
/// # Errors
/// The first mistake.
pub fn parse_metric(input: &str) -> Result<Labels> {
    let (labels, end) = parse_metric_prefix(input)?;
    let rest = &input[end..];
    if !rest.trim().is_empty() {
        let start = end + (rest.len() - rest.trim_start().len());
        let span = Span { start, end: input.len() };
        return Err(ParseError::new(input, span, format!("unexpected {:?} after the metric", rest.trim())));
    }
    Ok(labels)
}

/// The labels, and where the values begin.
fn parse_metric_prefix(input: &str) -> Result<(Labels, usize)> {
    let mut parser = Parser::new(input, ParserOptions::all());
    let token = parser.peek()?;
    let mut pairs = Vec::new();
    if token.kind.is_metric_name() {
        parser.bump()?;
        pairs.push((METRIC_NAME.to_owned(), parser.text(token).to_owned()));
        // Braces belong to the name only if they touch it: `a {{…}}` is a value.
        if !input[token.span.end..].starts_with('{') {
            return Ok((Labels::from_pairs(pairs), token.span.end));
        }
    } else if token.kind != Kind::LeftBrace {
        return Err(parser.unexpected());
    }
    parser.bump()?;
    parse_label_set(&mut parser, &mut pairs)?;
    Ok((Labels::from_pairs(pairs), parser.position()))
}

/// Labels up to and including `}`.
fn parse_label_set(parser: &mut Parser<'_>, pairs: &mut Vec<(String, String)>) -> Result<()> {
    loop {
        if parser.eat(Kind::RightBrace)?.is_some() {
            return Ok(());
        }
        let label = parser.peek()?;
        let name = match label.kind {
            Kind::Identifier => parser.text(label).to_owned(),
            Kind::String => parser.unquote(label)?,
            _ => return Err(parser.unexpected_in(LABEL)),
        };
        parser.bump()?;
        if parser.eat(Kind::Equals)?.is_some() {
            let value = parser.peek()?;
            if value.kind != Kind::String {
                return Err(parser.unexpected_in(LABEL_VALUE));
            }
            parser.bump()?;
            pairs.push((name, parser.unquote(value)?));
        } else if label.kind == Kind::String {
            pairs.push((METRIC_NAME.to_owned(), name));
        } else {
            return Err(parser.unexpected_in(LABEL_EQUALS));
        }
        if parser.eat(Kind::Comma)?.is_none() && parser.peek()?.kind != Kind::RightBrace {
            return Err(parser.unexpected_in(LABEL_COMMA));
        }
    }
}

/// Reads values, character by character: spaces count here, and `x` is an operator.
struct Values<'a> {
    input: &'a str,
    pos: usize,
}

impl Values<'_> {
    fn parse(mut self) -> Result<Vec<SequenceValue>> {
        let mut out = Vec::new();
        loop {
            let spaces = self.skip_spaces();
            if self.pos == self.input.len() {
                return Ok(out);
            }
            if !spaces {
                return Err(self.unexpected("series values"));
            }
            self.parse_item(&mut out)?;
        }
    }

    fn rest(&self) -> &str {
        &self.input[self.pos..]
    }

    fn peek(&self) -> Option<u8> {
        self.input.as_bytes().get(self.pos).copied()
    }

    fn eat(&mut self, text: &str) -> bool {
        let hit = self.rest().starts_with(text);
        if hit {
            self.pos += text.len();
        }
        hit
    }

    fn skip_spaces(&mut self) -> bool {
        let from = self.pos;
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.pos += 1;
        }
        self.pos > from
    }

    fn error(&self, message: impl Into<String>) -> ParseError {
        ParseError::new(self.input, Span { start: self.pos, end: self.input.len() }, message)
    }

    fn unexpected(&self, place: &str) -> ParseError {
        match self.rest().chars().next() {
            None => self.error(format!("unexpected end of input in {place}")),
            Some(c) => self.error(format!("unexpected {:?} in {place}", c.to_string())),
        }
    }

    fn parse_item(&mut self, out: &mut Vec<SequenceValue>) -> Result<()> {
        if self.eat("{{") {
            return self.parse_histogram_item(out);
        }
        if self.eat("_") {
            let count = if self.peek() == Some(b'x') { self.parse_times()? } else { 1 };
            return self.fill(out, count, |_| SequenceValue::Omitted);
        }
        let mut value = self.parse_value()?;
        match self.peek() {
            Some(b'x') => {
                let times = self.parse_times()?;
                self.fill(out, times.saturating_add(1), |_| SequenceValue::Float(value))
            }
            Some(b'+' | b'-') => {
                let step = self.parse_signed()?;
                let times = self.parse_times()?;
                // Adds up step by step, as upstream, so that rounding is the same.
                self.fill(out, times.saturating_add(1), |_| {
                    let now = SequenceValue::Float(value);
                    value += step;
                    now
                })
            }
            _ => {
                out.push(SequenceValue::Float(value));
                Ok(())
            }
        }
    }

    fn fill(
        &self,
        out: &mut Vec<SequenceValue>,
        count: usize,
        value: impl FnMut(usize) -> SequenceValue,
    ) -> Result<()> {
        if out.len().saturating_add(count) > MAX_VALUES {
            return Err(self.error(format!("more than {MAX_VALUES} values in a series")));
        }
        out.extend((0..count).map(value));
        Ok(())
    }

    /// `xN`.
    fn parse_times(&mut self) -> Result<usize> {
        if !self.eat("x") {
            return Err(self.unexpected("series values"));
        }
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        let text = &self.input[self.pos..self.pos + digits];
        let times = text.parse().map_err(|_| self.error("invalid repetition in series values"))?;
        self.pos += digits;
        Ok(times)
    }

    /// A number with or without a sign, or `stale`.
    fn parse_value(&mut self) -> Result<f64> {
        if self.rest().starts_with("stale") && !self.word().contains("stalex") {
            self.pos += "stale".len();
            return Ok(f64::from_bits(STALE_NAN_BITS));
        }
        self.parse_signed()
    }

    fn parse_signed(&mut self) -> Result<f64> {
        if self.eat("-") {
            return Ok(-self.parse_unsigned()?);
        }
        self.eat("+");
        self.parse_unsigned()
    }

    /// The letters and digits that begin here.
    fn word(&self) -> &str {
        let end = self.rest().bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        &self.rest()[..end]
    }

    fn parse_unsigned(&mut self) -> Result<f64> {
        let word = self.word();
        let length = if word.starts_with(|c: char| c.is_ascii_alphabetic()) {
            if !word.eq_ignore_ascii_case("inf") && !word.eq_ignore_ascii_case("nan") {
                return Err(self.unexpected("series values, expected number or \"stale\""));
            }
            word.len()
        } else {
            number_length(self.rest().as_bytes())
        };
        if length == 0 {
            return Err(self.unexpected("series values"));
        }
        let text = &self.input[self.pos..self.pos + length];
        let value = parse_number(text).map_err(|e| self.error(format!("error parsing number: {e}")))?;
        self.pos += length;
        Ok(value)
    }

    // Histograms.

    fn parse_histogram_item(&mut self, out: &mut Vec<SequenceValue>) -> Result<()> {
        let (base, has_hint) = self.parse_histogram()?;
        let sign = match self.peek() {
            Some(b'x') => {
                let times = self.parse_times()?;
                let value = SequenceValue::Histogram { value: Arc::new(base), has_hint };
                return self.fill(out, times.saturating_add(1), |_| value.clone());
            }
            Some(b'+') => 1.0,
            Some(b'-') => -1.0,
            _ => {
                out.push(SequenceValue::Histogram { value: Arc::new(base), has_hint });
                return Ok(());
            }
        };
        self.pos += 1;
        if !self.eat("{{") {
            return Err(self.unexpected("series values"));
        }
        // Compat: of two histograms the second says whether there is a hint.
        let (step, has_hint) = self.parse_histogram()?;
        let times = self.parse_times()?;
        let mut value = base;
        for i in 0..=times {
            if i > 0 {
                value = histogram::combine(&value, &step, sign).map_err(|e| self.error(e))?;
            }
            let now = SequenceValue::Histogram { value: Arc::new(value.clone()), has_hint };
            self.fill(out, 1, |_| now.clone())?;
        }
        Ok(())
    }

    /// What stands between `{{` and `}}`; the first is read already. Also whether there is a hint.
    fn parse_histogram(&mut self) -> Result<(FloatHistogram, bool)> {
        let mut h = FloatHistogram::default();
        let mut seen = Vec::new();
        let mut offset = 0;
        let mut negative_offset = 0;
        loop {
            self.skip_spaces();
            if self.eat("}}") {
                break;
            }
            let key = self.word().to_ascii_lowercase();
            self.pos += key.len();
            if key.is_empty() || !self.eat(":") {
                return Err(self.unexpected("histogram description"));
            }
            if seen.contains(&key) {
                return Err(self.error(format!("duplicate key {key:?} in histogram")));
            }
            match key.as_str() {
                "schema" => h.schema = self.parse_int()?,
                "sum" => h.sum = self.parse_signed()?,
                "count" => h.count = self.parse_signed()?,
                "z_bucket" => h.zero_count = self.parse_signed()?,
                "z_bucket_w" => h.zero_threshold = self.parse_signed()?,
                "buckets" => h.positive_buckets = self.parse_list()?,
                "n_buckets" => h.negative_buckets = self.parse_list()?,
                "custom_values" => h.custom_values = self.parse_list()?,
                "offset" => offset = self.parse_int()?,
                "n_offset" => negative_offset = self.parse_int()?,
                "counter_reset_hint" => h.counter_reset_hint = self.parse_hint()?,
                _ => return Err(self.error(format!("bad histogram descriptor found: {key:?}"))),
            }
            seen.push(key);
        }
        h.positive_spans = one_span(offset, h.positive_buckets.len());
        h.negative_spans = one_span(negative_offset, h.negative_buckets.len());
        Ok((h, seen.iter().any(|k| k == "counter_reset_hint")))
    }

    fn parse_int(&mut self) -> Result<i32> {
        let from = self.pos;
        self.eat("-");
        self.pos += self.rest().bytes().take_while(u8::is_ascii_digit).count();
        self.input[from..self.pos].parse().map_err(|_| self.unexpected("histogram description"))
    }

    /// `[1 2 3]`.
    fn parse_list(&mut self) -> Result<Vec<f64>> {
        if !self.eat("[") {
            return Err(self.unexpected("histogram description"));
        }
        let mut out = Vec::new();
        loop {
            self.skip_spaces();
            if self.eat("]") {
                return Ok(out);
            }
            out.push(self.parse_signed()?);
        }
    }

    fn parse_hint(&mut self) -> Result<CounterResetHint> {
        let word = self.word().to_ascii_lowercase();
        let hint = match word.as_str() {
            "unknown" => CounterResetHint::Unknown,
            "reset" => CounterResetHint::Reset,
            "not_reset" => CounterResetHint::NotReset,
            "gauge" => CounterResetHint::Gauge,
            _ => return Err(self.error(format!("error parsing counter_reset_hint: unknown value {word:?}"))),
        };
        self.pos += word.len();
        Ok(hint)
    }
}

fn one_span(offset: i32, buckets: usize) -> Vec<BucketSpan> {
    match u32::try_from(buckets) {
        Ok(length) if length > 0 => vec![BucketSpan { offset, length }],
        _ => Vec::new(),
    }
}

/// Length of a number in bytes: digits, `.`, `_` and an exponent. Stops at `x`, which repeats.
fn number_length(bytes: &[u8]) -> usize {
    let mut i = 0;
    while let Some(b) = bytes.get(i) {
        match b {
            b'0'..=b'9' | b'.' | b'_' => i += 1,
            b'e' | b'E' if i > 0 => {
                let signed = matches!(bytes.get(i + 1), Some(b'+' | b'-'));
                i += if signed { 2 } else { 1 };
            }
            _ => break,
        }
    }
    i
}
