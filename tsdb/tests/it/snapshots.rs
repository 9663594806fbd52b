//! Snapshots of the head: written at shutdown, read at start, by us and by Prometheus.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use promontory_tsdb::exemplar::Exemplar;
use promontory_tsdb::{Db, DbOptions, Labels, Matcher, SeriesRef};

use crate::peer::{Prometheus, assert_same, everything, installed, peer, without_stale};
use crate::support::{HOUR, START, append, fill, read_all, small_segments};

fn with_snapshots(dir: &Path) -> DbOptions {
    let mut options = small_segments(dir);
    options.memory_snapshot = true;
    options.exemplars_max = 100;
    options
}

fn snapshots(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries.filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with("chunk_snapshot.")).collect()
}

fn exemplar(t: i64) -> Exemplar {
    let labels = Labels::from_pairs([("trace_id", t.to_string())]);
    Exemplar { labels, value: 0.5, timestamp: t, has_timestamp: true }
}

fn add_exemplars(db: &Arc<Db>) -> Labels {
    let (series, samples) = read_all(&**db).into_iter().next().unwrap();
    let mut appender = db.appender();
    // The newest sample once more changes nothing.
    let (t, v) = *samples.last().unwrap();
    let reference = appender.append(SeriesRef::default(), &series, t, f64::from_bits(v)).unwrap();
    for t in 0..5 {
        appender.append_exemplar(reference, exemplar(START + t)).unwrap();
    }
    appender.commit().unwrap();
    series
}

fn exemplar_times(db: &Db) -> Vec<i64> {
    let all = [Matcher::eq("__name__", "m0")];
    let found = db.exemplars().select(i64::MIN, i64::MAX, &[&all]);
    found.into_iter().flat_map(|(_, list)| list.into_iter().map(|e| e.timestamp)).collect()
}

#[test]
fn a_start_from_a_snapshot_replays_only_what_came_after() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(with_snapshots(dir.path())).unwrap();
    fill(&db, START, START + HOUR);
    add_exemplars(&db);
    db.delete(&[Matcher::eq("i", "5")], START, START + HOUR / 2).unwrap();
    let before = read_all(&*db);
    let series = db.head_stats().series;
    db.close().unwrap();
    drop(db);
    assert_eq!(snapshots(dir.path()).len(), 1);

    // Twice: the second snapshot is written by a head that came from the first.
    let mut options = with_snapshots(dir.path());
    for _ in 0..2 {
        let db = Db::open(options.clone()).unwrap();
        assert_eq!((db.replay_stats().samples, db.replay_stats().records), (0, 0));
        assert_eq!((read_all(&*db), db.head_stats().series), (before.clone(), series));
        assert_eq!(exemplar_times(&db), (0..5).map(|t| START + t).collect::<Vec<_>>());
        db.close().unwrap();
    }
    assert_eq!(snapshots(dir.path()).len(), 1);

    // After a crash the snapshot is followed by the log.
    options.lockfile = false;
    let db = Db::open(options.clone()).unwrap();
    fill(&db, START + HOUR, START + HOUR + HOUR / 4);
    let before = read_all(&*db);
    std::mem::forget(db);
    let db = Db::open(options.clone()).unwrap();
    assert_eq!(read_all(&*db), before);
    let replayed = db.replay_stats();
    // Its chunks were on disk by then.
    assert!(replayed.exemplars == 5 && replayed.samples < 40 * 61, "{replayed:?}");
    db.close().unwrap();
    drop(db);

    // A damaged one is passed over.
    let file = snapshots(dir.path())[0].join("00000000");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let db = Db::open(options.clone()).unwrap();
    assert_eq!(db.replay_stats().snapshot_chunks, 0);
    assert_eq!(read_all(&*db), before);
    db.close().unwrap();
    drop(db);

    // So is one that stands for a log that is gone.
    let lost = dir.path().join("chunk_snapshot.000999.0000000000");
    promontory_tsdb::fs::replace(&snapshots(dir.path())[0], &lost).unwrap();
    let db = Db::open(options).unwrap();
    assert_eq!((db.replay_stats().snapshot_chunks, read_all(&*db)), (0, before));
}

#[test]
fn without_the_option_no_snapshot_is_written_or_read() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(with_snapshots(dir.path())).unwrap();
    fill(&db, START, START + HOUR / 10);
    let before = read_all(&*db);
    db.close().unwrap();
    drop(db);
    let db = Db::open(small_segments(dir.path())).unwrap();
    assert_eq!((db.replay_stats().snapshot_chunks, read_all(&*db)), (0, before));
    db.close().unwrap();
    drop(db);
    let db = Db::open(with_snapshots(tempfile::tempdir().unwrap().path())).unwrap();
    assert_eq!(db.replay_stats().snapshot_chunks, 0);
}

/// Our snapshot is what Prometheus starts from. Of its own, which leaves out what only the log has, nothing is lost.
#[test]
fn prometheus_starts_from_our_snapshots_and_we_pass_over_its() {
    if !installed(&peer()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(with_snapshots(dir.path())).unwrap();
    fill(&db, START, START + HOUR + HOUR / 4);
    let with_exemplars = add_exemplars(&db);
    let ours = everything(&*db);
    db.close().unwrap();
    drop(db);
    let flags = ["--enable-feature=memory-snapshot-on-shutdown,exemplar-storage"];
    let server = Prometheus::start_as(dir.path(), "2h", &flags, |_| "scrape_configs: []\n".to_owned());
    assert!(server.log().contains("chunk snapshot loaded"), "{}", server.log());
    assert_same(&server.everything(START + 2 * HOUR), &without_stale(&ours));
    assert_eq!(server.exemplars(START, START + 1000)[&with_exemplars].len(), 5);
    server.stop();
    let db = Db::open(with_snapshots(dir.path())).unwrap();
    let replayed = db.replay_stats();
    assert!(replayed.snapshot_series == 0 && replayed.samples > 0, "{replayed:?}");
    assert_eq!(snapshots(dir.path()).iter().filter(|p| p.extension().unwrap() == "unused").count(), 1);
    assert_same(&everything(&*db), &ours);
    assert_eq!(exemplar_times(&db).len(), 5);
}

/// Late samples and deletions of them: Prometheus puts our deletions in its snapshot, and does not say which late samples
/// came after them.
#[test]
fn late_samples_and_deletions_survive_a_snapshot_of_prometheus() {
    if !installed(&peer()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut options = with_snapshots(dir.path());
    options.out_of_order_window_ms = 2 * HOUR;
    let db = Db::open(options.clone()).unwrap();
    fill(&db, START, START + HOUR);
    let late = Labels::from_pairs([("__name__", "late")]);
    append(&db, &[(&late, START + HOUR, 1.0)]);
    let late_samples = |v: f64| (0..50).for_each(|i| append(&db, &[(&late, START + i * 1000, v)]));
    late_samples(2.0);
    db.delete(&[Matcher::eq("__name__", "late")], START, START + HOUR / 2).unwrap();
    late_samples(3.0);
    let ours = everything(&*db);
    assert_eq!(ours[&late].len(), 51);
    db.close().unwrap();
    drop(db);
    let flags = ["--enable-feature=memory-snapshot-on-shutdown"];
    let config =
        |_: u16| "scrape_configs: []\nstorage:\n  tsdb:\n    out_of_order_time_window: 2h\n".to_owned();
    Prometheus::start_as(dir.path(), "2h", &flags, config).stop();
    for _ in 0..3 {
        let db = Db::open(options.clone()).unwrap();
        assert_same(&everything(&*db), &ours);
        db.close().unwrap();
    }
}
