//! `time_bucket(width, timestamp [, origin | offset])`: the start of the bucket that a time is in.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use chrono::{DateTime, Datelike, Months, NaiveDate};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, exec_err, plan_err};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::doc::{Family, FunctionDoc};

/// The function's entry.
pub(super) const DOCS: &[FunctionDoc] = &[FunctionDoc {
    name: "time_bucket",
    family: Family::Time,
    syntax: &[
        "time_bucket(width, timestamp) → timestamptz",
        "time_bucket(width, timestamp, origin) → timestamptz",
        "time_bucket(width, timestamp, offset) → timestamptz",
    ],
    gives: "The start of the bucket that `timestamp` is in. Buckets of whole days and less begin at midnight UTC, weeks on \
            Monday, months on the first. Keeps the order of `timestamp`, so that grouping sorted rows needs no hash table.",
    arguments: &[
        (
            "width",
            "interval, or a text that says one (`'5 minutes'`, `'5m'`); a constant. Either months and years, or days and less",
        ),
        ("timestamp", "timestamp or date; what has no zone is taken to be in UTC"),
        ("origin", "timestamp: a bucket begins there"),
        ("offset", "interval: how much later all buckets begin"),
    ],
    odd_input: "NULL gives NULL.",
    errors: "22000 if `width` is not positive, mixes months with days, or is finer than timestamps are.",
    differs: "As TimescaleDB's, but zones by name are not supported.",
    example: "SELECT time_bucket('30 minutes', timestamp) AS since, count(*), avg(value)\nFROM up GROUP BY since ORDER BY since;",
}];

/// 2000-01-03, a Monday.
const ORIGIN_S: i64 = 946_857_600;
/// 2000-01-01, the first of a month.
const MONTHS_ORIGIN_S: i64 = 946_684_800;
const DAY_NS: i128 = 86_400_000_000_000;

fn interval_type() -> DataType {
    DataType::Interval(IntervalUnit::MonthDayNano)
}

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct TimeBucket {
    signature: Signature,
}

impl TimeBucket {
    pub(super) fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

/// Types that arguments are brought to: a width, and a time.
///
/// # Errors
/// If they are something else; `usage` is told then.
pub(super) fn coerce_bucket(width: &DataType, time: &DataType, usage: &str) -> Result<[DataType; 2]> {
    let is_width = matches!(
        width,
        DataType::Interval(_)
            | DataType::Duration(_)
            | DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Null
    );
    let time = match time {
        DataType::Timestamp(..) => time.clone(),
        DataType::Date32 | DataType::Date64 | DataType::Utf8 | DataType::Utf8View | DataType::Null => {
            DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
        }
        other => return plan_err!("No function matches a time of type {other}: it is {usage}"),
    };
    if !is_width {
        return plan_err!("No function matches a width of type {width}: it is {usage}");
    }
    Ok([interval_type(), time])
}

impl ScalarUDFImpl for TimeBucket {
    fn name(&self) -> &'static str {
        "time_bucket"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        const USAGE: &str = "time_bucket(width, timestamp [, origin or offset])";
        let (width, time, shift) = match arg_types {
            [width, time] => (width, time, None),
            [width, time, shift] => (width, time, Some(shift)),
            _ => return plan_err!("No function matches {} arguments: it is {USAGE}", arg_types.len()),
        };
        let [width, time] = coerce_bucket(width, time, USAGE)?;
        let shift = shift.map(|shift| match shift {
            DataType::Interval(_) | DataType::Duration(_) => interval_type(),
            _ => time.clone(),
        });
        Ok([width, time].into_iter().chain(shift).collect())
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [_, time, ..] => Ok(time.clone()),
            _ => plan_err!("time_bucket() takes a width and a time"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let null = || Ok(ColumnarValue::Scalar(ScalarValue::try_from(args.return_type())?));
        let ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(width)) = &args.args[0] else {
            return exec_err!("the width of time_bucket() must be a constant");
        };
        let Some(width) = width else { return null() };
        let mut buckets = BucketWidth::try_new(*width)?;
        match args.args.get(2) {
            None => {}
            Some(ColumnarValue::Scalar(shift)) if shift.is_null() => return null(),
            Some(ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(offset)))) => {
                buckets.later_by(*offset)?;
            }
            Some(ColumnarValue::Scalar(origin)) => buckets.origin_ns = instant_ns(origin)?,
            Some(ColumnarValue::Array(_)) => {
                return exec_err!("origin and offset of time_bucket() must be constants");
            }
        }
        match &args.args[1] {
            ColumnarValue::Scalar(time) => {
                let starts = buckets.starts(&time.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&starts, 0)?))
            }
            ColumnarValue::Array(times) => Ok(ColumnarValue::Array(buckets.starts(times)?)),
        }
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        // Time passes, and so do buckets.
        let [width, time, shift @ ..] = inputs else { return Ok(SortProperties::Unordered) };
        let constant = |p: &ExprProperties| p.sort_properties == SortProperties::Singleton;
        Ok(if constant(width) && shift.iter().all(constant) {
            time.sort_properties
        } else {
            SortProperties::Unordered
        })
    }
}

/// ns of a unit.
fn ns_of(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

fn instant_ns(time: &ScalarValue) -> Result<i128> {
    Ok(match time {
        ScalarValue::TimestampSecond(Some(t), _) => i128::from(*t) * ns_of(TimeUnit::Second),
        ScalarValue::TimestampMillisecond(Some(t), _) => i128::from(*t) * ns_of(TimeUnit::Millisecond),
        ScalarValue::TimestampMicrosecond(Some(t), _) => i128::from(*t) * ns_of(TimeUnit::Microsecond),
        ScalarValue::TimestampNanosecond(Some(t), _) => i128::from(*t),
        other => return exec_err!("{other} is not a time"),
    })
}

/// How wide buckets are, and where one of them begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BucketWidth {
    /// Months, or else 0.
    months: u32,
    /// ns, or else 0.
    ns: i128,
    /// ns since the epoch.
    origin_ns: i128,
}

impl BucketWidth {
    /// Buckets as wide as `width`, which begin where calendars do.
    ///
    /// # Errors
    /// If `width` is not positive, or mixes months with something else.
    pub(super) fn try_new(width: IntervalMonthDayNano) -> Result<Self> {
        let ns = i128::from(width.days) * DAY_NS + i128::from(width.nanoseconds);
        match (width.months, ns) {
            (0, 1..) => Ok(Self { months: 0, ns, origin_ns: i128::from(ORIGIN_S) * ns_of(TimeUnit::Second) }),
            (1.., 0) => Ok(Self {
                months: width.months.unsigned_abs(),
                ns: 0,
                origin_ns: i128::from(MONTHS_ORIGIN_S) * ns_of(TimeUnit::Second),
            }),
            (0, _) | (_, 0) => exec_err!("the width of a time bucket must be positive"),
            _ => exec_err!("the width of a time bucket is either months, or days and less"),
        }
    }

    fn later_by(&mut self, offset: IntervalMonthDayNano) -> Result<()> {
        if offset.months != 0 {
            return exec_err!("the offset of time buckets must be days and less");
        }
        self.origin_ns += i128::from(offset.days) * DAY_NS + i128::from(offset.nanoseconds);
        Ok(())
    }

    /// Starts of the buckets that `times` are in.
    ///
    /// # Errors
    /// If buckets are finer than times, or begin before time can be told.
    pub(super) fn starts(&self, times: &ArrayRef) -> Result<ArrayRef> {
        match times.data_type() {
            DataType::Timestamp(TimeUnit::Second, _) => {
                self.starts_of(times.as_primitive::<TimestampSecondType>(), TimeUnit::Second)
            }
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                self.starts_of(times.as_primitive::<TimestampMillisecondType>(), TimeUnit::Millisecond)
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                self.starts_of(times.as_primitive::<TimestampMicrosecondType>(), TimeUnit::Microsecond)
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                self.starts_of(times.as_primitive::<TimestampNanosecondType>(), TimeUnit::Nanosecond)
            }
            other => exec_err!("{other} is not a type of time"),
        }
    }

    fn starts_of<T: ArrowPrimitiveType<Native = i64>>(
        &self,
        times: &PrimitiveArray<T>,
        unit: TimeUnit,
    ) -> Result<ArrayRef> {
        let starts = if self.months > 0 {
            times.try_unary(|t| self.month_start(t, unit))?
        } else {
            let (width, origin) = (self.in_unit(self.ns, unit)?, self.in_unit(self.origin_ns, unit)?);
            // Starts repeat: most times are in the bucket of the time before.
            let mut bucket = i64::MAX..i64::MAX;
            let mut starts = Vec::with_capacity(times.len());
            for (row, &t) in times.values().iter().enumerate() {
                if !bucket.contains(&t) && times.is_valid(row) {
                    let too_early = || exec_datafusion_err!("a time bucket begins before time can be told");
                    let since = t.checked_sub(origin).ok_or_else(too_early)?;
                    let start = t.checked_sub(since.rem_euclid(width)).ok_or_else(too_early)?;
                    bucket = start..start.saturating_add(width);
                }
                starts.push(bucket.start);
            }
            PrimitiveArray::new(starts.into(), times.nulls().cloned())
        };
        let starts: PrimitiveArray<T> = starts;
        Ok(Arc::new(starts.with_data_type(times.data_type().clone())))
    }

    fn in_unit(&self, ns: i128, unit: TimeUnit) -> Result<i64> {
        let per_unit = ns_of(unit);
        match i64::try_from(ns / per_unit) {
            Ok(v) if ns % per_unit == 0 => Ok(v),
            _ => exec_err!("time buckets are finer than the timestamps"),
        }
    }

    fn month_start(&self, t: i64, unit: TimeUnit) -> Result<i64> {
        let untold = || exec_datafusion_err!("a time bucket begins before time can be told");
        let date = |ns: i128| -> Option<NaiveDate> {
            let seconds = i64::try_from(ns.div_euclid(ns_of(TimeUnit::Second))).ok()?;
            Some(DateTime::from_timestamp(seconds, 0)?.date_naive())
        };
        // Buckets begin on the origin's day of the month, at its time of the day.
        let in_day = self.origin_ns.rem_euclid(DAY_NS);
        let ns = i128::from(t) * ns_of(unit) - in_day;
        let (origin, day) = (date(self.origin_ns).ok_or_else(untold)?, date(ns).ok_or_else(untold)?);
        let index = |d: NaiveDate| i64::from(d.year()) * 12 + i64::from(d.month0());
        let mut months = index(day) - index(origin);
        if day.day() < origin.day() {
            months -= 1;
        }
        let months = months - months.rem_euclid(i64::from(self.months));
        let shift = Months::new(u32::try_from(months.unsigned_abs()).map_err(|_| untold())?);
        let start = match months {
            0.. => origin.checked_add_months(shift),
            _ => origin.checked_sub_months(shift),
        };
        let start = start.ok_or_else(untold)?.and_time(chrono::NaiveTime::MIN).and_utc();
        let start_ns = i128::from(start.timestamp()) * ns_of(TimeUnit::Second) + in_day;
        i64::try_from(start_ns.div_euclid(ns_of(unit))).map_err(|_| untold())
    }

    /// Start of the bucket after the one that begins at `start`, in `unit`.
    ///
    /// # Errors
    /// If time cannot be told there.
    pub(super) fn next(&self, start: i64, unit: TimeUnit) -> Result<i64> {
        let untold = || exec_datafusion_err!("a time bucket begins after time can be told");
        if self.months == 0 {
            return start.checked_add(self.in_unit(self.ns, unit)?).ok_or_else(untold);
        }
        let ns = i128::from(start) * ns_of(unit);
        let (seconds, rest) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
        let time = i64::try_from(seconds).ok().and_then(|s| DateTime::from_timestamp(s, rest as u32));
        let next = time.and_then(|t| t.checked_add_months(Months::new(self.months))).ok_or_else(untold)?;
        let ns = i128::from(next.timestamp()) * 1_000_000_000 + rest;
        i64::try_from(ns.div_euclid(ns_of(unit))).map_err(|_| untold())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMillisecondArray;

    use super::*;

    fn ms(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
    }

    fn start(width: IntervalMonthDayNano, t: &str) -> String {
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![ms(t)]));
        let starts = BucketWidth::try_new(width).unwrap().starts(&times).unwrap();
        let start = starts.as_primitive::<TimestampMillisecondType>().value(0);
        DateTime::from_timestamp_millis(start).unwrap().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
    }

    #[test]
    fn buckets_begin_where_calendars_do() {
        let interval = IntervalMonthDayNano::new;
        for (width, t, expected) in [
            (interval(0, 0, 300_000_000_000), "2026-01-01T12:04:59Z", "2026-01-01T12:00:00Z"),
            (interval(0, 0, 300_000_000_000), "1969-12-31T23:59:59Z", "1969-12-31T23:55:00Z"),
            (interval(0, 1, 0), "2026-01-01T12:04:59Z", "2026-01-01T00:00:00Z"),
            (interval(0, 7, 0), "2026-01-01T12:04:59Z", "2025-12-29T00:00:00Z"),
            (interval(1, 0, 0), "2026-02-28T12:04:59Z", "2026-02-01T00:00:00Z"),
            (interval(3, 0, 0), "2026-02-28T12:04:59Z", "2026-01-01T00:00:00Z"),
            (interval(12, 0, 0), "1999-12-31T23:00:00Z", "1999-01-01T00:00:00Z"),
        ] {
            assert_eq!(start(width, t), expected, "{width:?} {t}");
        }
    }

    #[test]
    fn widths_that_make_no_sense_are_errors() {
        let interval = IntervalMonthDayNano::new;
        for width in [interval(0, 0, 0), interval(0, -1, 0), interval(1, 1, 0), interval(-1, 0, 0)] {
            assert!(BucketWidth::try_new(width).is_err(), "{width:?}");
        }
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![1, 2]));
        assert!(BucketWidth::try_new(interval(0, 0, 1)).unwrap().starts(&times).is_err());
    }

    #[test]
    fn the_bucket_after_begins_where_the_one_before_ends() {
        let month = BucketWidth::try_new(IntervalMonthDayNano::new(1, 0, 0)).unwrap();
        let next = month.next(ms("2026-01-01T00:00:00Z"), TimeUnit::Millisecond).unwrap();
        assert_eq!(next, ms("2026-02-01T00:00:00Z"));
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![Some(next), None]));
        let starts = month.starts(&times).unwrap();
        assert_eq!(
            (starts.as_primitive::<TimestampMillisecondType>().value(0), starts.is_null(1)),
            (next, true)
        );
    }
}
