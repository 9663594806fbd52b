//! Counter resets between histograms, and their equality.

use promontory_tsdb::histogram::{CounterResetHint, FloatHistogram};

use super::buckets::{bound, indexed};
use super::layout::{Cells, Layout, map_to_bounds, reduce, shared_bounds};
use super::{CUSTOM_SCHEMA, is_custom};

/// Whether a counter was reset between `previous` and `current`: a count has shrunk, a populated
/// bucket is gone, or the layout changed in a way that only happens with a reset. A hint decides.
pub fn detect_reset(current: &FloatHistogram, previous: &FloatHistogram) -> bool {
    match current.counter_reset_hint {
        CounterResetHint::Reset => return true,
        CounterResetHint::NotReset => return false,
        CounterResetHint::Unknown | CounterResetHint::Gauge => {}
    }
    if current.count < previous.count {
        return true;
    }
    let (now, before) = (Layout::<f64>::of(current), Layout::<f64>::of(previous));
    if is_custom(current) {
        if !is_custom(previous) {
            return true;
        }
        if current.custom_values != previous.custom_values {
            return shrinks_within_shared_bounds(&now, &before);
        }
    } else if current.schema > previous.schema
        || is_custom(previous)
        || current.zero_threshold < previous.zero_threshold
    {
        return true;
    }
    let (zero, threshold) = before.zero_for_threshold(current.zero_threshold);
    if threshold > current.zero_threshold || current.zero_count < zero {
        return true;
    }
    let shift = previous.schema.abs_diff(current.schema);
    let shrinks = |now: &Cells<f64>, before: &Cells<f64>| {
        let covered =
            |i: i32| current.schema != CUSTOM_SCHEMA && bound(i, current.schema, &[]) <= current.zero_threshold;
        shrinks(now, reduce(before, shift).into_iter().skip_while(|(i, _)| covered(*i)))
    };
    shrinks(&now.positive, &before.positive) || shrinks(&now.negative, &before.negative)
}

fn shrinks(now: &Cells<f64>, before: impl Iterator<Item = (i32, f64)>) -> bool {
    let mut now = now.iter().peekable();
    for (index, count) in before {
        while now.next_if(|(i, _)| *i < index).is_some() {}
        let shrunk = match now.peek() {
            Some((i, n)) if *i == index => *n < count,
            _ => count != 0.0,
        };
        if shrunk {
            return true;
        }
    }
    false
}

fn shrinks_within_shared_bounds(now: &Layout<f64>, before: &Layout<f64>) -> bool {
    let bounds = shared_bounds(&now.custom_values, &before.custom_values);
    let counts = |h: &Layout<f64>| {
        let mut target = vec![0.0; bounds.len() + 1];
        map_to_bounds(&h.positive, &h.custom_values, &bounds, |n| n, &mut target);
        target
    };
    counts(now).iter().zip(counts(before)).any(|(now, before)| *now < before)
}

/// Whether two histograms are the same to the bit, hints aside. Empty buckets count.
#[expect(clippy::float_cmp, reason = "layouts are equal or not")]
pub fn equal(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let bits = |v: f64| v.to_bits();
    let sides = |h: &FloatHistogram| -> Vec<(i32, u64)> {
        indexed(&h.negative_spans, &h.negative_buckets).map(|(i, n)| (i, bits(n))).collect()
    };
    let positive = |h: &FloatHistogram| -> Vec<(i32, u64)> {
        indexed(&h.positive_spans, &h.positive_buckets).map(|(i, n)| (i, bits(n))).collect()
    };
    a.schema == b.schema
        && bits(a.count) == bits(b.count)
        && bits(a.sum) == bits(b.sum)
        && (!is_custom(a) || a.custom_values == b.custom_values)
        && a.zero_threshold == b.zero_threshold
        && bits(a.zero_count) == bits(b.zero_count)
        && sides(a) == sides(b)
        && positive(a) == positive(b)
}
