//! Resident memory per active series (six labels, a sample each 15 s, upkeep each minute), and what a read of
//! all of it costs.
//!
//! `cargo run --release -p promontory-tsdb --example head_memory -- [series] [scrapes]`

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use promontory_tsdb::{Db, DbOptions, Labels, Queryable, SelectHints, SeriesRef};

/// Resident bytes of this process that are no file's.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm.split_whitespace().skip(1).filter_map(|w| w.parse::<usize>().ok());
    let (all, shared) = (pages.next().unwrap_or_default(), pages.next().unwrap_or_default());
    (all - shared) * 4096
}

/// As an instrumented service in Kubernetes: 170 bytes in six labels.
fn labels(i: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("http_server_request_duration_{:03}_seconds_bucket", i % 500)),
        ("cluster", "production-eu-west-1".to_owned()),
        ("handler", format!("/api/v1/projects/:id/handler-{:02}", i / 500 % 20)),
        ("instance", format!("10.{}.{}.{}:9090", i / 10_000 / 256, i / 10_000 % 256, 17)),
        ("job", format!("kubernetes-pods-{}", i % 20)),
        ("pod", format!("checkout-service-7d9c5b6f4-{:05x}", i / 10_000 * 7919)),
    ])
}

fn scrape(db: &Arc<Db>, refs: &mut [SeriesRef], scrape: usize) -> Duration {
    let start = Instant::now();
    let t = scrape as i64 * 15_000;
    for (chunk, refs) in refs.chunks_mut(1000).enumerate() {
        let mut appender = db.appender();
        for (i, known) in refs.iter_mut().enumerate() {
            let i = chunk * 1000 + i;
            let set = if scrape == 0 { labels(i) } else { Labels::default() };
            // Counters with uneven increments, a third of them standing still.
            let step =
                if i.is_multiple_of(3) { 0 } else { (scrape * (i % 40 + 1) + (i * scrape) % 7) as i64 };
            *known = appender.append(*known, &set, t, step as f64).expect("in order");
        }
        appender.commit().expect("the disk takes it");
    }
    start.elapsed()
}

#[expect(clippy::print_stdout, reason = "printing is what the example is for")]
fn report(db: &Db, before: usize, scrapes: usize) {
    let memory = db.head_memory();
    let series = memory.series;
    println!("after {scrapes} scrapes: {:?}", db.head_stats());
    println!("  {} bytes resident per series", resident().saturating_sub(before) as u64 / series);
    println!(
        "  {} bytes requested: {} series, {} labels, {} open chunks, {} waiting, {} on disk, {} tables, {} postings",
        memory.total() / series,
        memory.series_bytes / series,
        memory.label_bytes / series,
        memory.open_bytes / series,
        memory.pending_bytes / series,
        memory.mapped_bytes / series,
        memory.table_bytes / series,
        memory.postings_bytes / series,
    );
}

#[expect(clippy::print_stdout, reason = "printing is what the example is for")]
fn main() {
    let mut args = std::env::args().skip(1).filter_map(|a| a.parse::<usize>().ok());
    let series = args.next().unwrap_or(1_000_000);
    let scrapes = args.next().unwrap_or(240);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(DbOptions::new(dir.path())).expect("an empty directory opens");
    let mut refs = vec![SeriesRef(1); series];
    let before = resident();
    refs.fill(SeriesRef(0));
    let mut elapsed = Duration::ZERO;
    let mut longest_pass = Duration::ZERO;
    for i in 0..scrapes {
        let took = scrape(&db, &mut refs, i);
        elapsed += if i == 0 { Duration::ZERO } else { took };
        if i % 4 == 3 {
            let pass = Instant::now();
            db.maintain().expect("upkeep works");
            longest_pass = longest_pass.max(pass.elapsed());
        }
        if i == 4 || i + 1 == scrapes {
            report(&db, before, i + 1);
        }
    }
    let samples = series * scrapes;
    println!("{:.0} ns per appended sample", elapsed.as_nanos() as f64 / (samples - series) as f64);
    println!("longest upkeep {longest_pass:?}");
    let start = Instant::now();
    let selection = db.select(&[], i64::MIN, i64::MAX, &SelectHints::default()).expect("the head reads");
    println!("{:.0} ns per selected series", start.elapsed().as_nanos() as f64 / series as f64);
    let start = Instant::now();
    let mut read = 0;
    for mut partition in selection.partitions {
        while let Some(batch) = futures::executor::block_on(partition.next()) {
            read += batch.expect("the head decodes").values.len();
        }
    }
    assert_eq!(read, samples);
    println!("{:.1} ns per read sample", start.elapsed().as_nanos() as f64 / samples as f64);
}
