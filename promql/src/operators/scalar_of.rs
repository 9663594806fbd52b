//! `ScalarOf`: `scalar(v)`.

use std::fmt;

use datafusion::error::DataFusionError;

use super::rows::{Row, TileWriter, lane_mask, lanes};
use super::{Evaluate, Scope};
use crate::context::Pace;

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
        out: &mut TileWriter<'_>,
    ) -> Result<(), DataFusionError> {
        let (grid, width) = (scope.grid, out.width());
        let mut rows: Vec<&Row<'_>> = vectors[0].iter().collect();
        rows.sort_unstable_by_key(|row| row.tile);
        let mut rows = rows.into_iter().peekable();
        let mut pace = Pace::new(scope.context);
        let mut values = vec![f64::NAN; width];
        // Tile by tile: the writer sees to it that a long grid does not fill the memory.
        for tile in 0..grid.tiles() {
            values.fill(f64::NAN);
            let mut seen = 0u128;
            while let Some(row) = rows.next_if(|row| row.tile as usize == tile) {
                pace.step(1)?;
                for lane in lanes(row.mask) {
                    let twice = seen >> lane & 1 == 1;
                    values[lane] = if twice { f64::NAN } else { row.values[lane] };
                }
                seen |= row.mask;
            }
            out.push(&[], tile as u32, lane_mask(grid.steps_in_tile(tile)), &values)?;
        }
        Ok(())
    }
}
