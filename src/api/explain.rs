//! `/query_explain`: how a query is carried out.
//!
//! Takes the parameters of `/query`, or of `/query_range` when `step` is among them. Answers with the
//! logical plan (what leaves read, and what was pushed down into them) and the physical one (operators and
//! partitions). With `analyze=true` the query runs, and each operator comes with rows, time and memory.
//! Not part of Prometheus' API; the texts are for people and may change.

use std::sync::Arc;

use axum::extract::State;
use promontory_promql::value::{QueryResult, QueryValue};
use promontory_promql::{Explained, QueryParams};
use serde_json::json;

use super::ApiState;
use super::envelope::{Answer, ApiResult};
use super::params::Params;
use super::query::{in_turn, lookback, range_params};

/// The plans of an expression.
pub(crate) async fn explain(State(state): State<Arc<ApiState>>, params: Params) -> ApiResult {
    let grid = if params.get("step").is_empty() {
        QueryParams::instant(params.time_or("time", state.clock.now_ms())?)
    } else {
        range_params(&params)?
    };
    let query = QueryParams { lookback: lookback(&params)?, ..grid };
    let timeout = params.timeout()?;
    let analyze = params.get("analyze") == "true";
    let expr = params.get("query").to_owned();
    let (engine, source) = (Arc::clone(&state.engine), Arc::clone(&state.storage));
    let text = expr.clone();
    let ((plans, result), queued) = in_turn(&state, &expr, timeout, move |cancel| async move {
        if analyze {
            let (plans, result) = engine.analyze(source, &text, query, cancel).await?;
            return Ok((plans, Some(result)));
        }
        Ok((engine.explain(source, &text, query)?, None))
    })
    .await?;
    let Explained { logical, physical, peak_bytes } = plans;
    let mut data = json!({"logicalPlan": logical, "physicalPlan": physical});
    if let Some(result) = result {
        data["queued"] = json!(queued.as_secs_f64());
        data["result"] = size(&result);
        data["peakBytes"] = json!(peak_bytes);
        return Ok(Answer::with_warnings(&data, &result.warnings));
    }
    Ok(Answer::json(&data))
}

/// How large a result is.
fn size(result: &QueryResult) -> serde_json::Value {
    let (series, points) = match &result.value {
        QueryValue::Scalar(..) | QueryValue::String(..) => (0, 1),
        QueryValue::Vector(samples) => (samples.len(), samples.len()),
        QueryValue::Matrix(all) => {
            (all.len(), all.iter().map(|series| series.floats.len() + series.histograms.len()).sum())
        }
    };
    json!({"series": series, "points": points})
}
