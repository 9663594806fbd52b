//! [`Params`]: request parameters as Prometheus reads them.
//!
//! A form body counts before the query string; both may be given. Times are unix seconds or RFC 3339,
//! durations are seconds or `5m` style.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/web/api/v1/api.go>

use std::time::Duration;

use axum::extract::{Form, FromRequest, Query, Request};
use axum::http::Method;
use promontory_promql::parser::parse_metric_selector;
use promontory_tsdb::{Matcher, TimestampMs};

use super::error::ApiError;
use crate::units::{self, PromDuration};

/// Upstream's "no lower bound", which it also prints and accepts back as text.
pub(crate) const MIN_TIME_MS: TimestampMs = (i64::MIN / 1000 + 62_135_596_801) * 1000;
/// Upstream's "no upper bound".
pub(crate) const MAX_TIME_MS: TimestampMs = (i64::MAX / 1000 - 62_135_596_801) * 1000 + 999;

const MIN_TIME_TEXT: &str = "-292273086-05-16T16:47:06Z";
const MAX_TIME_TEXT: &str = "292277025-08-18T07:12:54.999999999Z";

/// Parameters of one request, in order.
#[derive(Debug, Default, Clone)]
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let Query(mut in_url) = Query::<Vec<(String, String)>>::try_from_uri(request.uri())
            .map_err(|e| ApiError::bad_data(format!("error parsing form values: {e}")))?;
        let has_form = matches!(*request.method(), Method::POST | Method::PUT)
            && request
                .headers()
                .get(axum::http::header::CONTENT_TYPE)
                .and_then(|v| v.to_str().ok())
                .is_some_and(|v| v.starts_with("application/x-www-form-urlencoded"));
        if !has_form {
            return Ok(Self(in_url));
        }
        let Form(mut all) = Form::<Vec<(String, String)>>::from_request(request, state)
            .await
            .map_err(|e| ApiError::bad_data(format!("error parsing form values: {e}")))?;
        all.append(&mut in_url);
        Ok(Self(all))
    }
}

impl Params {
    /// First value of `name`, empty if there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    /// All values of `name`.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A time that must be there.
    pub(crate) fn time(&self, name: &str) -> Result<TimestampMs, ApiError> {
        parse_time_ms(self.get(name)).map_err(|e| ApiError::parameter(name, e))
    }

    /// A time, `default` when it is missing.
    pub(crate) fn time_or(&self, name: &str, default: TimestampMs) -> Result<TimestampMs, ApiError> {
        match self.get(name) {
            "" => Ok(default),
            text => parse_time_ms(text)
                .map_err(|e| ApiError::parameter(name, format!("invalid time value for '{name}': {e}"))),
        }
    }

    /// A duration in ms that must be there.
    pub(crate) fn duration_ms(&self, name: &str) -> Result<i64, ApiError> {
        self.raw_duration_ms(name).map_err(|e| ApiError::parameter(name, e))
    }

    /// As [`Params::duration_ms`], with the bare reason.
    pub(crate) fn raw_duration_ms(&self, name: &str) -> Result<i64, String> {
        parse_api_duration_ms(self.get(name))
    }

    /// `timeout`, if given.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>, ApiError> {
        if self.get("timeout").is_empty() {
            return Ok(None);
        }
        let ms = self.duration_ms("timeout")?;
        Ok(Some(Duration::from_millis(u64::try_from(ms).unwrap_or(0))))
    }

    /// `limit`; 0 is no limit.
    pub(crate) fn limit(&self) -> Result<usize, ApiError> {
        let text = self.get("limit");
        if text.is_empty() {
            return Ok(0);
        }
        let limit = parse_go_int(text).map_err(|e| ApiError::parameter("limit", e))?;
        usize::try_from(limit).map_err(|_| ApiError::parameter("limit", "limit must be non-negative"))
    }

    /// A number that upstream reads with `strconv.Atoi` and whose errors it words itself.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.get(name) {
            "" => Ok(None),
            text => match parse_go_int(text) {
                Ok(n) => Ok(Some(n)),
                Err(_) => Err(ApiError::bad_data(format!("{name} must be a number"))),
            },
        }
    }

    /// The sets of matchers in `match[]`; a series is wanted if any set matches.
    pub(crate) fn matcher_sets(&self) -> Result<Vec<Vec<Matcher>>, String> {
        let mut sets = Vec::new();
        for text in self.all("match[]") {
            sets.push(parse_metric_selector(text).map_err(|e| e.to_string())?);
        }
        if sets.iter().any(|set| set.iter().all(Matcher::matches_empty)) {
            return Err("match[] must contain at least one non-empty matcher".to_owned());
        }
        Ok(sets)
    }
}

/// As [`units::parse_time_ms`], and upstream's own boundary texts.
fn parse_time_ms(text: &str) -> Result<TimestampMs, String> {
    match text {
        MIN_TIME_TEXT => Ok(MIN_TIME_MS),
        MAX_TIME_TEXT => Ok(MAX_TIME_MS),
        _ => units::parse_time_ms(text),
    }
}

/// Seconds or `5m` style, in ms.
fn parse_api_duration_ms(text: &str) -> Result<i64, String> {
    let quoted = || promontory_tsdb::labels::go_quote(text);
    if let Ok(seconds) = text.parse::<f64>() {
        // Upstream counts ns in 64 bits, so that is where it overflows.
        if seconds.is_nan() || seconds.abs() * 1e9 > i64::MAX as f64 {
            return Err(format!("cannot parse {} to a valid duration. It overflows int64", quoted()));
        }
        // Compat: cut off to ns first, then to ms, so that `1.025` is 1,024 ms.
        return Ok((seconds * 1e9) as i64 / 1_000_000);
    }
    text.parse::<PromDuration>()
        .map(PromDuration::as_ms)
        .map_err(|_| format!("cannot parse {} to a valid duration", quoted()))
}

/// `strconv.Atoi`, with its texts.
fn parse_go_int(text: &str) -> Result<i64, String> {
    text.parse::<i64>().map_err(|e| {
        let reason = match e.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.Atoi: parsing {}: {reason}", promontory_tsdb::labels::go_quote(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn times_are_seconds_or_rfc3339_or_the_bounds() {
        for (text, want) in [
            ("1435781451.781", Ok(1_435_781_451_781)),
            ("1435781451.7814", Ok(1_435_781_451_781)),
            ("-1.5", Ok(-1_500)),
            ("1e3", Ok(1_000_000)),
            ("2015-07-01T20:10:51.781Z", Ok(1_435_781_451_781)),
            ("2015-07-01T22:10:51.781+02:00", Ok(1_435_781_451_781)),
            (MIN_TIME_TEXT, Ok(MIN_TIME_MS)),
            (MAX_TIME_TEXT, Ok(MAX_TIME_MS)),
            ("", Err("cannot parse \"\" to a valid timestamp".to_owned())),
            ("x", Err("cannot parse \"x\" to a valid timestamp".to_owned())),
            ("2015-07-01", Err("cannot parse \"2015-07-01\" to a valid timestamp".to_owned())),
        ] {
            assert_eq!(parse_time_ms(text), want, "{text}");
        }
    }

    #[test]
    fn a_bad_time_names_its_parameter() {
        let e = params(&[("start", "x")]).time("start").unwrap_err();
        assert_eq!(
            e.to_string(),
            r#"bad_data: invalid parameter "start": cannot parse "x" to a valid timestamp"#
        );
        let e = params(&[("start", "x")]).time_or("start", 0).unwrap_err();
        assert_eq!(
            e.to_string(),
            r#"bad_data: invalid parameter "start": invalid time value for 'start': cannot parse "x" to a valid timestamp"#
        );
    }

    #[test]
    fn durations_are_seconds_or_promql_style() {
        for (text, want) in [
            ("15", Ok(15_000)),
            ("0.5", Ok(500)),
            ("1.025", Ok(1_024)),
            ("-1.025", Ok(-1_024)),
            ("0.0009", Ok(0)),
            ("1h30m", Ok(5_400_000)),
            ("-1", Ok(-1_000)),
            ("", Err("cannot parse \"\" to a valid duration".to_owned())),
            ("5x", Err("cannot parse \"5x\" to a valid duration".to_owned())),
            ("1e30", Err("cannot parse \"1e30\" to a valid duration. It overflows int64".to_owned())),
        ] {
            assert_eq!(parse_api_duration_ms(text), want, "{text}");
        }
    }

    #[test]
    fn a_limit_is_a_number_from_zero() {
        assert_eq!(params(&[]).limit().unwrap(), 0);
        assert_eq!(params(&[("limit", "7")]).limit().unwrap(), 7);
        for (text, want) in [
            ("-1", r#"bad_data: invalid parameter "limit": limit must be non-negative"#),
            ("x", r#"bad_data: invalid parameter "limit": strconv.Atoi: parsing "x": invalid syntax"#),
        ] {
            assert_eq!(params(&[("limit", text)]).limit().unwrap_err().to_string(), want);
        }
    }
}
