//! Function calls.

use super::{Names, Planned, Planner, ScalarPlan, VectorPlan, scalar_args, unwrap_parens};
use crate::error::QueryError;
use crate::logical::spec::{RangeFunction, SampleRead};
use crate::operators::{
    Absent, BucketFunction, Buckets, Constant, ConstantValue, DateFunction, FloatsOnly, HistogramFunction,
    MapFunction, MathFunction, Relabel, RelabelRule, ScalarOf, Sort, SortBy, go_max, go_min, operator_plan,
};
use crate::params::Grid;
use crate::parser::{Call, Expr, ExprKind};

impl Planner<'_> {
    pub(super) fn call(&mut self, expr: &Expr, call: &Call, grid: Grid) -> Result<Planned, QueryError> {
        let (stats, buckets) = match call.function.name {
            "histogram_count" | "histogram_sum" | "histogram_avg" => (1, 0),
            "histogram_quantile" | "histogram_quantiles" | "histogram_fraction" => (0, 1),
            _ => (0, 0),
        };
        self.need_stats += stats;
        self.need_buckets += buckets;
        let planned = self.call_here(expr, call, grid);
        self.need_stats -= stats;
        self.need_buckets -= buckets;
        planned
    }

    fn call_here(&mut self, expr: &Expr, call: &Call, grid: Grid) -> Result<Planned, QueryError> {
        let name = call.function.name;
        if let Some(function) = RangeFunction::by_name(name) {
            return self.range_call(call, function, grid).map(Planned::Vector);
        }
        if let Some(scalar) = self.scalar_call(call, grid)? {
            return Ok(Planned::Scalar(scalar));
        }
        self.vector_call(expr, call, grid).map(Planned::Vector)
    }

    /// Functions that give scalars.
    fn scalar_call(&mut self, call: &Call, grid: Grid) -> Result<Option<ScalarPlan>, QueryError> {
        let seconds = |ms: i64| ScalarPlan::Constant(ms as f64 / 1000.0);
        Ok(Some(match call.function.name {
            "time" => ScalarPlan::Relation(operator_plan(Constant(ConstantValue::Time), grid, Vec::new())),
            "pi" => ScalarPlan::Constant(std::f64::consts::PI),
            "start" => seconds(self.params.start),
            "end" => seconds(self.params.end),
            "range" => seconds(self.params.end - self.params.start),
            "step" => seconds(if self.params.start == self.params.end { 0 } else { self.params.step }),
            "max_of" => self.extreme(call, MapFunction::Greater, go_max, grid)?,
            "min_of" => self.extreme(call, MapFunction::Less, go_min, grid)?,
            "scalar" => {
                let input = self.vector(&call.args[0], grid)?.finish(grid);
                ScalarPlan::Relation(operator_plan(ScalarOf, grid, vec![input.plan]))
            }
            _ => return Ok(None),
        }))
    }

    fn extreme(
        &mut self,
        call: &Call,
        function: MapFunction,
        known: fn(f64, f64) -> f64,
        grid: Grid,
    ) -> Result<ScalarPlan, QueryError> {
        let (a, b) = (self.scalar(&call.args[0], grid)?, self.scalar(&call.args[1], grid)?);
        Ok(match (a, b) {
            (ScalarPlan::Constant(a), ScalarPlan::Constant(b)) => ScalarPlan::Constant(known(a, b)),
            (ScalarPlan::Relation(plan), other) | (other, ScalarPlan::Relation(plan)) => {
                let vector = VectorPlan::new(plan, Names::Absent);
                ScalarPlan::Relation(self.map(vector, grid, function, vec![other], false).plan)
            }
        })
    }

    fn vector_call(&mut self, expr: &Expr, call: &Call, grid: Grid) -> Result<VectorPlan, QueryError> {
        let name = call.function.name;
        if let Some(function) = MathFunction::by_name(name) {
            let vector = self.vector(&call.args[0], grid)?;
            return Ok(self.map(vector, grid, MapFunction::Math(function), Vec::new(), true));
        }
        if let Some(function) = HistogramFunction::by_name(name) {
            let vector = self.vector(&call.args[0], grid)?;
            return Ok(self.map(vector, grid, MapFunction::Histogram(function), Vec::new(), true));
        }
        if let Some(function) = DateFunction::by_name(name) {
            return self.date(call, function, grid);
        }
        match name {
            "clamp" => self.with_scalars(call, MapFunction::Clamp, grid),
            "clamp_min" => self.with_scalars(call, MapFunction::ClampMin, grid),
            "clamp_max" => self.with_scalars(call, MapFunction::ClampMax, grid),
            "round" => self.with_scalars(call, MapFunction::Round, grid),
            "timestamp" => self.timestamp(call, grid),
            "start_timestamp" => self.start_timestamp(call, grid),
            "info" => self.info(call, grid),
            "vector" => {
                let scalar = self.scalar(&call.args[0], grid)?;
                Ok(VectorPlan::new(scalar.relation(grid), Names::Absent))
            }
            "absent" => {
                let input = self.vector(&call.args[0], grid)?.finish(grid);
                Ok(absent(call, input, grid))
            }
            "absent_over_time" => {
                let input = self.range_call(call, RangeFunction::AbsentOverTime, grid)?.finish(grid);
                Ok(absent(call, input, grid))
            }
            "label_replace" | "label_join" => self.relabel(call, grid),
            "sort" | "sort_desc" | "sort_by_label" | "sort_by_label_desc" => {
                if self.is_range && !super::invariant::is_invariant(expr) {
                    let text =
                        "sort is ineffective for range queries since results are always ordered by labels";
                    self.warnings.push(format!("{text}{}", self.position(expr.span)));
                }
                self.sort(call, grid)
            }
            "histogram_quantile" | "histogram_fraction" | "histogram_quantiles" => self.buckets(call, grid),
            _ => Err(QueryError::Unsupported(format!("function {name}()"))),
        }
    }

    fn sort(&mut self, call: &Call, grid: Grid) -> Result<VectorPlan, QueryError> {
        let mut vector = self.vector(&call.args[0], grid)?;
        let name = call.function.name;
        let descending = name.ends_with("_desc");
        let by = if matches!(name, "sort" | "sort_desc") {
            vector = vector.finish(grid);
            let floats = FloatsOnly { aggregation: None, position: String::new() };
            vector.plan = operator_plan(floats, grid, vec![vector.plan]);
            SortBy::Value { descending }
        } else {
            let labels = call.args[1..].iter().map(|arg| self.text(arg)).collect::<Result<_, _>>()?;
            SortBy::LabelValues { labels, descending }
        };
        if grid.steps > 1 {
            return Ok(vector);
        }
        let vector = vector.finish(grid);
        let sort = Sort { by, ordered_input: vector.ordered };
        Ok(VectorPlan { plan: operator_plan(sort, grid, vec![vector.plan]), ordered: true, ..vector })
    }

    fn date(&mut self, call: &Call, function: DateFunction, grid: Grid) -> Result<VectorPlan, QueryError> {
        let vector = match call.args.first() {
            Some(arg) => self.vector(arg, grid)?,
            None => {
                let time = operator_plan(Constant(ConstantValue::Time), grid, Vec::new());
                VectorPlan::new(time, Names::Absent)
            }
        };
        Ok(self.map(vector, grid, MapFunction::Date(function), Vec::new(), true))
    }

    /// A vector and then scalars.
    fn with_scalars(
        &mut self,
        call: &Call,
        function: MapFunction,
        grid: Grid,
    ) -> Result<VectorPlan, QueryError> {
        let vector = self.vector(&call.args[0], grid)?;
        let mut scalars = Vec::new();
        for arg in &call.args[1..] {
            scalars.push(self.scalar(arg, grid)?);
        }
        if function == MapFunction::Round && scalars.is_empty() {
            scalars.push(ScalarPlan::Constant(1.0));
        }
        Ok(self.map(vector, grid, function, scalars, true))
    }

    fn timestamp(&mut self, call: &Call, grid: Grid) -> Result<VectorPlan, QueryError> {
        // Only a selector knows when its samples were taken.
        let arg = unwrap_parens(&call.args[0]);
        if let ExprKind::VectorSelector(selector) = &arg.kind {
            return self.instant(selector, arg.span, grid, SampleRead::Timestamp);
        }
        let vector = self.vector(&call.args[0], grid)?;
        Ok(self.map(vector, grid, MapFunction::Timestamp, Vec::new(), true))
    }

    /// Nothing, unless start timestamps are in use and the argument is a selector.
    fn start_timestamp(&mut self, call: &Call, grid: Grid) -> Result<VectorPlan, QueryError> {
        let arg = unwrap_parens(&call.args[0]);
        match &arg.kind {
            ExprKind::VectorSelector(selector) if self.options.use_start_timestamps => {
                self.instant(selector, arg.span, grid, SampleRead::StartTimestamp)
            }
            _ => {
                // What is wrong with the argument is told all the same.
                self.vector(arg, grid)?;
                Ok(VectorPlan::new(super::empty(&grid), Names::Absent))
            }
        }
    }

    fn relabel(&mut self, call: &Call, grid: Grid) -> Result<VectorPlan, QueryError> {
        let function = call.function.name;
        let texts = call.args[1..].iter().map(|arg| self.text(arg)).collect::<Result<Vec<_>, _>>()?;
        let destination = texts[0].clone();
        let rule = if function == "label_replace" {
            let pattern = texts[3].clone();
            if promontory_tsdb::matcher::compile_anchored(&pattern).is_err() {
                let text = format!("invalid regular expression in label_replace(): {pattern}");
                return Err(QueryError::Execution(text));
            }
            RelabelRule::Replace { template: texts[1].clone(), source: texts[2].clone(), pattern }
        } else {
            let sources = texts[2..].to_vec();
            for arg in &call.args[3..] {
                if self.label_name(arg)?.is_err() {
                    let source = self.text(arg)?;
                    let text = format!("invalid source label name in label_join(): {source}");
                    return Err(QueryError::Execution(text));
                }
            }
            RelabelRule::Join { separator: texts[1].clone(), sources }
        };
        if self.label_name(&call.args[1])?.is_err() {
            let text = format!("invalid destination label name in {function}(): {destination}");
            return Err(QueryError::Execution(text));
        }
        let input = self.vector(&call.args[0], grid)?.finish(grid);
        let names =
            if destination == promontory_tsdb::labels::METRIC_NAME { Names::Various } else { input.names };
        let plan = operator_plan(Relabel { destination, rule }, grid, vec![input.plan]);
        Ok(VectorPlan::new(plan, names).ordered(input.ordered))
    }

    fn buckets(&mut self, call: &Call, grid: Grid) -> Result<VectorPlan, QueryError> {
        let args = &call.args;
        let (vector, scalars): (_, Vec<_>) = match call.function.name {
            "histogram_quantile" => (1, vec![0]),
            "histogram_fraction" => (2, vec![0, 1]),
            _ => (0, (2..args.len()).collect()),
        };
        let mut plans = Vec::new();
        for i in &scalars {
            plans.push(self.scalar(&args[*i], grid)?);
        }
        let (values, scalar_inputs) = scalar_args(plans);
        let position_of = |i: usize| self.position(unwrap_parens(&args[i]).span);
        let function = match call.function.name {
            "histogram_quantile" => BucketFunction::Quantile(values[0], position_of(0)),
            "histogram_fraction" => BucketFunction::Fraction(values[0], values[1]),
            _ => {
                let positions = scalars.iter().map(|i| position_of(*i));
                let quantiles = values.iter().copied().zip(positions).collect();
                BucketFunction::Quantiles(self.text(&args[1])?, quantiles)
            }
        };
        let position = self.position(unwrap_parens(&args[vector]).span);
        let input = self.vector(&args[vector], grid)?.finish(grid);
        let delayed_names = self.options.delayed_name_removal;
        let names = if delayed_names { input.names } else { Names::Absent };
        let mut inputs = vec![input.plan];
        inputs.extend(scalar_inputs);
        let plan = operator_plan(Buckets { function, position, delayed_names }, grid, inputs);
        Ok(VectorPlan::new(plan, names))
    }
}

fn absent(call: &Call, input: VectorPlan, grid: Grid) -> VectorPlan {
    let labels = Planner::absent_labels(&call.args[0]);
    VectorPlan::new(operator_plan(Absent { labels }, grid, vec![input.plan]), Names::Absent)
}
