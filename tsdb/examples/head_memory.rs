//! Resident memory per active series (six labels, two hours at 15 s), and what a read of all of it costs.
//!
//! `cargo run --release -p promontory-tsdb --example head_memory -- [series] [scrapes]`

use futures::StreamExt as _;
use promontory_tsdb::{Db, DbOptions, Labels, Queryable, SelectHints, SeriesRef};

/// Resident bytes of this process.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|s| s.split_whitespace().nth(1)?.parse::<usize>().ok())
        .unwrap_or_default();
    pages * 4096
}

fn labels(i: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("metric_{:03}_total", i % 500)),
        ("cluster", "eu-west-1".to_owned()),
        ("code", [200, 404, 500][i % 3].to_string()),
        ("handler", format!("/api/v1/handler/{}", i % 97)),
        ("instance", format!("10.{}.{}.{}:9090", i / 65536 % 256, i / 256 % 256, i % 256)),
        ("job", format!("job-{}", i % 20)),
    ])
}

#[expect(clippy::print_stdout, reason = "printing is what the example is for")]
fn main() {
    let mut args = std::env::args().skip(1).filter_map(|a| a.parse::<usize>().ok());
    let series = args.next().unwrap_or(100_000);
    let scrapes = args.next().unwrap_or(480);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(DbOptions::new(dir.path())).expect("an empty directory opens");
    let mut refs = vec![SeriesRef(0); series];
    let before = resident();
    let start = std::time::Instant::now();
    for scrape in 0..scrapes {
        let t = scrape as i64 * 15_000;
        for (chunk, refs) in refs.chunks_mut(1000).enumerate() {
            let mut appender = db.appender();
            for (i, known) in refs.iter_mut().enumerate() {
                let i = chunk * 1000 + i;
                let set = if scrape == 0 { labels(i) } else { Labels::default() };
                // Counters with uneven increments, a third of them standing still.
                let step = if i % 3 == 0 { 0 } else { (scrape * (i % 40 + 1) + (i * scrape) % 7) as i64 };
                *known = appender.append(*known, &set, t, step as f64).expect("in order");
            }
            appender.commit().expect("the disk takes it");
        }
    }
    let samples = series * scrapes;
    let elapsed = start.elapsed();
    let bytes = resident().saturating_sub(before);
    println!("{series} series, {scrapes} samples each, {:?}", db.head_stats());
    println!("{} bytes resident per series", bytes / series);
    println!("{:.0} ns per appended sample", elapsed.as_nanos() as f64 / samples as f64);
    let start = std::time::Instant::now();
    let selection = db.select(&[], i64::MIN, i64::MAX, &SelectHints::default()).expect("the head reads");
    println!("{:.0} ns per selected series", start.elapsed().as_nanos() as f64 / series as f64);
    let start = std::time::Instant::now();
    let mut read = 0;
    for mut partition in selection.partitions {
        while let Some(batch) = futures::executor::block_on(partition.next()) {
            read += batch.expect("the head decodes").values.len();
        }
    }
    assert_eq!(read, samples);
    println!("{:.1} ns per read sample", start.elapsed().as_nanos() as f64 / samples as f64);
}
