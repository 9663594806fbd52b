//! `info(v, {…})`: labels of info series for the series of a vector.
//!
//! The info series are one more leaf. Upstream asks storage for those only whose identifying labels occur
//! in `v`; here the operator leaves the others out, so that planning needs no data.
//!
//! Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/info.go>

use std::sync::Arc;

use promontory_tsdb::labels::METRIC_NAME;
use promontory_tsdb::{MatchOp, Matcher};

use super::{Names, Planner, VectorPlan, children};
use crate::error::QueryError;
use crate::logical::selector_plan;
use crate::logical::spec::{KeyOutput, SampleRead, SelectorSpec, TimeView, Window};
use crate::operators::{Info, operator_plan};
use crate::params::Grid;
use crate::parser::{Call, Expr, ExprKind};

const TARGET_INFO: &str = "target_info";

impl Planner<'_> {
    pub(super) fn info(&mut self, call: &Call, grid: Grid) -> Result<VectorPlan, QueryError> {
        let base = self.vector(&call.args[0], grid)?.finish(grid);
        let given = match call.args.get(1).map(|arg| &arg.kind) {
            Some(ExprKind::VectorSelector(selector)) => selector.matchers.clone(),
            _ => Vec::new(),
        };
        let (names, data): (Vec<_>, Vec<_>) = given.into_iter().partition(|m| m.name() == METRIC_NAME);
        let names = info_names(names)?;
        let spec = SelectorSpec {
            matchers: data.iter().chain(&names).cloned().collect(),
            grid,
            view: self.info_view(&call.args[0])?.unwrap_or_default(),
            window: Window::Instant { lookback_ms: self.lookback_ms, read: SampleRead::FloatTimestamp },
            output: KeyOutput::Full,
            position: String::new(),
            without_buckets: false,
            distinct: false,
            counters: None,
            counted: self.counted,
        };
        let series = selector_plan(Arc::clone(self.source), spec, Vec::new());
        // Labels that are added may be those that told series apart.
        let vector_names = if base.names == Names::Same { Names::Various } else { base.names };
        let plan = operator_plan(Info { names, data }, grid, vec![base.plan, series]);
        Ok(VectorPlan::new(plan, vector_names))
    }

    /// The time at which info series are looked at: that of the first selector in `expr`, with the offsets
    /// of the subqueries around it, up to the innermost `@`.
    fn info_view(&self, expr: &Expr) -> Result<Option<TimeView>, QueryError> {
        let time = match &expr.kind {
            ExprKind::VectorSelector(selector) => return self.view(&selector.time).map(Some),
            ExprKind::MatrixSelector(matrix) => return self.view(&matrix.selector.time).map(Some),
            ExprKind::Subquery(subquery) => Some(&subquery.time),
            _ => None,
        };
        let mut below = Vec::new();
        children(expr, |child| below.push(child));
        for child in below {
            let Some(found) = self.info_view(child)? else { continue };
            let Some(time) = time.filter(|_| found.at.is_none()) else { return Ok(Some(found)) };
            let around = self.view(time)?;
            let offset_ms = found.offset_ms.saturating_add(around.offset_ms);
            return Ok(Some(TimeView { offset_ms, at: around.at }));
        }
        Ok(None)
    }
}

/// The matchers of metric names by which info series are found: just what is given if that says what a
/// name is, `.+_info` with it if it only says what a name is not, `target_info` for nothing.
fn info_names(given: Vec<Matcher>) -> Result<Vec<Matcher>, QueryError> {
    let matcher =
        |op, value| Matcher::new(op, METRIC_NAME, value).map_err(|e| QueryError::Internal(e.to_string()));
    if given.iter().any(|m| matches!(m.op(), MatchOp::Eq | MatchOp::Re)) {
        return Ok(given);
    }
    if given.is_empty() {
        return Ok(vec![matcher(MatchOp::Eq, TARGET_INFO)?]);
    }
    let mut names = vec![matcher(MatchOp::Re, ".+_info")?];
    names.extend(given);
    Ok(names)
}
