//! Histograms as text.
//!
//! `Display` gives what Prometheus prints (`promtool tsdb dump`), [`FloatHistogram::test_expression`]
//! the notation of PromQL tests and rule unit tests.

use std::fmt;

use super::{CUSTOM_SCHEMA, CounterResetHint, FloatHistogram, Histogram, Span};

/// A number of observations: `u64` or `f64`.
pub trait Count: Copy {
    /// Whether there are none.
    fn is_zero(self) -> bool;
    /// Writes the number as Go's `%v`.
    ///
    /// # Errors
    /// Only those of `f`.
    fn put(self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

impl Count for u64 {
    fn is_zero(self) -> bool {
        self == 0
    }

    fn put(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Count for f64 {
    fn is_zero(self) -> bool {
        self == 0.0
    }

    fn put(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&go_g(self))
    }
}

/// Go's `%g` and `%v`: shortest digits, an exponent below 1e-4 and from 1e6.
pub(super) fn go_g(v: f64) -> String {
    if v.is_nan() {
        return "NaN".to_owned();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
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

impl fmt::Display for FloatHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{count:{}, sum:{}", go_g(self.count), go_g(self.sum))?;
        let zero = Some(self.zero_bucket());
        for bucket in self.iter_negative().rev().chain(zero).chain(self.iter_positive()) {
            if !bucket.count.is_zero() {
                write!(f, ", {bucket}")?;
            }
        }
        f.write_str("}")
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{count:{}, sum:{}", self.count, go_g(self.sum))?;
        let zero = Some(self.zero_bucket());
        for bucket in self.iter_negative().rev().chain(zero).chain(self.iter_positive()) {
            if !bucket.count.is_zero() {
                write!(f, ", {bucket}")?;
            }
        }
        f.write_str("}")
    }
}

impl FloatHistogram {
    /// The histogram in the notation of PromQL tests: `{{schema:1 count:3 sum:4 buckets:[1 2]}}`.
    ///
    /// Source: <https://prometheus.io/docs/prometheus/latest/configuration/unit_testing_rules/#series>
    pub fn test_expression(&self) -> String {
        let mut whole = self.clone();
        // The notation has one span a side.
        whole.compact(usize::MAX);
        let mut parts = Vec::new();
        let mut number = |name: &str, v: f64| {
            if v != 0.0 {
                parts.push(format!("{name}:{}", go_g(v)));
            }
        };
        number("schema", f64::from(whole.schema));
        number("count", whole.count);
        number("sum", whole.sum);
        number("z_bucket", whole.zero_count);
        number("z_bucket_w", whole.zero_threshold);
        if whole.schema == CUSTOM_SCHEMA {
            parts.push(format!("custom_values:{}", list(&whole.custom_values)));
        }
        match whole.counter_reset_hint {
            CounterResetHint::Unknown => {}
            CounterResetHint::Reset => parts.push("counter_reset_hint:reset".to_owned()),
            CounterResetHint::NotReset => parts.push("counter_reset_hint:not_reset".to_owned()),
            CounterResetHint::Gauge => parts.push("counter_reset_hint:gauge".to_owned()),
        }
        let mut side = |prefix: &str, spans: &[Span], counts: &[f64]| {
            if let Some(span) = spans.first().filter(|s| s.offset != 0) {
                parts.push(format!("{prefix}offset:{}", span.offset));
            }
            if !counts.is_empty() {
                parts.push(format!("{prefix}buckets:{}", list(counts)));
            }
        };
        side("", &whole.positive_spans, &whole.positive_buckets);
        side("n_", &whole.negative_spans, &whole.negative_buckets);
        format!("{{{{{}}}}}", parts.join(" "))
    }
}

/// `[1 2.5]`
fn list(values: &[f64]) -> String {
    format!("[{}]", values.iter().map(|v| go_g(*v)).collect::<Vec<_>>().join(" "))
}
