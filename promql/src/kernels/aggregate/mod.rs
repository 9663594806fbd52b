//! Aggregation of many series into one, lane by lane.
//!
//! An operator is a [`LaneOp`]: how the state of one (group, step) starts, takes a value, takes
//! another state, and becomes a result. [`Groups`] keeps the states of all groups, one vector per
//! state component, so that the loop over the lanes of a tile is a vector loop.
//!
//! Rows taken one after the other give what Prometheus gives, bit for bit. Merging states (several
//! partitions) may differ from that in the last digits, as any other order of addition would.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/engine.go> (`aggregation`)

#[cfg(test)]
mod tests;

use super::kahan;

/// One aggregation on one lane; `K` floats of state.
pub trait LaneOp<const K: usize>: Send + Sync + 'static {
    /// The state before the first value.
    const INIT: [f64; K];
    /// Whether [`LaneOp::update`] has cases that would keep a loop over lanes from vectorising.
    const HAS_RARE: bool = false;
    /// Whether taking this value is such a case.
    #[inline(always)]
    fn is_rare(_state: [f64; K], _v: f64) -> bool {
        false
    }
    /// Takes a value where it is not rare.
    #[inline(always)]
    fn update_common(state: [f64; K], v: f64) -> [f64; K] {
        Self::update(state, v)
    }
    /// Takes a value.
    fn update(state: [f64; K], v: f64) -> [f64; K];
    /// Takes what another state took. Neither is [`LaneOp::INIT`].
    fn merge(a: [f64; K], b: [f64; K]) -> [f64; K];
    /// The result; the state is not [`LaneOp::INIT`].
    fn finish(state: [f64; K]) -> f64;
}

/// States of groups, `lanes` each. A lane that took no value is absent from the result.
#[derive(Debug, Clone)]
pub struct Groups<const K: usize> {
    lanes: usize,
    columns: [Vec<f64>; K],
    seen: Vec<u128>,
}

impl<const K: usize> Groups<K> {
    /// No group yet; groups of `lanes <= 128` lanes.
    pub fn new(lanes: usize) -> Self {
        Self { lanes, columns: std::array::from_fn(|_| Vec::new()), seen: Vec::new() }
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether there is no group.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Lanes per group.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Makes sure that there are `groups` groups.
    pub fn grow<Op: LaneOp<K>>(&mut self, groups: usize) {
        if groups > self.len() {
            self.seen.resize(groups, 0);
            for (column, init) in self.columns.iter_mut().zip(Op::INIT) {
                column.resize(groups * self.lanes, init);
            }
        }
    }

    /// Adds the valid lanes of a row to a group.
    #[inline]
    pub fn update<Op: LaneOp<K>>(&mut self, group: usize, row: &[f64], mask: u128) {
        if mask == 0 {
            return;
        }
        self.seen[group] |= mask;
        let range = group * self.lanes..(group + 1) * self.lanes;
        // Mostly all lanes are valid, or one run of them: a series begins or ends, or the grid does.
        let (first, end) = (mask.trailing_zeros() as usize, 128 - mask.leading_zeros() as usize);
        let run = &row[first..end];
        let columns = self.columns.each_mut().map(|c| &mut c[range.clone()][first..end]);
        if mask.count_ones() as usize == end - first
            && !(Op::HAS_RARE && any_lane(&columns, |j, s| Op::is_rare(s, run[j])))
        {
            each_lane(columns, |j, state| Op::update_common(state, run[j]));
        } else {
            let mask = mask >> first;
            let row = run;
            each_lane(columns, |j, state| if mask >> j & 1 == 1 { Op::update(state, row[j]) } else { state });
        }
    }

    /// Merges the valid lanes of another group's state into a group.
    pub fn merge<Op: LaneOp<K>>(&mut self, group: usize, state: [&[f64]; K], mask: u128) {
        let seen = self.seen[group];
        self.seen[group] |= mask;
        let range = group * self.lanes..(group + 1) * self.lanes;
        let state = state.map(|s| &s[..range.len()]);
        let columns = self.columns.each_mut().map(|c| &mut c[range.clone()]);
        each_lane(columns, |j, own| {
            let other = state.map(|s| s[j]);
            match (seen >> j & 1 == 1, mask >> j & 1 == 1) {
                (true, true) => Op::merge(own, other),
                (false, true) => other,
                (_, false) => own,
            }
        });
    }

    /// Takes out the first `groups` groups: per group the presence of lanes, and the state columns.
    pub fn take(&mut self, groups: usize) -> (Vec<u128>, [Vec<f64>; K]) {
        let lanes = self.lanes;
        (split(&mut self.seen, groups), self.columns.each_mut().map(|c| split(c, groups * lanes)))
    }

    /// Takes out the results of the first `groups` groups, and the presence of their lanes.
    pub fn finish<Op: LaneOp<K>>(&mut self, groups: usize) -> (Vec<u128>, Vec<f64>) {
        let (seen, mut columns) = self.take(groups);
        let n = columns.first().map_or(0, Vec::len);
        #[expect(clippy::needless_range_loop, reason = "all columns are read at the same index")]
        for i in 0..n {
            columns[0][i] = Op::finish(std::array::from_fn(|k| columns[k][i]));
        }
        let [result, ..] = columns.as_mut_slice() else { return (seen, Vec::new()) };
        (seen, std::mem::take(result))
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(|c| c.capacity() * size_of::<f64>()).sum::<usize>()
            + self.seen.capacity() * size_of::<u128>()
    }
}

/// The mask of `lanes` valid lanes.
pub fn full_mask(lanes: usize) -> u128 {
    u128::MAX >> (128 - lanes)
}

/// Replaces the state of every lane by what `f(lane, state)` makes of it.
#[inline(always)]
fn each_lane<const K: usize>(columns: [&mut [f64]; K], f: impl Fn(usize, [f64; K]) -> [f64; K]) {
    let mut columns = columns;
    let lanes = columns.first().map_or(0, |c| c.len());
    // One length for all, so that the bounds checks go and the loop vectorises.
    for column in &mut columns {
        let whole = std::mem::take(column);
        *column = &mut whole[..lanes];
    }
    #[expect(clippy::needless_range_loop, reason = "the lane is also an index of the other columns")]
    for j in 0..lanes {
        let state = f(j, std::array::from_fn(|k| columns[k][j]));
        for k in 0..K {
            columns[k][j] = state[k];
        }
    }
}

/// Whether `f(lane, state)` holds anywhere.
#[inline(always)]
fn any_lane<const K: usize>(columns: &[&mut [f64]; K], f: impl Fn(usize, [f64; K]) -> bool) -> bool {
    let lanes = columns.first().map_or(0, |c| c.len());
    let columns = columns.each_ref().map(|c| &c[..lanes]);
    (0..lanes).fold(false, |any, j| any | f(j, columns.map(|c| c[j])))
}

fn split<T>(v: &mut Vec<T>, n: usize) -> Vec<T> {
    if n >= v.len() {
        return std::mem::take(v);
    }
    let rest = v.split_off(n);
    std::mem::replace(v, rest)
}

/// `sum`: compensated.
#[derive(Debug)]
pub enum Sum {}

impl LaneOp<2> for Sum {
    // −0 is what leaves every other value as it is, −0 included.
    const INIT: [f64; 2] = [-0.0, 0.0];

    #[inline(always)]
    fn update([sum, c]: [f64; 2], v: f64) -> [f64; 2] {
        kahan::inc(v, sum, c).into()
    }

    fn merge(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
        let (sum, c) = kahan::inc(b[0], a[0], a[1]);
        [sum, if sum.is_infinite() { 0.0 } else { c + b[1] }]
    }

    fn finish([sum, c]: [f64; 2]) -> f64 {
        sum + c
    }
}

/// `avg`: the direct mean until the sum overflows, an incremental one from there on.
///
/// State: sum or mean, its compensation, number of values, 1 if it is a mean.
#[derive(Debug)]
pub enum Avg {}

impl Avg {
    fn as_mean([value, c, n, incremental]: [f64; 4]) -> [f64; 4] {
        if incremental == 1.0 { [value, c, n, 1.0] } else { [value / n, c / n, n, 1.0] }
    }
}

impl LaneOp<4> for Avg {
    const INIT: [f64; 4] = [-0.0, 0.0, 0.0, 0.0];

    const HAS_RARE: bool = true;

    #[inline(always)]
    fn is_rare([value, _, _, incremental]: [f64; 4], v: f64) -> bool {
        (incremental != 0.0) | (value + v).is_infinite()
    }

    #[inline(always)]
    fn update_common([sum, c, n, _]: [f64; 4], v: f64) -> [f64; 4] {
        let (sum, c) = kahan::inc(v, sum, c);
        [sum, c, n + 1.0, 0.0]
    }

    #[inline(always)]
    fn update(state: [f64; 4], v: f64) -> [f64; 4] {
        let [.., n, _] = state;
        if !Self::is_rare(state, v) {
            return Self::update_common(state, v);
        }
        if n == 0.0 {
            return [v, 0.0, 1.0, 0.0];
        }
        let count = n + 1.0;
        let [mean, c, ..] = Self::as_mean(state);
        let q = n / count;
        let (mean, c) = kahan::inc(v / count, q * mean, q * c);
        [mean, c, count, 1.0]
    }

    fn merge(a: [f64; 4], b: [f64; 4]) -> [f64; 4] {
        let count = a[2] + b[2];
        if a[3] == 0.0 && b[3] == 0.0 {
            let (sum, c) = kahan::inc(b[0], a[0], a[1]);
            if !sum.is_infinite() {
                return [sum, c + b[1], count, 0.0];
            }
        }
        let (a, b) = (Self::as_mean(a), Self::as_mean(b));
        let (qa, qb) = (a[2] / count, b[2] / count);
        let (mean, c) = kahan::inc(qb * b[0], qa * a[0], qa * a[1]);
        [mean, if mean.is_infinite() { 0.0 } else { c + qb * b[1] }, count, 1.0]
    }

    fn finish([value, c, n, incremental]: [f64; 4]) -> f64 {
        if incremental == 1.0 { value + c } else { value / n + c / n }
    }
}

/// `count`
#[derive(Debug)]
pub enum Count {}

impl LaneOp<1> for Count {
    const INIT: [f64; 1] = [0.0];

    #[inline(always)]
    fn update([n]: [f64; 1], _: f64) -> [f64; 1] {
        [n + 1.0]
    }

    fn merge(a: [f64; 1], b: [f64; 1]) -> [f64; 1] {
        [a[0] + b[0]]
    }

    fn finish([n]: [f64; 1]) -> f64 {
        n
    }
}

/// `group`: 1 wherever there is a value.
#[derive(Debug)]
pub enum Group {}

impl LaneOp<1> for Group {
    const INIT: [f64; 1] = [1.0];

    #[inline(always)]
    fn update(state: [f64; 1], _: f64) -> [f64; 1] {
        state
    }

    fn merge(a: [f64; 1], _: [f64; 1]) -> [f64; 1] {
        a
    }

    fn finish([one]: [f64; 1]) -> f64 {
        one
    }
}

/// `min`: NaN only if all are.
#[derive(Debug)]
pub enum Min {}

impl LaneOp<1> for Min {
    const INIT: [f64; 1] = [f64::NAN];

    #[inline(always)]
    fn update([old]: [f64; 1], v: f64) -> [f64; 1] {
        [if (old > v) | old.is_nan() { v } else { old }]
    }

    fn merge(a: [f64; 1], b: [f64; 1]) -> [f64; 1] {
        Self::update(a, b[0])
    }

    fn finish([v]: [f64; 1]) -> f64 {
        v
    }
}

/// `max`: NaN only if all are.
#[derive(Debug)]
pub enum Max {}

impl LaneOp<1> for Max {
    const INIT: [f64; 1] = [f64::NAN];

    #[inline(always)]
    fn update([old]: [f64; 1], v: f64) -> [f64; 1] {
        [if (old < v) | old.is_nan() { v } else { old }]
    }

    fn merge(a: [f64; 1], b: [f64; 1]) -> [f64; 1] {
        Self::update(a, b[0])
    }

    fn finish([v]: [f64; 1]) -> f64 {
        v
    }
}

/// `stdvar`: population variance by Welford's method. State: number, mean, sum of squared distances.
#[derive(Debug)]
pub enum Stdvar {}

impl LaneOp<3> for Stdvar {
    const INIT: [f64; 3] = [0.0; 3];

    #[inline(always)]
    fn update([n, mean, m2]: [f64; 3], v: f64) -> [f64; 3] {
        let n = n + 1.0;
        let delta = v - mean;
        let mean = mean + delta / n;
        // An infinity makes this NaN, also as the first value.
        [n, mean, m2 + delta * (v - mean)]
    }

    fn merge(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
        let n = a[0] + b[0];
        let delta = b[1] - a[1];
        [n, a[1] + delta * (b[0] / n), a[2] + b[2] + delta * delta * (a[0] * b[0] / n)]
    }

    fn finish([n, _, m2]: [f64; 3]) -> f64 {
        m2 / n
    }
}

/// `stddev`: the root of [`Stdvar`].
#[derive(Debug)]
pub enum Stddev {}

impl LaneOp<3> for Stddev {
    const INIT: [f64; 3] = Stdvar::INIT;

    #[inline(always)]
    fn update(state: [f64; 3], v: f64) -> [f64; 3] {
        Stdvar::update(state, v)
    }

    fn merge(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
        Stdvar::merge(a, b)
    }

    fn finish(state: [f64; 3]) -> f64 {
        Stdvar::finish(state).sqrt()
    }
}
