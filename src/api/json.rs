//! Writes JSON the way Prometheus does, digit by digit.
//!
//! Clients compare texts, so the details are API: floats are strings in Go's shortest `'f'` form, with
//! an exponent below 1e-6 and from 1e21; timestamps are seconds as a number with no or three decimals;
//! plain strings have `<`, `>`, `&` escaped as Go's encoder does, label sets do not.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/util/jsonutil/marshal.go>,
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/web/api/v1/json_codec.go>

use promontory_tsdb::{Labels, TimestampMs};

/// `1435781451.781`: ms as seconds, with three decimals unless they are zero.
pub(crate) fn put_timestamp(out: &mut Vec<u8>, t: TimestampMs) {
    if t < 0 {
        out.push(b'-');
    }
    let abs = t.unsigned_abs();
    out.extend_from_slice(itoa::Buffer::new().format(abs / 1000).as_bytes());
    let fraction = (abs % 1000) as u16;
    if fraction != 0 {
        let digit = |d: u16| b'0' + (d % 10) as u8;
        out.extend_from_slice(&[b'.', digit(fraction / 100), digit(fraction / 10), digit(fraction)]);
    }
}

/// A float as a quoted string: `"1.5"`, `"1e-07"`, `"NaN"`, `"+Inf"`.
pub(crate) fn put_float(out: &mut Vec<u8>, v: f64) {
    out.push(b'"');
    put_unquoted_float(out, v);
    out.push(b'"');
}

/// `"<digits>"],` of a whole number that is not negative and has at most 15 digits; does nothing and gives `false`
/// for any other. As [`put_float`] and what follows it in a list of points.
#[inline]
pub(crate) fn put_integer_point(out: &mut Vec<u8>, v: f64) -> bool {
    const PAIRS: [[u8; 2]; 100] = {
        let mut pairs = [[0; 2]; 100];
        let mut i = 0;
        while i < 100 {
            pairs[i] = [b'0' + (i / 10) as u8, b'0' + (i % 10) as u8];
            i += 1;
        }
        pairs
    };
    // What is no such number, −0 included, is another one after this.
    let mut rest = v as u64;
    if (rest as f64).to_bits() != v.to_bits() || rest >= 1_000_000_000_000_000 {
        return false;
    }
    // One text of fixed length, so that one check of the capacity is enough, and the copy no call.
    let mut text = [b'"'; 24];
    let digits = rest.checked_ilog10().map_or(1, |n| n as usize + 1);
    let mut at = 1 + digits;
    text[at + 1] = b']';
    text[at + 2] = b',';
    while rest >= 10 {
        at -= 2;
        text[at..at + 2].copy_from_slice(&PAIRS[(rest % 100) as usize]);
        rest /= 100;
    }
    if at == 2 {
        text[1] = b'0' + rest as u8;
    }
    let end = out.len() + digits + 4;
    out.extend_from_slice(&text);
    out.truncate(end);
    true
}

/// What [`put_float`] puts between the quotes.
#[inline]
pub(crate) fn put_unquoted_float(out: &mut Vec<u8>, v: f64) {
    let abs = v.abs();
    if abs != 0.0 && abs.is_finite() && !(1e-6..1e21).contains(&abs) {
        put_exponent(out, v);
    } else {
        put_decimal(out, v);
    }
}

/// Go's `FormatFloat(v, 'f', -1, 64)`.
pub(crate) fn put_decimal(out: &mut Vec<u8>, v: f64) {
    /// Below this every integer is exact and its digits are the shortest form.
    const EXACT_INTEGERS: f64 = 1e15;
    if v.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if v.is_infinite() {
        out.extend_from_slice(if v > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if v.abs() < EXACT_INTEGERS && v.trunc().to_bits() == v.to_bits() {
        if v.is_sign_negative() && v.to_bits() << 1 == 0 {
            out.push(b'-');
        }
        out.extend_from_slice(itoa::Buffer::new().format(v as i64).as_bytes());
    } else {
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(v);
        if text.contains('e') {
            // Far from 1, where that turns to exponents; the standard library never does.
            out.extend_from_slice(v.to_string().as_bytes());
        } else {
            out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
        }
    }
}

/// Go's `FormatFloat(v, 'e', -1, 64)`: a sign and at least two digits in the exponent. `v` is finite.
fn put_exponent(out: &mut Vec<u8>, v: f64) {
    let text = format!("{v:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
    out.extend_from_slice(format!("{mantissa}e{sign}{digits:0>2}").as_bytes());
}

/// A string with `<`, `>`, `&`, U+2028 and U+2029 escaped, as Go's encoder writes strings.
pub(crate) fn put_string(out: &mut Vec<u8>, s: &str) {
    put_escaped(out, s, true);
}

/// `{"name":"value",…}`, in label order.
///
/// Compat: upstream writes label sets without HTML escapes, unlike every other string.
pub(crate) fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (i, (name, value)) in labels.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        put_escaped(out, name, false);
        out.push(b':');
        put_escaped(out, value, false);
    }
    out.push(b'}');
}

/// Any serializable value, with Go's HTML escapes.
pub(crate) fn put_value(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => put_html_escaped(out, &text),
        Err(e) => {
            tracing::error!(error = %e, "encoding a response failed");
            out.extend_from_slice(b"null");
        }
    }
}

fn put_escaped(out: &mut Vec<u8>, s: &str, html: bool) {
    out.push(b'"');
    let mut clean_from = 0;
    let bytes = s.as_bytes();
    for (i, &b) in bytes.iter().enumerate() {
        let escape: &[u8] = match b {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..=0x1f => b"",
            b'<' | b'>' | b'&' if html => b"",
            0xe2 if html && matches!(bytes.get(i + 1..i + 3), Some([0x80, 0xa8 | 0xa9])) => {
                out.extend_from_slice(&bytes[clean_from..i]);
                out.extend_from_slice(if bytes[i + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                clean_from = i + 3;
                continue;
            }
            _ => continue,
        };
        out.extend_from_slice(&bytes[clean_from..i]);
        if escape.is_empty() {
            out.extend_from_slice(format!("\\u{b:04x}").as_bytes());
        } else {
            out.extend_from_slice(escape);
        }
        clean_from = i + 1;
    }
    out.extend_from_slice(&bytes[clean_from..]);
    out.push(b'"');
}

/// Escapes HTML in encoded JSON, where these characters stand inside strings only.
fn put_html_escaped(out: &mut Vec<u8>, json: &str) {
    out.reserve(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes());
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(put: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        put(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn floats_read_as_go_writes_them() {
        let cases: &[(f64, &str)] = &[
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-3.0, "-3"),
            (0.1, "0.1"),
            (0.000001, "0.000001"),
            (0.0000009, "9e-07"),
            (-1.5e-300, "-1.5e-300"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.234e22, "1.234e+22"),
            (123456789012345680.0, "123456789012345680"),
            (1e15, "1000000000000000"),
            (1.7e15 + 0.5, "1700000000000000.5"),
            (0.00001234, "0.00001234"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ];
        for (v, want) in cases {
            assert_eq!(written(|out| put_float(out, *v)), format!("\"{want}\""));
        }
    }

    #[test]
    fn whole_numbers_in_lists_of_points_read_as_other_floats() {
        let powers = (0..15).flat_map(|n| [10u64.pow(n), 10u64.pow(n) - 1, 10u64.pow(n) * 7 + 3]);
        for v in powers.map(|n| n as f64) {
            assert!(put_integer_point(&mut Vec::new(), v), "{v}");
            let want = format!("{}],", written(|out| put_float(out, v)));
            assert_eq!(written(|out| assert!(put_integer_point(out, v))), want);
        }
        for v in [-0.0, -1.0, 0.5, 1e15, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(written(|out| assert!(!put_integer_point(out, v))), "", "{v}");
        }
    }

    #[test]
    fn timestamps_have_no_or_three_decimals() {
        for (t, want) in [
            (1_435_781_451_781, "1435781451.781"),
            (1_435_781_451_000, "1435781451"),
            (1_100, "1.100"),
            (1_001, "1.001"),
            (0, "0"),
            (-1, "-0.001"),
            (-62_135_596_800_000, "-62135596800"),
        ] {
            assert_eq!(written(|out| put_timestamp(out, t)), want);
        }
    }

    #[test]
    fn plain_strings_escape_html_and_labels_do_not() {
        assert_eq!(
            written(|out| put_string(out, "a<b>&\"\\\n\u{1}\u{2028}é")),
            r#""a\u003cb\u003e\u0026\"\\\n\u0001\u2028é""#
        );
        let labels = Labels::from_pairs([("path", "<a&b>\n")]);
        assert_eq!(written(|out| put_labels(out, &labels)), r#"{"path":"<a&b>\n"}"#);
        assert_eq!(written(|out| put_value(out, &["a<b"])), r#"["a\u003cb"]"#);
    }

    proptest::proptest! {
        #[test]
        fn floats_round_trip(bits: u64) {
            let v = f64::from_bits(bits);
            let text = written(|out| put_float(out, v));
            let text = text.trim_matches('"');
            let back: f64 = text.parse().unwrap();
            assert!(back == v || (back.is_nan() && v.is_nan()), "{v:e} became {text}");
        }

        #[test]
        fn strings_round_trip(s: String) {
            let text = written(|out| put_string(out, &s));
            assert_eq!(serde_json::from_str::<String>(&text).unwrap(), s);
        }
    }
}
