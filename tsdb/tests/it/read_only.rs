//! A read-only open shows what is committed, beside the server that owns the directory, and leaves no
//! trace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use promontory_tsdb::{AppendError, Db, DbOptions, Error, ErrorKind, Labels, Queryable, SeriesRef, wal};

use crate::prometheus_fixtures::{fixtures, unpack};
use crate::support::{append, options, read_all};

const MINUTE: i64 = 60_000;
const SERIES: i64 = 60;

fn small(dir: &Path) -> DbOptions {
    let mut options = options(dir);
    options.block_range_ms = 10 * MINUTE;
    options.wal_segment_bytes = wal::PAGE_BYTES;
    options.wal_compression = wal::Compression::None;
    options.retention_ms = None;
    options
}

fn read_only(options: &DbOptions) -> DbOptions {
    let mut options = options.clone();
    options.read_only = true;
    options
}

fn series(i: i64) -> Labels {
    Labels::from_pairs([("__name__", "m".to_owned()), ("i", i.to_string())])
}

/// One batch per step; the value says which.
fn fill(db: &Arc<Db>, steps: std::ops::Range<i64>) {
    for step in steps {
        let mut appender = db.appender();
        for i in 0..SERIES {
            appender.append(SeriesRef(0), &series(i), step * 15_000, (step as f64).sqrt()).unwrap();
        }
        appender.commit().unwrap();
    }
}

/// Every file and directory with its size and the time of its last change.
fn listing(dir: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut out = BTreeMap::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(path) = todo.pop() {
        let metadata = std::fs::metadata(&path).unwrap();
        if metadata.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        out.insert(path, (metadata.len(), metadata.modified().unwrap()));
    }
    out
}

#[test]
fn all_that_is_committed_is_seen_and_nothing_changes_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(small(dir.path())).unwrap();
    fill(&db, 0..200);
    let done = db.maintain().unwrap();
    assert!(!done.blocks_cut.is_empty() && done.checkpoint.is_some(), "{done:?}");
    fill(&db, 200..217);
    // What a crash could have left is not this process' to tidy up.
    std::fs::create_dir_all(dir.path().join("wal/checkpoint.00099999.tmp")).unwrap();
    std::fs::create_dir_all(dir.path().join("01M7ZS713CZD7QB9HW30HSZB8H.tmp-for-deletion")).unwrap();
    let before = listing(dir.path());
    let beside = Db::open(read_only(&small(dir.path()))).unwrap();
    let contents = read_all(&*beside);
    assert_eq!(contents, read_all(&*db));
    assert_eq!(contents.values().map(Vec::len).collect::<Vec<_>>(), [217; SERIES as usize]);
    assert_eq!(beside.blocks().len(), db.blocks().len());
    assert_eq!(beside.metrics().wal_corruptions, 0);
    drop(beside);
    assert_eq!(listing(dir.path()), before);
    // The owner goes on as if nobody had been there.
    fill(&db, 217..220);
    let later = Db::open(read_only(&small(dir.path()))).unwrap();
    assert_eq!(read_all(&*later), read_all(&*db));
    db.close().unwrap();
}

#[test]
fn writes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(options(dir.path())).unwrap();
    append(&db, &[(&series(1), 1000, 1.0)]);
    let beside = Db::open(read_only(&options(dir.path()))).unwrap();
    assert!(beside.is_read_only() && !db.is_read_only());
    let mut appender = beside.appender();
    assert_eq!(appender.append(SeriesRef(0), &series(2), 2000, 1.0), Err(AppendError::ReadOnly));
    assert!(matches!(appender.commit(), Err(Error::ReadOnly)));
    assert!(matches!(beside.maintain(), Err(Error::ReadOnly)));
    assert!(matches!(beside.sync(), Err(Error::ReadOnly)));
    assert_eq!(Error::ReadOnly.kind(), ErrorKind::Invalid);
    beside.close().unwrap();
    assert_eq!(read_all(&*beside), read_all(&*db));
    assert_eq!(beside.head_stats().series, 1);
    append(&db, &[(&series(1), 2000, 1.0)]);
}

#[test]
fn a_missing_directory_is_an_error_and_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    assert!(matches!(Db::open(read_only(&options(&path))), Err(Error::Io { .. })));
    assert!(!path.exists());
}

/// As root, permissions stop nobody, and the listing alone tells.
#[test]
fn a_directory_without_write_permission_is_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let db = Db::open(small(&data)).unwrap();
    fill(&db, 0..100);
    db.maintain().unwrap();
    db.close().unwrap();
    let paths = listing(&data).into_keys().collect::<Vec<_>>();
    let protect = |write: u32| {
        for path in &paths {
            let mode = if path.is_dir() { 0o555 | write } else { 0o444 | write };
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    protect(0);
    let before = listing(&data);
    let opened = Db::open(read_only(&small(&data))).map(|db| read_all(&*db));
    let after = listing(&data);
    protect(0o200);
    assert_eq!(opened.unwrap(), read_all(&*db));
    assert_eq!(after, before);
}

#[test]
fn a_log_that_is_being_written_is_read_up_to_its_torn_end() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(options(dir.path())).unwrap();
    fill(&db, 0..12);
    let segment = wal::segment::path(&wal::wal_dir(dir.path()), 0);
    let whole = std::fs::read(&segment).unwrap();
    db.close().unwrap();
    let mut seen = 0;
    for length in (0..whole.len()).step_by(3) {
        std::fs::write(&segment, &whole[..length]).unwrap();
        let torn = Db::open(read_only(&options(dir.path()))).unwrap();
        assert_eq!(torn.metrics().wal_corruptions, 0);
        let samples = read_all(&*torn).values().map(Vec::len).collect::<Vec<_>>();
        // Whole batches, and never fewer of them for a longer log.
        let batches = samples.first().copied().unwrap_or(0);
        assert!(samples.is_empty() || samples == [batches; SERIES as usize], "{length}: {samples:?}");
        assert!(batches >= seen, "{length}: {batches} after {seen}");
        seen = batches;
        assert_eq!(std::fs::metadata(&segment).unwrap().len(), length as u64);
    }
    assert_eq!(seen, 11);
}

#[test]
fn damage_in_the_middle_ends_the_reading_and_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(small(dir.path())).unwrap();
    fill(&db, 0..100);
    db.close().unwrap();
    let wal_dir = wal::wal_dir(dir.path());
    assert!(wal::segment::list(&wal_dir).unwrap().len() >= 2);
    let victim = wal::segment::path(&wal_dir, 0);
    let mut bytes = std::fs::read(&victim).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    std::fs::write(&victim, bytes).unwrap();
    let before = listing(dir.path());
    let damaged = Db::open(read_only(&small(dir.path()))).unwrap();
    assert_eq!(damaged.metrics().wal_corruptions, 1);
    let found = read_all(&*damaged);
    assert!(found[&series(0)].len() > 5 && found[&series(0)].len() < 60);
    assert_eq!(listing(dir.path()), before);
    // The owner has these too, and what `chunks_head/` holds.
    let owned = read_all(&*Db::open(small(dir.path())).unwrap());
    for (labels, samples) in &found {
        assert!(samples.iter().all(|s| owned[labels].contains(s)), "{labels}");
    }
}

#[test]
fn a_segment_that_a_half_made_repair_set_aside_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(small(dir.path())).unwrap();
    fill(&db, 0..100);
    db.close().unwrap();
    let wal_dir = wal::wal_dir(dir.path());
    for keep_part in [true, false] {
        let last = *wal::segment::list(&wal_dir).unwrap().last().unwrap();
        assert!(last > 0);
        let path = wal::segment::path(&wal_dir, last);
        std::fs::copy(&path, wal::segment::repair_path(&wal_dir, last)).unwrap();
        std::fs::write(&path, b"").unwrap();
        if !keep_part {
            std::fs::remove_file(&path).unwrap();
        }
        let before = listing(dir.path());
        assert_eq!(read_all(&*Db::open(read_only(&small(dir.path()))).unwrap()), read_all(&*db));
        assert_eq!(listing(dir.path()), before);
        let owned = Db::open(small(dir.path())).unwrap();
        assert_eq!(read_all(&*owned), read_all(&*db));
        assert!(!wal::segment::repair_path(&wal_dir, last).exists());
        owned.close().unwrap();
        std::fs::remove_file(wal::segment::path(&wal_dir, last + 1)).unwrap();
    }
}

/// Blocks are cut, segments go and blocks are deleted while it opens; nothing is missed.
#[test]
fn a_busy_owner_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut own = small(dir.path());
    own.retention_ms = Some(60 * MINUTE);
    let db = Db::open(own.clone()).unwrap();
    let committed = AtomicI64::new(0);
    let opened = AtomicI64::new(0);
    std::thread::scope(|scope| {
        let owner = scope.spawn(|| {
            let mut cuts = 0;
            for step in 0.. {
                fill(&db, step..step + 1);
                committed.store(step + 1, Ordering::SeqCst);
                // Retention keeps at least 60 minutes = 240 steps.
                if step % 23 == 0 {
                    cuts += db.maintain().unwrap().blocks_cut.len();
                }
                // On a busy machine few opens fall between two changes.
                let opened = opened.load(Ordering::SeqCst);
                if opened >= 40 && cuts > 20 || cuts > 600 {
                    return cuts;
                }
            }
            cuts
        });
        while !owner.is_finished() {
            let at_least = committed.load(Ordering::SeqCst);
            let beside = match Db::open(read_only(&own)) {
                Ok(beside) => beside,
                Err(Error::Busy { .. }) => continue,
                Err(error) => panic!("{error}"),
            };
            opened.fetch_add(1, Ordering::SeqCst);
            // What retention went by while it opened.
            let at_most = committed.load(Ordering::SeqCst) + 1;
            let contents = read_all(&*beside);
            assert!(contents.len() == SERIES as usize || at_least == 0);
            for samples in contents.values() {
                let times = samples.iter().map(|s| s.0 / 15_000).collect::<Vec<_>>();
                assert!(times.windows(2).all(|w| w[1] == w[0] + 1), "a hole in {times:?}");
                assert!(times[0] <= (at_most - 240).max(0), "begins at {} of {at_most}", times[0]);
                assert!(times[times.len() - 1] >= at_least - 1, "ends before {at_least}");
            }
        }
        println!("{} blocks cut, {} read-only opens", owner.join().unwrap(), opened.load(Ordering::SeqCst));
    });
}

#[test]
fn directories_of_a_real_prometheus_are_read_as_they_are() {
    let Some(fixtures) = fixtures() else { return };
    for name in ["clean", "crashed"] {
        let (_dir, data) = unpack(&fixtures, name);
        let mut options = options(&data);
        options.block_range_ms = 2 * MINUTE;
        options.retention_ms = None;
        let before = listing(&data);
        let found = read_all(&*Db::open(read_only(&options)).unwrap());
        assert_eq!(listing(&data), before);
        // `prometheus_fixtures` compares this one with Prometheus' own dump.
        let owned = read_all(&*Db::open(options).unwrap());
        assert!(found == owned, "{name}: {} series, {} when owned", found.len(), owned.len());
        assert_ne!(listing(&data), before);
    }
}
