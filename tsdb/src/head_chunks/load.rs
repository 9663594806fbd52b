//! Opens `chunks_head/`: finds all chunks, and drops what is damaged.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::{
    Current, FILE_BYTES, Files, HEADER, HeadChunkRef, HeadChunks, MAX_ENTRY_OVERHEAD, MappedChunk,
    MappedFile, OUT_OF_ORDER, parse,
};
use crate::chunkenc::{Encoding, num_samples};
use crate::encoding::DecodeError;
use crate::error::{Error, Result};
use crate::fs;
use crate::sample::{SeriesRef, TimestampMs};

/// What [`HeadChunks::open`] found.
#[derive(Debug, Default)]
pub struct Loaded {
    /// In-order chunks by series, ascending, not overlapping.
    pub in_order: HashMap<SeriesRef, Vec<MappedChunk>>,
    /// Out-of-order chunks by series, in the order of writing.
    pub out_of_order: HashMap<SeriesRef, Vec<MappedChunk>>,
    /// Largest series reference.
    pub last_series: SeriesRef,
    /// Newest entry that is readable.
    pub last: HeadChunkRef,
    /// Why files were dropped, if any were.
    pub damage: Option<String>,
}

impl HeadChunks {
    /// Opens the directory, which need not exist. The first damaged file and all after it are deleted.
    ///
    /// In-order chunks that end before `min_valid_time` are left out: a block has them.
    ///
    /// # Errors
    /// If files cannot be listed, mapped or deleted.
    pub fn open(dir: &Path, min_valid_time: TimestampMs) -> Result<(Self, Loaded)> {
        Self::open_then(dir, min_valid_time, || Ok(()))
    }

    /// As [`HeadChunks::open`], calling `before_drop` before anything is deleted.
    ///
    /// # Errors
    /// As [`HeadChunks::open`], and those of `before_drop`.
    pub(crate) fn open_then(
        dir: &Path,
        min_valid_time: TimestampMs,
        before_drop: impl Fn() -> Result<()>,
    ) -> Result<(Self, Loaded)> {
        Self::open_sized(dir, min_valid_time, FILE_BYTES, before_drop)
    }

    pub(super) fn open_sized(
        dir: &Path,
        min_valid_time: TimestampMs,
        file_bytes: u64,
        before_drop: impl Fn() -> Result<()>,
    ) -> Result<(Self, Loaded)> {
        let mut paths = list(dir)?;
        drop_unfinished(&mut paths, &before_drop)?;
        let mut files = BTreeMap::new();
        let mut loaded = Loaded::default();
        let mut ends = HashMap::new();
        let mut expected = paths.keys().next().copied();
        while let Some((number, path)) = paths.pop_first() {
            let result = if expected == Some(number) {
                map_file(&path).and_then(|file| {
                    let found = scan(&file.map, number, &mut ends).map_err(|e| e.in_file(&path, 0))?;
                    Ok((file, found))
                })
            } else {
                Err(Error::corrupt(&path, 0, "a file before this one is missing"))
            };
            match result {
                Ok((file, found)) => {
                    expected = number.checked_add(1);
                    loaded.add(found, min_valid_time);
                    files.insert(number, file);
                }
                Err(error @ Error::Corrupt { .. }) => {
                    tracing::error!(%error, "head chunks are damaged; the logs bring back what they held");
                    loaded.damage = Some(error.to_string());
                    before_drop()?;
                    fs::remove_file(&path)?;
                    paths.values().try_for_each(|path| fs::remove_file(path))?;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let last = files.keys().next_back().copied().unwrap_or_default();
        let unsynced = files.keys().copied().collect();
        let current = Current { last, writer: None, buffer: Vec::new(), unsynced };
        let opened = Self {
            dir: dir.to_path_buf(),
            file_bytes,
            files: RwLock::new(Files(Arc::new(files))),
            current: Mutex::new(current),
        };
        Ok((opened, loaded))
    }
}

impl Loaded {
    fn add(&mut self, found: Vec<Found>, min_valid_time: TimestampMs) {
        for Found { series, chunk, out_of_order } in found {
            self.last_series = self.last_series.max(series);
            self.last = chunk.at;
            let by_series = if out_of_order {
                &mut self.out_of_order
            } else if chunk.maxt >= min_valid_time {
                &mut self.in_order
            } else {
                continue;
            };
            by_series.entry(series).or_default().push(chunk);
        }
    }
}

#[derive(Debug)]
struct Found {
    series: SeriesRef,
    chunk: MappedChunk,
    out_of_order: bool,
}

/// Numbered files; other names are somebody else's.
fn list(dir: &Path) -> Result<BTreeMap<u32, PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => return Err(Error::io("list", dir)(e)),
    };
    let mut out = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(Error::io("list", dir))?.path();
        if let Some(number) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok()) {
            out.insert(number, path);
        }
    }
    Ok(out)
}

/// The last file may be what a crash left of a new one: it then has no header.
fn drop_unfinished(paths: &mut BTreeMap<u32, PathBuf>, before_drop: impl Fn() -> Result<()>) -> Result<()> {
    let Some(last) = paths.last_entry() else { return Ok(()) };
    let mut bytes = Vec::new();
    std::fs::File::open(last.get())
        .and_then(|file| file.take(4).read_to_end(&mut bytes))
        .map_err(Error::io("read", last.get()))?;
    if bytes.len() < 4 || bytes == [0; 4] {
        let path = last.remove();
        tracing::warn!(path = %path.display(), "removing an unfinished file of head chunks");
        before_drop()?;
        fs::remove_file(&path)?;
    }
    Ok(())
}

fn map_file(path: &Path) -> Result<MappedFile> {
    let len = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
    if len < HEADER.len() as u64 {
        return Err(Error::corrupt(path, 0, "the file is shorter than its header"));
    }
    let map = fs::map(path)?;
    if map[..5] != HEADER[..5] {
        return Err(Error::corrupt(path, 0, "not a file of head chunks of version 1"));
    }
    Ok(MappedFile { path: path.to_path_buf(), map: Arc::new(map) })
}

/// All entries of a file. `ends` holds the newest in-order time of each series so far.
fn scan(
    bytes: &[u8],
    number: u32,
    ends: &mut HashMap<SeriesRef, TimestampMs>,
) -> Result<Vec<Found>, DecodeError> {
    let mut out = Vec::new();
    let mut at = HEADER.len();
    while at < bytes.len() {
        let rest = &bytes[at..];
        let padding = rest.iter().take(MAX_ENTRY_OVERHEAD).take_while(|b| **b == 0).count();
        // Compat: series references begin at 1, so a zero one is space that was allocated ahead.
        if padding >= 24.min(rest.len()) {
            break;
        }
        let entry = parse(bytes, at)?;
        let start = HeadChunkRef::new(number, u32::try_from(at).unwrap_or(u32::MAX));
        at = entry.end;
        // Another version's encoding: kept on disk, not used.
        let Some(encoding) = Encoding::from_code(entry.encoding & !OUT_OF_ORDER) else { continue };
        let out_of_order = entry.encoding & OUT_OF_ORDER != 0;
        if !out_of_order {
            let end = ends.entry(entry.series).or_insert(TimestampMs::MIN);
            if entry.mint <= *end && *end != TimestampMs::MIN {
                return Err(DecodeError { offset: at, reason: "chunks of a series overlap" });
            }
            *end = entry.maxt;
        }
        let samples = num_samples(encoding, &bytes[entry.data]);
        let chunk = MappedChunk { at: start, mint: entry.mint, maxt: entry.maxt, samples, encoding };
        out.push(Found { series: entry.series, chunk, out_of_order });
    }
    Ok(out)
}
