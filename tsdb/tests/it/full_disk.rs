//! A disk without room: what is refused leaves no trace, and the database goes on when there is room again.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use promontory_tsdb::fs::{Op, Refusal, Watch, watch};
use promontory_tsdb::{Db, Error, Labels};

use crate::support::{append, options, read_all};

/// Of what is written while it is full, only some bytes reach the disk.
#[derive(Debug, Default)]
struct Disk {
    full: AtomicBool,
}

impl Watch for Disk {
    fn before(&self, op: &Op<'_>) -> Result<(), Refusal> {
        match op {
            Op::Write { bytes, .. } if self.full.load(Ordering::Relaxed) => {
                Err(Refusal { error: ErrorKind::StorageFull.into(), written: bytes.len() / 2 })
            }
            _ => Ok(()),
        }
    }

    fn after(&self, _: &Op<'_>) {}
}

#[test]
fn a_full_disk_refuses_batches_until_there_is_room_and_needs_no_restart() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::default());
    let _watching = watch(dir.path(), Arc::clone(&disk) as Arc<dyn Watch>);
    let mut options = options(dir.path());
    options.lockfile = false;
    let db = Db::open(options.clone()).unwrap();
    let [old, new] = ["old", "new"].map(|name| Labels::from_pairs([("__name__", name)]));
    append(&db, &[(&old, 1000, 1.0)]);
    let before = read_all(&*db);
    disk.full.store(true, Ordering::Relaxed);
    for attempt in 1..=2 {
        let mut appender = db.appender();
        for labels in [&old, &new] {
            appender.append(Default::default(), labels, 2000, f64::from(attempt)).unwrap();
        }
        let error = appender.commit().unwrap_err();
        assert!(
            matches!(&error, Error::Io { source, .. } if source.kind() == ErrorKind::StorageFull),
            "{error}"
        );
        assert_eq!(read_all(&*db), before);
    }
    assert_eq!((db.metrics().wal_writes_failed, db.is_log_poisoned()), (2, false));
    disk.full.store(false, Ordering::Relaxed);
    // The series record of the new series was refused with its first sample.
    append(&db, &[(&old, 2000, 3.0), (&new, 2000, 3.0)]);
    append(&db, &[(&new, 3000, 4.0)]);
    let after = read_all(&*db);
    assert_eq!(after.values().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
    // As after a kill: nothing is closed.
    std::mem::forget(db);
    let db = Db::open(options).unwrap();
    assert_eq!(read_all(&*db), after);
    assert_eq!((db.replay_stats().unknown_series, db.metrics().wal_corruptions), (0, 0));
}
