//! Pure float kernels: no plan, no Arrow, no allocation per step.
//!
//! They exist because PromQL's arithmetic is not Arrow's: comparisons are IEEE and not total order,
//! sums are compensated, minimum and maximum prefer what is not NaN, and a range function looks at
//! the spacing of samples. Each kernel gives what Prometheus 3.14 gives for the same samples.
//!
//! - [`kahan`], [`quantile`]: building blocks.
//! - [`row`]: where results of a series go, one slot per step.
//! - [`instant`], [`range`]: from the samples of a series to one value per step.
//! - [`aggregate`]: many series to one, lane by lane.
//! - [`arith`], [`compare`], [`math`]: one value to one value, as Go computes it.

pub mod aggregate;
pub mod arith;
pub mod compare;
pub mod instant;
pub mod kahan;
pub mod math;
pub mod quantile;
pub mod range;
pub mod row;

pub use row::StepRow;

use promontory_tsdb::{TimestampMs, is_stale};

use crate::logical::spec::TimeView;
use crate::params::Grid;

/// Float samples of one series, in strictly ascending time.
#[derive(Debug, Clone, Copy)]
pub struct Samples<'a> {
    /// ms since the epoch.
    pub timestamps: &'a [TimestampMs],
    /// As many values.
    pub values: &'a [f64],
    /// As many start timestamps (0: none), or empty where nobody asks for them.
    pub starts: &'a [TimestampMs],
    /// No value is NaN, or below the one before it. `false` says nothing.
    pub rising: bool,
}

impl<'a> Samples<'a> {
    /// Samples.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn new(timestamps: &'a [TimestampMs], values: &'a [f64]) -> Self {
        assert_eq!(timestamps.len(), values.len(), "a sample is a timestamp and a value");
        Self { timestamps, values, starts: &[], rising: false }
    }

    /// The same samples with their start timestamps: as many, or none at all.
    pub fn with_starts(self, starts: &'a [TimestampMs]) -> Self {
        assert!(
            starts.is_empty() || starts.len() == self.values.len(),
            "a start timestamp belongs to a sample"
        );
        Self { starts, ..self }
    }

    /// The samples `lo..hi`.
    pub(crate) fn slice(&self, lo: usize, hi: usize) -> Self {
        Self {
            timestamps: &self.timestamps[lo..hi],
            values: &self.values[lo..hi],
            starts: self.starts.get(lo..hi).unwrap_or_default(),
            rising: self.rising,
        }
    }

    /// [`Samples::without_stale`] for counters: finds out whether they rise, which also tells that there is no
    /// stale marker.
    pub fn without_stale_rising<'b>(self, scratch: &'b mut Live) -> Samples<'b>
    where
        'a: 'b,
    {
        let Some(rest) = self.values.get(1..).filter(|rest| !rest.is_empty()) else {
            return self.without_stale(scratch);
        };
        // A comparison with NaN does not hold.
        if self.values.iter().zip(rest).filter(|(a, b)| a <= b).count() == rest.len() {
            return Samples { rising: true, ..self };
        }
        self.without_stale(scratch)
    }

    /// The same samples without stale markers; copies into `scratch` only if there are any.
    pub fn without_stale<'b>(self, scratch: &'b mut Live) -> Samples<'b>
    where
        'a: 'b,
    {
        // Counting all of them vectorises; stopping at the first one does not.
        if self.values.iter().filter(|v| is_stale(**v)).count() == 0 {
            return self;
        }
        scratch.timestamps.clear();
        scratch.values.clear();
        scratch.starts.clear();
        for (i, (&t, &v)) in self.timestamps.iter().zip(self.values).enumerate() {
            if !is_stale(v) {
                scratch.timestamps.push(t);
                scratch.values.push(v);
                scratch.starts.extend(self.starts.get(i));
            }
        }
        Samples::new(&scratch.timestamps, &scratch.values).with_starts(&scratch.starts)
    }
}

/// Where [`Samples::without_stale`] copies to.
#[derive(Debug, Default)]
pub struct Live {
    timestamps: Vec<TimestampMs>,
    values: Vec<f64>,
    starts: Vec<TimestampMs>,
}

/// The windows of a grid: step `i` sees `(end(i) - width_ms, end(i)]`.
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    /// The steps.
    pub grid: Grid,
    /// Where a step's window ends.
    pub view: TimeView,
    /// Width, ms.
    pub width_ms: i64,
}

impl Windows {
    /// End of step `i`'s window, included, ms.
    pub fn end(&self, i: usize) -> TimestampMs {
        self.view.data_time(self.grid.at(i))
    }

    /// All data that any window sees, both ends included: `[first, last]`.
    pub fn bounds(&self) -> (TimestampMs, TimestampMs) {
        let (first, last) = (self.end(0), self.end(self.grid.steps - 1));
        (first.saturating_sub(self.width_ms).saturating_add(1), last)
    }

    /// Whether all steps see one and the same window.
    pub fn is_pinned(&self) -> bool {
        self.view.at.is_some()
    }

    /// The first step alone.
    pub(crate) fn first_step(&self) -> Self {
        Self { grid: Grid { steps: 1, ..self.grid }, ..*self }
    }

    /// Calls `f(step, window end, lo, hi)` for every step: its samples are `lo..hi`.
    ///
    /// Two cursors walk the timestamps once. As scrapes and steps are mostly regular, each cursor
    /// first tries the stride that it made last time.
    #[inline(always)]
    pub(crate) fn walk(
        &self,
        timestamps: &[TimestampMs],
        mut f: impl FnMut(usize, TimestampMs, usize, usize),
    ) {
        let (mut lo, mut hi) = (Cursor::default(), Cursor::default());
        let mut end = self.end(0);
        let step = if self.is_pinned() { 0 } else { self.grid.step };
        for i in 0..self.grid.steps {
            let h = hi.advance(timestamps, end);
            let l = lo.advance(timestamps, end.saturating_sub(self.width_ms));
            f(i, end, l, h);
            end += step;
        }
    }
}

/// Index of the first timestamp after a bound; bounds only grow.
#[derive(Debug, Default)]
struct Cursor {
    at: usize,
    stride: usize,
}

impl Cursor {
    #[inline(always)]
    fn advance(&mut self, timestamps: &[TimestampMs], bound: TimestampMs) -> usize {
        let from = self.at;
        let guess = from + self.stride;
        let mut at = from;
        if guess <= timestamps.len() && (guess == from || timestamps[guess - 1] <= bound) {
            at = guess;
        }
        while at < timestamps.len() && timestamps[at] <= bound {
            at += 1;
        }
        self.stride = at - from;
        self.at = at;
        at
    }
}

/// A scalar argument: one value for each step.
#[derive(Debug, Clone, PartialEq)]
pub enum StepScalar {
    /// The same at every step.
    Constant(f64),
    /// One value per step of the grid.
    PerStep(Vec<f64>),
}

impl StepScalar {
    /// From one value per step; finds out whether it is a constant (bit by bit).
    pub fn from_steps(values: Vec<f64>) -> Self {
        match values.first() {
            Some(first) if values.iter().all(|v| v.to_bits() == first.to_bits()) => Self::Constant(*first),
            _ => Self::PerStep(values),
        }
    }

    /// The value at `step`.
    pub fn at(&self, step: usize) -> f64 {
        match self {
            Self::Constant(v) => *v,
            Self::PerStep(values) => values[step],
        }
    }

    /// Whether it is the same at every step.
    pub fn is_constant(&self) -> bool {
        matches!(self, Self::Constant(_))
    }
}
