//! `/query_exemplars`: always an empty list, because exemplars are not stored yet. Grafana asks for them
//! beside every range query and wants an answer of the right shape.

use std::sync::Arc;

use axum::extract::State;

use super::ApiState;
use super::envelope::{Answer, ApiResult};
use super::error::ApiError;
use super::params::{MAX_TIME_MS, MIN_TIME_MS, Params};

pub(crate) async fn query_exemplars(State(state): State<Arc<ApiState>>, params: Params) -> ApiResult {
    let start = params.time_or("start", MIN_TIME_MS)?;
    let end = params.time_or("end", MAX_TIME_MS)?;
    if end < start {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    promontory_promql::parser::parse(params.get("query"), &state.engine.options().parser)
        .map_err(|e| ApiError::bad_data(e.to_string()))?;
    Ok(Answer::json(&serde_json::json!([])))
}
