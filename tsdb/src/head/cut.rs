//! Hands out the head's data for a block, series by series.

use super::Head;
use super::read::Snapshot;
use crate::chunkenc::Encoding;
use crate::chunks::ChunkData;
use crate::error::Result;
use crate::labels::Labels;
use crate::sample::TimestampMs;

impl Head {
    /// Refuses appends before `maxt` from now on, so that a cut up to there misses nothing.
    pub(crate) fn close_for_cut(&self, maxt: TimestampMs) {
        if self.bounds().is_some_and(|(min, _)| maxt > min) {
            self.raise_min_valid_time(maxt);
        }
    }

    /// Series with samples in `[mint, maxt]`, in label order, without what was deleted.
    ///
    /// Finished chunks that lie inside go out as they are; only those that straddle an end, or are
    /// touched by deletions or out-of-order samples, are encoded again.
    pub(crate) fn cut(
        &self,
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> impl Iterator<Item = Result<(Labels, Vec<ChunkData>)>> + use<> {
        let snapshot = self.snapshot(&[], mint, maxt, 1).pop().unwrap_or_default();
        (0..snapshot.len()).map(move |i| Ok((snapshot.labels(i), snapshot.chunks_for_block(i, mint, maxt)?)))
    }
}

impl Snapshot {
    fn chunks_for_block(&self, i: usize, mint: TimestampMs, maxt: TimestampMs) -> Result<Vec<ChunkData>> {
        if let Some(whole) = self.whole_chunks(i, mint, maxt) {
            return whole;
        }
        let (mut timestamps, mut values) = (Vec::new(), Vec::new());
        self.decode(i, mint, maxt, &mut timestamps, &mut values)?;
        let runs = timestamps
            .chunks(super::open_chunk::SAMPLES_PER_CHUNK)
            .zip(values.chunks(super::open_chunk::SAMPLES_PER_CHUNK));
        Ok(runs.map(|(t, v)| encode(t, v)).collect())
    }
}

fn encode(timestamps: &[TimestampMs], values: &[f64]) -> ChunkData {
    let samples = timestamps.iter().zip(values).map(|(t, v)| crate::Sample { t: *t, v: *v });
    ChunkData {
        mint: timestamps.first().copied().unwrap_or_default(),
        maxt: timestamps.last().copied().unwrap_or_default(),
        encoding: Encoding::Xor,
        bytes: crate::chunkenc::xor::encode(samples),
    }
}
