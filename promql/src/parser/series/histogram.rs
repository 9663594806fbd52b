//! Adding histograms, as far as series descriptions need it.

use std::collections::BTreeMap;

use promontory_tsdb::histogram::{CounterResetHint, FloatHistogram, Span};

/// Schema of histograms whose bounds are listed.
const CUSTOM_SCHEMA: i32 = -53;

type Buckets = BTreeMap<i32, f64>;

/// `a + sign * b`. The schema is that of `a`, which must not be the finer one.
///
/// # Errors
/// If the layouts cannot be brought together.
pub(super) fn combine(a: &FloatHistogram, b: &FloatHistogram, sign: f64) -> Result<FloatHistogram, String> {
    if a.schema > b.schema || (a.schema == CUSTOM_SCHEMA) != (b.schema == CUSTOM_SCHEMA) {
        let (from, to) = (b.schema, a.schema);
        return Err(format!("error combining histograms: cannot merge from schema {from} to {to}"));
    }
    if a.custom_values != b.custom_values {
        return Err("error combining histograms: custom buckets differ".to_owned());
    }
    if a.zero_threshold.to_bits() != b.zero_threshold.to_bits() {
        return Err("error combining histograms: zero thresholds differ".to_owned());
    }
    let shift = b.schema - a.schema;
    let mut out = a.clone();
    out.counter_reset_hint = combine_hints(a.counter_reset_hint, b.counter_reset_hint);
    out.zero_count += sign * b.zero_count;
    out.count += sign * b.count;
    out.sum += sign * b.sum;
    let sum = |a: Buckets, b: &Buckets| {
        let mut all = a;
        for (index, count) in b {
            *all.entry(coarser(*index, shift)).or_insert(0.0) += sign * count;
        }
        to_spans(&all)
    };
    let positive = buckets(&b.positive_spans, &b.positive_buckets);
    let negative = buckets(&b.negative_spans, &b.negative_buckets);
    (out.positive_spans, out.positive_buckets) =
        sum(buckets(&a.positive_spans, &a.positive_buckets), &positive);
    (out.negative_spans, out.negative_buckets) =
        sum(buckets(&a.negative_spans, &a.negative_buckets), &negative);
    Ok(out)
}

/// Index of the bucket that takes in bucket `index` when the schema sinks by `shift`.
fn coarser(index: i32, shift: i32) -> i32 {
    if shift <= 0 { index } else { ((index - 1) >> shift) + 1 }
}

/// The hint of a sum: equal ones stay, a gauge makes a gauge, all else is unknown.
fn combine_hints(a: CounterResetHint, b: CounterResetHint) -> CounterResetHint {
    match (a, b) {
        (a, b) if a == b => a,
        (CounterResetHint::Gauge, _) | (_, CounterResetHint::Gauge) => CounterResetHint::Gauge,
        _ => CounterResetHint::Unknown,
    }
}

fn buckets(spans: &[Span], counts: &[f64]) -> Buckets {
    let mut out = Buckets::new();
    let mut counts = counts.iter();
    let mut index = 0_i32;
    for span in spans {
        index = index.saturating_add(span.offset);
        for _ in 0..span.length {
            let Some(count) = counts.next() else { return out };
            out.insert(index, *count);
            index = index.saturating_add(1);
        }
    }
    out
}

fn to_spans(buckets: &Buckets) -> (Vec<Span>, Vec<f64>) {
    let mut spans: Vec<Span> = Vec::new();
    let mut next = 0_i32;
    for index in buckets.keys() {
        let offset = index.saturating_sub(next);
        match spans.last_mut() {
            Some(span) if offset == 0 => span.length += 1,
            _ => spans.push(Span { offset, length: 1 }),
        }
        next = index.saturating_add(1);
    }
    (spans, buckets.values().copied().collect())
}
