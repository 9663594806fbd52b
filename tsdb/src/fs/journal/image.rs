//! [`Image`]: a directory as the disk holds it, with what is durable apart from what is not yet.
//!
//! # Model
//! A name is durable once its directory is synced, contents once the file is. Of what is not durable,
//! a power cut leaves for each directory any number of the first changes of names, and for each file
//! any number of the first changes of its contents, the last of them torn at any byte; bytes that were
//! lost may read as zeros. A name that moves between directories is in one of them, never in both.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::Step;

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The process is killed: whatever was written is there.
    Killed,
    /// The power fails: what is not durable is drawn from the seed.
    Power {
        /// Of the draw.
        seed: u64,
    },
}

type Id = usize;

#[derive(Debug, Clone)]
enum Inode {
    File { current: Vec<u8>, durable: Vec<u8>, pending: Vec<Change> },
    Dir { current: BTreeMap<OsString, Id>, durable: BTreeMap<OsString, Id>, pending: Vec<usize> },
}

/// A change of contents.
#[derive(Debug, Clone)]
enum Change {
    /// A write, which this is.
    Write(Arc<Step>),
    SetLen(u64),
}

/// A change of names.
#[derive(Debug, Clone)]
enum Naming {
    Insert { dir: Id, name: OsString, id: Id },
    Remove { dir: Id, name: OsString },
    Move { from: (Id, OsString), to: (Id, OsString), id: Id },
}

/// A directory on a disk.
#[derive(Debug, Clone)]
pub struct Image {
    inodes: Vec<Inode>,
    namings: Vec<Naming>,
}

const ROOT: Id = 0;

impl Image {
    /// What is in `dir`, all of it durable.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn load(dir: &Path) -> io::Result<Self> {
        let mut image = Self { inodes: vec![Inode::dir()], namings: Vec::new() };
        image.load_into(ROOT, dir)?;
        Ok(image)
    }

    fn load_into(&mut self, id: Id, dir: &Path) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let inode = if entry.file_type()?.is_dir() {
                Inode::dir()
            } else {
                let bytes = fs::read(entry.path())?;
                Inode::File { current: bytes.clone(), durable: bytes, pending: Vec::new() }
            };
            let is_dir = matches!(inode, Inode::Dir { .. });
            let child = self.add(inode);
            if let Inode::Dir { current, durable, .. } = &mut self.inodes[id] {
                current.insert(entry.file_name(), child);
                durable.insert(entry.file_name(), child);
            }
            if is_dir {
                self.load_into(child, &entry.path())?;
            }
        }
        Ok(())
    }

    fn add(&mut self, inode: Inode) -> Id {
        self.inodes.push(inode);
        self.inodes.len() - 1
    }

    fn find(&self, path: &Path) -> Option<Id> {
        path.components().try_fold(ROOT, |id, name| match &self.inodes[id] {
            Inode::Dir { current, .. } => current.get(name.as_os_str()).copied(),
            Inode::File { .. } => None,
        })
    }

    /// The directory of a name, and the name in it.
    fn place(&self, path: &Path) -> Option<(Id, OsString)> {
        Some((self.find(path.parent()?)?, path.file_name()?.to_owned()))
    }

    /// Carries out one recorded step; of a write, only the first `bytes`.
    ///
    /// # Errors
    /// If the step does not fit what is there: something changed the directory behind the file layer.
    pub fn apply(&mut self, step: &Arc<Step>, bytes: usize) -> io::Result<()> {
        self.try_apply(step, bytes).ok_or_else(|| io::Error::other(format!("the image cannot {step}")))
    }

    fn try_apply(&mut self, step: &Arc<Step>, written: usize) -> Option<()> {
        match &**step {
            Step::CreateFile { path } => match self.find(path) {
                Some(id) => self.change(id, Change::SetLen(0)),
                None => self.insert(path, Inode::file()),
            },
            Step::MakeDir { path } => self.insert(path, Inode::dir()),
            Step::Write { path, offset, bytes } => {
                let id = self.find(path)?;
                let change = if written >= bytes.len() {
                    Change::Write(Arc::clone(step))
                } else {
                    let (path, bytes) = (path.clone(), bytes[..written].into());
                    Change::Write(Arc::new(Step::Write { path, offset: *offset, bytes }))
                };
                self.change(id, change)
            }
            Step::SetLen { path, len } => self.change(self.find(path)?, Change::SetLen(*len)),
            Step::SyncFile { path } => {
                let id = self.find(path)?;
                let Inode::File { durable, pending, .. } = &mut self.inodes[id] else { return None };
                pending.drain(..).for_each(|change| change.apply(durable, usize::MAX));
                Some(())
            }
            Step::SyncDir { path } => {
                let id = self.find(path)?;
                self.persist(id, usize::MAX);
                Some(())
            }
            Step::Rename { from, to } => {
                let id = self.find(from)?;
                self.name(Naming::Move { from: self.place(from)?, to: self.place(to)?, id })
            }
            Step::Link { from, to } => {
                let (dir, name) = self.place(to)?;
                self.name(Naming::Insert { dir, name, id: self.find(from)? })
            }
            Step::RemoveFile { path } | Step::RemoveDir { path } => {
                self.find(path)?;
                let (dir, name) = self.place(path)?;
                self.name(Naming::Remove { dir, name })
            }
        }
    }

    fn insert(&mut self, path: &Path, inode: Inode) -> Option<()> {
        let (dir, name) = self.place(path)?;
        let id = self.add(inode);
        self.name(Naming::Insert { dir, name, id })
    }

    fn change(&mut self, id: Id, change: Change) -> Option<()> {
        let Inode::File { current, pending, .. } = &mut self.inodes[id] else { return None };
        change.apply(current, usize::MAX);
        pending.push(change);
        Some(())
    }

    fn name(&mut self, naming: Naming) -> Option<()> {
        let number = self.namings.len();
        for dir in naming.dirs() {
            let Inode::Dir { current, pending, .. } = &mut self.inodes[dir] else { return None };
            naming.apply(dir, current);
            if pending.last() != Some(&number) {
                pending.push(number);
            }
        }
        self.namings.push(naming);
        Some(())
    }

    /// Makes changes of names in a directory durable, those with a number below `end`. One that moved
    /// a name from another directory takes the earlier ones of that directory along.
    fn persist(&mut self, dir: Id, end: usize) {
        loop {
            let Inode::Dir { pending, .. } = &mut self.inodes[dir] else { return };
            let Some(number) = pending.first().copied().filter(|n| *n < end) else { return };
            let naming = self.namings[number].clone();
            for other in naming.dirs().filter(|other| *other != dir) {
                self.persist(other, number);
            }
            for dir in naming.dirs() {
                let Inode::Dir { durable, pending, .. } = &mut self.inodes[dir] else { continue };
                naming.apply(dir, durable);
                pending.retain(|n| *n != number);
            }
        }
    }

    /// Writes what is on disk after the cut to `into`, an empty directory.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, cut: Cut, into: &Path) -> io::Result<()> {
        match cut {
            Cut::Killed => self.write_dir(ROOT, into, |inode| match inode {
                Inode::File { current, .. } => Kept::File(current.clone()),
                Inode::Dir { current, .. } => Kept::Dir(current.clone()),
            }),
            Cut::Power { seed } => {
                let mut rng = StdRng::seed_from_u64(seed);
                let names = Loss::draw(&mut rng);
                let contents = Loss::draw(&mut rng);
                let mut image = self.clone();
                image.settle_names(names, &mut rng);
                image.settle_contents(contents, &mut rng);
                image.write_dir(ROOT, into, |inode| match inode {
                    Inode::File { durable, .. } => Kept::File(durable.clone()),
                    Inode::Dir { durable, .. } => Kept::Dir(durable.clone()),
                })
            }
        }
    }

    fn settle_names(&mut self, loss: Loss, rng: &mut StdRng) {
        for id in 0..self.inodes.len() {
            let Inode::Dir { pending, .. } = &self.inodes[id] else { continue };
            let kept = loss.kept(pending.len(), rng);
            let end = pending.get(kept).copied().unwrap_or(usize::MAX);
            self.persist(id, end);
        }
    }

    fn settle_contents(&mut self, loss: Loss, rng: &mut StdRng) {
        for inode in &mut self.inodes {
            let Inode::File { durable, pending, current } = inode else { continue };
            let kept = loss.kept(pending.len(), rng);
            let torn = pending.get(kept).cloned();
            pending.drain(..kept).for_each(|change| change.apply(durable, usize::MAX));
            if matches!(loss, Loss::Some)
                && let Some(torn @ Change::Write(_)) = torn
            {
                torn.apply(durable, rng.random_range(0..=torn.len()));
            }
            // The file has its length, but not its bytes.
            if loss != Loss::None && durable.len() < current.len() && rng.random_ratio(1, 8) {
                let zeros = rng.random_range(0..=current.len() - durable.len());
                durable.resize(durable.len() + zeros, 0);
            }
        }
    }

    fn write_dir(&self, id: Id, into: &Path, kept: impl Fn(&Inode) -> Kept + Copy) -> io::Result<()> {
        let Kept::Dir(entries) = kept(&self.inodes[id]) else { return Ok(()) };
        for (name, child) in entries {
            let path = into.join(name);
            match kept(&self.inodes[child]) {
                Kept::File(bytes) => fs::write(path, bytes)?,
                Kept::Dir(_) => {
                    fs::create_dir(&path)?;
                    self.write_dir(child, &path, kept)?;
                }
            }
        }
        Ok(())
    }
}

/// What is left of an inode.
enum Kept {
    File(Vec<u8>),
    Dir(BTreeMap<OsString, Id>),
}

/// How much of what is not durable a power cut takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    All,
    Some,
    None,
}

impl Loss {
    fn draw(rng: &mut StdRng) -> Self {
        match rng.random_range(0..5) {
            0 => Self::All,
            1 => Self::None,
            _ => Self::Some,
        }
    }

    /// How many of `pending` changes are kept.
    fn kept(self, pending: usize, rng: &mut StdRng) -> usize {
        match self {
            Self::All => 0,
            Self::Some => rng.random_range(0..=pending),
            Self::None => pending,
        }
    }
}

impl Inode {
    fn file() -> Self {
        Self::File { current: Vec::new(), durable: Vec::new(), pending: Vec::new() }
    }

    fn dir() -> Self {
        Self::Dir { current: BTreeMap::new(), durable: BTreeMap::new(), pending: Vec::new() }
    }
}

impl Change {
    fn len(&self) -> usize {
        match self {
            Self::Write(step) => match &**step {
                Step::Write { bytes, .. } => bytes.len(),
                _ => 0,
            },
            Self::SetLen(_) => 0,
        }
    }

    /// Of a write, only the first `first` bytes.
    fn apply(&self, contents: &mut Vec<u8>, first: usize) {
        match self {
            Self::SetLen(len) => contents.resize(*len as usize, 0),
            Self::Write(step) => {
                let Step::Write { offset, bytes, .. } = &**step else { return };
                let bytes = &bytes[..bytes.len().min(first)];
                let start = *offset as usize;
                if contents.len() < start + bytes.len() {
                    contents.resize(start + bytes.len(), 0);
                }
                contents[start..start + bytes.len()].copy_from_slice(bytes);
            }
        }
    }
}

impl Naming {
    fn dirs(&self) -> impl Iterator<Item = Id> + use<> {
        let (a, b) = match self {
            Self::Insert { dir, .. } | Self::Remove { dir, .. } => (*dir, None),
            Self::Move { from, to, .. } => (from.0, (from.0 != to.0).then_some(to.0)),
        };
        std::iter::once(a).chain(b)
    }

    /// What it means for the names of `dir`.
    fn apply(&self, dir: Id, names: &mut BTreeMap<OsString, Id>) {
        match self {
            Self::Insert { name, id, .. } => drop(names.insert(name.clone(), *id)),
            Self::Remove { name, .. } => drop(names.remove(name)),
            Self::Move { from, to, id } => {
                if dir == from.0 {
                    names.remove(&from.1);
                }
                if dir == to.0 {
                    names.insert(to.1.clone(), *id);
                }
            }
        }
    }
}
