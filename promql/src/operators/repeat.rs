//! `Repeat`: a step-invariant subtree, evaluated on one step, at every step.

use std::fmt;
use std::sync::Arc;

use datafusion::error::DataFusionError;

use super::rows::{Row, TileWriter, lane_mask};
use super::{Evaluate, Scope};
use crate::histogram::lanes::LaneHistograms;
use crate::params::Grid;

/// Puts the only sample of each series at every step. The input's grid has one step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repeat;

impl fmt::Display for Repeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("every step")
    }
}

impl Evaluate for Repeat {
    fn name(&self) -> &'static str {
        "Repeat"
    }

    fn streams(&self) -> bool {
        true
    }

    /// A row in may be thousands out: some mebibytes at a time.
    fn rows_per_run(&self, grid: &Grid) -> usize {
        ((1 << 19) / grid.steps).max(1)
    }

    fn run(
        &self,
        scope: Scope<'_>,
        vectors: &[Vec<Row<'_>>],
        out: &mut TileWriter<'_>,
    ) -> Result<(), DataFusionError> {
        let grid = scope.grid;
        let mut values = vec![0.0; grid.tile_steps];
        for row in &vectors[0] {
            values.fill(row.values[0]);
            let histogram = row.histograms.get(0).map(Arc::new);
            for tile in 0..grid.tiles() {
                let lanes = grid.steps_in_tile(tile);
                let Some(histogram) = &histogram else {
                    out.push(row.key, tile as u32, lane_mask(lanes), &values)?;
                    continue;
                };
                let mut repeated = LaneHistograms::default();
                (0..lanes).for_each(|lane| repeated.set(lane, Arc::clone(histogram)));
                out.push_mixed(row.key, tile as u32, 0, &values, &repeated)?;
            }
        }
        Ok(())
    }
}
