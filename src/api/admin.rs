//! `/admin/tsdb/*`: deletion, its clean-up, and snapshots, behind `--web.enable-admin-api`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use promontory_promql::parser::parse_metric_selector;
use promontory_tsdb::{Error, ErrorKind};
use rand::Rng as _;
use serde_json::json;

use super::ApiState;
use super::envelope::Answer;
use super::error::ApiError;
use super::params::{MAX_TIME_MS, MIN_TIME_MS, Params};

fn check_enabled(state: &ApiState) -> Result<(), ApiError> {
    match state.enable_admin_api {
        true => Ok(()),
        false => Err(ApiError::new(ErrorKind::Unavailable, "admin APIs disabled")),
    }
}

/// Deletes samples of the series that `match[]` selects, from `start` to `end`. 204 when done.
pub(crate) async fn delete_series(
    State(state): State<Arc<ApiState>>,
    params: Params,
) -> Result<Response, ApiError> {
    check_enabled(&state)?;
    if params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let start = params.time_or("start", MIN_TIME_MS)?;
    let end = params.time_or("end", MAX_TIME_MS)?;
    // Nothing is deleted if any selector is wrong.
    let mut sets = Vec::new();
    for text in params.all("match[]") {
        sets.push(parse_metric_selector(text).map_err(|e| ApiError::parameter("match[]", e))?);
    }
    let db = Arc::clone(&state.db);
    let series = state
        .blocking(move || {
            sets.iter().try_fold(0, |series, matchers| Ok(series + db.delete(matchers, start, end)?))
        })
        .await
        .map_err(|e| internal(e.message()))?;
    tracing::info!(series, "samples deleted by request");
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Gives the space of deleted samples back. 204 when done.
pub(crate) async fn clean_tombstones(State(state): State<Arc<ApiState>>) -> Result<Response, ApiError> {
    check_enabled(&state)?;
    let db = Arc::clone(&state.db);
    let made = state.blocking(move || db.clean_tombstones()).await.map_err(|e| internal(e.message()))?;
    tracing::info!(blocks = made.join(","), "blocks written anew without what is deleted");
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Makes a copy of the data below `snapshots/` in the data directory, and tells its name.
pub(crate) async fn snapshot(
    State(state): State<Arc<ApiState>>,
    params: Params,
) -> Result<Response, ApiError> {
    check_enabled(&state)?;
    let skip_head = match params.get("skip_head") {
        "" => false,
        text => parse_go_bool(text).ok_or_else(|| {
            let quoted = promontory_tsdb::labels::go_quote(text);
            let reason = format!("strconv.ParseBool: parsing {quoted}: invalid syntax");
            ApiError::parameter("skip_head", format!("unable to parse boolean: {reason}"))
        })?,
    };
    let now = chrono::DateTime::from_timestamp_millis(state.clock.now_ms()).unwrap_or_default();
    let salt = rand::rng().random::<u64>() >> 1;
    let name = format!("{}-{salt:016x}", now.format("%Y%m%dT%H%M%SZ"));
    let db = Arc::clone(&state.db);
    let dir = db.options().path.join("snapshots").join(&name);
    let made = state.blocking(move || {
        let parent = dir.parent().unwrap_or(&dir);
        std::fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        db.snapshot(&dir, !skip_head)
    });
    made.await.map_err(|e| internal(&format!("create snapshot: {}", e.message())))?;
    Ok(Answer::json(&json!({"name": name})).into_response())
}

/// Compat: upstream answers 500 whatever went wrong.
fn internal(message: &str) -> ApiError {
    ApiError::new(ErrorKind::Internal, message)
}

/// Go's `strconv.ParseBool`.
fn parse_go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}
