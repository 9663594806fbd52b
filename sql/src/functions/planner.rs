//! [`Overloads`]: one name for an aggregate and a function of one row, told apart by their arguments.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawAggregateExpr};

/// Functions of one row that share their names with aggregates. DataFusion knows one function per name and
/// asks for scalar ones first; so the aggregate is registered, and a call of it that has as many arguments as
/// the scalar function takes becomes a call of that.
#[derive(Debug)]
pub struct Overloads {
    /// With how many arguments each takes. Aggregates of the same names take other numbers of arguments.
    pub scalars: Vec<(usize, Arc<ScalarUDF>)>,
}

impl ExprPlanner for Overloads {
    fn plan_aggregate(&self, expr: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        let scalar = self
            .scalars
            .iter()
            .find(|(arguments, scalar)| scalar.name() == expr.func.name() && *arguments == expr.args.len());
        Ok(match scalar {
            Some((_, scalar)) => PlannerResult::Planned(scalar.call(expr.args)),
            None => PlannerResult::Original(expr),
        })
    }
}
