//! Functions of single floats: arithmetic, comparison, mathematics, dates.

use std::f64::consts::{LN_2, LN_10};

use crate::parser::BinaryOp;

/// `a op b` for arithmetic operators; comparisons give 0 or 1. Other operators give NaN: the parser
/// lets none through.
#[inline]
pub fn arithmetic(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Atan2 => a.atan2(b),
        op if op.is_comparison() => f64::from(u8::from(compare(op, a, b))),
        _ => f64::NAN,
    }
}

/// `a op b` for comparison operators, by IEEE 754: with a NaN only `!=` holds.
#[inline]
#[expect(clippy::float_cmp, reason = "PromQL compares exactly")]
pub fn compare(op: BinaryOp, a: f64, b: f64) -> bool {
    match op {
        BinaryOp::Eq => a == b,
        BinaryOp::Ne => a != b,
        BinaryOp::Lt => a < b,
        BinaryOp::Le => a <= b,
        BinaryOp::Gt => a > b,
        BinaryOp::Ge => a >= b,
        _ => false,
    }
}

/// Above it, Go takes half the exponential for hyperbolic functions, which overflows sooner.
/// <https://github.com/golang/go/blob/go1.24.0/src/math/sinh.go>
const LARGE: f64 = 21.0;

/// Functions of one float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are PromQL's")]
pub enum MathFunction {
    Abs,
    Acos,
    Acosh,
    Asin,
    Asinh,
    Atan,
    Atanh,
    Ceil,
    Cos,
    Cosh,
    Deg,
    Exp,
    Floor,
    Ln,
    Log10,
    Log2,
    Rad,
    Sgn,
    Sin,
    Sinh,
    Sqrt,
    Tan,
    Tanh,
}

impl MathFunction {
    /// The function of this PromQL name.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "abs" => Self::Abs,
            "acos" => Self::Acos,
            "acosh" => Self::Acosh,
            "asin" => Self::Asin,
            "asinh" => Self::Asinh,
            "atan" => Self::Atan,
            "atanh" => Self::Atanh,
            "ceil" => Self::Ceil,
            "cos" => Self::Cos,
            "cosh" => Self::Cosh,
            "deg" => Self::Deg,
            "exp" => Self::Exp,
            "floor" => Self::Floor,
            "ln" => Self::Ln,
            "log10" => Self::Log10,
            "log2" => Self::Log2,
            "rad" => Self::Rad,
            "sgn" => Self::Sgn,
            "sin" => Self::Sin,
            "sinh" => Self::Sinh,
            "sqrt" => Self::Sqrt,
            "tan" => Self::Tan,
            "tanh" => Self::Tanh,
            _ => return None,
        })
    }

    /// The value of the function at `v`.
    #[inline]
    pub fn apply(self, v: f64) -> f64 {
        match self {
            Self::Abs => v.abs(),
            Self::Acos => v.acos(),
            Self::Acosh => v.acosh(),
            Self::Asin => v.asin(),
            Self::Asinh => v.asinh(),
            Self::Atan => v.atan(),
            Self::Atanh => v.atanh(),
            Self::Ceil => v.ceil(),
            Self::Cos => v.cos(),
            Self::Cosh if v.abs() > LARGE => v.abs().exp() * 0.5,
            Self::Cosh => v.cosh(),
            Self::Deg => v * 180.0 / std::f64::consts::PI,
            Self::Exp => v.exp(),
            Self::Floor => v.floor(),
            Self::Ln => v.ln(),
            Self::Log10 => go_log2(v) * (LN_2 / LN_10),
            Self::Log2 => go_log2(v),
            Self::Rad => v * std::f64::consts::PI / 180.0,
            Self::Sgn => {
                if v < 0.0 {
                    -1.0
                } else if v > 0.0 {
                    1.0
                } else {
                    v
                }
            }
            Self::Sin => v.sin(),
            Self::Sinh if v.abs() > LARGE => (v.abs().exp() * 0.5).copysign(v),
            Self::Sinh => v.sinh(),
            Self::Sqrt => v.sqrt(),
            Self::Tan => v.tan(),
            Self::Tanh => v.tanh(),
        }
    }
}

/// Go's `math.Max`: NaN if there is one, and +0 above -0.
pub(crate) fn go_max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { b } else { a }
    } else {
        a.max(b)
    }
}

/// Go's `math.Min`.
pub(crate) fn go_min(a: f64, b: f64) -> f64 {
    -go_max(-a, -b)
}

/// Parts of a UTC date whose seconds since the epoch are the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are PromQL's")]
pub enum DateFunction {
    DayOfMonth,
    DayOfWeek,
    DayOfYear,
    DaysInMonth,
    Hour,
    Minute,
    Month,
    Year,
}

impl DateFunction {
    /// The function of this PromQL name.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "day_of_month" => Self::DayOfMonth,
            "day_of_week" => Self::DayOfWeek,
            "day_of_year" => Self::DayOfYear,
            "days_in_month" => Self::DaysInMonth,
            "hour" => Self::Hour,
            "minute" => Self::Minute,
            "month" => Self::Month,
            "year" => Self::Year,
            _ => return None,
        })
    }

    /// The part of the date at `seconds` since the epoch.
    pub fn apply(self, seconds: f64) -> f64 {
        // Go's conversion on amd64 gives the least integer for what does not fit.
        let t = if seconds.is_nan() || seconds.abs() >= 9.3e18 { i64::MIN } else { seconds as i64 };
        let (days, day_second) = go_days(t);
        let date = Date::of_day(days);
        let value = match self {
            Self::DayOfMonth => date.day,
            Self::DayOfWeek => (days + 4).rem_euclid(7),
            Self::DayOfYear => (1..date.month).map(|m| days_in_month(date.year, m)).sum::<i64>() + date.day,
            Self::DaysInMonth => days_in_month(date.year, date.month),
            Self::Hour => day_second / 3600,
            Self::Minute => day_second / 60 % 60,
            Self::Month => date.month,
            Self::Year => date.year,
        };
        value as f64
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A day of the proleptic Gregorian calendar.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Date {
    pub(crate) year: i64,
    pub(crate) month: i64,
    pub(crate) day: i64,
}

/// `math.Log2` of Go, to the digit: `count_values` makes labels of values.
fn go_log2(v: f64) -> f64 {
    let (fraction, exponent) = frexp(v);
    if fraction == 0.5 {
        return f64::from(exponent - 1);
    }
    fraction.ln() * (1.0 / LN_2) + f64::from(exponent)
}

/// `v` as a fraction in `[0.5, 1)` and a power of two. Zeros, infinities and NaN remain what they are.
fn frexp(v: f64) -> (f64, i32) {
    const MANTISSA_BITS: u32 = 52;
    const HALF_EXPONENT: i32 = 1022;
    if v == 0.0 || !v.is_finite() {
        return (v, 0);
    }
    let (v, shift) = if v.is_normal() { (v, 0) } else { (v * (1_u64 << MANTISSA_BITS) as f64, -52) };
    let exponent = (v.to_bits() >> MANTISSA_BITS & 0x7ff) as i32;
    let bits = v.to_bits() & !(0x7ff << MANTISSA_BITS) | (HALF_EXPONENT as u64) << MANTISSA_BITS;
    (f64::from_bits(bits), exponent - HALF_EXPONENT + shift)
}

/// Days since the epoch, and seconds of the day. Go counts seconds from a time so early that all of them
/// fit an unsigned integer; what lies before comes out late in the future.
fn go_days(t: i64) -> (i64, i64) {
    /// Days from Go's absolute zero to the epoch.
    const EPOCH_DAYS: i64 = 106_751_991_073_400;
    let absolute = t.wrapping_add(EPOCH_DAYS * 86_400).cast_unsigned();
    ((absolute / 86_400) as i64 - EPOCH_DAYS, (absolute % 86_400) as i64)
}

impl Date {
    /// The day of `seconds` since the epoch, in UTC.
    pub(crate) fn of(seconds: i64) -> Self {
        Self::of_day(seconds.div_euclid(86_400))
    }

    /// The day that is `days` after the epoch.
    fn of_day(days: i64) -> Self {
        // Days are counted from 0000-03-01, so that a leap day is the last day of its year.
        let days = days + 719_468;
        let era = days.div_euclid(146_097);
        let in_era = days.rem_euclid(146_097);
        let year_of_era = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
        let in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * in_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self { year, month, day: in_year - (153 * shifted + 2) / 5 + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyperbolic_functions_overflow_where_they_do_in_go() {
        for (function, v, expected) in [
            (MathFunction::Sinh, 710.0, f64::INFINITY),
            (MathFunction::Sinh, -710.0, f64::NEG_INFINITY),
            (MathFunction::Cosh, -710.0, f64::INFINITY),
            (MathFunction::Sinh, 0.0, 0.0),
        ] {
            assert_eq!(function.apply(v), expected, "{function:?} of {v}");
        }
    }

    #[test]
    fn dates_are_utc_and_handle_leap_years() {
        let t = 1_709_210_096.0; // 2024-02-29T12:34:56Z, a Thursday
        for (function, value) in [
            (DateFunction::Year, 2024.0),
            (DateFunction::Month, 2.0),
            (DateFunction::DayOfMonth, 29.0),
            (DateFunction::DayOfYear, 60.0),
            (DateFunction::DayOfWeek, 4.0),
            (DateFunction::DaysInMonth, 29.0),
            (DateFunction::Hour, 12.0),
            (DateFunction::Minute, 34.0),
        ] {
            assert_eq!(function.apply(t), value, "{function:?}");
        }
        assert_eq!(DateFunction::Year.apply(-1.0), 1969.0);
    }

    #[test]
    fn min_and_max_give_nan_when_there_is_one() {
        assert!(go_max(f64::NAN, 1.0).is_nan());
        assert!(go_min(1.0, f64::NAN).is_nan());
        assert_eq!(go_max(f64::NAN, f64::INFINITY), f64::INFINITY);
        assert_eq!(go_min(2.0, 1.0), 1.0);
    }
}
