//! Reads of head and blocks together.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::Db;
use crate::changes::{ChangedRanges, Version};
use crate::error::Result;
use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::merge::Fanout;
use crate::query::{BlockSummary, ChunkSummary, Queryable, SelectHints, Selection, SeriesStats};
use crate::sample::TimestampMs;

impl Db {
    /// Asks all that overlaps `[mint, maxt]`; starts over if blocks came or went meanwhile.
    ///
    /// A block is loaded before the head is truncated: if the list is the same before and after the
    /// head was read, then nothing went from the head that the list does not have.
    fn ask<T>(
        &self,
        mint: TimestampMs,
        maxt: TimestampMs,
        question: impl Fn(&dyn Queryable) -> Result<T>,
    ) -> Result<T> {
        loop {
            let generation = self.blocks.generation();
            let answer = question(&self.sources(mint, maxt))?;
            if generation == self.blocks.generation() {
                return Ok(answer);
            }
        }
    }

    fn sources(&self, mint: TimestampMs, maxt: TimestampMs) -> Fanout {
        let mut sources: Vec<Arc<dyn Queryable>> = Vec::new();
        let loaded = self.blocks.loaded();
        let overlapping = loaded.iter().filter(|b| b.min_time() <= maxt && b.max_time() > mint);
        // Of two samples at one time, that which came in order counts.
        let (late, in_order): (Vec<_>, Vec<_>) = overlapping.partition(|b| b.is_out_of_order());
        sources.extend(in_order.into_iter().chain(late).map(|block| Arc::clone(block) as _));
        // The head is asked last, and counts least where both have a sample.
        if self.head.time_bounds().is_none_or(|(min, max)| min <= maxt && max >= mint) {
            sources.push(Arc::clone(&self.head) as _);
        }
        Fanout::new(sources)
    }
}

impl Queryable for Db {
    fn select(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        hints: &SelectHints,
    ) -> Result<Selection> {
        self.ask(mint, maxt, |source| source.select(matchers, mint, maxt, hints))
    }

    fn splits(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        parts: usize,
    ) -> Result<Vec<Labels>> {
        // Wherever a division is made, it is right.
        self.sources(mint, maxt).splits(matchers, mint, maxt, parts)
    }

    fn label_names(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Result<Vec<String>> {
        self.ask(mint, maxt, |source| source.label_names(matchers, mint, maxt))
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> Result<Vec<String>> {
        self.ask(mint, maxt, |source| source.label_values(name, matchers, mint, maxt))
    }

    fn series_stats(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> Result<SeriesStats> {
        self.ask(mint, maxt, |source| source.series_stats(matchers, mint, maxt))
    }

    fn series_estimate(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Result<u64> {
        // A block that comes or goes meanwhile changes an estimate little.
        self.sources(mint, maxt).series_estimate(matchers, mint, maxt)
    }

    fn for_each_chunk(
        &self,
        matchers: &[Matcher],
        visit: &mut dyn FnMut(ChunkSummary) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        // The head first: what leaves it after that is in a block by then.
        let visited = self.head.for_each_chunk(matchers, visit)?;
        if visited.is_break() {
            return Ok(visited);
        }
        let mut blocks = self.blocks.loaded().to_vec();
        blocks.sort_by_key(|block| (block.min_time(), block.ulid()));
        for block in blocks {
            let visited = block.for_each_chunk(matchers, visit)?;
            if visited.is_break() {
                return Ok(visited);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn version(&self) -> Option<Version> {
        Some(self.head.changes().version())
    }

    fn changed_since(&self, version: Version) -> Option<ChangedRanges> {
        self.head.changes().since(version)
    }

    fn time_bounds(&self) -> Option<(TimestampMs, TimestampMs)> {
        let blocks = self.blocks.loaded();
        let blocks = blocks.iter().filter_map(|b| b.time_bounds());
        blocks.chain(self.head.time_bounds()).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    fn blocks(&self) -> Vec<BlockSummary> {
        self.blocks.loaded().iter().flat_map(|b| b.blocks()).collect()
    }
}
