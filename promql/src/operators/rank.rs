//! `Rank`: `topk`, `bottomk`, `limitk`, `limit_ratio`: operators that keep some series of each group.
//!
//! Series are looked at in label order, or in that of a `sort` below, with upstream's heap, so that ties are broken as upstream does.
//! On one step (an instant query) rows leave in upstream's order; the engine keeps it.

use std::fmt;

use datafusion::error::DataFusionError;

use super::format::go_g;
use super::key::{Interner, compare as compare_keys, group_of, unmarked};
use super::rows::{Row, TileWriter, lanes};
use super::scalar::Scalar;
use super::{Evaluate, ScalarArg, Scope};
use crate::context::{HeldBytes, Pace};
use crate::error::QueryError;
use crate::logical::spec::Grouping;
use crate::notes::Notes;

/// Keeps some samples of each group, chosen step by step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rank {
    /// Which ones.
    pub kind: RankKind,
    /// Of what.
    pub grouping: Grouping,
    /// How many, or which part.
    pub param: ScalarArg,
    /// ` (line:col)` of the parameter, for annotations.
    pub position: String,
    /// ` (line:col)` of the whole aggregation.
    pub whole: String,
    /// Rows come in an order that counts; otherwise they are looked at in label order.
    pub ordered_input: bool,
}

/// Which samples a [`Rank`] keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RankKind {
    /// The greatest.
    Top,
    /// The least.
    Bottom,
    /// The first in label order.
    Limit,
    /// Those whose hash falls into a part of the range of hashes.
    Ratio,
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({}) {}", self.kind, self.param, self.grouping)
    }
}

impl Evaluate for Rank {
    fn name(&self) -> &'static str {
        "Rank"
    }

    fn run(
        &self,
        scope: Scope<'_>,
        vectors: &[Vec<Row<'_>>],
        out: &mut TileWriter<'_>,
    ) -> Result<(), DataFusionError> {
        let param = self.param.resolve(scope.scalars);
        if !self.check_param(scope, param)? {
            return Ok(());
        }
        let mut rows: Vec<&Row<'_>> = vectors[0].iter().collect();
        if !self.ordered_input {
            rows.sort_by(|a, b| a.tile.cmp(&b.tile).then_with(|| compare_keys(a.key, b.key)));
        }
        let mut start = 0;
        while start < rows.len() {
            let end = start + rows[start..].partition_point(|row| row.tile == rows[start].tile);
            self.tile(&rows[start..end], param, scope, out)?;
            start = end;
        }
        Ok(())
    }
}

impl Rank {
    /// Upstream's checks of the parameter over all steps; whether there is anything to do.
    fn check_param(&self, scope: Scope<'_>, param: Scalar<'_>) -> Result<bool, QueryError> {
        let values = (0..scope.grid.steps).map(|step| param.at(step));
        let (mut min, mut max, mut nan) = (f64::INFINITY, f64::NEG_INFINITY, false);
        for v in values {
            nan |= v.is_nan();
            min = min.min(v);
            max = max.max(v);
        }
        if self.kind == RankKind::Ratio {
            if nan {
                return Err(QueryError::Execution("Ratio value is NaN".into()));
            }
            for (value, limit) in [(max, 1.0), (-min, 1.0)] {
                if value > limit {
                    let (value, limit) = if value == max { (max, 1.0) } else { (min, -1.0) };
                    scope.context.warn(&format!(
                        "ratio value should be between -1 and 1, got {}, capping to {}{}",
                        go_g(value),
                        go_g(limit),
                        self.position
                    ));
                }
            }
            return Ok(max != 0.0 || min != 0.0);
        }
        if nan {
            return Err(QueryError::Execution("Parameter value is NaN".into()));
        }
        if max < 1.0 {
            return Ok(false);
        }
        let limit = 9_223_372_036_854_775_807_f64;
        if min <= -limit {
            return Err(QueryError::Execution(format!("Scalar value {} underflows int64", go_g(min))));
        }
        if max >= limit {
            return Err(QueryError::Execution(format!("Scalar value {} overflows int64", go_g(max))));
        }
        Ok(true)
    }

    /// Chooses among the rows of one tile, which come in the order in which they are looked at.
    fn tile(
        &self,
        rows: &[&Row<'_>],
        param: Scalar<'_>,
        scope: Scope<'_>,
        out: &mut TileWriter<'_>,
    ) -> Result<(), QueryError> {
        let mut pace = Pace::new(scope.context);
        let (mut ids, mut held) = (Interner::default(), HeldBytes::new(scope.context));
        let mut groups = Vec::with_capacity(rows.len());
        for row in rows {
            groups.push(ids.id(&group_of(row.key, &self.grouping)));
            held.grow_to(ids.bytes())?;
        }
        let tile = rows[0].tile as usize;
        let mut masks = vec![0u128; rows.len()];
        let mut order: Vec<usize> = Vec::new();
        let ranks = matches!(self.kind, RankKind::Top | RankKind::Bottom);
        let offered = |row: &Row<'_>| if ranks { row.mask } else { row.any() };
        let any = rows.iter().fold(0, |mask, row| mask | offered(row));
        if ranks {
            self.ignore_histograms(rows, param, scope);
        }
        for lane in lanes(any) {
            pace.step(rows.len())?;
            // With a place for each row in the heaps.
            held.grow_to(ids.bytes() + order.len() * size_of::<usize>() + rows.len() * 16)?;
            let param = param.at(tile * out.width() + lane);
            let mut heaps = vec![Heap::new(self.kind); ids.len()];
            for (i, row) in rows.iter().enumerate().filter(|(_, row)| offered(row) >> lane & 1 == 1) {
                // A histogram has its place as if it were 0.
                let v = if row.mask >> lane & 1 == 1 { row.values[lane] } else { 0.0 };
                heaps[groups[i] as usize].offer(param, v, i, row.key);
            }
            for i in heaps.into_iter().flat_map(Heap::into_order) {
                masks[i] |= 1 << lane;
                order.push(i);
            }
        }
        // On one step the order of choice is the order of the result.
        if scope.grid.steps > 1 {
            order.sort_unstable();
            order.dedup();
        }
        for i in order {
            out.pass(rows[i], rows[i].key, masks[i])?;
        }
        Ok(())
    }

    /// Tells that histograms are not ranked, where anything is.
    fn ignore_histograms(&self, rows: &[&Row<'_>], param: Scalar<'_>, scope: Scope<'_>) {
        let notes = Notes { context: scope.context, position: &self.whole, name: "" };
        let first = rows[0].tile as usize * scope.grid.tile_steps;
        let histograms = rows.iter().fold(0, |mask, row| mask | row.histograms.mask());
        if lanes(histograms).any(|lane| param.at(first + lane) >= 1.0) {
            notes.ignored_in_aggregation(if self.kind == RankKind::Top { "topk" } else { "bottomk" });
        }
    }
}

/// `container/heap` of Go over `(value, row)`, least (or greatest) value first.
#[derive(Debug, Clone)]
struct Heap {
    kind: RankKind,
    items: Vec<(f64, usize)>,
}

impl Heap {
    fn new(kind: RankKind) -> Self {
        Self { kind, items: Vec::new() }
    }

    /// Whether `a` goes out before `b`; NaN goes first.
    fn less(&self, a: usize, b: usize) -> bool {
        let (a, b) = (self.items[a].0, self.items[b].0);
        a.is_nan() || if self.kind == RankKind::Bottom { a > b } else { a < b }
    }

    fn offer(&mut self, param: f64, v: f64, row: usize, key: &[u8]) {
        if self.kind == RankKind::Ratio {
            if in_ratio(param.clamp(-1.0, 1.0), key) {
                self.push(v, row);
            }
            return;
        }
        if param < 1.0 {
            return;
        }
        let k = param as usize;
        if self.items.len() < k {
            self.push(v, row);
            return;
        }
        let worst = self.items[0].0;
        let better = match self.kind {
            RankKind::Top => worst < v || (worst.is_nan() && !v.is_nan()),
            RankKind::Bottom => worst > v || (worst.is_nan() && !v.is_nan()),
            RankKind::Limit | RankKind::Ratio => false,
        };
        if better {
            self.items[0] = (v, row);
            self.down(0);
        }
    }

    fn push(&mut self, v: f64, row: usize) {
        self.items.push((v, row));
        self.up(self.items.len() - 1);
    }

    fn up(&mut self, mut j: usize) {
        while j > 0 {
            let parent = (j - 1) / 2;
            if !self.less(j, parent) {
                break;
            }
            self.items.swap(parent, j);
            j = parent;
        }
    }

    fn down(&mut self, mut i: usize) {
        loop {
            let left = 2 * i + 1;
            if left >= self.items.len() {
                break;
            }
            let right = left + 1;
            let child = if right < self.items.len() && self.less(right, left) { right } else { left };
            if !self.less(child, i) {
                break;
            }
            self.items.swap(i, child);
            i = child;
        }
    }

    /// Rows, best first.
    fn into_order(mut self) -> Vec<usize> {
        match self.kind {
            RankKind::Top => self.items.sort_by(|a, b| last_nan(b.0, a.0, a.0, b.0)),
            RankKind::Bottom => self.items.sort_by(|a, b| last_nan(a.0, b.0, a.0, b.0)),
            RankKind::Limit | RankKind::Ratio => {}
        }
        self.items.into_iter().map(|(_, row)| row).collect()
    }
}

/// Orders `x` against `y`, where `a` and `b` are the values in their places; NaN comes last.
fn last_nan(x: f64, y: f64, a: f64, b: f64) -> std::cmp::Ordering {
    a.is_nan().cmp(&b.is_nan()).then_with(|| x.partial_cmp(&y).unwrap_or(std::cmp::Ordering::Equal))
}

/// Upstream's sampler: the hash of the labels as a part of all hashes.
fn in_ratio(ratio: f64, key: &[u8]) -> bool {
    let offset = label_hash(unmarked(key)) as f64 / u64::MAX as f64;
    if ratio >= 0.0 { offset < ratio } else { offset >= 1.0 + ratio }
}

/// `labels.Labels.Hash` of upstream's default build: XXH64 of its own string form.
fn label_hash(key: &[u8]) -> u64 {
    let mut bytes = Vec::with_capacity(key.len());
    for (name, value, _) in super::key::pairs(key) {
        for s in [name, value] {
            if s.len() < 255 {
                bytes.push(s.len() as u8);
            } else {
                bytes.push(255);
                bytes.extend_from_slice(&(s.len() as u32).to_le_bytes()[..3]);
            }
            bytes.extend_from_slice(s);
        }
    }
    xxh64(&bytes)
}

/// XXH64 with seed 0.
fn xxh64(input: &[u8]) -> u64 {
    const P1: u64 = 0x9E37_79B1_85EB_CA87;
    const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
    const P3: u64 = 0x1656_67B1_9E37_79F9;
    const P4: u64 = 0x85EB_CA77_C2B2_AE63;
    const P5: u64 = 0x27D4_EB2F_1656_67C5;
    let round =
        |acc: u64, word: u64| acc.wrapping_add(word.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1);
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |acc, b| acc << 8 | u64::from(*b));
    let mut stripes = input.chunks_exact(32);
    let mut hash = if input.len() >= 32 {
        let mut acc = [P1.wrapping_add(P2), P2, 0, 0u64.wrapping_sub(P1)];
        for stripe in &mut stripes {
            for (acc, bytes) in acc.iter_mut().zip(stripe.chunks_exact(8)) {
                *acc = round(*acc, word(bytes));
            }
        }
        let mut hash = acc
            .iter()
            .zip([1, 7, 12, 18])
            .fold(0u64, |hash, (acc, bits)| hash.wrapping_add(acc.rotate_left(bits)));
        for acc in acc {
            hash = (hash ^ round(0, acc)).wrapping_mul(P1).wrapping_add(P4);
        }
        hash
    } else {
        P5
    };
    hash = hash.wrapping_add(input.len() as u64);
    let mut eights = stripes.remainder().chunks_exact(8);
    for bytes in &mut eights {
        hash = (hash ^ round(0, word(bytes))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
    }
    let mut rest = eights.remainder();
    if let Some((four, tail)) = rest.split_at_checked(4) {
        hash = (hash ^ word(four).wrapping_mul(P1)).rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
        rest = tail;
    }
    for b in rest {
        hash = (hash ^ u64::from(*b).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }
    hash = (hash ^ hash >> 33).wrapping_mul(P2);
    hash = (hash ^ hash >> 29).wrapping_mul(P3);
    hash ^ hash >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xxh64_gives_the_published_values() {
        assert_eq!(xxh64(b""), 0xEF46_DB37_51D8_E999);
        assert_eq!(xxh64(b"abc"), 0x44BC_2CF5_AD77_0999);
    }
}
