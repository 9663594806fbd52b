//! Values as the text that PostgreSQL prints of them.

use arrow::array::timezone::Tz;
use chrono::{Offset as _, TimeZone as _};

/// The shortest text that reads back as `v`, in the form of C's `%g`: an exponent of at least two
/// digits below 1e-4 and from 1e15 on, plain digits between.
pub(crate) fn float(v: f64) -> String {
    if v.is_finite() { general(&format!("{v:e}"), 15).unwrap_or_else(|| v.to_string()) } else { no_number(v) }
}

/// As [`float`], rounded to so many significant digits, which `extra_float_digits` of 0 and less ask for.
pub(crate) fn rounded_float(v: f64, digits: usize) -> String {
    if !v.is_finite() {
        return no_number(v);
    }
    let digits = digits.max(1);
    let rounded = format!("{v:.*e}", digits - 1);
    let shortest = rounded.parse::<f64>().map_or(rounded, |v| format!("{v:e}"));
    general(&shortest, i32::try_from(digits).unwrap_or(15))
        .unwrap_or_else(|| shortest.parse::<f64>().unwrap_or(v).to_string())
}

fn no_number(v: f64) -> String {
    if v.is_nan() {
        "NaN"
    } else if v > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
    .to_owned()
}

/// `scientific` with an exponent, if that is outside of `[-4, digits)`.
fn general(scientific: &str, digits: i32) -> Option<String> {
    let (mantissa, exponent) = scientific.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    let sign = if exponent < 0 { '-' } else { '+' };
    (!(-4..digits).contains(&exponent)).then(|| format!("{mantissa}e{sign}{:02}", exponent.abs()))
}

/// An instant, given in µs since the epoch, as clocks show it in `zone`, without the zeros at its end. Without a zone,
/// what UTC says.
pub(crate) fn time(micros: i64, zone: Option<&Tz>) -> Option<String> {
    let utc = chrono::DateTime::from_timestamp_micros(micros)?.naive_utc();
    let east = zone.map(|zone| zone.offset_from_utc_datetime(&utc).fix());
    let local = match east {
        Some(east) => utc.checked_add_offset(east)?,
        None => utc,
    };
    let mut text = local.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
    text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    if let Some(east) = east {
        let (east, seconds) = (east.local_minus_utc(), east.local_minus_utc().unsigned_abs());
        text.push_str(&format!("{}{:02}", if east < 0 { '-' } else { '+' }, seconds / 3600));
        if seconds % 3600 != 0 {
            text.push_str(&format!(":{:02}", seconds / 60 % 60));
        }
        // Before there were zones, each place had its own time.
        if seconds % 60 != 0 {
            text.push_str(&format!(":{:02}", seconds % 60));
        }
    }
    Some(text)
}

/// The zone that `name` says, an offset such as `+02:00` or a name such as `Europe/Berlin`, in whatever case; and how
/// it is written.
pub(crate) fn zone(name: &str) -> Option<(Tz, String)> {
    if let Ok(zone) = name.parse() {
        return Some((zone, name.to_owned()));
    }
    let known = chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(name))?;
    Some((known.name().parse().ok()?, known.name().to_owned()))
}

/// An interval of months, days and µs in the style `postgres`.
pub(crate) fn interval(months: i32, days: i32, micros: i64) -> String {
    let mut text = String::new();
    let mut after_negative = false;
    for (count, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if count != 0 {
            let space = if text.is_empty() { "" } else { " " };
            let plus = if after_negative && count > 0 { "+" } else { "" };
            let plural = if count == 1 { "" } else { "s" };
            text.push_str(&format!("{space}{plus}{count} {unit}{plural}"));
            after_negative = count < 0;
        }
    }
    if micros != 0 || text.is_empty() {
        let space = if text.is_empty() { "" } else { " " };
        let sign = match (micros < 0, after_negative) {
            (true, _) => "-",
            (false, true) => "+",
            (false, false) => "",
        };
        let all = micros.unsigned_abs();
        let (seconds, fraction) = (all / 1_000_000, all % 1_000_000);
        let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        text.push_str(&format!("{space}{sign}{clock}"));
        if fraction > 0 {
            text.push_str(format!(".{fraction:06}").trim_end_matches('0'));
        }
    }
    text
}

/// The difference of two instants, in µs, which has days in PostgreSQL.
pub(crate) fn duration(micros: i64) -> String {
    const DAY: i64 = 86_400_000_000;
    interval(0, i32::try_from(micros / DAY).unwrap_or(i32::MAX), micros % DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected texts are what `SELECT v::float8` prints in PostgreSQL 15.
    #[test]
    fn doubles_read_as_postgres_prints_them() {
        for (v, expected) in [
            (1.0, "1"),
            (0.0, "0"),
            (-0.0, "-0"),
            (0.1, "0.1"),
            (7200.5, "7200.5"),
            (1e100, "1e+100"),
            (1e15, "1e+15"),
            (1e14, "100000000000000"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-1.5e-7, "-1.5e-07"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(float(v), expected);
        }
    }

    /// With `extra_float_digits` of 0 and of -12.
    #[test]
    fn doubles_are_rounded_where_fewer_digits_are_wanted() {
        for (v, digits, expected) in [
            (0.1 + 0.2, 15, "0.3"),
            (1e15 / 3.0, 15, "333333333333333"),
            (1e15, 15, "1e+15"),
            (12345.0, 3, "1.23e+04"),
            (0.0, 3, "0"),
        ] {
            assert_eq!(rounded_float(v, digits), expected);
        }
    }

    #[test]
    fn instants_lose_the_zeros_at_their_end_and_no_others() {
        let in_zone =
            |micros, name: &str| time(micros, zone(name).as_ref().map(|(zone, _)| zone)).expect(name);
        assert_eq!(in_zone(0, "UTC"), "1970-01-01 00:00:00+00");
        assert_eq!(time(1_767_268_800_250_000, None).as_deref(), Some("2026-01-01 12:00:00.25"));
        assert_eq!(in_zone(0, "-03:30"), "1969-12-31 20:30:00-03:30");
        assert_eq!(in_zone(0, "+02"), "1970-01-01 02:00:00+02");
        assert_eq!(time(i64::MAX, None), None);
    }

    /// Expected texts are PostgreSQL's.
    #[test]
    fn instants_follow_the_clocks_of_their_zone() {
        let (berlin, name) = zone("europe/BERLIN").expect("there is Berlin");
        assert_eq!(name, "Europe/Berlin");
        for (micros, expected) in [
            (1_767_268_800_000_000, "2026-01-01 13:00:00+01"),
            (1_782_907_200_000_000, "2026-07-01 14:00:00+02"),
            (1_774_745_999_000_000, "2026-03-29 01:59:59+01"),
            (1_774_746_000_000_000, "2026-03-29 03:00:00+02"),
            (-2_500_028_800_000_000, "1890-10-11 12:26:48+00:53:28"),
        ] {
            assert_eq!(time(micros, Some(&berlin)).as_deref(), Some(expected));
        }
        assert!(zone("Nowhere/City").is_none());
    }

    /// Expected texts are PostgreSQL's.
    #[test]
    fn intervals_have_years_months_days_and_a_clock() {
        for (months, days, micros, expected) in [
            (0, 0, 0, "00:00:00"),
            (14, 0, 0, "1 year 2 mons"),
            (0, 1, 1_500_000, "1 day 00:00:01.5"),
            (0, -1, 7_200_000_000, "-1 days +02:00:00"),
            (-1, 3, -1, "-1 mons +3 days -00:00:00.000001"),
            (0, 0, -3_600_000_000, "-01:00:00"),
        ] {
            assert_eq!(interval(months, days, micros), expected);
        }
        assert_eq!(duration(129_600_000_000), "1 day 12:00:00");
        assert_eq!(duration(-129_600_000_000), "-1 days -12:00:00");
    }
}
