//! Aggregation inside the leaf: series are added up where they are evaluated, and never become tiles.
//!
//! [`AggregateInLeaf`] finds the first phase of a vector aggregate right above a leaf that emits group keys, and lets
//! the leaf do it ([`LeafGroups`]): what comes out of the leaf then are the states that the phase would have given.
//! What is added up, and in which order, is the same.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, UInt32Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use promontory_tsdb::histogram::FloatHistogram;

use super::aggregate::{self, LaneStates};
use super::histograms::{self, HistogramAggregation, Totals};
use super::selector::SelectorExec;
use crate::context::{HeldBytes, QueryContext};
use crate::error::QueryError;
use crate::histogram::weight;
use crate::kernels::StepRow;
use crate::logical::spec::KeyOutput;
use crate::notes::Notes;
use crate::operators::{FloatsOnly, Operator, OperatorExec};
use crate::params::Grid;
use crate::parser::ast::AggregateOp;

/// Rows of a batch of states.
const BATCH_ROWS: usize = 1024;

/// What a leaf adds up.
#[derive(Debug, Clone)]
pub(super) struct Partial {
    op: AggregateOp,
    histograms: HistogramAggregation,
    /// Histograms are left out, and that is told.
    floats_only: Option<FloatsOnly>,
    /// Key, tile, and the columns of the states.
    pub(super) schema: SchemaRef,
}

impl Partial {
    /// Name of the operator.
    pub(super) fn name(&self) -> &'static str {
        self.op.name()
    }
}

/// The rule; see the module.
#[derive(Debug, Default)]
pub(crate) struct AggregateInLeaf;

impl PhysicalOptimizerRule for AggregateInLeaf {
    fn name(&self) -> &str {
        "PromAggregateInLeaf"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            Ok(match in_leaf(&node) {
                Some(leaf) => Transformed::yes(leaf),
                None => Transformed::no(node),
            })
        })
        .map(|transformed| transformed.data)
    }
}

/// The leaf that does what `node` does, if it is the first phase of an aggregate of ours over a leaf.
fn in_leaf(node: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    let phase =
        node.downcast_ref::<AggregateExec>().filter(|phase| *phase.mode() == AggregateMode::Partial)?;
    let [floats, totals] = phase.aggr_expr() else { return None };
    let op = aggregate::operator_of(floats.fun())?;
    let histograms = histograms::kind_of(totals.fun())?;
    let (below, floats_only) = match phase.input().downcast_ref::<OperatorExec>() {
        None => (phase.input(), None),
        Some(between) => match between.operator() {
            Operator::FloatsOnly(floats_only) => (*between.children().first()?, Some(floats_only.clone())),
            _ => return None,
        },
    };
    let leaf = below.downcast_ref::<SelectorExec>()?;
    if !matches!(leaf.spec().output, KeyOutput::Group(_)) {
        return None;
    }
    let partial = Partial { op, histograms, floats_only, schema: phase.schema() };
    Some(Arc::new(leaf.with_partial(partial)))
}

/// The states of a leaf's groups.
pub(super) struct LeafGroups {
    partial: Partial,
    grid: Grid,
    /// Number of each key.
    keys: HashMap<Box<[u8]>, usize>,
    /// The number of the key that came last: series of a group mostly follow each other.
    last: Option<(Vec<u8>, usize)>,
    /// By number of the key and tile: the group, once it has something.
    groups: Vec<Option<u32>>,
    /// Key and tile of each group.
    places: Vec<(Arc<[u8]>, u32)>,
    names: Vec<Arc<[u8]>>,
    floats: Box<dyn LaneStates>,
    totals: Totals,
    /// Lanes of each group that have something.
    held: Vec<Lanes>,
    /// Known once the first series comes.
    accounted: Option<HeldBytes<Arc<QueryContext>>>,
    /// Bytes of keys, groups and histograms.
    bytes: usize,
}

/// Lanes of a group with floats, and with a histogram.
#[derive(Debug, Clone, Copy, Default)]
struct Lanes {
    floats: u128,
    histograms: u128,
}

impl LeafGroups {
    pub(super) fn new(partial: Partial, grid: Grid) -> Result<Self> {
        let floats = aggregate::lane_states(partial.op, grid.tile_steps)
            .ok_or_else(|| internal_datafusion_err!("{} is not a vector aggregate", partial.op.name()))?;
        Ok(Self {
            totals: Totals::new(partial.histograms),
            partial,
            grid,
            keys: HashMap::new(),
            last: None,
            groups: Vec::new(),
            places: Vec::new(),
            names: Vec::new(),
            held: Vec::new(),
            accounted: None,
            bytes: 0,
            floats,
        })
    }

    /// Adds a series. Gives what is held for it and was not before, in samples: a lane is one, one with a histogram as
    /// many as that one weighs.
    pub(super) fn add(
        &mut self,
        key: &[u8],
        row: &StepRow,
        query: &Arc<QueryContext>,
    ) -> Result<usize, QueryError> {
        let lanes = self.grid.tile_steps;
        let number = self.number(key);
        let mut held = if row.histograms().is_empty() { 0 } else { self.add_histograms(number, row, query) };
        for tile in 0..self.grid.tiles() {
            let mut mask = row.mask(tile, lanes);
            if aggregate::counts(self.partial.op) {
                mask |= row.histogram_mask(tile, lanes);
            }
            if mask != 0 {
                let group = self.group(number, tile);
                let there = &mut self.held[group].floats;
                held += (mask & !*there).count_ones() as usize;
                *there |= mask;
                self.floats.update(group, &row.padded_values()[tile * lanes..(tile + 1) * lanes], mask);
            }
        }
        self.accounted.get_or_insert_with(|| HeldBytes::new(Arc::clone(query))).grow_to(self.bytes)?;
        Ok(held)
    }

    /// As [`LeafGroups::add`], of histograms.
    fn add_histograms(&mut self, number: usize, row: &StepRow, query: &QueryContext) -> usize {
        if let Some(FloatsOnly { aggregation, position }) = &self.partial.floats_only {
            if let Some(aggregation) = aggregation {
                Notes { context: query, position, name: "" }.ignored_in_aggregation(aggregation);
            }
            return 0;
        }
        if self.partial.histograms == HistogramAggregation::Nothing {
            return 0;
        }
        let mut held = 0;
        for (step, histogram) in row.histograms() {
            let group = self.group(number, step / self.grid.tile_steps);
            let histogram: &FloatHistogram = histogram;
            let lane = step % self.grid.tile_steps;
            if self.held[group].histograms & 1 << lane == 0 {
                self.held[group].histograms |= 1 << lane;
                held += weight(histogram);
                self.bytes += 16 * weight(histogram);
            }
            self.totals.add(group, lane, histogram);
        }
        held
    }

    fn number(&mut self, key: &[u8]) -> usize {
        // Comparing no bytes would be slow: the C library loads them behind a mask, from where an empty vector points.
        if let Some((last, number)) = &self.last
            && (if key.is_empty() { last.is_empty() } else { last == key })
        {
            return *number;
        }
        let number = match self.keys.get(key) {
            Some(number) => *number,
            None => {
                let number = self.names.len();
                self.keys.insert(key.into(), number);
                self.names.push(key.into());
                self.bytes += 2 * key.len() + 96 + self.grid.tiles() * size_of::<Option<u32>>();
                self.groups.resize(self.groups.len() + self.grid.tiles(), None);
                number
            }
        };
        let (mut last, _) = self.last.take().unwrap_or_default();
        last.clear();
        last.extend_from_slice(key);
        self.last = Some((last, number));
        number
    }

    #[inline]
    fn group(&mut self, number: usize, tile: usize) -> usize {
        let slot = &mut self.groups[number * self.grid.tiles() + tile];
        if let Some(group) = slot {
            return *group as usize;
        }
        let group = self.places.len();
        *slot = Some(group as u32);
        self.bytes += self.floats.group_bytes() + size_of::<Lanes>() + 32;
        self.places.push((Arc::clone(&self.names[number]), tile as u32));
        self.floats.grow(group + 1);
        self.totals.grow(group + 1);
        self.held.resize(group + 1, Lanes::default());
        group
    }

    /// All states, as the first phase of the aggregate gives them.
    pub(super) fn finish(mut self) -> Result<Vec<RecordBatch>> {
        // Offsets into the column of keys have 32 bits.
        if self.places.iter().map(|(key, _)| key.len()).sum::<usize>() > i32::MAX as usize {
            return Err(QueryError::Limit("labels of groups take more than 2 GiB".to_owned()).into());
        }
        let mut keys = BinaryBuilder::new();
        self.places.iter().for_each(|(key, _)| keys.append_value(key));
        let tiles = UInt32Array::from_iter_values(self.places.iter().map(|(_, tile)| *tile));
        let mut columns: Vec<ArrayRef> = vec![Arc::new(keys.finish()), Arc::new(tiles)];
        columns.extend(self.floats.state()?);
        columns.extend(GroupsAccumulator::state(&mut self.totals, EmitTo::All)?);
        let all = RecordBatch::try_new(Arc::clone(&self.partial.schema), columns)?;
        let rows = all.num_rows();
        Ok((0..rows).step_by(BATCH_ROWS).map(|i| all.slice(i, BATCH_ROWS.min(rows - i))).collect())
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[test]
    fn a_lane_counts_once_and_a_histogram_by_its_weight() {
        let partial = Partial {
            op: AggregateOp::Sum,
            histograms: HistogramAggregation::Sum,
            floats_only: None,
            schema: Arc::new(Schema::empty()),
        };
        let grid = Grid::new(0, 9, 1, 4);
        let query = QueryContext::new(1000, CancellationToken::new());
        let mut groups = LeafGroups::new(partial, grid).unwrap();
        let mut row = StepRow::default();
        row.reset(grid.steps);
        row.set(1, 2.0);
        row.set(7, 3.0);
        assert_eq!(groups.add(b"a", &row, &query).unwrap(), 2);
        assert_eq!(groups.add(b"a", &row, &query).unwrap(), 0);
        assert_eq!(groups.add(b"b", &row, &query).unwrap(), 2);
        let histogram =
            Arc::new(FloatHistogram { positive_buckets: vec![1.0; 100], ..FloatHistogram::default() });
        row.set_histogram(8, Arc::clone(&histogram));
        assert_eq!(groups.add(b"a", &row, &query).unwrap(), weight(&histogram));
        assert_eq!(groups.add(b"a", &row, &query).unwrap(), 0);
    }
}
