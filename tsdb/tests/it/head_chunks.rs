//! Finished chunks leave memory for `chunks_head/`, and come back from there or from the log.

use std::path::Path;
use std::sync::Arc;

use promontory_tsdb::{Db, DbOptions, Labels};

use crate::support::{append, options, read, read_all};

const HOUR: i64 = 3_600_000;

fn series(i: usize) -> Labels {
    Labels::from_pairs([("__name__", "m".to_owned()), ("i", i.to_string())])
}

fn fill(db: &Arc<Db>, from: i64, to: i64) {
    let sets = (0..5).map(series).collect::<Vec<_>>();
    for t in (from..to).step_by(15_000) {
        let samples = sets.iter().enumerate().map(|(i, l)| (l, t, (t * i as i64) as f64 / 7.0));
        append(db, &samples.collect::<Vec<_>>());
    }
}

fn unlocked(dir: &Path) -> DbOptions {
    let mut options = options(dir);
    options.lockfile = false;
    options
}

fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("chunks_head")).map(Iterator::collect::<Vec<_>>);
    let names =
        entries.unwrap_or_default().into_iter().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names = names.collect::<Vec<_>>();
    names.sort();
    names
}

#[test]
fn chunks_on_disk_are_read_and_not_replayed_again() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(unlocked(dir.path())).unwrap();
    fill(&db, 0, 2 * HOUR);
    let expected = read_all(&*db);
    let part = read(&*db, &[], HOUR / 3, HOUR);
    let chunks = db.head_stats().chunks;
    db.maintain().unwrap();
    assert_eq!(files(dir.path()), ["000001"]);
    assert_eq!((read_all(&*db), read(&*db, &[], HOUR / 3, HOUR)), (expected.clone(), part));
    assert_eq!(db.head_stats().chunks, chunks);
    std::mem::forget(db);

    let db = Db::open(unlocked(dir.path())).unwrap();
    assert_eq!(read_all(&*db), expected);
    assert_eq!(db.head_stats().chunks, chunks);
    // Four chunks of 120 in each series, the last of them open.
    assert_eq!(db.replay_stats().samples, 5 * 120);
    fill(&db, 2 * HOUR, 3 * HOUR);
    db.maintain().unwrap();
    let expected = read_all(&*db);
    assert_eq!(expected[&series(3)].len(), 720);
    std::mem::forget(db);
    assert_eq!(read_all(&*Db::open(unlocked(dir.path())).unwrap()), expected);
}

#[test]
fn damaged_head_chunks_come_back_from_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(unlocked(dir.path())).unwrap();
    fill(&db, 0, 2 * HOUR);
    db.maintain().unwrap();
    let expected = read_all(&*db);
    std::mem::forget(db);
    let path = dir.path().join("chunks_head/000001");
    let whole = std::fs::read(&path).unwrap();
    for at in [9, 40, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, bytes).unwrap();
        let db = Db::open(unlocked(dir.path())).unwrap();
        assert!(files(dir.path()).is_empty());
        assert_eq!(read_all(&*db), expected, "byte {at}");
        assert_eq!(db.replay_stats().samples, 5 * 480);
        drop(db);
    }
}

#[test]
fn files_go_when_blocks_have_their_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(unlocked(dir.path())).unwrap();
    for hour in 0..9 {
        fill(&db, hour * HOUR, (hour + 1) * HOUR);
        db.maintain().unwrap();
    }
    let expected = read_all(&*db);
    assert_eq!(expected[&series(1)].len(), 9 * 240);
    let left = files(dir.path());
    assert!(left.len() <= 3 && left[0].as_str() > "000001", "{left:?}");
    db.close().unwrap();
    drop(db);
    let db = Db::open(unlocked(dir.path())).unwrap();
    assert_eq!(read_all(&*db), expected);
}
