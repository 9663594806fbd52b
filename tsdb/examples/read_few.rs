//! Times what an instant query reads of a block: many series, little of each.
//!
//! ```text
//! cargo run --release -p promontory-tsdb --example read_few -- BLOCK [METRIC] [ROUNDS]
//! ```
//!
//! `BLOCK` is the directory of a block, as `generate_block` makes one. Reads the series of a metric
//! (`http_requests_total`) up to the last instant: their newest sample in five minutes, all samples of
//! five minutes, labels alone, all samples of an hour, and all of the block. Prints the best of the
//! rounds (200), with the caches as the round before left them and after other memory was written, in
//! ns for each series and sample.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use promontory_tsdb::block::Block;
use promontory_tsdb::{Matcher, Needed, Queryable, SelectHints};

/// Larger than the caches of most processors.
const OTHER_MEMORY: usize = 96 << 20;
const FIVE_MINUTES_MS: i64 = 300_000;
const HOUR_MS: i64 = 3_600_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("usage: read_few BLOCK [METRIC] [ROUNDS]")?);
    let metric = args.next().unwrap_or_else(|| "http_requests_total".to_owned());
    let (label, value) = metric.split_once('=').unwrap_or(("__name__", &metric));
    let matchers = [Matcher::eq(label, value)];
    let rounds = args.next().map_or(Ok(200), |n| n.parse::<usize>())?;
    let only = args.next();
    let block = Block::open(&dir)?;
    let mut other = vec![0u64; OTHER_MEMORY / 8];
    let labels_only = SelectHints { labels_only: true, ..SelectHints::default() };
    let newest = SelectHints { needed: Needed::Newest, ..SelectHints::default() };
    let all = SelectHints::default();
    let reads = [
        ("newest", FIVE_MINUTES_MS, newest),
        ("5 minutes", FIVE_MINUTES_MS, all.clone()),
        ("labels", FIVE_MINUTES_MS, labels_only),
        ("hour", HOUR_MS, all.clone()),
        ("block", block.max_time() - block.min_time(), all),
    ];
    for (name, range, hints) in reads {
        if only.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        let mut best = [Duration::MAX; 2];
        let mut found = (0, 0);
        for round in 0..rounds {
            // A tenth is enough for the slow ones.
            let cold = round % 10 == 9;
            if cold {
                other.iter_mut().for_each(|word| *word = word.wrapping_add(1));
                black_box(&mut other);
            }
            let start = Instant::now();
            found = read(&block, &matchers, range, &hints)?;
            best[usize::from(cold)] = best[usize::from(cold)].min(start.elapsed());
        }
        let each = |n: usize| best.map(|d| d.as_nanos() as f64 / n.max(1) as f64);
        let ([warm, cold], [warm_sample, cold_sample]) = (each(found.0), each(found.1));
        eprint!("{name:10} {} series {} samples: {warm:.0} ns warm, {cold:.0} ns cold", found.0, found.1);
        if found.1 > 0 {
            eprint!("; a sample {warm_sample:.2} ns warm, {cold_sample:.2} ns cold");
        }
        eprintln!();
    }
    Ok(())
}

/// Numbers of series and samples.
fn read(
    block: &Block,
    matchers: &[Matcher],
    range_ms: i64,
    hints: &SelectHints,
) -> Result<(usize, usize), promontory_tsdb::Error> {
    let end = block.max_time() - 1;
    let (mut series, mut samples) = (0, 0);
    for mut partition in block.select(matchers, end - range_ms, end, hints)?.partitions {
        while let Some(batch) = futures::executor::block_on(partition.next()) {
            let batch = black_box(batch?);
            series += batch.len();
            samples += batch.values.len();
        }
    }
    Ok((series, samples))
}
