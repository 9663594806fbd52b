//! Files and directories so that a crash leaves either the old state or the new one.
//!
//! # Crash safety
//! A rename is durable only after the directory that holds the name is synced; [`replace`] does
//! both, which is why plain `std::fs::rename` is refused by lint.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Renames `from` to `to`, replacing what is there, and syncs the directory of `to`.
///
/// # Errors
/// If the operating system refuses either step.
#[expect(clippy::disallowed_methods, reason = "this is the function that the lint points to")]
pub fn replace(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::io("rename to", to))?;
    match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}

/// Makes the entries of a directory durable.
///
/// # Errors
/// If the directory cannot be opened or synced.
pub fn sync_dir(dir: &Path) -> Result<()> {
    step();
    File::open(dir).and_then(|f| f.sync_all()).map_err(Error::io("sync", dir))
}

/// Removes a file.
///
/// # Errors
/// If the operating system refuses.
pub fn remove_file(path: &Path) -> Result<()> {
    step();
    fs::remove_file(path).map_err(Error::io("remove", path))
}

/// Removes a directory and what is in it.
///
/// # Errors
/// If the operating system refuses.
pub fn remove_dir_all(path: &Path) -> Result<()> {
    step();
    fs::remove_dir_all(path).map_err(Error::io("remove", path))
}

#[cfg(test)]
thread_local! {
    /// What a test of this thread does between two steps of an operation, where a crash could be.
    static AT_STEP: std::cell::RefCell<Option<Box<dyn FnMut()>>> = const { std::cell::RefCell::new(None) };
}

/// Calls `at_step` before each removal, and after each file or directory got its name, on this thread.
#[cfg(test)]
pub(crate) fn at_steps(at_step: Option<Box<dyn FnMut()>>) {
    AT_STEP.with(|slot| *slot.borrow_mut() = at_step);
}

fn step() {
    #[cfg(test)]
    AT_STEP.with(|slot| {
        if let Some(at_step) = slot.borrow_mut().as_mut() {
            at_step();
        }
    });
}

/// Writes a whole file through `<path>.tmp`, synced and then renamed over `path`.
///
/// # Errors
/// If the operating system refuses.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut tmp = path.as_os_str().to_owned();
    tmp.push(".tmp");
    let tmp = PathBuf::from(tmp);
    let mut file = File::create(&tmp).map_err(Error::io("create", &tmp))?;
    file.write_all(bytes).map_err(Error::io("write", &tmp))?;
    file.sync_all().map_err(Error::io("sync", &tmp))?;
    drop(file);
    replace(&tmp, path)
}

/// Reads a whole file.
///
/// # Errors
/// If the operating system refuses.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::io("read", path))
}

/// Maps a file that nobody changes any more.
///
/// # Errors
/// If the file cannot be opened or mapped.
pub fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    // SAFETY: the files mapped here (index and chunk segments of a block) are immutable once their
    // directory has its final name: no process that keeps the format truncates or rewrites them, and
    // deleting a block unlinks them, which leaves the mapping valid.
    unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))
}

/// Maps the first `bytes` bytes of a file that is being written, which may be shorter.
///
/// The caller must not touch what was not written yet.
///
/// # Errors
/// If the file cannot be opened or mapped.
pub fn map_growing(path: &Path, bytes: u64) -> Result<Mmap> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let len = usize::try_from(bytes).unwrap_or(usize::MAX);
    // SAFETY: files mapped here (head chunks) are only ever appended to by the one process that holds
    // the data directory, and the caller touches only what was written. Deleting one unlinks it, which
    // leaves the mapping valid.
    unsafe { memmap2::MmapOptions::new().len(len).map(&file) }.map_err(Error::io("map", path))
}

/// Cuts a file to `bytes` bytes.
///
/// # Errors
/// If the operating system refuses.
pub fn shorten(path: &Path, bytes: u64) -> Result<()> {
    step();
    let file = OpenOptions::new().write(true).open(path).map_err(Error::io("open", path))?;
    file.set_len(bytes).map_err(Error::io("shorten", path))
}

/// Writes a new file front to back and knows where it is.
#[derive(Debug)]
pub struct FileWriter {
    path: PathBuf,
    file: BufWriter<File>,
    position: u64,
}

impl FileWriter {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        Ok(Self { path, file: BufWriter::with_capacity(1 << 18, file), position: 0 })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes written so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Appends zeros up to a multiple of `align`, at most 16.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn pad(&mut self, align: u64) -> Result<()> {
        let zeros = (align - self.position % align) % align;
        self.write(&[0; 16][..zeros as usize])
    }

    /// Overwrites bytes that were written before.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn write_at(&mut self, position: u64, bytes: &[u8]) -> Result<()> {
        let mut patch = || {
            self.file.seek(SeekFrom::Start(position))?;
            self.file.write_all(bytes)?;
            self.file.seek(SeekFrom::Start(self.position))
        };
        patch().map(drop).map_err(Error::io("write", &self.path))
    }

    /// Hands everything to the operating system, for instance to map what was written.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::io("write", &self.path))
    }

    /// Flushes and syncs the file. Its name is durable only once the directory is synced.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn finish(mut self) -> Result<()> {
        self.flush()?;
        self.file.get_ref().sync_all().map_err(Error::io("sync", &self.path))
    }
}

/// Size of all files below `dir`, bytes. What disappears meanwhile counts as 0.
pub fn dir_size(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|e| match e.metadata() {
            Ok(m) if m.is_dir() => dir_size(&e.path()),
            Ok(m) => m.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Sole use of a data directory, held until dropped: an exclusive `flock` on the file `lock` in it,
/// as Prometheus takes it, so the two exclude each other.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    existed: bool,
    _file: File,
}

impl Lock {
    /// Takes the lock of `dir`.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process (or another `Lock` of this one) holds it.
    pub fn acquire(dir: &Path) -> Result<Self> {
        let path = dir.join("lock");
        let existed = path.exists();
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, existed, _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked { path }),
            Err(TryLockError::Error(source)) => Err(Error::Io { action: "lock", path, source }),
        }
    }

    /// Whether a previous owner left without releasing the lock, as after a crash.
    pub fn was_stale(&self) -> bool {
        self.existed
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The file goes first, while it is still locked; closing it then releases the lock. A failure
        // only means that the next start sees a stale lock.
        drop(fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::acquire(dir.path()).unwrap();
        assert!(!first.was_stale());
        assert!(matches!(Lock::acquire(dir.path()), Err(Error::Locked { .. })));
        drop(first);
        assert!(!Lock::acquire(dir.path()).unwrap().was_stale());
    }

    #[test]
    fn a_lock_file_left_behind_is_taken_over_as_stale() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("lock"), "").unwrap();
        assert!(Lock::acquire(dir.path()).unwrap().was_stale());
    }

    #[test]
    fn write_atomic_replaces_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.json");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(dir_size(dir.path()), 3);
    }
}
