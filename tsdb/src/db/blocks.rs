//! The blocks of a data directory: which are loaded, and their coming and going.
//!
//! # Concurrency
//! The list is replaced as a whole. A read takes the list and then the head, and starts over if the
//! list was replaced meanwhile: what a truncation takes from the head is by then in a newer list.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use ulid::Ulid;

use crate::block::{self, Block, TMP_FOR_DELETION};
use crate::changes::Changes;
use crate::error::{Error, Result};
use crate::meta::Meta;
use crate::sample::TimestampMs;

/// So many blocks are opened before a thread is worth its while.
const FEW: usize = 8;

/// Loaded blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    dir: PathBuf,
    read_only: bool,
    loaded: RwLock<Arc<Vec<Arc<Block>>>>,
    generation: AtomicU64,
    /// Blocks that could not be loaded, and why; each is reported once.
    damaged: Mutex<BTreeMap<Ulid, String>>,
    /// Blocks that hold what the head, or their parents, held before.
    moved: Mutex<BTreeSet<Ulid>>,
    /// Where changes are noted.
    changes: OnceLock<Arc<Changes>>,
}

impl Blocks {
    /// Loads the blocks of `dir`.
    ///
    /// # Errors
    /// If the directory cannot be listed. A block that cannot be opened is left out.
    pub(super) fn load(dir: &Path) -> Result<Self> {
        for ulid in list(dir)? {
            // What cannot be repaired cannot be opened either, which is reported then.
            if let Err(error) = block::repair(&dir.join(ulid.to_string())) {
                tracing::debug!(block = %ulid, %error, "the block was not looked at for repair");
            }
        }
        Self::load_as(dir, false)
    }

    /// As [`Blocks::load`], but never deletes anything.
    ///
    /// # Errors
    /// As [`Blocks::load`].
    pub(super) fn load_read_only(dir: &Path) -> Result<Self> {
        Self::load_as(dir, true)
    }

    fn load_as(dir: &Path, read_only: bool) -> Result<Self> {
        let blocks = Self {
            dir: dir.to_path_buf(),
            read_only,
            loaded: RwLock::default(),
            generation: AtomicU64::new(0),
            damaged: Mutex::default(),
            moved: Mutex::default(),
            changes: OnceLock::new(),
        };
        blocks.reload()?;
        Ok(blocks)
    }

    /// Notes from now on where blocks that come and go change what there is.
    pub(super) fn note_changes(&self, changes: Arc<Changes>) {
        // Only the first counts; there is one.
        let _ = self.changes.set(changes);
    }

    /// Says that the block `ulid`, which is about to be loaded, holds what the head or its parents held.
    pub(super) fn expect_moved(&self, ulid: Ulid) {
        self.moved.lock().insert(ulid);
    }

    /// The loaded blocks, by start.
    pub(super) fn loaded(&self) -> Arc<Vec<Arc<Block>>> {
        Arc::clone(&self.loaded.read())
    }

    /// Changes when the list is replaced.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Number of blocks that are left out because they are damaged.
    pub(super) fn damaged(&self) -> usize {
        self.damaged.lock().len()
    }

    /// Loads blocks that appeared, forgets those that went, deletes those that a merge replaced.
    ///
    /// # Errors
    /// If the directory cannot be listed.
    pub(super) fn reload(&self) -> Result<()> {
        let known = self.loaded();
        let by_ulid: BTreeMap<Ulid, &Arc<Block>> = known.iter().map(|b| (b.ulid(), b)).collect();
        let (mut found, mut new) = (Vec::new(), Vec::new());
        for ulid in list(&self.dir)? {
            match by_ulid.get(&ulid) {
                Some(block) => found.push(Arc::clone(block)),
                None => new.push(ulid),
            }
        }
        let mut unreadable = Vec::new();
        for (ulid, opened) in self.open_all(&new) {
            match opened {
                Ok(block) => {
                    self.damaged.lock().remove(&ulid);
                    found.push(Arc::new(block));
                }
                // Its server deleted it.
                Err(_) if self.read_only && !self.dir.join(ulid.to_string()).exists() => {}
                Err(error) => unreadable.push((ulid, error)),
            }
        }
        let replaced = replaced(&found);
        found.retain(|b| !replaced.contains(&b.ulid()));
        found.sort_by_key(|b| (b.min_time(), b.max_time(), b.ulid()));
        // What a sound block took over is not missed.
        self.damaged.lock().retain(|ulid, _| !replaced.contains(ulid));
        for (ulid, error) in unreadable.iter().filter(|(ulid, _)| !replaced.contains(ulid)) {
            self.leave_out(*ulid, error);
        }
        if !found.iter().map(Arc::as_ptr).eq(known.iter().map(Arc::as_ptr)) {
            self.replace(found);
        }
        if self.read_only {
            return Ok(());
        }
        self.delete_dirs(replaced)
    }

    /// Opens blocks, many of them on all cores: each checks its symbols and its postings table.
    fn open_all(&self, ulids: &[Ulid]) -> Vec<(Ulid, Result<Block>)> {
        let open = |ulid: &Ulid| (*ulid, Block::open(&self.dir.join(ulid.to_string())));
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(ulids.len() / FEW);
        if threads <= 1 {
            return ulids.iter().map(open).collect();
        }
        let open = &open;
        std::thread::scope(|scope| {
            let share = ulids.len().div_ceil(threads);
            let shares = ulids
                .chunks(share)
                .map(|share| (share, scope.spawn(move || share.iter().map(open).collect::<Vec<_>>())));
            // Collected, so that all of them work at once.
            let shares: Vec<_> = shares.collect();
            shares
                .into_iter()
                .flat_map(|(share, thread)| {
                    thread.join().unwrap_or_else(|_| share.iter().map(open).collect())
                })
                .collect()
        })
    }

    /// Takes blocks out of the list and deletes them.
    ///
    /// # Errors
    /// If a directory cannot be removed.
    pub(super) fn delete(&self, ulids: &[Ulid]) -> Result<()> {
        let kept = self.loaded().iter().filter(|b| !ulids.contains(&b.ulid())).cloned().collect();
        self.replace(kept);
        self.damaged.lock().retain(|ulid, _| !ulids.contains(ulid));
        self.delete_dirs(ulids.iter().copied())
    }

    /// End of the newest block of in-order samples: the head takes nothing before.
    pub(super) fn in_order_end(&self) -> Option<TimestampMs> {
        let loaded = self.loaded();
        loaded.iter().map(|b| b.meta()).filter(Meta::is_whole_view).map(|m| m.max_time).max()
    }

    fn replace(&self, blocks: Vec<Arc<Block>>) {
        let blocks = Arc::new(blocks);
        let before = std::mem::replace(&mut *self.loaded.write(), Arc::clone(&blocks));
        self.generation.fetch_add(1, Ordering::SeqCst);
        if let Some(changes) = self.changes.get() {
            self.note_difference(&before, &blocks, changes);
        }
    }

    fn note_difference(&self, before: &[Arc<Block>], after: &[Arc<Block>], changes: &Changes) {
        let mut moved = self.moved.lock();
        let is_in = |blocks: &[Arc<Block>], ulid| blocks.iter().any(|b| b.ulid() == ulid);
        let new = || after.iter().filter(|b| !is_in(before, b.ulid()));
        let mut taken_over = BTreeSet::new();
        for block in new().filter(|b| moved.contains(&b.ulid())) {
            taken_over.extend(block.meta().compaction.parents.iter().map(|p| p.ulid));
        }
        let gone = before.iter().filter(|b| !is_in(after, b.ulid()) && !taken_over.contains(&b.ulid()));
        for block in gone.chain(new().filter(|b| !moved.contains(&b.ulid()))) {
            changes.changed(block.min_time(), block.max_time().saturating_sub(1));
        }
        moved.clear();
    }

    fn leave_out(&self, ulid: Ulid, error: &Error) {
        let reason = error.to_string();
        if self.damaged.lock().insert(ulid, reason.clone()).is_none() {
            tracing::error!(block = %ulid, %reason, "the block cannot be read and is left out");
        }
    }

    /// Deletes all that can be, and gives the first error.
    fn delete_dirs(&self, ulids: impl IntoIterator<Item = Ulid>) -> Result<()> {
        let mut result = Ok(());
        for ulid in ulids {
            result = result.and(self.delete_dir(ulid));
        }
        result
    }

    /// Crash safety: the new name marks the directory as gone before its files go one by one.
    fn delete_dir(&self, ulid: Ulid) -> Result<()> {
        let path = self.dir.join(ulid.to_string());
        let doomed = self.dir.join(format!("{ulid}{TMP_FOR_DELETION}"));
        if !path.exists() {
            return Ok(());
        }
        crate::fs::replace(&path, &doomed)?;
        crate::fs::remove_dir_all(&doomed)
    }
}

/// Names of the blocks in `dir`.
///
/// # Errors
/// If the directory cannot be listed.
pub(super) fn list(dir: &Path) -> Result<Vec<Ulid>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let entry = entry.map_err(Error::io("list", dir))?;
        let name = entry.file_name();
        let ulid =
            name.to_str().filter(|n| n.len() == ulid::ULID_LEN).and_then(|n| Ulid::from_string(n).ok());
        if entry.path().is_dir() {
            out.extend(ulid);
        }
    }
    Ok(out)
}

/// Blocks that are marked as deletable, or whose samples a loaded block took over.
fn replaced(blocks: &[Arc<Block>]) -> BTreeSet<Ulid> {
    let mut out = BTreeSet::new();
    for block in blocks {
        let meta = block.meta();
        if meta.compaction.deletable {
            out.insert(meta.ulid);
        }
        out.extend(meta.compaction.parents.iter().map(|p| p.ulid));
    }
    out
}
