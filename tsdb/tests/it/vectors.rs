//! Histograms and chunks against what Prometheus 3.14 made of the same input, bit for bit.
//!
//! The vectors are JSON lines, floats as their bits. `PROMONTORY_VECTORS` names a directory with larger
//! files of the same form.

use std::path::PathBuf;
use std::sync::Arc;

use promontory_tsdb::Sample;
use promontory_tsdb::chunkenc::histogram::{Appended, ChunkAppender, Coder, FloatCoder, IntegerCoder};
use promontory_tsdb::chunkenc::{self, Decoded, Encoding, xor, xor2};
use promontory_tsdb::histogram::{Bucket, CounterResetHint, FloatHistogram, Histogram, HistogramValue, Span};
use serde_json::Value;

fn lines(name: &str) -> Vec<Value> {
    let committed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let dir = std::env::var_os("PROMONTORY_VECTORS").map_or(committed, PathBuf::from);
    let text = std::fs::read_to_string(dir.join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn array(v: &Value) -> &[Value] {
    v.as_array().unwrap()
}

fn float(v: &Value) -> f64 {
    f64::from_bits(v.as_u64().unwrap())
}

fn floats(v: &Value) -> Vec<f64> {
    array(v).iter().map(float).collect()
}

fn spans(v: &Value) -> Vec<Span> {
    let span =
        |s: &Value| Span { offset: s[0].as_i64().unwrap() as i32, length: s[1].as_u64().unwrap() as u32 };
    array(v).iter().map(span).collect()
}

fn hint(v: &Value) -> CounterResetHint {
    match v["hint"].as_u64() {
        Some(1) => CounterResetHint::Reset,
        Some(2) => CounterResetHint::NotReset,
        Some(3) => CounterResetHint::Gauge,
        _ => CounterResetHint::Unknown,
    }
}

fn schema(v: &Value) -> i32 {
    v["schema"].as_i64().unwrap() as i32
}

fn integer(v: &Value) -> Histogram {
    let buckets = |v: &Value| array(v).iter().map(|b| b.as_i64().unwrap()).collect();
    Histogram {
        counter_reset_hint: hint(v),
        schema: schema(v),
        zero_threshold: float(&v["zt"]),
        zero_count: v["zc"].as_u64().unwrap(),
        count: v["c"].as_u64().unwrap(),
        sum: float(&v["s"]),
        positive_spans: spans(&v["ps"]),
        negative_spans: spans(&v["ns"]),
        positive_buckets: buckets(&v["pb"]),
        negative_buckets: buckets(&v["nb"]),
        custom_values: floats(&v["cv"]),
    }
}

fn real(v: &Value) -> FloatHistogram {
    FloatHistogram {
        counter_reset_hint: hint(v),
        schema: schema(v),
        zero_threshold: float(&v["zt"]),
        zero_count: float(&v["zc"]),
        count: float(&v["c"]),
        sum: float(&v["s"]),
        positive_spans: spans(&v["ps"]),
        negative_spans: spans(&v["ns"]),
        positive_buckets: floats(&v["pb"]),
        negative_buckets: floats(&v["nb"]),
        custom_values: floats(&v["cv"]),
    }
}

fn value(v: &Value) -> HistogramValue {
    if v["k"] == "i" { integer(v).into() } else { real(v).into() }
}

/// Whether two histograms are the same, hints included.
fn same(a: &HistogramValue, b: &HistogramValue) -> bool {
    a.equals(b) && a.counter_reset_hint() == b.counter_reset_hint()
}

fn bytes(v: &Value) -> Vec<u8> {
    let hex = v["hex"].as_str().unwrap();
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn encoding(v: &Value) -> Encoding {
    Encoding::from_code(v["enc"].as_u64().unwrap() as u8).unwrap()
}

/// Checks a text that Prometheus gave, unless it panicked.
fn check_text(want: &Value, got: impl FnOnce() -> String) {
    if want != "PANIC" {
        assert_eq!(got(), want.as_str().unwrap());
    }
}

fn check_buckets(want: &Value, got: Vec<Bucket>) {
    if want == "PANIC" {
        return;
    }
    assert_eq!(array(want).len(), got.len());
    for (want, got) in array(want).iter().zip(got) {
        assert_eq!(float(&want[0]).to_bits(), got.lower.to_bits());
        assert_eq!(float(&want[1]).to_bits(), got.upper.to_bits());
        assert_eq!(want[2], got.lower_inclusive);
        assert_eq!(want[3], got.upper_inclusive);
        assert_eq!(float(&want[4]).to_bits(), got.count.to_bits());
        assert_eq!(want[5], got.index);
    }
}

#[test]
fn histograms_behave_as_in_prometheus() {
    for line in lines("histograms.jsonl") {
        let (ia, ib) = (integer(&line["ia"]), integer(&line["ib"]));
        let (fa, fb) = (real(&line["fa"]), real(&line["fb"]));
        assert!(fa.equals(&ia.to_float()));
        check_text(&line["istr"], || ib.to_string());
        check_text(&line["fstr"], || fb.to_string());
        if fb.validate().is_ok() {
            check_text(&line["expr"], || fb.test_expression());
            check_buckets(&line["all"], fb.iter_all().collect());
            check_buckets(&line["rev"], fb.iter_all().rev().collect());
        }
        check_text(&line["ival"], || ib.validate().err().map_or_else(String::new, |e| e.to_string()));
        check_text(&line["fval"], || fb.validate().err().map_or_else(String::new, |e| e.to_string()));
        if let Some(reset) = line["reset"].as_bool() {
            assert_eq!(fb.detect_reset(&fa), reset, "{fb} after {fa}");
        }
        assert_eq!(line["ieq"], ia.equals(&ib));
        for (key, max_empty) in [("0", 0), ("2", 2)] {
            let (mut ib, mut fb) = (ib.clone(), fb.clone());
            // Where spans and buckets do not agree, there is no right answer.
            if ib.validate().is_ok() {
                ib.compact(max_empty);
                fb.compact(max_empty);
                assert!(same(&ib.into(), &value(&line[format!("icompact{key}")])), "{line}");
                assert!(same(&fb.into(), &value(&line[format!("compact{key}")])), "{line}");
            }
        }
        let to = line["to"].as_i64().unwrap() as i32;
        for (h, key) in [(HistogramValue::from(ib), "ireduce"), (fb.into(), "freduce")] {
            let valid = h.validate().is_ok();
            let (result, h) = match h {
                HistogramValue::Integer(mut h) => (Arc::make_mut(&mut h).reduce_resolution(to), h.into()),
                HistogramValue::Float(mut h) => (Arc::make_mut(&mut h).reduce_resolution(to), h.into()),
            };
            match result {
                Ok(()) => assert!(same(&h, &value(&line[key])), "{line}"),
                Err(e) if valid => assert_eq!(line[key], e.to_string()),
                Err(_) => assert!(line[key].is_string()),
            }
        }
    }
}

#[test]
fn float_chunks_have_the_bytes_of_prometheus() {
    for line in lines("float_chunks.jsonl") {
        let encoding = encoding(&line);
        let sample =
            |s: &Value| (s[0].as_i64().unwrap(), Sample { t: s[1].as_i64().unwrap(), v: float(&s[2]) });
        let input: Vec<_> = array(&line["in"]).iter().map(sample).collect();
        let (whole, resumed) = if encoding == Encoding::Xor {
            let mut a = xor::Appender::new();
            let mut b = xor::Appender::new();
            for (_, s) in &input {
                a.append(s.t, s.v);
                b = xor::Appender::resume(b.into_bytes()).unwrap();
                b.append(s.t, s.v);
            }
            (a.into_bytes(), b.into_bytes())
        } else {
            let mut a = xor2::Appender::new();
            let mut b = xor2::Appender::new();
            for (start, s) in &input {
                a.append(*start, s.t, s.v);
                b = xor2::Appender::resume(b.into_bytes()).unwrap();
                b.append(*start, s.t, s.v);
            }
            (a.into_bytes(), b.into_bytes())
        };
        let want = bytes(&line);
        assert_eq!(whole, want);
        assert_eq!(resumed, want);
        let mut decoded = Decoded::default();
        chunkenc::decode(encoding, &want, &mut decoded).unwrap();
        let output: Vec<_> = array(&line["out"]).iter().map(sample).collect();
        assert_eq!(decoded.timestamps, output.iter().map(|o| o.1.t).collect::<Vec<_>>());
        let bits = |v: f64| v.to_bits();
        assert!(decoded.values.iter().copied().map(bits).eq(output.iter().map(|o| bits(o.1.v))));
        decoded.start_timestamps.resize(decoded.values.len(), 0);
        assert_eq!(decoded.start_timestamps, output.iter().map(|o| o.0).collect::<Vec<_>>());
    }
}

fn check_histogram_chunks<C: Coder>(line: &Value, parse: impl Fn(&Value) -> C::Value) {
    let encoding = encoding(line);
    let new = || ChunkAppender::<C>::new(encoding.has_start_timestamps());
    let mut done: Vec<ChunkAppender<C>> = Vec::new();
    for (i, sample) in array(&line["in"]).iter().enumerate() {
        let cut = sample["cut"].as_bool().unwrap();
        if cut {
            done.push(new());
        }
        let (open, before) = done.split_last_mut().unwrap();
        let (t, start) = (sample["t"].as_i64().unwrap(), sample["st"].as_i64().unwrap());
        let value = parse(&sample["h"]);
        if i % 3 == 0 {
            *open = ChunkAppender::resume(encoding, open.bytes().to_vec()).unwrap();
        }
        let what = match open.append(before.last().filter(|_| cut), t, start, &value).unwrap() {
            Appended::InPlace => "in",
            Appended::Recoded => "re",
            Appended::NewChunk(next) => {
                done.push(*next);
                "new"
            }
        };
        assert_eq!(sample["what"], what, "sample {i} of {line}");
    }
    let chunks = array(&line["chunks"]);
    assert_eq!(done.len(), chunks.len());
    for (ours, theirs) in done.iter().zip(chunks) {
        let want = bytes(theirs);
        assert_eq!(ours.bytes(), want);
        assert_eq!(theirs["n"], chunkenc::num_samples(encoding, &want));
        check_decoded(encoding, &want, theirs);
    }
}

fn check_decoded(encoding: Encoding, data: &[u8], theirs: &Value) {
    let mut decoded = Decoded::default();
    chunkenc::decode(encoding, data, &mut decoded).unwrap();
    assert_eq!(decoded.histograms.len(), array(&theirs["out"]).len());
    let mut iter = chunkenc::histogram::Iter::new(encoding, data).unwrap();
    for ((ours, out), float) in
        decoded.histograms.iter().zip(array(&theirs["out"])).zip(array(&theirs["fout"]))
    {
        assert!(iter.advance().unwrap());
        assert_eq!(out["t"], ours.timestamp);
        assert_eq!(out["st"], ours.start_timestamp);
        assert!(same(&ours.histogram, &value(&out["h"])), "{:?} is not {}", ours.histogram, out["h"]);
        assert!(same(&iter.to_float().into(), &value(float)));
        assert_eq!((iter.timestamp(), iter.start_timestamp()), (ours.timestamp, ours.start_timestamp));
    }
    assert!(!iter.advance().unwrap());
}

#[test]
fn histogram_chunks_have_the_bytes_of_prometheus() {
    for line in lines("histogram_chunks.jsonl") {
        if IntegerCoder::ENCODINGS.contains(&encoding(&line)) {
            check_histogram_chunks::<IntegerCoder>(&line, integer);
        } else {
            check_histogram_chunks::<FloatCoder>(&line, real);
        }
    }
}

/// One sample as the pages on formats write it.
fn written(t: i64, start: i64, value: &str) -> String {
    if start == 0 { format!("{t} {value}") } else { format!("{t} @{start} {value}") }
}

#[test]
fn examples_of_the_format_page_are_chunks() {
    let page = include_str!("../../docs/format/chunks.md");
    let mut seen = Vec::new();
    for block in page.split("```chunk-").skip(1) {
        let (code, rest) = block.split_once('\n').unwrap();
        let (body, _) = rest.split_once("```").unwrap();
        let (samples, rows): (Vec<_>, Vec<_>) = body.lines().partition(|l| l.starts_with("= "));
        // Two spaces end the bytes of a row.
        let digits = rows.iter().flat_map(|r| r.split("  ").next().unwrap().split_whitespace());
        let data: Vec<u8> = digits.map(|d| u8::from_str_radix(d, 16).unwrap()).collect();
        let encoding = Encoding::from_code(code.parse().unwrap()).unwrap();
        let mut decoded = Decoded::default();
        chunkenc::decode(encoding, &data, &mut decoded).unwrap();
        decoded.start_timestamps.resize(decoded.values.len(), 0);
        let float = |v: &f64| if promontory_tsdb::is_stale(*v) { "stale".to_owned() } else { v.to_string() };
        let floats = decoded.timestamps.iter().zip(&decoded.start_timestamps).zip(&decoded.values);
        let got = floats.map(|((t, start), v)| written(*t, *start, &float(v))).chain(
            decoded
                .histograms
                .iter()
                .map(|h| written(h.timestamp, h.start_timestamp, &h.histogram.to_string())),
        );
        let want: Vec<_> = samples.iter().map(|s| s[2..].to_owned()).collect();
        assert_eq!(got.collect::<Vec<_>>(), want, "encoding {code}");
        seen.push(encoding.code());
    }
    assert_eq!(seen, [1, 4, 2, 6]);
}
