//! Text to commands.
//!
//! A command begins a line; the lines up to the next empty one belong to it. `#` begins a comment line.
//! A mistake spoils its own command only: it is kept as [`Command::Invalid`], and reading goes on.

use std::sync::LazyLock;

use promontory_tsdb::{Labels, TimestampMs};
use regex::Regex;

use super::expect::{Expectation, Expectations, Text};
use crate::parser::parse_duration;
use crate::parser::series::{SequenceValue, parse_metric, parse_series_description};
use crate::parser::{parse_number, unquote};

/// One command and the line, counted from 1, on which it begins.
#[derive(Debug)]
pub struct Step {
    /// Line of the command.
    pub line: usize,
    /// What to do.
    pub command: Command,
}

/// What a script says.
#[derive(Debug)]
pub enum Command {
    /// Forget all data.
    Clear,
    /// Add data.
    Load(Load),
    /// Run a query and look at the result.
    Eval(Box<Eval>),
    /// A command that could not be read, and why. `is_eval` if it would have been an `eval`.
    Invalid {
        /// What is wrong.
        reason: String,
        /// Whether the command would count as a case.
        is_eval: bool,
    },
}

/// Series with values at `0, gap, 2 gap, …`.
#[derive(Debug)]
pub struct Load {
    /// Spacing, ms.
    pub gap_ms: i64,
    /// `load_with_nhcb`: classic histograms are also loaded as native ones.
    pub with_nhcb: bool,
    /// What to load.
    pub series: Vec<LoadSeries>,
}

/// A series to load.
#[derive(Debug)]
pub struct LoadSeries {
    /// Its labels.
    pub labels: Labels,
    /// Values at `0, gap, 2 gap, …`.
    pub values: Vec<SequenceValue>,
    /// Where each value's start timestamp lies, ms from the value's own time: as many, or none at all.
    pub starts: Vec<Option<i64>>,
}

/// A query and what it should give.
#[derive(Debug)]
pub struct Eval {
    /// The query.
    pub expr: String,
    /// First evaluation timestamp; of expected points, not of the query, with `expect range vector`.
    pub start: TimestampMs,
    /// Last one.
    pub end: TimestampMs,
    /// Spacing; 0 for an instant query that expects no range vector.
    pub step: i64,
    /// Time of an instant query.
    pub at: TimestampMs,
    /// `eval range`.
    pub is_range: bool,
    /// What the result should be.
    pub expected: Expectations,
    /// The result is no vector, so it cannot be compared with a range query.
    pub instant_only: bool,
}

macro_rules! pattern {
    ($name:ident, $text:expr) => {
        static $name: LazyLock<Regex> =
            LazyLock::new(|| Regex::new($text).expect("the pattern is a valid regular expression"));
    };
}

pattern!(LOAD, r"^load(?:_(with_nhcb))?\s+(.+?)$");
pattern!(EVAL_INSTANT, r"^eval(?:_(fail|warn|ordered|info))?\s+instant\s+(?:at\s+(.+?))?\s+(.+)$");
pattern!(EVAL_RANGE, r"^eval(?:_(fail|warn|info))?\s+range\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+?)\s+(.+)$");
pattern!(EXPECT, r"^expect\s+(ordered|fail|warn|no_warn|info|no_info)(?:\s+(regex|msg):(.+))?$");
pattern!(EXPECT_RANGE, r"^expect range vector\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+)$");

/// Reads a script.
pub fn parse_script(text: &str) -> Vec<Step> {
    let lines: Vec<&str> =
        text.lines().map(str::trim).map(|l| if l.starts_with('#') { "" } else { l }).collect();
    let mut steps = Vec::new();
    let mut i = 0;
    while i < lines.len() {
        let first = lines[i];
        if first.is_empty() {
            i += 1;
            continue;
        }
        let word = first.split([' ', '\t']).next().unwrap_or_default().to_ascii_lowercase();
        let rest = &lines[i + 1..];
        let body = &rest[..rest.iter().position(|l| l.is_empty()).unwrap_or(rest.len())];
        let (parsed, used) = if word == "clear" {
            (Ok(Command::Clear), 0)
        } else if word.starts_with("load") {
            (parse_load(first, body).map(Command::Load), body.len())
        } else if word.starts_with("eval") {
            match parse_eval(first, body) {
                Ok((eval, used)) => (Ok(Command::Eval(Box::new(eval))), used),
                Err(e) => (Err(e), body.len()),
            }
        } else {
            (Err(format!("invalid command {first:?}")), 0)
        };
        let command =
            parsed.unwrap_or_else(|reason| Command::Invalid { reason, is_eval: word.starts_with("eval") });
        steps.push(Step { line: i + 1, command });
        i += 1 + used;
    }
    steps
}

fn parse_load(first: &str, body: &[&str]) -> Result<Load, String> {
    let parts = LOAD.captures(first).ok_or("invalid load command. (load[_with_nhcb] <step:duration>)")?;
    let gap_ms = parse_duration(&parts[2]).map_err(|e| format!("invalid step definition: {e}"))?;
    let mut load = Load { gap_ms, with_nhcb: parts.get(1).is_some(), series: Vec::new() };
    let mut pending: Option<(Labels, Vec<Option<i64>>)> = None;
    for line in body {
        if let Some(metric) = start_timestamp_line(line) {
            if pending.is_some() {
                return Err("@st line has no following sample line".to_owned());
            }
            let labels =
                parse_metric(metric).map_err(|e| format!("invalid @st line metric {metric:?}: {e}"))?;
            let starts =
                line.split_whitespace().skip(1).map(parse_start_item).collect::<Result<Vec<_>, _>>()?;
            pending = Some((labels, starts.concat()));
            continue;
        }
        let series = parse_series_description(line).map_err(|e| format!("{line:?}: {e}"))?;
        let starts = match pending.take() {
            None => Vec::new(),
            Some((labels, _)) if labels != series.labels => {
                return Err("@st metric does not match the following sample line metric".to_owned());
            }
            Some((_, starts)) if starts.len() != series.values.len() => {
                let (n, m) = (starts.len(), series.values.len());
                return Err(format!("@st line has {n} values but sample line has {m}"));
            }
            Some((_, starts)) => starts,
        };
        load.series.push(LoadSeries { labels: series.labels, values: series.values, starts });
    }
    match pending {
        None => Ok(load),
        Some(_) => Err("@st line has no following sample line".to_owned()),
    }
}

/// One item of an `@st` line: `_`, `_xN`, `D`, `DxN`, `D+DxN` or `D-DxN`, where D is a duration.
fn parse_start_item(item: &str) -> Result<Vec<Option<i64>>, String> {
    pattern!(ITEM, r"^(_|[+-]?[0-9a-z]+?)([+-][0-9a-z]+?)?(?:x([0-9]+))?$");
    let wrong = || format!("invalid ST item {item:?}");
    let parts = ITEM.captures(item).ok_or_else(wrong)?;
    let times = parts.get(3).map(|n| n.as_str().parse::<u32>().map_err(|_| wrong())).transpose()?;
    if &parts[1] == "_" {
        return Ok(vec![None; times.unwrap_or(1) as usize]);
    }
    let signed = |text: &str| {
        let (sign, text) = match text.split_at_checked(1) {
            Some(("-", rest)) => (-1, rest),
            Some(("+", rest)) => (1, rest),
            _ => (1, text),
        };
        // A bare zero needs no unit.
        let ms = if text == "0" { Ok(0) } else { parse_duration(text) };
        ms.map(|ms| sign * ms).map_err(|e| format!("invalid ST item {item:?}: {e}"))
    };
    let base = signed(&parts[1])?;
    let step = parts.get(2).map_or(Ok(0), |step| signed(step.as_str()))?;
    Ok((0..=i64::from(times.unwrap_or(0))).map(|i| Some(base + i * step)).collect())
}

/// The metric of a line `metric{…}@st …`, which gives the start timestamps of the line below it.
fn start_timestamp_line(line: &str) -> Option<&str> {
    line.split([' ', '\t']).next().filter(|_| line.contains([' ', '\t']))?.strip_suffix("@st")
}

/// An `eval`, and how many lines of `body` belong to it.
fn parse_eval(first: &str, body: &[&str]) -> Result<(Eval, usize), String> {
    let mut eval = parse_eval_head(first)?;
    let mut expects_range_vector = false;
    // Counts as upstream, where lines with `expect range vector` and `expect string` have a place too.
    let mut place = 0;
    for (i, line) in body.iter().enumerate() {
        place += 1;
        if eval.expected.fails() {
            if let Some(message) = line.strip_prefix("expected_fail_message") {
                eval.expected.add(Expectation::Fail, Text::Message(message.trim().to_owned()))?;
                return Ok((eval, i + 1));
            }
            if let Some(pattern) = line.strip_prefix("expected_fail_regexp") {
                eval.expected.add(Expectation::Fail, regex_text(pattern.trim())?)?;
                return Ok((eval, i + 1));
            }
        }
        if line.starts_with("expect range vector") {
            let parts = EXPECT_RANGE.captures(line).ok_or("invalid range vector definition")?;
            (eval.start, eval.end, eval.step) = parse_times(&parts[1], &parts[2], &parts[3])?;
            eval.at = eval.end;
            eval.instant_only = true;
            expects_range_vector = true;
        } else if let Some(literal) = line.strip_prefix("expect string") {
            eval.expected.string = Some(parse_string(literal.trim())?);
            eval.instant_only = true;
        } else if line.split(' ').next() == Some("expect") {
            let (kind, text) = parse_expect(line)?;
            eval.expected.add(kind, text)?;
            place -= 1;
        } else if let Ok(number) = parse_number(line) {
            eval.expected.scalar = Some(number);
            return Ok((eval, i + 1));
        } else {
            let series = parse_series_description(line).map_err(|e| format!("{line:?}: {e}"))?;
            if series.values.len() > 1 && !eval.is_range && !expects_range_vector {
                return Err("expecting multiple values in instant evaluation not allowed".to_owned());
            }
            eval.expected.series.insert(series.labels, (place, series.values));
        }
    }
    Ok((eval, body.len()))
}

fn parse_eval_head(first: &str) -> Result<Eval, String> {
    let mut eval = Eval {
        expr: String::new(),
        start: 0,
        end: 0,
        step: 0,
        at: 0,
        is_range: false,
        expected: Expectations::default(),
        instant_only: false,
    };
    let mode = if let Some(parts) = EVAL_INSTANT.captures(first) {
        let at = parts.get(2).ok_or("an instant evaluation needs a time")?.as_str();
        eval.at = parse_duration(at).map_err(|e| format!("invalid timestamp definition {at:?}: {e}"))?;
        (eval.start, eval.end) = (eval.at, eval.at);
        eval.expr = parts[3].to_owned();
        parts.get(1).map(|m| m.as_str().to_owned())
    } else if let Some(parts) = EVAL_RANGE.captures(first) {
        (eval.start, eval.end, eval.step) = parse_times(&parts[2], &parts[3], &parts[4])?;
        eval.expr = parts[5].to_owned();
        eval.is_range = true;
        parts.get(1).map(|m| m.as_str().to_owned())
    } else {
        return Err("invalid evaluation command".to_owned());
    };
    let any = || Text::Any;
    match mode.as_deref() {
        Some("ordered") => eval.expected.add(Expectation::Ordered, any())?,
        // Unlike `expect warn`, these do not say that there is nothing else.
        Some("fail") => eval.expected.legacy_fail = true,
        Some("warn") => eval.expected.legacy_warn = true,
        Some("info") => eval.expected.legacy_info = true,
        _ => {}
    }
    Ok(eval)
}

fn parse_times(from: &str, to: &str, step: &str) -> Result<(i64, i64, i64), String> {
    let time = |what: &str, text: &str| {
        parse_duration(text).map_err(|e| format!("invalid {what} definition {text:?}: {e}"))
    };
    let (start, end, step) = (time("start", from)?, time("end", to)?, time("step", step)?);
    if end < start {
        return Err(format!("end timestamp ({to}) is before start timestamp ({from})"));
    }
    Ok((start, end, step))
}

fn parse_expect(line: &str) -> Result<(Expectation, Text), String> {
    let parts = EXPECT
        .captures(line)
        .ok_or("invalid expect statement, must match `expect <type> <match_type>: <string>` format")?;
    let kind = match &parts[1] {
        "ordered" => Expectation::Ordered,
        "fail" => Expectation::Fail,
        "warn" => Expectation::Warn,
        "no_warn" => Expectation::NoWarn,
        "info" => Expectation::Info,
        _ => Expectation::NoInfo,
    };
    let text = match (parts.get(2).map(|m| m.as_str()), parts.get(3)) {
        (Some("msg"), Some(text)) => Text::Message(text.as_str().trim().to_owned()),
        (Some(_), Some(text)) => regex_text(text.as_str().trim())?,
        _ => Text::Any,
    };
    Ok((kind, text))
}

fn regex_text(pattern: &str) -> Result<Text, String> {
    Regex::new(pattern).map(Text::Pattern).map_err(|_| format!("invalid regex {pattern}"))
}

fn parse_string(literal: &str) -> Result<String, String> {
    let quoted =
        literal.len() >= 2 && ['"', '`'].iter().any(|q| literal.starts_with(*q) && literal.ends_with(*q));
    quoted.then(|| unquote(literal)).flatten().ok_or_else(|| {
        "expected string literal not valid - check that the string is correctly quoted".to_owned()
    })
}
