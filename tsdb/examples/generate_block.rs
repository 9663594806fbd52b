//! Writes one block of made-up but lifelike metrics, for side-by-side measurements.
//!
//! ```text
//! cargo run --release -p promontory-tsdb --example generate_block -- DIR [INSTANCES] [HOURS] [STEP_S] [END_S]
//! ```
//!
//! With the defaults (40 instances, 4 hours, every 15 s, until 1790000400) it holds 24,560 series and
//! 23.6 million samples: request counters with random increments and rare resets, CPU counters with
//! two decimals, memory gauges, and classic histogram buckets. Equal arguments give equal samples.

use std::path::PathBuf;

use promontory_tsdb::block::{BlockSpec, BlockWriter, new_ulid};
use promontory_tsdb::chunkenc::{Encoding, xor};
use promontory_tsdb::chunks::ChunkData;
use promontory_tsdb::{Clock, Labels, SystemClock, TimestampMs};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const SAMPLES_PER_CHUNK: usize = 120;
const JOBS: [&str; 5] = ["api", "web", "auth", "billing", "search"];
const MODES: [&str; 8] = ["idle", "user", "system", "iowait", "irq", "softirq", "steal", "nice"];
const KINDS: [&str; 10] =
    ["total", "free", "cached", "buffers", "slab", "active", "inactive", "dirty", "mapped", "shmem"];
const BOUNDS: [&str; 12] =
    ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"];

/// How the value of a series moves from sample to sample.
#[derive(Clone, Copy)]
enum Shape {
    /// Whole increments of `rate` a second on average; a reset once in 5,000 samples.
    Requests { rate: f64 },
    /// Increments with two decimals.
    Seconds { rate: f64 },
    /// A random walk over pages.
    Pages,
    /// Whole increments, no resets.
    Bucket { rate: f64 },
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir =
        PathBuf::from(args.next().ok_or("usage: generate_block DIR [INSTANCES] [HOURS] [STEP_S] [END_S]")?);
    let mut number = |default: f64| args.next().map_or(Ok(default), |a| a.parse::<f64>());
    let (instances, hours, step_s, end_s) =
        (number(40.0)? as usize, number(4.0)?, number(15.0)?, number(1_790_000_400.0)?);
    let step_ms = (step_s * 1000.0) as i64;
    let samples = (hours * 3_600_000.0) as i64 / step_ms;
    let end = (end_s * 1000.0) as i64;
    let start = end - samples * step_ms;

    let mut rng = SmallRng::seed_from_u64(1);
    let mut series = families(instances, &mut rng);
    series.sort_by(|a, b| a.0.cmp(&b.0));

    std::fs::create_dir_all(&dir)?;
    let ulid = new_ulid(SystemClock.now_ms(), &mut rng);
    let mut writer = BlockWriter::create(&dir, BlockSpec::new(ulid, start, end))?;
    for (labels, shape) in &series {
        let offset = rng.random_range(0..900.min(step_ms));
        let chunks = chunks(*shape, start + offset, step_ms, samples as usize, &mut rng);
        writer.add(labels, &chunks)?;
    }
    let meta = writer.finish()?;
    eprintln!("{} series, {} samples in {}", series.len(), series.len() as i64 * samples, dir.display());
    meta.map(|_| ()).ok_or_else(|| "nothing was written".into())
}

fn families(instances: usize, rng: &mut SmallRng) -> Vec<(Labels, Shape)> {
    let mut out = Vec::new();
    for i in 0..instances {
        let instance = format!("host-{i}:9100");
        for job in JOBS {
            for handler in 0..10 {
                let handler = format!("/api/v1/h{handler}");
                for method in ["GET", "POST"] {
                    for code in ["200", "404", "500"] {
                        let rate = rng.random::<f64>() * 40.0 * if code == "200" { 1.0 } else { 0.02 };
                        let labels = [
                            ("__name__", "http_requests_total"),
                            ("job", job),
                            ("instance", &instance),
                            ("handler", &handler),
                            ("method", method),
                            ("code", code),
                        ];
                        out.push((Labels::from_pairs(labels), Shape::Requests { rate }));
                    }
                }
            }
            for handler in 0..4 {
                let rate = rng.random::<f64>() * 20.0;
                let handler = format!("/api/v1/h{handler}");
                for (k, le) in BOUNDS.into_iter().enumerate() {
                    let labels = [
                        ("__name__", "request_duration_seconds_bucket"),
                        ("job", job),
                        ("instance", &instance),
                        ("handler", &handler),
                        ("le", le),
                    ];
                    let rate = rate * (k + 1) as f64 / BOUNDS.len() as f64;
                    out.push((Labels::from_pairs(labels), Shape::Bucket { rate }));
                }
            }
        }
        for cpu in 0..8 {
            let cpu = cpu.to_string();
            for mode in MODES {
                let rate = if mode == "idle" { 0.7 } else { 0.05 * rng.random::<f64>() };
                let labels = [
                    ("__name__", "node_cpu_seconds_total"),
                    ("job", "node"),
                    ("instance", &instance),
                    ("cpu", &cpu),
                    ("mode", mode),
                ];
                out.push((Labels::from_pairs(labels), Shape::Seconds { rate }));
            }
        }
        for kind in KINDS {
            let labels =
                [("__name__", "node_memory_bytes"), ("job", "node"), ("instance", &instance), ("kind", kind)];
            out.push((Labels::from_pairs(labels), Shape::Pages));
        }
    }
    out
}

fn chunks(
    shape: Shape,
    start: TimestampMs,
    step_ms: i64,
    samples: usize,
    rng: &mut SmallRng,
) -> Vec<ChunkData> {
    let step_s = step_ms as f64 / 1000.0;
    let mut value = match shape {
        Shape::Requests { .. } => f64::from(rng.random_range(0..100_000)),
        Shape::Seconds { .. } => rng.random::<f64>() * 1e6,
        Shape::Pages => rng.random::<f64>() * 1e10,
        Shape::Bucket { .. } => 0.0,
    };
    let mut next = |rng: &mut SmallRng| {
        let r = rng.random::<f64>();
        match shape {
            Shape::Requests { rate } => {
                if rng.random_bool(0.0002) {
                    value = 0.0;
                }
                value += (r * 2.0 * rate * step_s).floor();
                value
            }
            Shape::Seconds { rate } => {
                value += r * 2.0 * rate * step_s;
                (value * 100.0).round() / 100.0
            }
            Shape::Pages => {
                value = (value + (r - 0.5) * 1e7).abs();
                (value / 4096.0).floor() * 4096.0
            }
            Shape::Bucket { rate } => {
                value += (rate * step_s * (0.8 + 0.4 * r)).floor();
                value
            }
        }
    };
    let mut out = Vec::with_capacity(samples.div_ceil(SAMPLES_PER_CHUNK));
    for first in (0..samples).step_by(SAMPLES_PER_CHUNK) {
        let last = (first + SAMPLES_PER_CHUNK).min(samples) - 1;
        let at = |i: usize| start + i as i64 * step_ms;
        let mut appender = xor::Appender::new();
        for i in first..=last {
            appender.append(at(i), next(rng));
        }
        out.push(ChunkData {
            mint: at(first),
            maxt: at(last),
            encoding: Encoding::Xor,
            bytes: appender.into_bytes(),
        });
    }
    out
}
