//! The parser: a fast path for series lines, the exact lexer for everything else.

use std::borrow::Cow;
use std::fmt;

use promontory_tsdb::histogram::HistogramValue;
use promontory_tsdb::sample::NORMAL_NAN_BITS;
use promontory_tsdb::{Labels, LabelsBuilder, METRIC_NAME};

use super::lexer::{Lexer, Token, is_name_byte, is_name_start};
use super::metadata::MetricType;
use super::number::{format_open_metrics_float, parse_timestamp_ms, parse_value};
use super::{Format, quote};

/// One thing that a page says.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry<'a> {
    /// A sample of a series.
    Series(Series<'a>),
    /// A native histogram of a series, whose `value` means nothing (protobuf).
    Histogram(Series<'a>, HistogramValue),
    /// The type of a metric family.
    Type {
        /// Name of the family.
        metric: &'a [u8],
        /// Its type.
        metric_type: MetricType,
    },
    /// The help text of a metric family.
    Help {
        /// Name of the family.
        metric: &'a [u8],
        /// The text, unescaped.
        text: Cow<'a, [u8]>,
    },
    /// The unit of a metric family (OpenMetrics).
    Unit {
        /// Name of the family.
        metric: &'a [u8],
        /// The unit; may be empty.
        unit: &'a [u8],
    },
    /// Any other comment (Prometheus text), `#` included.
    Comment(&'a [u8]),
}

/// A series line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Series<'a> {
    /// Name and labels as written; the key under which a scraper remembers the series.
    pub text: &'a [u8],
    /// The value; every NaN is the one normal NaN.
    pub value: f64,
    /// The timestamp if the line has one, ms.
    pub timestamp_ms: Option<i64>,
    pub(super) form: SeriesForm,
    pub(super) metric_type: MetricType,
    /// Offset of `text` in the body.
    pub(super) at: usize,
}

/// What the text of a series is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SeriesForm {
    Text(Format),
    /// A key made by [`super::protobuf`].
    Protobuf,
}

/// An exemplar as the page has it.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedExemplar {
    /// Its labels.
    pub labels: Labels,
    /// Its value.
    pub value: f64,
    /// Its timestamp if it has one, ms.
    pub timestamp_ms: Option<i64>,
}

/// What is wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// The line, counted from 1; 0 where the position is not known.
    pub line: usize,
    /// Why, in upstream's words.
    pub reason: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.reason),
            line => write!(f, "line {line}: {}", self.reason),
        }
    }
}

impl std::error::Error for ParseError {}

/// Walks a body. See the [module](super) for what it promises.
#[derive(Debug, Clone)]
pub struct Parser<'a> {
    format: Format,
    body: &'a [u8],
    at: usize,
    metric_type: MetricType,
    /// Of the entry that was read last.
    exemplar: Option<Box<ParsedExemplar>>,
    done: bool,
}

impl<'a> Parser<'a> {
    /// A parser at the start of `body`.
    pub fn new(format: Format, body: &'a [u8]) -> Self {
        Self { format, body, at: 0, metric_type: MetricType::Unknown, exemplar: None, done: false }
    }

    /// The next entry, found faster if the next line is of the series whose text is `expected`.
    ///
    /// `expected` must be a [`Series::text`] that once gave labels, or empty. Pages list their
    /// series in the same order every time, so a scraper can nearly always tell what comes next.
    #[inline]
    pub fn next_expecting(&mut self, expected: &[u8]) -> Option<Result<Entry<'a>, ParseError>> {
        if self.done {
            return None;
        }
        if self.exemplar.is_some() {
            self.exemplar = None;
        }
        if let Some(series) = self.fast_series(expected) {
            return Some(Ok(Entry::Series(series)));
        }
        let entry = self.slow_entry();
        self.done = !matches!(entry, Some(Ok(_)));
        entry
    }

    /// A plain series line, or `None` with nothing consumed.
    #[inline]
    fn fast_series(&mut self, expected: &[u8]) -> Option<Series<'a>> {
        let body = self.body;
        let at = self.at;
        let text_end = if expected.last() == Some(&b'}') && body[at..].starts_with(expected) {
            at + expected.len()
        } else {
            series_text_end(body, at, self.format)?
        };
        let blank = |b: &u8| match self.format {
            Format::PrometheusText => matches!(b, b' ' | b'\t'),
            Format::OpenMetrics => *b == b' ',
        };
        let mut i = text_end;
        body.get(i).filter(|b| blank(b))?;
        i += 1;
        if self.format == Format::PrometheusText {
            while body.get(i).is_some_and(blank) {
                i += 1;
            }
        }
        let value_start = i;
        while body.get(i).is_some_and(|b| !matches!(b, b' ' | b'\n' | b'\t' | b'{')) {
            i += 1;
        }
        let value = parse_value(&body[value_start..i]).ok()?;
        let timestamp_ms = match (body.get(i), self.format) {
            (Some(b'\n'), _) => None,
            (Some(b' '), Format::PrometheusText) => {
                let digits = i + 1;
                i = digits;
                while body.get(i).is_some_and(u8::is_ascii_digit) {
                    i += 1;
                }
                Some(parse_timestamp_ms(&body[digits..i])?)
            }
            _ => return None,
        };
        if body.get(i) != Some(&b'\n') {
            return None;
        }
        self.at = i + 1;
        Some(Series {
            text: &body[at..text_end],
            value,
            timestamp_ms,
            form: SeriesForm::Text(self.format),
            metric_type: self.metric_type,
            at,
        })
    }

    fn slow_entry(&mut self) -> Option<Result<Entry<'a>, ParseError>> {
        let lexer = Lexer::new(self.format, self.body, self.at);
        let mut line = Line { lexer, start: self.at, exemplar: None };
        let entry = line.entry(self.metric_type);
        let at = line.lexer.at;
        self.exemplar = line.exemplar.take();
        match entry {
            Ok(Some(entry)) => {
                self.at = at.min(self.body.len());
                if let Entry::Type { metric_type, .. } = entry {
                    self.metric_type = metric_type;
                }
                Some(Ok(entry))
            }
            Ok(None) => None,
            Err(reason) => Some(Err(ParseError { line: self.line_at(line.start), reason })),
        }
    }

    /// The exemplar of the series that came last, if it has one.
    pub fn exemplar(&self) -> Option<&ParsedExemplar> {
        self.exemplar.as_deref()
    }

    /// How many bytes have been read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The series at `at` as the exact lexer sees it.
    #[cfg(test)]
    pub(super) fn slow_series(format: Format, body: &'a [u8], at: usize) -> Result<Series<'a>, ParseError> {
        let mut parser = Self { at, ..Self::new(format, body) };
        match parser.slow_entry() {
            Some(Ok(Entry::Series(series))) => Ok(series),
            Some(Err(e)) => Err(e),
            other => panic!("no series at {at}: {other:?}"),
        }
    }

    fn line_at(&self, at: usize) -> usize {
        1 + memchr::memchr_iter(b'\n', &self.body[..at.min(self.body.len())]).count()
    }

    /// Adds the line of `series` to an error that [`Series::labels_into`] gave.
    pub fn locate(&self, series: &Series<'_>, error: ParseError) -> ParseError {
        ParseError { line: self.line_at(series.at), ..error }
    }
}

impl<'a> Iterator for Parser<'a> {
    type Item = Result<Entry<'a>, ParseError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.next_expecting(b"")
    }
}

/// Where the text of the series that starts at `at` ends, if it is a plain one. Looks at the
/// structure only: quotes and braces.
#[inline]
fn series_text_end(body: &[u8], at: usize, format: Format) -> Option<usize> {
    let first = *body.get(at)?;
    let mut i = at;
    if is_name_start(first) {
        while body.get(i).copied().is_some_and(is_name_byte) {
            i += 1;
        }
        let name_end = i;
        if format == Format::PrometheusText {
            while matches!(body.get(i), Some(b' ' | b'\t')) {
                i += 1;
            }
        }
        if body.get(i) != Some(&b'{') {
            return Some(name_end);
        }
    } else if first != b'{' {
        return None;
    }
    i += 1;
    loop {
        i += memchr::memchr2(b'"', b'}', &body[i..])?;
        if body[i] == b'}' {
            return Some(i + 1);
        }
        i += 1;
        loop {
            i += memchr::memchr2(b'"', b'\\', body.get(i..)?)?;
            if body[i] == b'"' {
                i += 1;
                break;
            }
            i += 2;
        }
    }
}

impl Series<'_> {
    /// Adds the metric name and the labels to `builder`, unescaped, with `le` and `quantile` of
    /// typed families in their normal form.
    ///
    /// # Errors
    /// If the text is not a well-formed series; the line is not filled in, see [`Parser::locate`].
    pub fn labels_into(&self, builder: &mut LabelsBuilder) -> Result<(), ParseError> {
        let format = match self.form {
            SeriesForm::Text(format) => format,
            SeriesForm::Protobuf => return super::protobuf::labels_into(self.text, builder),
        };
        let mut line = Line { lexer: Lexer::new(format, self.text, 0), start: 0, exemplar: None };
        let mut put = |part: Part<'_>| -> Result<(), String> {
            let (name, value) = match part {
                Part::Name(name) => (Cow::Borrowed(METRIC_NAME), text(name)?),
                Part::Label(name, value) => (text(name)?, text(value)?),
            };
            if builder.get(&name).is_some() {
                return Err(format!("label name {} is not unique", quote(name.as_bytes())));
            }
            builder.set(&name, &self.normalised(&name, value));
            Ok(())
        };
        line.series_text(&mut put).map(|_| ()).map_err(|reason| ParseError { line: 0, reason })
    }

    fn normalised<'v>(&self, name: &str, value: Cow<'v, str>) -> Cow<'v, str> {
        let is_bound = matches!(
            (self.metric_type, name),
            (MetricType::Summary, "quantile") | (MetricType::Histogram, "le")
        );
        if !is_bound {
            return value;
        }
        match parse_value(value.as_bytes()) {
            Ok(bound) => Cow::Owned(format_open_metrics_float(bound)),
            Err(_) => value,
        }
    }
}

/// A piece of a series text, still escaped.
enum Part<'a> {
    Name(&'a [u8]),
    Label(&'a [u8], &'a [u8]),
}

type Sink<'s> = &'s mut dyn FnMut(Part<'_>) -> Result<(), String>;

/// One entry on the slow path.
struct Line<'a> {
    lexer: Lexer<'a>,
    start: usize,
    exemplar: Option<Box<ParsedExemplar>>,
}

impl<'a> Line<'a> {
    fn unexpected(&self, wanted: &str, got: Token) -> String {
        format!(
            "{wanted}, got {} ({}) while parsing: {}",
            quote(&self.lexer.excerpt(self.lexer.start)),
            quote(got.as_str().as_bytes()),
            quote(&self.lexer.excerpt(self.start)),
        )
    }

    fn so_far(&self) -> String {
        quote(self.lexer.slice(self.start, self.lexer.at))
    }

    /// The next entry, or `None` at the end of the body.
    fn entry(&mut self, metric_type: MetricType) -> Result<Option<Entry<'a>>, String> {
        let format = self.lexer.format();
        loop {
            self.start = self.lexer.at;
            let token = self.lexer.next();
            return match (token, format) {
                (Token::Eof, Format::PrometheusText) => Ok(None),
                (Token::Eof, Format::OpenMetrics) => Err(NO_EOF.to_owned()),
                (Token::EofWord, _) => match self.lexer.next() {
                    Token::Eof => Ok(None),
                    _ => Err("unexpected data after # EOF".to_owned()),
                },
                (Token::Linebreak, _) => continue,
                (Token::Help | Token::Type | Token::Unit, _) => self.metadata(token).map(Some),
                (Token::Comment, _) => {
                    let text = self.lexer.token();
                    match self.lexer.next() {
                        Token::Linebreak => Ok(Some(Entry::Comment(text))),
                        got => Err(self.unexpected("linebreak expected after comment", got)),
                    }
                }
                (Token::Name | Token::BraceOpen, _) => {
                    // Blanks before a series are not part of its text.
                    self.start = self.lexer.start;
                    self.lexer.at = self.start;
                    self.lexer.restart();
                    self.series(metric_type).map(|series| Some(Entry::Series(series)))
                }
                (got, _) => Err(self.unexpected("expected a valid start token", got)),
            };
        }
    }

    fn metadata(&mut self, kind: Token) -> Result<Entry<'a>, String> {
        let format = self.lexer.format();
        let metric = match self.lexer.next() {
            Token::Name => unquoted(self.lexer.token()),
            got => {
                return Err(self.unexpected(&format!("expected metric name after {}", kind.as_str()), got));
            }
        };
        match self.lexer.next() {
            Token::Text => {}
            got => return Err(format!("expected text in {}, got {}", kind.as_str(), got.as_str())),
        }
        let mut text = self.lexer.token();
        text = text.get(1..).unwrap_or_default();
        if format == Format::OpenMetrics {
            text = text.strip_suffix(b"\n").unwrap_or(text);
        }
        let entry = match kind {
            Token::Type => {
                let found = match format {
                    Format::PrometheusText => MetricType::from_prometheus_text(text),
                    Format::OpenMetrics => MetricType::from_open_metrics(text),
                };
                let metric_type = found.ok_or_else(|| format!("invalid metric type {}", quote(text)))?;
                Entry::Type { metric, metric_type }
            }
            Token::Unit => {
                let suffixed = metric.strip_suffix(text).is_some_and(|stem| stem.ends_with(b"_"));
                if !text.is_empty() && !suffixed {
                    return Err(format!("unit {} not a suffix of metric {}", quote(text), quote(metric)));
                }
                Entry::Unit { metric, unit: text }
            }
            _ => {
                if std::str::from_utf8(text).is_err() {
                    return Err(format!("help text {} is not a valid utf8 string", quote(text)));
                }
                Entry::Help { metric, text: unescape(text, format == Format::OpenMetrics) }
            }
        };
        if format == Format::PrometheusText {
            match self.lexer.next() {
                Token::Linebreak => {}
                got => return Err(self.unexpected("linebreak expected after metadata", got)),
            }
        }
        Ok(entry)
    }

    fn series(&mut self, metric_type: MetricType) -> Result<Series<'a>, String> {
        let start = self.start;
        let (text_end, next) = self.series_text(&mut |_| Ok(()))?;
        let text = self.lexer.slice(start, text_end);
        let (value, timestamp_ms) = match self.lexer.format() {
            Format::PrometheusText => self.text_suffix(next)?,
            Format::OpenMetrics => self.open_metrics_suffix(next)?,
        };
        let form = SeriesForm::Text(self.lexer.format());
        Ok(Series { text, value, timestamp_ms, form, metric_type, at: start })
    }

    /// Name and labels. Returns where they end, and the token behind them.
    fn series_text(&mut self, sink: Sink<'_>) -> Result<(usize, Token), String> {
        let mut named = false;
        let mut end;
        let mut token = self.lexer.next();
        end = self.lexer.at;
        if token == Token::Name {
            sink(Part::Name(self.lexer.token()))?;
            named = true;
            token = self.lexer.next();
        }
        if token == Token::BraceOpen {
            self.label_values(&mut named, sink)?;
            end = self.lexer.at;
            token = self.lexer.next();
        }
        if !named {
            return Err(format!("metric name not set while parsing: {}", self.so_far()));
        }
        Ok((end, token))
    }

    fn label_values(&mut self, named: &mut bool, sink: Sink<'_>) -> Result<(), String> {
        let mut token = self.lexer.next();
        loop {
            let name = match token {
                Token::BraceClose => return Ok(()),
                Token::LabelName | Token::Quoted => self.lexer.token(),
                got => return Err(self.unexpected("expected label name", got)),
            };
            let is_quoted = token == Token::Quoted;
            token = self.lexer.next();
            // A quoted string that no "=" follows is the metric name.
            if is_quoted && matches!(token, Token::Comma | Token::BraceClose) {
                if *named {
                    return Err(format!("metric name already set while parsing: {}", self.so_far()));
                }
                *named = true;
                sink(Part::Name(unquoted(name)))?;
                if token == Token::BraceClose {
                    return Ok(());
                }
                token = self.lexer.next();
                continue;
            }
            token = self.label_value(unquoted(name), token, sink)?;
        }
    }

    /// `="value"` and the comma after it, if any; returns the token behind.
    fn label_value(&mut self, name: &[u8], token: Token, sink: Sink<'_>) -> Result<Token, String> {
        if token != Token::Equal {
            return Err(self.unexpected("expected equal", token));
        }
        match self.lexer.next() {
            Token::LabelValue => {}
            got => return Err(self.unexpected("expected label value", got)),
        }
        let value = self.lexer.token();
        if std::str::from_utf8(value).is_err() {
            return Err(format!("invalid UTF-8 label value: {}", quote(value)));
        }
        sink(Part::Label(name, unquoted(value)))?;
        match (self.lexer.next(), self.lexer.format()) {
            (Token::Comma, _) => Ok(self.lexer.next()),
            (Token::BraceClose, _) => Ok(Token::BraceClose),
            (got, Format::OpenMetrics) => Err(self.unexpected("expected comma or brace close", got)),
            // Compat: Prometheus text lets a blank stand for the comma.
            (got, Format::PrometheusText) => Ok(got),
        }
    }

    fn text_suffix(&mut self, token: Token) -> Result<(f64, Option<i64>), String> {
        if token != Token::Value {
            return Err(self.unexpected("expected value after metric", token));
        }
        let value = self.number(self.lexer.token())?;
        match self.lexer.next() {
            Token::Linebreak => Ok((value, None)),
            Token::Timestamp => {
                let digits = self.lexer.token();
                let timestamp = parse_timestamp_ms(digits).ok_or_else(|| {
                    format!(
                        "strconv.ParseInt: parsing {}: value out of range while parsing: {}",
                        quote(digits),
                        self.so_far()
                    )
                })?;
                match self.lexer.next() {
                    Token::Linebreak => Ok((value, Some(timestamp))),
                    got => Err(self.unexpected("expected next entry after timestamp", got)),
                }
            }
            got => Err(self.unexpected("expected timestamp or new record", got)),
        }
    }

    fn open_metrics_suffix(&mut self, token: Token) -> Result<(f64, Option<i64>), String> {
        if token != Token::Value {
            return Err(self.unexpected("expected value after metric", token));
        }
        let value = self.number(&self.lexer.token()[1..])?;
        let mut timestamp = None;
        let mut token = self.lexer.next();
        if token == Token::Timestamp {
            timestamp = Some(self.timestamp_seconds("timestamp")?);
            token = self.lexer.next();
        }
        match token {
            Token::Linebreak => {}
            Token::Comment => self.exemplar()?,
            Token::Eof => return Err(NO_EOF.to_owned()),
            got => return Err(self.unexpected("expected next entry after timestamp", got)),
        }
        Ok((value, timestamp))
    }

    /// Reads an exemplar up to the end of its line.
    fn exemplar(&mut self) -> Result<(), String> {
        let mut builder = LabelsBuilder::default();
        let mut put = |part: Part<'_>| -> Result<(), String> {
            if let Part::Label(name, value) = part {
                builder.set(&text(name)?, &text(value)?);
            }
            Ok(())
        };
        let mut token = self.lexer.next();
        while token != Token::BraceClose {
            if !matches!(token, Token::LabelName | Token::Quoted) {
                return Err(self.unexpected("expected label name", token));
            }
            let name = unquoted(self.lexer.token());
            token = self.lexer.next();
            token = self.label_value(name, token, &mut put)?;
        }
        let labels = builder.build();
        let value = match self.lexer.next() {
            Token::Value => self.number(&self.lexer.token()[1..])?,
            got => return Err(self.unexpected("expected value after exemplar labels", got)),
        };
        let timestamp = match self.lexer.next() {
            Token::Linebreak => {
                self.exemplar = Some(Box::new(ParsedExemplar { labels, value, timestamp_ms: None }));
                return Ok(());
            }
            Token::Timestamp => self.timestamp_seconds("exemplar timestamp")?,
            Token::Eof => return Err(NO_EOF.to_owned()),
            got => return Err(self.unexpected("expected timestamp or comment", got)),
        };
        self.exemplar = Some(Box::new(ParsedExemplar { labels, value, timestamp_ms: Some(timestamp) }));
        match self.lexer.next() {
            Token::Linebreak => Ok(()),
            got => Err(self.unexpected("expected next entry after exemplar timestamp", got)),
        }
    }

    fn number(&self, text: &[u8]) -> Result<f64, String> {
        parse_value(text).map_err(|reason| format!("{reason} while parsing: {}", self.so_far()))
    }

    /// A timestamp token of OpenMetrics, seconds, as ms.
    fn timestamp_seconds(&self, what: &str) -> Result<i64, String> {
        let seconds = self.number(&self.lexer.token()[1..])?;
        if !seconds.is_finite() {
            let shown = match seconds.to_bits() {
                NORMAL_NAN_BITS => "NaN",
                _ if seconds > 0.0 => "+Inf",
                _ => "-Inf",
            };
            return Err(format!("invalid {what} {shown}"));
        }
        Ok((seconds * 1000.0) as i64)
    }
}

const NO_EOF: &str = "data does not end with # EOF";

fn unquoted(token: &[u8]) -> &[u8] {
    token.strip_prefix(b"\"").and_then(|t| t.strip_suffix(b"\"")).unwrap_or(token)
}

fn text(escaped: &[u8]) -> Result<Cow<'_, str>, String> {
    let invalid = || format!("invalid UTF-8 in name {}", quote(escaped));
    match unescape(escaped, true) {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| invalid()),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| invalid()),
    }
}

/// Resolves `\\`, `\n` and, if `quotes`, `\"`. Any other escape stays as it is.
fn unescape(escaped: &[u8], quotes: bool) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', escaped).is_none() {
        return Cow::Borrowed(escaped);
    }
    let mut out = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter().copied().peekable();
    while let Some(b) = bytes.next() {
        let resolved = match (b, bytes.peek()) {
            (b'\\', Some(b'\\')) => b'\\',
            (b'\\', Some(b'n')) => b'\n',
            (b'\\', Some(b'"')) if quotes => b'"',
            _ => {
                out.push(b);
                continue;
            }
        };
        out.push(resolved);
        bytes.next();
    }
    Cow::Owned(out)
}
