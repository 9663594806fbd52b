//! `timezone(zone, t)`, which is what `t AT TIME ZONE zone` calls, as in PostgreSQL: an instant becomes what clocks
//! show in the zone, and what clocks show becomes an instant.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Duration, LocalResult, NaiveDateTime, Offset as _, TimeZone as _};
use datafusion::common::{DataFusionError, Result, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use promontory_tsdb::ErrorKind;

use crate::{FunctionError, text};

/// Further back than any clock was ever turned.
const BEFORE_A_GAP: Duration = Duration::days(1);

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Timezone(Signature);

impl Timezone {
    pub(crate) fn new() -> Self {
        Self(Signature::new(TypeSignature::UserDefined, Volatility::Stable))
    }
}

impl ScalarUDFImpl for Timezone {
    fn name(&self) -> &'static str {
        "timezone"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let [zone, time] = arg_types else {
            return plan_err!("No function matches: timezone() takes a zone and a time");
        };
        let is_text = |t: &DataType| match t {
            DataType::Dictionary(_, value) => value.is_string(),
            other => other.is_string() || other.is_null(),
        };
        let time = match time {
            DataType::Timestamp(..) => time.clone(),
            // To be read in the session's zone.
            DataType::Date32 | DataType::Date64 => DataType::Date32,
            other if is_text(other) => DataType::Utf8,
            other => return plan_err!("No function matches: timezone() takes a time, not {other}"),
        };
        if !is_text(zone) {
            return plan_err!("No function matches: time zones are texts, not {zone}");
        }
        Ok(vec![DataType::Utf8, time])
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(match arg_types.get(1) {
            Some(DataType::Timestamp(unit, Some(_))) => DataType::Timestamp(*unit, None),
            Some(DataType::Timestamp(unit, None)) => DataType::Timestamp(*unit, Some("UTC".into())),
            _ => DataType::Timestamp(TimeUnit::Microsecond, None),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let all_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if all_scalar { 1 } else { args.number_rows };
        let times = args.args[1].to_array(rows)?;
        let to = args.return_field.data_type();
        let to_local = matches!(to, DataType::Timestamp(_, None));
        let session = args.config_options.execution.time_zone.as_deref().unwrap_or("UTC");
        let times = in_micros(&times, session)?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let moved =
            |zone: &Tz, micros: i64| if to_local { local(zone, micros) } else { instant(zone, micros) };
        let moved: TimestampMicrosecondArray = match &args.args[0] {
            ColumnarValue::Scalar(zone) => match zone.try_as_str().flatten() {
                Some(zone) => {
                    let zone = known(zone)?;
                    times.iter().map(|micros| moved(&zone, micros?)).collect()
                }
                None => std::iter::repeat_n(None, rows).collect::<TimestampMicrosecondArray>(),
            },
            ColumnarValue::Array(zones) => {
                let zones = zones.as_string::<i32>();
                let each = zones.iter().zip(times).map(|(zone, micros)| match (zone, micros) {
                    (Some(zone), Some(micros)) => Ok(moved(&known(zone)?, micros)),
                    _ => Ok(None),
                });
                each.collect::<Result<_>>()?
            }
        };
        let moved: ArrayRef = match to {
            DataType::Timestamp(_, Some(zone)) => Arc::new(moved.with_timezone(Arc::clone(zone))),
            _ => Arc::new(moved),
        };
        let moved = cast(&moved, to)?;
        Ok(match all_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&moved, 0)?),
            false => ColumnarValue::Array(moved),
        })
    }
}

/// `times` in µs; texts and dates as instants, read in the zone of the session.
fn in_micros(times: &ArrayRef, session: &str) -> Result<ArrayRef> {
    let micros = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    Ok(match times.data_type() {
        DataType::Timestamp(_, zone) => cast(times, &micros(zone.as_deref()))?,
        DataType::Date32 => cast(&cast(times, &micros(None))?, &micros(Some(session)))?,
        // What says no time is an error, as everywhere.
        _ => cast_with_options(
            times,
            &micros(Some(session)),
            &CastOptions { safe: false, ..CastOptions::default() },
        )?,
    })
}

fn known(name: &str) -> Result<Tz> {
    let unknown = || {
        let message = format!("time zone {name:?} not recognized");
        DataFusionError::External(Box::new(FunctionError { kind: ErrorKind::Invalid, message }))
    };
    text::zone(name).map(|(zone, _)| zone).ok_or_else(unknown)
}

fn naive(micros: i64) -> Option<NaiveDateTime> {
    DateTime::from_timestamp_micros(micros).map(|time| time.naive_utc())
}

/// What clocks in `zone` show at an instant, both in µs.
fn local(zone: &Tz, micros: i64) -> Option<i64> {
    let east = zone.offset_from_utc_datetime(&naive(micros)?).fix().local_minus_utc();
    micros.checked_add(i64::from(east) * 1_000_000)
}

/// The instant when clocks in `zone` show this, both in µs. As in PostgreSQL, what they show twice is the second time,
/// and what they leave out is counted on as if they had not been turned.
fn instant(zone: &Tz, micros: i64) -> Option<i64> {
    let shown = naive(micros)?;
    let east = match zone.offset_from_local_datetime(&shown) {
        LocalResult::Single(east) | LocalResult::Ambiguous(_, east) => east,
        LocalResult::None => zone.offset_from_utc_datetime(&shown.checked_sub_signed(BEFORE_A_GAP)?),
    };
    micros.checked_sub(i64::from(east.fix().local_minus_utc()) * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected instants are PostgreSQL's.
    #[test]
    fn what_clocks_show_twice_or_never_is_an_instant_all_the_same() {
        let berlin = known("Europe/Berlin").expect("there is Berlin");
        for (shown, expected) in [
            ("2026-03-29T01:59:59", "2026-03-29T00:59:59"),
            ("2026-03-29T02:30:00", "2026-03-29T01:30:00"),
            ("2026-03-29T03:00:00", "2026-03-29T01:00:00"),
            ("2026-10-25T01:59:59", "2026-10-24T23:59:59"),
            ("2026-10-25T02:30:00", "2026-10-25T01:30:00"),
            ("2026-10-25T03:00:00", "2026-10-25T02:00:00"),
        ] {
            let micros = |text: &str| text.parse::<NaiveDateTime>().expect(text).and_utc().timestamp_micros();
            assert_eq!(instant(&berlin, micros(shown)), Some(micros(expected)), "{shown}");
        }
        assert_eq!(local(&berlin, i64::MAX), None);
        assert!(known("Nowhere/City").is_err());
    }
}
