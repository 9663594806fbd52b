//! `/metadata` and `/targets/metadata`: type, help and unit of metrics, as the targets' pages give them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use promontory_promql::parser::parse_metric_selector;
use promontory_tsdb::{Labels, Matcher};
use serde_json::{Map, Value, json};

use super::ApiState;
use super::envelope::{Answer, ApiResult};
use super::error::ApiError;
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

/// What each target says of its metrics, or of one.
pub(crate) async fn targets(State(state): State<Arc<ApiState>>, params: Params) -> ApiResult {
    let limit = params.number("limit")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let matchers = match params.get("match_target") {
        "" => Vec::new(),
        text => parse_metric_selector(text).map_err(|e| ApiError::parameter("match_target", e))?,
    };
    let metric = params.get("metric");
    let mut found: Vec<Value> = Vec::new();
    let mut last: Option<Labels> = None;
    for entry in state.scrapes.metadata() {
        // Compat: the limit ends the list between targets.
        if last.as_ref() != Some(&entry.target) && found.len() >= limit {
            break;
        }
        let is_wanted = Matcher::all_match(&matchers, &entry.target);
        if is_wanted && (metric.is_empty() || metric == entry.metric) {
            let mut shown = Map::new();
            let target: Map<String, Value> =
                entry.target.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
            shown.insert("target".to_owned(), target.into());
            if metric.is_empty() {
                shown.insert("metric".to_owned(), entry.metric.into());
            }
            shown.insert("type".to_owned(), entry.metadata.metric_type.as_str().into());
            shown.insert("help".to_owned(), entry.metadata.help.into());
            shown.insert("unit".to_owned(), entry.metadata.unit.into());
            found.push(shown.into());
        }
        last = Some(entry.target);
    }
    Ok(Answer::json(&found))
}
