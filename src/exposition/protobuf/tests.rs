//! Pages written by hand, field by field, as client libraries encode them.

use proptest::prelude::*;

use super::*;

/// A field with a length.
fn sub(number: u8, body: &[u8]) -> Vec<u8> {
    /// One byte, or two for more than seven bits.
    fn short(n: usize) -> Vec<u8> {
        assert!(n < 1 << 14);
        if n < 128 { vec![n as u8] } else { vec![n as u8 & 0x7f | 0x80, (n >> 7) as u8] }
    }
    [&short(usize::from(number) << 3 | 2)[..], &short(body.len()), body].concat()
}

fn double(number: u8, v: f64) -> Vec<u8> {
    [&[number << 3 | 1], &v.to_le_bytes()[..]].concat()
}

fn varint(number: u8, n: u8) -> Vec<u8> {
    assert!(n < 128);
    vec![number << 3, n]
}

fn text(number: u8, s: &str) -> Vec<u8> {
    sub(number, s.as_bytes())
}

fn label(name: &str, value: &str) -> Vec<u8> {
    sub(1, &[text(1, name), text(2, value)].concat())
}

/// A delimited family.
fn family(name: &str, kind: u8, metrics: &[Vec<u8>]) -> Vec<u8> {
    let mut body = [text(1, name), text(2, "Help."), varint(3, kind)].concat();
    for metric in metrics {
        assert!(metric.len() < 1 << 14);
        body.extend([4 << 3 | 2, metric.len() as u8 | 0x80, (metric.len() >> 7) as u8]);
        body.extend(metric);
    }
    let mut out = vec![body.len() as u8 | 0x80, (body.len() >> 7) as u8];
    out.extend(body);
    out
}

const NATIVE: ProtobufOptions = ProtobufOptions { native_histograms: true, classic_beside_native: false };
const BOTH: ProtobufOptions = ProtobufOptions { native_histograms: true, classic_beside_native: true };

/// One line per sample: labels, value, timestamp, exemplars.
fn dump(body: &[u8], options: ProtobufOptions) -> Result<Vec<String>, String> {
    let page = ProtobufPage::parse(body, options).map_err(|e| e.to_string())?;
    let mut out = Vec::new();
    for (entry, exemplars) in page.entries() {
        let (series, value) = match entry {
            Entry::Series(series) => (series, series.value.to_string()),
            Entry::Histogram(series, HistogramValue::Integer(h)) => (series, h.to_string()),
            Entry::Histogram(series, HistogramValue::Float(h)) => (series, format!("float {h}")),
            Entry::Type { metric, metric_type } => {
                out.push(format!("TYPE {} {}", String::from_utf8_lossy(metric), metric_type.as_str()));
                continue;
            }
            _ => continue,
        };
        let mut builder = LabelsBuilder::default();
        series.labels_into(&mut builder).map_err(|e| e.to_string())?;
        let mut line = format!("{} {value}", builder.build());
        if let Some(t) = series.timestamp_ms {
            line += &format!(" @{t}");
        }
        for e in exemplars {
            line += &format!(" # {} {} {:?}", e.labels, e.value, e.timestamp_ms);
        }
        out.push(line);
    }
    Ok(out)
}

fn exemplar(number: u8, trace: &str, v: f64, seconds: Option<u8>) -> Vec<u8> {
    let time = seconds.map_or_else(Vec::new, |s| sub(3, &varint(1, s)));
    sub(number, &[label("trace", trace), double(2, v), time].concat())
}

#[test]
fn plain_metrics_are_series() {
    let counter =
        [label("a", "b"), sub(3, &[double(1, 5.0), exemplar(2, "t", 1.0, Some(9))].concat()), varint(6, 7)];
    let body = [
        family("c_total", 0, &[counter.concat()]),
        family("empty", 1, &[]),
        family("g", 1, &[sub(2, &double(1, 1.5))]),
        family("u", 3, &[sub(5, &double(1, f64::NAN))]),
    ]
    .concat();
    assert_eq!(
        dump(&body, NATIVE).unwrap(),
        [
            "TYPE c_total counter",
            "{__name__=\"c_total\", a=\"b\"} 5 @7 # {trace=\"t\"} 1 Some(9000)",
            "TYPE g gauge",
            "{__name__=\"g\"} 1.5",
            "TYPE u unknown",
            "{__name__=\"u\"} NaN",
        ]
    );
}

#[test]
fn summaries_and_classic_histograms_get_magic_names_and_labels() {
    let quantile = sub(3, &[double(1, 0.5), double(2, 3.0)].concat());
    let summary = sub(4, &[varint(1, 2), double(2, 6.5), quantile].concat());
    let bucket =
        |bound: f64, n: u8| sub(3, &[varint(1, n), double(2, bound), exemplar(3, "x", bound, None)].concat());
    let histogram = sub(7, &[varint(1, 4), double(2, 10.0), bucket(1.0, 1)].concat());
    let body = [family("s", 2, &[summary]), family("h", 4, &[histogram])].concat();
    assert_eq!(
        dump(&body, NATIVE).unwrap(),
        [
            "TYPE s summary",
            "{__name__=\"s_count\"} 2",
            "{__name__=\"s_sum\"} 6.5",
            "{__name__=\"s\", quantile=\"0.5\"} 3",
            "TYPE h histogram",
            "{__name__=\"h_count\"} 4",
            "{__name__=\"h_sum\"} 10",
            "{__name__=\"h_bucket\", le=\"1.0\"} 1 # {trace=\"x\"} 1 None",
            "{__name__=\"h_bucket\", le=\"+Inf\"} 4",
        ]
    );
}

/// Count 4, sum 10, schema 0, buckets (1, 2] and (2, 4].
fn native_histogram(extra: &[u8]) -> Vec<u8> {
    let span = sub(12, &[varint(1, 2), varint(2, 2)].concat());
    let deltas = sub(13, &[2, 1]);
    let zero = [double(6, 0.001), varint(7, 1)].concat();
    sub(7, &[varint(1, 4), double(2, 10.0), varint(5, 0), zero, span, deltas, extra.to_vec()].concat())
}

#[test]
fn native_histograms_are_one_sample_with_many_exemplars() {
    let bucket = sub(3, &[varint(1, 4), double(2, f64::INFINITY)].concat());
    let exemplars =
        [exemplar(16, "b", 2.0, Some(2)), exemplar(16, "no", 9.0, None), exemplar(16, "a", 1.0, Some(1))]
            .concat();
    let body = family("h", 5, &[native_histogram(&[bucket, exemplars].concat())]);
    let native = "{__name__=\"h\"} {count:4, sum:10, [-0.001,0.001]:1, (1,2]:1} \
                  # {trace=\"a\"} 1 Some(1000) # {trace=\"b\"} 2 Some(2000)";
    // The second bucket is empty: 1, then 1 - 1.
    assert_eq!(dump(&body, NATIVE).unwrap(), ["TYPE h gaugehistogram", native]);
    assert_eq!(
        dump(&body, BOTH).unwrap()[1..],
        [
            native,
            "{__name__=\"h_count\"} 4",
            "{__name__=\"h_sum\"} 10",
            "{__name__=\"h_bucket\", le=\"+Inf\"} 4",
        ]
    );
    assert_eq!(dump(&body, ProtobufOptions::default()).unwrap()[1], "{__name__=\"h_count\"} 4");
}

#[test]
fn float_histograms_are_those_with_float_counts() {
    let span = sub(12, &[varint(1, 0), varint(2, 1)].concat());
    let h = sub(7, &[double(4, 1.5), double(2, 1.0), span, double(14, 1.5)].concat());
    assert_eq!(
        dump(&family("h", 4, &[h]), NATIVE).unwrap()[1],
        "{__name__=\"h\"} float {count:1.5, sum:1, (0.5,1]:1.5}"
    );
}

#[test]
fn damage_is_an_error() {
    let span = sub(12, &[varint(1, 0), varint(2, 3)].concat());
    let h = sub(7, &[varint(1, 1), span, sub(13, &[2])].concat());
    let twice = [label("a", "1"), label("a", "2"), sub(2, &double(1, 1.0))].concat();
    for (body, says) in [
        (family("h", 4, &[h]), "histogram \"h\": positive side: spans require 3 buckets, have 1"),
        (family("x", 9, &[vec![]]), "unknown metric type for metric \"x\": 9"),
        (family("", 1, &[vec![]]), "invalid metric name: \"\""),
        (family("g", 1, &[twice]), "label name \"a\" is not unique"),
        (vec![5, 1], "protobuf: unexpected EOF"),
        (vec![1, 7], "protobuf: illegal wire type"),
    ] {
        assert_eq!(dump(&body, NATIVE).unwrap_err(), says);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_page_or_an_error(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = dump(&body, BOTH);
    }

    #[test]
    fn a_damaged_page_is_a_page_or_an_error(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let bucket = sub(3, &[varint(1, 4), double(2, 1.0)].concat());
        let mut body = family("h", 4, &[native_histogram(&bucket), native_histogram(&[])]);
        let at = at.index(body.len());
        body[at] = byte;
        let _ = dump(&body, BOTH);
    }
}
