//! [`Slot`]: the samples of one future block, compressed as they come.
//!
//! # Source
//! Chunks are cut as the head cuts them:
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/head_append.go>

use std::collections::HashMap;

use promontory_tsdb::AppendError;
use promontory_tsdb::chunkenc::{Encoding, xor};
use promontory_tsdb::chunks::ChunkData;

use crate::tsdb_tools::ToolError;

/// Samples that are compared with what is there before any of them is added.
const BATCH: usize = 5000;
/// Samples that a chunk should hold.
const SAMPLES_PER_CHUNK: usize = 120;
/// A chunk larger than this is cut whatever its count: 1 KiB less the largest sample.
const MAX_CHUNK_BYTES: usize = 1024 - 19;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Slot {
    /// Chunks do not cross multiples of this, ms.
    chunk_range_ms: i64,
    series: HashMap<u32, Chunks>,
    batch: Vec<(u32, i64, f64)>,
}

#[derive(Debug, Default)]
struct Chunks {
    closed: Vec<ChunkData>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    mint: i64,
    /// A sample at or after this starts the next chunk.
    next_at: i64,
    appender: xor::Appender,
}

/// What goes into the block of a slot; samples are in `[mint, maxt]`, ms.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) mint: i64,
    pub(super) maxt: i64,
    /// By number of the series.
    pub(super) chunks: HashMap<u32, Vec<ChunkData>>,
}

impl Slot {
    pub(super) fn new(block_ms: i64) -> Self {
        // Compat: upstream makes its writer believe in a block twice as long.
        let chunk_range_ms = block_ms.saturating_mul(2);
        Self { chunk_range_ms, series: HashMap::new(), batch: Vec::new() }
    }

    /// Adds a sample. One that its series already has is ignored; one that is older than another of the
    /// same batch is dropped.
    ///
    /// # Errors
    /// If it is older than what its series has, or another value has its timestamp.
    pub(super) fn add(&mut self, series: u32, t: i64, v: f64) -> Result<(), ToolError> {
        if let Some(newest) = self.series.get(&series).and_then(|s| s.open.as_ref()) {
            newest.check(t, v).map_err(|e| ToolError::Message(format!("add sample: {e}")))?;
        }
        self.batch.push((series, t, v));
        if self.batch.len() >= BATCH {
            self.commit();
        }
        Ok(())
    }

    fn commit(&mut self) {
        for (series, t, v) in self.batch.drain(..) {
            self.series.entry(series).or_default().append(t, v, self.chunk_range_ms);
        }
    }

    /// All chunks; an error without any.
    pub(super) fn finish(mut self) -> Result<Finished, ToolError> {
        self.commit();
        let chunks: HashMap<u32, Vec<ChunkData>> =
            self.series.into_iter().map(|(number, mut s)| (number, s.take_all())).collect();
        let mint = chunks.values().filter_map(|c| c.first()).map(|c| c.mint).min();
        let maxt = chunks.values().filter_map(|c| c.last()).map(|c| c.maxt).max();
        match mint.zip(maxt) {
            Some((mint, maxt)) => Ok(Finished { mint, maxt, chunks }),
            None => Err(ToolError::Message("flush: no series appended, aborting".to_owned())),
        }
    }
}

impl Chunks {
    fn append(&mut self, t: i64, v: f64, range_ms: i64) {
        if let Some(open) = &mut self.open {
            if t <= open.appender.last().t {
                return;
            }
            if !open.is_full_for(t) {
                open.appender.append(t, v);
                return;
            }
        }
        self.close();
        let mut appender = xor::Appender::new();
        appender.append(t, v);
        // Compat: divides towards zero.
        let next_at = t / range_ms * range_ms + range_ms;
        self.open = Some(Open { mint: t, next_at, appender });
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.closed.push(ChunkData {
                mint: open.mint,
                maxt: open.appender.last().t,
                encoding: Encoding::Xor,
                bytes: open.appender.into_bytes(),
            });
        }
    }

    fn take_all(&mut self) -> Vec<ChunkData> {
        self.close();
        std::mem::take(&mut self.closed)
    }
}

impl Open {
    fn check(&self, t: i64, v: f64) -> Result<(), AppendError> {
        let last = self.appender.last();
        if t < last.t {
            return Err(AppendError::OutOfOrder);
        }
        if t == last.t && v.to_bits() != last.v.to_bits() {
            return Err(AppendError::Duplicate { timestamp: t, existing: last.v, new: v });
        }
        Ok(())
    }

    /// Whether a sample at `t` starts the next chunk.
    fn is_full_for(&mut self, t: i64) -> bool {
        let samples = self.appender.len();
        if self.appender.bytes().len() > MAX_CHUNK_BYTES {
            return true;
        }
        if samples == SAMPLES_PER_CHUNK / 4 {
            self.next_at = chunk_end(self.mint, self.appender.last().t, self.next_at);
        }
        t >= self.next_at || samples >= 2 * SAMPLES_PER_CHUNK
    }
}

/// Where a chunk that is a quarter full at `now` should end, so that chunks up to `end` are equally full.
fn chunk_end(start: i64, now: i64, end: i64) -> i64 {
    let chunks = (end - start) as f64 / ((now - start + 1) as f64 * 4.0);
    if chunks <= 1.0 {
        return end;
    }
    (start as f64 + (end - start) as f64 / chunks.floor()) as i64
}
