//! [`SelectorNode`]: the leaf. Series of a source, through a window, as tiles.
//!
//! Inputs: the scalar arguments of the range function, if it has any. Each is a relation of scalar
//! type on the same grid.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::common::{DFSchemaRef, Result};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use promontory_tsdb::Queryable;

use super::spec::{Grouping, KeyOutput, SelectorSpec};
use super::tile_df_schema;
use crate::keys;

/// A selector with its window function.
#[derive(Debug, Clone)]
pub struct SelectorNode {
    source: Arc<dyn Queryable>,
    spec: Arc<SelectorSpec>,
    scalars: Vec<LogicalPlan>,
    schema: DFSchemaRef,
}

/// Plans a selector. `scalars` are the scalar arguments of its range function, in the order of the
/// call: plans of scalar type on the same grid.
pub fn selector_plan(
    source: Arc<dyn Queryable>,
    spec: SelectorSpec,
    scalars: Vec<LogicalPlan>,
) -> LogicalPlan {
    let schema = tile_df_schema(&spec.grid);
    let node = SelectorNode { source, spec: Arc::new(spec), scalars, schema };
    LogicalPlan::Extension(Extension { node: Arc::new(node) })
}

impl SelectorNode {
    /// Where the series come from.
    pub fn source(&self) -> &Arc<dyn Queryable> {
        &self.source
    }

    /// What is selected, and what is made of it.
    pub fn spec(&self) -> &Arc<SelectorSpec> {
        &self.spec
    }

    /// The same leaf with the group key of an aggregate right above it, so that keys are computed
    /// once per series. `None` if the leaf already emits group keys.
    pub(crate) fn with_group_key(&self, grouping: &Grouping) -> Option<LogicalPlan> {
        let grouping = keys::group_of_output(&self.spec.output, grouping)?;
        let spec = SelectorSpec { output: KeyOutput::Group(grouping), ..self.spec.as_ref().clone() };
        Some(selector_plan(Arc::clone(&self.source), spec, self.scalars.clone()))
    }
}

/// Two leaves are equal when they read the same source in the same way.
impl PartialEq for SelectorNode {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.source), Arc::as_ptr(&other.source))
            && self.spec == other.spec
            && self.scalars == other.scalars
    }
}

impl Eq for SelectorNode {}

impl Hash for SelectorNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spec.hash(state);
        self.scalars.hash(state);
    }
}

impl PartialOrd for SelectorNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for SelectorNode {
    fn name(&self) -> &str {
        "PromSelector"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        self.scalars.iter().collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PromSelector: {}", self.spec)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        Ok(Self { scalars: inputs, ..self.clone() })
    }
}
