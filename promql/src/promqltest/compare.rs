//! Whether a result is the expected one.

use std::collections::BTreeMap;
use std::sync::Arc;

use promontory_tsdb::histogram::{FloatHistogram, Span};
use promontory_tsdb::sample::is_stale;

use super::script::Eval;
use crate::parser::series::SequenceValue;
use crate::value::{InstantSample, QueryValue, RangeSeries, SampleValue};

/// Relative difference below which values count as equal.
const TOLERANCE: f64 = 1e-6;

/// Compares `value` with what `eval` expects; the error says what differs.
pub(super) fn check(eval: &Eval, value: &QueryValue) -> Result<(), String> {
    let expected = &eval.expected;
    match value {
        QueryValue::String(_, got) => {
            let wanted = expected.string.clone().unwrap_or_default();
            if *got == wanted { Ok(()) } else { Err(format!("expected string {wanted:?} but got {got:?}")) }
        }
        QueryValue::Scalar(_, got) => match expected.scalar {
            Some(wanted) if equal(wanted, *got) => Ok(()),
            Some(wanted) => Err(format!("expected scalar {wanted} but got {got}")),
            None => Err(format!("expected vector or matrix result, but got scalar {got}")),
        },
        QueryValue::Vector(_) | QueryValue::Matrix(_) if expected.scalar.is_some() => {
            Err(format!("expected scalar result, but got {}", describe(value)))
        }
        QueryValue::Vector(vector) => check_vector(eval, vector),
        QueryValue::Matrix(_) if expected.is_ordered() => {
            Err("expected ordered result, but query returned a matrix".to_owned())
        }
        QueryValue::Matrix(matrix) => check_matrix(eval, matrix),
    }
}

fn describe(value: &QueryValue) -> String {
    match value {
        QueryValue::Scalar(_, v) => format!("scalar {v}"),
        QueryValue::String(_, s) => format!("string {s:?}"),
        QueryValue::Vector(v) => format!("vector of {} elements", v.len()),
        QueryValue::Matrix(m) => format!("matrix of {} series", m.len()),
    }
}

fn check_vector(eval: &Eval, vector: &[InstantSample]) -> Result<(), String> {
    let mut missing: BTreeMap<_, _> = eval.expected.series.iter().collect();
    for (i, sample) in vector.iter().enumerate() {
        let labels = &sample.labels;
        let Some((place, values)) = eval.expected.series.get(labels) else {
            return Err(format!("unexpected metric {labels} in result, has value {:?}", sample.value));
        };
        missing.remove(labels);
        if eval.expected.is_ordered() && *place != i + 1 {
            return Err(format!("expected metric {labels} at position {place} but was at {}", i + 1));
        }
        let wanted = values.first().unwrap_or(&SequenceValue::Omitted);
        let same = match (wanted, &sample.value) {
            (SequenceValue::Float(wanted), SampleValue::Float(got)) => equal(*wanted, *got),
            (SequenceValue::Omitted, SampleValue::Float(got)) => equal(0.0, *got),
            (SequenceValue::Histogram { value, has_hint }, SampleValue::Histogram(got)) => {
                histograms_equal(value, got, *has_hint)
            }
            _ => false,
        };
        if !same {
            return Err(format!("expected {wanted:?} for {labels} but got {:?}", sample.value));
        }
    }
    no_more(missing.into_keys())
}

fn no_more<'a>(mut missing: impl Iterator<Item = &'a promontory_tsdb::Labels>) -> Result<(), String> {
    match missing.next() {
        None => Ok(()),
        Some(labels) => Err(format!("expected metric {labels} not found")),
    }
}

fn check_matrix(eval: &Eval, matrix: &[RangeSeries]) -> Result<(), String> {
    check_sorted(matrix)?;
    let mut missing: BTreeMap<_, _> = eval.expected.series.iter().collect();
    for series in matrix {
        let labels = &series.labels;
        let Some((_, values)) = eval.expected.series.get(labels) else {
            return Err(format!("unexpected metric {labels} in result, has {}", points(series)));
        };
        missing.remove(labels);
        check_points(eval, values, series).map_err(|e| format!("{labels}: {e}"))?;
    }
    no_more(missing.into_keys())
}

/// Whether the series of a matrix are in label order.
pub(super) fn check_sorted(matrix: &[RangeSeries]) -> Result<(), String> {
    match matrix.windows(2).find(|w| w[0].labels > w[1].labels) {
        None => Ok(()),
        Some(w) => Err(format!("matrix is not sorted: {} stands before {}", w[0].labels, w[1].labels)),
    }
}

fn check_points(eval: &Eval, values: &[SequenceValue], series: &RangeSeries) -> Result<(), String> {
    let mut floats = Vec::new();
    let mut histograms = Vec::new();
    for (i, value) in values.iter().enumerate() {
        let t = eval.start + i as i64 * eval.step;
        if t > eval.end {
            let n = values.len();
            return Err(format!("expected {n} points, but the time range cannot have as many"));
        }
        match value {
            SequenceValue::Omitted => {}
            SequenceValue::Float(v) => floats.push((t, *v)),
            SequenceValue::Histogram { value, has_hint } => histograms.push((t, value, *has_hint)),
        }
    }
    let differ = |what: String| Err(format!("{what} (result has {})", points(series)));
    if floats.len() != series.floats.len() || histograms.len() != series.histograms.len() {
        let (f, h) = (floats.len(), histograms.len());
        return differ(format!("expected {f} float points and {h} histogram points"));
    }
    for ((t, wanted), (got_t, got)) in floats.iter().zip(&series.floats) {
        if t != got_t || !equal(*wanted, *got) {
            return differ(format!("expected {wanted} @{t} but got {got} @{got_t}"));
        }
    }
    for ((t, wanted, has_hint), (got_t, got)) in histograms.iter().zip(&series.histograms) {
        if t != got_t || !histograms_equal(wanted, got, *has_hint) {
            return differ(format!("expected {wanted:?} @{t} but got {got:?} @{got_t}"));
        }
    }
    Ok(())
}

fn points(series: &RangeSeries) -> String {
    let mut out: Vec<String> = series.floats.iter().map(|(t, v)| format!("{v} @{t}")).collect();
    out.extend(series.histograms.iter().map(|(t, h)| format!("{h:?} @{t}")));
    out.join(", ")
}

/// Whether two values are equal up to rounding. All NaNs are equal but the stale marker, which equals itself.
pub fn equal(a: f64, b: f64) -> bool {
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if (a.is_nan() && b.is_nan()) || a == b {
        return true;
    }
    let sum = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < TOLERANCE * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < TOLERANCE
}

/// Whether two histograms are equal up to rounding and empty buckets. Hints are compared on demand.
pub fn histograms_equal(a: &Arc<FloatHistogram>, b: &Arc<FloatHistogram>, compare_hints: bool) -> bool {
    const CUSTOM_SCHEMA: i32 = -53;
    a.schema == b.schema
        && equal(a.count, b.count)
        && equal(a.sum, b.sum)
        && (a.schema != CUSTOM_SCHEMA || bits(&a.custom_values) == bits(&b.custom_values))
        && a.zero_threshold == b.zero_threshold
        && equal(a.zero_count, b.zero_count)
        && buckets_equal((&a.positive_spans, &a.positive_buckets), (&b.positive_spans, &b.positive_buckets))
        && buckets_equal((&a.negative_spans, &a.negative_buckets), (&b.negative_spans, &b.negative_buckets))
        && (!compare_hints || a.counter_reset_hint == b.counter_reset_hint)
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn buckets_equal(a: (&[Span], &[f64]), b: (&[Span], &[f64])) -> bool {
    let (a, b) = (populated(a.0, a.1), populated(b.0, b.1));
    a.len() == b.len() && a.iter().zip(&b).all(|((i, x), (j, y))| i == j && equal(*x, *y))
}

/// Buckets that are not 0, with their index.
fn populated(spans: &[Span], counts: &[f64]) -> Vec<(i32, f64)> {
    let mut out = Vec::new();
    let mut index = 0_i32;
    let mut counts = counts.iter();
    for span in spans {
        index = index.saturating_add(span.offset);
        for _ in 0..span.length {
            let Some(count) = counts.next() else { return out };
            if *count != 0.0 {
                out.push((index, *count));
            }
            index = index.saturating_add(1);
        }
    }
    out
}
