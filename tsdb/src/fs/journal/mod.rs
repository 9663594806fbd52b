//! [`Journal`]: every mutation of a directory in order, to bring back what the disk held at any time,
//! and faults. For tests.

mod image;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::watch::{Op, Refusal, Watch, Watching, watch};

pub use image::{Cut, Image};

/// A recorded [`Op`]; names are relative to the directory that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in `Op`")]
pub enum Step {
    CreateFile { path: PathBuf },
    Write { path: PathBuf, offset: u64, bytes: Box<[u8]> },
    SetLen { path: PathBuf, len: u64 },
    SyncFile { path: PathBuf },
    SyncDir { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Link { from: PathBuf, to: PathBuf },
    RemoveFile { path: PathBuf },
    RemoveDir { path: PathBuf },
    MakeDir { path: PathBuf },
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::CreateFile { path } => write!(f, "create {}", path.display()),
            Self::Write { path, offset, bytes } => {
                write!(f, "write {} at {offset}: {} bytes", path.display(), bytes.len())
            }
            Self::SetLen { path, len } => write!(f, "cut {} to {len}", path.display()),
            Self::SyncFile { path } => write!(f, "sync {}", path.display()),
            Self::SyncDir { path } => write!(f, "sync directory {}", path.display()),
            Self::Rename { from, to } => write!(f, "rename {} to {}", from.display(), to.display()),
            Self::Link { from, to } => write!(f, "link {} as {}", from.display(), to.display()),
            Self::RemoveFile { path } => write!(f, "remove {}", path.display()),
            Self::RemoveDir { path } => write!(f, "remove directory {}", path.display()),
            Self::MakeDir { path } => write!(f, "make directory {}", path.display()),
        }
    }
}

/// Which operations a [`Fault`] is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// Any.
    Any,
    /// Writing bytes.
    Write,
    /// Syncing a file or a directory.
    Sync,
    /// Renaming and linking.
    Rename,
    /// Making files and directories.
    Create,
    /// Removing files and directories.
    Remove,
}

impl FaultKind {
    fn is_of(self, op: &Op<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Write => matches!(op, Op::Write { .. } | Op::SetLen { .. }),
            Self::Sync => matches!(op, Op::SyncFile { .. } | Op::SyncDir { .. }),
            Self::Rename => matches!(op, Op::Rename { .. } | Op::Link { .. }),
            Self::Create => matches!(op, Op::CreateFile { .. } | Op::MakeDir { .. }),
            Self::Remove => matches!(op, Op::RemoveFile { .. } | Op::RemoveDir { .. }),
        }
    }
}

/// Makes an operation fail.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Which operations count.
    pub kind: FaultKind,
    /// Only on names that contain this.
    pub path: String,
    /// How many of them go well first.
    pub after: usize,
    /// How many then fail; `usize::MAX` for all.
    pub times: usize,
    /// Such as `libc::ENOSPC`.
    pub errno: i32,
    /// How many bytes of a failing write reach the file.
    pub written: usize,
}

impl Fault {
    /// The next operation of a kind fails with `errno`, once.
    pub fn next(kind: FaultKind, errno: i32) -> Self {
        Self { kind, path: String::new(), after: 0, times: 1, errno, written: 0 }
    }
}

/// Records what happens below a directory, and makes it fail on request.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    /// What was there when the recording began.
    start: Image,
    steps: Mutex<Vec<Arc<Step>>>,
    faults: Mutex<Vec<Fault>>,
    /// Number of operations that were made to fail.
    failed: Mutex<usize>,
}

/// Ends the recording when dropped.
#[derive(Debug)]
pub struct Recording {
    journal: Arc<Journal>,
    _watching: Watching,
}

impl std::ops::Deref for Recording {
    type Target = Journal;

    fn deref(&self) -> &Journal {
        &self.journal
    }
}

impl Journal {
    /// Records everything below `dir`, an absolute path, from now on. What is there counts as durable.
    ///
    /// # Errors
    /// If what is there cannot be read.
    pub fn record(dir: &Path) -> io::Result<Recording> {
        let journal = Arc::new(Self {
            dir: dir.to_path_buf(),
            start: Image::load(dir)?,
            steps: Mutex::default(),
            faults: Mutex::default(),
            failed: Mutex::default(),
        });
        let watching = watch(dir, Arc::clone(&journal) as _);
        Ok(Recording { journal, _watching: watching })
    }

    /// Number of steps so far. Whatever a call did before it returned is among them.
    pub fn len(&self) -> usize {
        self.steps.lock().len()
    }

    /// Whether nothing happened yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All steps so far.
    pub fn steps(&self) -> Vec<Arc<Step>> {
        self.steps.lock().clone()
    }

    /// What was on disk when the recording began; [`Image::apply`] takes it on.
    pub fn start(&self) -> Image {
        self.start.clone()
    }

    /// Adds a fault; several may be pending, each counts for itself.
    pub fn fail(&self, fault: Fault) {
        self.faults.lock().push(fault);
    }

    /// Takes back all faults, and says how many operations failed since the last call.
    pub fn heal(&self) -> usize {
        self.faults.lock().clear();
        std::mem::take(&mut self.failed.lock())
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.dir).unwrap_or(path).to_path_buf()
    }

    fn step(&self, op: &Op<'_>) -> Step {
        let path = self.relative(op.path());
        match *op {
            Op::CreateFile { .. } => Step::CreateFile { path },
            Op::Write { offset, bytes, .. } => Step::Write { path, offset, bytes: bytes.into() },
            Op::SetLen { len, .. } => Step::SetLen { path, len },
            Op::SyncFile { .. } => Step::SyncFile { path },
            Op::SyncDir { .. } => Step::SyncDir { path },
            Op::Rename { from, .. } => Step::Rename { from: self.relative(from), to: path },
            Op::Link { from, .. } => Step::Link { from: self.relative(from), to: path },
            Op::RemoveFile { .. } => Step::RemoveFile { path },
            Op::RemoveDir { .. } => Step::RemoveDir { path },
            Op::MakeDir { .. } => Step::MakeDir { path },
        }
    }
}

impl Watch for Journal {
    fn before(&self, op: &Op<'_>) -> Result<(), Refusal> {
        let name = op.path().to_string_lossy();
        for fault in self.faults.lock().iter_mut() {
            if !fault.kind.is_of(op) || !name.contains(&fault.path) || fault.times == 0 {
                continue;
            }
            if fault.after > 0 {
                fault.after -= 1;
                continue;
            }
            fault.times -= usize::from(fault.times != usize::MAX);
            *self.failed.lock() += 1;
            return Err(Refusal { error: io::Error::from_raw_os_error(fault.errno), written: fault.written });
        }
        Ok(())
    }

    fn after(&self, op: &Op<'_>) {
        let step = Arc::new(self.step(op));
        self.steps.lock().push(step);
    }
}

#[cfg(test)]
mod tests;
