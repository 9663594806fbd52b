//! Numbers as exposition formats write them.

use promontory_tsdb::sample::NORMAL_NAN_BITS;

/// Parses a sample value as Go does, without its newer spellings (`0x1p3`, `1_000`).
///
/// Every NaN comes out as the one normal NaN, so that no target can forge a stale marker.
pub(super) fn parse_value(text: &[u8]) -> Result<f64, String> {
    if let Some(v) = parse_small_integer(text) {
        return Ok(v);
    }
    if text.iter().any(|b| matches!(b, b'p' | b'P' | b'_')) {
        return Err("unsupported character in float".to_owned());
    }
    let syntax = || format!("strconv.ParseFloat: parsing {}: invalid syntax", super::quote(text));
    let text = std::str::from_utf8(text).map_err(|_| syntax())?;
    // Go takes a sign before "inf" but not before "nan".
    if text.len() == 4 && text[1..].eq_ignore_ascii_case("nan") {
        return Err(syntax());
    }
    let v: f64 = text.parse().map_err(|_| syntax())?;
    if v.is_nan() {
        return Ok(f64::from_bits(NORMAL_NAN_BITS));
    }
    if v.is_infinite() && text.bytes().any(|b| b.is_ascii_digit()) {
        return Err(format!(
            "strconv.ParseFloat: parsing {}: value out of range",
            super::quote(text.as_bytes())
        ));
    }
    Ok(v)
}

/// An integer of at most 15 digits, which a float holds exactly.
#[inline]
fn parse_small_integer(text: &[u8]) -> Option<f64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if digits.is_empty() || digits.len() > 15 {
        return None;
    }
    let mut n = 0u64;
    for b in digits {
        let d = b.wrapping_sub(b'0');
        if d > 9 {
            return None;
        }
        n = n * 10 + u64::from(d);
    }
    let v = n as f64;
    Some(if negative { -v } else { v })
}

/// A timestamp in digits only, ms.
pub(super) fn parse_timestamp_ms(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `value` as OpenMetrics wants `le` and `quantile` written: shortest form, always visibly a float.
pub(super) fn format_open_metrics_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    // Go's 'g' with the shortest precision turns to an exponent below 1e-4 and from 1e6 on.
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let plain = value.to_string();
    if plain.contains('.') { plain } else { plain + ".0" }
}
