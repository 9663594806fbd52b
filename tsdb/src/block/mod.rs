//! Blocks: immutable directories of series over a time range.
//!
//! # Format
//! `docs/format/block.md`: a directory named by a ULID with `meta.json`, `index`, `chunks/` and
//! `tombstones`. Times of a block are half-open: `[mint, maxt)`.
//!
//! # Concurrency
//! A [`Block`] is read by any number of threads. A stream from [`Queryable::select`] keeps the mapped
//! files alive, so a block may be deleted under it; it also keeps the tombstones of its start.
//!
//! # Crash safety
//! [`write()`] works in `<ULID>.tmp-for-creation` and renames it once all of it is synced, so a block
//! with its final name is whole.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/block.go>

mod ahead;
mod compact;
#[cfg(test)]
mod histogram_tests;
mod plan;
mod recode;
mod repair;
mod select;
#[cfg(test)]
mod tests;
mod together;
mod write;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use ulid::Ulid;

use crate::error::Result;
use crate::index::SeriesEntry;
use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::meta::{HINT_OUT_OF_ORDER, Meta};
use crate::query::{BlockSummary, ChunkSummary, Queryable, SelectHints, Selection, SeriesStats};
use crate::sample::TimestampMs;
use crate::tombstones::{Interval, Tombstones};
use crate::{chunkenc, chunks, fs, index, postings, tombstones};

pub use compact::{compact, rewrite};
pub use plan::{plan, ranges};
pub use repair::repair;
pub use write::{BlockSpec, BlockWriter, new_ulid, write};

/// Suffix of the directory that a block is made in.
pub const TMP_FOR_CREATION: &str = ".tmp-for-creation";
/// Suffix of a directory that is about to be removed.
pub const TMP_FOR_DELETION: &str = ".tmp-for-deletion";

/// An open block.
#[derive(Debug)]
pub struct Block {
    dir: PathBuf,
    ulid: Ulid,
    meta: RwLock<Meta>,
    bytes: AtomicU64,
    tombstones: RwLock<Arc<Tombstones>>,
    files: Arc<Files>,
}

/// What streams share with the block.
#[derive(Debug)]
struct Files {
    index: index::Reader,
    chunks: chunks::Reader,
}

impl Block {
    /// Opens the block in `dir`.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] with file and offset if one of its files is damaged,
    /// [`crate::Error::Unsupported`] if it is of a version that this build does not read.
    pub fn open(dir: &Path) -> Result<Self> {
        let meta = Meta::read(dir)?;
        let index = index::Reader::open(&dir.join(index::FILE_NAME))?;
        let chunks = chunks::Reader::open(&dir.join("chunks"))?;
        let tombstones = Tombstones::read(dir)?;
        let files = Files { index, chunks };
        Ok(Self {
            dir: dir.to_owned(),
            ulid: meta.ulid,
            meta: RwLock::new(meta),
            bytes: AtomicU64::new(fs::dir_size(dir)),
            tombstones: RwLock::new(Arc::new(tombstones)),
            files: Arc::new(files),
        })
    }

    /// Where the block is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its identity.
    pub fn ulid(&self) -> Ulid {
        self.ulid
    }

    /// Whether all its samples came out of order.
    pub fn is_out_of_order(&self) -> bool {
        self.meta.read().has_hint(HINT_OUT_OF_ORDER)
    }

    /// Its meta.
    pub fn meta(&self) -> Meta {
        self.meta.read().clone()
    }

    /// First instant, ms (included).
    pub fn min_time(&self) -> TimestampMs {
        self.meta.read().min_time
    }

    /// End, ms (excluded).
    pub fn max_time(&self) -> TimestampMs {
        self.meta.read().max_time
    }

    /// Size on disk, bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The index, for statistics and export.
    pub fn index(&self) -> &index::Reader {
        &self.files.index
    }

    /// The chunks that the index refers to.
    pub fn chunks(&self) -> &chunks::Reader {
        &self.files.chunks
    }

    /// What is deleted from it.
    pub fn tombstones(&self) -> Arc<Tombstones> {
        Arc::clone(&self.tombstones.read())
    }

    /// Deletes samples of matching series in `[mint, maxt]`: writes tombstones, and counts the series
    /// they fall on. Space comes back when the block is next compacted.
    ///
    /// # Errors
    /// When the index cannot be read, or the tombstones cannot be written; nothing is deleted then.
    pub fn delete(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Result<u64> {
        // Held to the end: two deletions at once must not lose each other's tombstones.
        let mut current = self.tombstones.write();
        let mut changed = Tombstones::clone(&current);
        let mut entry = SeriesEntry::default();
        let mut series = 0;
        for reference in postings::for_matchers(&self.files.index, matchers)? {
            self.files.index.series(reference, mint, maxt, &mut entry)?;
            let (Some(first), Some(last)) = (entry.chunks.first(), entry.chunks.last()) else { continue };
            // As Prometheus does, no wider than the samples there are.
            changed.add(reference, Interval { mint: mint.max(first.mint), maxt: maxt.min(last.maxt) });
            series += 1;
        }
        if series > 0 {
            changed.write(&self.dir)?;
            let tombstones = changed.len() as u64;
            // From here on the deletion holds, whether or not the meta can be written.
            *current = Arc::new(changed);
            self.change_meta(|meta| meta.stats.num_tombstones = tombstones)?;
        }
        Ok(series)
    }

    /// Marks the block to be deleted when blocks are next loaded: nothing of it is left.
    ///
    /// # Errors
    /// If the operating system refuses; the mark then holds until the block is opened again.
    pub fn set_deletable(&self) -> Result<()> {
        self.change_meta(|meta| meta.compaction.deletable = true)
    }

    /// Marks that a compaction of the block failed, so that its range is left alone.
    ///
    /// # Errors
    /// If the operating system refuses; the mark then holds until the block is opened again.
    pub fn set_compaction_failed(&self) -> Result<()> {
        self.change_meta(|meta| meta.compaction.failed = true)
    }

    fn change_meta(&self, change: impl FnOnce(&mut Meta)) -> Result<()> {
        let mut meta = self.meta.write();
        change(&mut meta);
        let written = meta.write(&self.dir);
        self.bytes.store(fs::dir_size(&self.dir), Ordering::Relaxed);
        written
    }

    /// Whether it is marked to be deleted.
    pub fn is_deletable(&self) -> bool {
        self.meta.read().compaction.deletable
    }

    fn overlaps(&self, mint: TimestampMs, maxt: TimestampMs) -> bool {
        let meta = self.meta.read();
        meta.min_time <= maxt && mint < meta.max_time
    }
}

impl Queryable for Block {
    fn select(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        hints: &SelectHints,
    ) -> Result<Selection> {
        if !self.overlaps(mint, maxt) {
            return Ok(select::nothing(hints));
        }
        let references = postings::for_matchers(&self.files.index, matchers)?;
        select::plan(&self.files, &self.tombstones(), references, (mint, maxt), hints)
    }

    fn splits(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        parts: usize,
    ) -> Result<Vec<Labels>> {
        if !self.overlaps(mint, maxt) {
            return Ok(Vec::new());
        }
        let references = postings::for_matchers(&self.files.index, matchers)?;
        let mut entry = SeriesEntry::default();
        let mut places: Vec<_> = (1..parts).map(|i| references.len() * i / parts).collect();
        places.dedup();
        let splits = places.into_iter().filter_map(|i| references.get(i)).map(|reference| {
            self.files.index.series(*reference, mint, maxt, &mut entry)?;
            Ok(entry.labels())
        });
        splits.collect()
    }

    /// Names on matching series of the whole block, if the block overlaps `[mint, maxt]`.
    fn label_names(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Result<Vec<String>> {
        let index = &self.files.index;
        if !self.overlaps(mint, maxt) {
            return Ok(Vec::new());
        }
        if matchers.is_empty() {
            return Ok(index.label_names().map(str::to_owned).collect());
        }
        let mut symbols = BTreeSet::new();
        for reference in postings::for_matchers(index, matchers)? {
            index.for_each_label(reference, |name, _| {
                symbols.insert(name);
            })?;
        }
        // Symbols are numbered in order.
        symbols.into_iter().map(|s| index.symbol(s).map(str::to_owned)).collect()
    }

    /// Values on matching series of the whole block, if the block overlaps `[mint, maxt]`.
    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> Result<Vec<String>> {
        let index = &self.files.index;
        let mut values = Vec::new();
        if !self.overlaps(mint, maxt) {
            return Ok(values);
        }
        let (of_name, others): (Vec<_>, Vec<_>) = matchers.iter().cloned().partition(|m| m.name() == name);
        let wanted = |value: &str| of_name.iter().all(|m| m.matches(value));
        let found = if others.is_empty() { None } else { Some(postings::for_matchers(index, &others)?) };
        match found {
            // Few series: look at their labels instead of at every value.
            Some(found) if found.len() < index.value_count(name) / 4 => {
                // Symbols are numbered in order, so these come out sorted.
                let mut symbols = BTreeSet::new();
                for reference in found {
                    index.for_each_label(reference, |n, v| {
                        if index.symbol(n).is_ok_and(|n| n == name) {
                            symbols.insert(v);
                        }
                    })?;
                }
                for symbol in symbols {
                    let value = index.symbol(symbol)?;
                    values.extend(wanted(value).then(|| value.to_owned()));
                }
            }
            found => index.for_each_value(name, "", |value, offset| {
                let here = || match &found {
                    Some(found) => Ok(postings::intersects(found, &index.postings_at(offset)?)),
                    None => Ok::<_, crate::Error>(true),
                };
                if !value.is_empty() && wanted(value) && here()? {
                    values.push(value.to_owned());
                }
                Ok(ControlFlow::Continue(()))
            })?,
        }
        Ok(values)
    }

    fn series_stats(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> Result<SeriesStats> {
        if !self.overlaps(mint, maxt) {
            return Ok(SeriesStats { exact: true, ..SeriesStats::default() });
        }
        let references = postings::for_matchers(&self.files.index, matchers)?;
        select::stats(&self.files, &self.tombstones(), &references, mint, maxt)
    }

    fn series_estimate(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Result<u64> {
        if !self.overlaps(mint, maxt) {
            return Ok(0);
        }
        Ok(postings::for_matchers(&self.files.index, matchers)?.len() as u64)
    }

    fn time_bounds(&self) -> Option<(TimestampMs, TimestampMs)> {
        let meta = self.meta.read();
        (meta.min_time < meta.max_time).then(|| (meta.min_time, meta.max_time - 1))
    }

    fn for_each_chunk(
        &self,
        matchers: &[Matcher],
        visit: &mut dyn FnMut(ChunkSummary) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let references = postings::for_matchers(&self.files.index, matchers)?;
        let (block, out_of_order): (Arc<str>, _) = (self.ulid.to_string().into(), self.is_out_of_order());
        let mut entry = SeriesEntry::default();
        for series in references {
            self.files.index.series(series, TimestampMs::MIN, TimestampMs::MAX, &mut entry)?;
            let labels = entry.labels();
            for chunk in &entry.chunks {
                let (encoding, data) = self.files.chunks.chunk(chunk.reference)?;
                let visited = visit(ChunkSummary {
                    block: Arc::clone(&block),
                    series,
                    labels: labels.clone(),
                    min_time: chunk.mint,
                    max_time: chunk.maxt,
                    encoding: encoding.name(),
                    samples: u64::from(chunkenc::num_samples(encoding, data)),
                    bytes: data.len() as u64,
                    out_of_order,
                });
                if visited.is_break() {
                    return Ok(visited);
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn blocks(&self) -> Vec<BlockSummary> {
        let meta = self.meta.read();
        vec![BlockSummary {
            ulid: meta.ulid.to_string(),
            min_time: meta.min_time,
            max_time: meta.max_time,
            series: meta.stats.num_series,
            samples: meta.stats.num_samples,
            chunks: meta.stats.num_chunks,
            level: meta.compaction.level,
            bytes: self.index().bytes()
                + self.chunks().bytes()
                + std::fs::metadata(self.dir.join(tombstones::FILE_NAME)).map_or(0, |m| m.len()),
        }]
    }
}
