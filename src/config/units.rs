//! Durations and byte sizes as config files write them.

use std::time::Duration;

use promontory_tsdb::labels::go_quote;

/// Largest first, which is also the order in which they must be written.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3600 * 1000),
    ("w", 7 * 24 * 3600 * 1000),
    ("d", 24 * 3600 * 1000),
    ("h", 3600 * 1000),
    ("m", 60 * 1000),
    ("s", 1000),
    ("ms", 1),
];

/// Parses `1h30m` and the like; the units are `y w d h m s ms`, each at most once, in this order.
///
/// # Errors
/// If `text` is not of that form, or the sum is past 292 years.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err("empty duration string".to_owned());
    }
    let invalid = || format!("not a valid duration string: {}", go_quote(text));
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut ms = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let (_, scale) = units.by_ref().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        if number.is_empty() {
            return Err(invalid());
        }
        let out_of_range = || "duration out of range".to_owned();
        let number: u64 = number.parse().map_err(|_| out_of_range())?;
        ms = number.checked_mul(*scale).and_then(|n| n.checked_add(ms)).ok_or_else(out_of_range)?;
        if ms > (i64::MAX / 1_000_000) as u64 {
            return Err(out_of_range());
        }
        rest = tail;
    }
    Ok(Duration::from_millis(ms))
}

/// Writes a duration so that [`parse_duration`] reads it back; years and weeks only where they are exact.
pub fn format_duration(duration: Duration) -> String {
    let mut ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, scale) in UNITS {
        if matches!(unit, "y" | "w") && ms % scale != 0 {
            continue;
        }
        if ms >= scale {
            out.push_str(&format!("{}{unit}", ms / scale));
            ms %= scale;
        }
    }
    out
}

/// Parses a size in bytes: `512MB`, `1GiB`, `1.5KB`. A unit is required; all are powers of 1024.
///
/// # Errors
/// If `text` is not of that form.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    let invalid = || format!("units: invalid {text}");
    if text.is_empty() {
        return Err(invalid());
    }
    let mut rest = text;
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let power = match unit {
            "B" => 0,
            "KB" | "KiB" => 1,
            "MB" | "MiB" => 2,
            "GB" | "GiB" => 3,
            "TB" | "TiB" => 4,
            "PB" | "PiB" => 5,
            "EB" | "EiB" => 6,
            _ => return Err(format!("units: unknown unit {unit} in {text}")),
        };
        total += number * 1024f64.powi(power);
        rest = tail;
    }
    Ok(total as u64)
}

/// Writes a size so that [`parse_bytes`] reads it back.
pub fn format_bytes(bytes: u64) -> String {
    let mut rest = bytes;
    let mut out = String::new();
    for (i, unit) in ["EiB", "PiB", "TiB", "GiB", "MiB", "KiB", "B"].iter().enumerate() {
        let scale = 1u64 << (10 * (6 - i));
        if rest >= scale {
            out.push_str(&format!("{}{unit}", rest / scale));
            rest %= scale;
        }
    }
    if out.is_empty() { "0B".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_go_both_ways() {
        for (text, ms, shown) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("15s", 15_000, "15s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("90d", 90 * 86_400_000, "90d"),
            ("2w", 14 * 86_400_000, "2w"),
            ("1y", 365 * 86_400_000, "1y"),
            ("1500ms", 1_500, "1s500ms"),
            ("5m1s1ms", 301_001, "5m1s1ms"),
        ] {
            let parsed = parse_duration(text).unwrap();
            assert_eq!(parsed, Duration::from_millis(ms), "{text}");
            assert_eq!(format_duration(parsed), shown);
        }
        for bad in ["1", "-1h", "1.5h", "s", "30s1h", "1h1h", "5µs", "1x", " 1s"] {
            assert_eq!(parse_duration(bad).unwrap_err(), format!("not a valid duration string: {bad:?}"));
        }
        assert_eq!(parse_duration("").unwrap_err(), "empty duration string");
        assert_eq!(parse_duration("294y").unwrap_err(), "duration out of range");
    }

    #[test]
    fn sizes_go_both_ways() {
        for (text, bytes, shown) in [
            ("0", 0, "0B"),
            ("100B", 100, "100B"),
            ("10MB", 10 << 20, "10MiB"),
            ("1.5KiB", 1536, "1KiB512B"),
            ("1GiB", 1 << 30, "1GiB"),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
            assert_eq!(format_bytes(bytes), shown);
        }
        assert_eq!(parse_bytes("100").unwrap_err(), "units: unknown unit  in 100");
        assert!(parse_bytes("MB").is_err());
    }
}
