//! `VectorBinary`: arithmetic and comparison of two vectors.
//!
//! Series are matched once, by signature; samples are matched by presence masks, a tile at a time.
//! All checks are per step, as upstream: two series of the "one" side may share a signature as long
//! as no step has both.
//!
//! Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/engine.go> (`VectorBinop`).
//! Difference: of several errors the one of the earliest step is reported.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use promontory_tsdb::labels::put_pair;

use super::elements::{Element, binary};
use super::key::{Interner, NAME_DROPPED, PerKey, Signature, get, labels, retain_into};
use super::math::{arithmetic, compare};
use super::rows::{Merger, Row, TileWriter, lanes, same_labelset};
use super::{Evaluate, Float, Scope};
use crate::context::{HeldBytes, Pace, QueryContext};
use crate::error::QueryError;
use crate::histogram::lanes::{LaneHistograms, Lanes};
use crate::keys::{METADATA_LABELS, is_metadata_label};
use crate::notes::Notes;
use crate::parser::{BinaryOp, Cardinality};

/// A binary operator between vectors that is no set operator.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VectorBinary {
    /// Arithmetic or comparison.
    pub op: BinaryOp,
    /// `bool` stands after the operator.
    pub return_bool: bool,
    /// What belongs together.
    pub signature: Signature,
    /// How many on each side; not `ManyToMany`.
    pub cardinality: Cardinality,
    /// Labels taken from the "one" side.
    pub include: Vec<String>,
    /// Stands in for a missing left sample.
    pub fill_left: Option<Float>,
    /// Stands in for a missing right sample.
    pub fill_right: Option<Float>,
    /// Names are marked and not dropped where upstream delays.
    pub delayed_names: bool,
    /// ` (line:col)` of the expression, for annotations.
    pub position: String,
    /// The result, on one step, is in the order of the "many" side; else in any order.
    pub ordered: bool,
}

impl fmt::Display for VectorBinary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} {}", self.op.symbol(), if self.return_bool { " bool" } else { "" }, self.signature)?;
        match self.cardinality {
            Cardinality::OneToOne | Cardinality::ManyToMany => {}
            Cardinality::ManyToOne => write!(f, " group_left({})", self.include.join(", "))?,
            Cardinality::OneToMany => write!(f, " group_right({})", self.include.join(", "))?,
        }
        for (name, fill) in [("fill_left", self.fill_left), ("fill_right", self.fill_right)] {
            if let Some(v) = fill {
                write!(f, " {name}({v:?})")?;
            }
        }
        Ok(())
    }
}

/// Rows of one side, ordered by tile and signature.
#[derive(Debug)]
struct Side<'a, 'b> {
    rows: &'b [Row<'a>],
    /// `(tile, signature, index into rows)`.
    order: Vec<(u32, u32, u32)>,
    /// Steps at which the side has any sample, by tile.
    any: Vec<u128>,
    /// Some series has its type or unit as a label.
    typed: bool,
}

impl<'a, 'b> Side<'a, 'b> {
    fn new(
        rows: &'b [Row<'a>],
        signature: &Signature,
        (ids, held): (&mut Interner, &mut HeldBytes<&QueryContext>),
        scope: Scope<'_>,
    ) -> Result<Self, QueryError> {
        let mut pace = Pace::new(scope.context);
        let mut known = PerKey::new();
        let mut any = vec![0; scope.grid.tiles()];
        let mut typed = false;
        let mut order = Vec::with_capacity(rows.len());
        for (i, row) in rows.iter().enumerate() {
            pace.step(1)?;
            held.grow_to(ids.bytes())?;
            any[row.tile as usize] |= row.any();
            let id = known.get(row.key, |key| {
                typed |= METADATA_LABELS[1..].iter().any(|label| get(key, label).is_some());
                ids.id(&signature.of(key))
            });
            order.push((row.tile, id, i as u32));
        }
        order.sort_unstable();
        Ok(Self { rows, order, any, typed })
    }

    /// Takes the rows of the group `(tile, signature)`, which is not behind the cursor, with their places.
    fn group(&self, cursor: &mut usize, group: (u32, u32)) -> Vec<(u32, &'b Row<'a>)> {
        let mut found = Vec::new();
        while let Some((tile, signature, i)) = self.order.get(*cursor) {
            if (*tile, *signature) != group {
                break;
            }
            found.push((*i, &self.rows[*i as usize]));
            *cursor += 1;
        }
        found
    }

    fn peek(&self, cursor: usize) -> Option<(u32, u32)> {
        self.order.get(cursor).map(|(tile, signature, _)| (*tile, *signature))
    }
}

/// The first thing that is wrong in a tile: step, kind and key decide which one is told.
#[derive(Debug, Default)]
struct FirstError(Option<(usize, u8, Vec<u8>, QueryError)>);

impl FirstError {
    /// `tell` gives the text for a lane, and the key of the series at which upstream would notice.
    fn offer(&mut self, mask: u128, kind: u8, tell: impl FnOnce(usize) -> (String, Vec<u8>)) {
        if mask == 0 {
            return;
        }
        let lane = mask.trailing_zeros() as usize;
        let known = self.0.as_ref().map(|(lane, kind, ..)| (*lane, *kind));
        if known.is_some_and(|known| known < (lane, kind)) {
            return;
        }
        let (text, key) = tell(lane);
        let is_first = self.0.as_ref().is_none_or(|(l, k, other, _)| {
            (lane, kind).cmp(&(*l, *k)).then_with(|| super::compare(&key, other)).is_lt()
        });
        if is_first {
            self.0 = Some((lane, kind, key, QueryError::Execution(text)));
        }
    }
}

impl Evaluate for VectorBinary {
    fn name(&self) -> &'static str {
        "VectorBinary"
    }

    fn vector_inputs(&self) -> usize {
        2
    }

    fn run(
        &self,
        scope: Scope<'_>,
        vectors: &[Vec<Row<'_>>],
        out: &mut TileWriter<'_>,
    ) -> Result<(), DataFusionError> {
        let swapped = self.cardinality == Cardinality::OneToMany;
        let (many, one) = if swapped { (1, 0) } else { (0, 1) };
        let mut ids = Interner::default();
        let mut held = HeldBytes::new(scope.context);
        let many = Side::new(&vectors[many], &self.signature, (&mut ids, &mut held), scope)?;
        let one = Side::new(&vectors[one], &self.signature, (&mut ids, &mut held), scope)?;
        let listed = METADATA_LABELS.iter().any(|label| self.signature.lists(label.as_bytes()));
        let mut matcher = Matcher {
            operator: self,
            notes: Notes { context: scope.context, position: &self.position, name: "" },
            swapped,
            error: FirstError::default(),
            pace: Pace::new(scope.context),
            values: vec![0.0; out.width()],
            // Keys of different groups can only meet where the signature holds what the result drops.
            merger: (listed || many.typed || one.typed).then(|| Merger::new(out.width(), scope.context)),
            pending: self.ordered.then(Vec::new),
            held: HeldBytes::new(scope.context),
            owners: vec![0; out.width()],
            one_behind: many.rows.len() as u32,
            out,
        };
        let (mut m, mut o) = (0, 0);
        let mut tile = 0;
        while let Some(group) = [many.peek(m), one.peek(o)].into_iter().flatten().min() {
            if group.0 != tile {
                matcher.fail()?;
                tile = group.0;
            }
            let (lefts, rights) = (many.group(&mut m, group), one.group(&mut o, group));
            let (any_many, any_one) = (many.any[tile as usize], one.any[tile as usize]);
            let steps = if self.fill_left.is_some() || self.fill_right.is_some() {
                any_many | any_one
            } else {
                any_many & any_one
            };
            matcher.group(tile, steps, &lefts, &rights)?;
        }
        matcher.fail()?;
        matcher.finish()?;
        Ok(())
    }
}

struct Matcher<'a, 'w> {
    operator: &'a VectorBinary,
    notes: Notes<'a>,
    /// The "many" side is the right one.
    swapped: bool,
    error: FirstError,
    pace: Pace<'a>,
    values: Vec<f64>,
    merger: Option<Merger<'a>>,
    /// For the rows of a group.
    held: HeldBytes<&'a QueryContext>,
    /// Rows of all groups of the only tile, if their order counts.
    pending: Option<Vec<GroupRow>>,
    /// Which of the "one" rows of a group has a sample, by lane.
    owners: Vec<u32>,
    /// Behind the places of all "many" rows.
    one_behind: u32,
    out: &'a mut TileWriter<'w>,
}

/// An output row of a group.
#[derive(Debug)]
struct GroupRow {
    key: Vec<u8>,
    /// Where it belongs in an ordered result.
    place: u32,
    /// Presence before the comparison.
    inserted: u128,
    /// Presence of floats.
    present: u128,
    values: Vec<f64>,
    histograms: LaneHistograms,
}

/// Output rows of one group.
#[derive(Debug, Default)]
struct GroupRows {
    rows: Vec<GroupRow>,
    /// Where each key is, once there are more than a few.
    index: HashMap<Vec<u8>, usize>,
    /// What all of it takes, about.
    bytes: usize,
}

impl GroupRows {
    /// Up to so many rows are looked through one by one.
    const FEW: usize = 8;

    fn find(&self, key: &[u8]) -> Option<usize> {
        if self.rows.len() <= Self::FEW {
            self.rows.iter().position(|row| row.key == key)
        } else {
            self.index.get(key).copied()
        }
    }

    fn push(&mut self, row: GroupRow) {
        self.bytes += 2 * row.key.len() + row.values.len() * size_of::<f64>() + size_of::<GroupRow>() + 64;
        self.rows.push(row);
        if self.rows.len() > Self::FEW {
            for at in self.index.len()..self.rows.len() {
                self.index.insert(self.rows[at].key.clone(), at);
            }
        }
    }
}

impl Matcher<'_, '_> {
    fn fail(&mut self) -> Result<(), DataFusionError> {
        match self.error.0.take() {
            Some((.., error)) => Err(error.into()),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> Result<(), QueryError> {
        if let Some(mut rows) = self.pending.take() {
            rows.sort_by_key(|row| row.place);
            rows.into_iter().try_for_each(|row| self.emit(0, row))?;
        }
        match self.merger {
            Some(merger) => merger.write(self.out),
            None => Ok(()),
        }
    }

    /// Matches the rows of one tile and signature at `steps`.
    fn group(
        &mut self,
        tile: u32,
        steps: u128,
        many: &[(u32, &Row<'_>)],
        one: &[(u32, &Row<'_>)],
    ) -> Result<(), DataFusionError> {
        let duplicates = self.one_side(steps, one);
        let present = one.iter().fold(0, |mask, (_, row)| mask | row.any());
        let mut made = GroupRows::default();
        let mut matched = 0;
        if one.len() > 1 {
            for (i, (_, row)) in one.iter().enumerate() {
                self.pace.step(1)?;
                lanes(row.any()).for_each(|lane| self.owners[lane] = i as u32);
            }
        }
        for (place, left) in many {
            let mut open = left.any() & present & steps & !duplicates;
            while open != 0 {
                self.pace.step(1)?;
                // At each step one of them has a sample.
                let owner = if one.len() > 1 { self.owners[open.trailing_zeros() as usize] } else { 0 };
                let (_, right) = one[owner as usize];
                let both = open & right.any();
                open &= !both;
                self.held.grow_to(made.bytes)?;
                self.pair(both, *place, left, right, &mut matched, &mut made);
            }
            // After the swap, upstream's `RHS` fill still stands in for the "one" side.
            if let Some(fill) = self.operator.fill_right {
                let alone = left.any() & !present & steps;
                let key = self.operator.signature.of(left.key);
                let filled = vec![fill.0; left.values.len()];
                self.pair(alone, *place, left, &stand_in(&key, tile, &filled), &mut matched, &mut made);
            }
        }
        if let Some(fill) = self.operator.fill_left {
            for (place, right) in one {
                self.pace.step(1)?;
                self.held.grow_to(made.bytes)?;
                let alone = right.any() & steps & !matched;
                let key = self.operator.signature.of(right.key);
                let filled = vec![fill.0; right.values.len()];
                let (place, left) = (self.one_behind + place, stand_in(&key, tile, &filled));
                self.pair(alone, place, &left, right, &mut matched, &mut made);
            }
        }
        match &mut self.pending {
            Some(pending) => pending.extend(made.rows),
            None => made.rows.into_iter().try_for_each(|row| self.emit(tile, row))?,
        }
        Ok(())
    }

    fn emit(&mut self, tile: u32, row: GroupRow) -> Result<(), QueryError> {
        let GroupRow { key, present, values, histograms, .. } = row;
        let Some(merger) = &mut self.merger else {
            return self.out.push_mixed(&key, tile, present, &values, &histograms);
        };
        merger.fits()?;
        let both = merger.add(&key, tile, present, &values);
        let owned = histograms.iter().map(|(lane, h)| (lane, Arc::clone(h)));
        if both != 0 || (!histograms.is_empty() && merger.add_histograms(&key, tile, owned) != 0) {
            return Err(same_labelset());
        }
        Ok(())
    }

    /// Looks for steps at which the "one" side has more than one sample; gives those steps.
    fn one_side(&mut self, steps: u128, one: &[(u32, &Row<'_>)]) -> u128 {
        let (mut seen, mut twice) = (0, 0);
        for (_, row) in one {
            twice |= seen & row.any();
            seen |= row.any();
        }
        let duplicates = twice & steps;
        let (operator, swapped) = (self.operator, self.swapped);
        self.error.offer(duplicates, 0, |lane| {
            let mut found: Vec<_> =
                one.iter().filter(|(_, row)| row.any() >> lane & 1 == 1).map(|(_, row)| row.key).collect();
            found.sort_by(|a, b| super::compare(a, b));
            let mut texts = [labels(found[0]).to_string(), labels(found[1]).to_string()];
            texts.sort();
            let text = format!(
                "found duplicate series for the match group {} on the {} hand-side of the operation: [{}, {}];\
                 many-to-many matching not allowed: matching labels must be unique on one side",
                operator.signature.group_labels(found[0]),
                if swapped { "left" } else { "right" },
                texts[0],
                texts[1]
            );
            (text, found[1].to_vec())
        });
        duplicates
    }

    /// Combines two rows at the steps `both`.
    fn pair(
        &mut self,
        both: u128,
        place: u32,
        many: &Row<'_>,
        one: &Row<'_>,
        matched: &mut u128,
        made: &mut GroupRows,
    ) {
        if both == 0 {
            return;
        }
        let operator = self.operator;
        let (left, right) = if self.swapped { (one, many) } else { (many, one) };
        let floats = if operator.is_trim() { 0 } else { both & left.mask & right.mask };
        let mut mask = operator.lanes(floats, left.values, right.values, &mut self.values);
        let mut histograms = LaneHistograms::default();
        // What does not go together is as if it had not met.
        let both = if floats == both {
            both
        } else {
            floats | self.elements(both & !floats, left, right, &mut mask, &mut histograms)
        };
        if both == 0 {
            return;
        }
        let key = operator.result_key(many.key, one.key);
        let one_to_one = operator.cardinality == Cardinality::OneToOne;
        if one_to_one {
            self.error.offer(*matched & both, 1, |_| {
                ("multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)".to_owned(), Vec::new())
            });
        }
        *matched |= both;
        match made.find(&key) {
            None => {
                let values = self.values.clone();
                made.push(GroupRow { key, place, inserted: both, present: mask, values, histograms });
            }
            Some(at) => {
                let row = &mut made.rows[at];
                if !one_to_one {
                    self.error.offer(row.inserted & both, 1, |_| {
                        (
                            "multiple matches for labels: grouping labels must ensure unique matches"
                                .to_owned(),
                            Vec::new(),
                        )
                    });
                }
                row.inserted |= both;
                row.present |= mask;
                for lane in lanes(mask) {
                    row.values[lane] = self.values[lane];
                }
                histograms.iter().for_each(|(lane, h)| row.histograms.set(lane, Arc::clone(h)));
            }
        }
    }

    /// Combines samples of which one is a histogram; gives the steps at which they go together.
    fn elements(
        &mut self,
        steps: u128,
        left: &Row<'_>,
        right: &Row<'_>,
        mask: &mut u128,
        histograms: &mut LaneHistograms,
    ) -> u128 {
        let element = |row: &Row<'_>, lane: usize| match row.histograms.get(lane) {
            Some(h) => Element::Histogram(Arc::new(h)),
            None => Element::Float(row.values[lane]),
        };
        let mut met = 0;
        for lane in lanes(steps) {
            let (l, r) = (element(left, lane), element(right, lane));
            let Some(combined) = binary(self.operator.op, &l, &r, &self.notes) else { continue };
            met |= 1 << lane;
            let value = if self.operator.return_bool {
                Element::Float(f64::from(u8::from(combined.holds)))
            } else if combined.holds {
                combined.value
            } else {
                continue;
            };
            match value {
                Element::Float(v) => {
                    self.values[lane] = v;
                    *mask |= 1 << lane;
                }
                Element::Histogram(h) => histograms.set(lane, h),
            }
        }
        met
    }
}

/// A row of floats at all steps, for a side that has no sample.
fn stand_in<'a>(key: &'a [u8], tile: u32, values: &'a [f64]) -> Row<'a> {
    Row { key, tile, mask: u128::MAX, values, histograms: Lanes::default() }
}

impl VectorBinary {
    /// Trimming is for histograms alone.
    fn is_trim(&self) -> bool {
        matches!(self.op, BinaryOp::TrimLower | BinaryOp::TrimUpper)
    }

    /// Values and presence of the result at the steps `both`.
    fn lanes(&self, both: u128, left: &[f64], right: &[f64], values: &mut [f64]) -> u128 {
        if !self.op.is_comparison() {
            arithmetic_lanes(self.op, left, right, values);
            return both;
        }
        let holds = lanes(both)
            .filter(|lane| compare(self.op, left[*lane], right[*lane]))
            .fold(0, |mask: u128, lane| mask | 1 << lane);
        if self.return_bool {
            for (lane, value) in values.iter_mut().enumerate() {
                *value = f64::from(u8::from(holds >> lane & 1 == 1));
            }
            both
        } else {
            values.copy_from_slice(left);
            holds
        }
    }

    /// Labels of the result: the "many" side's, changed as upstream's `resultMetric` does.
    fn result_key(&self, many: &[u8], one: &[u8]) -> Vec<u8> {
        let keeps = self.op.is_comparison() || self.is_trim();
        let drop_name = !keeps || (self.return_bool && !self.delayed_names);
        let one_to_one = self.cardinality == Cardinality::OneToOne;
        let mut key = Vec::with_capacity(many.len() + 8);
        retain_into(many, &mut key, |name| {
            let is_name = is_metadata_label(name);
            name != NAME_DROPPED.as_bytes()
                && !(is_name && drop_name)
                && (!one_to_one || self.signature.lists(name) == self.signature.on)
        });
        if !self.include.is_empty() {
            let mut builder = labels(&key).to_builder();
            for name in &self.include {
                let value = get(one, name).and_then(|v| std::str::from_utf8(v).ok());
                builder.set(name, value.unwrap_or_default());
            }
            key = builder.build().as_bytes().to_vec();
        }
        if self.return_bool && self.delayed_names {
            put_pair(&mut key, NAME_DROPPED, "1");
        }
        key
    }
}

/// One loop per operator, so that the usual ones become vector instructions.
fn arithmetic_lanes(op: BinaryOp, left: &[f64], right: &[f64], values: &mut [f64]) {
    macro_rules! each {
        ($op:expr) => {
            for ((value, l), r) in values.iter_mut().zip(left).zip(right) {
                *value = arithmetic($op, *l, *r);
            }
        };
    }
    match op {
        BinaryOp::Add => each!(BinaryOp::Add),
        BinaryOp::Sub => each!(BinaryOp::Sub),
        BinaryOp::Mul => each!(BinaryOp::Mul),
        BinaryOp::Div => each!(BinaryOp::Div),
        op => each!(op),
    }
}
