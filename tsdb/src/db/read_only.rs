//! Opening a data directory for reading only, also beside a server that is writing it.
//!
//! Takes no lock, and creates, changes and removes nothing. Gives all that was committed before the
//! call, and of what is committed meanwhile a beginning, batch by batch. It stays as it was opened.
//!
//! # Concurrency
//! Whatever a server takes away has its successor under a new name before: samples leave the head and
//! the log after their block appeared, segments go after their checkpoint appeared. If blocks and
//! checkpoint have the same names before and after the reading, nothing slipped through; if not, it is
//! done again.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ulid::Ulid;

use super::blocks::{self, Blocks};
use super::open::replay_checkpoint;
use super::{Counters, Db, DbOptions};
use crate::error::{Error, Result};
use crate::exemplar::ExemplarStorage;
use crate::head::{self, Head};
use crate::wal::{self, ReadError, read_records, read_segment, segment};

/// A server makes a block or a checkpoint some times in two hours; more often than this is no accident.
const ATTEMPTS: u32 = 8;

/// Grows with each attempt.
const PAUSE: Duration = Duration::from_millis(5);

pub(super) fn open(options: &DbOptions) -> Result<Arc<Db>> {
    let dir = options.path.as_path();
    let mut before = Names::read(dir)?;
    for attempt in 1..=ATTEMPTS {
        let result = load(options);
        let after = Names::read(dir)?;
        let unchanged = after == before;
        before = after;
        match result {
            Ok(db) if unchanged => return Ok(db),
            // Really missing: nothing else was taken away, up to the last attempt.
            Err(error) if unchanged && attempt == ATTEMPTS => return Err(error),
            Ok(_) | Err(_) => {
                tracing::debug!(dir = %dir.display(), attempt, "the directory changed; reading it again")
            }
        }
        std::thread::sleep(PAUSE * attempt);
    }
    Err(Error::Busy { path: dir.to_path_buf() })
}

/// The names that tell whether anything was taken away.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    blocks: BTreeSet<Ulid>,
    checkpoint: Option<u32>,
}

impl Names {
    fn read(dir: &Path) -> Result<Self> {
        let checkpoint = segment::last_checkpoint(&wal::wal_dir(dir))?.map(|(_, last)| last);
        Ok(Self { blocks: blocks::list(dir)?.into_iter().collect(), checkpoint })
    }
}

fn load(options: &DbOptions) -> Result<Arc<Db>> {
    let dir = options.path.as_path();
    let blocks = Blocks::load_read_only(dir)?;
    let mut head = Head::new(options.block_range_ms, blocks.in_order_end().unwrap_or(i64::MIN));
    head.exemplars = ExemplarStorage::new(options.exemplars_max, 0);
    let counters = Counters::default();
    let wal_dir = wal::wal_dir(dir);
    let (result, replayed) = head::replay(&head, |replayer| {
        let from = replay_checkpoint(&wal_dir, replayer)?;
        if segment::under_repair(&wal_dir)?.is_none() {
            segment::list_all_from(&wal_dir, from)?;
        }
        replay_log(&wal_dir, from, &counters, |record| replayer.apply(record))?;
        replay_log(&wal::wbl_dir(dir), 0, &counters, |record| replayer.apply_out_of_order(record))
    });
    result?;
    head.apply_late_deletions(&replayed.foreign_deletions);
    let replay = replayed.stats;
    tracing::debug!(dir = %dir.display(), ?replay, "read the write-ahead log");
    Ok(Arc::new(Db::assemble(options.clone(), head, blocks, replay, counters)))
}

/// Replays segments up to the first record that cannot be read. In the newest segment that is where
/// the writer is just now; before, it is damage, behind which the writer would read nothing either.
fn replay_log(
    dir: &Path,
    from: u32,
    counters: &Counters,
    mut visit: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<()> {
    let newest = segment::list_from(dir, from)?.pop();
    let result = match segment::under_repair(dir)? {
        None => read_records(dir, from..=u32::MAX, visit),
        // Its part that is rewritten is no more than what was set aside.
        Some(damaged) => {
            let earlier =
                if damaged > from { read_records(dir, from..=damaged - 1, &mut visit) } else { Ok(()) };
            earlier.and_then(|()| read_segment(&segment::repair_path(dir, damaged), damaged, visit))
        }
    };
    match result {
        Ok(()) => Ok(()),
        Err(ReadError::Corrupt(end)) if newest.is_none_or(|newest| end.segment >= newest) => {
            tracing::debug!(dir = %dir.display(), %end, "read the log up to its torn end");
            Ok(())
        }
        Err(ReadError::Corrupt(damage)) => {
            counters.wal_corruptions.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(dir = %dir.display(), %damage, "the log is damaged; what comes later is not read");
            Ok(())
        }
        Err(ReadError::Other(error)) => Err(error),
    }
}
