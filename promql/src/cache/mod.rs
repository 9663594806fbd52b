//! [`StepCache`]: results of range queries, step by step, so that a refreshed dashboard costs what is new.
//!
//! # Contract
//! An answer with the cache is the answer without it. Every step of a range query is computed from samples near its
//! own time only, no further away than its [`Reach`]; the source tells where samples came, went or changed since a
//! kept step was computed ([`Queryable::changed_since`]). Steps that looked at none of that are taken as they were,
//! the others are computed. Queries for which this is not so are not kept: those with `@`, with functions of the
//! range or of other series over time, and those with a range function over several metric names, where two series
//! that become one are an error also if they share no step. Neither are answers with histograms or annotations.
//!
//! # What is kept
//! Per [`Shape`] (text, step, its phase, lookback, step of subqueries) the steps of the newest answer, dense: eight bytes a step and
//! series. The shapes that were not asked for longest go when all take more than the budget.
//!
//! # Concurrency
//! One lock for the table, held for looking up and replacing; entries are shared and never change.
//!
//! [`Queryable::changed_since`]: promontory_tsdb::Queryable::changed_since

mod entry;
mod reach;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use promontory_tsdb::changes::{ChangedRanges, Version};

use crate::params::{Grid, QueryParams};
use crate::value::RangeSeries;

use entry::Entry;
pub(crate) use entry::join;
pub(crate) use reach::{Reach, reach};

/// Fewer steps are not worth a look.
const MIN_STEPS: usize = 8;

/// Which results can stand for each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    query: Box<str>,
    step: i64,
    /// Remainder of the start by the step.
    phase: i64,
    lookback: Option<i64>,
    subquery_step: Option<i64>,
}

impl Shape {
    /// The shape of a range query that is worth keeping.
    pub(crate) fn of(query: &str, params: QueryParams) -> Option<Self> {
        if params.step <= 0
            || params.start.checked_add(params.step.checked_mul(MIN_STEPS as i64)?)? > params.end
        {
            return None;
        }
        let phase = params.start.rem_euclid(params.step);
        let QueryParams { step, lookback, subquery_step, .. } = params;
        Some(Self { query: query.into(), step, phase, lookback, subquery_step })
    }
}

/// Results of range queries; see the module.
#[derive(Debug)]
pub struct StepCache {
    budget_bytes: usize,
    table: Mutex<Table>,
    hits: AtomicU64,
    misses: AtomicU64,
    steps_taken: AtomicU64,
    steps_computed: AtomicU64,
    evictions: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    /// Each with the time of its last use.
    entries: HashMap<Shape, (u64, Arc<Entry>)>,
    bytes: usize,
    uses: u64,
}

/// What a cache did and holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Queries that took steps from the cache.
    pub hits: u64,
    /// Queries that could have, had there been any.
    pub misses: u64,
    /// Steps taken from the cache.
    pub steps_taken: u64,
    /// Steps computed by queries whose results are kept.
    pub steps_computed: u64,
    /// Results that went to make room.
    pub evictions: u64,
    /// Results held.
    pub entries: u64,
    /// Memory that they take, bytes.
    pub bytes: u64,
    /// Memory that they may take, bytes.
    pub budget_bytes: u64,
}

/// Steps of a query that need not be computed.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) entry: Arc<Entry>,
    /// Steps of the query, by index.
    pub(crate) steps: Range<usize>,
}

impl StepCache {
    /// A cache of up to `budget_bytes` bytes.
    pub fn new(budget_bytes: usize) -> Self {
        Self {
            budget_bytes,
            table: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            steps_taken: AtomicU64::new(0),
            steps_computed: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        }
    }

    /// What it did and holds.
    pub fn stats(&self) -> CacheStats {
        let (entries, bytes) = {
            let table = self.table.lock();
            (table.entries.len() as u64, table.bytes as u64)
        };
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheStats {
            hits: get(&self.hits),
            misses: get(&self.misses),
            steps_taken: get(&self.steps_taken),
            steps_computed: get(&self.steps_computed),
            evictions: get(&self.evictions),
            entries,
            bytes,
            budget_bytes: self.budget_bytes as u64,
        }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        let mut table = self.table.lock();
        table.entries.clear();
        table.bytes = 0;
    }

    /// Steps of `grid` that are known and still hold. `changed` tells what changed since a version.
    pub(crate) fn find(
        &self,
        shape: &Shape,
        grid: &Grid,
        reach: Reach,
        changed: impl FnOnce(Version) -> Option<ChangedRanges>,
    ) -> Option<Found> {
        let entry = {
            let mut table = self.table.lock();
            table.uses += 1;
            let now = table.uses;
            let (used, entry) = table.entries.get_mut(shape)?;
            *used = now;
            Arc::clone(entry)
        };
        let steps = entry.holding(grid, reach, &changed(entry.version)?);
        // A few steps are not worth another plan for those before and behind them.
        (steps.len() * 4 >= grid.steps).then_some(Found { entry, steps })
    }

    /// Counts a query that took `taken` of its `steps` steps.
    pub(crate) fn count(&self, taken: usize, steps: usize) {
        let counter = if taken > 0 { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        self.steps_taken.fetch_add(taken as u64, Ordering::Relaxed);
        self.steps_computed.fetch_add((steps - taken) as u64, Ordering::Relaxed);
    }

    /// Keeps `series`, the result on `grid` of a read that began after `version` was given.
    pub(crate) fn keep(&self, shape: Shape, version: Version, grid: &Grid, series: &[RangeSeries]) {
        let Some(entry) = Entry::new(version, grid, series, self.budget_bytes / 2) else { return };
        let mut table = self.table.lock();
        table.uses += 1;
        let now = table.uses;
        table.bytes += entry.bytes;
        if let Some((_, before)) = table.entries.insert(shape, (now, Arc::new(entry))) {
            table.bytes -= before.bytes;
        }
        while table.bytes > self.budget_bytes {
            let oldest =
                table.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(shape, _)| shape.clone());
            let Some((_, gone)) = oldest.and_then(|shape| table.entries.remove(&shape)) else { break };
            table.bytes -= gone.bytes;
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
    }
}
