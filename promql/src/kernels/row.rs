//! [`StepRow`]: the result of one series, one slot per step.

/// Values of one series over the steps of a grid. A slot without its bit in `present` is absent,
/// whatever its value.
#[derive(Debug, Clone, Default)]
pub struct StepRow {
    values: Vec<f64>,
    present: Vec<u64>,
}

impl StepRow {
    /// Makes all `steps` slots absent.
    pub fn reset(&mut self, steps: usize) {
        self.values.resize(steps, 0.0);
        self.present.clear();
        self.present.resize(steps.div_ceil(64), 0);
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

    /// The value at step `i`.
    pub fn get(&self, i: usize) -> Option<f64> {
        (self.present[i / 64] >> (i % 64) & 1 == 1).then(|| self.values[i])
    }

    /// All slots.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// All slots, to be written in bulk.
    pub(crate) fn values_mut(&mut self) -> &mut [f64] {
        &mut self.values
    }

    /// Number of steps that have a value.
    pub fn count(&self) -> usize {
        self.present.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Presence of the run of `lanes <= 128` steps that starts at `tile * lanes`, a power of two;
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
}
