//! [`GroupBeforeJoin`]: samples are grouped before they are joined with what is known of their labels.
//!
//! ```text
//! Aggregate: by team, avg(value)         Projection: team, sum(s) / sum(c)
//!   Join: job = job                        Aggregate: by team, sum(s), sum(c)
//!     TableScan: requests          ──▶       Join: job = job
//!     TableScan: teams                         Aggregate: by job, sum(value) AS s, count(value) AS c
//!                                                TableScan: requests
//!                                              TableScan: teams
//! ```
//!
//! All samples of a series meet the same rows of the other side where the join looks at labels alone. So it is enough
//! to join what there is per set of labels (and step of time, if that is grouped by), which is thousands of times less,
//! and the first aggregate is one over runs ([`aggregate`](super::aggregate)).
//!
//! Left as it is: what joins or filters by times and values, and functions that cannot be put together from parts.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchemaRef, JoinType, Result, TableReference};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction};
use datafusion::logical_expr::{
    Aggregate, AggregateUDF, Expr, Join, LogicalPlan, Projection, TableScan, cast, lit, when,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::{Rows, SeriesTable};
use crate::catalog::columns::ColumnKind;

/// Functions of a time that has few values for many times.
const OF_TIME: [&str; 3] = ["time_bucket", "date_bin", "date_trunc"];

/// The rule.
#[derive(Debug)]
pub(crate) struct GroupBeforeJoin;

impl OptimizerRule for GroupBeforeJoin {
    fn name(&self) -> &'static str {
        "group_before_join"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
        let rewritten = grouped_before(aggregate)?;
        Ok(rewritten.map_or_else(|| Transformed::no(plan), Transformed::yes))
    }
}

fn grouped_before(aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
    let (mut groups, mut aggregates) = (aggregate.group_expr.clone(), aggregate.aggr_expr.clone());
    let mut below = aggregate.input.as_ref();
    while let LogicalPlan::Projection(projection) = below {
        for expr in groups.iter_mut().chain(&mut aggregates) {
            *expr = beneath(expr, projection)?;
        }
        below = &projection.input;
    }
    let LogicalPlan::Join(join) = below else { return Ok(None) };
    let all = || join.on.iter().flat_map(|(l, r)| [l, r]).chain(&groups).chain(&aggregates);
    if all().any(Expr::is_volatile) || groups.iter().any(|group| matches!(group, Expr::GroupingSet(_))) {
        return Ok(None);
    }
    for side in Side::of(join) {
        if let Some(rewritten) = side.grouped_first(aggregate, join, &groups, &aggregates)? {
            return Ok(Some(rewritten));
        }
    }
    Ok(None)
}

/// `expr` with what `projection` puts in the place of its columns.
fn beneath(expr: &Expr, projection: &Projection) -> Result<Expr> {
    let replaced = expr.clone().transform_up(|expr| {
        let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
        let below = &projection.expr[projection.schema.index_of_column(column)?];
        Ok(Transformed::yes(below.clone().unalias_nested().data))
    });
    replaced.data()
}

/// One side of a join, which is one of samples.
struct Side<'a> {
    plan: &'a Arc<LogicalPlan>,
    /// By column, what it has of the table of samples, if it is one of its columns.
    kinds: Vec<Option<ColumnKind>>,
    is_left: bool,
}

impl<'a> Side<'a> {
    /// The sides of which each row stands as often in the join as others with its labels.
    fn of(join: &'a Join) -> impl Iterator<Item = Self> {
        let sides = match join.join_type {
            JoinType::Inner => vec![(&join.left, true), (&join.right, false)],
            JoinType::Left => vec![(&join.left, true)],
            JoinType::Right => vec![(&join.right, false)],
            _ => Vec::new(),
        };
        sides.into_iter().filter_map(|(plan, is_left)| Some(Self { plan, kinds: kinds(plan)?, is_left }))
    }

    fn schema(&self) -> &DFSchemaRef {
        self.plan.schema()
    }

    fn has(&self, column: &Column) -> bool {
        self.schema().maybe_index_of_column(column).is_some()
    }

    fn kind(&self, column: &Column) -> Option<&ColumnKind> {
        self.kinds[self.schema().maybe_index_of_column(column)?].as_ref()
    }

    /// The join of groups of this side, if that can be.
    fn grouped_first(
        &self,
        aggregate: &Aggregate,
        join: &Join,
        groups: &[Expr],
        aggregates: &[Expr],
    ) -> Result<Option<LogicalPlan>> {
        let mut first = FirstGroups { side: self, groups: Vec::new(), aggregates: Vec::new() };
        let keys = join.on.iter().map(|(left, right)| if self.is_left { left } else { right });
        for expr in keys.chain(&join.filter) {
            if !first.take_labels(expr) {
                return Ok(None);
            }
        }
        let mut last_groups = Vec::with_capacity(groups.len());
        for expr in groups {
            let Some(expr) = first.take_group(expr)? else { return Ok(None) };
            last_groups.push(expr);
        }
        let mut last = Vec::new();
        let mut results = Vec::with_capacity(aggregates.len());
        for expr in aggregates {
            let Some(result) = first.take_aggregate(expr, &mut last) else { return Ok(None) };
            results.push(result);
        }
        let grouped = Arc::new(first.plan()?);
        let (left, right) = match self.is_left {
            true => (grouped, Arc::clone(&join.right)),
            false => (Arc::clone(&join.left), grouped),
        };
        let (on, filter, kind) = (join.on.clone(), join.filter.clone(), join.join_type);
        let (constraint, nulls) = (join.join_constraint, join.null_equality);
        let join = Join::try_new(left, right, on, filter, kind, constraint, nulls, join.null_aware)?;
        let last = Aggregate::try_new(Arc::new(LogicalPlan::Join(join)), last_groups, last)?;
        with_results(aggregate, last, &results)
    }
}

/// What the columns of `plan` are of a table of samples; `None` if it is not one with at most some filters.
fn kinds(plan: &LogicalPlan) -> Option<Vec<Option<ColumnKind>>> {
    match plan {
        LogicalPlan::TableScan(TableScan { source, projected_schema, fetch: None, .. }) => {
            let provider = source_as_provider(source).ok()?;
            let table = provider.downcast_ref::<SeriesTable>().filter(|table| table.rows == Rows::Samples)?;
            let kind = |name: &String| table.columns.kind_of(name).cloned();
            Some(projected_schema.fields().iter().map(|field| kind(field.name())).collect())
        }
        LogicalPlan::SubqueryAlias(alias) => kinds(&alias.input),
        LogicalPlan::Filter(filter) => kinds(&filter.input),
        LogicalPlan::Projection(projection) => {
            let below = kinds(&projection.input)?;
            let kind = |expr: &Expr| match expr.clone().unalias() {
                Expr::Column(column) => {
                    below[projection.input.schema().maybe_index_of_column(&column)?].clone()
                }
                _ => None,
            };
            Some(projection.expr.iter().map(kind).collect())
        }
        _ => None,
    }
}

/// What an aggregate before the join gives.
struct FirstGroups<'a> {
    side: &'a Side<'a>,
    groups: Vec<Expr>,
    aggregates: Vec<Expr>,
}

/// What a function gives, of the aggregates after the join.
#[derive(Debug, Clone, Copy)]
enum Of {
    Aggregate(usize),
    /// The sum of this, or none of them: 0.
    Counts(usize),
    Mean {
        sum: usize,
        count: usize,
    },
}

impl FirstGroups<'_> {
    /// Groups by the labels that are in `expr`. False if there is more of this side than labels.
    fn take_labels(&mut self, expr: &Expr) -> bool {
        expr.column_refs().into_iter().filter(|column| self.side.has(column)).all(|column| {
            let is_label =
                matches!(self.side.kind(column), Some(ColumnKind::Label(_) | ColumnKind::LabelsJson));
            if is_label {
                self.group_by(Expr::Column(column.clone()));
            }
            is_label
        })
    }

    /// `expr` after the join.
    fn take_group(&mut self, expr: &Expr) -> Result<Option<Expr>> {
        let steps = expr.clone().transform_down(|expr| {
            if !self.is_of_time(&expr) {
                return Ok(Transformed::no(expr));
            }
            let group = self.group_by(expr);
            let column = Expr::Column(Column::new(Some(self.name()), format!("group {group}")));
            Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
        });
        let steps = steps.data()?;
        Ok(self.take_labels(&steps).then_some(steps))
    }

    fn is_of_time(&self, expr: &Expr) -> bool {
        let Expr::ScalarFunction(ScalarFunction { func, .. }) = expr else { return false };
        let columns = expr.column_refs();
        OF_TIME.contains(&func.name())
            && !columns.is_empty()
            && columns.into_iter().all(|column| self.side.kind(column) == Some(&ColumnKind::Timestamp))
    }

    fn group_by(&mut self, expr: Expr) -> usize {
        self.groups.iter().position(|group| *group == expr).unwrap_or_else(|| {
            self.groups.push(expr);
            self.groups.len() - 1
        })
    }

    /// What `expr` is of the aggregates `last` after the join, which are added there.
    fn take_aggregate(&mut self, expr: &Expr, last: &mut Vec<Expr>) -> Option<Of> {
        let expr = expr.clone().unalias();
        let Expr::AggregateFunction(AggregateFunction { func, params }) = &expr else { return None };
        let plain = !params.distinct && params.order_by.is_empty() && params.null_treatment.is_none();
        let of_side = expr.column_refs().into_iter().all(|column| self.side.has(column));
        if !plain || !of_side {
            return None;
        }
        let mut part = |first: &Arc<AggregateUDF>, then: &Arc<AggregateUDF>| {
            let first = call(first, params.args.clone(), params.filter.clone());
            if let Some(known) = self.aggregates.iter().position(|part| *part == first) {
                return known;
            }
            self.aggregates.push(first);
            let part = format!("part {}", last.len());
            last.push(call(then, vec![Expr::Column(Column::new(Some(self.name()), part))], None));
            last.len() - 1
        };
        Some(match func.name() {
            "min" | "max" | "sum" => Of::Aggregate(part(func, func)),
            "count" => Of::Counts(part(func, &sum_udaf())),
            "avg" => {
                Of::Mean { sum: part(&sum_udaf(), &sum_udaf()), count: part(&count_udaf(), &sum_udaf()) }
            }
            _ => return None,
        })
    }

    /// What qualifies columns that no table has.
    fn name(&self) -> TableReference {
        TableReference::bare(if self.side.is_left { "grouped left" } else { "grouped right" })
    }

    fn plan(self) -> Result<LogicalPlan> {
        let name = self.name();
        let groups = self.groups.len();
        let aggregate = Aggregate::try_new(Arc::clone(self.side.plan), self.groups, self.aggregates)?;
        let columns = aggregate.schema.iter().enumerate().map(|(i, field)| {
            let column = Expr::Column(Column::from(field));
            match aggregate.group_expr.get(i) {
                Some(Expr::Column(_)) => column,
                Some(_) => column.alias_qualified(Some(name.clone()), format!("group {i}")),
                None => column.alias_qualified(Some(name.clone()), format!("part {}", i - groups)),
            }
        });
        let columns = columns.collect();
        Projection::try_new(columns, Arc::new(LogicalPlan::Aggregate(aggregate))).map(LogicalPlan::Projection)
    }
}

fn call(function: &Arc<AggregateUDF>, args: Vec<Expr>, filter: Option<Box<Expr>>) -> Expr {
    let call = AggregateFunction::new_udf(Arc::clone(function), args, false, filter, Vec::new(), None);
    Expr::AggregateFunction(call)
}

/// `last` with the columns of `aggregate`; `None` if their types differ.
fn with_results(aggregate: &Aggregate, last: Aggregate, results: &[Of]) -> Result<Option<LogicalPlan>> {
    let groups = last.group_expr.len();
    let column = |i: usize| Expr::Column(Column::from(last.schema.qualified_field(i)));
    let of = |part: usize| column(groups + part);
    let result = |of_parts: Of| -> Result<Expr> {
        Ok(match of_parts {
            Of::Aggregate(part) => of(part),
            // Only where no group is asked for can there be one without rows.
            Of::Counts(part) if groups == 0 => when(of(part).is_null(), lit(0_i64)).otherwise(of(part))?,
            Of::Counts(part) => of(part),
            Of::Mean { sum, count } => cast(of(sum), DataType::Float64) / cast(of(count), DataType::Float64),
        })
    };
    let results = results.iter().map(|of_parts| result(*of_parts));
    let columns = (0..groups).map(|i| Ok(column(i))).chain(results).zip(aggregate.schema.iter());
    let columns =
        columns.map(|(expr, (qualifier, field))| Ok(expr?.alias_qualified(qualifier.cloned(), field.name())));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let plan = Projection::try_new(columns, Arc::new(LogicalPlan::Aggregate(last)))?;
    let types = |schema: &DFSchemaRef| -> Vec<_> {
        schema.fields().iter().map(|field| field.data_type().clone()).collect()
    };
    Ok((types(&plan.schema) == types(&aggregate.schema)).then_some(LogicalPlan::Projection(plan)))
}
