//! `POST /sql`: a SQL query over HTTP, its rows as JSON, CSV or an Arrow IPC stream.
//!
//! The query is the body (`text/plain`, `application/sql`), the form field `query`, or the JSON field `query`
//! beside `params`, an array of values for `$1`, `$2`, …: they are bound, never pasted. `Accept` chooses:
//!
//! | `Accept` | answer |
//! |---|---|
//! | `application/json`, `*/*` | `{"status":"success","data":{"columns":[{"name":…,"type":…},…],"rows":[[…],…]}}` |
//! | `text/csv` | a header, then rows as `COPY … TO STDOUT CSV` writes them |
//! | `application/vnd.apache.arrow.stream` | record batches |
//!
//! In JSON, doubles that are not finite are the strings `NaN`, `Infinity` and `-Infinity`, times are RFC 3339.
//! Rows are sent as they are computed; an error among them breaks the connection off. Where the
//! configuration names SQL users, they say who they are by basic authentication, over whatever protects
//! this port.

use std::io;
use std::sync::Arc;

use arrow::datatypes::DataType;
use arrow_ipc::writer::StreamWriter;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest as _, Request, State};
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use datafusion::common::ScalarValue;
use futures::{Stream, StreamExt, stream};
use promontory_sql::{Access, QueryError, Rows};
use promontory_tsdb::ErrorKind;
use serde::Deserialize;

use super::ApiState;
use super::error::ApiError;
use super::params::Params;
use super::sql_json::JsonRows;
use crate::sql_login::Login;

/// More than any query that a person or a tool writes.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

const JSON: &str = "application/json";
const CSV: &str = "text/csv";
const ARROW: &str = "application/vnd.apache.arrow.stream";

#[derive(Debug, Deserialize)]
struct Asked {
    query: String,
    #[serde(default)]
    params: Vec<serde_json::Value>,
}

/// Runs a query.
pub(crate) async fn sql(State(state): State<Arc<ApiState>>, request: Request) -> Result<Response, Response> {
    let (access, user) = who(&state, request.headers()).await?;
    let form = form(request.headers()).map_err(|error| with_status(StatusCode::NOT_ACCEPTABLE, error))?;
    let asked = read(request).await.map_err(IntoResponse::into_response)?;
    let params = asked.params.iter().map(parameter).collect::<Vec<_>>();
    let rows = state.sql.run(&asked.query, &params, access, &user).await.map_err(|error| failure(&error))?;
    let body = match form {
        JSON => Body::from_stream(broken_off(json(rows).map_err(|error| failure(&error))?)),
        CSV => Body::from_stream(broken_off(rows.into_csv().map_err(|error| failure(&error))?)),
        _ => Body::from_stream(broken_off(arrow_stream(rows).map_err(|error| failure(&error))?)),
    };
    Ok((StatusCode::OK, [(CONTENT_TYPE, form)], body).into_response())
}

/// What the asker may read, and their name.
async fn who(state: &Arc<ApiState>, headers: &HeaderMap) -> Result<(Access, String), Response> {
    if state.sql.is_open() {
        return Ok((Access::default(), String::new()));
    }
    let unknown = || {
        let error = ApiError::bad_data("SQL needs a user and a password");
        let mut response = with_status(StatusCode::UNAUTHORIZED, error);
        let ask = axum::http::HeaderValue::from_static("Basic realm=\"promontory\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, ask);
        response
    };
    let login = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(Login::from_basic)
        .ok_or_else(unknown)?;
    login.check(&state.sql, &state.query_runtime).await.ok_or_else(unknown)
}

/// The first form that is accepted, in the order of the header; weights are not looked at.
fn form(headers: &HeaderMap) -> Result<&'static str, ApiError> {
    let Some(accept) = headers.get(ACCEPT).and_then(|value| value.to_str().ok()) else { return Ok(JSON) };
    let named = |part: &str| match part.split(';').next().unwrap_or_default().trim() {
        "*/*" | "application/*" | JSON => Some(JSON),
        CSV | "text/*" => Some(CSV),
        ARROW => Some(ARROW),
        _ => None,
    };
    accept.split(',').find_map(named).ok_or_else(|| {
        ApiError::bad_data(format!("rows come as {JSON}, {CSV} or {ARROW}, not as {accept:?}"))
    })
}

async fn read(request: Request) -> Result<Asked, ApiError> {
    let (parts, body) = request.into_parts();
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let body = to_bytes(body, MAX_BODY_BYTES)
        .await
        .map_err(|error| ApiError::bad_data(format!("cannot read the query: {error}")))?;
    match kind.as_str() {
        JSON => serde_json::from_slice(&body)
            .map_err(|error| ApiError::bad_data(format!("cannot read the JSON body: {error}"))),
        "application/x-www-form-urlencoded" => {
            let params = Params::from_request(Request::from_parts(parts, Body::from(body)), &()).await?;
            match params.get("query") {
                "" => Err(ApiError::bad_data("the form has no field \"query\"")),
                query => Ok(Asked { query: query.to_owned(), params: Vec::new() }),
            }
        }
        _ => String::from_utf8(body.to_vec())
            .map(|query| Asked { query, params: Vec::new() })
            .map_err(|_| ApiError::bad_data("the query is not UTF-8")),
    }
}

/// The value of a parameter; what is no plain value is bound as JSON text.
fn parameter(value: &serde_json::Value) -> ScalarValue {
    match value {
        serde_json::Value::Null => ScalarValue::Null,
        serde_json::Value::Bool(value) => ScalarValue::Boolean(Some(*value)),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => ScalarValue::Int64(Some(number)),
            None => ScalarValue::Float64(number.as_f64()),
        },
        serde_json::Value::String(text) => ScalarValue::Utf8(Some(text.clone())),
        other => ScalarValue::Utf8(Some(other.to_string())),
    }
}

/// The answer to a query that failed before its first row.
fn failure(error: &QueryError) -> Response {
    let kind = match error.sqlstate.as_str() {
        "57014" => ErrorKind::Timeout,
        "57P01" | "57P03" | "53300" => ErrorKind::Unavailable,
        "53200" => ErrorKind::Limit,
        "XX001" => ErrorKind::Data,
        code if code.starts_with("XX") => ErrorKind::Internal,
        _ => ErrorKind::Invalid,
    };
    let said = ApiError::new(kind, format!("{} (SQLSTATE {})", error.message, error.sqlstate));
    match error.sqlstate.as_str() {
        "42501" => with_status(StatusCode::FORBIDDEN, said),
        _ => said.into_response(),
    }
}

/// `error` under a status that Prometheus' API does not use.
fn with_status(status: StatusCode, error: ApiError) -> Response {
    let mut response = error.into_response();
    *response.status_mut() = status;
    response
}

/// An error among rows: the status is long sent, so the connection breaks off, and the log says why.
fn broken_off(
    pieces: impl Stream<Item = Result<Bytes, QueryError>> + Send + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    pieces.map(|piece| {
        piece.map_err(|error| {
            tracing::warn!(%error, sqlstate = error.sqlstate, "a SQL query over HTTP failed among its rows");
            io::Error::other(error)
        })
    })
}

fn json(rows: Rows) -> Result<impl Stream<Item = Result<Bytes, QueryError>> + Send, QueryError> {
    let columns: Vec<_> = rows
        .schema
        .fields()
        .iter()
        .map(|field| serde_json::json!({"name": field.name(), "type": type_name(field.data_type())}))
        .collect();
    let columns = serde_json::Value::from(columns);
    let head = Bytes::from(format!("{{\"status\":\"success\",\"data\":{{\"columns\":{columns},\"rows\":["));
    let mut writer = JsonRows::new();
    let batches = rows.batches.map(move |batch| {
        let batch = batch.map_err(|error| QueryError::from(&error))?;
        writer.write(&batch).map_err(|error| QueryError::from(&error.into()))
    });
    let ends = |piece| stream::iter([Ok::<_, QueryError>(piece)]);
    Ok(ends(head).chain(batches).chain(ends(Bytes::from_static(b"]}}"))))
}

/// What Postgres calls a type; Arrow's name where Postgres has none.
fn type_name(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Boolean => "boolean",
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint",
        DataType::Int32 | DataType::UInt16 => "integer",
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => "bigint",
        DataType::Float32 => "real",
        DataType::Float64 => "double precision",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text",
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone",
        DataType::Timestamp(_, None) => "timestamp without time zone",
        DataType::Interval(_) | DataType::Duration(_) => "interval",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Dictionary(_, value) => return type_name(value),
        DataType::List(item) | DataType::LargeList(item) => {
            return format!("{}[]", type_name(item.data_type()));
        }
        other => return other.to_string(),
    };
    name.to_owned()
}

fn arrow_stream(rows: Rows) -> Result<impl Stream<Item = Result<Bytes, QueryError>> + Send, QueryError> {
    let failed = |error: arrow::error::ArrowError| QueryError::from(&error.into());
    let writer = StreamWriter::try_new(Vec::new(), &rows.schema).map_err(failed)?;
    let pieces = stream::unfold(Some((writer, rows.batches)), move |state| async move {
        let (mut writer, mut batches) = state?;
        let written = match batches.next().await {
            Some(Ok(batch)) => writer.write(&batch).map(|()| true),
            Some(Err(error)) => return Some((Err(QueryError::from(&error)), None)),
            None => writer.finish().map(|()| false),
        };
        Some(match written {
            Ok(more) => {
                let piece = Bytes::from(std::mem::take(writer.get_mut()));
                (Ok(piece), more.then_some((writer, batches)))
            }
            Err(error) => (Err(failed(error)), None),
        })
    });
    Ok(pieces)
}
