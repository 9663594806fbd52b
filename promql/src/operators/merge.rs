//! `MergeDisjoint`: restores "each key once per tile" behind nodes that drop the metric name.

use std::fmt;

use datafusion::error::DataFusionError;

use super::rows::{Merger, Row, TileWriter, same_labelset};
use super::{Evaluate, Scope};
use crate::context::Pace;

/// Lays series with the same labels over each other; two samples at one step are an error.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MergeDisjoint {
    /// Two rows with one key and tile are an error even if they share no step: range functions.
    pub strict: bool,
}

impl fmt::Display for MergeDisjoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.strict { "strict" } else { "by step" })
    }
}

impl Evaluate for MergeDisjoint {
    fn name(&self) -> &'static str {
        "MergeDisjoint"
    }

    fn run(
        &self,
        scope: Scope<'_>,
        vectors: &[Vec<Row<'_>>],
        out: &mut TileWriter<'_>,
    ) -> Result<(), DataFusionError> {
        let mut merger = Merger::new(out.width(), scope.context);
        let mut pace = Pace::new(scope.context);
        for row in &vectors[0] {
            pace.step(1)?;
            merger.fits()?;
            if self.strict && merger.slot(row.key, row.tile).1 {
                return Err(same_labelset().into());
            }
            if merger.add_row(row, row.key, u128::MAX) != 0 {
                return Err(same_labelset().into());
            }
        }
        merger.write(out)?;
        Ok(())
    }
}
