//! Writes the seeds that the targets start from: `cargo run --example seeds`.

#[path = "scratch.rs"]
mod scratch;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use promontory_tsdb::histogram::{Histogram, HistogramValue, Span};
use promontory_tsdb::{Db, DbOptions, Labels, ManualClock, SeriesRef, wal};

const MINUTE: i64 = 60_000;

fn options(dir: &Path, compression: wal::Compression) -> DbOptions {
    let mut options = DbOptions::new(dir);
    options.clock = Arc::new(ManualClock::new(4_000_000_000_000));
    options.block_range_ms = 10 * MINUTE;
    options.wal_segment_bytes = wal::PAGE_BYTES;
    options.wal_compression = compression;
    options.retention_ms = None;
    options.memory_snapshot = true;
    options
}

fn fill(db: &Arc<Db>, minutes: std::ops::Range<i64>) {
    for minute in minutes {
        let mut appender = db.appender();
        for i in 0..3 {
            let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("i", i.to_string())]);
            appender.append(SeriesRef(0), &labels, minute * MINUTE, (minute * i) as f64).expect("in order");
        }
        appender.commit().expect("the log can be written");
    }
}

/// A file without the zeros at its end.
fn read(path: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).expect("a file of the seed");
    let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
    bytes.truncate(used + 8);
    bytes
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).expect("a directory of the seed").flatten() {
            if entry.path().is_dir() {
                todo.push(entry.path());
            } else {
                out.push(entry.path());
            }
        }
    }
    out.sort();
    out
}

fn main() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (name, compression) in [("plain", wal::Compression::None), ("snappy", wal::Compression::Snappy)] {
        let dir = dir.path().join(name);
        let db = Db::open(options(&dir, compression)).expect("an empty directory");
        fill(&db, 0..30);
        db.maintain().expect("a cut");
        fill(&db, 30..35);
        db.close().expect("a sync");
        let (mut block, mut whole) = (Vec::new(), Vec::new());
        let seed = |target: &str, bytes: &[u8]| scratch::put(&corpus.join(target).join(format!("seed-{name}")), bytes);
        let mut blocks = 0;
        for path in files(&dir) {
            let bytes = read(&path);
            let file = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            match (path.strip_prefix(&dir).expect("below").to_str().unwrap_or_default(), file) {
                ("lock", _) => {}
                (p, _) if p.starts_with("wal/checkpoint") => scratch::pack(&mut whole, "wal/checkpoint.00000000/00000000", &bytes),
                (p, _) if p.starts_with("chunk_snapshot") => {
                    scratch::pack(&mut whole, "chunk_snapshot.000000.0000000000/00000000", &bytes);
                }
                (p, _) if p.starts_with("chunks_head") => {
                    seed("head_chunks", &bytes);
                    scratch::pack(&mut whole, "chunks_head/000001", &bytes);
                }
                (p, _) if p.starts_with("wal/") => {
                    seed("wal_reader", &bytes);
                    let number = if file.ends_with('0') { 1 } else { 2 };
                    scratch::pack(&mut whole, &format!("wal/{number:08}"), &bytes);
                }
                (p, _) if p.contains('/') => {
                    let target = if p.contains("chunks") { "" } else { file.trim_end_matches(".json") };
                    if !target.is_empty() {
                        seed(target, &bytes);
                    }
                    blocks += usize::from(file == "index");
                    if blocks <= 1 {
                        let inside = if target.is_empty() { "chunks/000001" } else { file };
                        scratch::pack(&mut block, &format!("01BX5ZZKBKACTAV9WEVGEMMVRZ/{inside}"), &bytes);
                    }
                }
                _ => {}
            }
        }
        seed("block", &block);
        whole.extend_from_slice(&block);
        seed("data_dir", &whole);
        let mut samples = Vec::new();
        wal::record::encode_samples(&mut samples, (0..3).map(|i| wal::RefSample::new(SeriesRef(i), 7, 1.5)));
        seed("wal_records", &samples);
    }
    let mut series = Vec::new();
    wal::record::begin_series(&mut series);
    wal::record::put_series(&mut series, SeriesRef(7), &Labels::from_pairs([("__name__", "up"), ("job", "x")]));
    scratch::put(&corpus.join("wal_records/seed-series"), &series);
    let mut tombstones = Vec::new();
    let interval = wal::RefTombstone { series: SeriesRef(7), mint: -5, maxt: 70 };
    wal::record::encode_tombstones(&mut tombstones, &[interval]);
    scratch::put(&corpus.join("wal_records/seed-tombstones"), &tombstones);
    for (name, start_timestamps) in [("histograms", false), ("histograms-st", true)] {
        for (i, bytes) in wal::record::histogram_records(&histograms(), start_timestamps).iter().enumerate() {
            scratch::put(&corpus.join(format!("wal_records/seed-{name}-{i}")), bytes);
        }
    }
}

fn histograms() -> Vec<wal::record::RefHistogramSample> {
    let span = |offset, length| Span { offset, length };
    let plain = Histogram {
        schema: 3,
        zero_threshold: 0.001,
        zero_count: 2,
        count: 9,
        sum: 18.4,
        positive_spans: vec![span(0, 2), span(1, 1)],
        positive_buckets: vec![1, 1, -1],
        negative_spans: vec![span(-2, 1)],
        negative_buckets: vec![3],
        ..Histogram::default()
    };
    let custom = Histogram {
        schema: -53,
        count: 3,
        sum: 4.0,
        positive_spans: vec![span(0, 3)],
        positive_buckets: vec![1, 0, 0],
        custom_values: vec![0.5, 1.0],
        ..Histogram::default()
    };
    let values = [&plain, &custom].map(|h| [HistogramValue::Integer(Arc::new(h.clone())), HistogramValue::Float(Arc::new(h.to_float()))]);
    let sample = |(i, value)| wal::record::RefHistogramSample { series: SeriesRef(i as u64), t: 1000, start_timestamp: 10, value };
    values.into_iter().flatten().enumerate().map(sample).collect()
}
