//! [`Answer`]: a successful reply in Prometheus' envelope,
//! `{"status":"success","data":…,"warnings":[…],"infos":[…]}`, empty fields left out.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

use super::error::ApiError;
use super::json;

/// What every endpoint of the API returns.
pub(crate) type ApiResult = Result<Answer, ApiError>;

/// Opens the envelope; [`put_tail`] closes it.
pub(crate) const HEAD: &[u8] = b"{\"status\":\"success\",\"data\":";

/// Text that upstream adds when `limit` cut an answer short.
pub(crate) const TRUNCATED: &str = "results truncated due to limit";

/// A body ready to send, or the first piece of one that is still being written.
#[derive(Debug)]
pub(crate) struct Answer(Body);

impl Answer {
    /// `data` in one piece, for answers that are small by nature.
    pub(crate) fn json(data: &impl serde::Serialize) -> Self {
        Self::with_warnings(data, &[])
    }

    /// As [`Answer::json`], with warnings.
    pub(crate) fn with_warnings(data: &impl serde::Serialize, warnings: &[String]) -> Self {
        let mut body = HEAD.to_vec();
        json::put_value(&mut body, data);
        put_tail(&mut body, warnings, &[]);
        Self(Body::from(body))
    }

    /// A body that is ready.
    pub(crate) fn whole(body: Bytes) -> Self {
        Self(Body::from(body))
    }

    /// A body that is made while it is sent. An error breaks the connection off.
    pub(crate) fn stream<E>(parts: impl Stream<Item = Result<Bytes, E>> + Send + 'static) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        Self(Body::from_stream(parts))
    }

    /// A body that is written piece by piece as the client takes it. A body of one piece is sent with
    /// its length.
    pub(crate) fn pieces(mut pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Self {
        let first = pieces.next().unwrap_or_default();
        match pieces.next() {
            None => Self(Body::from(first)),
            Some(second) => {
                let all = [first, second].into_iter().chain(pieces);
                Self(Body::from_stream(stream::iter(all).map(Ok::<_, Infallible>)))
            }
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        (StatusCode::OK, [(CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

/// Closes the envelope: warnings, infos, brace.
///
/// Compat: upstream sends at most ten of each and says how many it left out.
pub(crate) fn put_tail(out: &mut Vec<u8>, warnings: &[String], infos: &[String]) {
    put_annotations(out, "warnings", "warning", warnings);
    put_annotations(out, "infos", "info", infos);
    out.push(b'}');
}

fn put_annotations(out: &mut Vec<u8>, field: &str, noun: &str, texts: &[String]) {
    const MOST: usize = 10;
    if texts.is_empty() {
        return;
    }
    out.extend_from_slice(format!(",\"{field}\":[").as_bytes());
    for (i, text) in texts.iter().take(MOST).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        json::put_string(out, text);
    }
    if texts.len() > MOST {
        out.push(b',');
        json::put_string(out, &format!("{} more {noun} annotations omitted", texts.len() - MOST));
    }
    out.push(b']');
}
