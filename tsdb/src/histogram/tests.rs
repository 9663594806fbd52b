use super::*;

fn spans(list: &[(i32, u32)]) -> Vec<Span> {
    list.iter().map(|&(offset, length)| Span { offset, length }).collect()
}

/// Buckets −1, 0, 3 of schema 0 on the positive side, 1 on the negative one, a zero bucket.
fn sample() -> FloatHistogram {
    FloatHistogram {
        zero_threshold: 0.001,
        zero_count: 2.0,
        count: 11.5,
        sum: 18.4,
        positive_spans: spans(&[(-1, 2), (2, 1)]),
        positive_buckets: vec![1.0, 2.0, 3.5],
        negative_spans: spans(&[(1, 1)]),
        negative_buckets: vec![3.0],
        ..FloatHistogram::default()
    }
}

fn custom(bounds: &[f64], counts: &[f64]) -> FloatHistogram {
    FloatHistogram {
        schema: CUSTOM_SCHEMA,
        count: counts.iter().sum(),
        positive_spans: spans(&[(0, counts.len() as u32)]),
        positive_buckets: counts.to_vec(),
        custom_values: bounds.to_vec(),
        ..FloatHistogram::default()
    }
}

#[test]
fn bounds_are_those_of_prometheus_to_the_bit() {
    assert_eq!(exponential_bound(0, 0), 1.0);
    assert_eq!(exponential_bound(-1, 1).to_bits(), 0x3fe6_a09e_667f_3bcc);
    assert_eq!(exponential_bound(-3, 2), 0.594_603_557_501_360_5);
    assert_eq!(exponential_bound(1, -4), 65_536.0);
    for schema in SCHEMA_MIN..=SCHEMA_MAX {
        let last = if schema < 0 { 1024 >> -schema } else { 1024 << schema };
        assert_eq!(exponential_bound(last, schema), f64::MAX, "finite numbers end here");
        assert_eq!(exponential_bound(last + 1, schema), f64::INFINITY);
        assert_eq!(exponential_bound(i32::MIN, schema), 0.0);
    }
    assert_eq!(exponential_bound(-1074, 0).to_bits(), 1, "subnormal bounds are rounded once");
    assert_eq!(upper_bound(-1, CUSTOM_SCHEMA, &[1.0]), f64::NEG_INFINITY);
    assert_eq!(upper_bound(7, CUSTOM_SCHEMA, &[1.0]), f64::INFINITY);
}

#[test]
fn text_is_that_of_prometheus() {
    let h = sample();
    let text = "{count:11.5, sum:18.4, [-2,-1):3, [-0.001,0.001]:2, (0.25,0.5]:1, (0.5,1]:2, (4,8]:3.5}";
    assert_eq!(h.to_string(), text);
    let expression = "{{count:11.5 sum:18.4 z_bucket:2 z_bucket_w:0.001 offset:-1 buckets:[1 2 0 0 3.5] n_offset:1 n_buckets:[3]}}";
    assert_eq!(h.test_expression(), expression);
    let h = FloatHistogram {
        counter_reset_hint: CounterResetHint::Gauge,
        ..custom(&[5.0, 1e6], &[1.0, 0.0, 4e6])
    };
    assert_eq!(h.to_string(), "{count:4.000001e+06, sum:0, [-Inf,5]:1, (1e+06,+Inf]:4e+06}");
    let expression = "{{schema:-53 count:4.000001e+06 custom_values:[5 1e+06] counter_reset_hint:gauge buckets:[1 0 4e+06]}}";
    assert_eq!(h.test_expression(), expression);
}

#[test]
fn buckets_are_walked_both_ways_and_cut_at_the_zero_bucket() {
    let h = FloatHistogram { zero_threshold: 0.3, ..sample() };
    let all: Vec<_> = h.iter_all().map(|b| (b.lower, b.upper, b.count)).collect();
    let mut back: Vec<_> = h.iter_all().rev().map(|b| (b.lower, b.upper, b.count)).collect();
    back.reverse();
    assert_eq!(all, back);
    assert_eq!(all, [(-2.0, -1.0, 3.0), (-0.3, 0.3, 2.0), (0.3, 0.5, 1.0), (0.5, 1.0, 2.0), (4.0, 8.0, 3.5)]);
    // Fewer counts than the spans lay out, and spans without buckets.
    let h = FloatHistogram { positive_spans: spans(&[(2, 0), (1, 2), (1, 0), (1, u32::MAX)]), ..sample() };
    let indexes: Vec<_> = h.iter_positive().map(|b| b.index).collect();
    assert_eq!(indexes, [3, 4, 7]);
    assert_eq!(h.iter_positive().rev().map(|b| b.index).collect::<Vec<_>>(), [7, 4, 3]);
    assert_eq!(indexed(&h.positive_spans, &h.positive_buckets).map(|b| b.0).collect::<Vec<_>>(), indexes);
}

#[test]
fn compaction_leaves_out_empty_buckets() {
    let mut h = FloatHistogram {
        positive_spans: spans(&[(-2, 3), (0, 2), (3, 0), (1, 3)]),
        positive_buckets: vec![0.0, 1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 3.0],
        ..FloatHistogram::default()
    };
    let mut filled = h.clone();
    h.compact(0);
    assert_eq!(h.positive_spans, spans(&[(-1, 1), (1, 1), (7, 1)]));
    assert_eq!(h.positive_buckets, [1.0, 2.0, 3.0]);
    filled.compact(1);
    assert_eq!(filled.positive_spans, spans(&[(-1, 3), (7, 1)]));
    assert_eq!(filled.positive_buckets, [1.0, 0.0, 2.0, 3.0]);
    let mut integer = Histogram {
        positive_spans: spans(&[(0, 4)]),
        positive_buckets: vec![5, -5, 0, 7],
        ..Histogram::default()
    };
    integer.compact(0);
    assert_eq!((integer.positive_spans, integer.positive_buckets), (spans(&[(0, 1), (2, 1)]), vec![5, 2]));
}

#[test]
fn lower_resolution_merges_buckets() {
    let mut h = Histogram {
        schema: 2,
        positive_spans: spans(&[(-3, 4), (2, 2)]),
        positive_buckets: vec![1, 1, 0, 1, -1, 4],
        ..Histogram::default()
    };
    h.reduce_resolution(1).unwrap();
    assert_eq!(h.positive_spans, spans(&[(-1, 2), (1, 1)]));
    assert_eq!(h.positive_buckets, [3, 2, 3]);
    assert_eq!(
        h.reduce_resolution(1).unwrap_err().to_string(),
        "cannot reduce resolution from schema 1 to 1"
    );
    let mut fine: HistogramValue = Histogram { schema: 52, ..Histogram::default() }.into();
    fine.limit_resolution().unwrap();
    assert_eq!(fine.schema(), 8);
}

#[test]
fn histograms_are_refused_in_the_words_of_prometheus() {
    let check = |h: &Histogram, text: &str| assert_eq!(h.validate().unwrap_err().to_string(), text);
    let h = Histogram {
        count: 3,
        positive_spans: spans(&[(0, 2)]),
        positive_buckets: vec![1, 1],
        ..Histogram::default()
    };
    h.validate().unwrap();
    check(
        &Histogram { count: 4, ..h.clone() },
        "3 observations found in buckets, but the Count field is 4: histogram's observation count should equal the number of observations found in the buckets (in absence of NaN)",
    );
    Histogram { count: 4, sum: f64::NAN, ..h.clone() }.validate().unwrap();
    check(
        &Histogram { positive_spans: spans(&[(0, 1), (-1, 1)]), ..h.clone() },
        "positive side: span number 2 with offset -1: histogram has a span whose offset is negative",
    );
    check(
        &Histogram { negative_spans: spans(&[(0, 1)]), negative_buckets: vec![-2], ..h.clone() },
        "negative side: bucket number 1 has observation count of -2: histogram has a bucket whose observation count is negative",
    );
    check(
        &Histogram { schema: 9, ..h },
        "histogram has an invalid schema, which must be between -4 and 8 for exponential buckets, or -53 for custom buckets, got schema 9",
    );
    let check = |h: &FloatHistogram, text: &str| assert_eq!(h.validate().unwrap_err().to_string(), text);
    custom(&[1.0], &[1.0, 2.0]).validate().unwrap();
    check(
        &custom(&[], &[1.0, 2.0]),
        "custom buckets: only 0 custom bounds defined which is insufficient to cover total span length of 2: histogram custom bounds are too few",
    );
    check(
        &custom(&[2.0, 2.0], &[]),
        "custom buckets: previous bound is 2.000000 and current is 2.000000: histogram custom bounds must be in strictly increasing order",
    );
    check(
        &FloatHistogram { count: -1.0, ..sample() },
        "observation count is  -1: histogram's observation count is negative",
    );
}

#[test]
fn a_reset_is_a_count_that_fell() {
    let before = sample();
    let reset = |change: fn(&mut FloatHistogram)| {
        let mut now = sample();
        change(&mut now);
        now.detect_reset(&before)
    };
    assert!(!reset(|_| {}));
    assert!(!reset(|h| h.sum = 0.0), "the sum may fall");
    assert!(reset(|h| h.count = 11.0));
    assert!(reset(|h| h.zero_count = 1.0));
    assert!(reset(|h| h.positive_buckets[2] = 3.0));
    assert!(reset(|h| h.negative_spans[0].offset = 2));
    assert!(reset(|h| h.schema = 1));
    assert!(reset(|h| h.zero_threshold = 0.0));
    assert!(!reset(|h| {
        h.schema = -1;
        h.positive_spans = spans(&[(0, 3)]);
        h.positive_buckets = vec![3.0, 0.0, 3.5];
    }));
    assert!(!reset(|h| {
        h.zero_threshold = 0.5;
        h.zero_count = 3.0;
    }));
    assert!(reset(|h| h.zero_threshold = 0.5), "the zero bucket has taken one in");
    assert!(reset(|h| h.zero_threshold = 0.4), "inside a populated bucket");
    assert!(reset(|h| h.counter_reset_hint = CounterResetHint::Reset));
    assert!(!reset(|h| {
        h.count = 0.0;
        h.counter_reset_hint = CounterResetHint::NotReset;
    }));
    let before = custom(&[1.0, 2.0, 3.0], &[1.0, 1.0, 1.0, 1.0]);
    assert!(!custom(&[1.0, 3.0], &[1.0, 2.0, 1.0]).detect_reset(&before), "2 is not a common bound");
    assert!(custom(&[1.0, 3.0], &[1.0, 1.0, 5.0]).detect_reset(&before));
    assert!(custom(&[1.0], &[9.0]).detect_reset(&sample()));
}

#[test]
fn equality_is_of_buckets_and_bits() {
    let h = sample();
    let same = FloatHistogram {
        positive_spans: spans(&[(-4, 0), (3, 2), (1, 0), (1, 1), (7, 0)]),
        counter_reset_hint: CounterResetHint::Gauge,
        ..h.clone()
    };
    assert!(h.equals(&same));
    assert!(!h.equals(&FloatHistogram { positive_spans: spans(&[(-1, 1), (2, 2)]), ..h.clone() }));
    assert!(!h.equals(&FloatHistogram { sum: f64::NAN, ..h.clone() }));
    assert!(FloatHistogram::stale().equals(&FloatHistogram::stale()));
    assert!(!HistogramValue::from(Histogram::default()).equals(&FloatHistogram::default().into()));
}
