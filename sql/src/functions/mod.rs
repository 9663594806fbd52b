//! SQL functions that every catalog has, and how functions are documented.
//!
//! Functions that need PromQL are the server's, which registers them through [`SqlFunctions`].

mod casts;
pub mod doc;
mod extremes;
mod gapfill;
mod percentile;
mod planner;
mod time_bucket;

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::TableFunctionImpl;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::execution::SessionStateBuilder;
use datafusion::functions::math::signum;
use datafusion::functions_aggregate::approx_percentile_cont::approx_percentile_cont_udaf;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::{AggregateUDF, Expr, LogicalPlan, ScalarUDF};
use datafusion::optimizer::{Analyzer, AnalyzerRule};
use datafusion::prelude::SessionContext;

use doc::{Family, FunctionDoc};
pub use planner::Overloads;

/// Functions beside those that every session has.
#[derive(Debug, Default)]
pub struct SqlFunctions {
    /// Of one row.
    pub scalars: Vec<ScalarUDF>,
    /// Of a group of rows.
    pub aggregates: Vec<AggregateUDF>,
    /// That stand where a table stands, by name.
    pub tables: Vec<(String, Arc<dyn TableFunctionImpl>)>,
    /// Decides what a call means where a name means several things.
    pub planners: Vec<Arc<dyn ExprPlanner>>,
    /// What is to be known about them.
    pub docs: Vec<FunctionDoc>,
}

/// What is to be known about the functions of this crate.
pub fn docs() -> Vec<FunctionDoc> {
    [time_bucket::DOCS, gapfill::DOCS, &[APPROX_PERCENTILE]].concat()
}

const APPROX_PERCENTILE: FunctionDoc = FunctionDoc {
    name: "approx_percentile",
    family: Family::Statistics,
    syntax: &["approx_percentile(value, fraction [, centroids]) → double precision"],
    gives: "About the value below which `fraction` of the values lie, in one pass and constant memory (a t-digest). The same \
            as `approx_percentile_cont`; `percentile_cont(fraction) WITHIN GROUP (ORDER BY value)` is exact and keeps all values.",
    arguments: &[
        ("value", "number"),
        ("fraction", "number between 0 and 1, the same for all rows"),
        ("centroids", "integer; more is more exact; 100 if left out"),
    ],
    odd_input: "NULL is left out; no rows give NULL.",
    errors: "42601 if `fraction` is no constant between 0 and 1.",
    differs: "",
    example: "SELECT job, round(approx_percentile(value, 0.9), 1) AS p90\nFROM memory_bytes GROUP BY job ORDER BY job;",
};

/// Most centroids that a digest may have: it takes room for all of them at once.
const MAX_CENTROIDS: i64 = 10_000;

/// Refuses digests that no memory has room for.
#[derive(Debug)]
struct SmallDigests;

impl AnalyzerRule for SmallDigests {
    fn name(&self) -> &'static str {
        "small_digests"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expr| {
                expr.apply(|expr| {
                    check_centroids(expr)?;
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        Ok(plan)
    }
}

fn check_centroids(expr: &Expr) -> Result<()> {
    let Expr::AggregateFunction(aggregate) = expr else { return Ok(()) };
    let centroids = match aggregate.func.name() {
        "approx_percentile_cont" => aggregate.params.args.get(2),
        "approx_percentile_cont_with_weight" => aggregate.params.args.get(3),
        _ => None,
    };
    let Some(centroids) = centroids else { return Ok(()) };
    let number = match centroids {
        Expr::Literal(value, _) => value.cast_to(&DataType::Int64).ok(),
        _ => None,
    };
    match number {
        Some(ScalarValue::Int64(Some(1..=MAX_CENTROIDS))) => Ok(()),
        _ => plan_err!("the number of centroids is a constant between 1 and {MAX_CENTROIDS}"),
    }
}

/// Adds what needs to be there when a session's state is made.
pub(crate) fn prepare(builder: SessionStateBuilder) -> SessionStateBuilder {
    let mut rules = Analyzer::new().rules;
    rules.insert(0, Arc::new(casts::Instants));
    gapfill::prepare(builder.with_analyzer_rules(rules))
        .with_analyzer_rule(Arc::new(casts::PostgresCasts))
        .with_analyzer_rule(Arc::new(SmallDigests))
}

/// Adds the functions of this crate, and `more`.
///
/// # Panics
/// If two aggregate planners cannot be registered, which DataFusion does not refuse.
pub(crate) fn register(context: &SessionContext, more: SqlFunctions) {
    let SqlFunctions { scalars, aggregates, tables, planners, docs: _ } = more;
    context.register_udf(ScalarUDF::from(time_bucket::TimeBucket::new()));
    gapfill::functions().into_iter().chain(scalars).for_each(|function| context.register_udf(function));
    let percentile = approx_percentile_cont_udaf().as_ref().clone().with_aliases(["approx_percentile"]);
    context.register_udaf(percentile);
    context.register_udaf(percentile::function());
    extremes::functions().into_iter().for_each(|function| context.register_udaf(function));
    context.register_udf(signum().as_ref().clone().with_aliases(["sign"]));
    aggregates.into_iter().for_each(|function| context.register_udaf(function));
    for (name, function) in tables {
        context.register_udtf(&name, function);
    }
    let state = context.state_ref();
    let mut state = state.write();
    for planner in planners {
        use datafusion::logical_expr::registry::FunctionRegistry;
        state.register_expr_planner(planner).expect("a session takes every planner");
    }
}
