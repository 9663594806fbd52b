//! Times and durations as users write them: on the command line, in parameters, in `/status/flags`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::DateTime;
use promontory_promql::parser::{format_duration, parse_duration};
use promontory_tsdb::TimestampMs;
use promontory_tsdb::labels::go_quote;

/// A span in Prometheus' notation, `1h30m`: units descending, each at most once, no sign, no fraction.
///
/// Source: <https://github.com/prometheus/common/blob/v0.66.1/model/time.go>
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PromDuration(i64);

impl PromDuration {
    /// A span of `ms` milliseconds; negative ones become zero.
    pub const fn from_ms(ms: i64) -> Self {
        Self(if ms < 0 { 0 } else { ms })
    }

    /// Milliseconds, never negative.
    pub const fn as_ms(self) -> i64 {
        self.0
    }
}

impl From<PromDuration> for Duration {
    fn from(d: PromDuration) -> Self {
        Self::from_millis(d.0.unsigned_abs())
    }
}

impl FromStr for PromDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_duration(text).map(Self)
    }
}

impl fmt::Display for PromDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_duration(self.0))
    }
}

/// Unix seconds (rounded to ms) or RFC 3339, as ms.
///
/// # Errors
/// `cannot parse "…" to a valid timestamp`.
pub fn parse_time_ms(text: &str) -> Result<TimestampMs, String> {
    if let Ok(seconds) = text.parse::<f64>()
        && seconds.is_finite()
    {
        return Ok((seconds.trunc() as i64)
            .saturating_mul(1000)
            .saturating_add((seconds.fract() * 1000.0).round() as i64));
    }
    DateTime::parse_from_rfc3339(text)
        .map(|t| t.timestamp_millis())
        .map_err(|_| format!("cannot parse {} to a valid timestamp", go_quote(text)))
}

/// RFC 3339 in UTC with ms, as logs and JSON show times.
pub fn format_time_ms(t: TimestampMs) -> String {
    DateTime::from_timestamp_millis(t)
        .map_or_else(|| t.to_string(), |d| d.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_as_upstream() {
        for (text, ms, printed) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("15d", 1_296_000_000, "15d"),
            ("14d", 1_209_600_000, "2w"),
            ("1h30m", 5_400_000, "1h30m"),
            ("90m", 5_400_000, "1h30m"),
            ("1y1w1d1h1m1s1ms", 32_230_861_001, "373d1h1m1s1ms"),
            ("250ms", 250, "250ms"),
            ("2m", 120_000, "2m"),
        ] {
            let d: PromDuration = text.parse().unwrap();
            assert_eq!((d.as_ms(), d.to_string().as_str()), (ms, printed), "{text}");
        }
    }

    #[test]
    fn durations_of_other_shapes_are_refused() {
        for text in ["", "5", "m", "-5m", "1.5h", "5m1h", "5m5m", "1x", "99999999999999999999s", "400y"] {
            text.parse::<PromDuration>().expect_err(text);
        }
    }
}
