//! Samples that come late, with a window for them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use promontory_tsdb::chunkenc::{Encoding, xor};
use promontory_tsdb::head_chunks::{HeadChunkRef, HeadChunks, NewChunk};
use promontory_tsdb::wal::record::{self, RefMmapMarker, RefTombstone};
use promontory_tsdb::wal::{RefSample, Writer};
use promontory_tsdb::{AppendError, Db, DbOptions, Labels, Matcher, Sample, SeriesRef};

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

/// What Prometheus does to late samples in a directory of ours that nobody uses: it passes over our deletions.
struct Foreign {
    chunks: HeadChunks,
    log: Writer,
}

impl Foreign {
    fn open(dir: &Path) -> Self {
        let options = late(dir);
        let (chunks, _) = HeadChunks::open(&dir.join("chunks_head"), i64::MIN).unwrap();
        let segment_bytes = options.wal_segment_bytes;
        let log = Writer::open(&dir.join("wbl"), segment_bytes, options.wal_compression).unwrap();
        Self { chunks, log }
    }

    /// Logs late samples of the first series.
    fn samples(&mut self, samples: &[(i64, f64)]) {
        let mut record = Vec::new();
        let series = SeriesRef(1);
        record::encode_samples(&mut record, samples.iter().map(|(t, v)| RefSample::new(series, *t, *v)));
        self.log.log([record.as_slice()]).unwrap();
    }

    /// Writes a chunk, and gives what a marker says of it.
    fn chunk(&self, samples: &[(i64, f64)]) -> u64 {
        let data = xor::encode(samples.iter().map(|(t, v)| Sample { t: *t, v: *v }));
        let chunk = NewChunk {
            series: SeriesRef(1),
            mint: samples[0].0,
            maxt: samples.last().unwrap().0,
            encoding: Encoding::Xor,
            out_of_order: true,
            data: &data,
        };
        self.chunks.write([chunk]).unwrap()[0].0
    }

    fn marker(&mut self, chunk: u64) {
        let mut record = Vec::new();
        record::encode_mmap_markers(&mut record, &[RefMmapMarker { series: SeriesRef(1), chunk }]);
        self.log.log([record.as_slice()]).unwrap();
    }
}

fn at(seconds: std::ops::Range<i64>) -> Vec<(i64, f64)> {
    seconds.map(|s| (2 * HOUR + s * 1000, s as f64)).collect()
}

/// A directory with a series, and late samples of it.
fn with_late(samples: &[(i64, f64)]) -> (tempfile::TempDir, Arc<Db>) {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(late(dir.path())).unwrap();
    append(&db, &[(&series(0), 3 * HOUR, -1.0)]);
    samples.iter().for_each(|(t, v)| try_append(&db, *t, *v).unwrap());
    (dir, db)
}

/// Starts several times, with a kill and another late sample each time, and finds `expected` and those.
fn holds(dir: &Path, expected: &[(i64, f64)]) {
    let mut expected: BTreeMap<_, _> = expected.iter().map(|(t, v)| (*t, v.to_bits())).collect();
    expected.insert(3 * HOUR, (-1f64).to_bits());
    for start in 0..4 {
        let db = Db::open(late(dir)).unwrap();
        assert_eq!(
            read_all(&*db)[&series(0)],
            expected.clone().into_iter().collect::<Vec<_>>(),
            "start {start}"
        );
        let t = 2 * HOUR - 1000 - start;
        try_append(&db, t, 0.5).unwrap();
        expected.insert(t, 0.5f64.to_bits());
        std::mem::forget(db);
    }
}

#[test]
fn a_deleted_sample_in_a_chunk_that_prometheus_names_stays_deleted() {
    let (dir, db) = with_late(&at(0..10));
    db.delete(&[Matcher::eq("i", "0")], 2 * HOUR + 5000, 2 * HOUR + 5000).unwrap();
    std::mem::forget(db);
    let mut prometheus = Foreign::open(dir.path());
    prometheus.samples(&at(10..32));
    let chunk = prometheus.chunk(&at(0..32));
    prometheus.marker(chunk);
    prometheus.samples(&at(32..33));
    drop(prometheus);
    let mut expected = at(0..33);
    expected.remove(5);
    holds(dir.path(), &expected);
}

/// It fails to make a block of late samples, and says that they are in one.
#[test]
fn late_samples_of_which_prometheus_says_that_they_are_in_a_block_stay() {
    for deletes in [false, true] {
        let (dir, db) = with_late(&at(0..10));
        let mut expected = at(0..11);
        if deletes {
            db.delete(&[Matcher::eq("i", "0")], 2 * HOUR + 5000, 2 * HOUR + 5000).unwrap();
            expected.remove(5);
        }
        std::mem::forget(db);
        let mut prometheus = Foreign::open(dir.path());
        prometheus.chunk(&at(0..10));
        prometheus.marker(0);
        prometheus.samples(&at(10..11));
        drop(prometheus);
        holds(dir.path(), &expected);
    }
}

/// A chunk that a marker names was lost when it was killed, it made others in its place without naming them, and samples
/// that are not late are deleted.
#[test]
fn late_samples_in_chunks_that_nobody_names_survive_a_deletion_of_others() {
    let (dir, db) = with_late(&at(0..10));
    std::mem::forget(db);
    let mut prometheus = Foreign::open(dir.path());
    prometheus.samples(&at(10..33));
    prometheus.marker(HeadChunkRef::new(7, 8).0);
    prometheus.samples(&at(33..64));
    prometheus.chunk(&at(0..32));
    prometheus.samples(&at(64..65));
    let named = prometheus.chunk(&at(32..64));
    prometheus.marker(named);
    prometheus.samples(&at(65..70));
    drop(prometheus);
    holds(dir.path(), &at(0..70));

    let db = Db::open(late(dir.path())).unwrap();
    let newest =
        [(2 * HOUR - 1003, 0.5), (2 * HOUR - 1002, 0.5), (2 * HOUR - 1001, 0.5), (2 * HOUR - 1000, 0.5)];
    db.delete(&[Matcher::eq("i", "0")], 3 * HOUR, 3 * HOUR).unwrap();
    append(&db, &[(&series(0), 3 * HOUR + 1, -2.0)]);
    std::mem::forget(db);
    for _ in 0..3 {
        let db = Db::open(late(dir.path())).unwrap();
        let found = read_all(&*db)[&series(0)].clone();
        let expected = newest.iter().copied().chain(at(0..70)).chain([(3 * HOUR + 1, -2.0)]);
        assert_eq!(found, expected.map(|(t, v)| (t, v.to_bits())).collect::<Vec<_>>());
        std::mem::forget(db);
    }
}
