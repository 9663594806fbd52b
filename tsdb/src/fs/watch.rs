//! Who watches the mutations of a directory, so that tests can record them and make them fail.
//!
//! Nobody does in production: a mutation then costs one relaxed load, and a write to an open file
//! one test of a pointer.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

/// One change of what is on disk, or one step that makes changes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op<'a> {
    /// Makes an empty file, or empties the one that is there.
    CreateFile {
        /// The file.
        path: &'a Path,
    },
    /// Writes bytes at an offset.
    Write {
        /// The file.
        path: &'a Path,
        /// Where, bytes.
        offset: u64,
        /// What.
        bytes: &'a [u8],
    },
    /// Cuts a file, or extends it with zeros.
    SetLen {
        /// The file.
        path: &'a Path,
        /// The new length, bytes.
        len: u64,
    },
    /// Makes the contents of a file durable.
    SyncFile {
        /// The file.
        path: &'a Path,
    },
    /// Makes the names in a directory durable.
    SyncDir {
        /// The directory.
        path: &'a Path,
    },
    /// Gives a file or directory another name, replacing what has that name.
    Rename {
        /// The old name.
        from: &'a Path,
        /// The new name.
        to: &'a Path,
    },
    /// Gives a file a second name.
    Link {
        /// The name that it has.
        from: &'a Path,
        /// The other name.
        to: &'a Path,
    },
    /// Takes a name away.
    RemoveFile {
        /// The file.
        path: &'a Path,
    },
    /// Takes an empty directory away.
    RemoveDir {
        /// The directory.
        path: &'a Path,
    },
    /// Makes an empty directory.
    MakeDir {
        /// The directory.
        path: &'a Path,
    },
}

impl<'a> Op<'a> {
    /// The name that changes; of two, the new one.
    pub fn path(&self) -> &'a Path {
        match self {
            Self::CreateFile { path }
            | Self::Write { path, .. }
            | Self::SetLen { path, .. }
            | Self::SyncFile { path }
            | Self::SyncDir { path }
            | Self::RemoveFile { path }
            | Self::RemoveDir { path }
            | Self::MakeDir { path } => path,
            Self::Rename { to, .. } | Self::Link { to, .. } => to,
        }
    }
}

/// Why an operation is not carried out.
#[derive(Debug)]
pub struct Refusal {
    /// What the operating system is made to say.
    pub error: io::Error,
    /// How many bytes of a write reach the file all the same.
    pub written: usize,
}

/// Is told about every mutation below one directory, by whatever thread makes it.
pub trait Watch: Debug + Send + Sync {
    /// Before an operation is carried out.
    ///
    /// # Errors
    /// To make the operation fail.
    fn before(&self, op: &Op<'_>) -> Result<(), Refusal>;

    /// After an operation succeeded, and before its caller goes on.
    fn after(&self, op: &Op<'_>);
}

/// So that production pays a load and not a lock.
static WATCHES: AtomicUsize = AtomicUsize::new(0);
static WATCHED: RwLock<Vec<(PathBuf, Arc<dyn Watch>)>> = RwLock::new(Vec::new());

/// Ends a [`watch`] when dropped.
#[derive(Debug)]
pub struct Watching(PathBuf);

/// Watches everything below `dir`, an absolute path. Files that are open already are not watched.
///
/// A file must not be renamed while it is being written: its writes would come under the old name.
pub fn watch(dir: &Path, watch: Arc<dyn Watch>) -> Watching {
    WATCHED.write().push((dir.to_path_buf(), watch));
    WATCHES.fetch_add(1, Ordering::Relaxed);
    Watching(dir.to_path_buf())
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut watched = WATCHED.write();
        if let Some(i) = watched.iter().rposition(|(dir, _)| *dir == self.0) {
            watched.remove(i);
            WATCHES.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Who watches `path`.
pub(super) fn watcher(path: &Path) -> Option<Arc<dyn Watch>> {
    if WATCHES.load(Ordering::Relaxed) == 0 {
        return None;
    }
    WATCHED.read().iter().rev().find(|(dir, _)| path.starts_with(dir)).map(|(_, watch)| Arc::clone(watch))
}

/// Carries out an operation under the eyes of who watches it.
pub(super) fn perform<T>(op: Op<'_>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(watch) = watcher(op.path()) else { return act() };
    watch.before(&op).map_err(|refusal| refusal.error)?;
    let out = act()?;
    watch.after(&op);
    Ok(out)
}
