//! [`OperatorNode`]: an operator in a logical plan, and its way into a physical one.

use std::cmp::Ordering;
use std::fmt;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::Result;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};

use super::{Operator, OperatorExec};
use crate::params::Grid;
use crate::stack::deeper;
use crate::tile::{MAX_TILE_STEPS, tile_schema};

/// An operator over its inputs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OperatorNode {
    /// What is done.
    pub operator: Arc<Operator>,
    /// The steps of the output.
    pub grid: Grid,
    inputs: Vec<LogicalPlan>,
    schema: DFSchemaRef,
}

/// `operator` as a plan on `grid`: vector inputs first, then scalar inputs.
pub fn operator_plan(operator: impl Into<Operator>, grid: Grid, inputs: Vec<LogicalPlan>) -> LogicalPlan {
    let node =
        OperatorNode { operator: Arc::new(operator.into()), grid, inputs, schema: tile_df_schema(&grid) };
    LogicalPlan::Extension(Extension { node: Arc::new(node) })
}

/// The schema of tiles on `grid` as logical plans want it.
pub(crate) fn tile_df_schema(grid: &Grid) -> DFSchemaRef {
    static SCHEMAS: LazyLock<Vec<DFSchemaRef>> = LazyLock::new(|| {
        (0..=MAX_TILE_STEPS.trailing_zeros())
            .map(|log2| {
                let grid = Grid { tile_steps: 1 << log2, ..Grid::instant(0) };
                Arc::new(DFSchema::try_from(tile_schema(&grid)).expect("four columns of different names"))
            })
            .collect()
    });
    Arc::clone(&SCHEMAS[grid.tile_steps.trailing_zeros() as usize])
}

impl PartialOrd for OperatorNode {
    /// Plans have no order; the trait is DataFusion's wish.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for OperatorNode {
    fn name(&self) -> &str {
        self.operator.evaluate().name()
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        self.inputs.iter().collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = self.operator.evaluate();
        write!(f, "{}: {operator}", operator.name())
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        Ok(Self {
            operator: Arc::clone(&self.operator),
            grid: self.grid,
            inputs,
            schema: Arc::clone(&self.schema),
        })
    }
}

impl Drop for OperatorNode {
    fn drop(&mut self) {
        deeper(|| self.inputs.clear());
    }
}

/// Plans [`OperatorNode`]s.
#[derive(Debug, Default, Clone, Copy)]
pub struct OperatorPlanner;

#[async_trait]
impl ExtensionPlanner for OperatorPlanner {
    async fn plan_extension(
        &self,
        _: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        _: &dyn Session,
        _: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<OperatorNode>() else { return Ok(None) };
        Ok(Some(Arc::new(OperatorExec::new(Arc::clone(&node.operator), node.grid, inputs.to_vec()))))
    }
}
