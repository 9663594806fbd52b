//! Floats as Go prints them.

/// `strconv.FormatFloat(v, 'f', -1, 64)`.
pub(crate) fn go_f(v: f64) -> String {
    if v.is_nan() {
        "NaN".into()
    } else if v.is_infinite() {
        if v > 0.0 { "+Inf".into() } else { "-Inf".into() }
    } else {
        format!("{v}")
    }
}

/// `%g` (and `%v`): shortest digits, an exponent below 1e-4 and from 1e6 on.
pub(crate) fn go_g(v: f64) -> String {
    if !v.is_finite() {
        return go_f(v);
    }
    let scientific = format!("{v:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if v == 0.0 || (-4..6).contains(&exponent) {
        format!("{v}")
    } else {
        format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
    }
}

/// `%.2g`: two significant digits.
pub(crate) fn go_2g(v: f64) -> String {
    if !v.is_finite() || v == 0.0 {
        return go_g(v);
    }
    let scientific = format!("{v:.1e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits = digits.strip_suffix(".0").unwrap_or(digits);
    if (-4..2).contains(&exponent) {
        let rounded: f64 = scientific.parse().unwrap_or(v);
        format!("{rounded}")
    } else {
        format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
    }
}

/// `2006-01-02T15:04:05Z` of a timestamp in ms.
pub(crate) fn rfc3339(t_ms: i64) -> String {
    let seconds = t_ms / 1000;
    let date = super::math::Date::of(seconds);
    let in_day = seconds.rem_euclid(86_400);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year,
        date.month,
        date.day,
        in_day / 3600,
        in_day / 60 % 60,
        in_day % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_in_go() {
        for (v, g) in [
            (1.0, "1"),
            (1e21, "1e+21"),
            (1e20, "1e+20"),
            (1_234_567.5, "1.2345675e+06"),
            (100_000.0, "100000"),
            (1.5e-5, "1.5e-05"),
            (0.0001, "0.0001"),
        ] {
            assert_eq!(go_g(v), g);
        }
        assert_eq!(go_2g(0.123), "0.12");
        assert_eq!(go_2g(1234.0), "1.2e+03");
        assert_eq!(go_2g(1.0), "1");
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20Z");
    }
}
