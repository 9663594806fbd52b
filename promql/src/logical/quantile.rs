//! [`QuantileNode`]: `quantile(φ, v)`. Its φ may differ from step to step, so it has an input of
//! its own, which a DataFusion aggregate function could not have.
//!
//! Inputs: tiles whose key is the group already; φ, a plan of scalar type on the same grid.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::{DFSchemaRef, Result, internal_datafusion_err};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

use super::tile_df_schema;
use crate::params::Grid;

/// φ-quantile per group and step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QuantileNode {
    grid: Grid,
    input: LogicalPlan,
    phi: LogicalPlan,
    schema: DFSchemaRef,
}

impl QuantileNode {
    /// Plans the node.
    pub(crate) fn plan(input: LogicalPlan, phi: LogicalPlan, grid: Grid) -> LogicalPlan {
        let node = Self { grid, input, phi, schema: tile_df_schema(&grid) };
        LogicalPlan::Extension(Extension { node: Arc::new(node) })
    }

    /// The steps.
    pub fn grid(&self) -> Grid {
        self.grid
    }
}

impl PartialOrd for QuantileNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for QuantileNode {
    fn name(&self) -> &str {
        "PromQuantile"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input, &self.phi]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PromQuantile: grid={}", self.grid)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let [input, phi] = <[LogicalPlan; 2]>::try_from(inputs)
            .map_err(|_| internal_datafusion_err!("a quantile has a vector and a scalar"))?;
        Ok(Self { input, phi, ..self.clone() })
    }
}
