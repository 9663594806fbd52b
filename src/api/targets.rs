//! `/targets`, `/scrape_pools`: what is scraped, and how it goes; and the scraper's figures.

use std::sync::Arc;

use axum::extract::State;
use promontory_tsdb::Labels;
use serde_json::{Map, Value, json};

use super::ApiState;
use super::envelope::{Answer, ApiResult};
use super::exposition::{Page, label};
use super::params::Params;
use crate::scrape::{ActiveTarget, DroppedTarget, JobMetrics, ScrapeManager, Spread};
use crate::units::{PromDuration, format_time_ms};

/// How Go prints a time that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

pub(crate) async fn targets(State(state): State<Arc<ApiState>>, params: Params) -> ApiResult {
    let (pool, kind) = (params.get("scrapePool"), params.get("state").to_lowercase());
    let shown = |which: &str| matches!(kind.as_str(), "" | "any") || kind == which;
    let in_pool = |name: &str| pool.is_empty() || pool == name;
    let snapshot = state.scrapes.targets();
    let mut data = Map::new();
    let active = snapshot.active.iter().filter(|t| shown("active") && in_pool(&t.scrape_pool));
    data.insert("activeTargets".to_owned(), active.map(active_target).collect());
    let dropped = snapshot.dropped.iter().filter(|t| shown("dropped") && in_pool(&t.scrape_pool));
    data.insert("droppedTargets".to_owned(), dropped.map(dropped_target).collect());
    // Compat: null unless dropped targets are asked for.
    let counts = if shown("dropped") { json!(snapshot.dropped_counts) } else { Value::Null };
    data.insert("droppedTargetCounts".to_owned(), counts);
    Ok(Answer::json(&data))
}

pub(crate) async fn scrape_pools(State(state): State<Arc<ApiState>>) -> ApiResult {
    Ok(Answer::json(&json!({"scrapePools": state.scrapes.targets().scrape_pools})))
}

fn active_target(t: &ActiveTarget) -> Value {
    let duration = |d: std::time::Duration| {
        PromDuration::from_ms(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)).to_string()
    };
    json!({
        "discoveredLabels": labels(&t.discovered_labels),
        "labels": labels(&t.labels),
        "scrapePool": t.scrape_pool,
        "scrapeUrl": t.scrape_url,
        "globalUrl": t.global_url,
        "lastError": t.last_error,
        "lastScrape": t.last_scrape_ms.map_or_else(|| NEVER.to_owned(), format_time_ms),
        "lastScrapeDuration": t.last_scrape_duration.as_secs_f64(),
        "health": t.health.as_str(),
        "scrapeInterval": duration(t.scrape_interval),
        "scrapeTimeout": duration(t.scrape_timeout),
    })
}

fn dropped_target(t: &DroppedTarget) -> Value {
    json!({"discoveredLabels": labels(&t.discovered_labels), "scrapePool": t.scrape_pool})
}

fn labels(labels: &Labels) -> Value {
    labels.iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect::<Map<_, _>>().into()
}

/// The scraper's part of `/metrics`.
pub(crate) fn put_metrics(page: &mut Page, scrapes: &ScrapeManager) {
    let m = scrapes.metrics();
    let counters = [
        ("prometheus_target_scrape_pools_total", "Total number of scrape pool creation attempts.", m.pools),
        (
            "prometheus_target_scrape_pools_failed_total",
            "Total number of scrape pool creations that failed.",
            m.pools_failed,
        ),
        (
            "prometheus_target_scrape_pool_reloads_total",
            "Total number of scrape pool reloads.",
            m.pool_reloads,
        ),
        (
            "prometheus_target_scrape_pool_reloads_failed_total",
            "Total number of failed scrape pool reloads.",
            m.pool_reloads_failed,
        ),
        (
            "prometheus_target_scrape_pool_exceeded_target_limit_total",
            "Total number of times scrape pools hit the target limit, during sync or config reload.",
            m.exceeded_target_limit,
        ),
        (
            "prometheus_target_scrape_pool_exceeded_label_limits_total",
            "Total number of times scrape pools hit the label limits, during sync or config reload.",
            m.exceeded_label_limits,
        ),
        (
            "prometheus_target_scrapes_exceeded_body_size_limit_total",
            "Total number of scrapes that hit the body size limit.",
            m.exceeded_body_size_limit,
        ),
        (
            "prometheus_target_scrapes_exceeded_sample_limit_total",
            "Total number of scrapes that hit the sample limit and were rejected.",
            m.exceeded_sample_limit,
        ),
        (
            "prometheus_target_scrapes_sample_duplicate_timestamp_total",
            "Total number of samples rejected due to duplicate timestamps but different values.",
            m.samples_duplicate,
        ),
        (
            "prometheus_target_scrapes_sample_out_of_order_total",
            "Total number of samples rejected due to not being out of the expected order.",
            m.samples_out_of_order,
        ),
        (
            "prometheus_target_scrapes_sample_out_of_bounds_total",
            "Total number of samples rejected due to timestamp falling outside of the time bounds.",
            m.samples_out_of_bounds,
        ),
        (
            "prometheus_target_scrapes_exemplar_out_of_order_total",
            "Total number of exemplar rejected due to not being out of the expected order.",
            m.exemplars_out_of_order,
        ),
        ("prometheus_sd_file_read_errors_total", "The number of File-SD read errors.", m.file_sd_read_errors),
    ];
    for (name, help, value) in counters {
        page.counter(name, help, value as f64);
    }
    page.summaries(
        "prometheus_target_interval_length_seconds",
        "Actual intervals between scrapes.",
        m.interval_length.iter().map(|(interval, spread)| {
            let interval = PromDuration::from_ms(i64::try_from(interval.as_millis()).unwrap_or(i64::MAX));
            summary(label("interval", &interval.to_string()), spread)
        }),
    );
    put_job_metrics(page, &m.jobs);
}

fn put_job_metrics(page: &mut Page, jobs: &[JobMetrics]) {
    let by_job = |of: fn(&JobMetrics) -> u64| {
        jobs.iter().map(move |job| (label("scrape_job", &job.job), of(job) as f64)).collect::<Vec<_>>()
    };
    page.gauges(
        "prometheus_target_scrape_pool_targets",
        "Current number of targets in this scrape pool.",
        by_job(|job| job.targets),
    );
    page.gauges(
        "prometheus_target_scrape_pool_target_limit",
        "Maximum number of targets allowed in this scrape pool.",
        by_job(|job| job.target_limit),
    );
    page.counters(
        "prometheus_target_scrape_pool_sync_total",
        "Total number of syncs that were executed on a scrape pool.",
        by_job(|job| job.syncs),
    );
    page.counters(
        "prometheus_target_sync_failed_total",
        "Total number of target sync failures.",
        by_job(|job| job.sync_failures),
    );
    page.summaries(
        "prometheus_target_sync_length_seconds",
        "Actual interval to sync the scrape pool.",
        jobs.iter().map(|job| summary(label("scrape_job", &job.job), &job.sync_length)),
    );
    page.gauges(
        "prometheus_sd_discovered_targets",
        "Current number of discovered targets.",
        jobs.iter().map(|job| {
            let labels = format!("{},{}", label("config", &job.job), label("name", "scrape"));
            (labels, job.discovered_targets as f64)
        }),
    );
}

fn summary(labels: String, spread: &Spread) -> (String, f64, u64) {
    (labels, spread.sum_seconds, spread.count)
}
