//! Blocks are merged, rewritten, deleted and linked without a sample lost or come back.

use std::sync::Arc;

use promontory_tsdb::{Db, DbOptions, Labels, Matcher, Queryable, Retention, SeriesRef};

use crate::peer::{analyze_agrees, everything, installed, promtool, promtool_agrees, run_promtool};
use crate::support::{Contents, append, options, read_all};

const MINUTE: i64 = 60_000;

/// Blocks of ten minutes, merged into 30 and 90 minutes.
fn small(dir: &std::path::Path) -> DbOptions {
    let mut options = options(dir);
    options.block_range_ms = 10 * MINUTE;
    options.max_block_range_ms = Some(90 * MINUTE);
    options.retention_ms = None;
    options
}

fn labels(i: i64) -> Labels {
    Labels::from_pairs([("__name__", format!("m{}", i % 3)), ("i", format!("{i:03}"))])
}

/// One sample of each of 20 series every 10 s; each series pauses now and then.
fn fill(db: &Arc<Db>, minutes: std::ops::Range<i64>) {
    let mut known = [SeriesRef(0); 20];
    for minute in minutes {
        for t in (minute * MINUTE..(minute + 1) * MINUTE).step_by(10_000) {
            let mut appender = db.appender();
            for (i, known) in (0i64..).zip(&mut known) {
                if (minute + i) % 37 != 0 {
                    let v = (t / 1000 * (i + 1)) as f64 / 8.0;
                    *known = appender.append(*known, &labels(i), t, v).unwrap();
                }
            }
            appender.commit().unwrap();
        }
        if minute % 20 == 0 {
            db.maintain().unwrap();
        }
    }
}

fn spans(db: &Db) -> Vec<(i64, i64, u32)> {
    db.blocks().iter().map(|b| (b.min_time / MINUTE, b.max_time / MINUTE, b.level)).collect()
}

#[test]
fn blocks_grow_level_by_level_and_keep_every_sample() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(small(dir.path())).unwrap();
    fill(&db, 0..215);
    let before = read_all(&*db);
    db.maintain().unwrap();
    let spans = spans(&db);
    assert_eq!(spans[..2], [(0, 90, 3), (90, 180, 3)], "{spans:?}");
    assert!(spans[2..].iter().all(|(from, to, level)| to - from == 10 && *level == 1), "{spans:?}");
    assert_eq!(read_all(&*db), before);
    let directories = std::fs::read_dir(dir.path()).unwrap().flatten();
    let blocks = directories.filter(|e| e.file_name().len() == 26).count();
    assert_eq!(blocks, spans.len(), "merged blocks are deleted");
    let metrics = db.metrics();
    assert!(metrics.compactions >= 20 && metrics.compactions_failed == 0, "{metrics:?}");
    drop(db);
    assert_eq!(read_all(&*Db::open(small(dir.path())).unwrap()), before);
}

#[test]
fn promtool_counts_and_dumps_merged_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(small(dir.path())).unwrap();
    fill(&db, 0..215);
    db.maintain().unwrap();
    db.close().unwrap();
    if !installed(&promtool()) {
        return;
    }
    let list = run_promtool(&["tsdb", "list"], dir.path(), &[]);
    for block in db.blocks() {
        let row = list.lines().find(|l| l.starts_with(&block.ulid)).unwrap();
        let cells: Vec<&str> = row.split_whitespace().collect();
        for number in [block.min_time, block.max_time, block.samples as i64, block.chunks as i64] {
            assert!(cells.contains(&number.to_string().as_str()), "{number} in {row}");
        }
    }
    analyze_agrees(&db);
    promtool_agrees(dir.path(), &everything(&*db));
}

/// `contents` without samples of series `i` in `[mint, maxt]`.
fn without(mut contents: Contents, i: &str, mint: i64, maxt: i64) -> Contents {
    for (labels, samples) in &mut contents {
        if labels.get("i") == Some(i) {
            samples.retain(|(t, _)| *t < mint || maxt < *t);
        }
    }
    contents.retain(|_, samples| !samples.is_empty());
    contents
}

#[test]
fn deleted_samples_stay_away_from_blocks_and_head() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(small(dir.path())).unwrap();
    fill(&db, 0..75);
    db.maintain().unwrap();
    let newest = db.head_stats().max_time.unwrap();
    let mut expected = read_all(&*db);
    for (i, mint, maxt) in [("004", 5 * MINUTE, 200 * MINUTE), ("007", i64::MIN, i64::MAX), ("008", 1, 2)] {
        let series = db.delete(&[Matcher::eq("i", i)], mint, maxt).unwrap();
        assert_eq!(series > 0, i != "008" || series > 0);
        expected = without(expected, i, mint, maxt);
        assert_eq!(read_all(&*db), expected, "after deleting {i}");
    }
    // What comes after a deletion that reaches into the future stays.
    append(&db, &[(&labels(4), newest + 1, 1.0), (&labels(7), newest + 1, 2.0)]);
    let with_new = read_all(&*db);
    let samples = |c: &Contents| c.values().map(Vec::len).sum::<usize>();
    assert_eq!(samples(&with_new), samples(&expected) + 2);
    db.close().unwrap();
    drop(db);
    let db = Db::open(small(dir.path())).unwrap();
    assert_eq!(read_all(&*db), with_new, "after a restart");

    let tombstones = |db: &Db| {
        std::fs::read_dir(db.options().path.clone())
            .unwrap()
            .flatten()
            .filter(|e| std::fs::metadata(e.path().join("tombstones")).is_ok_and(|m| m.len() > 9))
            .count()
    };
    assert!(tombstones(&db) > 0);
    let blocks = db.blocks().len();
    assert!(!db.clean_tombstones().unwrap().is_empty());
    assert_eq!((tombstones(&db), db.blocks().len()), (0, blocks));
    assert_eq!(read_all(&*db), with_new, "after cleaning");
    assert_eq!(db.clean_tombstones().unwrap(), Vec::<String>::new());

    // A block of which nothing is left goes.
    let oldest = db.blocks()[0].clone();
    db.delete(&[], oldest.min_time, oldest.max_time - 1).unwrap();
    db.clean_tombstones().unwrap();
    assert_eq!(db.blocks().len(), blocks - 1);
}

#[test]
fn a_snapshot_is_a_data_directory_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(small(dir.path())).unwrap();
    fill(&db, 0..47);
    db.delete(&[Matcher::eq("i", "003")], 0, 12 * MINUTE).unwrap();
    let all = read_all(&*db);
    let (whole, blocks_only) = (dir.path().join("snapshots/a"), dir.path().join("snapshots/b"));
    db.snapshot(&whole, true).unwrap();
    db.snapshot(&blocks_only, false).unwrap();
    assert!(db.snapshot(dir.path(), true).is_err());
    let head_min = db.head_stats().min_time.unwrap();
    // The original may go on and lose what the copy keeps.
    db.delete(&[], i64::MIN, i64::MAX).unwrap();
    db.clean_tombstones().unwrap();
    let copy = Db::open(small(&whole)).unwrap();
    assert_eq!(read_all(&*copy), all);
    let last = copy.blocks().last().unwrap().clone();
    assert_eq!(last.max_time, all.values().map(|s| s.last().unwrap().0).max().unwrap() + 1);
    let in_blocks = read_all(&*Db::open(small(&blocks_only)).unwrap());
    assert!(in_blocks.values().flatten().all(|(t, _)| *t < head_min));
    assert!(!in_blocks.is_empty());
}

#[test]
fn the_oldest_blocks_go_when_all_take_too_much() {
    let dir = tempfile::tempdir().unwrap();
    let mut small = small(dir.path());
    // Not to be merged.
    small.max_block_range_ms = Some(1);
    let db = Db::open(small).unwrap();
    fill(&db, 0..85);
    db.maintain().unwrap();
    let blocks = db.blocks();
    assert!(blocks.len() >= 6);
    let all = db.metrics();
    let limit = |bytes| Retention { bytes: Some(bytes), ..Retention::default() };
    db.set_retention(limit(all.blocks_bytes + all.wal_storage_bytes + 100_000));
    assert_eq!(db.maintain().unwrap().blocks_deleted, Vec::<String>::new());
    db.set_retention(limit(all.blocks_bytes + all.wal_storage_bytes - blocks[0].bytes - 1));
    let deleted = db.maintain().unwrap().blocks_deleted;
    assert!(deleted.contains(&blocks[0].ulid) && deleted.len() < 4, "{deleted:?}");
    assert_eq!(db.metrics().size_retentions, 1);
    db.set_retention(Retention { percentage: Some(1e-12), bytes: Some(u64::MAX), ..Retention::default() });
    db.maintain().unwrap();
    assert_eq!(db.blocks(), [], "the percentage comes before the bytes");
}

#[test]
fn a_merge_that_fails_leaves_its_parents_alone_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut one_level = small(dir.path());
    one_level.max_block_range_ms = Some(1);
    let db = Db::open(one_level).unwrap();
    fill(&db, 0..65);
    db.maintain().unwrap();
    let blocks = db.blocks();
    db.close().unwrap();
    drop(db);
    // A bit of the second block flips: it opens, but its chunks cannot all be read.
    let segment = dir.path().join(&blocks[1].ulid).join("chunks/000001");
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let db = Db::open(small(dir.path())).unwrap();
    assert!(db.maintain().is_err());
    assert_eq!(db.metrics().compactions_failed, 1);
    assert_eq!(
        db.blocks().iter().map(|b| &b.ulid).collect::<Vec<_>>(),
        blocks.iter().map(|b| &b.ulid).collect::<Vec<_>>()
    );
    let meta = std::fs::read_to_string(dir.path().join(&blocks[1].ulid).join("meta.json")).unwrap();
    assert!(meta.contains("\"failed\": true"), "{meta}");
    // The next pass merges what it can, and does not try again.
    db.maintain().unwrap();
    assert_eq!(db.metrics().compactions_failed, 1);
    assert!(
        std::fs::read_dir(dir.path())
            .unwrap()
            .flatten()
            .all(|e| !e.file_name().to_string_lossy().contains("tmp"))
    );
}
