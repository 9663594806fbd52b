//! Histogram arithmetic against plain definitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use promontory_tsdb::histogram::{
    CUSTOM_SCHEMA, CounterResetHint, FloatHistogram, coarser_index, exponential_bound, indexed,
};
use proptest::prelude::*;

use super::lanes::{Column, ColumnBuilder, LaneHistograms, Lanes, decode, encode};
use super::layout::{divide, multiply, spans};
use super::stats::{fraction, quantile, variance};
use super::total::Total;
use super::trim::{Keep, trim};
use super::{Incompatible, Kahan, Layout, add, sub};

type Cells = BTreeMap<i32, f64>;

/// Whole counts, so that sums are exact in any order.
fn cells() -> impl Strategy<Value = Cells> {
    prop::collection::btree_map(-20..20_i32, (0..50_u32).prop_map(f64::from), 0..12)
}

fn exponential() -> impl Strategy<Value = FloatHistogram> {
    (-2..4_i32).prop_flat_map(of_schema)
}

fn of_schema(schema: i32) -> impl Strategy<Value = FloatHistogram> {
    (Just(schema), cells(), cells(), 0..20_u32, prop::sample::select(vec![0.0, 0.001, 0.5, 2.0])).prop_map(
        |(schema, mut positive, mut negative, zero, zero_threshold)| {
            // No bucket reaches into the zero bucket.
            for side in [&mut positive, &mut negative] {
                side.retain(|i, _| exponential_bound(i - 1, schema) >= zero_threshold);
            }
            let (positive_spans, positive_buckets) = spans(positive.into_iter());
            let (negative_spans, negative_buckets) = spans(negative.into_iter());
            let mut h = FloatHistogram {
                schema,
                zero_threshold,
                zero_count: f64::from(zero),
                sum: 10.0,
                positive_spans,
                negative_spans,
                positive_buckets,
                negative_buckets,
                ..FloatHistogram::default()
            };
            h.count = observations(&h);
            h
        },
    )
}

fn custom() -> impl Strategy<Value = FloatHistogram> {
    let bounds = prop::collection::btree_set(-5..6_i32, 0..5);
    bounds
        .prop_flat_map(|bounds| {
            let n = bounds.len() + 1;
            (Just(bounds), prop::collection::vec((0..50_u32).prop_map(f64::from), n))
        })
        .prop_map(|(bounds, counts)| {
            let (positive_spans, positive_buckets) = spans((0..).zip(counts.iter().copied()));
            FloatHistogram {
                schema: CUSTOM_SCHEMA,
                count: counts.iter().sum(),
                sum: 3.0,
                positive_spans,
                positive_buckets,
                custom_values: bounds.into_iter().map(f64::from).collect(),
                ..FloatHistogram::default()
            }
        })
}

fn observations(h: &FloatHistogram) -> f64 {
    h.zero_count + h.positive_buckets.iter().chain(&h.negative_buckets).sum::<f64>()
}

fn positive(h: &FloatHistogram) -> Cells {
    indexed(&h.positive_spans, &h.positive_buckets).filter(|(_, n)| *n != 0.0).collect()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs()))
}

/// With a zero bucket of no width, so that nothing moves between it and the others.
fn plain() -> impl Strategy<Value = FloatHistogram> {
    exponential().prop_map(|h| FloatHistogram { zero_threshold: 0.0, ..h })
}

proptest! {
    #[test]
    fn a_sum_has_all_observations_at_the_coarser_resolution(a in plain(), b in plain()) {
        let (sum, added) = add(&a, &b).unwrap();
        prop_assert!(!added.reconciled && !added.collision);
        prop_assert_eq!(sum.count, a.count + b.count);
        prop_assert_eq!(observations(&sum), a.count + b.count);
        prop_assert_eq!(sum.schema, a.schema.min(b.schema));
    }

    #[test]
    fn the_wider_zero_bucket_takes_in_buckets(
        (a, b) in (-2..4_i32).prop_flat_map(|schema| (of_schema(schema), of_schema(schema))),
    ) {
        let (sum, _) = add(&a, &b).unwrap();
        prop_assert!(sum.zero_threshold >= a.zero_threshold.max(b.zero_threshold));
        prop_assert_eq!(observations(&sum), a.count + b.count);
    }

    #[test]
    fn buckets_are_added_one_by_one(a in plain(), b in plain()) {
        let schema = a.schema.min(b.schema);
        let mut wanted = Cells::new();
        for h in [&a, &b] {
            for (i, n) in positive(h) {
                *wanted.entry(coarser_index(i, h.schema, schema)).or_default() += n;
            }
        }
        prop_assert_eq!(positive(&add(&a, &b).unwrap().0), wanted);
    }

    #[test]
    fn what_is_subtracted_was_added(a in plain(), b in plain()) {
        let (sum, _) = add(&a, &b).unwrap();
        let (mut back, _) = sub(&sum, &b).unwrap();
        back.compact(0);
        let mut wanted = Layout::<f64>::of(&a);
        wanted.reduce_resolution(a.schema.min(b.schema));
        prop_assert!(back.equals(&wanted.histogram(true)));
    }

    #[test]
    fn custom_bounds_meet_in_those_that_both_have(a in custom(), b in custom()) {
        let (sum, added) = add(&a, &b).unwrap();
        let shared: Vec<f64> = a.custom_values.iter().copied().filter(|v| b.custom_values.contains(v)).collect();
        prop_assert_eq!(&sum.custom_values, &shared);
        prop_assert_eq!(added.reconciled, a.custom_values != b.custom_values);
        prop_assert_eq!(observations(&sum), a.count + b.count);
        // What lies below a shared bound in one of them does so in the sum.
        let below = |h: &FloatHistogram, bound: f64| -> f64 {
            h.iter_positive().filter(|b| b.upper <= bound).map(|b| b.count).sum()
        };
        for bound in shared {
            prop_assert_eq!(below(&sum, bound), below(&a, bound) + below(&b, bound));
        }
    }

    #[test]
    fn exponential_and_custom_buckets_do_not_go_together(a in exponential(), b in custom()) {
        prop_assert_eq!(add(&a, &b).unwrap_err(), Incompatible);
        prop_assert_eq!(sub(&b, &a).unwrap_err(), Incompatible);
    }

    #[test]
    fn totals_are_sums_and_means_in_any_grouping(all in prop::collection::vec(plain(), 1..6), cut in 0..6_usize) {
        let cut = cut.min(all.len() - 1) + 1;
        let (mut sum, mut mean) = (Total::of(&all[0]), Total::of(&all[0]));
        for h in &all[1..cut] {
            sum.add_to_sum(h);
            mean.add_to_mean(h);
        }
        if let [first, rest @ ..] = &all[cut..] {
            let (mut sum_2, mut mean_2) = (Total::of(first), Total::of(first));
            for h in rest {
                sum_2.add_to_sum(h);
                mean_2.add_to_mean(h);
            }
            sum.merge_sum(&sum_2);
            mean.merge_mean(&mean_2);
        }
        let count: f64 = all.iter().map(|h| h.count).sum();
        let (total, average) = (sum.sum(true).unwrap(), mean.mean(true).unwrap());
        prop_assert_eq!(total.count, count);
        prop_assert_eq!(observations(&total), count);
        prop_assert!(close(average.count, count / all.len() as f64));
        prop_assert!(close(observations(&average), average.count));
        let mut bytes = Vec::new();
        mean.encode(&mut bytes);
        prop_assert_eq!(Total::decode(&bytes), Some(mean));
        prop_assert_eq!(Total::decode(&bytes[..bytes.len() - 1]), None);
    }

    #[test]
    fn lanes_come_back_as_they_went_in(
        all in prop::collection::btree_map(0..128_usize, exponential(), 0..6),
        keep in any::<u128>(),
    ) {
        let mut lanes = LaneHistograms::default();
        for (lane, h) in &all {
            lanes.set(*lane, Arc::new(h.clone()));
        }
        let mut bytes = Vec::new();
        lanes.encode(&mut bytes);
        let read = Lanes::of(&bytes);
        prop_assert_eq!(read.mask(), lanes.mask());
        let back: BTreeMap<usize, FloatHistogram> = read.iter().map(|(l, h)| (l, h.as_ref().clone())).collect();
        prop_assert_eq!(&back, &all);
        let mut selected = Vec::new();
        read.select_into(keep, &mut selected);
        let selected = Lanes::of(&selected);
        prop_assert_eq!(selected.mask(), lanes.mask() & keep);
        for (lane, h) in &all {
            prop_assert_eq!(selected.get(*lane), (keep >> lane & 1 == 1).then(|| h.clone()));
        }
    }

    #[test]
    fn damaged_histograms_are_none(h in exponential(), at in 0..1000_usize) {
        let mut bytes = Vec::new();
        encode(&h, &mut bytes);
        prop_assert_eq!(decode(&bytes), Some(h));
        prop_assert_eq!(decode(&bytes[..at % bytes.len()]), None);
        let _ = Lanes::of(&bytes[..at % bytes.len()]).iter().count();
    }

    #[test]
    fn quantiles_grow_and_fractions_invert_them(h in exponential(), a in 0.0..1.0_f64, b in 0.0..1.0_f64) {
        prop_assume!(h.count > 0.0);
        let (low, high) = (a.min(b), a.max(b));
        let (x, y) = (quantile(low, &h).0, quantile(high, &h).0);
        prop_assert!(x <= y + 1e-9 * y.abs() + 1e-12, "{low}: {x}, {high}: {y}");
        // Within a populated bucket the two are inverse; at its edge there may be a gap.
        let below = fraction(f64::NEG_INFINITY, x, &h).0;
        prop_assert!(below <= low + 1e-6, "{below} of {low}");
    }

    #[test]
    fn trimming_both_ways_leaves_everything(h in exponential(), limit in -4.0..4.0_f64) {
        let (mut below, mut above) = (h.clone(), h.clone());
        trim(&mut below, limit, Keep::Below);
        trim(&mut above, limit, Keep::Above);
        prop_assert!(close(below.count + above.count, h.count), "{} + {} = {}", below.count, above.count, h.count);
        prop_assert!(close(observations(&below), below.count));
    }

    #[test]
    fn scaling_by_a_number_and_back_changes_nothing(h in exponential(), exponent in -3..4_i32) {
        let factor = f64::from(exponent).exp2();
        let mut scaled = h.clone();
        multiply(&mut scaled, factor);
        divide(&mut scaled, factor);
        prop_assert!(scaled.equals(&h));
    }
}

#[test]
fn equal_neighbours_are_stored_once() {
    let h = Arc::new(FloatHistogram { count: 1.0, ..FloatHistogram::default() });
    let (mut one, mut many) = (LaneHistograms::default(), LaneHistograms::default());
    one.set(0, Arc::clone(&h));
    (0..128).for_each(|lane| many.set(lane, Arc::clone(&h)));
    let size = |lanes: &LaneHistograms| {
        let mut bytes = Vec::new();
        lanes.encode(&mut bytes);
        bytes.len()
    };
    assert_eq!(size(&many) - size(&one), 127 * 8);
}

#[test]
fn a_column_without_histograms_is_all_null() {
    let mut column = ColumnBuilder::default();
    let array: arrow::array::ArrayRef = Arc::new(column.finish(3));
    assert!(Column::of(&array).unwrap().is_empty());
    column.put(1, |out| out.push(7));
    let array: arrow::array::ArrayRef = Arc::new(column.finish(3));
    let column = Column::of(&array).unwrap();
    assert_eq!([column.bytes(0), column.bytes(1), column.bytes(2)], [&[][..], &[7], &[]]);
}

#[test]
fn hints_that_contradict_each_other_are_told() {
    let with = |hint| FloatHistogram { counter_reset_hint: hint, ..FloatHistogram::default() };
    let (reset, not) = (with(CounterResetHint::Reset), with(CounterResetHint::NotReset));
    let (sum, added) = add(&reset, &not).unwrap();
    assert!(added.collision);
    assert_eq!(sum.counter_reset_hint, CounterResetHint::Unknown);
    let (sum, added) = add(&with(CounterResetHint::Gauge), &not).unwrap();
    assert!(!added.collision);
    assert_eq!(sum.counter_reset_hint, CounterResetHint::Gauge);
}

#[test]
fn a_mean_survives_where_the_sum_overflows() {
    let h = FloatHistogram { count: 1e308, sum: 1e308, ..FloatHistogram::default() };
    let mut mean = Total::of(&h);
    (0..4).for_each(|_| mean.add_to_mean(&h));
    let mean = mean.mean(true).unwrap();
    assert!((mean.count / 1e308 - 1.0).abs() < 1e-12 && (mean.sum / 1e308 - 1.0).abs() < 1e-12);
}

#[test]
fn a_populated_bucket_across_the_zero_threshold_moves_it() {
    // (1, 2] stands across 1.5.
    let narrow = FloatHistogram {
        count: 3.0,
        positive_spans: spans([(1, 3.0)].into_iter()).0,
        positive_buckets: vec![3.0],
        ..FloatHistogram::default()
    };
    let (zero, threshold) = Layout::<Kahan>::of(&narrow).zero_for_threshold(1.5);
    assert_eq!((zero.sum, threshold), (3.0, 2.0));
}

#[test]
fn statistics_take_observations_to_be_inside_their_buckets() {
    let h = FloatHistogram {
        count: 4.0,
        sum: 6.0,
        positive_spans: spans([(1, 2.0), (2, 2.0)].into_iter()).0,
        positive_buckets: vec![2.0, 2.0],
        ..FloatHistogram::default()
    };
    assert_eq!(quantile(0.5, &h).0, 2.0);
    assert_eq!(quantile(0.25, &h).0, 2.0_f64.sqrt());
    assert_eq!(fraction(2.0, 4.0, &h).0, 0.5);
    assert!(quantile(f64::NAN, &h).0.is_nan());
    assert_eq!((quantile(-1.0, &h).0, quantile(2.0, &h).0), (f64::NEG_INFINITY, f64::INFINITY));
    let (a, b) = (2.0_f64.sqrt() - 1.5, 8.0_f64.sqrt() - 1.5);
    assert!(close(variance(&h), (2.0 * a * a + 2.0 * b * b) / 4.0));
}
