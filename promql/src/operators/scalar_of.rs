//! `ScalarOf`: `scalar(v)`.

use std::fmt;

use datafusion::error::DataFusionError;

use super::rows::{Row, TileWriter, lane_mask, lanes};
use super::{Evaluate, Scope};

/// The value of the only sample of a step, NaN if there is none or more than one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ScalarOf;

impl fmt::Display for ScalarOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("of the only series")
    }
}

impl Evaluate for ScalarOf {
    fn name(&self) -> &'static str {
        "ScalarOf"
    }

    fn run(
        &self,
        scope: Scope<'_>,
        vectors: &[Vec<Row<'_>>],
        out: &mut TileWriter,
    ) -> Result<(), DataFusionError> {
        let (grid, width) = (scope.grid, out.width());
        let mut values = vec![f64::NAN; grid.tiles() * width];
        let mut seen = vec![0u128; grid.tiles()];
        for row in &vectors[0] {
            let tile = row.tile as usize;
            for lane in lanes(row.mask) {
                let twice = seen[tile] >> lane & 1 == 1;
                values[tile * width + lane] = if twice { f64::NAN } else { row.values[lane] };
            }
            seen[tile] |= row.mask;
        }
        for (tile, values) in values.chunks_exact(width).enumerate() {
            out.push(&[], tile as u32, lane_mask(grid.steps_in_tile(tile)), values);
        }
        Ok(())
    }
}
