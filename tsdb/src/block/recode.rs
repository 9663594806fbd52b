//! Decodes chunks that overlap or are partly deleted, and encodes what is left of them anew.

use super::compact::{MergedChunk, Piece, Source};
use crate::chunkenc::{self, ChunkError, Encoding, xor};
use crate::error::{Error, Result};
use crate::sample::{Sample, TimestampMs};

/// Samples of a chunk that is encoded anew, as Prometheus' head cuts them.
const CHUNK_SAMPLES: usize = 120;

/// Merges samples; keeps its memory from one series to the next.
#[derive(Debug, Default)]
pub(super) struct Recoder {
    times: Vec<TimestampMs>,
    values: Vec<f64>,
    /// (time, source, value).
    samples: Vec<(TimestampMs, usize, f64)>,
}

impl Recoder {
    /// Appends to `out` chunks with the samples of `run` that go to the new block, in ascending time; of two
    /// at one time, the one from the first source counts.
    pub(super) fn recode(
        &mut self,
        sources: &[Source<'_>],
        run: &[Piece],
        out: &mut Vec<MergedChunk<'_>>,
    ) -> Result<()> {
        self.samples.clear();
        for piece in run {
            let source = &sources[piece.source];
            self.decode(source, piece)?;
            let pairs = self.times.iter().zip(&self.values).filter(|(t, _)| source.keeps(piece, **t));
            self.samples.extend(pairs.map(|(t, v)| (*t, piece.source, *v)));
        }
        self.samples.sort_by_key(|(t, source, _)| (*t, *source));
        self.samples.dedup_by_key(|(t, ..)| *t);
        for chunk in self.samples.chunks(CHUNK_SAMPLES) {
            let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { continue };
            let bytes = xor::encode(chunk.iter().map(|&(t, _, v)| Sample { t, v })).into();
            out.push(MergedChunk { mint: first.0, maxt: last.0, encoding: Encoding::Xor, bytes });
        }
        Ok(())
    }

    fn decode(&mut self, source: &Source<'_>, piece: &Piece) -> Result<()> {
        let (encoding, data) = source.chunk(piece)?;
        self.times.clear();
        self.values.clear();
        chunkenc::decode_into(encoding, data, &mut self.times, &mut self.values).map_err(|e| match e {
            ChunkError::Unsupported(_) => {
                Error::Unsupported("merging histogram chunks that overlap or are partly deleted".to_owned())
            }
            e => match source.block.chunks().file(piece.meta.reference) {
                Ok(file) => Error::corrupt(file, u64::from(piece.meta.reference.offset()), e.to_string()),
                Err(e) => e,
            },
        })
    }
}
