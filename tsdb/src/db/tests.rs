//! What a crash leaves between any two steps of maintenance opens to the same answers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use futures::StreamExt as _;
use tempfile::TempDir;

use super::{Db, DbOptions};
use crate::wal::{self, Compression, RefSample, Writer, record, segment};
use crate::{Labels, ManualClock, Queryable, SelectHints, SeriesRef};

const MINUTE: i64 = 60_000;

type Contents = BTreeMap<Labels, Vec<(i64, u64)>>;

fn options(dir: &Path) -> DbOptions {
    let mut options = DbOptions::new(dir);
    options.clock = Arc::new(ManualClock::new(4_000_000_000_000));
    options.block_range_ms = 10 * MINUTE;
    options.wal_segment_bytes = wal::PAGE_BYTES;
    options.wal_compression = Compression::None;
    options.retention_ms = None;
    options
}

/// Series come and go: series `i` lives in minutes `[i, i + 30)`.
fn fill(db: &Arc<Db>, minutes: std::ops::Range<i64>) {
    for minute in minutes {
        for second in (0..60).step_by(5) {
            let t = minute * MINUTE + second * 1000;
            let mut appender = db.appender();
            for i in (minute - 29).max(0)..=minute {
                let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("i", i.to_string())]);
                appender.append(SeriesRef(0), &labels, t, (t * i) as f64 / 7.0).unwrap();
            }
            appender.commit().unwrap();
        }
    }
}

/// Everything, where times must ascend: a sample that came twice would be seen.
fn read_all(db: &Db) -> Contents {
    let mut out = Contents::new();
    let selection = db.select(&[], i64::MIN, i64::MAX, &SelectHints::default()).unwrap();
    for mut partition in selection.partitions {
        while let Some(batch) = futures::executor::block_on(partition.next()) {
            let batch = batch.unwrap();
            for i in 0..batch.len() {
                let (labels, times, values) = batch.series(i);
                assert!(times.windows(2).all(|w| w[0] < w[1]), "{labels} is not ascending");
                let samples = times.iter().copied().zip(values.iter().map(|v| v.to_bits())).collect();
                assert!(out.insert(labels.clone(), samples).is_none(), "{labels} twice");
            }
        }
    }
    out
}

/// Samples in blocks and head, each where it is stored.
fn stored(db: &Db) -> u64 {
    let head = db.head.series_stats(&[], i64::MIN, i64::MAX).unwrap();
    db.blocks().iter().map(|b| b.samples).sum::<u64>() + head.samples
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, target) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// Runs `operation` and gives a copy of `dir` as it was before, at each of its steps, and after.
fn images_of(dir: &Path, operation: impl FnOnce()) -> Vec<TempDir> {
    let images = Rc::new(RefCell::new(Vec::new()));
    let take = {
        let (images, dir) = (Rc::clone(&images), dir.to_path_buf());
        move || {
            let image = tempfile::tempdir().unwrap();
            copy(&dir, image.path());
            images.borrow_mut().push(image);
        }
    };
    take();
    crate::fs::at_steps(Some(Box::new(take.clone())));
    operation();
    crate::fs::at_steps(None);
    take();
    drop(take);
    Rc::into_inner(images).unwrap().into_inner()
}

fn covered_segments(image: &Path) -> usize {
    let dir = wal::wal_dir(image);
    let Some((_, last)) = segment::last_checkpoint(&dir).unwrap() else { return 0 };
    segment::list(&dir).unwrap().iter().filter(|n| **n <= last).count()
}

#[test]
fn every_step_of_maintenance_leaves_all_samples_once() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(options(dir.path())).unwrap();
    fill(&db, 0..50);
    // So that there is a checkpoint to replace.
    assert!(db.maintain().unwrap().checkpoint.is_some());
    fill(&db, 50..85);
    let before = read_all(&db);
    let samples = stored(&db);
    let head_before = db.head_stats().min_time;
    let images = images_of(dir.path(), || {
        let done = db.maintain().unwrap();
        assert!(
            done.blocks_cut.len() >= 2 && done.checkpoint.is_some() && done.series_removed > 0,
            "{done:?}"
        );
    });
    assert_eq!(read_all(&db), before);
    let (mut block_but_whole_log, mut checkpoint_and_segments) = (0, 0);
    for (i, image) in images.iter().enumerate() {
        let mut read_only = options(image.path());
        read_only.read_only = true;
        let beside = Db::open(read_only).unwrap();
        assert!(read_all(&beside) == before, "image {i}, only reading");
        checkpoint_and_segments += usize::from(covered_segments(image.path()) > 0);
        let opened = Db::open(options(image.path())).unwrap();
        assert_eq!(opened.replay_stats().unknown_series, 0, "image {i}");
        assert_eq!(opened.metrics().wal_corruptions, 0, "image {i}");
        assert!(read_all(&opened) == before, "image {i}");
        assert_eq!(stored(&opened), samples, "image {i}");
        block_but_whole_log +=
            usize::from(opened.replay_stats().too_old > 0 && opened.head_stats().min_time > head_before);
        // It goes on where the crash was.
        opened.maintain().unwrap();
        assert!(read_all(&opened) == before, "image {i}, maintained");
        assert_eq!(stored(&opened), samples, "image {i}, maintained");
        opened.close().unwrap();
        let again = Db::open(options(image.path())).unwrap();
        assert!(read_all(&again) == before, "image {i}, maintained and opened again");
    }
    println!(
        "{} images: {block_but_whole_log} with a block that the log repeats, {checkpoint_and_segments} with segments that the checkpoint repeats",
        images.len()
    );
    assert!(block_but_whole_log > 0 && checkpoint_and_segments > 0);
}

/// Blocks of out-of-order samples and the write-behind log they come from.
#[test]
fn every_step_of_maintenance_keeps_out_of_order_samples() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(options(dir.path())).unwrap();
    fill(&db, 30..45);
    db.close().unwrap();
    drop(db);
    let mut writer = Writer::open(&wal::wbl_dir(dir.path()), wal::PAGE_BYTES, Compression::Snappy).unwrap();
    for minute in [3, 13, 33, 41] {
        let mut samples = Vec::new();
        let late = (1..5).map(|i| RefSample::new(SeriesRef(i), minute * MINUTE + 5, i as f64));
        record::encode_samples(&mut samples, late);
        writer.log([samples.as_slice()]).unwrap();
    }
    writer.close().unwrap();
    let db = Db::open(options(dir.path())).unwrap();
    assert_eq!(db.replay_stats().ooo_samples, 16);
    fill(&db, 45..50);
    let before = read_all(&db);
    let images = images_of(dir.path(), || {
        assert!(db.maintain().unwrap().blocks_cut.len() >= 3);
    });
    assert_eq!(read_all(&db), before);
    for (i, image) in images.iter().enumerate() {
        let opened = Db::open(options(image.path())).unwrap();
        assert!(read_all(&opened) == before, "image {i}");
        opened.maintain().unwrap();
        assert!(read_all(&opened) == before, "image {i}, maintained");
    }
}

/// A block is there or gone, never in between.
#[test]
fn every_step_of_retention_leaves_whole_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(options(dir.path())).unwrap();
    fill(&db, 0..40);
    db.maintain().unwrap();
    let before = read_all(&db);
    db.close().unwrap();
    drop(db);
    let mut options_short = options(dir.path());
    options_short.retention_ms = Some(10 * MINUTE);
    let db = Db::open(options_short).unwrap();
    let mut starts = db.blocks().iter().map(|b| b.min_time).collect::<Vec<_>>();
    starts.push(i64::MAX);
    let images = images_of(dir.path(), || assert!(db.maintain().unwrap().blocks_deleted.len() >= 2));
    let mut seen = std::collections::BTreeSet::new();
    for image in &images {
        let found = read_all(&Db::open(options(image.path())).unwrap());
        let oldest = found.values().map(|s| s[0].0).min().unwrap();
        assert!(starts.contains(&oldest), "{oldest} is not the start of a block");
        let mut expected = before.clone();
        expected.values_mut().for_each(|s| s.retain(|s| s.0 >= oldest));
        expected.retain(|_, s| !s.is_empty());
        assert!(found == expected);
        seen.insert(oldest);
    }
    assert!(seen.len() >= 3, "{seen:?}");
}
