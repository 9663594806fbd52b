//! Constant arguments of functions: times and lengths of time, in the forms that SQL users write.

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::Expr;
use promontory_promql::parser;
use promontory_tsdb::TimestampMs;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// The constant that `expr` is. DataFusion has folded `now() - interval '1 hour'` into one.
///
/// # Errors
/// If it is none; `function` is named then.
pub(super) fn literal<'a>(function: &str, expr: &'a Expr) -> Result<&'a ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Ok(value),
        Expr::Placeholder(_) => plan_err!(
            "{function}() is planned before parameters are bound: write {expr} into the statement instead"
        ),
        other => plan_err!("the arguments of {function}() must be constants, not {other}"),
    }
}

/// A number of seconds as ms.
fn seconds(value: &ScalarValue) -> Option<i64> {
    if !value.data_type().is_numeric() {
        return None;
    }
    match value.cast_to(&DataType::Float64) {
        Ok(ScalarValue::Float64(Some(s))) if s.is_finite() => Some((s * 1000.0).round() as i64),
        _ => None,
    }
}

/// A point in time, ms: a timestamp, a date, a text that says either, or a number of seconds since the
/// epoch. What has no zone is in UTC.
///
/// # Errors
/// If `value` is none of these.
pub(super) fn time(value: &ScalarValue) -> Result<TimestampMs> {
    if let Some(ms) = seconds(value) {
        return Ok(ms);
    }
    let utc = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let text = value.try_as_str().flatten().map(|text| ScalarValue::from(text.trim()));
    match text.as_ref().unwrap_or(value).cast_to(&utc) {
        Ok(ScalarValue::TimestampMillisecond(Some(ms), _)) => Ok(ms),
        _ => plan_err!("{value} is not a time: give a timestamp, or seconds since the epoch"),
    }
}

/// A length of time, ms: an interval without months, a number of seconds, or a text such as `'5m'` or
/// `'5 minutes'`.
///
/// # Errors
/// If `value` is none of these.
pub(super) fn span(value: &ScalarValue) -> Result<i64> {
    if let Some(ms) = seconds(value) {
        return Ok(ms);
    }
    if let Some(text) = value.try_as_str().flatten()
        && let Ok(ms) = parser::parse_duration(text.trim())
    {
        return Ok(ms);
    }
    let interval = match value {
        ScalarValue::DurationSecond(_) | ScalarValue::DurationMillisecond(_) => {
            value.cast_to(&DataType::Duration(TimeUnit::Millisecond))
        }
        ScalarValue::DurationMicrosecond(_) | ScalarValue::DurationNanosecond(_) => {
            value.cast_to(&DataType::Duration(TimeUnit::Millisecond))
        }
        _ => value.cast_to(&DataType::Interval(IntervalUnit::MonthDayNano)),
    };
    match interval {
        Ok(ScalarValue::IntervalMonthDayNano(Some(i))) if i.months == 0 => {
            Ok(i64::from(i.days) * DAY_MS + i.nanoseconds / 1_000_000)
        }
        Ok(ScalarValue::DurationMillisecond(Some(ms))) => Ok(ms),
        _ => plan_err!("{value} is not a length of time: give an interval, seconds, or a text such as '1m'"),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::IntervalMonthDayNano;

    use super::*;

    #[test]
    fn times_are_timestamps_dates_texts_or_seconds() {
        for value in [
            ScalarValue::from("2026-01-01T12:00:00Z"),
            ScalarValue::from(" 2026-01-01 12:00:00 "),
            ScalarValue::from("2026-01-01 13:00:00+01:00"),
            ScalarValue::TimestampNanosecond(Some(1_767_268_800_000_000_000), Some("UTC".into())),
            ScalarValue::TimestampSecond(Some(1_767_268_800), None),
            ScalarValue::Int64(Some(1_767_268_800)),
            ScalarValue::Float64(Some(1_767_268_800.0)),
        ] {
            assert_eq!(time(&value).ok(), Some(1_767_268_800_000), "{value}");
        }
        assert_eq!(time(&ScalarValue::Date32(Some(1))).ok(), Some(DAY_MS));
        for value in [ScalarValue::Null, ScalarValue::from("noon"), ScalarValue::Float64(Some(f64::NAN))] {
            assert!(time(&value).is_err(), "{value}");
        }
    }

    #[test]
    fn lengths_are_intervals_texts_or_seconds() {
        let interval = |months, days, ns| {
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(months, days, ns)))
        };
        for (value, expected) in [
            (interval(0, 0, 60_000_000_000), Some(60_000)),
            (interval(0, 1, 0), Some(DAY_MS)),
            (interval(1, 0, 0), None),
            (ScalarValue::from("1m"), Some(60_000)),
            (ScalarValue::from("1h30m"), Some(5_400_000)),
            (ScalarValue::from("5 minutes"), Some(300_000)),
            (ScalarValue::from("soon"), None),
            (ScalarValue::Int64(Some(15)), Some(15_000)),
            (ScalarValue::Float64(Some(0.5)), Some(500)),
            (ScalarValue::DurationSecond(Some(2)), Some(2_000)),
            (ScalarValue::Null, None),
        ] {
            assert_eq!(span(&value).ok(), expected, "{value}");
        }
    }
}
