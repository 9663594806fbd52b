//! Texts as Go's standard library and the libraries of promtool write them.

use std::io::{self, Write};

/// `%g`: the shortest digits that read back, with an exponent below 1e-4 and from 1e6 on.
pub(super) fn go_float(v: f64) -> String {
    if v.is_nan() {
        return "NaN".to_owned();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{v:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return v.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// `time.Duration.String` of a span in ms: `2h0m0s`, `1.5s`, `250ms`.
pub(super) fn go_duration(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    let abs = ms.unsigned_abs();
    if abs == 0 {
        return "0s".to_owned();
    }
    if abs < 1000 {
        return format!("{sign}{abs}ms");
    }
    let fraction = match abs % 1000 {
        0 => String::new(),
        thousandths => format!(".{thousandths:03}").trim_end_matches('0').to_owned(),
    };
    let seconds = abs / 1000;
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (h, m) {
        (0, 0) => format!("{sign}{s}{fraction}s"),
        (0, _) => format!("{sign}{m}m{s}{fraction}s"),
        _ => format!("{sign}{h}h{m}m{s}{fraction}s"),
    }
}

/// `2026-11-21 20:55:00 +0000 UTC`: whole seconds, as `time.Time.String` of a UTC time.
pub(super) fn go_time(ms: i64) -> String {
    chrono::DateTime::from_timestamp(ms / 1000, 0)
        .map_or_else(|| ms.to_string(), |t| t.format("%Y-%m-%d %H:%M:%S +0000 UTC").to_string())
}

/// `1MiB512KiB3B`: every unit that is not zero, largest first.
///
/// Source: <https://github.com/alecthomas/units/blob/master/si.go>
pub(super) fn base2_bytes(bytes: u64) -> String {
    let mut rest = bytes;
    let mut parts = Vec::new();
    for (i, unit) in ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter().enumerate() {
        let n = rest % 1024;
        if n != 0 || (i == 0 && rest == 0) {
            parts.push(format!("{n}{unit}"));
        }
        rest /= 1024;
        if rest == 0 {
            break;
        }
    }
    parts.reverse();
    parts.concat()
}

/// An error of the operating system without Rust's "(os error 2)", in lower case as in Go.
pub(super) fn go_io_error(e: &io::Error) -> String {
    let text = e.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect())
}

/// Columns as `text/tabwriter` aligns them with a minimum of 13, two blanks between.
pub(super) fn put_table<const N: usize>(out: &mut dyn Write, rows: &[[String; N]]) -> io::Result<()> {
    const MIN: usize = 13;
    const BETWEEN: usize = 2;
    let widths: [usize; N] = std::array::from_fn(|i| {
        rows.iter().map(|row| row[i].chars().count() + BETWEEN).max().unwrap_or(0).max(MIN)
    });
    for row in rows {
        for (i, (cell, width)) in row.iter().zip(widths).enumerate() {
            if i + 1 < N {
                write!(out, "{cell:<width$}")?;
            } else {
                writeln!(out, "{cell}")?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_those_of_go() {
        for (v, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (123_456.0, "123456"),
            (1_234_567.0, "1.234567e+06"),
            (1e20, "1e+20"),
            (1e21, "1e+21"),
            (0.0001, "0.0001"),
            (0.000_01, "1e-05"),
            (1.5e300, "1.5e+300"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(go_float(v), text);
        }
    }

    #[test]
    fn spans_are_those_of_go() {
        for (ms, text) in [
            (0, "0s"),
            (1, "1ms"),
            (1500, "1.5s"),
            (60_000, "1m0s"),
            (7_200_000, "2h0m0s"),
            (7_199_001, "1h59m59.001s"),
            (-90_000, "-1m30s"),
        ] {
            assert_eq!(go_duration(ms), text);
        }
    }

    #[test]
    fn sizes_name_every_unit() {
        for (bytes, text) in [(0, "0B"), (1, "1B"), (1024, "1KiB"), (1_048_577, "1MiB1B"), (3 << 20, "3MiB")]
        {
            assert_eq!(base2_bytes(bytes), text);
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_two() {
        let mut out = Vec::new();
        let rows = [["A", "B", "C"], ["a-very-long-cell", "b", "c"]].map(|row| row.map(str::to_owned));
        put_table(&mut out, &rows).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "A                 B            C\na-very-long-cell  b            c\n");
    }
}
