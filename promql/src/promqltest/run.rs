//! Executes scripts.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use promontory_tsdb::TimestampMs;
use promontory_tsdb::memory::MemoryStorage;
use regex::Regex;

use super::compare;
use super::evaluate::Evaluate;
use super::nhcb;
use super::script::{Command, Eval, Load, LoadSeries, parse_script};
use crate::params::QueryParams;
use crate::parser::series::SequenceValue;
use crate::parser::{AtModifier, Expr, ExprKind, ParserOptions, TimeShift, parse};
use crate::value::{InstantSample, QueryResult, QueryValue, RangeSeries, SampleValue};

/// What came of a script.
#[derive(Debug, Default)]
pub struct Report {
    /// One per `eval`, and one per command that could not be read or carried out.
    pub cases: Vec<Case>,
}

impl Report {
    /// Number of cases that passed.
    pub fn passed(&self) -> usize {
        self.cases.iter().filter(|c| c.failure.is_none()).count()
    }

    /// Number of cases that failed.
    pub fn failed(&self) -> usize {
        self.cases.len() - self.passed()
    }
}

/// What came of one command.
#[derive(Debug)]
pub struct Case {
    /// Line of the command, from 1.
    pub line: usize,
    /// The query.
    pub expr: String,
    /// Why it failed.
    pub failure: Option<String>,
    /// Some data was not loaded. A pass
    /// then says less.
    pub data_incomplete: bool,
}

const MINUTE_MS: i64 = 60 * 1000;

/// Runs the script `text`. `wanted` says which cases to run, by their expression.
pub fn run_script(text: &str, evaluator: &dyn Evaluate, wanted: impl Fn(&str) -> bool) -> Report {
    let mut report = Report::default();
    let mut storage = Arc::new(MemoryStorage::new());
    let mut data_incomplete = false;
    for step in parse_script(text) {
        let (expr, outcome) = match step.command {
            Command::Clear => {
                storage = Arc::new(MemoryStorage::new());
                data_incomplete = false;
                continue;
            }
            Command::Load(load) => match run_load(&load, &storage) {
                Ok(complete) => {
                    data_incomplete |= !complete;
                    continue;
                }
                Err(e) => ("load".to_owned(), Err(e)),
            },
            Command::Invalid { reason, is_eval } => {
                (if is_eval { "eval" } else { "command" }.to_owned(), Err(reason))
            }
            Command::Eval(eval) if !wanted(&eval.expr) => continue,
            Command::Eval(eval) => {
                let outcome = catch_unwind(AssertUnwindSafe(|| run_eval(&eval, evaluator, &storage)));
                (eval.expr, outcome.unwrap_or_else(|panic| Err(format!("panic: {}", panic_text(&*panic)))))
            }
        };
        report.cases.push(Case { line: step.line, expr, failure: outcome.err(), data_incomplete });
    }
    report
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

/// Loads what the storage can hold; `true` if that is everything.
fn run_load(load: &Load, storage: &MemoryStorage) -> Result<bool, String> {
    // Of lines with the same labels the last one counts.
    let series: BTreeMap<_, _> = load.series.iter().map(|series| (&series.labels, series)).collect();
    for (labels, LoadSeries { values, starts, .. }) in series {
        for (i, value) in values.iter().enumerate() {
            let t = i as i64 * load.gap_ms;
            let start = starts.get(i).copied().flatten().map_or(0, |offset| t + offset);
            let appended = match value {
                SequenceValue::Omitted => Ok(()),
                SequenceValue::Float(v) => storage.append_with_start(labels, t, start, *v),
                SequenceValue::Histogram { value, .. } => storage.append_histogram(labels, t, start, value),
            };
            appended.map_err(|e| format!("{labels} @{t}: {e}"))?;
        }
    }
    if load.with_nhcb {
        nhcb::load(load, storage)?;
    }
    Ok(true)
}

fn run_eval(eval: &Eval, evaluator: &dyn Evaluate, storage: &Arc<MemoryStorage>) -> Result<(), String> {
    if eval.is_range {
        let params = QueryParams::range(eval.start, eval.end, eval.step);
        let Some(result) = evaluate(eval, evaluator, storage, &eval.expr, params)? else { return Ok(()) };
        return compare::check(eval, &result.value);
    }
    run_instant(eval, evaluator, storage, &eval.expr, eval.at)?;
    let pinned = match pin_to(&eval.expr, eval.at) {
        Ok(Some(pinned)) => pinned,
        Ok(None) => return Ok(()),
        // It was to fail, and has failed for this very reason.
        Err(_) if eval.expected.fails() => return Ok(()),
        Err(e) => return Err(e),
    };
    for at in other_times(eval.at) {
        run_instant(eval, evaluator, storage, &pinned, at)
            .map_err(|e| format!("{e} [as {pinned} at {at} ms]"))?;
    }
    Ok(())
}

/// Runs one query; `None` if it failed as it should.
fn evaluate(
    eval: &Eval,
    evaluator: &dyn Evaluate,
    storage: &Arc<MemoryStorage>,
    expr: &str,
    params: QueryParams,
) -> Result<Option<QueryResult>, String> {
    match evaluator.evaluate(storage, expr, params) {
        Err(error) if eval.expected.fails() => eval.expected.check_failure(&error).map(|()| None),
        Err(error) => Err(format!("error: {error}")),
        Ok(_) if eval.expected.fails() => Err("expected an error but got none".to_owned()),
        Ok(result) => {
            eval.expected.check_annotations(&result.warnings, &result.infos)?;
            Ok(Some(result))
        }
    }
}

fn run_instant(
    eval: &Eval,
    evaluator: &dyn Evaluate,
    storage: &Arc<MemoryStorage>,
    expr: &str,
    at: TimestampMs,
) -> Result<(), String> {
    let Some(result) = evaluate(eval, evaluator, storage, expr, QueryParams::instant(at))? else {
        return Ok(());
    };
    compare::check(eval, &result.value)?;
    if eval.instant_only || depends_on_grid(expr) {
        return Ok(());
    }
    let params = QueryParams::range(at - MINUTE_MS, at + MINUTE_MS, MINUTE_MS);
    let range = evaluator.evaluate(storage, expr, params).map_err(|e| format!("error in range mode: {e}"))?;
    if eval.expected.is_ordered() {
        return Ok(());
    }
    let QueryValue::Matrix(matrix) = range.value else {
        return Err("a range query gave no matrix".to_owned());
    };
    compare::check_sorted(&matrix)?;
    let middle = if matches!(result.value, QueryValue::Scalar(..)) {
        let v = matrix.first().and_then(|s| float_at(s, at)).ok_or("no value in range mode")?;
        QueryValue::Scalar(at, v)
    } else {
        QueryValue::Vector(matrix.iter().flat_map(|s| samples_at(s, at)).collect())
    };
    compare::check(eval, &middle).map_err(|e| format!("{e} (range mode)"))
}

fn float_at(series: &RangeSeries, at: TimestampMs) -> Option<f64> {
    series.floats.iter().find(|(t, _)| *t == at).map(|(_, v)| *v)
}

fn samples_at(series: &RangeSeries, at: TimestampMs) -> impl Iterator<Item = InstantSample> + '_ {
    let float = float_at(series, at).map(SampleValue::Float);
    let histogram = series.histograms.iter().find(|(t, _)| *t == at);
    let histogram = histogram.map(|(_, h)| SampleValue::Histogram(Arc::clone(h)));
    float.into_iter().chain(histogram).map(move |value| InstantSample {
        labels: series.labels.clone(),
        timestamp: at,
        value,
    })
}

/// `start()` and the like give other values in a range query.
fn depends_on_grid(expr: &str) -> bool {
    static CALLS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(start|end|range|step)\(\)").expect("the pattern is a valid regular expression")
    });
    CALLS.is_match(expr)
}

/// Times from which an expression that is pinned to `at` must look the same.
fn other_times(at: TimestampMs) -> Vec<TimestampMs> {
    if at == 0 { vec![-1000, 0, 1000] } else { vec![-10 * at, 0, at / 5, at, 10 * at] }
}

/// `expr` with `@ at` at each selector and subquery that has no timestamp yet, but not inside of
/// subqueries. `None` if it depends on the evaluation timestamp in other ways.
fn pin_to(expr: &str, at: TimestampMs) -> Result<Option<String>, String> {
    let mut expr = parse(expr, &ParserOptions::all()).map_err(|e| e.to_string())?;
    Ok(pin(&mut expr, at).then(|| expr.to_string()))
}

/// Functions whose value depends on the evaluation timestamp even if their arguments do not.
const TIME_FUNCTIONS: [&str; 15] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "time",
    "timestamp",
    "start",
    "end",
    "step",
    "range",
];

/// `false` if the expression cannot be pinned.
fn pin(expr: &mut Expr, at: TimestampMs) -> bool {
    match &mut expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => true,
        ExprKind::Paren(e) | ExprKind::Unary(_, e) => pin(e, at),
        ExprKind::Binary(b) => pin(&mut b.lhs, at) & pin(&mut b.rhs, at),
        ExprKind::Aggregate(a) => a.param.as_mut().is_none_or(|p| pin(p, at)) & pin(&mut a.expr, at),
        ExprKind::Call(c) => {
            let pinned = c.args.iter_mut().fold(true, |all, arg| pin(arg, at) & all);
            pinned && !TIME_FUNCTIONS.contains(&c.function.name)
        }
        ExprKind::VectorSelector(s) => pin_time(&mut s.time, at),
        ExprKind::MatrixSelector(m) => pin_time(&mut m.selector.time, at),
        ExprKind::Subquery(s) => pin_time(&mut s.time, at),
    }
}

fn pin_time(time: &mut TimeShift, at: TimestampMs) -> bool {
    if !matches!(time.at, Some(AtModifier::At(_))) {
        time.at = Some(AtModifier::At(at));
    }
    true
}
