//! What a query runs over ([`Grid`], [`QueryParams`]) and what it may use ([`EngineOptions`]).

use std::time::Duration;

use promontory_tsdb::TimestampMs;

use crate::parser::ParserOptions;

/// The evaluation timestamps of a plan: `start + i * step` for `i` in `0..steps`.
///
/// A property of the plan and not of its rows. An instant query has one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Grid {
    /// First evaluation timestamp, ms.
    pub start: TimestampMs,
    /// Spacing, ms; at least 1 (also when there is one step only).
    pub step: i64,
    /// Number of evaluation timestamps; at least 1.
    pub steps: usize,
    /// Steps per tile (`B`): a power of two, at most [`crate::tile::MAX_TILE_STEPS`].
    pub tile_steps: usize,
}

impl Grid {
    /// A grid over `[start, end]`, both included when `end` is on it.
    ///
    /// # Panics
    /// If `step < 1` or `end < start`; callers check parameters first.
    pub fn new(start: TimestampMs, end: TimestampMs, step: i64, tile_steps: usize) -> Self {
        assert!(step >= 1 && end >= start, "a grid runs forwards");
        let steps = usize::try_from((end - start) / step).expect("fits, it is not negative") + 1;
        Self { start, step, steps, tile_steps: tile_steps.min(steps.next_power_of_two()) }
    }

    /// A grid of one step at `t`.
    pub fn instant(t: TimestampMs) -> Self {
        Self { start: t, step: 1, steps: 1, tile_steps: 1 }
    }

    /// Evaluation timestamp of step `i`, ms.
    pub fn at(&self, i: usize) -> TimestampMs {
        self.start + self.step * i as i64
    }

    /// Last evaluation timestamp, ms.
    pub fn end(&self) -> TimestampMs {
        self.at(self.steps - 1)
    }

    /// Number of tiles per series that lives through the whole grid.
    pub fn tiles(&self) -> usize {
        self.steps.div_ceil(self.tile_steps)
    }

    /// Number of steps in tile `tile`: `tile_steps`, less in the last one. The lanes behind them
    /// are always null.
    pub fn steps_in_tile(&self, tile: usize) -> usize {
        (self.steps - tile * self.tile_steps).min(self.tile_steps)
    }
}

/// One query's time parameters, all ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryParams {
    /// First evaluation timestamp.
    pub start: TimestampMs,
    /// Last evaluation timestamp (included when on the grid); equals `start` for an instant query.
    pub end: TimestampMs,
    /// Spacing; 0 means an instant query.
    pub step: i64,
    /// How far an instant selector looks back, `(t - lookback, t]`; `None` takes the engine's.
    pub lookback: Option<i64>,
    /// Step of a subquery that names none; `None` takes the engine's.
    pub subquery_step: Option<i64>,
}

impl QueryParams {
    /// An instant query at `t`.
    pub fn instant(t: TimestampMs) -> Self {
        Self { start: t, end: t, step: 0, lookback: None, subquery_step: None }
    }

    /// A range query over `[start, end]`.
    pub fn range(start: TimestampMs, end: TimestampMs, step: i64) -> Self {
        Self { start, end, step, lookback: None, subquery_step: None }
    }
}

/// What queries may do and use.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Default lookback, ms (`--query.lookback-delta`).
    pub lookback_ms: i64,
    /// Samples that one query may hold at a time (`--query.max-samples`).
    pub max_samples: usize,
    /// Bytes that one query may hold at a time (`--query.max-memory-bytes`); 0 is no limit.
    pub max_bytes: usize,
    /// Longest run of a query (`--query.timeout`).
    pub timeout: Duration,
    /// Step of a subquery that names none, ms: `global.evaluation_interval`. See
    /// [`Engine::set_default_subquery_step_ms`](crate::Engine::set_default_subquery_step_ms).
    pub default_subquery_step_ms: i64,
    /// Steps per tile; 128 unless a test wants otherwise.
    pub tile_steps: usize,
    /// Partitions per leaf; the number of cores unless a test wants otherwise.
    pub partitions: usize,
    /// Samples to be read from which on a query is worth more than one partition.
    pub parallel_samples: u64,
    /// `promql-delayed-name-removal`.
    pub delayed_name_removal: bool,
    /// `use-start-timestamps`: counters look at the start timestamps of samples.
    pub use_start_timestamps: bool,
    /// `type-and-unit-labels`: a metric's type is in its label `__type__`.
    pub type_and_unit_labels: bool,
    /// Memory for results of range queries, bytes ([`crate::cache`]); 0 keeps none.
    pub cache_bytes: usize,
    /// Subexpressions that a query has several times are evaluated once.
    pub share_common: bool,
    /// Which experimental parts of the language are on.
    pub parser: ParserOptions,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            lookback_ms: 5 * 60 * 1000,
            max_samples: 50_000_000,
            max_bytes: 0,
            timeout: Duration::from_secs(120),
            default_subquery_step_ms: 60 * 1000,
            tile_steps: crate::tile::MAX_TILE_STEPS,
            partitions: std::thread::available_parallelism().map_or(1, |n| n.get()),
            parallel_samples: 100_000,
            delayed_name_removal: false,
            use_start_timestamps: false,
            type_and_unit_labels: false,
            cache_bytes: 0,
            share_common: true,
            parser: ParserOptions::default(),
        }
    }
}
