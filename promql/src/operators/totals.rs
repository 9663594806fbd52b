//! `Totals`: what is left to do behind `sum` and `avg`. `FloatsOnly`: what is to be done before
//! aggregations that know floats only.
//!
//! An aggregate adds up floats and histograms apart from each other, and gives histograms as
//! [`Total`]s. A step at which a group has both has no result.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;

use super::rows::{Row, TileWriter};
use super::{Evaluate, Scope};
use crate::histogram::lanes::{Column, LaneHistograms};
use crate::histogram::total::Total;
use crate::notes::{Notes, Operation};
use crate::tile::HISTOGRAMS;

/// Turns totals into histograms, and tells what came up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Totals {
    /// `avg`, otherwise `sum`.
    pub mean: bool,
    /// The metric name of what was aggregated, if it is known.
    pub name: String,
    /// ` (line:col)` of what was aggregated.
    pub position: String,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.mean { "means" } else { "sums" })
    }
}

/// Whether no row of `batch` has a histogram.
fn has_floats_only(batch: &RecordBatch) -> bool {
    Column::of(batch.column(HISTOGRAMS.0)).is_ok_and(Column::is_empty)
}

impl Evaluate for Totals {
    fn name(&self) -> &'static str {
        "Totals"
    }

    fn streams(&self) -> bool {
        true
    }

    fn passes(&self, batch: &RecordBatch) -> bool {
        has_floats_only(batch)
    }

    fn run(
        &self,
        scope: Scope<'_>,
        vectors: &[Vec<Row<'_>>],
        out: &mut TileWriter<'_>,
    ) -> Result<(), DataFusionError> {
        let notes = Notes { context: scope.context, position: &self.position, name: &self.name };
        for row in &vectors[0] {
            let mut mask = row.mask;
            let mut histograms = LaneHistograms::default();
            for (lane, bytes) in row.histograms.blobs() {
                let Some(total) = Total::decode(bytes) else { continue };
                let both = mask >> lane & 1 == 1;
                mask &= !(1 << lane);
                if total.seen.incompatible {
                    notes.mixed_schemas();
                }
                if total.seen.reconciled {
                    notes.mismatched_bounds(Operation::Aggregation);
                }
                if both {
                    notes.mixed_floats_in_aggregation();
                    continue;
                }
                if total.seen.incompatible {
                    continue;
                }
                if total.seen.collision() {
                    notes.reset_collision(Operation::Aggregation);
                }
                let result = if self.mean { total.mean(true) } else { total.sum(true) };
                if let Some(h) = result {
                    histograms.set(lane, Arc::new(h));
                }
            }
            out.push_mixed(row.key, row.tile, mask, row.values, &histograms)?;
        }
        Ok(())
    }
}

/// Leaves histograms out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FloatsOnly {
    /// The aggregation above, if that it leaves them out is to be told.
    pub aggregation: Option<&'static str>,
    /// ` (line:col)` of what is aggregated.
    pub position: String,
}

impl fmt::Display for FloatsOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "for {}", self.aggregation.unwrap_or("sort"))
    }
}

impl Evaluate for FloatsOnly {
    fn name(&self) -> &'static str {
        "FloatsOnly"
    }

    fn streams(&self) -> bool {
        true
    }

    fn passes(&self, batch: &RecordBatch) -> bool {
        has_floats_only(batch)
    }

    fn run(
        &self,
        scope: Scope<'_>,
        vectors: &[Vec<Row<'_>>],
        out: &mut TileWriter<'_>,
    ) -> Result<(), DataFusionError> {
        let notes = Notes { context: scope.context, position: &self.position, name: "" };
        for row in &vectors[0] {
            if let Some(aggregation) = self.aggregation.filter(|_| !row.histograms.is_empty()) {
                notes.ignored_in_aggregation(aggregation);
            }
            out.push(row.key, row.tile, row.mask, row.values)?;
        }
        Ok(())
    }
}
