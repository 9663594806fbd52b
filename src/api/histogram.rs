//! Native histograms as JSON: `{"count":"…","sum":"…","buckets":[[rule,"low","high","count"],…]}`.
//!
//! `rule` says which bounds belong to the bucket: 0 the upper, 1 the lower, 2 neither, 3 both.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/util/jsonutil/marshal.go>,
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/model/histogram/float_histogram.go>

use promontory_tsdb::histogram::FloatHistogram;

use super::json::put_float;

/// Writes `h`. Empty buckets are left out, and `buckets` too when none remain.
pub(crate) fn put_histogram(out: &mut Vec<u8>, h: &FloatHistogram) {
    out.extend_from_slice(b"{\"count\":");
    put_float(out, h.count);
    out.extend_from_slice(b",\"sum\":");
    put_float(out, h.sum);
    let mut any = false;
    for bucket in h.iter_all().filter(|b| b.count != 0.0) {
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

#[cfg(test)]
mod tests {
    use promontory_tsdb::histogram::{CUSTOM_SCHEMA, Span};

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
            schema: CUSTOM_SCHEMA,
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
