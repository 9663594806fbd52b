//! A file that is being written.

use std::fs;
use std::io::{self, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::watch::{Op, Watch, perform, watcher};
use crate::error::{Error, Result};

/// An open file for writing. Nothing is buffered: a write that returned has reached the operating
/// system, and survives the end of the process.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    file: fs::File,
    /// Where the next write goes.
    position: u64,
    watch: Option<Arc<dyn Watch>>,
}

impl File {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn create(path: &Path) -> Result<Self> {
        Self::make(path, fs::OpenOptions::new().create(true).truncate(true))
    }

    /// Creates the file.
    ///
    /// # Errors
    /// If there is one of that name already, or the operating system refuses.
    pub fn create_new(path: &Path) -> Result<Self> {
        Self::make(path, fs::OpenOptions::new().create_new(true))
    }

    fn make(path: &Path, options: &mut fs::OpenOptions) -> Result<Self> {
        let file = perform(Op::CreateFile { path }, || options.read(true).write(true).open(path))
            .map_err(Error::io("create", path))?;
        Ok(Self::new(path, file, 0))
    }

    /// Opens a file that is there, to go on at its end.
    ///
    /// # Errors
    /// If there is none, or the operating system refuses.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || {
            let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
            let len = file.metadata()?.len();
            Ok((file, len))
        };
        let (file, len) = open().map_err(Error::io("open", path))?;
        let mut file = Self::new(path, file, len);
        file.seek(SeekFrom::Start(len)).map_err(Error::io("open", path))?;
        Ok(file)
    }

    fn new(path: &Path, file: fs::File, position: u64) -> Self {
        Self { path: path.to_path_buf(), file, position, watch: watcher(path) }
    }

    /// The same open file once more.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn duplicate(&self) -> Result<Self> {
        let file = self.file.try_clone().map_err(Error::io("open", &self.path))?;
        Ok(Self { path: self.path.clone(), file, position: self.position, watch: self.watch.clone() })
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the next write goes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The file of the operating system, to read or map it.
    pub fn as_file(&self) -> &fs::File {
        &self.file
    }

    /// Appends bytes, all of them.
    ///
    /// # Errors
    /// If the operating system refuses; how much was written is then not known.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        Write::write_all(self, bytes).map_err(Error::io("write", &self.path))
    }

    /// Writes at a place of its own; where the next [`File::write_all`] goes does not change.
    ///
    /// # Errors
    /// As [`File::write_all`].
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let back = self.position;
        let mut patch = || {
            self.seek(SeekFrom::Start(offset))?;
            Write::write_all(self, bytes)?;
            self.seek(SeekFrom::Start(back))
        };
        patch().map(drop).map_err(Error::io("write", &self.path))
    }

    /// Cuts the file, or extends it with zeros.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn set_len(&mut self, len: u64) -> Result<()> {
        self.observed(|path| Op::SetLen { path, len }, |file| file.set_len(len))
            .map_err(Error::io("truncate", &self.path))
    }

    /// Makes the contents durable. The name is durable only once the directory is synced.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn sync(&self) -> Result<()> {
        self.observed(|path| Op::SyncFile { path }, fs::File::sync_all).map_err(Error::io("sync", &self.path))
    }

    /// As [`File::sync`], without what only describes the file, such as the time of the last change.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn sync_data(&self) -> Result<()> {
        self.observed(|path| Op::SyncFile { path }, fs::File::sync_data)
            .map_err(Error::io("sync", &self.path))
    }

    fn observed<'a>(
        &'a self,
        op: impl FnOnce(&'a Path) -> Op<'a>,
        act: impl FnOnce(&fs::File) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(watch) = &self.watch else { return act(&self.file) };
        let op = op(&self.path);
        watch.before(&op).map_err(|refusal| refusal.error)?;
        act(&self.file)?;
        watch.after(&op);
        Ok(())
    }

    /// Fails every write from now on.
    #[cfg(test)]
    pub(crate) fn break_writes(&mut self) {
        self.file = fs::File::open(&self.path).expect("the file exists");
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(watch) = &self.watch else {
            let written = self.file.write(bytes)?;
            self.position += written as u64;
            return Ok(written);
        };
        let op = Op::Write { path: &self.path, offset: self.position, bytes };
        let refused = watch.before(&op).err();
        let allowed = refused.as_ref().map_or(bytes.len(), |r| r.written.min(bytes.len()));
        self.file.write_all(&bytes[..allowed])?;
        if allowed > 0 {
            watch.after(&Op::Write { path: &self.path, offset: self.position, bytes: &bytes[..allowed] });
        }
        self.position += allowed as u64;
        refused.map_or(Ok(allowed), |r| Err(r.error))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = self.file.seek(to)?;
        Ok(self.position)
    }
}
