//! A directory with all there is to write, after a clean stop and after `kill -9`: a real Prometheus starts with it,
//! and it, its promtool and we find the same in it.
//!
//! There are floats, native histograms, exemplars and metadata; merged blocks, blocks of late samples, tombstones in
//! blocks and in the log; a checkpoint, segments, head chunks, and late samples in head chunks and the write-behind
//! log. The peers are those of `peer.rs`; what 2.42 does not know (custom buckets, late histograms, series that
//! change their kind) is left out for it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use promontory_tsdb::chunkenc::Encoding;
use promontory_tsdb::exemplar::Exemplar;
use promontory_tsdb::histogram::{Histogram, HistogramValue};
use promontory_tsdb::metadata::{Metadata, MetricKind};
use promontory_tsdb::{BlockSummary, Db, DbOptions, Labels, Matcher, Queryable as _, SeriesRef, stale_nan};

use crate::peer::{
    Everything, Exemplars, Prometheus, analyze_agrees, assert_same, count, everything, exemplars, installed,
    is_3, peer, promtool, promtool_agrees, without_stale,
};
use crate::support::{HOUR, START, copy_dir, fill, small_segments};

const DIR: &str = "PROMONTORY_EVERYTHING_DIR";
const KINDS: &str = "PROMONTORY_EVERYTHING_KINDS";
/// A slot of blocks begins here.
const FROM: i64 = START - START % (6 * HOUR) + 6 * HOUR;
const END: i64 = FROM + 13 * HOUR;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kinds {
    /// What Prometheus 2.42 knows.
    Old,
    /// What 3.14 knows.
    All,
    /// The same, with start timestamps.
    Started,
}

impl Kinds {
    fn options(self, dir: &Path) -> DbOptions {
        let mut options = small_segments(dir);
        options.max_block_range_ms = Some(6 * HOUR);
        options.out_of_order_window_ms = 5 * HOUR;
        options.exemplars_max = 1000;
        if self == Self::Started {
            options.start_timestamps = true;
            options.float_encoding = Encoding::Xor2;
        }
        options
    }
}

fn name(name: &str) -> Labels {
    Labels::from_pairs([("__name__", name)])
}

fn integer(step: i64) -> HistogramValue {
    crate::histograms::integer(step as u64).into()
}

/// Histograms of every kind each 15 s in `[from, to)`, a stale marker among them, with an exemplar now and then.
fn fill_histograms(db: &Arc<Db>, kinds: Kinds, from: i64, to: i64) {
    for t in (from..to).step_by(15_000) {
        let step = (t - FROM) / 15_000;
        let start = if kinds == Kinds::Started { FROM - 1000 } else { 0 };
        let mut appender = db.appender();
        let mut put = |labels: &str, value: HistogramValue| {
            appender.append_histogram(SeriesRef(0), &name(labels), t, start, value).unwrap()
        };
        let stale = HistogramValue::from(Histogram { sum: stale_nan(), ..Histogram::default() });
        let series = put("integer", if step % 100 == 99 { stale } else { integer(step) });
        put("float", crate::histograms::integer(step as u64).to_float().into());
        if kinds != Kinds::Old {
            put("custom", crate::histograms::custom(step as u64).into());
            if step % 20 < 10 {
                put("mixed", integer(step));
            }
        }
        if kinds != Kinds::Old && step % 20 >= 10 {
            appender.append_with_start(SeriesRef(0), &name("mixed"), t, start, step as f64).unwrap();
        }
        if step % 40 == 7 {
            let labels = Labels::from_pairs([("trace_id", format!("{step:x}"))]);
            let exemplar =
                Exemplar { labels, value: step as f64 / 8.0, timestamp: t - 3, has_timestamp: true };
            appender.append_exemplar(series, exemplar).unwrap();
        }
        if step == 0 {
            let metadata =
                Metadata { kind: MetricKind::Histogram, unit: "seconds".into(), help: "Time.".into() };
            appender.set_metadata(series, metadata).unwrap();
        }
        appender.commit().unwrap();
    }
}

/// Samples that are late by some hours, of series that have others and of one that has none.
fn fill_late(db: &Arc<Db>, kinds: Kinds, from: i64, to: i64) {
    for t in (from..to).step_by(60_000) {
        let mut appender = db.appender();
        appender.append(SeriesRef(0), &name("late"), t + 7, t as f64).unwrap();
        let known = Labels::from_pairs([("__name__", "m1"), ("i", "9"), ("q", "a\"b\\c\nd é")]);
        appender.append(SeriesRef(0), &known, t + 11, -1.0).unwrap();
        if kinds != Kinds::Old {
            let value = crate::histograms::custom((t / 60_000 % 1000) as u64).into();
            appender.append_histogram(SeriesRef(0), &name("custom"), t + 5, 0, value).unwrap();
        }
        appender.commit().unwrap();
    }
}

/// Writes all of it. Late samples of the head come last, after `before_late`.
fn write_everything(dir: &Path, kinds: Kinds, before_late: impl FnOnce(&Db)) -> Arc<Db> {
    let db = Db::open(kinds.options(dir)).unwrap();
    for half in 0..26 {
        let (from, to) = (FROM + half * HOUR / 2, FROM + (half + 1) * HOUR / 2);
        fill(&db, from, to);
        fill_histograms(&db, kinds, from, to);
        if half == 15 {
            fill_late(&db, kinds, from - 4 * HOUR, from - HOUR);
        }
        db.maintain().unwrap();
    }
    let delete = |series: &str, from: i64, to: i64| {
        assert!(db.delete(&[Matcher::eq("i", series)], from, to).unwrap() > 0);
    };
    // In a block, across blocks and head, and at the end of the head.
    delete("5", FROM + HOUR, FROM + 2 * HOUR);
    delete("6", FROM + 10 * HOUR, END - HOUR / 2);
    delete("7", END - 60_000, END + HOUR);
    fill_histograms(&db, kinds, END, END + HOUR / 4);
    before_late(&db);
    fill_late(&db, kinds, END - 2 * HOUR, END - HOUR);
    // Full chunks go to disk, and what is open stays in the log.
    db.maintain().unwrap();
    fill_late(&db, kinds, END - HOUR, END - HOUR / 2);
    db
}

/// That nothing which is meant to be there is missing.
fn assert_all_there(db: &Db) {
    let dir = &db.options().path;
    let files = |of: &str| std::fs::read_dir(dir.join(of)).unwrap().flatten().collect::<Vec<_>>();
    assert!(db.blocks().iter().any(|b| b.level > 2), "{:?}", db.blocks());
    let meta = |b: &BlockSummary| std::fs::read_to_string(dir.join(&b.ulid).join("meta.json")).unwrap();
    assert!(db.blocks().iter().any(|b| meta(b).contains("\"numTombstones\"")));
    assert!(db.metrics().vertical_compactions > 0, "{:?}", db.metrics());
    assert!(files("wal").iter().any(|e| e.file_name().to_string_lossy().starts_with("checkpoint.")));
    assert!(files("chunks_head").iter().any(|e| e.metadata().unwrap().len() > 100));
    assert!(files("wbl").iter().any(|e| e.metadata().unwrap().len() > 100));
}

/// The process that is killed: writes all of it, and then appends on.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let kinds = if std::env::var_os(KINDS).is_some_and(|k| k == "Old") { Kinds::Old } else { Kinds::All };
    let db = write_everything(&dir, kinds, |_| {});
    assert_all_there(&db);
    let mut t = END + HOUR / 4;
    loop {
        fill_histograms(&db, kinds, t, t + 60_000);
        fill_late(&db, kinds, t - HOUR, t - HOUR + 60_000);
        t += 60_000;
        writeln!(std::io::stdout(), "\nwritten {t}").unwrap();
    }
}

/// Lets a child write all of it into `dir`, and kills it while it goes on.
fn write_and_kill(dir: &Path, kinds: Kinds) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "prometheus_reads_everything::child"])
        .env(DIR, dir)
        .env(KINDS, format!("{kinds:?}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let written = lines.map_while(Result::ok).filter(|l| l.starts_with("written ")).take(3).count();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(written, 3);
}

/// What is in `dir`, without touching it.
fn look(dir: &Path, kinds: Kinds) -> (Everything, Exemplars) {
    let mut options = kinds.options(dir);
    options.read_only = true;
    let db = Db::open(options).unwrap();
    (everything(&*db), exemplars(&db))
}

/// Promtool, a server and then we find the same in a copy of `dir`. Which late samples its promtool shows is up
/// to the version.
fn peers_agree(dir: &Path, kinds: Kinds) {
    let (ours, exemplars) = look(dir, kinds);
    println!("{kinds:?}: {} samples, {} with exemplars", count(&ours), exemplars.len());
    assert!(!exemplars.is_empty() && count(&ours) > 100_000);
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir, copy.path());
    if is_3(&promtool()) {
        promtool_agrees(copy.path(), &ours);
    }
    let mut flags = vec!["--enable-feature=exemplar-storage", "--storage.tsdb.allow-overlapping-blocks"];
    if is_3(&peer()) {
        flags.pop();
    } else {
        flags.push("--enable-feature=native-histograms");
    }
    let config = "storage: {tsdb: {out_of_order_time_window: 5h}, exemplars: {max_exemplars: 1000}}\n";
    let server = Prometheus::start_as(copy.path(), "2h", &flags, |_| config.to_owned());
    let (mut served, expected) = (server.everything(END + 3 * HOUR), without_stale(&ours));
    if kinds == Kinds::Old {
        // A range selector of 2.42 gives the last histogram for each; its range queries are right.
        for metric in ["integer", "float"] {
            let (first, last) = (FROM, expected[&name(metric)].last().unwrap().0);
            served.extend(server.histograms_by_step(metric, first, last, 15_000));
        }
    }
    assert_same(&served, &expected);
    assert_eq!(server.exemplars(FROM, END + 3 * HOUR), exemplars);
    for metric in ["prometheus_tsdb_mmap_chunk_corruptions_total", "prometheus_tsdb_wal_corruptions_total"] {
        assert_eq!(server.metric(metric), Some(0.0), "{metric}");
    }
    server.stop();
    let db = Db::open(kinds.options(copy.path())).unwrap();
    assert_same(&everything(&*db), &ours);
    assert_eq!(db.metrics().wal_corruptions, 0);
    analyze_agrees(&db);
}

fn kinds() -> Option<Vec<Kinds>> {
    let there = installed(&peer()) && installed(&promtool());
    let kinds = there.then(|| match is_3(&peer()) {
        true => vec![Kinds::Old, Kinds::All, Kinds::Started],
        false => vec![Kinds::Old],
    });
    println!("{} knows {kinds:?}", peer());
    kinds
}

#[test]
fn peers_find_all_of_it_after_a_clean_stop() {
    let Some(kinds) = kinds() else { return };
    for kinds in kinds {
        let dir = tempfile::tempdir().unwrap();
        let db = write_everything(dir.path(), kinds, |db| {
            let mut ours = everything(db);
            // Promtool 2.42 shows no histograms, and no late samples of the head.
            ours.retain(|_, samples| is_3(&promtool()) || !samples[0].1.contains('{'));
            promtool_agrees(dir.path(), &ours);
        });
        assert_all_there(&db);
        let before = everything(&*db);
        db.close().unwrap();
        assert_same(&look(dir.path(), kinds).0, &before);
        peers_agree(dir.path(), kinds);
    }
}

#[test]
fn peers_find_all_of_it_after_a_kill() {
    let Some(kinds) = kinds() else { return };
    let kinds = if kinds.len() > 1 { Kinds::All } else { Kinds::Old };
    let dir = tempfile::tempdir().unwrap();
    write_and_kill(dir.path(), kinds);
    peers_agree(dir.path(), kinds);
}
