//! `SpreadMark`: below an aggregation by metric name, with delayed name removal.

use std::collections::HashSet;
use std::fmt;

use datafusion::error::DataFusionError;

use super::key::{KeyChange, group_of, unmarked};
use super::rows::{Row, TileWriter};
use super::{Evaluate, Scope};
use crate::logical::spec::Grouping;

/// Marks all series of a group whose name is to be dropped if one of them is marked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpreadMark {
    /// The groups of the aggregation above, the mark not among their labels.
    pub grouping: Grouping,
}

impl fmt::Display for SpreadMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.grouping)
    }
}

impl Evaluate for SpreadMark {
    fn name(&self) -> &'static str {
        "SpreadMark"
    }

    fn run(
        &self,
        _: Scope<'_>,
        vectors: &[Vec<Row<'_>>],
        out: &mut TileWriter<'_>,
    ) -> Result<(), DataFusionError> {
        let is_marked = |row: &Row<'_>| unmarked(row.key).len() < row.key.len();
        let group = |row: &Row<'_>| group_of(row.key, &self.grouping);
        let marked: HashSet<_> = vectors[0].iter().filter(|row| is_marked(row)).map(group).collect();
        for row in &vectors[0] {
            let change = if marked.contains(&group(row)) { KeyChange::MarkName } else { KeyChange::Keep };
            out.pass(row, &change.apply(row.key), u128::MAX)?;
        }
        Ok(())
    }
}
