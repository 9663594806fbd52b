use std::fmt::Write as _;

use promontory_tsdb::LabelsBuilder;
use promontory_tsdb::sample::NORMAL_NAN_BITS;
use proptest::prelude::*;

use super::*;

/// Every entry in a line of its own: `labels value[@timestamp]`, or what else it says.
fn dump(format: Format, body: &[u8]) -> String {
    let mut out = String::new();
    let mut parser = Parser::new(format, body);
    while let Some(entry) = parser.next() {
        let line = match entry {
            Ok(Entry::Series(series)) => {
                let mut builder = LabelsBuilder::default();
                match series.labels_into(&mut builder) {
                    Ok(()) => {
                        let at = series.timestamp_ms.map(|t| format!(" @{t}")).unwrap_or_default();
                        format!("{} {}{at}", builder.build(), series.value)
                    }
                    Err(e) => {
                        let e = parser.locate(&series, e);
                        writeln!(out, "error: {e}").unwrap();
                        break;
                    }
                }
            }
            Ok(Entry::Type { metric, metric_type }) => {
                format!("type {} {}", String::from_utf8_lossy(metric), metric_type.as_str())
            }
            Ok(Entry::Help { metric, text }) => {
                format!("help {} {:?}", String::from_utf8_lossy(metric), String::from_utf8_lossy(&text))
            }
            Ok(Entry::Unit { metric, unit }) => {
                format!("unit {} {}", String::from_utf8_lossy(metric), String::from_utf8_lossy(unit))
            }
            Ok(Entry::Histogram(..)) => panic!("text has no native histograms"),
            Ok(Entry::Comment(text)) => format!("comment {:?}", String::from_utf8_lossy(text)),
            Err(e) => format!("error: {e}"),
        };
        writeln!(out, "{line}").unwrap();
    }
    out
}

#[track_caller]
fn check(format: Format, body: &str, want: &str) {
    let want: String = want.lines().map(|l| format!("{}\n", l.trim())).filter(|l| l != "\n").collect();
    assert_eq!(dump(format, body.as_bytes()), want, "body:\n{body}");
}

#[track_caller]
fn check_text(body: &str, want: &str) {
    check(Format::PrometheusText, body, want);
}

#[track_caller]
fn check_open_metrics(body: &str, want: &str) {
    check(Format::OpenMetrics, body, want);
}

#[test]
fn text_page_is_read_entry_by_entry() {
    check_text(
        "# HELP go_gc A \\\\ help\\n text.\n# TYPE go_gc summary\ngo_gc{quantile=\"0\"} 4.9351e-05\n\
         go_gc{quantile=\"0.25\",} 7.424100000000001e-05\n\n  \t indented{a=\"b\" , c = \"d\"}\t12  1234 \n\
         # just a comment\n#comment without a blank\ngo_gc_count 99",
        r##"
        help go_gc "A \\ help\n text."
        type go_gc summary
        {__name__="go_gc", quantile="0.0"} 0.000049351
        {__name__="go_gc", quantile="0.25"} 0.00007424100000000001
        {__name__="indented", a="b", c="d"} 12 @1234
        comment "# just a comment"
        comment "#comment without a blank"
        {__name__="go_gc_count"} 99
        "##,
    );
}

#[test]
fn quoted_utf8_names_are_read() {
    check_text(
        "# TYPE \"my.metric\" counter\n{\"my.metric\",\"lab.el\"=\"v\",plain=\"w\"} 1\n{a=\"b\",\"late.name\"} 2\n\
         {\"quo\\\"te\\\\d\"} 3\n",
        r#"
        type my.metric counter
        {__name__="my.metric", "lab.el"="v", plain="w"} 1
        {__name__="late.name", a="b"} 2
        {__name__="quo\"te\\d"} 3
        "#,
    );
}

#[test]
fn values_are_go_floats_of_old() {
    for (text, want) in [
        ("1", 1.0),
        ("-17", -17.0),
        ("+3", 3.0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("123456789012345678", 123_456_789_012_345_678.0),
        ("Inf", f64::INFINITY),
        ("-inf", f64::NEG_INFINITY),
        ("+Infinity", f64::INFINITY),
        ("1e-400", 0.0),
    ] {
        assert_eq!(number::parse_value(text.as_bytes()), Ok(want), "{text}");
    }
    assert!(number::parse_value(b"-0").unwrap().is_sign_negative());
    for nan in ["NaN", "nan", "NAN"] {
        assert_eq!(number::parse_value(nan.as_bytes()).unwrap().to_bits(), NORMAL_NAN_BITS);
    }
    for bad in ["", "true", "1_2", "0x1p-3", "0x10", "+nan", "-NaN", "1e999", "--1", "1.2.3", "١"] {
        assert!(number::parse_value(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn bounds_are_brought_to_open_metrics_form() {
    for (value, want) in [
        (1.0, "1.0"),
        (0.0, "0.0"),
        (0.25, "0.25"),
        (100.0, "100.0"),
        (1e6, "1e+06"),
        (123_456.0, "123456.0"),
        (1.5e-7, "1.5e-07"),
        (0.0001, "0.0001"),
        (1e21, "1e+21"),
        (f64::INFINITY, "+Inf"),
    ] {
        assert_eq!(number::format_open_metrics_float(value), want);
    }
    check_text(
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_bucket{le=\"x\"} 1\n# TYPE g gauge\ng{le=\"1\"} 1\n",
        r#"
        type h histogram
        {__name__="h_bucket", le="1.0"} 1
        {__name__="h_bucket", le="+Inf"} 1
        {__name__="h_bucket", le="x"} 1
        type g gauge
        {__name__="g", le="1"} 1
        "#,
    );
}

#[test]
fn text_errors_name_line_and_reason() {
    for (body, want) in [
        ("a", r#"line 1: expected value after metric, got "\n" ("INVALID") while parsing: "a\n""#),
        ("a 1\na{b='c'} 1\n", r#"line 2: expected label value, got "'" ("INVALID") while parsing: "a{b='""#),
        ("a{b=\n", r#"line 1: expected label value, got "\n" ("INVALID") while parsing: "a{b=\n""#),
        (
            "something_weird{problem=\"",
            r#"line 1: expected label value, got "\"\n" ("INVALID") while parsing: "something_weird{problem=\"\n""#,
        ),
        (
            "empty_label_name{=\"\"} 0",
            r#"line 1: expected label name, got "=\"" ("EQUAL") while parsing: "empty_label_name{=\"""#,
        ),
        (
            "{\"a\", \"b = \"c\"}",
            r#"line 1: expected equal, got "c\"" ("LNAME") while parsing: "{\"a\", \"b = \"c\"""#,
        ),
        ("{\"a\",\"b\"} 1", r#"line 1: metric name already set while parsing: "{\"a\",\"b\"}""#),
        ("{a=\"ok\"} 1", r#"line 1: metric name not set while parsing: "{a=\"ok\"} 1""#),
        ("a true\n", r#"line 1: strconv.ParseFloat: parsing "true": invalid syntax while parsing: "a true""#),
        ("foo 1_2\n", r#"line 1: unsupported character in float while parsing: "foo 1_2""#),
        (
            "foo 0 1_2\n",
            r#"line 1: expected next entry after timestamp, got "_" ("INVALID") while parsing: "foo 0 1_""#,
        ),
        (
            "foo 0 -1\n",
            r#"line 1: expected timestamp or new record, got "-" ("INVALID") while parsing: "foo 0 -""#,
        ),
        ("# TYPE a strange\n", r#"line 1: invalid metric type "strange""#),
        (
            "\n\n# TYPE 1 gauge\n",
            r##"line 3: expected metric name after TYPE, got "1" ("INVALID") while parsing: "# TYPE 1""##,
        ),
        ("a{b=\"1\",b=\"2\"} 1\n", r#"line 1: label name "b" is not unique"#),
        ("a 1\r\n", r#"line 1: strconv.ParseFloat: parsing "1\r": invalid syntax while parsing: "a 1\r""#),
    ] {
        let got = dump(Format::PrometheusText, body.as_bytes());
        assert_eq!(got.lines().last().unwrap(), format!("error: {want}"), "body: {body:?}");
    }
    assert!(
        dump(Format::PrometheusText, b"a{b=\"\xff\"} 1\n")
            .contains(r#"invalid UTF-8 label value: "\"\xff\"""#)
    );
    assert!(dump(Format::PrometheusText, b"{\"\xff\"} 1\n").contains("invalid UTF-8 in name"));
}

#[test]
fn nul_bytes_are_ordinary_in_label_values() {
    check_text("m{a=\"abc\0\"} 1", "{__name__=\"m\", a=\"abc\\x00\"} 1");
    assert!(dump(Format::PrometheusText, b"a\0{b=\"ddd\"} 1").starts_with("error"));
    assert!(dump(Format::PrometheusText, b"a 1\0").starts_with("error"));
}

#[test]
fn open_metrics_page_is_read_entry_by_entry() {
    check_open_metrics(
        "# HELP foo A \\\"quoted\\\" text\n# TYPE foo_seconds counter\n# UNIT foo_seconds seconds\n\
         foo_seconds_total{a=\"b\"} 17.0 1520879607.789 # {id=\"x\"} 0.5 1520879607\n\
         foo_seconds_created{a=\"b\"} 1520872607.123\n\
         # TYPE hh histogram\nhh_bucket{le=\"1\"} 1 # {} 4\nhh_bucket{le=\"+Inf\"} 1 # {trace_id=\"x y\"} 4 1.5\n\
         # TYPE i info\n{\"i.info\",v=\"1\"} 1\n# EOF\n",
        r#"
        help foo "A \"quoted\" text"
        type foo_seconds counter
        unit foo_seconds seconds
        {__name__="foo_seconds_total", a="b"} 17 @1520879607789
        {__name__="foo_seconds_created", a="b"} 1520872607.123
        type hh histogram
        {__name__="hh_bucket", le="1.0"} 1
        {__name__="hh_bucket", le="+Inf"} 1
        type i info
        {__name__="i.info", v="1"} 1
        "#,
    );
    check_open_metrics("a 1\n# EOF", "{__name__=\"a\"} 1");
}

#[test]
fn open_metrics_errors_name_line_and_reason() {
    for (body, want) in [
        ("", "line 1: data does not end with # EOF"),
        ("a 1\n", "line 2: data does not end with # EOF"),
        ("a 1\n# EOF\na 2\n", "line 2: unexpected data after # EOF"),
        ("\n# EOF\n", r#"line 1: expected a valid start token, got "\n" ("INVALID") while parsing: "\n""#),
        (
            "# a comment\n# EOF\n",
            r##"line 1: expected a valid start token, got "# a" ("INVALID") while parsing: "# a""##,
        ),
        (
            "a\t1\n# EOF\n",
            r#"line 1: expected value after metric, got "\t" ("INVALID") while parsing: "a\t""#,
        ),
        ("# UNIT metric suffix\n# EOF\n", r#"line 1: unit "suffix" not a suffix of metric "metric""#),
        ("# TYPE a untyped\n# EOF\n", r#"line 1: invalid metric type "untyped""#),
        ("a 1 NaN\n# EOF\n", "line 1: invalid timestamp NaN"),
        ("a 1 1 # {a=\"b\"} 1 +Inf\n# EOF\n", "line 1: invalid exemplar timestamp +Inf"),
        (
            "a{b=\"c\" d=\"e\"} 1\n# EOF\n",
            r#"line 1: expected comma or brace close, got " " ("INVALID") while parsing: "a{b=\"c\" ""#,
        ),
    ] {
        let got = dump(Format::OpenMetrics, body.as_bytes());
        assert_eq!(got.lines().last().unwrap(), format!("error: {want}"), "body: {body:?}");
    }
}

#[test]
fn expected_series_is_taken_only_when_it_is_there() {
    let body = b"a{b=\"c\"} 1\na 2\na{b=\"c\"}x 3\n";
    let mut parser = Parser::new(Format::PrometheusText, body);
    let mut take = |expected: &[u8]| match parser.next_expecting(expected) {
        Some(Ok(Entry::Series(s))) => Ok((s.text.to_vec(), s.value)),
        Some(Err(e)) => Err(e.to_string()),
        other => panic!("{other:?}"),
    };
    assert_eq!(take(b"a{b=\"c\"}"), Ok((b"a{b=\"c\"}".to_vec(), 1.0)));
    assert_eq!(take(b"a{b=\"c\"}"), Ok((b"a".to_vec(), 2.0)));
    assert!(take(b"a{b=\"c\"}").is_err());
}

#[test]
fn exemplars_come_with_their_series() {
    let body = b"a_total 1 # {trace_id=\"x\\\"y\"} 0.5 12.345\na_total{b=\"c\"} 2\nc 1 # {} 7\n# EOF\n";
    let mut parser = Parser::new(Format::OpenMetrics, body);
    let mut next = || {
        parser.next().unwrap().unwrap();
        parser.exemplar().map(|e| (e.labels.to_string(), e.value, e.timestamp_ms))
    };
    assert_eq!(next(), Some((r#"{trace_id="x\"y"}"#.to_owned(), 0.5, Some(12_345))));
    assert_eq!(next(), None);
    assert_eq!(next(), Some(("{}".to_owned(), 7.0, None)));
}

#[test]
fn content_type_picks_the_format() {
    const PROMETHEUS_TEXT: PageFormat = PageFormat::Text(Format::PrometheusText);
    const OPEN_METRICS: PageFormat = PageFormat::Text(Format::OpenMetrics);
    let of = |ct: &str, fallback| PageFormat::from_content_type(ct, fallback).map_err(|e| e.to_string());
    assert_eq!(of("text/plain; version=0.0.4; charset=utf-8", None), Ok(PROMETHEUS_TEXT));
    assert_eq!(of("Application/OpenMetrics-Text;version=1.0.0", None), Ok(OPEN_METRICS));
    assert_eq!(of("application/vnd.google.protobuf; encoding=delimited", None), Ok(PageFormat::Protobuf));
    assert_eq!(of("", Some(PROMETHEUS_TEXT)), Ok(PROMETHEUS_TEXT));
    assert_eq!(of("text/html", Some(OPEN_METRICS)), Ok(OPEN_METRICS));
    assert_eq!(
        of("", None).unwrap_err(),
        "non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol specified for target"
    );
    assert_eq!(
        of("text/html", None).unwrap_err(),
        "received unsupported Content-Type \"text/html\" and no fallback_scrape_protocol specified for target"
    );
    assert!(of("text/", None).unwrap_err().starts_with("cannot parse Content-Type"));
}

fn page_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"a".to_vec()),
        Just(b"{".to_vec()),
        Just(b"}".to_vec()),
        Just(b"=".to_vec()),
        Just(b"\"".to_vec()),
        Just(b"\\".to_vec()),
        Just(b",".to_vec()),
        Just(b" ".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"1".to_vec()),
        Just(b"m{a=\"b\"} 1\n".to_vec()),
        Just(b"# TYPE m histogram\n".to_vec()),
        Just(b" # {a=\"b\"} 1 1\n".to_vec()),
        Just(b"# EOF\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_end_without_a_panic(body in page_bytes()) {
        for format in [Format::PrometheusText, Format::OpenMetrics] {
            let _ = dump(format, &body);
        }
    }

    /// The fast path may only differ from the exact lexer in who reports bad labels.
    #[test]
    fn fast_and_slow_path_agree(body in page_bytes()) {
        for format in [Format::PrometheusText, Format::OpenMetrics] {
            for entry in Parser::new(format, &body) {
                let Ok(Entry::Series(series)) = entry else { continue };
                let at = series.text.as_ptr() as usize - body.as_ptr() as usize;
                let alone = Parser::slow_series(format, &body, at);
                if series.labels_into(&mut LabelsBuilder::default()).is_ok() {
                    let alone = alone.unwrap();
                    prop_assert_eq!(alone.text, series.text);
                    prop_assert_eq!(alone.value.to_bits(), series.value.to_bits());
                    prop_assert_eq!(alone.timestamp_ms, series.timestamp_ms);
                } else {
                    // A repeated label is only seen once names are unescaped.
                    break;
                }
            }
        }
    }
}
