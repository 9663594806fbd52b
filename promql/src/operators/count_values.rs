//! `CountValues`: `count_values("label", v)`.

use std::fmt;

use datafusion::error::DataFusionError;

use super::format::go_f;
use super::key::{group_of, labels};
use super::rows::{MergedRow, Merger, Row, TileWriter, lanes};
use super::{Evaluate, Scope};
use crate::context::Pace;
use crate::logical::spec::Grouping;

/// Counts equal values of each group, a series per value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CountValues {
    /// The label that holds the value.
    pub label: String,
    /// How the result is grouped besides; `by` includes the label.
    pub grouping: Grouping,
}

impl fmt::Display for CountValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "into {} {}", self.label, self.grouping)
    }
}

impl Evaluate for CountValues {
    fn name(&self) -> &'static str {
        "CountValues"
    }

    fn run(
        &self,
        scope: Scope<'_>,
        vectors: &[Vec<Row<'_>>],
        out: &mut TileWriter<'_>,
    ) -> Result<(), DataFusionError> {
        let values_per_slot = out.width();
        let mut counts = Merger::new(values_per_slot, scope.context);
        let (mut pace, mut held) = (Pace::new(scope.context), 0);
        for row in &vectors[0] {
            pace.step(1)?;
            counts.fits()?;
            // A series often keeps its value for a while.
            let mut last: Option<(u64, usize)> = None;
            for lane in lanes(row.mask) {
                let bits = row.values[lane].to_bits();
                let slot = match last {
                    Some((b, slot)) if b == bits => slot,
                    _ => {
                        let key = self.key(row.key, &go_f(row.values[lane]));
                        let (slot, old) = counts.slot(&key, row.tile);
                        if !old {
                            // A slot takes the place of a whole tile, however few lanes it fills.
                            held += values_per_slot;
                            scope.context.hold_samples(values_per_slot)?;
                            pace.step(1)?;
                        }
                        slot
                    }
                };
                last = Some((bits, slot));
                count(counts.row(slot), lane);
            }
            for (lane, histogram) in row.histograms.iter() {
                pace.step(1)?;
                let key = self.key(row.key, &histogram.to_string());
                let (slot, old) = counts.slot(&key, row.tile);
                if !old {
                    held += values_per_slot;
                    scope.context.hold_samples(values_per_slot)?;
                }
                count(counts.row(slot), lane);
            }
        }
        // From here on the writer counts what is there.
        scope.context.release_samples(held);
        counts.write(out)?;
        Ok(())
    }
}

impl CountValues {
    /// The group of a series whose value is `value`.
    fn key(&self, series: &[u8], value: &str) -> Vec<u8> {
        let mut builder = labels(series).to_builder();
        builder.set(&self.label, value);
        group_of(builder.build().as_bytes(), &self.grouping)
    }
}

fn count(row: &mut MergedRow, lane: usize) {
    row.mask |= 1 << lane;
    row.values[lane] += 1.0;
}
