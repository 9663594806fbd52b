//! [`Spill`]: samples laid aside by the time slot of their future block.
//!
//! # Format
//! A sample is the number of its series (uvarint), ms since the start of its slot (uvarint), and the
//! value's eight bytes. The files live as long as the [`Spill`] and are read by nobody else.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use promontory_tsdb::block::{TMP_FOR_CREATION, new_ulid};
use promontory_tsdb::{Clock as _, Error, SystemClock};

use crate::tsdb_tools::ToolError;

/// What may be in memory before it goes to files.
const MEMORY_BYTES: usize = 64 << 20;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Spill {
    block_ms: i64,
    /// By start of the slot, ms.
    slots: BTreeMap<i64, SlotBytes>,
    in_memory: usize,
    memory_limit: usize,
    dir: PathBuf,
    /// Whether `dir` was made.
    pub(super) on_disk: bool,
}

#[derive(Debug, Default)]
struct SlotBytes {
    /// What came after the file was last written.
    tail: Vec<u8>,
    has_file: bool,
}

impl Spill {
    /// Slots of `block_ms`; files, if there are any, go below `data_dir`.
    pub(super) fn new(data_dir: &Path, block_ms: i64) -> Self {
        Self::with_limit(data_dir, block_ms, MEMORY_BYTES)
    }

    pub(super) fn with_limit(data_dir: &Path, block_ms: i64, memory_limit: usize) -> Self {
        // A server that opens the directory removes what has such a name.
        let name = format!("{}{TMP_FOR_CREATION}", new_ulid(SystemClock.now_ms(), &mut rand::rng()));
        Self {
            block_ms,
            slots: BTreeMap::new(),
            in_memory: 0,
            memory_limit,
            dir: data_dir.join(name),
            on_disk: false,
        }
    }

    pub(super) fn block_ms(&self) -> i64 {
        self.block_ms
    }

    /// Starts of the slots that have samples, ascending.
    pub(super) fn slots(&self) -> impl Iterator<Item = i64> {
        self.slots.keys().copied()
    }

    pub(super) fn add(&mut self, series: u32, t: i64, v: f64) -> Result<(), ToolError> {
        let into_slot = t.rem_euclid(self.block_ms);
        let Some(start) = t.checked_sub(into_slot) else {
            return Err(ToolError::Message(format!("timestamp {t} is out of range")));
        };
        let tail = &mut self.slots.entry(start).or_default().tail;
        let before = tail.len();
        put_uvarint(tail, u64::from(series));
        put_uvarint(tail, into_slot.unsigned_abs());
        tail.extend_from_slice(&v.to_le_bytes());
        self.in_memory += tail.len() - before;
        if self.in_memory >= self.memory_limit {
            self.write_out()?;
        }
        Ok(())
    }

    fn path(&self, start: i64) -> PathBuf {
        self.dir.join(start.to_string())
    }

    fn write_out(&mut self) -> Result<(), ToolError> {
        if !self.on_disk {
            fs::create_dir_all(&self.dir).map_err(Error::io("create", &self.dir))?;
            self.on_disk = true;
        }
        let paths: Vec<PathBuf> = self.slots.keys().map(|start| self.path(*start)).collect();
        for (slot, path) in self.slots.values_mut().zip(paths) {
            if slot.tail.is_empty() {
                continue;
            }
            let file = OpenOptions::new().create(true).append(true).open(&path);
            let mut file = file.map_err(Error::io("create", &path))?;
            file.write_all(&slot.tail).map_err(Error::io("write", &path))?;
            slot.tail = Vec::new();
            slot.has_file = true;
        }
        self.in_memory = 0;
        Ok(())
    }

    /// Takes a slot out: visits its samples (series, ms, value) in the order in which they came.
    pub(super) fn drain(
        &mut self,
        start: i64,
        mut visit: impl FnMut(u32, i64, f64) -> Result<(), ToolError>,
    ) -> Result<(), ToolError> {
        let Some(slot) = self.slots.remove(&start) else { return Ok(()) };
        self.in_memory -= slot.tail.len();
        let mut each = |bytes: &[u8]| -> Result<(), ToolError> {
            let mut rest = bytes;
            while !rest.is_empty() {
                let sample = take_sample(&mut rest);
                let (series, into_slot, v) = sample.ok_or_else(|| damaged(&self.dir))?;
                visit(series, start + into_slot, v)?;
            }
            Ok(())
        };
        if slot.has_file {
            let path = self.dir.join(start.to_string());
            each(&promontory_tsdb::fs::map(&path)?)?;
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        each(&slot.tail)
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        if self.on_disk {
            // What stays is removed by the next server that opens the directory.
            drop(fs::remove_dir_all(&self.dir));
        }
    }
}

fn damaged(dir: &Path) -> Error {
    Error::Invalid(format!("samples laid aside in {} were changed", dir.display()))
}

fn put_uvarint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take_uvarint(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        n |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

fn take_sample(bytes: &mut &[u8]) -> Option<(u32, i64, f64)> {
    let series = u32::try_from(take_uvarint(bytes)?).ok()?;
    let into_slot = i64::try_from(take_uvarint(bytes)?).ok()?;
    let (value, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some((series, into_slot, f64::from_le_bytes(*value)))
}
