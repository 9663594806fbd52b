//! [`SubqueryNode`]: a range function over the results of an inner plan.
//!
//! Inputs: the inner plan on `spec.inner`, then the scalar arguments on `spec.grid`.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::{DFSchemaRef, Result, internal_datafusion_err};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

use super::spec::SubquerySpec;
use super::tile_df_schema;

/// `f(expr[range:step])`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SubqueryNode {
    spec: Arc<SubquerySpec>,
    input: LogicalPlan,
    scalars: Vec<LogicalPlan>,
    schema: DFSchemaRef,
}

/// Plans a subquery under its range function. `input` gives tiles on `spec.inner`, `scalars` the
/// function's scalar arguments on `spec.grid`.
pub fn subquery_plan(input: LogicalPlan, spec: SubquerySpec, scalars: Vec<LogicalPlan>) -> LogicalPlan {
    let schema = tile_df_schema(&spec.grid);
    let node = SubqueryNode { spec: Arc::new(spec), input, scalars, schema };
    LogicalPlan::Extension(Extension { node: Arc::new(node) })
}

impl SubqueryNode {
    /// What is computed.
    pub fn spec(&self) -> &Arc<SubquerySpec> {
        &self.spec
    }
}

impl PartialOrd for SubqueryNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for SubqueryNode {
    fn name(&self) -> &str {
        "PromSubquery"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        std::iter::once(&self.input).chain(&self.scalars).collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PromSubquery: {}", self.spec)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut inputs = inputs.into_iter();
        let input = inputs.next().ok_or_else(|| internal_datafusion_err!("a subquery has an inner plan"))?;
        Ok(Self { input, scalars: inputs.collect(), ..self.clone() })
    }
}
