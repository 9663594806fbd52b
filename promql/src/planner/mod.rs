//! The planner: `Expr` and time parameters in, a [`QueryPlan`] out. Reads no data and runs nothing.
//!
//! Every node of a plan is on a [`Grid`]; the grid of a subtree changes at subqueries and at
//! step-invariant subtrees (`@`), which are evaluated on one step and repeated.
//!
//! Scalars that are known at plan time stay numbers; other scalars are relations of scalar type and
//! become additional inputs of the nodes that use them.

mod aggregate;
mod binary;
mod call;
mod common;
mod duration;
mod info;
mod invariant;
mod selector;
mod sharing;

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::logical_expr::{EmptyRelation, LogicalPlan};
use promontory_tsdb::Queryable;

use crate::context::{QueryContext, ordered_position, too_many_samples};
use crate::error::QueryError;
use crate::logical::spec::SampleRead;
use crate::operators::{
    Constant, ConstantValue, Float, KeyChange, Map, MapFunction, MergeDisjoint, Notice, NoticeKind, Repeat,
    ScalarArg, Sort, SortBy, operator_plan,
};
use crate::params::{EngineOptions, Grid, QueryParams};
use crate::parser::{Expr, ExprKind, Span, UnaryOp, quote_exact, stray_bytes_shown};
use crate::stack::deeper;
use sharing::Sharing;

pub(crate) use selector::{RawSelector, metric_name};

/// How many operators may be nested: a bound for time and memory. Stack is taken as it is needed.
const MAX_DEPTH: usize = 50_000;

/// How many nodes an expression may have: each costs time and memory before anything runs.
const MAX_NODES: usize = 200_000;

/// How many nodes are planned between two looks at token and deadline.
const NODES_PER_CHECK: usize = 256;

/// How many selectors a query may have: each opens a read, and all of them live at a time.
const MAX_SELECTORS: usize = 2_000;

/// A planned query.
#[derive(Debug)]
pub(crate) struct QueryPlan {
    /// What is to be run.
    pub(crate) root: Root,
    /// Rows of an instant vector come in the order of the result.
    pub(crate) ordered: bool,
    /// Warnings that are certain without looking at data, with positions.
    pub(crate) warnings: Vec<String>,
    /// How deep operators are nested.
    pub(crate) depth: usize,
}

/// The root of a plan.
#[derive(Debug)]
pub(crate) enum Root {
    /// A string literal.
    Text(String),
    /// A scalar that needs no data.
    Constant(f64, Grid),
    /// A scalar relation.
    Scalar(LogicalPlan, Grid),
    /// A vector.
    Vector(LogicalPlan, Grid),
    /// A subquery without a function: a vector whose every step is a point.
    Matrix(LogicalPlan, Grid),
    /// A range selector without a function: samples as they are stored.
    Raw(RawSelector),
}

impl Root {
    /// The plan, if there is one.
    pub(crate) fn logical(&self) -> Option<&LogicalPlan> {
        match self {
            Self::Scalar(plan, _) | Self::Vector(plan, _) | Self::Matrix(plan, _) => Some(plan),
            Self::Text(_) | Self::Constant(..) | Self::Raw(_) => None,
        }
    }
}

/// A planned expression.
#[derive(Debug)]
enum Planned {
    Scalar(ScalarPlan),
    Vector(VectorPlan),
    Text(String),
}

/// A planned scalar.
#[derive(Debug)]
enum ScalarPlan {
    Constant(f64),
    Relation(LogicalPlan),
}

/// A planned instant vector.
#[derive(Debug)]
struct VectorPlan {
    plan: LogicalPlan,
    names: Names,
    /// To be told once the vector has a sample; put into the plan above the next aggregation, so
    /// that leaf and aggregation stay neighbours.
    notices: Vec<Notice>,
    /// Rows come on one partition in an order that counts: that of a `sort` or `topk` below. On one step only.
    ordered: bool,
}

/// What is known of the metric names of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// No series has one.
    Absent,
    /// All series have the same one: dropping it keeps keys apart.
    Same,
    /// Anything else.
    Various,
}

/// Plans one query.
pub(crate) struct Planner<'a> {
    /// Asked from time to time whether to go on.
    context: &'a QueryContext,
    /// Nodes planned so far.
    nodes: usize,
    lines: Lines,
    source: &'a Arc<dyn Queryable>,
    options: &'a EngineOptions,
    params: QueryParams,
    lookback_ms: i64,
    /// Subtrees to be evaluated once; by address, the tree outlives the planner.
    invariant: HashSet<*const Expr>,
    warnings: Vec<String>,
    /// What is being planned is evaluated over a range of time, even if only one step lies in it.
    is_range: bool,
    /// Steps of all grids so far.
    steps: usize,
    /// How many functions around need no more of a histogram than count and sum.
    need_stats: usize,
    /// How many nodes around need buckets.
    need_buckets: usize,
    /// See [`SelectorSpec::counted`](crate::logical::spec::SelectorSpec::counted).
    counted: usize,
    /// What has several places in the query.
    sharing: Sharing,
}

impl<'a> Planner<'a> {
    /// Plans `expr`, parsed from `query`, over `source`; ends early when `context` says so.
    pub(crate) fn plan_query(
        context: &'a QueryContext,
        source: &'a Arc<dyn Queryable>,
        options: &'a EngineOptions,
        query: &str,
        expr: &'a Expr,
        params: QueryParams,
    ) -> Result<QueryPlan, QueryError> {
        let depth = check_size(expr)?;
        let lookback_ms = params.lookback.filter(|ms| *ms > 0).unwrap_or(options.lookback_ms);
        let invariant = invariant::find(expr);
        let warnings = Vec::new();
        let sharing = Sharing::of(expr, options, context);
        let mut planner = Planner {
            context,
            nodes: 0,
            lines: Lines::new(query),
            source,
            options,
            params,
            lookback_ms,
            invariant,
            warnings,
            is_range: params.start != params.end,
            steps: 0,
            need_stats: 0,
            need_buckets: 0,
            counted: 1,
            sharing,
        };
        let grid = if params.step == 0 {
            Grid::instant(params.start)
        } else {
            planner.grid(params.start, params.end, params.step)?
        };
        let (root, ordered) = planner.root(expr, grid)?;
        let depth = depth + planner.sharing.settle(root.logical());
        Ok(QueryPlan { root, ordered, warnings: planner.warnings, depth })
    }

    /// A grid over `[start, end]`, unless the query as a whole has more steps than it may hold
    /// samples: whatever runs on a grid has buffers of that many values.
    fn grid(&mut self, start: i64, end: i64, step: i64) -> Result<Grid, QueryError> {
        let steps = end.abs_diff(start) / step.unsigned_abs().max(1);
        self.steps =
            self.steps.saturating_add(usize::try_from(steps).unwrap_or(usize::MAX)).saturating_add(1);
        if self.steps > self.options.max_samples {
            return Err(too_many_samples());
        }
        Ok(Grid::new(start, end, step, self.options.tile_steps))
    }

    /// The root, and whether its rows come in the order of the result.
    fn root(&mut self, expr: &Expr, grid: Grid) -> Result<(Root, bool), QueryError> {
        if self.params.step == 0 {
            match &unwrap_parens(expr).kind {
                ExprKind::MatrixSelector(matrix) => {
                    return Ok((Root::Raw(self.raw_selector(matrix, grid)?), false));
                }
                ExprKind::Subquery(subquery) => {
                    let Some((plan, inner)) = self.subquery_input(subquery, grid)? else {
                        return Ok((Root::Matrix(empty(&grid), grid), false));
                    };
                    return Ok((Root::Matrix(plan.finish(inner).plan, inner), false));
                }
                _ => {}
            }
        }
        let mut ordered = false;
        let root = match self.plan(expr, grid)? {
            Planned::Text(text) => Root::Text(text),
            Planned::Scalar(ScalarPlan::Constant(v)) => Root::Constant(v, grid),
            Planned::Scalar(ScalarPlan::Relation(plan)) => Root::Scalar(plan, grid),
            Planned::Vector(vector) => {
                ordered = vector.ordered;
                Root::Vector(vector.finish(grid).plan, grid)
            }
        };
        Ok((root, ordered))
    }

    /// Whether selectors here may leave buckets out of histograms.
    fn skips_buckets(&self) -> bool {
        self.need_stats > 0 && self.need_buckets == 0
    }

    /// Plans `expr` on `grid`.
    fn plan(&mut self, expr: &Expr, grid: Grid) -> Result<Planned, QueryError> {
        if grid.steps > 1 && self.invariant.contains(&std::ptr::from_ref(expr)) {
            let once = Grid::instant(grid.start);
            let counted = self.counted;
            self.counted = counted.saturating_mul(grid.steps);
            let planned = self.plan_here(expr, once);
            self.counted = counted;
            return Ok(match planned? {
                Planned::Vector(vector) => {
                    let vector = vector.finish(once);
                    let plan = operator_plan(Repeat, grid, vec![vector.plan]);
                    Planned::Vector(VectorPlan { plan, ordered: false, ..vector })
                }
                Planned::Scalar(ScalarPlan::Relation(plan)) => {
                    Planned::Scalar(ScalarPlan::Relation(operator_plan(Repeat, grid, vec![plan])))
                }
                constant => constant,
            });
        }
        self.plan_here(expr, grid)
    }

    fn plan_here(&mut self, expr: &Expr, grid: Grid) -> Result<Planned, QueryError> {
        self.nodes += 1;
        if self.nodes.is_multiple_of(NODES_PER_CHECK) {
            self.context.check()?;
        }
        let planned = deeper(|| self.plan_kind(expr, grid))?;
        Ok(self.share(expr, grid, planned))
    }

    fn plan_kind(&mut self, expr: &Expr, grid: Grid) -> Result<Planned, QueryError> {
        match &expr.kind {
            ExprKind::Number(n) => Ok(Planned::Scalar(ScalarPlan::Constant(n.value))),
            ExprKind::String(text) => {
                Ok(Planned::Text(stray_bytes_shown(text).unwrap_or_else(|| text.clone())))
            }
            ExprKind::Paren(inner) => self.plan(inner, grid),
            ExprKind::Unary(UnaryOp::Plus, inner) => self.plan(inner, grid),
            ExprKind::Unary(UnaryOp::Minus, inner) => self.negate(inner, grid),
            ExprKind::Binary(binary) => self.binary(expr, binary, grid),
            ExprKind::Aggregate(aggregate) => self.aggregate(expr, aggregate, grid).map(Planned::Vector),
            ExprKind::Call(call) => self.call(expr, call, grid),
            ExprKind::VectorSelector(selector) => {
                self.instant(selector, expr.span, grid, SampleRead::Value).map(Planned::Vector)
            }
            ExprKind::MatrixSelector(_) | ExprKind::Subquery(_) => {
                Err(QueryError::Internal("a range vector outside of a function".into()))
            }
        }
    }

    fn negate(&mut self, inner: &Expr, grid: Grid) -> Result<Planned, QueryError> {
        Ok(match self.plan(inner, grid)? {
            Planned::Scalar(ScalarPlan::Constant(v)) => Planned::Scalar(ScalarPlan::Constant(-v)),
            Planned::Scalar(ScalarPlan::Relation(plan)) => {
                let map = Map::new(MapFunction::Negate, Vec::new(), KeyChange::Keep);
                Planned::Scalar(ScalarPlan::Relation(operator_plan(map, grid, vec![plan])))
            }
            Planned::Vector(vector) => {
                Planned::Vector(self.map(vector, grid, MapFunction::Negate, Vec::new(), true))
            }
            Planned::Text(_) => return Err(QueryError::Internal("a sign in front of a string".into())),
        })
    }

    /// A function of each sample; `drop_name` as the function does with names.
    fn map(
        &self,
        vector: VectorPlan,
        grid: Grid,
        function: MapFunction,
        scalars: Vec<ScalarPlan>,
        drop_name: bool,
    ) -> VectorPlan {
        self.map_at(vector, grid, function, scalars, drop_name, String::new())
    }

    /// [`Planner::map`] that annotates the query at `position`.
    fn map_at(
        &self,
        vector: VectorPlan,
        grid: Grid,
        function: MapFunction,
        scalars: Vec<ScalarPlan>,
        drop_name: bool,
        position: String,
    ) -> VectorPlan {
        let vector = vector.finish(grid);
        let key = if drop_name { self.name_change(vector.names) } else { KeyChange::Keep };
        let (scalars, mut inputs) = scalar_args(scalars);
        inputs.insert(0, vector.plan);
        let map = Map { function, scalars, key, position };
        let mut plan = operator_plan(map, grid, inputs);
        if key == KeyChange::DropName && vector.names == Names::Various {
            plan = operator_plan(MergeDisjoint { strict: false }, grid, vec![plan]);
        }
        VectorPlan {
            plan,
            names: if key == KeyChange::DropName { Names::Absent } else { vector.names },
            notices: Vec::new(),
            ordered: vector.ordered,
        }
    }

    /// What a node that drops names does to keys.
    fn name_change(&self, names: Names) -> KeyChange {
        match names {
            Names::Absent => KeyChange::Keep,
            _ if self.options.delayed_name_removal => KeyChange::MarkName,
            _ => KeyChange::DropName,
        }
    }

    fn vector(&mut self, expr: &Expr, grid: Grid) -> Result<VectorPlan, QueryError> {
        match self.plan(expr, grid)? {
            Planned::Vector(vector) => Ok(vector),
            other => Err(QueryError::Internal(format!("expected an instant vector, got {other:?}"))),
        }
    }

    fn scalar(&mut self, expr: &Expr, grid: Grid) -> Result<ScalarPlan, QueryError> {
        match self.plan(expr, grid)? {
            Planned::Scalar(scalar) => Ok(scalar),
            other => Err(QueryError::Internal(format!("expected a scalar, got {other:?}"))),
        }
    }

    fn text(&mut self, expr: &Expr) -> Result<String, QueryError> {
        match &unwrap_parens(expr).kind {
            ExprKind::String(text) => Ok(stray_bytes_shown(text).unwrap_or_else(|| text.clone())),
            other => Err(QueryError::Internal(format!("expected a string, got {other:?}"))),
        }
    }

    /// The name of a label; the error is what upstream says behind `invalid` of one that is none.
    fn label_name(&mut self, expr: &Expr) -> Result<Result<String, String>, QueryError> {
        let text = self.text(expr)?;
        let quoted = match &unwrap_parens(expr).kind {
            ExprKind::String(text) if text.is_empty() || stray_bytes_shown(text).is_some() => {
                quote_exact(text)
            }
            _ => return Ok(Ok(text)),
        };
        Ok(Err(quoted))
    }

    /// ` (line:col)` of a place in the query.
    fn position(&self, span: Span) -> String {
        let (line, column) = self.lines.place(span.start);
        ordered_position(line, column, span.end)
    }
}

/// Where the lines of a text begin.
#[derive(Debug)]
struct Lines {
    /// First byte of each line, ascending.
    starts: Vec<usize>,
    len: usize,
}

impl Lines {
    fn new(text: &str) -> Self {
        let behind = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        Self { starts: std::iter::once(0).chain(behind).collect(), len: text.len() }
    }

    /// Line and column of a byte, from 1.
    fn place(&self, at: usize) -> (usize, usize) {
        let at = at.min(self.len);
        let line = self.starts.partition_point(|start| *start <= at);
        (line, at - self.starts[line - 1] + 1)
    }
}

impl VectorPlan {
    fn new(plan: LogicalPlan, names: Names) -> Self {
        Self { plan, names, notices: Vec::new(), ordered: false }
    }

    /// Says whether rows come in an order that counts.
    fn ordered(self, ordered: bool) -> Self {
        Self { ordered, ..self }
    }

    /// In label order, unless it is in an order that counts.
    fn in_order(self, grid: Grid) -> Self {
        if self.ordered {
            return self;
        }
        let sort = Sort { by: SortBy::Labels, ordered_input: false };
        Self { plan: operator_plan(sort, grid, vec![self.plan]), ordered: true, ..self }
    }

    /// Puts the notices into the plan.
    fn finish(self, grid: Grid) -> Self {
        let Self { mut plan, names, notices, ordered } = self;
        for notice in notices {
            plan = operator_plan(notice, grid, vec![plan]);
        }
        Self { plan, names, notices: Vec::new(), ordered }
    }
}

impl ScalarPlan {
    /// As a relation of scalar type.
    fn relation(self, grid: Grid) -> LogicalPlan {
        match self {
            Self::Constant(v) => operator_plan(Constant(ConstantValue::Number(Float(v))), grid, Vec::new()),
            Self::Relation(plan) => plan,
        }
    }
}

/// Scalars as arguments of a node, and the inputs that they need.
fn scalar_args(scalars: Vec<ScalarPlan>) -> (Vec<ScalarArg>, Vec<LogicalPlan>) {
    let mut inputs = Vec::new();
    let args = scalars
        .into_iter()
        .map(|scalar| match scalar {
            ScalarPlan::Constant(v) => ScalarArg::Constant(Float(v)),
            ScalarPlan::Relation(plan) => {
                inputs.push(plan);
                ScalarArg::Input(inputs.len() - 1)
            }
        })
        .collect();
    (args, inputs)
}

/// A vector without a series.
fn empty(grid: &Grid) -> LogicalPlan {
    LogicalPlan::EmptyRelation(EmptyRelation {
        produce_one_row: false,
        schema: crate::operators::tile_df_schema(grid),
    })
}

fn unwrap_parens(mut expr: &Expr) -> &Expr {
    while let ExprKind::Paren(inner) = &expr.kind {
        expr = inner;
    }
    expr
}

/// How deep the tree is; refuses it if it is too deep or too large, or has too many selectors.
fn check_size(expr: &Expr) -> Result<usize, QueryError> {
    let mut todo = vec![(expr, 1)];
    let (mut deepest, mut selectors, mut nodes) = (0, 0, 0);
    while let Some((expr, depth)) = todo.pop() {
        if depth > MAX_DEPTH {
            return Err(QueryError::Limit(format!("expression nests more than {MAX_DEPTH} operators")));
        }
        nodes += 1;
        if nodes > MAX_NODES {
            return Err(QueryError::Limit(format!("query has more than {MAX_NODES} parts")));
        }
        if matches!(expr.kind, ExprKind::VectorSelector(_) | ExprKind::MatrixSelector(_)) {
            selectors += 1;
            if selectors > MAX_SELECTORS {
                return Err(QueryError::Limit(format!("query has more than {MAX_SELECTORS} selectors")));
            }
        }
        deepest = depth.max(deepest);
        children(expr, |child| todo.push((child, depth + 1)));
    }
    Ok(deepest)
}

fn children<'e>(expr: &'e Expr, mut visit: impl FnMut(&'e Expr)) {
    match &expr.kind {
        ExprKind::Number(_)
        | ExprKind::String(_)
        | ExprKind::VectorSelector(_)
        | ExprKind::MatrixSelector(_) => {}
        ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => visit(inner),
        ExprKind::Binary(binary) => {
            visit(&binary.lhs);
            visit(&binary.rhs);
        }
        ExprKind::Aggregate(aggregate) => {
            visit(&aggregate.expr);
            if let Some(param) = &aggregate.param {
                visit(param);
            }
        }
        ExprKind::Call(call) => call.args.iter().for_each(visit),
        ExprKind::Subquery(subquery) => visit(&subquery.expr),
    }
}

fn info(text: String, position: String) -> Notice {
    Notice { kind: NoticeKind::Info(text), position }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_lines_and_columns_in_bytes() {
        let lines = Lines::new("a\n\nb\u{e9}c\n");
        let places: Vec<_> = [0, 1, 2, 3, 6, 8, 99].into_iter().map(|at| lines.place(at)).collect();
        assert_eq!(places, [(1, 1), (1, 2), (2, 1), (3, 1), (3, 4), (4, 1), (4, 1)]);
    }
}
