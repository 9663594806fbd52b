//! Histogram chunks: time per sample to append and decode, for 60 samples of 40 buckets.
//!
//! Divide by 60 for time per sample, by 2,400 for time per bucket.

#![expect(missing_docs, reason = "made by the macro")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use promontory_tsdb::chunkenc::histogram::{ChunkAppender, Coder, FloatCoder, IntegerCoder, Iter};
use promontory_tsdb::histogram::{Histogram, Span};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

const SAMPLES: i64 = 60;
const BUCKETS: usize = 40;

/// A counter to which some tens of observations are added between scrapes, around the middle.
fn latencies() -> Vec<(i64, Histogram)> {
    let mut rng = StdRng::seed_from_u64(3);
    let mut counts = [0i64; BUCKETS];
    let mut next = |i: i64| {
        for _ in 0..rng.random_range(20..60) {
            counts[(0..4).map(|_| rng.random_range(0..BUCKETS / 4)).sum::<usize>()] += 1;
        }
        let total = counts.iter().sum::<i64>();
        let mut before = 0;
        let h = Histogram {
            schema: 3,
            zero_threshold: 2f64.powi(-128),
            count: total as u64,
            sum: total as f64 * 0.037,
            positive_spans: vec![Span { offset: -20, length: BUCKETS as u32 }],
            positive_buckets: counts.iter().map(|c| c - std::mem::replace(&mut before, *c)).collect(),
            ..Histogram::default()
        };
        (i * 15_000, h)
    };
    (0..SAMPLES).map(&mut next).collect()
}

fn append<C: Coder>(samples: &[(i64, C::Value)]) -> ChunkAppender<C> {
    let mut appender = ChunkAppender::new(false);
    for (t, h) in samples {
        drop(appender.append(None, *t, 0, h));
    }
    appender
}

fn bench<C: Coder>(c: &mut Criterion, name: &str, samples: &[(i64, C::Value)]) {
    let mut group = c.benchmark_group("histogram_chunks");
    group.throughput(Throughput::Elements(SAMPLES as u64));
    group.bench_function(format!("append/{name}"), |b| b.iter(|| append::<C>(black_box(samples))));
    let chunk = append::<C>(samples);
    assert_eq!(chunk.len(), samples.len(), "all in one chunk");
    let iter = || Iter::new(chunk.encoding(), black_box(chunk.bytes())).expect("a sound chunk");
    group.bench_function(format!("pass_over/{name}"), |b| {
        b.iter(|| {
            let mut iter = iter();
            while iter.advance().expect("a sound chunk") {}
        });
    });
    group.bench_function(format!("decode/{name}"), |b| {
        b.iter(|| {
            let mut iter = iter();
            while iter.advance().expect("a sound chunk") {
                black_box(iter.to_float());
            }
        });
    });
    group.finish();
}

fn histogram_chunks(c: &mut Criterion) {
    let samples = latencies();
    bench::<IntegerCoder>(c, "integer", &samples);
    let samples: Vec<_> = samples.into_iter().map(|(t, h)| (t, h.to_float())).collect();
    bench::<FloatCoder>(c, "float", &samples);
}

criterion_group!(benches, histogram_chunks);
criterion_main!(benches);
