//! Directories that a real Prometheus 2.42 wrote are read to the last sample.
//!
//! The fixtures are not in the repository: `PROMONTORY_FIXTURES` names their directory, otherwise
//! `../shared/fixtures` next to the repository is tried. Without them the tests say so and pass.

use std::path::{Path, PathBuf};
use std::process::Command;

use promontory_tsdb::block::Block;
use promontory_tsdb::sample::NORMAL_NAN_BITS;
use promontory_tsdb::{BlockSummary, Db, Queryable as _};

use crate::peer::{assert_same, count, everything, parse_dump};
use crate::support::{options, read_all};

pub(crate) fn fixtures() -> Option<PathBuf> {
    let dir = std::env::var_os("PROMONTORY_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures"), PathBuf::from);
    let dir = dir.join("prometheus-2.42");
    if !dir.is_dir() {
        println!("SKIP: no fixtures at {}", dir.display());
        return None;
    }
    Some(dir)
}

/// Unpacks `name` and gives the temporary directory and the data directory in it.
pub(crate) fn unpack(fixtures: &Path, name: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let archive = fixtures.join(format!("{name}.tar.gz"));
    let status = Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(dir.path()).status().unwrap();
    assert!(status.success(), "tar {}", archive.display());
    let data = dir.path().join("data");
    (dir, data)
}

fn check(name: &str) {
    let Some(fixtures) = fixtures() else { return };
    let (_dir, data) = unpack(&fixtures, name);
    let dump = Command::new("zcat").arg(fixtures.join(format!("{name}.dump.txt.gz"))).output().unwrap();
    let mut options = options(&data);
    options.block_range_ms = 120_000;
    options.retention_ms = None;
    options.exemplars_max = 10_000;
    let db = Db::open(options.clone()).unwrap();
    assert_eq!(db.metrics().blocks_quarantined, 0);
    println!("{name}: {:?}", db.replay_stats());
    let found = everything(&*db);
    let expected = parse_dump(&String::from_utf8(dump.stdout).unwrap(), &found);
    assert_same(&found, &expected);
    println!("{name}: {} samples of {} series are the same", count(&found), found.len());
    assert!(count(&found) > 100_000);
    let bits = read_all(&*db);
    assert!(bits.values().flatten().any(|s| s.1 == NORMAL_NAN_BITS), "a NaN that is no stale marker");
    // What was deleted is among what the tombstones hide.
    let deletions = |b: BlockSummary| Block::open(&data.join(&b.ulid)).unwrap().tombstones().len();
    assert!(db.blocks().into_iter().map(deletions).sum::<usize>() > 0);
    // Nothing is lost when the head goes to blocks, nor at a restart after that.
    let done = db.maintain().unwrap();
    println!("{name}: {done:?}, {} blocks", db.blocks().len());
    assert_eq!(read_all(&*db), bits);
    db.close().unwrap();
    assert_eq!(read_all(&*Db::open(options).unwrap()), bits);
}

#[test]
fn a_directory_of_a_stopped_prometheus() {
    check("clean");
}

#[test]
fn a_directory_of_a_prometheus_that_lost_power() {
    check("crashed");
}
