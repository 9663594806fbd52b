//! Reads the index entries of some series before their samples.
//!
//! Where little is wanted of each series, reading is mostly waiting for memory: chunks of neighbouring series are
//! kilobytes apart. Their places are known as soon as the index entry is read, so that is done for a few series at
//! once, and memory is asked for what is going to be read.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::Files;
use crate::chunks::ChunkMeta;
use crate::error::{Error, Result};
use crate::index::SeriesEntry;
use crate::labels::Labels;
use crate::needed::Needed;
use crate::query::SelectHints;
use crate::sample::TimestampMs;

/// How many series are read ahead: enough to wait for several chunks at once, and few enough that the cache keeps what
/// was asked for until it is read.
pub(super) const SERIES: usize = 32;
/// The same where no chunk is read, and nothing is waited for.
const FEW_SERIES: usize = 4;

/// Index entries of a run of series that have chunks in a range.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    references: Arc<[u64]>,
    /// The references that are still to be read: `at..end`.
    at: usize,
    end: usize,
    entry: SeriesEntry,
    series: VecDeque<Series>,
    /// Of all `series`.
    chunks: Vec<ChunkMeta>,
    /// What is wrong with the one behind `series`.
    error: Option<Error>,
}

/// A series that was read ahead.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) reference: u64,
    pub(super) labels: Labels,
    chunks: Range<usize>,
}

impl Ahead {
    /// The series at `places` of `references`.
    pub(super) fn new(references: Arc<[u64]>, places: Range<usize>) -> Self {
        Self { references, at: places.start, end: places.end, ..Self::default() }
    }

    /// At most how many series are left.
    pub(super) fn left(&self) -> usize {
        self.series.len() + self.end - self.at
    }

    /// Reads the next series with chunks in `range`, of which the caller wants `wanted`, unless some are there.
    pub(super) fn fill(
        &mut self,
        files: &Files,
        range: (TimestampMs, TimestampMs),
        hints: &SelectHints,
        wanted: usize,
    ) {
        if !self.series.is_empty() {
            return;
        }
        let most = wanted.min(if hints.labels_only { FEW_SERIES } else { SERIES });
        self.chunks.clear();
        while self.series.len() < most && self.error.is_none() && self.at < self.end {
            let reference = self.references[self.at];
            self.at += 1;
            if let Err(e) = files.index.series(reference, range.0, range.1, &mut self.entry) {
                self.error = Some(e);
            } else if !self.entry.chunks.is_empty() {
                if !hints.labels_only {
                    prefetch(files, &self.entry.chunks, hints.needed);
                }
                let start = self.chunks.len();
                self.chunks.extend_from_slice(&self.entry.chunks);
                let (labels, chunks) = (self.entry.labels(), start..self.chunks.len());
                self.series.push_back(Series { reference, labels, chunks });
            }
        }
    }

    /// The series that are there, references and chunks.
    pub(super) fn series(&self) -> impl Iterator<Item = (u64, &[ChunkMeta])> {
        self.series.iter().map(|series| (series.reference, self.chunks(series)))
    }

    /// The first series that is there.
    pub(super) fn take(&mut self) -> Option<Series> {
        self.series.pop_front()
    }

    /// The first series that is there; if none is, what made [`Ahead::fill`] stop.
    ///
    /// # Errors
    /// That of the index entry behind the series that were there; it is not told before.
    pub(super) fn next(&mut self) -> Result<Option<Series>> {
        match self.take() {
            None => self.error.take().map_or(Ok(None), Err),
            series => Ok(series),
        }
    }

    /// The chunks of a series that was taken last.
    pub(super) fn chunks(&self, series: &Series) -> &[ChunkMeta] {
        &self.chunks[series.chunks.clone()]
    }
}

/// Asks for the chunks that are read first; those behind them follow on.
fn prefetch(files: &Files, chunks: &[ChunkMeta], needed: Needed) {
    let (first, last) = match needed {
        Needed::Newest | Needed::NewestLive => (None, chunks.last()),
        Needed::AnyLive | Needed::OldestLive => (chunks.first(), None),
        Needed::All | Needed::LiveEnds => (chunks.first(), chunks.get(1..).and_then(<[_]>::last)),
    };
    first.into_iter().chain(last).for_each(|chunk| files.chunks.prefetch(chunk.reference));
}
