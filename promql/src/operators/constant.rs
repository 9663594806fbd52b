//! `Constant`: a scalar relation that needs no data.

use std::fmt;

use datafusion::error::DataFusionError;

use super::rows::{Row, TileWriter, lane_mask};
use super::{Evaluate, Float, Scope};

/// A number or the time, at each step, with the empty key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Constant(pub ConstantValue);

/// What a [`Constant`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConstantValue {
    /// The same number at each step.
    Number(Float),
    /// The evaluation timestamp, in seconds.
    Time,
}

impl fmt::Display for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ConstantValue::Number(v) => write!(f, "{v:?}"),
            ConstantValue::Time => f.write_str("time"),
        }
    }
}

impl Evaluate for Constant {
    fn name(&self) -> &'static str {
        "Constant"
    }

    fn vector_inputs(&self) -> usize {
        0
    }

    fn run(
        &self,
        scope: Scope<'_>,
        _: &[Vec<Row<'_>>],
        out: &mut TileWriter<'_>,
    ) -> Result<(), DataFusionError> {
        let grid = scope.grid;
        let mut values = vec![0.0; grid.tile_steps];
        for tile in 0..grid.tiles() {
            match self.0 {
                ConstantValue::Number(v) => values.fill(v.0),
                ConstantValue::Time => {
                    for (lane, value) in values.iter_mut().enumerate() {
                        *value = grid.at(tile * grid.tile_steps + lane) as f64 / 1000.0;
                    }
                }
            }
            out.push(&[], tile as u32, lane_mask(grid.steps_in_tile(tile)), &values)?;
        }
        Ok(())
    }
}
