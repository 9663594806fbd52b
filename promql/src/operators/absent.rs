//! `Absent`: `absent(v)` and `absent_over_time(v)`.

use std::fmt;

use datafusion::error::DataFusionError;
use promontory_tsdb::Labels;

use super::rows::{Row, TileWriter, lane_mask};
use super::{Evaluate, Scope};

/// 1 at each step at which the input has no series.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Absent {
    /// Labels of the result, taken from the selector's equality matchers.
    pub labels: Labels,
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.labels)
    }
}

impl Evaluate for Absent {
    fn name(&self) -> &'static str {
        "Absent"
    }

    fn run(
        &self,
        scope: Scope<'_>,
        vectors: &[Vec<Row<'_>>],
        out: &mut TileWriter<'_>,
    ) -> Result<(), DataFusionError> {
        let grid = scope.grid;
        let mut any = vec![0u128; grid.tiles()];
        for row in &vectors[0] {
            any[row.tile as usize] |= row.any();
        }
        let ones = vec![1.0; out.width()];
        for (tile, any) in any.into_iter().enumerate() {
            let mask = lane_mask(grid.steps_in_tile(tile)) & !any;
            out.push(self.labels.as_bytes(), tile as u32, mask, &ones)?;
        }
        Ok(())
    }
}
