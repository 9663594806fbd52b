//! [`QuantileExec`]: φ-quantile per group and step.
//!
//! Needs all values of a step at once, so it collects every tile, by (group, tile), and then picks
//! step by step. Memory is that of the input.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::EmissionType;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions, SendableRecordBatchStream,
};
use futures::TryStreamExt;

use super::scalars::ScalarInputs;
use super::tiles::{TileBuilder, TileColumns};
use super::{all_partitions, tile_properties, tile_stream};
use crate::context::{HeldBytes, Pace, QueryContext};
use crate::error::QueryError;
use crate::kernels::{StepScalar, quantile};
use crate::params::Grid;

/// `quantile(φ, v)` over tiles whose key is the group. One output partition.
#[derive(Debug)]
pub struct QuantileExec {
    grid: Grid,
    input: Arc<dyn ExecutionPlan>,
    phi: Arc<ScalarInputs>,
    properties: Arc<PlanProperties>,
}

impl QuantileExec {
    /// `inputs` are the vector and φ.
    ///
    /// # Errors
    /// If there are not two inputs.
    pub fn try_new(grid: Grid, inputs: Vec<Arc<dyn ExecutionPlan>>) -> Result<Self> {
        let [input, phi] = <[Arc<dyn ExecutionPlan>; 2]>::try_from(inputs)
            .map_err(|_| internal_datafusion_err!("a quantile has a vector and a scalar"))?;
        let properties = tile_properties(&grid, 1, EmissionType::Final);
        Ok(Self { grid, input, phi: Arc::new(ScalarInputs::new(vec![phi])), properties })
    }
}

impl DisplayAs for QuantileExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QuantileExec: grid={}", self.grid)
    }
}

impl ExecutionPlan for QuantileExec {
    fn name(&self) -> &'static str {
        "QuantileExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        std::iter::once(&self.input).chain(self.phi.plans()).collect()
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; 2]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::try_new(self.grid, children)?))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let query = QueryContext::of(&context)?;
        let (grid, phi) = (self.grid, Arc::clone(&self.phi));
        let mut input = all_partitions(&self.input, &context)?;
        let start = async move {
            let phi = phi.values(&grid, &context).await?;
            let mut groups = Collected::new(&query);
            while let Some(batch) = input.try_next().await? {
                query.check()?;
                groups.add(&TileColumns::of(&batch)?)?;
            }
            let run = Run { groups, next: 0, grid, query, phi };
            Ok(futures::stream::try_unfold(run, async |mut run| Ok(run.next_batch()?.map(|b| (b, run)))))
        };
        Ok(tile_stream(&self.grid, start))
    }
}

/// Collected tiles, by (group, tile) in the order in which those came; accounted for until they are dropped.
struct Collected {
    query: Arc<QueryContext>,
    samples: usize,
    ids: HashMap<(Arc<[u8]>, u32), usize>,
    groups: Vec<Group>,
    bytes: usize,
    held: HeldBytes<Arc<QueryContext>>,
}

struct Group {
    key: Arc<[u8]>,
    tile: u32,
    /// Presence of each row.
    masks: Vec<u128>,
    /// Lanes, row after row.
    values: Vec<f64>,
}

impl Collected {
    fn new(query: &Arc<QueryContext>) -> Self {
        let held = HeldBytes::new(Arc::clone(query));
        let (ids, groups) = (HashMap::new(), Vec::new());
        Self { query: Arc::clone(query), samples: 0, ids, groups, bytes: 0, held }
    }

    fn add(&mut self, batch: &TileColumns<'_>) -> Result<(), QueryError> {
        for row in 0..batch.len() {
            let (key, tile): (Arc<[u8]>, u32) = (Arc::from(batch.key(row)), batch.tile(row));
            let id = *self.ids.entry((Arc::clone(&key), tile)).or_insert_with(|| {
                self.bytes += key.len() + size_of::<Group>() + 64;
                self.groups.push(Group { key, tile, masks: Vec::new(), values: Vec::new() });
                self.groups.len() - 1
            });
            let (lanes, mask) = batch.row(row);
            let samples = mask.count_ones() as usize;
            self.samples += samples;
            self.query.hold_samples(samples)?;
            self.groups[id].masks.push(mask);
            self.groups[id].values.extend_from_slice(lanes);
            self.bytes += size_of_val(lanes) + size_of::<u128>();
        }
        self.held.grow_to(self.bytes)
    }
}

impl Drop for Collected {
    fn drop(&mut self) {
        self.query.release_samples(self.samples);
    }
}

/// Picking, group by group.
struct Run {
    groups: Collected,
    next: usize,
    grid: Grid,
    query: Arc<QueryContext>,
    phi: Arc<[StepScalar]>,
}

impl Run {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        self.query.check()?;
        let mut tiles = TileBuilder::new(self.grid);
        let lanes = self.grid.tile_steps;
        let (mut buffer, mut row) = (Vec::new(), vec![0.0; lanes]);
        let mut pace = Pace::new(&self.query);
        while let Some(group) = self.groups.groups.get(self.next)
            && !tiles.is_full()
        {
            let mask = group.masks.iter().fold(0, |all, mask| all | mask);
            for j in (0..lanes).filter(|j| mask >> j & 1 == 1) {
                pace.step(group.masks.len())?;
                buffer.clear();
                let present = group.masks.iter().enumerate().filter(|(_, m)| *m >> j & 1 == 1);
                buffer.extend(present.map(|(r, _)| group.values[r * lanes + j]));
                let phi = self.phi[0].at(group.tile as usize * lanes + j);
                row[j] = quantile::quantile(phi, &mut buffer);
            }
            tiles.push(&group.key, group.tile, &row, mask);
            self.next += 1;
        }
        if tiles.is_empty() { Ok(None) } else { tiles.finish().map(Some) }
    }
}
