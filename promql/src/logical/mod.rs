//! Logical plan nodes: typed, pure descriptions of what is computed. Nothing here runs.
//!
//! A plan is a DataFusion [`LogicalPlan`](datafusion::logical_expr::LogicalPlan) whose nodes all
//! speak tiles on a stated [`Grid`]. One node, one file.

pub mod aggregate;
pub mod display;
pub mod quantile;
pub mod selector;
pub(crate) mod shared;
pub mod spec;
pub mod subquery;

use std::sync::Arc;

use datafusion::common::{DFSchema, DFSchemaRef};

use crate::params::Grid;
use crate::tile::tile_schema;

pub use aggregate::{Subject, aggregate_plan};
pub use selector::selector_plan;
pub use subquery::subquery_plan;

/// The schema of tiles on `grid`, as logical plans want it: columns without a qualifier.
pub fn tile_df_schema(grid: &Grid) -> DFSchemaRef {
    let schema = tile_schema(grid).as_ref().clone();
    Arc::new(DFSchema::try_from(schema).expect("the names of the tile columns are distinct"))
}
