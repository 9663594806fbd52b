//! [`ApiError`] and the one table from error kinds to HTTP status and Prometheus' `errorType`.
//!
//! # Source
//! <https://prometheus.io/docs/prometheus/latest/querying/api/#format-overview>,
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/web/api/v1/api.go>

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use promontory_promql::QueryError;
use promontory_tsdb::ErrorKind;

use super::json;

/// A request that failed: what the client reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error_type}: {message}", error_type = self.error_type())]
pub struct ApiError {
    kind: ErrorKind,
    message: String,
}

/// HTTP status and `errorType` of an error kind.
///
/// | kind | status | `errorType` |
/// |---|---|---|
/// | Invalid | 400 | `bad_data` |
/// | Unsupported, Execution, Limit | 422 | `execution` |
/// | NotFound | 404 | `not_found` |
/// | Timeout | 503 | `timeout` |
/// | Cancelled | 499 | `canceled` |
/// | Unavailable | 503 | `unavailable` |
/// | Data, Internal | 500 | `internal` |
///
/// Compat: upstream answers 500 for `unavailable`, because its table lacks the row; clients retry on
/// 503 and read 500 as a fault, so here it is 503.
pub fn status_and_type(kind: ErrorKind) -> (StatusCode, &'static str) {
    match kind {
        ErrorKind::Invalid => (StatusCode::BAD_REQUEST, "bad_data"),
        ErrorKind::Unsupported | ErrorKind::Execution | ErrorKind::Limit => {
            (StatusCode::UNPROCESSABLE_ENTITY, "execution")
        }
        ErrorKind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
        ErrorKind::Timeout => (StatusCode::SERVICE_UNAVAILABLE, "timeout"),
        ErrorKind::Cancelled => (client_closed_request(), "canceled"),
        ErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        // `ErrorKind` may grow; what this table does not know is ours to explain.
        ErrorKind::Data | ErrorKind::Internal | _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    }
}

/// nginx's status for "the client went away", which upstream uses too.
fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).expect("499 is a three-digit status")
}

impl ApiError {
    /// An error of `kind` with the text that the client reads.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// 400 `bad_data`.
    pub fn bad_data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// `invalid parameter "start": …`.
    pub fn parameter(name: &str, reason: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter \"{name}\": {reason}"))
    }

    /// A query error. What is wrong with the text is about the parameter `query`, as upstream says; times and
    /// steps were looked at before there was a query.
    pub fn query(e: &QueryError) -> Self {
        match e {
            QueryError::Parse(_) | QueryError::Invalid(_) => Self::parameter("query", e),
            other => Self::new(other.kind(), with_causes(other)),
        }
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The text that the client reads.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        status_and_type(self.kind).0
    }

    /// Prometheus' `errorType`.
    pub fn error_type(&self) -> &'static str {
        status_and_type(self.kind).1
    }
}

impl From<promontory_tsdb::Error> for ApiError {
    fn from(e: promontory_tsdb::Error) -> Self {
        Self::new(e.kind(), with_causes(&e))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, error_type) = status_and_type(self.kind);
        let mut body = Vec::with_capacity(64 + self.message.len());
        body.extend_from_slice(b"{\"status\":\"error\",\"errorType\":\"");
        body.extend_from_slice(error_type.as_bytes());
        body.extend_from_slice(b"\",\"error\":");
        json::put_string(&mut body, &self.message);
        body.push(b'}');
        (status, [(CONTENT_TYPE, "application/json")], body).into_response()
    }
}

/// The text of an error and of what caused it, `: ` between them.
pub(crate) fn with_causes(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        let more = c.to_string();
        // A transparent error repeats its source's text.
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = c.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_status_and_type() {
        for (kind, status, error_type) in [
            (ErrorKind::Invalid, 400, "bad_data"),
            (ErrorKind::Unsupported, 422, "execution"),
            (ErrorKind::Execution, 422, "execution"),
            (ErrorKind::Limit, 422, "execution"),
            (ErrorKind::NotFound, 404, "not_found"),
            (ErrorKind::Timeout, 503, "timeout"),
            (ErrorKind::Cancelled, 499, "canceled"),
            (ErrorKind::Unavailable, 503, "unavailable"),
            (ErrorKind::Data, 500, "internal"),
            (ErrorKind::Internal, 500, "internal"),
        ] {
            let (got_status, got_type) = status_and_type(kind);
            assert_eq!((got_status.as_u16(), got_type), (status, error_type), "{kind:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_query_names_the_parameter() {
        let e = QueryError::Invalid("1:2: duration must be greater than 0".to_owned());
        let want = "bad_data: invalid parameter \"query\": 1:2: duration must be greater than 0";
        assert_eq!(ApiError::query(&e).to_string(), want);
        let e = QueryError::Execution("no".to_owned());
        assert_eq!(ApiError::query(&e).to_string(), "execution: no");
    }

    #[test]
    fn texts_carry_their_causes_once() {
        let io = std::io::Error::other("disk on fire");
        let e = promontory_tsdb::Error::io("open", "/data/wal")(io);
        assert_eq!(ApiError::from(e).to_string(), "internal: open /data/wal: disk on fire");
        let e = promontory_tsdb::Error::Append(promontory_tsdb::AppendError::OutOfOrder);
        assert_eq!(ApiError::from(e).to_string(), "bad_data: out of order sample");
    }
}
