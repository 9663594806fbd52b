//! Merges blocks into one.
//!
//! Series and chunks are streamed: memory holds one series at a time, and 4 bytes for each symbol of each
//! block.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::path::Path;
use std::sync::Arc;

use ulid::Ulid;

use super::recode::Recoder;
use super::{Block, BlockSpec, BlockWriter};
use crate::chunkenc::Encoding;
use crate::chunks::{ChunkMeta, ChunkView};
use crate::error::{Error, Result};
use crate::index::SeriesEntry;
use crate::labels::Labels;
use crate::meta::{HINT_OUT_OF_ORDER, HINT_SELECTED_SERIES, HINT_STALE_SERIES, Meta, Parent};
use crate::postings::{Postings, PostingsSource as _};
use crate::sample::TimestampMs;
use crate::tombstones::{Interval, Tombstones};

/// Merges `blocks` into a new block in `dir` and gives its meta; `None` if nothing is left.
///
/// Chunks that neither overlap another of their series (but for copies of themselves) nor are touched by a
/// tombstone are copied as they are. The rest is decoded, merged and encoded anew; of two samples at one time, the one from
/// the block that comes first counts. Deleted samples do not come along. The merged blocks stay as
/// they are.
///
/// # Errors
/// When a block cannot be read or the new one cannot be written; [`Error::Unsupported`] if a histogram
/// chunk overlaps another chunk or is partly deleted.
pub fn compact(dir: &Path, ulid: Ulid, blocks: &[Arc<Block>]) -> Result<Option<Meta>> {
    let metas: Vec<Meta> = blocks.iter().map(|b| b.meta()).collect();
    let Some(spec) = compacted_spec(ulid, &metas) else { return Ok(None) };
    write_merged(dir, spec, blocks)
}

/// Writes `block` anew in `dir` without what is deleted and gives the meta; `None` if nothing is left.
///
/// The new block is of level 1, with the old one as its parent.
///
/// # Errors
/// As [`compact()`].
pub fn rewrite(dir: &Path, ulid: Ulid, block: &Arc<Block>) -> Result<Option<Meta>> {
    let meta = block.meta();
    let mut spec = BlockSpec::new(ulid, meta.min_time, meta.max_time);
    spec.parents = vec![parent(&meta)];
    spec.hints = meta.compaction.hints;
    write_merged(dir, spec, std::slice::from_ref(block))
}

fn write_merged(dir: &Path, spec: BlockSpec, blocks: &[Arc<Block>]) -> Result<Option<Meta>> {
    let range = Interval { mint: spec.mint, maxt: spec.maxt - 1 };
    let mut writer = BlockWriter::with_symbols(dir, spec)?;
    let numbers = merge_symbols(blocks, |text| writer.put_symbol(text))?;
    let mut sources = Vec::with_capacity(blocks.len());
    for (block, numbers) in blocks.iter().zip(numbers) {
        sources.push(Source::new(block, range, numbers)?);
    }
    let mut heads = BinaryHeap::new();
    for (i, source) in sources.iter_mut().enumerate() {
        heads.extend(source.advance()?.map(|labels| Reverse((labels, i))));
    }
    // All four are made once and used for every series.
    let (mut pieces, mut pairs, mut chunks) = (Vec::new(), Vec::new(), Vec::new());
    let mut recoder = Recoder::default();
    while let Some(Reverse((labels, first))) = heads.pop() {
        sources[first].symbol_numbers(&mut pairs)?;
        pieces.clear();
        chunks.clear();
        let mut next = Some(first);
        while let Some(i) = next {
            sources[i].take_chunks(i, &mut pieces);
            heads.extend(sources[i].advance()?.map(|labels| Reverse((labels, i))));
            next = match heads.peek() {
                Some(Reverse((l, _))) if *l == labels => heads.pop().map(|Reverse((_, i))| i),
                _ => None,
            };
        }
        merge_chunks(&sources, &mut pieces, &mut recoder, &mut chunks)?;
        writer.add_numbered(&labels, &pairs, chunks.iter().map(MergedChunk::view))?;
    }
    writer.finish()
}

/// Puts all symbols of all blocks once each, in order; gives the new number of each symbol by block.
fn merge_symbols(blocks: &[Arc<Block>], mut put: impl FnMut(&str) -> Result<()>) -> Result<Vec<Vec<u32>>> {
    let count = |b: &Arc<Block>| b.index().symbol_count() as usize;
    let mut numbers: Vec<Vec<u32>> = blocks.iter().map(|b| Vec::with_capacity(count(b))).collect();
    let mut iterators: Vec<_> = blocks.iter().map(|b| b.index().symbols()).collect();
    let mut heads = BinaryHeap::new();
    for (i, symbols) in iterators.iter_mut().enumerate() {
        heads.extend(symbols.next().map(|text| Reverse((text, i))));
    }
    let mut last: Option<(&str, u32)> = None;
    while let Some(Reverse((text, i))) = heads.pop() {
        let number = match last {
            Some((known, number)) if known == text => number,
            _ => {
                put(text)?;
                last.map_or(0, |(_, number)| number + 1)
            }
        };
        last = Some((text, number));
        numbers[i].push(number);
        heads.extend(iterators[i].next().map(|text| Reverse((text, i))));
    }
    Ok(numbers)
}

/// What the merged block is called and covers, as Prometheus has it.
fn compacted_spec(ulid: Ulid, metas: &[Meta]) -> Option<BlockSpec> {
    let mint = metas.iter().map(|m| m.min_time).min()?;
    let maxt = metas.iter().map(|m| m.max_time).max()?;
    let mut spec = BlockSpec::new(ulid, mint, maxt);
    spec.level = metas.iter().map(|m| m.compaction.level).max()? + 1;
    let sources: BTreeSet<Ulid> = metas.iter().flat_map(|m| m.compaction.sources.iter().copied()).collect();
    spec.sources = sources.into_iter().collect();
    spec.parents = metas.iter().map(parent).collect();
    spec.parents.sort_by_key(|p| (p.min_time, p.ulid));
    // Blocks of a part of the series only meet their like. With one in-order parent, the samples before the
    // end are in-order ones too.
    let hinted = |hint: &str| metas.iter().any(|m| m.has_hint(hint));
    let mut hints: Vec<&str> = [HINT_STALE_SERIES, HINT_SELECTED_SERIES].into();
    hints.retain(|h| hinted(h));
    if metas.iter().all(|m| m.has_hint(HINT_OUT_OF_ORDER)) {
        hints.push(HINT_OUT_OF_ORDER);
    }
    spec.hints = hints.into_iter().map(str::to_owned).collect();
    Some(spec)
}

fn parent(meta: &Meta) -> Parent {
    Parent {
        ulid: meta.ulid,
        min_time: meta.min_time,
        max_time: meta.max_time,
        other: serde_json::Map::new(),
    }
}

/// A block whose series are read in order.
pub(super) struct Source<'b> {
    pub(super) block: &'b Block,
    tombstones: Arc<Tombstones>,
    /// What the new block covers.
    range: Interval,
    /// New numbers of the block's symbols.
    numbers: Vec<u32>,
    postings: Postings<'b>,
    /// Place of the next series in `postings`.
    at: usize,
    reference: u64,
    entry: SeriesEntry,
}

/// A chunk of the series being merged.
pub(super) struct Piece {
    pub(super) meta: ChunkMeta,
    pub(super) source: usize,
    reference: u64,
}

/// A chunk of the new block.
pub(super) struct MergedChunk<'b> {
    pub(super) mint: TimestampMs,
    pub(super) maxt: TimestampMs,
    pub(super) encoding: Encoding,
    pub(super) bytes: Cow<'b, [u8]>,
}

impl MergedChunk<'_> {
    fn view(&self) -> ChunkView<'_> {
        ChunkView { mint: self.mint, maxt: self.maxt, encoding: self.encoding, bytes: &self.bytes }
    }
}

impl<'b> Source<'b> {
    fn new(block: &'b Block, range: Interval, numbers: Vec<u32>) -> Result<Self> {
        let postings = block.index().all()?;
        let tombstones = block.tombstones();
        let entry = SeriesEntry::default();
        Ok(Self { block, tombstones, range, numbers, postings, at: 0, reference: 0, entry })
    }

    /// Reads the next series; `None` at the end.
    fn advance(&mut self) -> Result<Option<Labels>> {
        let Some(reference) = self.postings.get(self.at) else { return Ok(None) };
        self.at += 1;
        self.reference = reference;
        self.block.index().series(reference, self.range.mint, self.range.maxt, &mut self.entry)?;
        Ok(Some(self.entry.labels()))
    }

    /// New symbol numbers of the labels of the series just read.
    fn symbol_numbers(&self, out: &mut Vec<(u32, u32)>) -> Result<()> {
        out.clear();
        let index = self.block.index();
        let mut known = true;
        index.for_each_label(self.reference, |name, value| {
            match (self.numbers.get(name as usize), self.numbers.get(value as usize)) {
                (Some(name), Some(value)) => out.push((*name, *value)),
                _ => known = false,
            }
        })?;
        known.then_some(()).ok_or_else(|| {
            let offset = index.series_offset(self.reference);
            Error::corrupt(index.path(), offset, "series refers to a symbol that is not there")
        })
    }

    /// Chunks of the series just read, without those that are deleted as a whole.
    fn take_chunks(&mut self, source: usize, out: &mut Vec<Piece>) {
        let reference = self.reference;
        let deleted = self.tombstones.of(reference);
        let kept = |c: &ChunkMeta| !deleted.iter().any(|d| d.mint <= c.mint && c.maxt <= d.maxt);
        let pieces = self.entry.chunks.drain(..).filter(kept);
        out.extend(pieces.map(|meta| Piece { meta, source, reference }));
    }

    /// Whether the sample at `t` of the piece's series goes to the new block.
    pub(super) fn keeps(&self, piece: &Piece, t: TimestampMs) -> bool {
        let deleted = self.tombstones.of(piece.reference);
        self.range.mint <= t && t <= self.range.maxt && !deleted.iter().any(|d| d.mint <= t && t <= d.maxt)
    }

    /// Whether all samples of the chunk go to the new block.
    fn keeps_all(&self, piece: &Piece) -> bool {
        let deleted = self.tombstones.of(piece.reference);
        self.range.mint <= piece.meta.mint
            && piece.meta.maxt <= self.range.maxt
            && !deleted.iter().any(|d| piece.meta.overlaps(d.mint, d.maxt))
    }

    /// Encoding and data of a chunk.
    pub(super) fn chunk(&self, piece: &Piece) -> Result<(Encoding, &'b [u8])> {
        self.block.chunks().chunk(piece.meta.reference)
    }
}

/// Chunks of one series from all sources, made to ascend.
fn merge_chunks<'b>(
    sources: &[Source<'b>],
    pieces: &mut [Piece],
    recoder: &mut Recoder,
    out: &mut Vec<MergedChunk<'b>>,
) -> Result<()> {
    // Stable: of chunks that begin together, the one of the first block stays first.
    pieces.sort_by_key(|p| p.meta.mint);
    let mut rest = &*pieces;
    while let Some(first) = rest.first() {
        // A run of chunks in which each overlaps one before it.
        let mut end = first.meta.maxt;
        let mut n = 1;
        while let Some(piece) = rest.get(n).filter(|p| p.meta.mint <= end) {
            end = end.max(piece.meta.maxt);
            n += 1;
        }
        let (run, tail) = rest.split_at(n);
        rest = tail;
        if run.iter().all(|p| sources[p.source].keeps_all(p)) && all_same(sources, run)? {
            let ChunkMeta { mint, maxt, .. } = first.meta;
            let (encoding, data) = sources[first.source].chunk(first)?;
            out.push(MergedChunk { mint, maxt, encoding, bytes: Cow::Borrowed(data) });
        } else {
            recoder.recode(sources, run, out)?;
        }
    }
    Ok(())
}

/// Whether all chunks of `run` are copies of one.
fn all_same(sources: &[Source<'_>], run: &[Piece]) -> Result<bool> {
    let Some((first, others)) = run.split_first() else { return Ok(true) };
    if others.iter().any(|p| (p.meta.mint, p.meta.maxt) != (first.meta.mint, first.meta.maxt)) {
        return Ok(false);
    }
    let data = sources[first.source].chunk(first)?;
    for other in others {
        if sources[other.source].chunk(other)? != data {
            return Ok(false);
        }
    }
    Ok(true)
}
