//! Histograms made of any bytes come back from chunks as they were appended, empty buckets aside.
#![no_main]

use libfuzzer_sys::fuzz_target;
use promontory_tsdb::chunkenc::histogram::{Appended, ChunkAppender, Coder, FloatCoder, IntegerCoder};
use promontory_tsdb::chunkenc::{self, Decoded};
use promontory_tsdb::histogram::{CounterResetHint, FloatHistogram, Histogram, Span};

/// A histogram of six bytes.
fn histogram(b: &[u8]) -> Histogram {
    if b[0] == 255 {
        return Histogram::stale();
    }
    let hints = [CounterResetHint::Unknown, CounterResetHint::Unknown, CounterResetHint::Gauge, CounterResetHint::Reset];
    let spans = |b: u8| {
        let span = |offset: u8, length: u8| Span { offset: i32::from(offset), length: u32::from(length) };
        vec![span(b & 3, b >> 2 & 3), span(b >> 4 & 1, b >> 5 & 1), span(b >> 6 & 1, b >> 7)]
    };
    let buckets = |spans: &[Span], b: u8| {
        let count: u32 = spans.iter().map(|s| s.length).sum();
        let mut before = 0;
        let delta = |i| {
            let now = i64::from(b >> (i % 8) & 3) << (b % 30);
            now - std::mem::replace(&mut before, now)
        };
        (0..count).map(delta).collect::<Vec<_>>()
    };
    let (positive_spans, negative_spans) = (spans(b[1]), spans(b[3]));
    Histogram {
        counter_reset_hint: hints[usize::from(b[0] & 3)],
        schema: i32::from(b[0] >> 6) % 3,
        zero_threshold: f64::from(b[0] >> 5 & 1) / 4.0,
        zero_count: u64::from(b[5]),
        count: u64::from(b[5]) * 1000,
        sum: f64::from(b[5]) * 0.1,
        positive_buckets: buckets(&positive_spans, b[2]),
        negative_buckets: buckets(&negative_spans, b[4]),
        positive_spans,
        negative_spans,
        ..Histogram::default()
    }
}

fn check<C: Coder>(data: &[u8], with_start: bool, make: impl Fn(&[u8]) -> C::Value, float: impl Fn(&C::Value) -> FloatHistogram) {
    let mut done = vec![ChunkAppender::<C>::new(with_start)];
    let samples: Vec<_> = data.chunks_exact(6).map(make).collect();
    for (i, h) in samples.iter().enumerate() {
        let open = done.last_mut().expect("not empty");
        let start = if with_start { i64::from(data[i * 6]) / 100 } else { 0 };
        if let Appended::NewChunk(next) = open.append(None, i as i64, start, h).expect("valid") {
            done.push(*next);
        }
    }
    let mut decoded = Decoded::default();
    for chunk in &done {
        chunkenc::decode(chunk.encoding(), chunk.bytes(), &mut decoded).expect("our own bytes");
    }
    assert_eq!(decoded.histograms.len(), samples.len());
    for (i, (got, want)) in decoded.histograms.iter().zip(&samples).enumerate() {
        assert_eq!(got.timestamp, i as i64);
        assert_eq!(got.start_timestamp, if with_start { i64::from(data[i * 6]) / 100 } else { 0 });
        let (mut got, mut want) = ((*got.histogram.to_float()).clone(), float(want));
        got.compact(0);
        want.compact(0);
        assert!(got.equals(&want), "{got:?} is not {want:?}");
    }
}

fuzz_target!(|data: &[u8]| {
    for with_start in [false, true] {
        check::<IntegerCoder>(data, with_start, histogram, Histogram::to_float);
        check::<FloatCoder>(data, with_start, |b| histogram(b).to_float(), FloatHistogram::clone);
    }
});
