//! Files and directories so that a crash leaves either the old state or the new one.
//!
//! Every change of the disk that this crate makes goes through here, so that tests can record all of
//! them in order and make each of them fail ([`watch()`], [`Journal`]). `std::fs` is for reading.
//!
//! # Crash safety
//! A rename is durable only after the directory that holds the name is synced; [`replace`] does
//! both, which is why plain `std::fs::rename` is refused by lint. The same goes for a new directory
//! ([`create_dir_all`] syncs what holds it), and for a new file, which is its maker's business.

mod file;
mod journal;
mod watch;

use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{Error, Result};

pub use file::File;
pub use journal::{Cut, Fault, FaultKind, Image, Journal, Recording, Step};
pub use watch::{Op, Refusal, Watch, Watching, watch};

use watch::perform;

/// Renames `from` to `to`, replacing what is there, and syncs the directory of `to`.
///
/// # Errors
/// If the operating system refuses either step.
#[expect(clippy::disallowed_methods, reason = "this is the function that the lint points to")]
pub fn replace(from: &Path, to: &Path) -> Result<()> {
    perform(Op::Rename { from, to }, || fs::rename(from, to)).map_err(Error::io("rename to", to))?;
    sync_dir(holder(to))
}

/// The directory that holds a name.
fn holder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Gives a file a second name, without a sync of the directory.
///
/// # Errors
/// If the operating system refuses, as for a name on another disk.
pub fn hard_link(from: &Path, to: &Path) -> Result<()> {
    perform(Op::Link { from, to }, || fs::hard_link(from, to)).map_err(Error::io("link to", to))
}

/// Copies the contents of a file to a new one and syncs it.
///
/// # Errors
/// If the operating system refuses.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut source = fs::File::open(from).map_err(Error::io("open", from))?;
    let mut file = File::create(to)?;
    io::copy(&mut source, &mut file).map_err(Error::io("copy to", to))?;
    file.sync()
}

/// Makes a directory and those above it that are missing, and their names durable.
///
/// # Errors
/// If the operating system refuses.
pub fn create_dir_all(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(above) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        create_dir_all(above)?;
    }
    match perform(Op::MakeDir { path: dir }, || fs::create_dir(dir)) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => return Ok(()),
        result => result.map_err(Error::io("create", dir))?,
    }
    sync_dir(holder(dir))
}

/// Makes the contents of a file durable, whoever wrote them.
///
/// # Errors
/// If there is no such file, or the operating system refuses.
pub fn sync(path: &Path) -> Result<()> {
    File::open(path)?.sync()
}

/// Makes the entries of a directory durable.
///
/// # Errors
/// If the directory cannot be opened or synced.
pub fn sync_dir(dir: &Path) -> Result<()> {
    step();
    perform(Op::SyncDir { path: dir }, || fs::File::open(dir).and_then(|f| f.sync_all()))
        .map_err(Error::io("sync", dir))
}

/// Removes a file.
///
/// # Errors
/// If the operating system refuses.
pub fn remove_file(path: &Path) -> Result<()> {
    step();
    perform(Op::RemoveFile { path }, || fs::remove_file(path)).map_err(Error::io("remove", path))
}

/// Removes a directory and what is in it.
///
/// # Errors
/// If the operating system refuses.
pub fn remove_dir_all(path: &Path) -> Result<()> {
    step();
    let result = match watch::watcher(path) {
        None => fs::remove_dir_all(path),
        Some(_) => remove_one_by_one(path),
    };
    result.map_err(Error::io("remove", path))
}

/// What [`fs::remove_dir_all`] does, with each step seen.
fn remove_one_by_one(dir: &Path) -> io::Result<()> {
    let mut entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    // An order that does not hang on the file system, so that a test can be repeated.
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            remove_one_by_one(&path)?;
        } else {
            perform(Op::RemoveFile { path: &path }, || fs::remove_file(&path))?;
        }
    }
    perform(Op::RemoveDir { path: dir }, || fs::remove_dir(dir))
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
    let mut file = File::create(&tmp)?;
    file.write_all(bytes)?;
    file.sync()?;
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
    let file = fs::File::open(path).map_err(Error::io("open", path))?;
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
    let file = fs::File::open(path).map_err(Error::io("open", path))?;
    let len = usize::try_from(bytes).unwrap_or(usize::MAX);
    // SAFETY: files mapped here (head chunks) are only ever appended to by the one process that holds
    // the data directory, and the caller touches only what was written. Deleting one unlinks it, which
    // leaves the mapping valid.
    unsafe { memmap2::MmapOptions::new().len(len).map(&file) }.map_err(Error::io("map", path))
}

/// Cuts a file to `bytes` bytes, without a sync.
///
/// # Errors
/// If the operating system refuses.
pub fn shorten(path: &Path, bytes: u64) -> Result<()> {
    step();
    File::open(path)?.set_len(bytes)
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
        let file = File::create(&path)?;
        Ok(Self { path, file: BufWriter::with_capacity(1 << 18, file), position: 0 })
    }

    /// Opens a file that is there, to go on at its end.
    ///
    /// # Errors
    /// If there is none, or the operating system refuses.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let file = File::open(&path)?;
        let position = file.position();
        Ok(Self { path, file: BufWriter::with_capacity(1 << 18, file), position })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes written so far, with what was there before.
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
        self.file.get_ref().sync()
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

/// Size of the filesystem that `path` is on, bytes, used or not.
///
/// # Errors
/// If the operating system refuses.
pub fn filesystem_bytes(path: &Path) -> Result<u64> {
    use std::os::unix::ffi::OsStrExt as _;
    let error = |source| Error::Io { action: "measure the filesystem of", path: path.to_owned(), source };
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())
        .map_err(|e| error(io::Error::new(io::ErrorKind::InvalidInput, e)))?;
    let mut stats = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `name` ends with a NUL and `stats` is as large as the call writes.
    if unsafe { libc::statvfs(name.as_ptr(), stats.as_mut_ptr()) } != 0 {
        return Err(error(io::Error::last_os_error()));
    }
    // SAFETY: the call succeeded, so it wrote all of it.
    let stats = unsafe { stats.assume_init() };
    Ok(stats.f_blocks * stats.f_frsize)
}

/// Sole use of a data directory, held until dropped: an exclusive `flock` on the file `lock` in it,
/// as Prometheus takes it, so the two exclude each other.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    existed: bool,
    _file: fs::File,
}

impl Lock {
    /// Takes the lock of `dir`.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process (or another `Lock` of this one) holds it.
    pub fn acquire(dir: &Path) -> Result<Self> {
        let path = dir.join("lock");
        let existed = path.exists();
        let open = || OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = if existed { open() } else { perform(Op::CreateFile { path: &path }, open) };
        let file = file.map_err(Error::io("open", &path))?;
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
        drop(perform(Op::RemoveFile { path: &self.path }, || fs::remove_file(&self.path)));
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

    /// What is outside could neither be recorded nor made to fail.
    #[test]
    fn only_the_file_layer_changes_the_disk() {
        const CHANGES: [&str; 12] = [
            "fs::write(",
            "fs::rename(",
            "fs::hard_link(",
            "fs::copy(",
            "fs::create_dir",
            "fs::remove_",
            "fs::set_len(",
            "File::create",
            "File::options",
            "OpenOptions",
            "set_len(",
            "MmapMut",
        ];
        let mut found = Vec::new();
        let mut todo = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(dir) = todo.pop() {
            for path in fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()) {
                if path.is_dir() {
                    todo.extend((!path.ends_with("src/fs")).then_some(path));
                    continue;
                }
                let text = fs::read_to_string(&path).unwrap();
                // By the house rules tests come last in a file, or have one of their own.
                let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                let code = if name.ends_with("tests.rs") {
                    ""
                } else {
                    text.split("#[cfg(test)]\nmod ").next().unwrap()
                };
                let imports = || code.lines().filter(|l| l.trim_start().starts_with("use std::fs"));
                let std_fs = imports().any(|l| l.contains("fs;") || l.contains("{self"));
                let std_file = imports().any(|l| l.contains("File") || l.contains("OpenOptions"));
                for (i, line) in code.lines().enumerate().filter(|(_, l)| !l.contains("crate::fs")) {
                    let changes = CHANGES.iter().any(|c| {
                        line.contains(&format!("std::{c}"))
                            || line.contains(c) && (if c.starts_with("fs::") { std_fs } else { std_file })
                    });
                    if changes {
                        found.push(format!("{}:{}: {}", path.display(), i + 1, line.trim()));
                    }
                }
            }
        }
        assert!(found.is_empty(), "use crate::fs for what changes the disk:\n{}", found.join("\n"));
    }
}
