//! Numbers, strings and durations as text: reading them and writing them, by Go's rules.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Quotes as Go's `strconv.Quote`.
pub(super) fn quote(s: &str) -> String {
    promontory_tsdb::labels::go_quote(s).into_owned()
}

/// Quotes one character as Go's `%q`; `None` is the end of the input, which Go shows as U+FFFD.
pub(super) fn quote_char(c: Option<char>) -> String {
    match c {
        None => "'\u{fffd}'".to_owned(),
        Some('\'') => r"'\''".to_owned(),
        Some('"') => "'\"'".to_owned(),
        Some(c) => {
            let quoted = quote(c.encode_utf8(&mut [0; 4]));
            format!("'{}'", &quoted[1..quoted.len() - 1])
        }
    }
}

/// Reads a number that the lexer let pass: decimal, octal with a leading zero, hexadecimal,
/// exponents, underscores, `Inf`, `NaN`. The error is Go's.
pub(crate) fn parse_number(text: &str) -> Result<f64, String> {
    if let Some(n) = parse_go_int(text) {
        return Ok(n as f64);
    }
    let fail = |why: &str| format!("strconv.ParseFloat: parsing {}: {why}", quote(text));
    if !underscores_separate_digits(text) {
        return Err(fail("invalid syntax"));
    }
    let plain: Cow<'_, str> = if text.contains('_') { text.replace('_', "").into() } else { text.into() };
    let unsigned = plain.trim_start_matches(['+', '-']);
    if unsigned.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return match unsigned.to_ascii_lowercase().as_str() {
            "inf" | "infinity" if plain.starts_with('-') => Ok(f64::NEG_INFINITY),
            "inf" | "infinity" => Ok(f64::INFINITY),
            "nan" if plain.len() == unsigned.len() => Ok(f64::NAN),
            _ => Err(fail("invalid syntax")),
        };
    }
    if unsigned.starts_with("0x") || unsigned.starts_with("0X") {
        // A hexadecimal number that does not fit an integer; as a float Go wants an exponent.
        return Err(fail("invalid syntax"));
    }
    match plain.parse::<f64>() {
        Ok(v) if v.is_infinite() => Err(fail("value out of range")),
        Ok(v) => Ok(v),
        Err(_) => Err(fail("invalid syntax")),
    }
}

/// `strconv.ParseInt(text, 0, 64)` without its errors.
fn parse_go_int(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) || !underscores_separate_digits(digits) {
        return None;
    }
    let (radix, rest) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some(two) if two.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    let mut plain = String::with_capacity(rest.len() + 1);
    if negative {
        plain.push('-');
    }
    plain.extend(rest.chars().filter(|c| *c != '_'));
    i64::from_str_radix(&plain, radix).ok()
}

/// Go's rule: an underscore stands between digits, or between a base prefix and a digit.
fn underscores_separate_digits(text: &str) -> bool {
    let bytes = text.trim_start_matches(['+', '-']).as_bytes();
    let hex = matches!(bytes.get(..2), Some(b"0x" | b"0X"));
    let digit =
        |b: Option<&u8>| b.is_some_and(|b| if hex { b.is_ascii_hexdigit() } else { b.is_ascii_digit() });
    bytes.iter().enumerate().filter(|(_, b)| **b == b'_').all(|(i, _)| {
        let after_prefix = hex && i == 2;
        i > 0 && (after_prefix || digit(bytes.get(i - 1))) && digit(bytes.get(i + 1))
    })
}

/// Writes a number as Go's `FormatFloat(v, 'f', -1, 64)`.
pub(super) fn format_float(v: f64) -> String {
    if v.is_infinite() {
        return if v > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() };
    }
    format!("{v}")
}

/// Takes the quotes off a string literal and resolves its escapes.
///
/// Escapes may make bytes that are not UTF-8; the replacement character stands in for those.
/// `None` if the literal is malformed, which the lexer does not let happen.
pub(crate) fn unquote(literal: &str) -> Option<String> {
    let bytes = unquote_bytes(literal)?;
    Some(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

/// Stands in for the byte 0 where bytes are no UTF-8; the others follow. A private character, so that
/// strings of expressions need no type of their own.
const STRAY_BYTE: u32 = 0x10_fe00;

/// As [`unquote`], but bytes that are not UTF-8 remain known: see [`stray_bytes_shown`].
pub(super) fn unquote_exact(literal: &str) -> Option<String> {
    let mut out = String::new();
    for chunk in unquote_bytes(literal)?.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().filter_map(|b| char::from_u32(STRAY_BYTE + u32::from(*b))));
    }
    Some(out)
}

fn stray_byte(c: char) -> Option<u8> {
    u8::try_from((c as u32).checked_sub(STRAY_BYTE)?).ok()
}

/// The text with the replacement character for bytes that are no UTF-8; `None` if it has no such bytes.
pub(crate) fn stray_bytes_shown(text: &str) -> Option<String> {
    text.chars()
        .any(|c| stray_byte(c).is_some())
        .then(|| text.chars().map(|c| stray_byte(c).map_or(c, |_| char::REPLACEMENT_CHARACTER)).collect())
}

/// Quotes a string of an expression; bytes that are no UTF-8 appear as `\xff`.
pub(crate) fn quote_exact(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    for c in quote(text).chars() {
        match stray_byte(c) {
            // Writing to a `String` does not fail.
            Some(b) => drop(write!(out, "\\x{b:02x}")),
            None => out.push(c),
        }
    }
    out
}

fn unquote_bytes(literal: &str) -> Option<Vec<u8>> {
    let quote = literal.chars().next()?;
    let body = literal.get(1..literal.len().checked_sub(1)?)?;
    if quote == '`' || !body.contains('\\') {
        return Some(body.as_bytes().to_vec());
    }
    let mut out = Vec::with_capacity(body.len());
    let mut chars = body.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match chars.next()? {
            'a' => out.push(7),
            'b' => out.push(8),
            'f' => out.push(12),
            'n' => out.push(b'\n'),
            'r' => out.push(b'\r'),
            't' => out.push(b'\t'),
            'v' => out.push(11),
            'x' => out.push(take_digits(&mut chars, 0, 2, 16)? as u8),
            'u' => push_rune(&mut out, take_digits(&mut chars, 0, 4, 16)?)?,
            'U' => push_rune(&mut out, take_digits(&mut chars, 0, 8, 16)?)?,
            c @ '0'..='7' => {
                let first = c.to_digit(8)?;
                out.push(u8::try_from(take_digits(&mut chars, first, 2, 8)?).ok()?);
            }
            c @ ('\\' | '\'' | '"') => out.push(c as u8),
            _ => return None,
        }
    }
    Some(out)
}

fn take_digits(chars: &mut std::str::Chars<'_>, first: u32, count: usize, radix: u32) -> Option<u32> {
    (0..count).try_fold(first, |n, _| n.checked_mul(radix)?.checked_add(chars.next()?.to_digit(radix)?))
}

fn push_rune(out: &mut Vec<u8>, code: u32) -> Option<()> {
    out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
    Some(())
}

/// Units with their length in milliseconds, longest first: the order in which a duration names them.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Longest duration, ms: what fits 64 bits of nanoseconds, as upstream keeps them.
const MAX_MS: u64 = (i64::MAX / 1_000_000) as u64;

/// Reads a duration such as `1h30m`, in ms. Units go from long to short, each at most once; `0` needs none.
///
/// # Errors
/// Upstream's text, e.g. `not a valid duration string: "1m1h"`.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    if text == "0" {
        return Ok(0);
    }
    if text.is_empty() {
        return Err("empty duration string".to_owned());
    }
    let invalid = || format!("not a valid duration string: {}", quote(text));
    let mut rest = text;
    let mut total = 0_u64;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let count: u64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, tail) = rest.split_at(unit_end);
        rest = tail;
        if unit.is_empty() {
            return Err(invalid());
        }
        let Some(position) = UNITS.iter().position(|(u, _)| *u == unit) else {
            return Err(format!("unknown unit {} in duration {}", quote(unit), quote(text)));
        };
        if position < next_unit {
            return Err(invalid());
        }
        next_unit = position + 1;
        total = count
            .checked_mul(UNITS[position].1)
            .and_then(|ms| total.checked_add(ms))
            .filter(|total| *total <= MAX_MS)
            .ok_or("duration out of range")?;
    }
    i64::try_from(total).map_err(|_| "duration out of range".to_owned())
}

/// Writes a duration of ms as upstream: `90d`, `1h30m`; years and weeks only where nothing remains.
pub fn format_duration(ms: i64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    if ms < 0 {
        out.push('-');
    }
    let mut rest = ms.unsigned_abs();
    for (unit, length) in UNITS {
        let only_exact = matches!(unit, "y" | "w");
        if rest >= length && (!only_exact || rest.is_multiple_of(length)) {
            // Writing to a `String` does not fail.
            let _ = write!(out, "{}{unit}", rest / length);
            rest %= length;
        }
    }
    out
}
