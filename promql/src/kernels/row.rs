//! [`StepRow`]: the result of one series, one slot per step.

use std::ops::Range;
use std::sync::Arc;

use promontory_tsdb::histogram::FloatHistogram;

use crate::histogram::weight;
use crate::tile::MAX_TILE_STEPS;

/// Values of one series over the steps of a grid. A slot without its bit in `present` has no float,
/// whatever its value. Histograms are kept aside, by step, ascending.
#[derive(Debug, Clone, Default)]
pub struct StepRow {
    steps: usize,
    /// One per step, and as many behind the last one as fill a tile.
    values: Vec<f64>,
    present: Vec<u64>,
    histograms: Vec<(usize, Arc<FloatHistogram>)>,
}

impl StepRow {
    /// Makes all `steps` slots absent.
    pub fn reset(&mut self, steps: usize) {
        self.steps = steps;
        self.values.resize(steps.next_multiple_of(MAX_TILE_STEPS), 0.0);
        self.present.clear();
        self.present.resize(steps.div_ceil(64), 0);
        self.histograms.clear();
    }

    /// Puts `v` at step `i`.
    #[inline(always)]
    pub fn set(&mut self, i: usize, v: f64) {
        self.set_if(i, v, true);
    }

    /// Puts `v` at step `i` if `present`.
    #[inline(always)]
    pub fn set_if(&mut self, i: usize, v: f64, present: bool) {
        self.values[i] = v;
        self.present[i / 64] |= u64::from(present) << (i % 64);
    }

    /// Puts the same value, or none, at every step.
    pub fn fill(&mut self, steps: usize, v: Option<f64>) {
        self.reset(steps);
        if let Some(v) = v {
            self.values.fill(v);
            for (w, word) in self.present.iter_mut().enumerate() {
                let lanes = (steps - w * 64).min(64);
                *word = u64::MAX >> (64 - lanes);
            }
        }
    }

    /// Says that there is a value at each of `steps`; what it is, is written in bulk.
    pub(crate) fn set_all(&mut self, steps: Range<usize>) {
        for (w, word) in self.present.iter_mut().enumerate() {
            let (first, end) = (w * 64, w * 64 + 64);
            let (from, to) = (steps.start.clamp(first, end) - first, steps.end.clamp(first, end) - first);
            if from < to {
                *word |= (u64::MAX >> (64 - (to - from))) << from;
            }
        }
    }

    /// Leaves step `i` without a float.
    pub fn unset(&mut self, i: usize) {
        self.present[i / 64] &= !(1 << (i % 64));
    }

    /// Puts a histogram at step `i`, in the place of a float. Steps must come in ascending order.
    pub fn set_histogram(&mut self, i: usize, histogram: Arc<FloatHistogram>) {
        debug_assert!(self.histograms.last().is_none_or(|(last, _)| *last < i), "steps ascend");
        self.unset(i);
        self.histograms.push((i, histogram));
    }

    /// Histograms by step, ascending.
    pub fn histograms(&self) -> &[(usize, Arc<FloatHistogram>)] {
        &self.histograms
    }

    /// Puts what `one` has at its first step at all of `steps` steps.
    pub fn repeat(&mut self, steps: usize, one: &Self) {
        self.fill(steps, one.get(0));
        if let Some((0, histogram)) = one.histograms.first() {
            self.histograms.extend((0..steps).map(|i| (i, Arc::clone(histogram))));
        }
    }

    /// The value at step `i`.
    pub fn get(&self, i: usize) -> Option<f64> {
        (self.present[i / 64] >> (i % 64) & 1 == 1).then(|| self.values[i])
    }

    /// Whether there is a float at any step.
    pub(crate) fn has_floats(&self) -> bool {
        self.present.iter().any(|word| *word != 0)
    }

    /// All slots.
    pub fn values(&self) -> &[f64] {
        &self.values[..self.steps]
    }

    /// All slots, and those that fill the last tile, of any width.
    pub(crate) fn padded_values(&self) -> &[f64] {
        &self.values
    }

    /// All slots, to be written in bulk.
    pub(crate) fn values_mut(&mut self) -> &mut [f64] {
        &mut self.values[..self.steps]
    }

    /// Number of samples: a float is one, a histogram counts for several.
    pub fn count(&self) -> usize {
        let floats: usize = self.present.iter().map(|w| w.count_ones() as usize).sum();
        floats + self.histograms.iter().map(|(_, h)| weight(h)).sum::<usize>()
    }

    /// Presence of floats in the run of `lanes <= 128` steps that starts at `tile * lanes`, a power of two;
    /// bit `j` is lane `j`. Bits behind the last step are 0.
    pub fn mask(&self, tile: usize, lanes: usize) -> u128 {
        let word = |i: usize| u128::from(self.present.get(i).copied().unwrap_or(0));
        let first = tile * lanes;
        match lanes {
            128 => word(first / 64) | word(first / 64 + 1) << 64,
            64 => word(first / 64),
            _ => word(first / 64) >> (first % 64) & ((1 << lanes) - 1),
        }
    }

    /// As [`StepRow::mask`], for histograms.
    pub(crate) fn histogram_mask(&self, tile: usize, lanes: usize) -> u128 {
        let first = self.histograms.partition_point(|(step, _)| *step < tile * lanes);
        let steps = self.histograms[first..].iter().map(|(step, _)| *step);
        let here = steps.take_while(|step| *step < (tile + 1) * lanes);
        here.fold(0, |mask, step| mask | 1 << (step % lanes))
    }
}
