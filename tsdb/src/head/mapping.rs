//! Moves finished chunks to `chunks_head/`, finds them again at start, and deletes files of old ones.
//!
//! # Concurrency
//! Chunks are collected, written, and then replaced, without a lock in between: a chunk is in memory
//! until it is readable on disk. Files lose their name under the visibility lock, so that a snapshot
//! finds the file of every reference that it holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::series::SeriesState;
use super::{Head, MemSeries};
use crate::error::Result;
use crate::head_chunks::{HeadChunks, Loaded, MappedChunk, NewChunk};
use crate::sample::SeriesRef;

/// Chunks that are written in one go.
const BATCH: usize = 4096;

/// During a replay, this many finished chunks may wait in memory.
const MAX_PENDING: usize = 16 * 1024;

impl Head {
    /// Gives the head its directory for finished chunks, before anything is replayed.
    pub(crate) fn use_chunks(&mut self, chunks: HeadChunks, loaded: Loaded) {
        self.index.reserve_ref(loaded.last_series);
        self.chunks = Some(chunks);
        *self.loaded.lock() = loaded;
    }

    /// Gives `series` the chunks on disk that were written for the reference `recorded`, which a series
    /// record has just named.
    pub(crate) fn attach_chunks(&self, series: &MemSeries, recorded: SeriesRef) {
        let (in_order, out_of_order) = {
            let mut loaded = self.loaded.lock();
            (loaded.in_order.remove(&recorded), loaded.out_of_order.remove(&recorded))
        };
        if let Some(chunks) = in_order {
            let span = chunks.first().map(|c| c.mint).zip(chunks.last().map(|c| c.maxt));
            let added = series.lock().attach(chunks);
            self.counters.chunks_created.fetch_add(added as u64, Ordering::Relaxed);
            if let Some((mint, maxt)) = span.filter(|_| added > 0) {
                self.extend_bounds(mint.max(self.min_valid_time()), maxt);
            }
        }
        for chunk in out_of_order.into_iter().flatten() {
            series.lock().ooo_mut().add_mapped([chunk]);
            self.counters.chunks_created.fetch_add(1, Ordering::Relaxed);
            self.note_out_of_order(chunk.mint);
            self.note_out_of_order(chunk.maxt);
        }
    }

    /// Forgets chunks on disk whose series no record named; their files go with others.
    pub(crate) fn finish_attaching(&self) {
        let loaded = std::mem::take(&mut *self.loaded.lock());
        if !loaded.in_order.is_empty() {
            tracing::debug!(
                series = loaded.in_order.len(),
                "head chunks of series that the log does not have"
            );
        }
    }

    /// Notes that chunks of `series` were finished.
    pub(super) fn note_finished(&self, series: impl IntoIterator<Item = SeriesRef>) {
        if self.chunks.is_some() {
            self.pending.lock().extend(series);
        }
    }

    /// As [`Head::map_finished_chunks`], if there are many. For replays, whose log was synced before.
    pub(super) fn map_if_many(&self) {
        if self.pending.lock().len() < MAX_PENDING {
            return;
        }
        if let Err(error) = self.map_finished_chunks(|| Ok(())) {
            tracing::warn!(%error, "finished chunks could not be written to chunks_head/");
        }
    }

    /// Writes finished chunks to `chunks_head/` and drops them from memory. Returns how many.
    ///
    /// Crash safety: `sync_log` is called before each write, and makes the log durable. Otherwise a power cut could
    /// leave samples in a chunk whose batch, or one before it, is gone from the log.
    ///
    /// # Errors
    /// If they cannot be written, or the log cannot be synced; they stay in memory, and the next call tries again.
    pub(crate) fn map_finished_chunks(&self, sync_log: impl Fn() -> Result<()>) -> Result<u64> {
        let Some(chunks) = &self.chunks else { return Ok(0) };
        let _one_at_a_time = self.mapping.lock();
        let mut refs = std::mem::take(&mut *self.pending.lock());
        refs.sort_unstable();
        refs.dedup();
        let mut mapped = 0;
        for (i, batch) in refs.chunks(BATCH).enumerate() {
            mapped += self.map_batch(chunks, batch, &sync_log).inspect_err(|_| {
                self.pending.lock().extend_from_slice(&refs[i * BATCH..]);
            })?;
        }
        Ok(mapped)
    }

    fn map_batch(
        &self,
        chunks: &HeadChunks,
        refs: &[SeriesRef],
        sync_log: impl Fn() -> Result<()>,
    ) -> Result<u64> {
        let mut finished = Vec::with_capacity(refs.len());
        for series in refs.iter().filter_map(|series| self.index.get(*series)) {
            let closed = series.lock().closed().to_vec();
            finished.extend(closed.into_iter().map(|chunk| (Arc::clone(&series), chunk)));
        }
        if finished.is_empty() {
            return Ok(0);
        }
        sync_log()?;
        let written = chunks.write(finished.iter().map(|(series, chunk)| NewChunk {
            series: series.series,
            mint: chunk.mint,
            maxt: chunk.maxt,
            encoding: chunk.encoding,
            out_of_order: false,
            data: &chunk.data,
        }))?;
        let mapped = finished.iter().zip(written).map(|((_, chunk), at)| MappedChunk {
            at,
            mint: chunk.mint,
            maxt: chunk.maxt,
            samples: crate::chunkenc::num_samples(chunk.encoding, &chunk.data),
            encoding: chunk.encoding,
        });
        let mapped = mapped.collect::<Vec<_>>();
        let mut rest = mapped.as_slice();
        for run in finished.chunk_by(|a, b| Arc::ptr_eq(&a.0, &b.0)) {
            let (these, others) = rest.split_at(run.len());
            run[0].0.lock().set_mapped(these);
            rest = others;
        }
        Ok(mapped.len() as u64)
    }

    /// Deletes files of `chunks_head/` that no series needs; `first_needed` is the oldest that one does.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(super) fn delete_chunk_files(&self, first_needed: u32) -> Result<()> {
        let Some(chunks) = &self.chunks else { return Ok(()) };
        let removed = {
            let _no_snapshot = self.visibility.write();
            chunks.forget(first_needed)
        };
        chunks.delete(&removed?)
    }

    /// Syncs and closes the file of finished chunks; `durably`, all others too.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(crate) fn close_chunks(&self, durably: bool) -> Result<()> {
        let Some(chunks) = &self.chunks else { return Ok(()) };
        if durably { chunks.close_durably() } else { chunks.close() }
    }
}

/// Oldest file that the chunks of a series are in.
pub(super) fn first_file(state: &SeriesState) -> u32 {
    let ooo = state.ooo().into_iter().flat_map(|ooo| &ooo.mapped);
    state.mapped.iter().chain(ooo).map(|c| c.at.file()).min().unwrap_or(u32::MAX)
}
