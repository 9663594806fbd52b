//! How fast a log is replayed: `wal_replay write DIR SERIES MINUTES` makes a log of one sample per series and
//! 15 s in batches of 1,000 series, `wal_replay open DIR` opens it and prints what that took.
//!
//! `benches/storage.py` runs it beside Prometheus.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a tool at the desk")]

use std::path::Path;
use std::time::Instant;

use promontory_tsdb::wal::{self, RefSample, Writer, record};
use promontory_tsdb::{Db, DbOptions, Labels, SeriesRef};

const BATCH: u64 = 1000;
const START: i64 = 1_700_000_000_000;

fn main() {
    let args = std::env::args().collect::<Vec<_>>();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
        ["write", dir, series, minutes] => {
            write(Path::new(dir), series.parse().unwrap(), minutes.parse().unwrap())
        }
        ["open", dir] => open(Path::new(dir)),
        _ => println!("usage: wal_replay write DIR SERIES MINUTES | wal_replay open DIR"),
    }
}

fn write(dir: &Path, series: u64, minutes: i64) {
    let dir = wal::wal_dir(dir);
    let mut writer = Writer::open(&dir, wal::DEFAULT_SEGMENT_BYTES, wal::Compression::Snappy).unwrap();
    let mut out = Vec::new();
    for first in (0..series).step_by(BATCH as usize) {
        record::begin_series(&mut out);
        for i in first..(first + BATCH).min(series) {
            let labels = Labels::from_pairs([
                ("__name__", format!("metric_{}", i % 200)),
                ("instance", format!("10.0.{}.{}:9100", i / BATCH / 250, i / BATCH % 250)),
                ("job", "node".to_owned()),
                ("cpu", (i % BATCH / 200).to_string()),
            ]);
            record::put_series(&mut out, SeriesRef(i + 1), &labels);
        }
        writer.log([out.as_slice()]).unwrap();
    }
    for scrape in 0..minutes * 4 {
        for first in (0..series).step_by(BATCH as usize) {
            // Targets are scraped one after the other, values go up by what differs from series to series.
            let t = START + scrape * 15_000 + (first / BATCH % 15_000) as i64;
            let batch = first..(first + BATCH).min(series);
            record::encode_samples(
                &mut out,
                batch.map(|i| RefSample::new(SeriesRef(i + 1), t, (scrape * (i % 37) as i64) as f64)),
            );
            writer.log([out.as_slice()]).unwrap();
        }
    }
    writer.close().unwrap();
    println!("{} bytes", writer.stats().bytes);
}

fn open(dir: &Path) {
    let start = Instant::now();
    let db = Db::open(DbOptions::new(dir)).unwrap();
    let took = start.elapsed();
    let (stats, head) = (db.replay_stats(), db.head_stats());
    println!(
        "{} series, {} samples in {:.2} s: {:.1} million samples/s",
        head.series,
        stats.samples,
        took.as_secs_f64(),
        stats.samples as f64 / took.as_secs_f64() / 1e6
    );
}
