//! Native histograms as JSON: `{"count":"…","sum":"…","buckets":[[rule,"low","high","count"],…]}`.
//!
//! `rule` says which bounds belong to the bucket: 0 the upper, 1 the lower, 2 neither, 3 both.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/util/jsonutil/marshal.go>,
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/model/histogram/float_histogram.go>

use promontory_tsdb::histogram::{FloatHistogram, Span};

use super::json::put_float;

/// Schema of histograms that carry their own bounds.
const CUSTOM_BUCKETS: i32 = -53;

struct Bucket {
    lower: f64,
    upper: f64,
    lower_inclusive: bool,
    upper_inclusive: bool,
    count: f64,
}

/// Writes `h`. Empty buckets are left out, and `buckets` too when none remain.
pub(crate) fn put_histogram(out: &mut Vec<u8>, h: &FloatHistogram) {
    out.extend_from_slice(b"{\"count\":");
    put_float(out, h.count);
    out.extend_from_slice(b",\"sum\":");
    put_float(out, h.sum);
    let mut any = false;
    for bucket in buckets(h).iter().filter(|b| b.count != 0.0) {
        out.extend_from_slice(if any { b",[" } else { b",\"buckets\":[[" });
        any = true;
        out.push(match (bucket.lower_inclusive, bucket.upper_inclusive) {
            (false, true) => b'0',
            (true, false) => b'1',
            (false, false) => b'2',
            (true, true) => b'3',
        });
        for v in [bucket.lower, bucket.upper, bucket.count] {
            out.push(b',');
            put_float(out, v);
        }
        out.push(b']');
    }
    if any {
        out.push(b']');
    }
    out.push(b'}');
}

/// Buckets from the lowest to the highest.
fn buckets(h: &FloatHistogram) -> Vec<Bucket> {
    if h.schema == CUSTOM_BUCKETS {
        return indexed(&h.positive_spans, &h.positive_buckets)
            .map(|(i, count)| Bucket {
                lower: custom_bound(h, i - 1),
                upper: custom_bound(h, i),
                lower_inclusive: i == 0,
                upper_inclusive: true,
                count,
            })
            .collect();
    }
    let bound = |i: i32| exponential_bound(i, h.schema);
    let mut all: Vec<_> = indexed(&h.negative_spans, &h.negative_buckets)
        .map(|(i, count)| exponential(-bound(i), (-bound(i - 1)).min(-h.zero_threshold), count))
        .collect();
    all.reverse();
    if h.zero_count > 0.0 {
        let width = h.zero_threshold;
        let (lower_inclusive, upper_inclusive) = (true, true);
        all.push(Bucket {
            lower: -width,
            upper: width,
            lower_inclusive,
            upper_inclusive,
            count: h.zero_count,
        });
    }
    all.extend(
        indexed(&h.positive_spans, &h.positive_buckets)
            .map(|(i, count)| exponential(bound(i - 1).max(h.zero_threshold), bound(i), count)),
    );
    all
}

fn exponential(lower: f64, upper: f64, count: f64) -> Bucket {
    Bucket { lower, upper, lower_inclusive: lower < 0.0, upper_inclusive: upper > 0.0, count }
}

/// `(bucket index, count)` of the populated buckets.
fn indexed<'a>(spans: &'a [Span], counts: &'a [f64]) -> impl Iterator<Item = (i32, f64)> + 'a {
    let mut next = 0i32;
    let indexes = spans.iter().flat_map(move |span| {
        let first = next.wrapping_add(span.offset);
        let end = first.wrapping_add(span.length as i32);
        next = end;
        first..end
    });
    indexes.zip(counts.iter().copied())
}

/// Upper bound of bucket `i`: `2^(i · 2^-schema)`.
fn exponential_bound(i: i32, schema: i32) -> f64 {
    let bound = (f64::from(i) * f64::from(-schema).exp2()).exp2();
    if bound.is_infinite() && i > 0 { f64::MAX } else { bound }
}

fn custom_bound(h: &FloatHistogram, i: i32) -> f64 {
    match usize::try_from(i) {
        Err(_) => f64::NEG_INFINITY,
        Ok(i) => h.custom_values.get(i).copied().unwrap_or(f64::INFINITY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(h: &FloatHistogram, want: &str) {
        let mut out = Vec::new();
        put_histogram(&mut out, h);
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn negative_buckets_come_first_and_are_closed_below() {
        let h = FloatHistogram {
            count: 3.0,
            sum: 0.5,
            negative_spans: vec![Span { offset: 0, length: 2 }],
            negative_buckets: vec![1.0, 2.0],
            ..FloatHistogram::default()
        };
        check(&h, r#"{"count":"3","sum":"0.5","buckets":[[1,"-2","-1","2"],[1,"-1","-0.5","1"]]}"#);
    }

    #[test]
    fn custom_buckets_end_at_infinity() {
        let h = FloatHistogram {
            schema: CUSTOM_BUCKETS,
            count: 3.0,
            sum: 4.0,
            positive_spans: vec![Span { offset: 0, length: 3 }],
            positive_buckets: vec![1.0, 0.0, 2.0],
            custom_values: vec![5.0, 10.0],
            ..FloatHistogram::default()
        };
        check(&h, r#"{"count":"3","sum":"4","buckets":[[3,"-Inf","5","1"],[0,"10","+Inf","2"]]}"#);
    }
}
