//! `/status/*`: what runs here, and how it was configured.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use promontory_tsdb::meta::Meta;
use promontory_tsdb::{Queryable as _, Retention};
use serde_json::{Value, json};

use super::ApiState;
use super::envelope::{Answer, ApiResult};
use super::error::ApiError;
use super::params::Params;
use crate::config::format_bytes;
use crate::units::{PromDuration, format_time_ms};

/// The API that we speak, with our own version behind the `+`: clients such as Grafana choose what they
/// ask for by the version of Prometheus that they believe to be talking to.
const API_VERSION: &str = concat!("3.14.0+promontory.", env!("CARGO_PKG_VERSION"));

pub(crate) async fn config(State(state): State<Arc<ApiState>>) -> ApiResult {
    Ok(Answer::json(&json!({"yaml": state.config.yaml()})))
}

pub(crate) async fn flags(State(state): State<Arc<ApiState>>) -> ApiResult {
    Ok(Answer::json(&state.flags))
}

pub(crate) async fn buildinfo() -> ApiResult {
    Ok(Answer::json(&json!({
        "version": API_VERSION,
        "revision": "",
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    })))
}

/// Upstream's fields; those about the Go runtime carry the nearest thing we have.
pub(crate) async fn runtimeinfo(State(state): State<Arc<ApiState>>) -> ApiResult {
    let directory = std::env::current_dir().map(|d| d.display().to_string()).unwrap_or_default();
    let hostname = hostname::get().map(|h| h.to_string_lossy().into_owned()).unwrap_or_default();
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    Ok(Answer::json(&json!({
        "startTime": format_time_ms(state.started_ms),
        "CWD": directory,
        "hostname": hostname,
        "serverTime": format_time_ms(state.clock.now_ms()),
        "reloadConfigSuccess": state.config.last_reload_ok(),
        "lastConfigTime": format_time_ms(state.config.last_success_ms()),
        "corruptionCount": state.db.metrics().wal_corruptions,
        "goroutineCount": tasks + state.queries.running.load(Ordering::Relaxed),
        "GOMAXPROCS": std::thread::available_parallelism().map_or(1, |n| n.get()),
        "GOMEMLIMIT": i64::MAX,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": shown_retention(state.db.retention()),
    })))
}

/// Which log segments were replayed at the start; while they are, no request gets here.
pub(crate) async fn wal_replay(State(state): State<Arc<ApiState>>) -> ApiResult {
    let (min, max) = state.replayed_segments;
    Ok(Answer::json(&json!({"min": min, "max": max, "current": max})))
}

/// Where the head's cardinality comes from.
pub(crate) async fn tsdb(State(state): State<Arc<ApiState>>, params: Params) -> ApiResult {
    const MOST: i64 = 10_000;
    let limit = match params.number("limit") {
        Ok(None) => 10,
        Ok(Some(n)) if n >= 1 => n,
        _ => return Err(ApiError::bad_data("limit must be a positive number")),
    };
    if limit > MOST {
        return Err(ApiError::bad_data(format!("limit must not exceed {MOST}")));
    }
    let db = Arc::clone(&state.db);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (stats, top) = state.blocking(move || Ok((db.head_stats(), db.cardinality(limit)))).await?;
    Ok(Answer::json(&json!({
        "headStats": {
            "numSeries": stats.series,
            "numLabelPairs": top.label_pairs,
            "chunkCount": stats.chunks,
            // Compat: an empty head shows the two extremes.
            "minTime": stats.min_time.unwrap_or(i64::MAX),
            "maxTime": stats.max_time.unwrap_or(i64::MIN),
        },
        "seriesCountByMetricName": named(&top.series_by_metric_name),
        "labelValueCountByLabelName": named(&top.values_by_label_name),
        "memoryInBytesByLabelName": named(&top.bytes_by_label_name),
        "seriesCountByLabelValuePair": named(&top.series_by_label_pair),
    })))
}

/// The blocks on disk, oldest first, as their `meta.json` has them.
pub(crate) async fn blocks(State(state): State<Arc<ApiState>>) -> ApiResult {
    let db = Arc::clone(&state.db);
    let metas = state.blocking(move || {
        let path = db.options().path.as_path();
        let mut metas = Vec::new();
        for block in db.blocks() {
            match Meta::read(&path.join(&block.ulid)) {
                Ok(meta) => metas.push(meta),
                // Deleted meanwhile.
                Err(_) if !path.join(&block.ulid).exists() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(metas)
    });
    Ok(Answer::json(&json!({"blocks": metas.await?})))
}

/// Compat: the limits that hold, joined by "or", as upstream shows them.
fn shown_retention(retention: Retention) -> String {
    let time = retention.time_ms.map(|ms| PromDuration::from_ms(ms).to_string());
    let size = retention.bytes.map(format_bytes);
    let percentage = retention.percentage.map(|percent| format!("{percent}%"));
    [time, size, percentage].into_iter().flatten().collect::<Vec<_>>().join(" or ")
}

fn named(counts: &[(String, u64)]) -> Value {
    counts.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
}
