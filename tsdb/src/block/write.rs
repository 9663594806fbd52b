//! Writes blocks.

use std::path::{Path, PathBuf};

use rand::Rng;
use ulid::Ulid;

use super::TMP_FOR_CREATION;
use crate::chunkenc::num_samples;
use crate::chunks::{self, ChunkData, ChunkMeta, ChunkView};
use crate::error::{Error, Result};
use crate::labels::Labels;
use crate::meta::{Meta, Parent};
use crate::sample::TimestampMs;
use crate::tombstones::Tombstones;
use crate::{fs, index};

/// What a new block is to be called and where it comes from.
#[derive(Debug, Clone)]
pub struct BlockSpec {
    /// Identity; see [`new_ulid`].
    pub ulid: Ulid,
    /// First instant, ms (included).
    pub mint: TimestampMs,
    /// End, ms (excluded).
    pub maxt: TimestampMs,
    /// 1 for a block cut from the head.
    pub level: u32,
    /// Level 1 blocks that go into this one; empty means itself.
    pub sources: Vec<Ulid>,
    /// Blocks that are merged into this one.
    pub parents: Vec<Parent>,
    /// Such as [`crate::meta::HINT_OUT_OF_ORDER`].
    pub hints: Vec<String>,
    /// Size at which a chunk segment is closed, bytes.
    pub segment_bytes: u64,
}

impl BlockSpec {
    /// A block cut from the head over `[mint, maxt)`.
    pub fn new(ulid: Ulid, mint: TimestampMs, maxt: TimestampMs) -> Self {
        Self {
            ulid,
            mint,
            maxt,
            level: 1,
            sources: Vec::new(),
            parents: Vec::new(),
            hints: Vec::new(),
            segment_bytes: chunks::SEGMENT_BYTES,
        }
    }
}

/// A ULID for `now`, ms since the epoch.
pub fn new_ulid(now: TimestampMs, rng: &mut impl Rng) -> Ulid {
    Ulid::from_parts(u64::try_from(now).unwrap_or_default(), rng.random())
}

/// Writes a block into `dir` from series in label order and gives its meta.
///
/// Memory does not grow with samples. Without any series nothing is left behind and the answer is
/// `None`.
///
/// # Errors
/// Those of `series`; [`Error::Invalid`] if series or chunks come out of order or a chunk is outside
/// `[mint, maxt)`; or if the operating system refuses. The unfinished directory is then removed.
pub fn write(
    dir: &Path,
    spec: BlockSpec,
    series: impl IntoIterator<Item = Result<(Labels, Vec<ChunkData>)>>,
) -> Result<Option<Meta>> {
    let mut writer = BlockWriter::create(dir, spec)?;
    for item in series {
        let (labels, chunks) = item?;
        writer.add(&labels, &chunks)?;
    }
    writer.finish()
}

/// Writes a block series by series; see [`write()`].
///
/// Dropped before [`BlockWriter::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct BlockWriter {
    target: PathBuf,
    spec: BlockSpec,
    meta: Meta,
    index: Option<index::Writer>,
    chunks: Option<chunks::Writer>,
    /// Chunks of the series being added; kept to reuse its memory.
    metas: Vec<ChunkMeta>,
    tmp: TmpDir,
}

fn finished() -> Error {
    Error::Invalid("the block is finished".to_owned())
}

/// A directory that goes away unless it was renamed.
#[derive(Debug)]
struct TmpDir(PathBuf);

impl Drop for TmpDir {
    fn drop(&mut self) {
        // What stays after a failure here is removed at the next open of the data directory.
        if self.0.exists() {
            drop(fs::remove_dir_all(&self.0));
        }
    }
}

impl BlockWriter {
    /// Begins a block in `dir`, of series that are added by their texts.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn create(dir: &Path, spec: BlockSpec) -> Result<Self> {
        Self::begin(dir, spec, index::Writer::create)
    }

    /// Begins a block in `dir`, of which all symbols are put first.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(super) fn with_symbols(dir: &Path, spec: BlockSpec) -> Result<Self> {
        Self::begin(dir, spec, index::Writer::with_symbols)
    }

    fn begin(
        dir: &Path,
        spec: BlockSpec,
        index: impl FnOnce(&Path) -> Result<index::Writer>,
    ) -> Result<Self> {
        let target = dir.join(spec.ulid.to_string());
        let tmp = dir.join(format!("{}{TMP_FOR_CREATION}", spec.ulid));
        fs::create_dir_all(&tmp)?;
        let tmp = TmpDir(tmp);
        let index = index(&tmp.0)?;
        let chunks = chunks::Writer::create(&tmp.0.join("chunks"), spec.segment_bytes)?;
        let meta = Meta::new(spec.ulid, spec.mint, spec.maxt);
        let metas = Vec::new();
        Ok(Self { target, spec, meta, metas, index: Some(index), chunks: Some(chunks), tmp })
    }

    /// Puts the next symbol; see [`index::Writer::put_symbol`].
    ///
    /// # Errors
    /// As [`index::Writer::put_symbol`].
    pub(super) fn put_symbol(&mut self, text: &str) -> Result<()> {
        self.index.as_mut().ok_or_else(finished)?.put_symbol(text)
    }

    /// Adds a series with its chunks; a series without chunks is left out.
    ///
    /// # Errors
    /// As [`write()`].
    pub fn add(&mut self, labels: &Labels, data: &[ChunkData]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        self.write_chunks(labels, data.iter().map(ChunkData::view))?;
        self.index.as_mut().ok_or_else(finished)?.add(labels, &self.metas)
    }

    /// As [`BlockWriter::add`], where `pairs` are the numbers of the symbols of `labels`.
    ///
    /// # Errors
    /// As [`write()`].
    pub(super) fn add_numbered<'c>(
        &mut self,
        labels: &Labels,
        pairs: &[(u32, u32)],
        chunks: impl ExactSizeIterator<Item = ChunkView<'c>>,
    ) -> Result<()> {
        if chunks.len() == 0 {
            return Ok(());
        }
        self.write_chunks(labels, chunks)?;
        self.index.as_mut().ok_or_else(finished)?.add_numbered(labels, pairs, &self.metas)
    }

    fn write_chunks<'c>(
        &mut self,
        labels: &Labels,
        chunks: impl Iterator<Item = ChunkView<'c>>,
    ) -> Result<()> {
        let writer = self.chunks.as_mut().ok_or_else(finished)?;
        self.metas.clear();
        for chunk in chunks {
            if chunk.mint < self.spec.mint || chunk.maxt >= self.spec.maxt {
                let (mint, maxt) = (chunk.mint, chunk.maxt);
                let reason = format!("a chunk of {labels} over [{mint}, {maxt}] is outside the block");
                return Err(Error::Invalid(reason));
            }
            self.metas.push(writer.write(chunk)?);
            let samples = u64::from(num_samples(chunk.encoding, chunk.bytes));
            let stats = &mut self.meta.stats;
            stats.num_chunks += 1;
            stats.num_samples += samples;
            if chunk.encoding.is_histogram() {
                stats.num_histogram_samples += samples;
            } else {
                stats.num_float_samples += samples;
            }
        }
        self.meta.stats.num_series += 1;
        Ok(())
    }

    /// Syncs everything and gives the block its name; `None` if it would be empty.
    ///
    /// # Errors
    /// As [`write()`].
    pub fn finish(mut self) -> Result<Option<Meta>> {
        let (Some(index), Some(chunks)) = (self.index.take(), self.chunks.take()) else {
            return Ok(None);
        };
        if index.is_empty() {
            return Ok(None);
        }
        chunks.finish()?;
        index.finish()?;
        Tombstones::new().write(&self.tmp.0)?;
        let compaction = &mut self.meta.compaction;
        compaction.level = self.spec.level;
        if !self.spec.sources.is_empty() {
            compaction.sources = std::mem::take(&mut self.spec.sources);
        }
        compaction.parents = std::mem::take(&mut self.spec.parents);
        compaction.hints = std::mem::take(&mut self.spec.hints);
        self.meta.write(&self.tmp.0)?;
        fs::sync_dir(&self.tmp.0)?;
        fs::replace(&self.tmp.0, &self.target)?;
        Ok(Some(self.meta.clone()))
    }
}
