//! Any files are a data directory or an error; one that opens takes samples, and opens again to the same answers.
#![no_main]

#[path = "../contents.rs"]
mod contents;
#[path = "../scratch.rs"]
mod scratch;

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use promontory_tsdb::{Db, DbOptions, Labels, ManualClock, SeriesRef};

fn options(dir: &Path) -> DbOptions {
    let mut options = DbOptions::new(dir);
    options.clock = Arc::new(ManualClock::new(4_000_000_000_000));
    options.block_range_ms = 600_000;
    options.wal_segment_bytes = 32 * 1024;
    options.retention_ms = None;
    options.exemplars_max = 8;
    options.memory_snapshot = true;
    options
}

fuzz_target!(|data: &[u8]| {
    let dir = scratch::empty_dir();
    scratch::unpack(data, &dir);
    let Ok(db) = Db::open(options(&dir)) else { return };
    let before = contents::read(&*db);
    // Times that would make thousands of blocks are another matter.
    let short = db.head_stats().max_time.unwrap_or(0).saturating_sub(db.head_stats().min_time.unwrap_or(0)) < 6_000_000;
    let mut appender = db.appender();
    let labels = Labels::from_pairs([("__name__", "appended")]);
    let appended = appender.append(SeriesRef(0), &labels, 3_999_999_000_000, 1.0).is_ok();
    appender.rollback();
    if short && !appended {
        drop(db.maintain());
    }
    let before = if short && !appended { contents::read(&*db) } else { before };
    db.close().expect("the log can be written");
    drop(db);
    let again = Db::open(options(&dir)).expect("it opened before");
    if let (Ok(before), Ok(after)) = (before, contents::read(&*again)) {
        assert_eq!(before, after, "other answers after a restart");
    }
});
