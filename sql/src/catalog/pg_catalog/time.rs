//! `age(…)`, and intervals times numbers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, IntervalMonthDayNanoArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, Timelike, Utc};
use datafusion::common::{DFSchema, Result, exec_err, internal_err};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::logical_expr::{
    ColumnarValue, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::BinaryOperator;

/// Adds the functions to `context`.
pub(super) fn install(context: &SessionContext) {
    let signature = || Signature::variadic_any(Volatility::Immutable);
    context.register_udf(ScalarUDF::from(TimeFunction { name: "age", signature: signature() }));
    let times = Arc::new(ScalarUDF::from(TimeFunction { name: "interval_times", signature: signature() }));
    let state = context.state_ref();
    state.write().register_expr_planner(Arc::new(Times(times))).expect("a session takes every planner");
}

fn interval_type() -> DataType {
    DataType::Interval(IntervalUnit::MonthDayNano)
}

/// Makes `interval * number`, `number * interval` and `interval / number` calls of a function, which the engine's own
/// arithmetic does not have.
#[derive(Debug)]
struct Times(Arc<ScalarUDF>);

impl ExprPlanner for Times {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let (left, right) = match expr.op {
            BinaryOperator::Multiply | BinaryOperator::Divide => {
                (expr.left.get_type(schema), expr.right.get_type(schema))
            }
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let (Ok(left), Ok(right)) = (left, right) else { return Ok(PlannerResult::Original(expr)) };
        let is_interval = |t: &DataType| matches!(t, DataType::Interval(_));
        let one = datafusion::logical_expr::lit(1.0);
        let call = match expr.op {
            BinaryOperator::Multiply if is_interval(&left) && right.is_numeric() => {
                self.0.call(vec![expr.left, expr.right, one])
            }
            BinaryOperator::Multiply if is_interval(&right) && left.is_numeric() => {
                self.0.call(vec![expr.right, expr.left, one])
            }
            BinaryOperator::Divide if is_interval(&left) && right.is_numeric() => {
                self.0.call(vec![expr.left, one, expr.right])
            }
            _ => return Ok(PlannerResult::Original(expr)),
        };
        Ok(PlannerResult::Planned(call))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeFunction {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for TimeFunction {
    fn name(&self) -> &'static str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(interval_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns =
            args.args.iter().map(|arg| arg.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let result: IntervalMonthDayNanoArray = match (self.name, &columns[..]) {
            ("age", [later, earlier]) => ages(later, earlier)?,
            ("interval_times", [interval, factor, divisor]) => times(interval, factor, divisor)?,
            ("age", _) => return exec_err!("age() takes one or two times"),
            _ => return internal_err!("{} takes an interval and numbers", self.name),
        };
        Ok(ColumnarValue::Array(Arc::new(result)))
    }
}

fn ages(later: &ArrayRef, earlier: &ArrayRef) -> Result<IntervalMonthDayNanoArray> {
    let us = |times: &ArrayRef| -> Result<ArrayRef> {
        // What has no zone is in UTC.
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        Ok(cast(times, &utc)?)
    };
    let (later, earlier) = (us(later)?, us(earlier)?);
    let later = later.as_primitive::<TimestampMicrosecondType>().iter();
    let pairs = later.zip(earlier.as_primitive::<TimestampMicrosecondType>());
    Ok(pairs
        .map(|(a, b)| {
            let at = |us: Option<i64>| DateTime::from_timestamp_micros(us?);
            Some(age(at(a)?, at(b)?))
        })
        .collect())
}

/// Years, months, days and a time of day from `b` to `a`, as a person would count them.
///
/// Source: `timestamp_age` in <https://github.com/postgres/postgres/blob/REL_15_0/src/backend/utils/adt/timestamp.c>
fn age(a: DateTime<Utc>, b: DateTime<Utc>) -> IntervalMonthDayNano {
    let (sign, late, early) = if a >= b { (1, a, b) } else { (-1, b, a) };
    let (late, early) = (late.naive_utc(), early.naive_utc());
    let months = |t: NaiveDateTime| t.year() * 12 + t.month0() as i32;
    let of_day = |t: NaiveDateTime| {
        i64::from(t.num_seconds_from_midnight()) * 1_000_000_000 + i64::from(t.nanosecond() % 1_000_000_000)
    };
    let (mut months_between, mut days) =
        (months(late) - months(early), late.day() as i32 - early.day() as i32);
    let mut ns = of_day(late) - of_day(early);
    if ns < 0 {
        ns += 86_400_000_000_000;
        days -= 1;
    }
    if days < 0 {
        let borrowed = if sign < 0 { late } else { early };
        days += days_in_month(borrowed.date());
        months_between -= 1;
    }
    IntervalMonthDayNano::new(sign * months_between, sign * days, i64::from(sign) * ns)
}

fn days_in_month(date: NaiveDate) -> i32 {
    (28..=31).rev().find(|day| date.with_day(*day).is_some()).map_or(31, |day| day as i32)
}

fn times(interval: &ArrayRef, factor: &ArrayRef, divisor: &ArrayRef) -> Result<IntervalMonthDayNanoArray> {
    let interval = cast(interval, &interval_type())?;
    let (factor, divisor) = (cast(factor, &DataType::Float64)?, cast(divisor, &DataType::Float64)?);
    let interval = interval.as_primitive::<IntervalMonthDayNanoType>();
    let (factor, divisor) = (factor.as_primitive::<Float64Type>(), divisor.as_primitive::<Float64Type>());
    (0..interval.len())
        .map(|row| {
            if interval.is_null(row) || factor.is_null(row) || divisor.is_null(row) {
                return Ok(None);
            }
            if divisor.value(row) == 0.0 {
                return exec_err!("division by zero");
            }
            scaled(interval.value(row), factor.value(row) / divisor.value(row)).map(Some)
        })
        .collect()
}

/// Parts of months become days of 30 to the month, parts of days become hours.
fn scaled(interval: IntervalMonthDayNano, factor: f64) -> Result<IntervalMonthDayNano> {
    let months = f64::from(interval.months) * factor;
    let days = f64::from(interval.days) * factor + months.fract() * 30.0;
    let ns = interval.nanoseconds as f64 * factor + days.fract() * 86_400e9;
    let fits = |v: f64, most: f64| v.is_finite() && v.abs() < most;
    if !fits(months, f64::from(i32::MAX)) || !fits(days, f64::from(i32::MAX)) || !fits(ns, i64::MAX as f64) {
        return exec_err!("interval out of range");
    }
    // Microseconds are what Postgres keeps; what a factor leaves below is noise.
    Ok(IntervalMonthDayNano::new(months as i32, days as i32, (ns / 1_000.0).round() as i64 * 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values are what PostgreSQL 15 gives.
    #[test]
    fn ages_are_counted_as_people_count() {
        let at = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().to_utc();
        let hour = 3_600_000_000_000;
        for (a, b, expected) in [
            ("2026-03-01T00:00:00Z", "2025-12-31T12:00:00Z", (2, 0, 12 * hour)),
            ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z", (0, 0, -hour)),
            ("2024-03-01T00:00:00Z", "2024-02-29T00:00:00Z", (0, 1, 0)),
            ("2026-01-15T00:00:00Z", "2025-01-15T00:00:00Z", (12, 0, 0)),
        ] {
            let (months, days, ns) = expected;
            assert_eq!(age(at(a), at(b)), IntervalMonthDayNano::new(months, days, ns), "{a} {b}");
        }
    }

    #[test]
    fn intervals_are_scaled_with_what_is_left_of_months_and_days() {
        let interval = IntervalMonthDayNano::new;
        assert_eq!(scaled(interval(0, 0, 60_000_000_000), 5.0).unwrap(), interval(0, 0, 300_000_000_000));
        assert_eq!(scaled(interval(1, 0, 0), 1.5).unwrap(), interval(1, 15, 0));
        assert_eq!(scaled(interval(0, 1, 0), 0.5).unwrap(), interval(0, 0, 43_200_000_000_000));
        assert!(scaled(interval(1, 0, 0), 1e300).is_err());
    }
}
