//! `/metadata`: type, help and unit of metrics, as the targets' pages give them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use serde_json::{Value, json};

use super::ApiState;
use super::envelope::{Answer, ApiResult};
use super::params::Params;

/// Metric name → what its targets say of it, each thing once.
pub(crate) async fn metadata(State(state): State<Arc<ApiState>>, params: Params) -> ApiResult {
    let most = |n: Option<i64>| n.and_then(|n| usize::try_from(n).ok());
    let limit = most(params.number("limit")?).unwrap_or(usize::MAX);
    let per_metric = most(params.number("limit_per_metric")?).filter(|n| *n > 0).unwrap_or(usize::MAX);
    let metric = params.get("metric");
    let mut metrics = BTreeMap::<String, Vec<Value>>::new();
    for entry in state.scrapes.metadata() {
        if !metric.is_empty() && entry.metric != metric {
            continue;
        }
        let texts = json!({
            "type": entry.metadata.metric_type.as_str(),
            "help": entry.metadata.help,
            "unit": entry.metadata.unit,
        });
        let known = metrics.entry(entry.metric).or_default();
        if known.len() < per_metric && !known.contains(&texts) {
            known.push(texts);
        }
    }
    Ok(Answer::json(&metrics.into_iter().take(limit).collect::<BTreeMap<_, _>>()))
}
