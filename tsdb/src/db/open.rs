//! Opening a data directory.
//!
//! For a read-only open see `read_only.rs`. Order: lock → remove half-made directories → blocks → head chunks →
//! snapshot of the head, if there is one to start from → checkpoint → log → write-behind log.
//!
//! `chunks_head/` comes before the log: samples that it holds are not replayed, and series references in it
//! are never given out again. Where it is damaged, nothing is lost: every in-order sample in it is in the
//! log or its checkpoint, and every out-of-order one in `wbl/` (a write-behind log is cut only after its
//! samples are in blocks).

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use ulid::Ulid;

use super::blocks::Blocks;
use super::{Counters, Db, DbOptions, Expiry, Log, read_only};
use crate::error::{Error, Result};
use crate::exemplar::ExemplarStorage;
use crate::fs::Lock;
use crate::head::snapshot;
use crate::head::{self, Head, Replayed, Replayer};
use crate::head_chunks::HeadChunks;
use crate::wal::{self, ReadError, Writer, read_records, read_segment_from, repair, segment};

pub(super) fn open(options: DbOptions) -> Result<Arc<Db>> {
    if options.block_range_ms <= 0 {
        return Err(Error::Invalid(format!("block range of {} ms is not positive", options.block_range_ms)));
    }
    if options.read_only {
        return read_only::open(&options);
    }
    let dir = options.path.as_path();
    crate::fs::create_dir_all(dir)?;
    let lock = if options.lockfile { Some(Lock::acquire(dir)?) } else { None };
    remove_half_made(dir, is_half_made)?;
    let wal_dir = wal::wal_dir(dir);
    remove_half_made(&wal_dir, is_half_made_checkpoint)?;
    undo_half_made_repair(&wal_dir)?;
    undo_half_made_repair(&wal::wbl_dir(dir))?;
    let blocks = Blocks::load(dir)?;
    let mut head = Head::new(options.block_range_ms, blocks.in_order_end().unwrap_or(i64::MIN));
    head.exemplars = ExemplarStorage::new(options.exemplars_max, 0);
    head.configure(&options);
    let counters = Counters::default();
    // Crash safety: a snapshot counts on the chunks of the head, so it goes before those that are damaged.
    let before_drop = || snapshot::remove_all(dir);
    let (chunks, loaded) =
        HeadChunks::open_then(&dir.join("chunks_head"), head.min_valid_time(), before_drop)?;
    head.use_chunks(chunks, loaded);
    let snapshot = if options.memory_snapshot {
        let snapshot = snapshot::read(dir, &wal_dir)?;
        if let Some(snapshot) = &snapshot {
            head.index.reserve_ref(snapshot.last_ref);
        }
        snapshot
    } else {
        snapshot::remove_all(dir)?;
        None
    };
    // Crash safety: who was killed did not sync them, and what is replayed may go to chunks of the head.
    for dir in [wal::wbl_dir(dir), wal_dir.clone()] {
        if let Some(last) = segment::list(&dir)?.last() {
            crate::fs::sync(&segment::path(&dir, *last))?;
        }
    }
    let (result, replayed) = head::replay(&head, |replayer| {
        let from = snapshot.map(|snapshot| {
            let from = (snapshot.segment, snapshot.offset);
            replayer.apply_snapshot(snapshot);
            from
        });
        replay_wal(&wal_dir, from, &options, replayer, &counters)?;
        replay_wbl(&wal::wbl_dir(dir), &options, replayer, &counters)
    });
    result?;
    let Replayed { stats: replay, aliases, foreign_deletions } = replayed;
    tracing::info!(
        dir = %dir.display(),
        records = replay.records,
        samples = replay.samples,
        out_of_order = replay.ooo_samples,
        "replayed the write-ahead log"
    );
    let writer = Writer::open(&wal_dir, options.wal_segment_bytes, options.wal_compression)?;
    let mut log = Log::new(writer, options.start_timestamps);
    // Where there is one, it says which chunks of the head are not needed any more.
    let has_behind = !segment::list(&wal::wbl_dir(dir))?.is_empty();
    if options.out_of_order_window_ms > 0 || head.ooo_min_time().is_some() || has_behind {
        log.begin_behind(write_behind(&options)?);
    }
    log.adopt_deletions(&head, &foreign_deletions);
    let maxt = head.bounds().map_or(i64::MIN, |b| b.1);
    let alias = |(alias, of)| (alias, Expiry { segment: 0, maxt, alias_of: Some(of) });
    log.expiring.extend(aliases.into_iter().map(alias));
    let mut db = Db::assemble(options, head, blocks, replay, counters);
    db.log = Some(Mutex::new(log));
    db.clean_start = lock.as_ref().map(|l| !l.was_stale());
    db.lock = Mutex::new(lock);
    Ok(Arc::new(db))
}

/// Begins a segment of the write-behind log.
pub(super) fn write_behind(options: &DbOptions) -> Result<Writer> {
    Writer::open(&wal::wbl_dir(&options.path), options.wal_segment_bytes, options.wal_compression)
}

/// Whether a crash left a directory of this name in the data directory: a block on its way in or out, or
/// a head snapshot of Prometheus. Whatever else the name says is somebody else's.
fn is_half_made(name: &str) -> bool {
    let Some((stem, end)) = name.rsplit_once('.') else { return false };
    match end {
        "tmp-for-creation" | "tmp-for-deletion" => Ulid::from_string(stem).is_ok(),
        "tmp" => Ulid::from_string(stem).is_ok() || stem.starts_with("chunk_snapshot."),
        _ => false,
    }
}

/// As [`is_half_made`], in the log's directory.
fn is_half_made_checkpoint(name: &str) -> bool {
    name.starts_with("checkpoint.") && name.ends_with(".tmp")
}

/// Removes directories that a crash left under a temporary name.
fn remove_half_made(dir: &Path, is_half_made: impl Fn(&str) -> bool) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("list", dir)(e)),
    };
    for entry in entries {
        let path = entry.map_err(Error::io("list", dir))?.path();
        let temporary = path.file_name().and_then(|n| n.to_str()).is_some_and(&is_half_made);
        if temporary && path.is_dir() {
            tracing::warn!(path = %path.display(), "removing a half-made directory");
            crate::fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

/// Puts back a segment whose repair was interrupted; replay will then repair it again.
fn undo_half_made_repair(dir: &Path) -> Result<()> {
    let Some(number) = segment::under_repair(dir)? else { return Ok(()) };
    let aside = segment::repair_path(dir, number);
    tracing::warn!(path = %aside.display(), "undoing a half-made repair");
    crate::fs::replace(&aside, &segment::path(dir, number))
}

/// Replays the newest checkpoint; gives the first segment that comes after it.
pub(super) fn replay_checkpoint(dir: &Path, replayer: &mut Replayer<'_>) -> Result<u32> {
    replay_checkpoint_from(dir, 0, replayer)
}

/// As [`replay_checkpoint`], but leaves out a checkpoint that ends before segment `from`.
fn replay_checkpoint_from(dir: &Path, from: u32, replayer: &mut Replayer<'_>) -> Result<u32> {
    let Some((checkpoint, last)) = segment::last_checkpoint(dir)? else { return Ok(0) };
    if last >= from {
        // Damage here is fatal: what it held exists nowhere else.
        read_records(&checkpoint, 0..=u32::MAX, |record| replayer.apply(record))
            .map_err(|e| e.into_error(&checkpoint))?;
    }
    Ok(last + 1)
}

/// Replays checkpoint and log, from segment and offset `from` on if there is a snapshot.
fn replay_wal(
    dir: &Path,
    from: Option<(u32, u64)>,
    options: &DbOptions,
    replayer: &mut Replayer<'_>,
    counters: &Counters,
) -> Result<()> {
    let (number, offset) = from.unwrap_or_default();
    let first = replay_checkpoint_from(dir, number, replayer)?;
    segment::list_all_from(dir, first)?;
    match replay_segments(dir, first.max(number), if first > number { 0 } else { offset }, replayer) {
        Ok(()) => Ok(()),
        Err(ReadError::Corrupt(damage)) => {
            counters.wal_corruptions.fetch_add(1, Ordering::Relaxed);
            repair::repair(dir, &damage, options.wal_segment_bytes, options.clock.now_ms())
        }
        Err(ReadError::Other(error)) => Err(error),
    }
}

/// Replays segments from the page at `offset` of `first` on.
fn replay_segments(
    dir: &Path,
    first: u32,
    offset: u64,
    replayer: &mut Replayer<'_>,
) -> Result<(), ReadError> {
    let path = segment::path(dir, first);
    if offset > 0 && path.exists() {
        read_segment_from(&path, first, offset, |record| replayer.apply(record))?;
        return read_records(dir, first + 1..=u32::MAX, |record| replayer.apply(record));
    }
    read_records(dir, first..=u32::MAX, |record| replayer.apply(record))
}

/// Out-of-order samples. Damage ends the replay; what is behind it is set aside, as in the log.
fn replay_wbl(
    dir: &Path,
    options: &DbOptions,
    replayer: &mut Replayer<'_>,
    counters: &Counters,
) -> Result<()> {
    match read_records(dir, 0..=u32::MAX, |record| replayer.apply_out_of_order(record)) {
        Ok(()) => Ok(()),
        Err(ReadError::Corrupt(damage)) => {
            counters.wal_corruptions.fetch_add(1, Ordering::Relaxed);
            repair::repair(dir, &damage, options.wal_segment_bytes, options.clock.now_ms())
        }
        Err(ReadError::Other(error)) => Err(error),
    }
}
