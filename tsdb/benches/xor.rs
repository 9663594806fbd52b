//! XOR and XOR2 chunks: time per sample to encode and decode, for a chunk of 120 samples.
//!
//! Criterion prints time for a whole chunk and samples per second; divide by 120 for ns per sample (by 120,000 for a
//! thousand chunks).

#![expect(missing_docs, reason = "made by the macro")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use promontory_tsdb::Sample;
use promontory_tsdb::chunkenc::{xor, xor2};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

const SAMPLES: i64 = 120;
const MANY: u64 = 1000;

/// A gauge with few different values at exact 15 s.
fn regular_gauge() -> Vec<Sample> {
    (0..SAMPLES).map(|i| Sample { t: i * 15_000, v: (i / 7 % 5) as f64 }).collect()
}

/// A counter that grows by a random whole number, scraped with a few ms of jitter.
fn random_counter(seed: u64) -> Vec<Sample> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut v = 100_000.0;
    let mut next = |i: i64| {
        v += f64::from(rng.random_range(0..1000u32));
        Sample { t: i * 15_000 + rng.random_range(0..4i64), v }
    };
    (0..SAMPLES).map(&mut next).collect()
}

/// Random bits in every mantissa.
fn random_floats() -> Vec<Sample> {
    let mut rng = StdRng::seed_from_u64(2);
    (0..SAMPLES).map(|i| Sample { t: i * 15_000, v: rng.random::<f64>() }).collect()
}

fn xor_chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("xor");
    group.throughput(Throughput::Elements(SAMPLES as u64));
    for (name, samples) in [
        ("regular_gauge", regular_gauge()),
        ("random_counter", random_counter(1)),
        ("random_floats", random_floats()),
    ] {
        group.bench_function(format!("encode/{name}"), |b| {
            b.iter(|| xor::encode(black_box(&samples).iter().copied()));
        });
        let chunk = xor::encode(samples);
        let (mut timestamps, mut values) = (Vec::new(), Vec::new());
        group.bench_function(format!("decode/{name}"), |b| {
            b.iter(|| {
                timestamps.clear();
                values.clear();
                xor::decode_into(black_box(&chunk), &mut timestamps, &mut values)
            });
        });
        group.bench_function(format!("iterate/{name}"), |b| {
            b.iter(|| {
                xor::Iter::new(black_box(&chunk)).into_iter().flatten().flatten().map(|s| s.v).sum::<f64>()
            });
        });
    }
    // So many that no branch is learnt by heart: what a query meets.
    let chunks: Vec<_> = (0..MANY).map(|seed| xor::encode(random_counter(seed))).collect();
    group.throughput(Throughput::Elements(MANY * SAMPLES as u64));
    group.bench_function("decode/1000_random_counters", |b| {
        let (mut timestamps, mut values) = (Vec::new(), Vec::new());
        b.iter(|| {
            for chunk in &chunks {
                timestamps.clear();
                values.clear();
                black_box(xor::decode_into(black_box(chunk), &mut timestamps, &mut values).is_ok());
            }
        });
    });
    // Series of eight chunks, decoded together.
    for (name, chunks) in [
        ("1000_random_counters", chunks),
        ("1000_regular_gauges", (0..MANY).map(|_| xor::encode(regular_gauge())).collect()),
        ("1000_random_floats", (0..MANY).map(|_| xor::encode(random_floats())).collect()),
    ] {
        let chunks: Vec<&[u8]> = chunks.iter().map(|chunk| &chunk[..]).collect();
        group.bench_function(format!("decode_many/{name}"), |b| {
            let (mut timestamps, mut values) = (Vec::new(), Vec::new());
            b.iter(|| {
                for series in chunks.chunks(8) {
                    timestamps.clear();
                    values.clear();
                    black_box(xor::decode_many_into(black_box(series), &mut timestamps, &mut values).is_ok());
                }
            });
        });
    }
    group.finish();
}

fn xor2_chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("xor2");
    group.throughput(Throughput::Elements(SAMPLES as u64));
    for (name, samples) in [
        ("regular_gauge", regular_gauge()),
        ("random_counter", random_counter(1)),
        ("random_floats", random_floats()),
    ] {
        group.bench_function(format!("encode/{name}"), |b| {
            b.iter(|| xor2::encode(black_box(&samples).iter().copied()));
        });
        let chunk = xor2::encode(samples.iter().copied());
        let (mut timestamps, mut values, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        group.bench_function(format!("decode/{name}"), |b| {
            b.iter(|| {
                timestamps.clear();
                values.clear();
                xor2::decode_into(black_box(&chunk), &mut timestamps, &mut values)
            });
        });
        let mut appender = xor2::Appender::new();
        for s in samples {
            appender.append(s.t - 15_000, s.t, s.v);
        }
        let chunk = appender.into_bytes();
        group.bench_function(format!("decode_with_start/{name}"), |b| {
            b.iter(|| {
                timestamps.clear();
                values.clear();
                starts.clear();
                xor2::decode_with_start_into(black_box(&chunk), &mut timestamps, &mut values, &mut starts)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, xor_chunks, xor2_chunks);
criterion_main!(benches);
