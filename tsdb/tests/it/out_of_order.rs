//! Samples that come late, with a window for them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use promontory_tsdb::wal::Writer;
use promontory_tsdb::wal::record::{self, RefTombstone};
use promontory_tsdb::{AppendError, Db, DbOptions, Labels, Matcher, SeriesRef};

use crate::support::{append, copy_dir, options, read, read_all};

const HOUR: i64 = 3_600_000;

fn series(i: usize) -> Labels {
    Labels::from_pairs([("__name__", "m".to_owned()), ("i", i.to_string())])
}

fn late(dir: &Path) -> DbOptions {
    let mut options = options(dir);
    options.lockfile = false;
    options.retention_ms = None;
    options.out_of_order_window_ms = 3 * HOUR;
    options
}

fn try_append(db: &Arc<Db>, t: i64, v: f64) -> Result<(), AppendError> {
    let mut appender = db.appender();
    let result = appender.append(SeriesRef(0), &series(0), t, v).map(drop);
    appender.commit().unwrap();
    result
}

#[test]
fn late_samples_are_merged_and_survive_crashes() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = BTreeMap::new();
    let mut state = 1u64;
    for round in 0..4i64 {
        let db = Db::open(late(dir.path())).unwrap();
        let shown = read_all(&*db).remove(&series(0)).unwrap_or_default();
        assert_eq!(shown, model.iter().map(|(t, v)| (*t, *v)).collect::<Vec<_>>(), "round {round}");
        assert_eq!(db.metrics().wal_corruptions, 0);
        let newest = HOUR * 2 + round * 10 * 60_000;
        append(&db, &[(&series(0), newest, -1.0)]);
        model.insert(newest, (-1f64).to_bits());
        for _ in 0..150 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let t = newest - 1 - (state >> 33) as i64 % (2 * HOUR);
            try_append(&db, t, state as f64).unwrap();
            model.entry(t).or_insert((state as f64).to_bits());
        }
        if round == 2 {
            db.maintain().unwrap();
        }
        let part = read(&*db, &[], HOUR, HOUR + HOUR / 2);
        let expected = model.range(HOUR..=HOUR + HOUR / 2).map(|(t, v)| (*t, *v)).collect::<Vec<_>>();
        assert_eq!(part[&series(0)], expected);
        // As after a kill.
        std::mem::forget(db);
    }
    let stats = Db::open(late(dir.path())).unwrap().replay_stats();
    // Most are in chunks on disk, and markers say so.
    assert!(stats.ooo_samples >= 600, "{stats:?}");
    assert!(dir.path().join("wbl/00000000").exists());
}

#[test]
fn the_window_decides_what_is_too_old() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(late(dir.path())).unwrap();
    append(&db, &[(&series(0), 10 * HOUR, 1.0)]);
    assert_eq!(try_append(&db, 7 * HOUR - 1, 1.0), Err(AppendError::TooOld));
    try_append(&db, 7 * HOUR, 1.0).unwrap();
    assert!(matches!(try_append(&db, 10 * HOUR, 2.0), Err(AppendError::Duplicate { .. })));
    db.set_out_of_order_window_ms(0).unwrap();
    assert_eq!(try_append(&db, 8 * HOUR, 1.0), Err(AppendError::OutOfBounds));
    db.set_out_of_order_window_ms(4 * HOUR).unwrap();
    try_append(&db, 6 * HOUR, 1.0).unwrap();
    assert_eq!(read_all(&*db)[&series(0)].len(), 3);
}

#[test]
fn late_samples_get_blocks_of_their_own_and_their_log_ends() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(late(dir.path())).unwrap();
    for step in 0..5 * 240 {
        let t = step * 15_000;
        let samples = (0..3).map(series).collect::<Vec<_>>();
        append(&db, &samples.iter().map(|l| (l, t, step as f64)).collect::<Vec<_>>());
        if step > 300 && step % 7 == 0 {
            append(&db, &[(&series(1), t - 2 * HOUR / 3 + 5, -1.0), (&series(9), t - HOUR, -2.0)]);
        }
    }
    let before = read_all(&*db);
    let done = db.maintain().unwrap();
    assert_eq!(read_all(&*db), before);
    // One in-order block, and one of late samples for each of three slots.
    assert_eq!(done.blocks_cut.len(), 4, "{done:?}");
    let logs = std::fs::read_dir(dir.path().join("wbl")).unwrap().count();
    assert_eq!(logs, 1);
    append(&db, &[(&series(1), 5 * HOUR - 20_000, 7.0)]);
    let before = read_all(&*db);
    std::mem::forget(db);
    let db = Db::open(late(dir.path())).unwrap();
    assert_eq!(read_all(&*db), before);
    assert_eq!(db.replay_stats().ooo_samples, 1);
}

#[test]
fn damaged_chunks_of_late_samples_come_back_from_their_log() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(late(dir.path())).unwrap();
    append(&db, &[(&series(0), 3 * HOUR, 0.0)]);
    for i in 0..100 {
        try_append(&db, 2 * HOUR + i * 37 % 100 * 1000, i as f64).unwrap();
    }
    let expected = read_all(&*db);
    assert_eq!(expected[&series(0)].len(), 101);
    std::mem::forget(db);
    let path = dir.path().join("chunks_head/000001");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    for _ in 0..2 {
        let db = Db::open(late(dir.path())).unwrap();
        assert_eq!(read_all(&*db), expected);
        std::mem::forget(db);
    }
}

/// Writes a deletion to the log of a directory that nobody uses, as Prometheus does: no late sample of the time, whenever
/// it came, is there any more, and the write-behind log does not say so.
fn delete_as_prometheus(dir: &Path, db: &Db, mint: i64, maxt: i64) {
    let options = db.options();
    let mut log = Writer::open(&dir.join("wal"), options.wal_segment_bytes, options.wal_compression).unwrap();
    let mut record = Vec::new();
    // The first series of the directory.
    record::encode_tombstones(&mut record, &[RefTombstone { series: SeriesRef(1), mint, maxt }]);
    log.log([record.as_slice()]).unwrap();
}

#[test]
fn late_samples_that_prometheus_deleted_do_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (wbl, copy) = (dir.path().join("wbl"), tempfile::tempdir().unwrap());
    let db = Db::open(late(dir.path())).unwrap();
    append(&db, &[(&series(0), 3 * HOUR, -1.0)]);
    let mut model = BTreeMap::from([(3 * HOUR, (-1f64).to_bits())]);
    for i in 0..70 {
        if i == 64 {
            copy_dir(&wbl, copy.path());
        }
        try_append(&db, 2 * HOUR + i * 1000, i as f64).unwrap();
        if i < 64 {
            model.insert(2 * HOUR + i * 1000, (i as f64).to_bits());
        }
    }
    std::mem::forget(db);
    // As if it had been killed when the second chunk was on disk, and the log did not name it yet.
    std::fs::remove_dir_all(&wbl).unwrap();
    copy_dir(copy.path(), &wbl);
    let db = Db::open(late(dir.path())).unwrap();
    assert_eq!(read_all(&*db)[&series(0)], model.clone().into_iter().collect::<Vec<_>>());
    std::mem::forget(db);

    let (mint, maxt) = (2 * HOUR + 10_000, 2 * HOUR + 50_000);
    let db = Db::open(late(dir.path())).unwrap();
    delete_as_prometheus(dir.path(), &db, mint, maxt);
    std::mem::forget(db);
    model.retain(|t, _| !(mint..=maxt).contains(t));
    for round in 0..4 {
        let db = Db::open(late(dir.path())).unwrap();
        let expected = model.clone().into_iter().collect::<Vec<_>>();
        assert_eq!(read_all(&*db)[&series(0)], expected, "start {round}");
        assert_eq!(read_all(&*read_only(dir.path()))[&series(0)], expected, "start {round}, beside it");
        // What comes after the deletion stays.
        let t = mint + round * 1000;
        try_append(&db, t, 0.5).unwrap();
        model.insert(t, 0.5f64.to_bits());
        std::mem::forget(db);
    }
}

fn read_only(dir: &Path) -> Arc<Db> {
    let mut options = late(dir);
    options.read_only = true;
    Db::open(options).unwrap()
}

/// Blocks are cut of late samples while others come: each of them is in a block or in the log, and not in both, so that
/// deleting it from the block is the end of it.
#[test]
fn late_samples_that_come_during_a_cut_are_deleted_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(late(dir.path())).unwrap();
    let stop = AtomicBool::new(false);
    let newest = AtomicI64::new(10 * HOUR);
    let in_order = Labels::from_pairs([("__name__", "in_order")]);
    append(&db, &[(&in_order, 10 * HOUR, 0.0)]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // One of each series: a second one would say in the log where the first one is.
            for i in 0.. {
                if stop.load(Ordering::Acquire) {
                    break;
                }
                // Before the head, once a block was cut from it; or it is too old still.
                let t = newest.load(Ordering::Acquire) - 5 * HOUR / 2;
                let mut appender = db.appender();
                drop(appender.append(SeriesRef(0), &series(i), t, 1.0));
                appender.commit().unwrap();
                // Some hundreds of series are enough.
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        for round in 1..6 {
            let t = 10 * HOUR + round * 2 * HOUR;
            append(&db, &[(&in_order, t, 0.0)]);
            newest.store(t, Ordering::Release);
            db.maintain().unwrap();
        }
        stop.store(true, Ordering::Release);
    });
    let late_ones = [Matcher::eq("__name__", "m")];
    let there = read(&*db, &late_ones, i64::MIN, i64::MAX).len();
    assert_eq!(db.delete(&late_ones, i64::MIN, i64::MAX).unwrap(), there as u64);
    std::mem::forget(db);
    let db = Db::open(late(dir.path())).unwrap();
    assert!(read(&*db, &late_ones, i64::MIN, i64::MAX).is_empty());
}
