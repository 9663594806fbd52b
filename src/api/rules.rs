//! `/rules`, `/alerts`, `/alertmanagers`: empty, because rules are not evaluated yet. Grafana asks for
//! them and wants an answer of the right shape.

use serde_json::json;

use super::envelope::{Answer, ApiResult};
use super::error::ApiError;
use super::params::Params;

pub(crate) async fn rules(params: Params) -> ApiResult {
    match params.get("type").to_lowercase().as_str() {
        "" | "alert" | "record" => Ok(Answer::json(&json!({"groups": []}))),
        other => Err(ApiError::parameter("type", format!("not supported value \"{other}\""))),
    }
}

pub(crate) async fn alerts() -> ApiResult {
    Ok(Answer::json(&json!({"alerts": []})))
}

pub(crate) async fn alertmanagers() -> ApiResult {
    Ok(Answer::json(&json!({"activeAlertmanagers": [], "droppedAlertmanagers": []})))
}
