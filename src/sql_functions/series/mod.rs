//! Aggregates over the samples of a series: `rate(timestamp, value)` and the like.
//!
//! A group (or window frame) should be one series; samples may come in any order. Of two samples at one
//! time the first that comes counts. NULL in `timestamp` or `value` is no sample. Too few samples give NULL.
//!
//! - [`evaluate`]: what is computed of the samples of a group. Where PromQL has the function, its kernel
//!   is asked.
//! - [`groups`]: samples on their way there; [`histograms`]: the same for native histograms.
//! - [`newest`]: `first` and `last`, which keep one value and no samples.

mod docs;
mod evaluate;
mod groups;
mod histograms;
mod newest;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility,
};

pub(super) use docs::DOCS;
use evaluate::SeriesFunction;
use groups::{Groups, OneGroup};
use histograms::HistogramGroup;
use newest::NewestAggregate;
use promontory_sql::{histogram_type, is_histogram};

use SeriesFunction as F;

/// All of them.
pub(super) fn aggregates() -> Vec<AggregateUDF> {
    let series = [
        ("rate", F::Rate),
        ("increase", F::Increase),
        ("delta", F::Delta),
        ("irate", F::Irate),
        ("idelta", F::Idelta),
        ("changes", F::Changes),
        ("resets", F::Resets),
        ("deriv", F::Deriv),
        ("predict_linear", F::PredictLinear),
        ("time_weighted_avg", F::TimeWeightedAvg),
    ];
    let series = series.map(|(name, function)| AggregateUDF::from(SeriesAggregate::new(name, function)));
    let newest = [("first", true), ("last", false)];
    let newest = newest.map(|(name, oldest)| AggregateUDF::from(NewestAggregate::new(name, oldest)));
    series.into_iter().chain(newest).collect()
}

fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Null)
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric() || *data_type == DataType::Null
}

/// A list that is part of an accumulator's state.
pub(super) fn list_field(name: &str, part: &str, item: DataType) -> FieldRef {
    let items = Arc::new(Field::new_list_field(item, true));
    Arc::new(Field::new(format!("{name}[{part}]"), DataType::List(items), true))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SeriesAggregate {
    name: &'static str,
    function: SeriesFunction,
    signature: Signature,
}

impl SeriesAggregate {
    fn new(name: &'static str, function: SeriesFunction) -> Self {
        Self { name, function, signature: Signature::user_defined(Volatility::Immutable) }
    }

    /// What it takes, for messages.
    fn usage(&self) -> String {
        let name = self.name;
        match self.function {
            F::Rate | F::Increase | F::Delta => {
                format!("{name}(timestamp, value) or {name}(timestamp, value, start, end)")
            }
            F::PredictLinear => {
                format!("{name}(timestamp, value, ahead) or {name}(timestamp, value, ahead, at)")
            }
            _ => format!("{name}(timestamp, value)"),
        }
    }
}

impl AggregateUDFImpl for SeriesAggregate {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let of_histograms = arg_types.get(1).is_some_and(is_histogram);
        Ok(if of_histograms && !self.function.gives_float() { histogram_type() } else { DataType::Float64 })
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        let more = match (self.function, arg_types) {
            (function, [t, v, ..]) if !is_time(t) || !(is_number(v) || takes_histogram(function, v)) => None,
            (F::Rate | F::Increase | F::Delta, [_, _]) => Some(vec![]),
            (F::Rate | F::Increase | F::Delta, [_, _, start, end]) => {
                (is_time(start) && is_time(end)).then(|| vec![time_type(); 2])
            }
            (F::PredictLinear, [_, _, ahead, at @ ..]) if at.len() < 2 && at.iter().all(is_time) => {
                let ahead = match ahead {
                    DataType::Interval(_) | DataType::Duration(_) => Some(interval),
                    number => is_number(number).then_some(DataType::Float64),
                };
                ahead.map(|ahead| std::iter::once(ahead).chain(at.iter().map(|_| time_type())).collect())
            }
            (F::Rate | F::Increase | F::Delta | F::PredictLinear, _) => None,
            (_, [_, _]) => Some(vec![]),
            _ => None,
        };
        let Some(more) = more else {
            let given: Vec<_> = arg_types.iter().map(ToString::to_string).collect();
            return plan_err!(
                "No function matches {}({}): it is {}",
                self.name,
                given.join(", "),
                self.usage()
            );
        };
        let value = arg_types.get(1).filter(|v| is_histogram(v)).cloned().unwrap_or(DataType::Float64);
        Ok([time_type(), value].into_iter().chain(more).collect())
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(if of_histograms(&args) {
            Box::new(HistogramGroup::new(self.function))
        } else {
            Box::new(OneGroup::new(self.function))
        })
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let of_histograms = args.input_fields.get(1).is_some_and(|v| is_histogram(v.data_type()));
        let value = if of_histograms { histogram_type() } else { DataType::Float64 };
        Ok(vec![
            list_field(args.name, "times", DataType::Int64),
            list_field(args.name, "values", value),
            list_field(args.name, "parameters", DataType::Float64),
        ])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !of_histograms(&args)
    }

    fn create_groups_accumulator(&self, _args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups::new(self.function)))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.accumulator(args)
    }
}

fn takes_histogram(function: SeriesFunction, value: &DataType) -> bool {
    is_histogram(value) && function.of_histograms().is_some()
}

fn of_histograms(args: &AccumulatorArgs<'_>) -> bool {
    args.expr_fields.get(1).is_some_and(|value| is_histogram(value.data_type()))
}
