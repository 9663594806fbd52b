//! Merges blocks into one.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::path::Path;
use std::sync::Arc;

use ulid::Ulid;

use super::{Block, BlockSpec, BlockWriter};
use crate::chunkenc::{self, ChunkError, Encoding, xor};
use crate::chunks::{ChunkData, ChunkMeta};
use crate::error::{Error, Result};
use crate::index::SeriesEntry;
use crate::labels::Labels;
use crate::meta::{HINT_OUT_OF_ORDER, HINT_SELECTED_SERIES, HINT_STALE_SERIES, Meta, Parent};
use crate::postings::PostingsSource as _;
use crate::sample::{Sample, TimestampMs};
use crate::tombstones::Tombstones;

/// Samples of a chunk that is encoded anew, as Prometheus' head cuts them.
const CHUNK_SAMPLES: usize = 120;

/// Merges `blocks` into a new block in `dir` and gives its meta; `None` if nothing is left.
///
/// Chunks that neither overlap another of their series nor are touched by a tombstone are copied as
/// they are. The rest is decoded, merged and encoded anew; of two samples at one time, the one from
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
    let mut writer = BlockWriter::create(dir, spec)?;
    let mut sources = blocks.iter().map(|b| Source::new(b)).collect::<Result<Vec<_>>>()?;
    let mut heads = BinaryHeap::new();
    for (i, source) in sources.iter_mut().enumerate() {
        heads.extend(source.advance()?.map(|labels| Reverse((labels, i))));
    }
    while let Some(Reverse((labels, first))) = heads.pop() {
        let mut pieces = Vec::new();
        let mut next = Some(first);
        while let Some(i) = next {
            sources[i].take_chunks(i, &mut pieces);
            heads.extend(sources[i].advance()?.map(|labels| Reverse((labels, i))));
            next = match heads.peek() {
                Some(Reverse((l, _))) if *l == labels => heads.pop().map(|Reverse((_, i))| i),
                _ => None,
            };
        }
        writer.add(&labels, &merge_chunks(&sources, pieces)?)?;
    }
    writer.finish()
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
struct Source<'b> {
    block: &'b Block,
    tombstones: Arc<Tombstones>,
    references: std::vec::IntoIter<u64>,
    reference: u64,
    entry: SeriesEntry,
}

/// A chunk of the series being merged.
struct Piece {
    meta: ChunkMeta,
    source: usize,
    reference: u64,
}

impl<'b> Source<'b> {
    fn new(block: &'b Block) -> Result<Self> {
        let references = block.index().all()?.into_vec().into_iter();
        let tombstones = block.tombstones();
        Ok(Self { block, tombstones, references, reference: 0, entry: SeriesEntry::default() })
    }

    /// Reads the next series; `None` at the end.
    fn advance(&mut self) -> Result<Option<Labels>> {
        let Some(reference) = self.references.next() else { return Ok(None) };
        self.reference = reference;
        self.block.index().series(reference, TimestampMs::MIN, TimestampMs::MAX, &mut self.entry)?;
        Ok(Some(self.entry.labels()))
    }

    /// Chunks of the series just read, without those that are deleted as a whole.
    fn take_chunks(&mut self, source: usize, out: &mut Vec<Piece>) {
        let reference = self.reference;
        let deleted = self.tombstones.of(reference);
        let kept = |c: &ChunkMeta| !deleted.iter().any(|d| d.mint <= c.mint && c.maxt <= d.maxt);
        let pieces = self.entry.chunks.drain(..).filter(kept);
        out.extend(pieces.map(|meta| Piece { meta, source, reference }));
    }
}

impl Piece {
    fn is_partly_deleted(&self, sources: &[Source<'_>]) -> bool {
        let deleted = sources[self.source].tombstones.of(self.reference);
        deleted.iter().any(|d| self.meta.overlaps(d.mint, d.maxt))
    }
}

/// Chunks of one series from all sources, made to ascend.
fn merge_chunks(sources: &[Source<'_>], mut pieces: Vec<Piece>) -> Result<Vec<ChunkData>> {
    // Stable: of chunks that begin together, the one of the first block stays first.
    pieces.sort_by_key(|p| p.meta.mint);
    let mut out = Vec::with_capacity(pieces.len());
    let mut rest = pieces.as_slice();
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
        match run {
            [only] if !only.is_partly_deleted(sources) => out.push(copy(sources, only)?),
            run => encode_again(sources, run, &mut out)?,
        }
    }
    Ok(out)
}

fn copy(sources: &[Source<'_>], piece: &Piece) -> Result<ChunkData> {
    let ChunkMeta { mint, maxt, reference } = piece.meta;
    let (encoding, data) = sources[piece.source].block.chunks().chunk(reference)?;
    Ok(ChunkData { mint, maxt, encoding, bytes: data.to_vec() })
}

fn encode_again(sources: &[Source<'_>], run: &[Piece], out: &mut Vec<ChunkData>) -> Result<()> {
    // (time, source, value): sorted by time, then by trust.
    let mut samples: Vec<(TimestampMs, usize, f64)> = Vec::new();
    let (mut times, mut values) = (Vec::new(), Vec::new());
    for piece in run {
        let source = &sources[piece.source];
        let chunks = source.block.chunks();
        let (encoding, data) = chunks.chunk(piece.meta.reference)?;
        times.clear();
        values.clear();
        chunkenc::decode_into(encoding, data, &mut times, &mut values).map_err(|e| match e {
            ChunkError::Unsupported(_) => {
                Error::Unsupported("merging histogram chunks that overlap or are partly deleted".to_owned())
            }
            e => match chunks.file(piece.meta.reference) {
                Ok(file) => Error::corrupt(file, u64::from(piece.meta.reference.offset()), e.to_string()),
                Err(e) => e,
            },
        })?;
        let deleted = source.tombstones.of(piece.reference);
        let kept = |t: TimestampMs| !deleted.iter().any(|d| d.mint <= t && t <= d.maxt);
        let pairs = times.iter().zip(&values).filter(|(t, _)| kept(**t));
        samples.extend(pairs.map(|(t, v)| (*t, piece.source, *v)));
    }
    samples.sort_by_key(|(t, source, _)| (*t, *source));
    samples.dedup_by_key(|(t, ..)| *t);
    for chunk in samples.chunks(CHUNK_SAMPLES) {
        let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { continue };
        let bytes = xor::encode(chunk.iter().map(|&(t, _, v)| Sample { t, v }));
        out.push(ChunkData { mint: first.0, maxt: last.0, encoding: Encoding::Xor, bytes });
    }
    Ok(())
}
