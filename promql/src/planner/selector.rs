//! Selectors, range functions over them, and subqueries.

use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use promontory_tsdb::labels::METRIC_NAME;
use promontory_tsdb::matcher::MatchOp;
use promontory_tsdb::{Matcher, TimestampMs};

use super::{Names, Planned, Planner, ScalarPlan, VectorPlan, empty, info, unwrap_parens};
use crate::context::ordered_position;
use crate::error::QueryError;
use crate::kernels::range::extended::{ANCHORED_FUNCTIONS, SMOOTHED_FUNCTIONS};
use crate::logical::spec::{
    CounterCheck, KeyOutput, RangeFunction, SampleRead, SelectorSpec, SubquerySpec, TimeView, Window,
    WindowExtension,
};
use crate::logical::{selector_plan, subquery_plan};
use crate::operators::{
    KeyChange, Map, MapFunction, MergeDisjoint, Notice, NoticeKind, ScalarArg, bad_quantile, non_counter,
    operator_plan,
};
use crate::params::Grid;
use crate::parser::{
    AtModifier, Call, Expr, ExprKind, MatrixSelector, RangeExtension, Span, SubqueryExpr, TimeShift,
    VectorSelector,
};

/// Samples as they are stored, in `(mint, maxt]`, ms.
#[derive(Debug)]
pub(crate) struct RawSelector {
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) mint: TimestampMs,
    pub(crate) maxt: TimestampMs,
    /// Samples at both ends are made up.
    pub(crate) extension: Option<WindowExtension>,
}

impl Planner<'_> {
    /// An instant selector, and what is wanted of its samples.
    pub(super) fn instant(
        &mut self,
        selector: &VectorSelector,
        span: Span,
        grid: Grid,
        read: SampleRead,
    ) -> Result<VectorPlan, QueryError> {
        let lookback_ms = self.lookback_ms;
        let mut view = self.view(&selector.time)?;
        if read != SampleRead::Value && view.at.is_some() {
            // Compat: of a pinned selector upstream tells the time without the offset.
            view.offset_ms = 0;
        }
        // Compat: `anchored` means nothing to an instant selector, and times are never smoothed.
        let smoothed = selector.extension == Some(RangeExtension::Smoothed) && read == SampleRead::Value;
        let spec = SelectorSpec {
            matchers: selector.matchers.clone(),
            grid,
            view,
            window: if smoothed {
                Window::Smoothed { lookback_ms }
            } else {
                Window::Instant { lookback_ms, read }
            },
            output: KeyOutput::Full,
            position: self.position(span),
            without_buckets: self.skips_buckets(),
            distinct: false,
            counters: None,
            counted: self.counted,
        };
        let names = self.names_of(selector);
        let vector = VectorPlan::new(selector_plan(Arc::clone(self.source), spec, Vec::new()), names);
        if read == SampleRead::Value {
            return Ok(vector);
        }
        Ok(self.map(vector, grid, MapFunction::Identity, Vec::new(), true))
    }

    pub(super) fn raw_selector(
        &self,
        matrix: &MatrixSelector,
        grid: Grid,
    ) -> Result<RawSelector, QueryError> {
        let maxt = self.view(&matrix.selector.time)?.data_time(grid.start);
        let mint = maxt - self.duration(&matrix.range)?;
        let extension = self.extension(&matrix.selector);
        Ok(RawSelector { matchers: matrix.selector.matchers.clone(), mint, maxt, extension })
    }

    fn extension(&self, selector: &VectorSelector) -> Option<WindowExtension> {
        let lookback_ms = self.lookback_ms;
        selector.extension.map(|kind| WindowExtension { kind, lookback_ms })
    }

    /// What is known of the names of a selector's series. A name may take a type and a unit with it when
    /// it goes, and then series with the same name may meet.
    fn names_of(&self, selector: &VectorSelector) -> Names {
        let same = metric_name(selector).is_some() && !self.options.type_and_unit_labels;
        if same { Names::Same } else { Names::Various }
    }

    pub(super) fn view(&self, time: &TimeShift) -> Result<TimeView, QueryError> {
        let at = time.at.map(|at| match at {
            AtModifier::At(t) => t,
            AtModifier::Start => self.params.start,
            AtModifier::End => self.params.end,
        });
        let offset_ms = time.offset.as_ref().map_or(Ok(0), |offset| self.offset(offset))?;
        Ok(TimeView { offset_ms, at })
    }

    /// A function with a range vector among its arguments.
    pub(super) fn range_call(
        &mut self,
        call: &Call,
        function: RangeFunction,
        grid: Grid,
    ) -> Result<VectorPlan, QueryError> {
        let args: Vec<_> = call.args.iter().map(unwrap_parens).collect();
        let range =
            args.iter().position(|a| matches!(a.kind, ExprKind::MatrixSelector(_) | ExprKind::Subquery(_)));
        let range = range.ok_or_else(|| QueryError::Internal("a range function without a range".into()))?;
        let mut notices = Vec::new();
        let mut scalars = Vec::new();
        for (i, arg) in args.iter().enumerate().filter(|(i, _)| *i != range) {
            let scalar = self.scalar(&call.args[i], grid)?;
            let scalar = if function == RangeFunction::QuantileOverTime {
                self.checked_quantile(scalar, arg.span, &mut notices)
            } else {
                scalar
            };
            scalars.push(scalar.relation(grid));
        }
        let counter = matches!(function, RangeFunction::Rate | RangeFunction::Increase);
        let argument = args[range];
        // Compat: upstream puts the values of a subquery in its place, and they stand nowhere.
        let first = match args[0].kind {
            ExprKind::Subquery(_) => ordered_position(1, 1, args[0].span.end),
            _ => self.position(args[0].span),
        };
        let mut vector = match &argument.kind {
            ExprKind::MatrixSelector(matrix) => {
                self.over_selector(matrix, (argument.span, &first), function, counter, scalars, grid)?
            }
            ExprKind::Subquery(subquery) => {
                self.over_subquery(subquery, &first, function, counter, scalars, grid)?
            }
            _ => unreachable!("`range` points at one of the two"),
        };
        vector.notices.extend(notices);
        Ok(vector)
    }

    /// Tells about a φ outside of `[0, 1]` if it is known.
    fn checked_quantile(&self, scalar: ScalarPlan, span: Span, notices: &mut Vec<Notice>) -> ScalarPlan {
        let position = self.position(span);
        match scalar {
            ScalarPlan::Constant(q) => {
                if let Some(text) = bad_quantile(q) {
                    notices.push(Notice { kind: NoticeKind::Warn(text), position });
                }
                ScalarPlan::Constant(q)
            }
            // The values count only at steps at which there is a sample: the window looks at them.
            relation @ ScalarPlan::Relation(_) => relation,
        }
    }

    fn over_selector(
        &mut self,
        matrix: &MatrixSelector,
        (span, first): (Span, &String),
        function: RangeFunction,
        counter: bool,
        scalars: Vec<LogicalPlan>,
        grid: Grid,
    ) -> Result<VectorPlan, QueryError> {
        let extension = self.extension(&matrix.selector);
        let (view, range_ms) = (self.view(&matrix.selector.time)?, self.duration(&matrix.range)?);
        check_extension(extension, function)?;
        let names = self.names_of(&matrix.selector);
        let drop_in_leaf = !function.keeps_name() && !self.options.delayed_name_removal;
        // Names that are not known now are looked at in the leaf.
        let various = names == Names::Various;
        let check =
            CounterCheck { by_type: self.options.type_and_unit_labels, position: self.position(span) };
        let spec = SelectorSpec {
            matchers: matrix.selector.matchers.clone(),
            grid,
            view,
            window: Window::Range {
                range_ms,
                function,
                extension,
                use_starts: self.options.use_start_timestamps,
            },
            output: if drop_in_leaf { KeyOutput::DropName } else { KeyOutput::Full },
            position: first.clone(),
            without_buckets: self.skips_buckets(),
            distinct: various && drop_in_leaf,
            counters: (counter && various).then_some(check),
            counted: self.counted,
        };
        let plan = selector_plan(Arc::clone(self.source), spec, scalars);
        let mut vector = VectorPlan::new(plan, names);
        vector = if drop_in_leaf {
            VectorPlan { names: Names::Absent, ..vector }
        } else {
            self.drop_range_name(vector, function, grid)
        };
        if counter && names == Names::Same {
            let name = metric_name(&matrix.selector).unwrap_or_default();
            if let Some(text) = non_counter(name) {
                vector.notices.push(info(text, self.position(span)));
            }
        }
        Ok(vector)
    }

    /// What tells that a rate is over something that is no counter.
    fn non_counter(&self) -> NoticeKind {
        if self.options.type_and_unit_labels { NoticeKind::NonCounterType } else { NoticeKind::NonCounter }
    }

    /// Drops the name behind a range function; two series that then look the same are an error.
    fn drop_range_name(&self, vector: VectorPlan, function: RangeFunction, grid: Grid) -> VectorPlan {
        if function.keeps_name() {
            return vector;
        }
        let various = vector.names == Names::Various;
        let key = self.name_change(vector.names);
        let names = if self.options.delayed_name_removal { vector.names } else { Names::Absent };
        let vector = vector.finish(grid);
        let map = Map::new(MapFunction::Identity, Vec::new(), key);
        let mut vector = VectorPlan::new(operator_plan(map, grid, vec![vector.plan]), names);
        if various && !self.options.delayed_name_removal {
            vector.plan = operator_plan(MergeDisjoint { strict: true }, grid, vec![vector.plan]);
        }
        vector
    }

    fn over_subquery(
        &mut self,
        subquery: &SubqueryExpr,
        first: &str,
        function: RangeFunction,
        counter: bool,
        scalars: Vec<LogicalPlan>,
        grid: Grid,
    ) -> Result<VectorPlan, QueryError> {
        let counted = std::mem::take(&mut self.counted);
        let input = self.subquery_input(subquery, grid);
        self.counted = counted;
        let Some((inner, inner_grid)) = input? else {
            // What there is to be told of the scalars is told all the same: an operator evaluates them first.
            let args = (0..scalars.len()).map(ScalarArg::Input).collect();
            let map = Map::new(MapFunction::Identity, args, KeyChange::Keep);
            let inputs = std::iter::once(empty(&grid)).chain(scalars).collect();
            return Ok(VectorPlan::new(operator_plan(map, grid, inputs), Names::Absent));
        };
        let inner = inner.finish(inner_grid);
        let names = inner.names;
        let spec = SubquerySpec {
            inner: inner_grid,
            grid,
            view: self.view(&subquery.time)?,
            range_ms: self.duration(&subquery.range)?,
            function,
            output: KeyOutput::Full,
            position: first.to_owned(),
            counted: self.counted,
        };
        let mut vector = VectorPlan::new(subquery_plan(inner.plan, spec, scalars), names);
        if counter && names != Names::Absent {
            vector.notices.push(Notice { kind: self.non_counter(), position: first.to_owned() });
        }
        Ok(self.drop_range_name(vector, function, grid))
    }

    /// The inner expression on the subquery's own grid: absolute multiples of its step, the first
    /// one strictly behind the start of the first window. `None` if no step falls into any window.
    pub(super) fn subquery_input(
        &mut self,
        subquery: &SubqueryExpr,
        grid: Grid,
    ) -> Result<Option<(VectorPlan, Grid)>, QueryError> {
        let view = self.view(&subquery.time)?;
        let range_ms = self.duration(&subquery.range)?;
        let step = match &subquery.step {
            Some(step) => self.duration(step)?.max(1),
            None => self.params.subquery_step.unwrap_or(self.options.default_subquery_step_ms).max(1),
        };
        let open = view.data_time(grid.start).saturating_sub(range_ms);
        let start = (open.div_euclid(step) + 1).saturating_mul(step);
        let end = view.data_time(grid.end());
        if end < start {
            return Ok(None);
        }
        let inner_grid = self.grid(start, end, step)?;
        self.need_buckets += 1;
        let around = std::mem::replace(&mut self.is_range, start != end);
        let inner = self.plan(&subquery.expr, inner_grid);
        self.is_range = around;
        self.need_buckets -= 1;
        let inner = match inner? {
            Planned::Vector(vector) => vector,
            Planned::Scalar(scalar) => VectorPlan::new(scalar.relation(inner_grid), Names::Absent),
            Planned::Text(_) => return Err(QueryError::Internal("a subquery of a string".into())),
        };
        Ok(Some((inner, inner_grid)))
    }

    /// The selector that `absent` takes its labels from.
    pub(super) fn absent_labels(expr: &Expr) -> promontory_tsdb::Labels {
        match &unwrap_parens(expr).kind {
            ExprKind::VectorSelector(selector) => crate::operators::absent_labels(&selector.matchers),
            ExprKind::MatrixSelector(matrix) => crate::operators::absent_labels(&matrix.selector.matchers),
            _ => promontory_tsdb::Labels::default(),
        }
    }
}

/// Only some functions make sense of samples outside of the window.
fn check_extension(extension: Option<WindowExtension>, function: RangeFunction) -> Result<(), QueryError> {
    let Some(WindowExtension { kind, .. }) = extension else { return Ok(()) };
    let (modifier, takers) = match kind {
        RangeExtension::Anchored => ("anchored", ANCHORED_FUNCTIONS.as_slice()),
        RangeExtension::Smoothed => ("smoothed", SMOOTHED_FUNCTIONS.as_slice()),
    };
    let name = function.to_string();
    if takers.contains(&name.as_str()) {
        return Ok(());
    }
    let takers = takers.join(", ");
    Err(QueryError::Execution(format!(
        "{modifier} modifier can only be used with: {takers} - not with {name}"
    )))
}

/// The metric name that all series of `selector` have.
pub(crate) fn metric_name(selector: &VectorSelector) -> Option<&str> {
    selector
        .matchers
        .iter()
        .find(|m| m.name() == METRIC_NAME && m.op() == MatchOp::Eq && !m.value().is_empty())
        .map(Matcher::value)
}
