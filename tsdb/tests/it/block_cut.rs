//! Maintenance moves samples from the head to blocks, and nobody who asks can tell.

use std::sync::Arc;

use promontory_tsdb::{Db, DbOptions, Labels, Queryable, SeriesRef};

use crate::support::{append, options, read, read_all};

const MINUTE: i64 = 60_000;

fn small(dir: &std::path::Path) -> DbOptions {
    let mut options = options(dir);
    options.block_range_ms = 10 * MINUTE;
    options.wal_segment_bytes = 32 * 1024;
    options.retention_ms = None;
    // Blocks stay as they are cut.
    options.max_block_range_ms = Some(1);
    options
}

fn series(i: i64) -> Labels {
    Labels::from_pairs([("__name__", format!("m{}", i % 3)), ("i", i.to_string())])
}

/// Some series come and go: series `i` lives in minutes `[i, i + 20)`.
fn fill(db: &Arc<Db>, minutes: std::ops::Range<i64>) {
    for minute in minutes {
        for second in [0, 15, 30, 45] {
            let t = minute * MINUTE + second * 1000;
            let mut appender = db.appender();
            for i in (minute - 19).max(0)..=minute {
                appender.append(SeriesRef(0), &series(i), t, (t * i) as f64 / 7.0).unwrap();
            }
            appender.commit().unwrap();
        }
    }
}

#[test]
fn a_cut_changes_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(small(dir.path())).unwrap();
    fill(&db, 0..47);
    let before = read_all(&*db);
    let part = read(&*db, &[], 7 * MINUTE, 33 * MINUTE + 1);
    let done = db.maintain().unwrap();
    // 46:45 less 1.5 slots: blocks end at 10, 20, 30; then 16:45 are left.
    assert_eq!(done.blocks_cut.len(), 4);
    assert!(done.series_removed > 0);
    assert_eq!(read_all(&*db), before);
    assert_eq!(read(&*db, &[], 7 * MINUTE, 33 * MINUTE + 1), part);
    let blocks = db.blocks().iter().map(|b| (b.min_time / MINUTE, b.max_time / MINUTE)).collect::<Vec<_>>();
    assert_eq!(blocks, [(0, 10), (10, 20), (20, 30), (30, 40)]);
    assert_eq!(db.head_stats().min_time, Some(40 * MINUTE));
    assert_eq!(db.maintain().unwrap(), Default::default());
    let head = db.series_stats(&[], 40 * MINUTE, i64::MAX).unwrap();
    assert_eq!((db.head_stats().series, db.head_stats().chunks), (head.series, head.chunks));
}

#[test]
fn a_restart_after_a_cut_gives_the_same_answer_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = small(dir.path());
    options.lockfile = false;
    let mut minutes = 0;
    let mut checkpoints = 0;
    for _ in 0..4 {
        let db = Db::open(options.clone()).unwrap();
        fill(&db, minutes..minutes + 23);
        minutes += 23;
        let before = read_all(&*db);
        checkpoints += u32::from(db.maintain().unwrap().checkpoint.is_some());
        fill(&db, minutes..minutes + 2);
        minutes += 2;
        let after = read_all(&*db);
        assert!(before.len() < after.len());
        drop(db);
        let db = Db::open(options.clone()).unwrap();
        assert_eq!(read_all(&*db), after);
        assert_eq!(db.replay_stats().unknown_series, 0);
    }
    assert!(checkpoints >= 2);
}

#[test]
fn a_late_sample_does_not_get_below_a_block() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(small(dir.path())).unwrap();
    fill(&db, 0..20);
    let mut appender = db.appender();
    appender.append(SeriesRef(0), &series(500), 15 * MINUTE, 1.0).unwrap();
    db.maintain().unwrap();
    appender.commit().unwrap();
    let end = db.blocks().last().unwrap().max_time;
    assert_eq!(end, 10 * MINUTE);
    assert!(read_all(&*db).contains_key(&series(500)), "staged before the cut, and beyond it");
    let mut appender = db.appender();
    assert!(appender.append(SeriesRef(0), &series(501), 9 * MINUTE, 1.0).is_err());
}

#[test]
fn retention_deletes_whole_blocks_from_the_old_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = small(dir.path());
    options.retention_ms = Some(MINUTE);
    let db = Db::open(options).unwrap();
    fill(&db, 0..67);
    db.set_retention_ms(Some(20 * MINUTE));
    let done = db.maintain().unwrap();
    assert_eq!((done.blocks_cut.len(), done.blocks_deleted.len()), (6, 4));
    assert_eq!(db.time_bounds().unwrap().0, 40 * MINUTE);
    assert_eq!(
        std::fs::read_dir(dir.path())
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().len() == 26)
            .count(),
        2
    );
}

#[test]
fn retention_goes_on_when_the_log_cannot_be_cut() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = small(dir.path());
    options.retention_ms = Some(20 * MINUTE);
    let db = Db::open(options).unwrap();
    fill(&db, 0..67);
    // A gap in the sequence of segments.
    std::fs::write(dir.path().join("wal/00009999"), "").unwrap();
    let error = db.maintain().unwrap_err().to_string();
    assert!(error.contains("not sequential"), "{error}");
    assert_eq!(db.blocks().len(), 2);
    std::fs::remove_file(dir.path().join("wal/00009999")).unwrap();
    db.maintain().unwrap();
}

#[test]
fn a_snapshot_of_the_head_goes_with_the_log_that_it_stands_for() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(small(dir.path())).unwrap();
    let old = dir.path().join("chunk_snapshot.000000.0000012345");
    let new = dir.path().join("chunk_snapshot.999999.0000000000");
    std::fs::create_dir(&old).unwrap();
    std::fs::create_dir(&new).unwrap();
    fill(&db, 0..5);
    db.maintain().unwrap();
    assert!(old.exists() && new.exists());
    let rounds = [5..47, 47..90, 90..130];
    assert!(rounds.map(|r| (fill(&db, r), db.maintain().unwrap().checkpoint).1).iter().any(Option::is_some));
    assert!(!old.exists() && new.exists());
}

#[test]
fn a_damaged_block_is_left_out_and_the_others_answer() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(small(dir.path())).unwrap();
    fill(&db, 0..47);
    db.maintain().unwrap();
    db.close().unwrap();
    let victim = dir.path().join(&db.blocks()[1].ulid);
    std::fs::write(victim.join("index"), b"no index").unwrap();
    let db = Db::open(small(dir.path())).unwrap();
    assert_eq!(db.metrics().blocks_quarantined, 1);
    assert_eq!(db.blocks().len(), 3);
    assert!(victim.exists(), "nothing of it is deleted");
    assert!(read(&*db, &[], 12 * MINUTE, 18 * MINUTE).is_empty());
    assert!(!read(&*db, &[], 22 * MINUTE, 28 * MINUTE).is_empty());
}

#[test]
fn half_made_directories_are_removed_at_open() {
    let dir = tempfile::tempdir().unwrap();
    let others = ["backup.tmp", "cache.tmp-for-creation", "checkpoint.00000001.tmp", "wal/old.tmp"];
    for name in [
        "01M7ZS713CZD7QB9HW30HSZB8H.tmp",
        "01M7ZS713CZD7QB9HW30HSZB8H.tmp-for-creation",
        "01M7ZS713CZD7QB9HW30HSZB8H.tmp-for-deletion",
        "chunk_snapshot.000007.0000012345.tmp",
        "wal/checkpoint.00000007.tmp",
    ]
    .into_iter()
    .chain(others)
    {
        std::fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    let db = Db::open(small(dir.path())).unwrap();
    append(&db, &[(&series(1), 0, 1.0)]);
    let left = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut left = left.collect::<Vec<_>>();
    left.sort();
    assert_eq!(left, ["backup.tmp", "cache.tmp-for-creation", "checkpoint.00000001.tmp", "lock", "wal"]);
    assert!(!dir.path().join("wal/checkpoint.00000007.tmp").exists());
    assert!(others.iter().all(|name| dir.path().join(name).is_dir()), "not ours to remove");
}
