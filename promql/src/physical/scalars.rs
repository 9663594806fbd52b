//! Scalar inputs: collected before the rows that need them.

use std::sync::Arc;

use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use futures::TryStreamExt;
use tokio::sync::OnceCell;

use super::all_partitions;
use super::tiles::TileColumns;
use crate::context::QueryContext;
use crate::kernels::StepScalar;
use crate::params::Grid;

/// Plans of scalar type, whose values are collected once for all partitions.
#[derive(Debug, Default)]
pub(super) struct ScalarInputs {
    plans: Vec<Arc<dyn ExecutionPlan>>,
    values: OnceCell<Arc<[StepScalar]>>,
}

impl ScalarInputs {
    pub(super) fn new(plans: Vec<Arc<dyn ExecutionPlan>>) -> Self {
        Self { plans, values: OnceCell::new() }
    }

    pub(super) fn plans(&self) -> &[Arc<dyn ExecutionPlan>] {
        &self.plans
    }

    /// One value per step of `grid`, for each plan.
    pub(super) async fn values(&self, grid: &Grid, context: &Arc<TaskContext>) -> Result<Arc<[StepScalar]>> {
        let collect = async || {
            let mut all = Vec::with_capacity(self.plans.len());
            for plan in &self.plans {
                all.push(collect_scalar(plan, grid, context).await?);
            }
            Ok(Arc::from(all))
        };
        self.values.get_or_try_init(collect).await.map(Arc::clone)
    }
}

async fn collect_scalar(
    plan: &Arc<dyn ExecutionPlan>,
    grid: &Grid,
    context: &Arc<TaskContext>,
) -> Result<StepScalar> {
    // Kept, and held, as long as the plan.
    let query = QueryContext::of(context)?;
    query.hold_samples(grid.steps)?;
    let mut values = vec![0.0; grid.steps];
    let mut missing = grid.steps;
    let mut batches = all_partitions(plan, context)?;
    while let Some(batch) = batches.try_next().await? {
        let tiles = TileColumns::of(&batch)?;
        for row in 0..tiles.len() {
            let first = tiles.tile(row) as usize * grid.tile_steps;
            let (lanes, mask) = tiles.row(row);
            for (j, v) in lanes.iter().enumerate().filter(|(j, _)| mask >> j & 1 == 1) {
                let slot = values
                    .get_mut(first + j)
                    .ok_or_else(|| internal_datafusion_err!("a scalar has a value behind its grid"))?;
                *slot = *v;
                missing = missing.saturating_sub(1);
            }
        }
    }
    if missing > 0 {
        return Err(internal_datafusion_err!("a scalar lacks {missing} of {} steps", grid.steps));
    }
    let scalar = StepScalar::from_steps(values);
    if scalar.is_constant() {
        query.release_samples(grid.steps);
    }
    Ok(scalar)
}
