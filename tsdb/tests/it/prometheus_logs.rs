//! Log records that only Prometheus writes: out-of-order samples, deletions, doubled series.

use std::path::Path;
use std::sync::Arc;

use promontory_tsdb::metadata::{Metadata, MetricKind};
use promontory_tsdb::wal::{self, Compression, RefSample, RefTombstone, Writer, record};
use promontory_tsdb::{Db, DbOptions, Labels, Matcher, Queryable, SeriesRef};

use crate::support::{Contents, options, read, read_all};

fn series(name: &str) -> Labels {
    Labels::from_pairs([("__name__", name)])
}

fn log(dir: &Path, records: &[Vec<u8>]) {
    let mut writer = Writer::open(dir, wal::PAGE_BYTES, Compression::Snappy).unwrap();
    writer.log(records.iter().map(Vec::as_slice)).unwrap();
    writer.close().unwrap();
}

fn series_record(list: &[(u64, &Labels)]) -> Vec<u8> {
    let mut out = Vec::new();
    record::begin_series(&mut out);
    list.iter().for_each(|(r, labels)| record::put_series(&mut out, SeriesRef(*r), labels));
    out
}

fn samples_record(list: &[(u64, i64, f64)]) -> Vec<u8> {
    let mut out = Vec::new();
    record::encode_samples(&mut out, list.iter().map(|(r, t, v)| RefSample::new(SeriesRef(*r), *t, *v)));
    out
}

fn tombstones_record(list: &[(u64, i64, i64)]) -> Vec<u8> {
    let mut out = Vec::new();
    let list =
        list.iter().map(|(r, mint, maxt)| RefTombstone { series: SeriesRef(*r), mint: *mint, maxt: *maxt });
    record::encode_tombstones(&mut out, &list.collect::<Vec<_>>());
    out
}

fn open(dir: &Path) -> Arc<Db> {
    let mut options = options(dir);
    options.block_range_ms = 1000;
    options.wal_segment_bytes = wal::PAGE_BYTES;
    options.lockfile = false;
    options.retention_ms = None;
    Db::open(options).unwrap()
}

fn times(contents: &Contents, name: &str) -> Vec<i64> {
    contents.get(&series(name)).map_or_else(Vec::new, |s| s.iter().map(|s| s.0).collect())
}

#[test]
fn out_of_order_samples_are_merged_and_get_blocks_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (series("a"), series("b"));
    log(
        &wal::wal_dir(dir.path()),
        &[
            series_record(&[(1, &a), (2, &b)]),
            samples_record(&[(1, 5100, 1.0), (1, 5300, 3.0), (2, 6700, 9.0)]),
        ],
    );
    // Late by up to several blocks, once at a time that is there in order, which counts.
    log(
        &wal::wbl_dir(dir.path()),
        &[
            samples_record(&[(1, 5200, 2.0), (1, 1500, 0.5)]),
            vec![5],
            samples_record(&[(1, 5300, 77.0), (7, 1, 1.0)]),
        ],
    );
    let db = open(dir.path());
    assert_eq!(db.replay_stats().ooo_samples, 3);
    assert_eq!(db.replay_stats().unknown_series, 1);
    let before = read_all(&*db);
    assert_eq!(times(&before, "a"), [1500, 5100, 5200, 5300]);
    assert_eq!(before[&a][3].1, 3f64.to_bits());
    assert_eq!(times(&read(&*db, &[], 1000, 5200), "a"), [1500, 5100, 5200]);
    assert_eq!(db.time_bounds(), Some((1500, 6700)));
    let done = db.maintain().unwrap();
    // One of what came in order, and two of what was late, one of which overlaps it.
    assert_eq!(done.blocks_cut.len(), 3);
    assert_eq!(db.blocks().first().map(|b| (b.min_time, b.max_time)), Some((1000, 2000)));
    assert_eq!(read_all(&*db), before);
    drop(db);
    // The write-behind log is gone, as its samples are in blocks.
    let db = open(dir.path());
    assert_eq!(db.replay_stats().ooo_samples, 0);
    assert_eq!(read_all(&*db), before);
}

#[test]
fn deletions_hide_samples_from_reads_and_from_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let a = series("a");
    let samples = (0..40).map(|i| (1, 5000 + i * 50, i as f64)).collect::<Vec<_>>();
    log(
        &wal::wal_dir(dir.path()),
        &[
            series_record(&[(1, &a)]),
            samples_record(&samples),
            tombstones_record(&[(1, 5100, 5200), (1, 5150, 5300), (1, 6900, i64::MAX - 1)]),
        ],
    );
    let db = open(dir.path());
    let expected =
        (5000..7000).step_by(50).filter(|t| !(5100..=5300).contains(t) && *t < 6900).collect::<Vec<_>>();
    let before = read_all(&*db);
    assert_eq!(times(&before, "a"), expected);
    assert!(!db.series_stats(&[], 0, 9000).unwrap().exact);
    assert_eq!(db.maintain().unwrap().blocks_cut.len(), 1);
    assert_eq!(read_all(&*db), before);
    assert_eq!(db.blocks()[0].samples, 15);
    drop(db);
    assert_eq!(read_all(&*open(dir.path())), before);
}

#[test]
fn an_evicted_series_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let a = series("a");
    log(
        &wal::wal_dir(dir.path()),
        &[
            series_record(&[(1, &a)]),
            samples_record(&[(1, 5000, 1.0)]),
            tombstones_record(&[(1, i64::MIN, i64::MAX)]),
            series_record(&[(2, &a)]),
            samples_record(&[(2, 5010, 2.0)]),
        ],
    );
    let db = open(dir.path());
    assert_eq!(times(&read_all(&*db), "a"), [5010]);
    let mut appender = db.appender();
    assert_eq!(appender.append(SeriesRef(0), &a, 5020, 1.0).unwrap(), SeriesRef(2));
    assert_eq!(appender.append(SeriesRef(1), &series("b"), 5020, 1.0).unwrap(), SeriesRef(3));
}

#[test]
fn a_series_with_two_references_is_one_and_survives_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let a = series("a");
    log(
        &wal::wal_dir(dir.path()),
        &[
            series_record(&[(5, &a)]),
            samples_record(&[(5, 5000, 1.0)]),
            series_record(&[(9, &a)]),
            samples_record(&[(9, 6100, 2.0), (5, 6200, 3.0)]),
        ],
    );
    let db = open(dir.path());
    assert_eq!(times(&read_all(&*db), "a"), [5000, 6100, 6200]);
    // Enough segments that the next truncation folds the records above into a checkpoint.
    let mut t = 6200;
    for i in 0..4000u32 {
        let labels = Labels::from_pairs([("i", format!("{:x}", i.wrapping_mul(2_654_435_761)))]);
        t = 6200 + i64::from(i) / 10;
        let mut appender = db.appender();
        appender.append(SeriesRef(0), &labels, t, f64::from(i).sqrt()).unwrap();
        appender.commit().unwrap();
    }
    let mut appender = db.appender();
    assert_eq!(appender.append(SeriesRef(0), &a, t, 4.0).unwrap(), SeriesRef(5));
    appender.commit().unwrap();
    let before = read_all(&*db);
    let done = db.maintain().unwrap();
    assert!(done.checkpoint.is_some(), "{done:?}");
    drop(db);
    let db = open(dir.path());
    assert_eq!(db.replay_stats().unknown_series, 0);
    assert_eq!(times(&read_all(&*db), "a"), [5000, 6100, 6200, t]);
    assert_eq!(read_all(&*db), before);
}

#[test]
fn a_damaged_log_is_cut_and_the_database_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let a = series("a");
    let wal_dir = wal::wal_dir(dir.path());
    log(
        &wal_dir,
        &[series_record(&[(1, &a)]), samples_record(&[(1, 5000, 1.0)]), samples_record(&[(1, 5001, 2.0)])],
    );
    let path = wal::segment::path(&wal_dir, 0);
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.iter().rposition(|b| *b != 0).unwrap();
    bytes[last] ^= 0x55;
    std::fs::write(&path, bytes).unwrap();
    let db = open(dir.path());
    assert_eq!(db.metrics().wal_corruptions, 1);
    assert_eq!(times(&read_all(&*db), "a"), [5000]);
    let mut appender = db.appender();
    appender.append(SeriesRef(0), &a, 5002, 3.0).unwrap();
    appender.commit().unwrap();
    drop(db);
    let db = open(dir.path());
    assert_eq!(db.metrics().wal_corruptions, 0);
    assert_eq!(times(&read_all(&*db), "a"), [5000, 5002]);
}

/// Prometheus leaves the segment aside when it stops in the middle of a repair, and goes on without it.
#[test]
fn what_an_old_repair_left_behind_cuts_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let a = series("a");
    let wal_dir = wal::wal_dir(dir.path());
    log(&wal_dir, &[series_record(&[(1, &a)]), samples_record(&[(1, 5000, 1.0)])]);
    std::fs::write(wal::segment::repair_path(&wal_dir, 0), b"damaged").unwrap();
    log(&wal_dir, &[samples_record(&[(1, 5001, 2.0)])]);
    let db = open(dir.path());
    assert_eq!(times(&read_all(&*db), "a"), [5000, 5001]);
    assert_eq!(db.metrics().wal_corruptions, 0);
}

#[test]
fn exemplars_and_metadata_of_the_log_are_there_again_also_of_a_series_logged_twice() {
    let dir = tempfile::tempdir().unwrap();
    let up = Labels::from_pairs([("__name__", "up")]);
    let mut writer = Writer::open(&wal::wal_dir(dir.path()), wal::PAGE_BYTES, Compression::Snappy).unwrap();
    let mut record = Vec::new();
    record::begin_series(&mut record);
    record::put_series(&mut record, SeriesRef(5), &up);
    record::put_series(&mut record, SeriesRef(9), &up);
    writer.log([record.as_slice()]).unwrap();
    let exemplar = |series, t| record::RefExemplar {
        series: SeriesRef(series),
        t,
        v: 0.5,
        labels: Labels::from_pairs([("trace_id", t.to_string())]),
    };
    record::encode_exemplars(&mut record, &[exemplar(5, 10), exemplar(9, 20), exemplar(77, 30)]);
    writer.log([record.as_slice()]).unwrap();
    let metadata = |help: &str| Metadata { kind: MetricKind::Gauge, unit: String::new(), help: help.into() };
    let (old, new) = (metadata("old"), metadata("new"));
    record::encode_metadata(&mut record, [(SeriesRef(5), &old), (SeriesRef(9), &new)]);
    writer.log([record.as_slice(), &[200, 1, 2]]).unwrap();
    writer.close().unwrap();
    let mut options = DbOptions::new(dir.path());
    options.exemplars_max = 10;
    let db = Db::open(options).unwrap();
    let stats = db.replay_stats();
    assert_eq!((stats.exemplars, stats.metadata, stats.unknown_series, stats.skipped_records), (2, 2, 1, 1));
    let found = db.exemplars().select(0, 100, &[&[Matcher::eq("__name__", "up")]]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, up);
    assert_eq!(found[0].1.iter().map(|e| e.timestamp).collect::<Vec<_>>(), [10, 20]);
    assert_eq!(db.metadata(&[]), [(up, Arc::new(new.clone()))]);
    assert_eq!(db.metadata_of(SeriesRef(5)), Some(Arc::new(new)));
}

#[test]
fn a_log_whose_beginning_is_gone_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let wal_dir = wal::wal_dir(dir.path());
    for t in 1..=3 {
        log(&wal_dir, &[series_record(&[(1, &series("a"))]), samples_record(&[(1, t, 1.0)])]);
    }
    std::fs::remove_file(wal_dir.join("00000000")).unwrap();
    let error = Db::open(options(dir.path())).unwrap_err();
    assert_eq!(error.kind(), promontory_tsdb::ErrorKind::Data);
    assert!(error.to_string().contains("segment 0 is missing"), "{error}");
    let mut read_only = options(dir.path());
    read_only.read_only = true;
    assert!(Db::open(read_only).unwrap_err().to_string().contains("segment 0 is missing"));
}

#[test]
fn a_damaged_write_behind_log_is_cut_there_and_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    log(&wal::wal_dir(dir.path()), &[series_record(&[(1, &series("a"))]), samples_record(&[(1, 900, 1.0)])]);
    let wbl_dir = wal::wbl_dir(dir.path());
    log(&wbl_dir, &[samples_record(&[(1, 100, 1.0)]), samples_record(&[(1, 200, 1.0)])]);
    let path = wbl_dir.join("00000000");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[50] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let db = open(dir.path());
    assert_eq!(times(&read_all(&*db), "a"), [100, 900]);
    assert_eq!(db.metrics().wal_corruptions, 1);
    db.close().unwrap();
    let aside = std::fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.path());
    let aside = aside.filter(|p| p.to_string_lossy().contains("wbl-damaged-")).collect::<Vec<_>>();
    assert_eq!(std::fs::read(aside[0].join("00000000")).unwrap(), bytes);
    assert_eq!(open(dir.path()).metrics().wal_corruptions, 0);
}
