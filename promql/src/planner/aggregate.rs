//! Aggregations.

use promontory_tsdb::labels::METRIC_NAME;

use super::selector::metric_name;
use super::{Names, Planner, ScalarPlan, VectorPlan, scalar_args, unwrap_parens};
use crate::error::QueryError;
use crate::logical::spec::Grouping;
use crate::logical::{Subject, aggregate_plan};
use crate::operators::{
    CountValues, NAME_DROPPED, Notice, NoticeKind, Rank, RankKind, SpreadMark, bad_quantile, operator_plan,
};
use crate::params::Grid;
use crate::parser::{AggregateExpr, AggregateOp, Expr, ExprKind, Span};
use crate::physical::aggregate::counts;

impl Planner<'_> {
    pub(super) fn aggregate(
        &mut self,
        expr: &Expr,
        aggregate: &AggregateExpr,
        grid: Grid,
    ) -> Result<VectorPlan, QueryError> {
        let grouping = self.grouping(aggregate);
        let names = if !aggregate.without && aggregate.grouping.iter().any(|l| l == METRIC_NAME) {
            Names::Various
        } else {
            Names::Absent
        };
        let kind = match aggregate.op {
            AggregateOp::TopK => RankKind::Top,
            AggregateOp::BottomK => RankKind::Bottom,
            AggregateOp::LimitK => RankKind::Limit,
            AggregateOp::LimitRatio => RankKind::Ratio,
            AggregateOp::CountValues => return self.count_values(aggregate, grouping, grid),
            op => {
                let param = match &aggregate.param {
                    Some(param) => Some(self.quantile_param(param, expr, grid)?.relation(grid)),
                    None => None,
                };
                let mut input = self.vector(&aggregate.expr, grid)?;
                let mut grouping = grouping;
                if names == Names::Various && self.options.delayed_name_removal {
                    // The result keeps the name only if no member is to lose it.
                    input = input.finish(grid);
                    let spread = SpreadMark { grouping: grouping.clone() };
                    input.plan = operator_plan(spread, grid, vec![input.plan]);
                    grouping.labels.push(NAME_DROPPED.to_owned());
                    grouping.labels.sort_unstable();
                }
                if counts(op) {
                    // Floats come of histograms here.
                    input = input.finish(grid);
                }
                let subject = Subject { notices: input.notices, ..self.subject(&aggregate.expr) };
                let plan = aggregate_plan(input.plan, grid, op, grouping, param, &subject)?;
                return Ok(VectorPlan::new(plan, names));
            }
        };
        let param = param(aggregate)?;
        let k = self.scalar(param, grid)?;
        let input = self.vector(&aggregate.expr, grid)?.finish(grid);
        let (args, mut inputs) = scalar_args(vec![k]);
        inputs.insert(0, input.plan);
        let (position, whole) = (self.position(unwrap_parens(param).span), self.position(expr.span));
        let rank = Rank { kind, grouping, param: args[0], position, whole, ordered_input: input.ordered };
        Ok(VectorPlan::new(operator_plan(rank, grid, inputs), input.names).ordered(grid.steps == 1))
    }

    fn subject(&self, expr: &Expr) -> Subject {
        let expr = unwrap_parens(expr);
        let name = match &expr.kind {
            ExprKind::VectorSelector(selector) => metric_name(selector),
            // Names are still there only if they are removed in the end.
            ExprKind::Call(call) if self.options.delayed_name_removal => {
                call.args.iter().find_map(|arg| match &unwrap_parens(arg).kind {
                    ExprKind::MatrixSelector(matrix) => metric_name(&matrix.selector),
                    ExprKind::VectorSelector(selector) => metric_name(selector),
                    _ => None,
                })
            }
            _ => None,
        };
        let name = name.unwrap_or_default().to_owned();
        Subject { name, position: self.position(expr.span), notices: Vec::new() }
    }

    fn grouping(&self, aggregate: &AggregateExpr) -> Grouping {
        let mut labels = aggregate.grouping.clone();
        if aggregate.without && self.options.delayed_name_removal {
            // The mark goes with the name.
            labels.push(NAME_DROPPED.to_owned());
        }
        labels.sort_unstable();
        labels.dedup();
        Grouping { without: aggregate.without, labels }
    }

    /// φ. What there is to be told of it comes after what is told of the vector: upstream evaluates that first.
    fn quantile_param(
        &mut self,
        param: &Expr,
        aggregate: &Expr,
        grid: Grid,
    ) -> Result<ScalarPlan, QueryError> {
        let place = unwrap_parens(param).span;
        let position = self.position(Span { start: place.start, end: aggregate.span.end });
        Ok(match self.scalar(param, grid)? {
            ScalarPlan::Constant(q) => {
                self.warnings.extend(bad_quantile(q).map(|text| format!("{text}{position}")));
                ScalarPlan::Constant(q)
            }
            ScalarPlan::Relation(plan) => {
                let notice = Notice { kind: NoticeKind::BadQuantiles, position };
                ScalarPlan::Relation(operator_plan(notice, grid, vec![plan]))
            }
        })
    }

    fn count_values(
        &mut self,
        aggregate: &AggregateExpr,
        mut grouping: Grouping,
        grid: Grid,
    ) -> Result<VectorPlan, QueryError> {
        let label = self
            .label_name(param(aggregate)?)?
            .map_err(|label| QueryError::Execution(format!("invalid label name {label}")))?;
        if !aggregate.without && !grouping.labels.contains(&label) {
            grouping.labels.push(label.clone());
            grouping.labels.sort_unstable();
        }
        let names = if grouping.without { Names::Absent } else { Names::Various };
        let input = self.vector(&aggregate.expr, grid)?.finish(grid);
        Ok(VectorPlan::new(operator_plan(CountValues { label, grouping }, grid, vec![input.plan]), names))
    }
}

fn param(aggregate: &AggregateExpr) -> Result<&Expr, QueryError> {
    aggregate
        .param
        .as_deref()
        .ok_or_else(|| QueryError::Internal(format!("{} without a parameter", aggregate.op.name())))
}
