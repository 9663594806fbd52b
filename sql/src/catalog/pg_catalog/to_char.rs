//! `to_char(time, 'YYYY-MM-DD HH24:MI:SS')`, with Postgres' patterns.
//!
//! Source: <https://www.postgresql.org/docs/15/functions-formatting.html>

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::prelude::SessionContext;

/// Adds the function to `context`.
pub(super) fn install(context: &SessionContext) {
    // The engine's own has another name as well, under which it would come back.
    context.deregister_udf("to_char");
    context.register_udf(ScalarUDF::from(ToChar(Signature::any(2, Volatility::Stable))));
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToChar(Signature);

impl ScalarUDFImpl for ToChar {
    fn name(&self) -> &'static str {
        "to_char"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Null, _] => {
                Ok(DataType::Utf8)
            }
            [other, _] => {
                plan_err!("No function matches: to_char() of {other} is not supported, only of times")
            }
            _ => plan_err!("No function matches: it is to_char(time, pattern)"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [times, patterns] = &args.args[..] else {
            return exec_err!("to_char() takes a time and a pattern");
        };
        let (times, patterns) = (times.to_array(args.number_rows)?, patterns.to_array(args.number_rows)?);
        let patterns = cast(&patterns, &DataType::Utf8)?;
        let zone = match times.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        // As the clock on the wall shows it, where the time's own zone is.
        let wall = cast(&times, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
        let wall = match zone.as_deref() {
            Some("UTC" | "+00:00") | None => cast(&wall, &DataType::Int64)?,
            Some(_) => {
                cast(&cast(&wall, &DataType::Timestamp(TimeUnit::Microsecond, None))?, &DataType::Int64)?
            }
        };
        let wall = cast(&wall, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
        let wall = wall.as_primitive::<TimestampMicrosecondType>();
        let zone = zone.as_deref().unwrap_or_default();
        let texts = wall.iter().zip(patterns.as_string::<i32>()).map(|(us, pattern)| {
            let time = DateTime::from_timestamp_micros(us?)?.naive_utc();
            pattern.map(|pattern| formatted(time, zone, pattern))
        });
        Ok(ColumnarValue::Array(Arc::new(texts.collect::<StringArray>())))
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Patterns; of two that begin alike the longer one first.
const PATTERNS: [&str; 46] = [
    "HH24", "HH12", "MONTH", "Month", "month", "YYYY", "IYYY", "SSSS", "Y,YYY", "IDDD", "YYY", "IYY", "DDD",
    "MON", "Mon", "mon", "DAY", "Day", "day", "A.M.", "P.M.", "a.m.", "p.m.", "OF", "TZ", "tz", "HH", "MI",
    "SS", "MS", "US", "YY", "IY", "MM", "DD", "ID", "DY", "Dy", "dy", "WW", "IW", "AM", "PM", "am", "pm",
    "CC",
];

fn formatted(t: NaiveDateTime, zone: &str, pattern: &str) -> String {
    let (mut out, mut rest, mut fill) = (String::new(), pattern, true);
    while let Some(first) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            out.push_str(&quoted[..end]);
            rest = quoted.get(end + 1..).unwrap_or_default();
        } else if let Some(after) = rest.strip_prefix("FM") {
            (fill, rest) = (false, after);
        } else if let Some(found) = PATTERNS.iter().find(|p| rest.starts_with(**p)) {
            field(&mut out, t, zone, found, fill);
            rest = ordinal(&mut out, &rest[found.len()..]);
            fill = true;
        } else {
            match first {
                'D' => push(&mut out, t.weekday().num_days_from_sunday() + 1, 1, fill),
                'J' => push(&mut out, t.date().num_days_from_ce() + 1_721_425, 1, fill),
                'Q' => push(&mut out, t.month0() / 3 + 1, 1, fill),
                'W' => push(&mut out, t.day0() / 7 + 1, 1, fill),
                'Y' => push(&mut out, t.year() % 10, 1, fill),
                other => out.push(other),
            }
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

fn push(out: &mut String, number: impl Into<i64>, width: usize, fill: bool) {
    let number: i64 = number.into();
    let width = if fill { width } else { 0 };
    let _ = write!(out, "{number:0width$}");
}

/// `th` and `TH` after a number.
fn ordinal<'a>(out: &mut String, rest: &'a str) -> &'a str {
    let upper = rest.starts_with("TH");
    if !(upper || rest.starts_with("th")) || !out.ends_with(|c: char| c.is_ascii_digit()) {
        return rest;
    }
    let tail = |n: usize| out.len().checked_sub(n).and_then(|at| out.get(at..)).unwrap_or_default();
    let ending = match (tail(2).starts_with('1') && tail(2).len() == 2, tail(1)) {
        (false, "1") => "st",
        (false, "2") => "nd",
        (false, "3") => "rd",
        _ => "th",
    };
    out.push_str(&if upper { ending.to_uppercase() } else { ending.to_owned() });
    &rest[2..]
}

fn field(out: &mut String, t: NaiveDateTime, zone: &str, pattern: &str, fill: bool) {
    let name = |out: &mut String, name: &str, width: usize| {
        let cased = match pattern.chars().nth(1) {
            Some(second) if second.is_uppercase() => name.to_uppercase(),
            _ if pattern.starts_with(char::is_uppercase) => name.to_owned(),
            _ => name.to_lowercase(),
        };
        let width = if fill { width } else { 0 };
        let _ = write!(out, "{cased:width$}");
    };
    let month = MONTHS[t.month0() as usize];
    let day = DAYS[t.weekday().num_days_from_sunday() as usize];
    let hour12 = if t.hour().is_multiple_of(12) { 12 } else { t.hour() % 12 };
    let week = t.iso_week();
    let micros = t.nanosecond() / 1_000 % 1_000_000;
    match pattern {
        "YYYY" => push(out, t.year(), 4, fill),
        "Y,YYY" => {
            let _ = write!(out, "{},{:03}", t.year() / 1000, t.year() % 1000);
        }
        "YYY" => push(out, t.year() % 1000, 3, fill),
        "YY" => push(out, t.year() % 100, 2, fill),
        "IYYY" => push(out, week.year(), 4, fill),
        "IYY" => push(out, week.year() % 1000, 3, fill),
        "IY" => push(out, week.year() % 100, 2, fill),
        "CC" => push(out, (t.year() + 99) / 100, 2, fill),
        "MM" => push(out, t.month(), 2, fill),
        "DD" => push(out, t.day(), 2, fill),
        "DDD" => push(out, t.ordinal(), 3, fill),
        "IDDD" => push(out, (week.week() - 1) * 7 + t.weekday().number_from_monday(), 3, fill),
        "ID" => push(out, t.weekday().number_from_monday(), 1, fill),
        "WW" => push(out, t.ordinal0() / 7 + 1, 2, fill),
        "IW" => push(out, week.week(), 2, fill),
        "HH24" => push(out, t.hour(), 2, fill),
        "HH12" | "HH" => push(out, hour12, 2, fill),
        "MI" => push(out, t.minute(), 2, fill),
        "SS" => push(out, t.second(), 2, fill),
        "SSSS" => push(out, t.num_seconds_from_midnight(), 1, fill),
        "MS" => push(out, micros / 1_000, 3, fill),
        "US" => push(out, micros, 6, fill),
        "MONTH" | "Month" | "month" => name(out, month, 9),
        "MON" | "Mon" | "mon" => name(out, &month[..3], 3),
        "DAY" | "Day" | "day" => name(out, day, 9),
        "DY" | "Dy" | "dy" => name(out, &day[..3], 3),
        "AM" | "PM" => out.push_str(if t.hour() < 12 { "AM" } else { "PM" }),
        "am" | "pm" => out.push_str(if t.hour() < 12 { "am" } else { "pm" }),
        "A.M." | "P.M." => out.push_str(if t.hour() < 12 { "A.M." } else { "P.M." }),
        "a.m." | "p.m." => out.push_str(if t.hour() < 12 { "a.m." } else { "p.m." }),
        "TZ" => out.push_str(zone),
        "tz" => out.push_str(&zone.to_lowercase()),
        "OF" => out.push_str(if matches!(zone, "UTC" | "") { "+00" } else { zone }),
        other => out.push_str(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected texts are what PostgreSQL 15 gives.
    #[test]
    fn patterns_give_what_postgres_gives() {
        let time = DateTime::parse_from_rfc3339("2026-02-03T15:04:05.006007Z").unwrap().naive_utc();
        for (pattern, expected) in [
            ("YYYY-MM-DD HH24:MI:SS", "2026-02-03 15:04:05"),
            ("YYYY-MM-DD\"T\"HH24:MI:SS.MS", "2026-02-03T15:04:05.006"),
            ("HH12:MI AM, US", "03:04 PM, 006007"),
            ("Day, DDth Mon YYYY", "Tuesday  , 03rd Feb 2026"),
            ("FMDay FMMonth FMDD", "Tuesday February 3"),
            ("MONTH|mon|dy", "FEBRUARY |feb|tue"),
            ("IYYY-IW ID Q DDD", "2026-06 2 1 034"),
            ("YY WW D CC SSSS", "26 05 3 21 54245"),
        ] {
            assert_eq!(formatted(time, "UTC", pattern), expected, "{pattern}");
        }
    }
}
