//! `/metrics`: figures of this server, under Prometheus' names where the meaning is the same.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use promontory_promql::cache::CacheStats;
use promontory_tsdb::DbMetrics;

use super::ApiState;
use super::exposition::{Format, Page, label};
use super::http_metrics::DURATION_BOUNDS_S;

pub(crate) async fn metrics(State(state): State<Arc<ApiState>>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let format = Format::negotiate(accept);
    let db = Arc::clone(&state.db);
    // Reads directories, so not on a thread that serves sockets.
    let db_metrics = match state.blocking(move || Ok(db.metrics())).await {
        Ok(metrics) => metrics,
        Err(e) => return e.into_response(),
    };
    let mut page = Page::new(format);
    put_process(&mut page, state.started_ms);
    put_config(&mut page, &state);
    put_queries(&mut page, &state);
    put_http(&mut page, &state);
    put_storage(&mut page, &db_metrics, &state);
    super::targets::put_metrics(&mut page, &state.scrapes);
    ([(CONTENT_TYPE, format.content_type())], page.finish()).into_response()
}

fn put_process(page: &mut Page, started_ms: i64) {
    page.gauges(
        "prometheus_build_info",
        "A metric with a constant '1' value labeled by version of Promontory, and the language that it is written in.",
        [(format!("{},{}", label("version", env!("CARGO_PKG_VERSION")), label("goversion", "")), 1.0)],
    );
    page.gauge(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        started_ms as f64 / 1000.0,
    );
    let Some(process) = Process::read() else { return };
    page.counter(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        process.cpu_seconds,
    );
    page.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", process.resident_bytes);
    page.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", process.virtual_bytes);
    page.gauge("process_threads", "Number of operating system threads.", process.threads);
    if let Some(open) = process.open_fds {
        page.gauge("process_open_fds", "Number of open file descriptors.", open);
    }
    if let Some(most) = process.max_fds {
        page.gauge("process_max_fds", "Maximum number of open file descriptors.", most);
    }
}

fn put_config(page: &mut Page, state: &ApiState) {
    page.gauge(
        "prometheus_config_last_reload_successful",
        "Whether the last configuration reload attempt was successful.",
        f64::from(u8::from(state.config.last_reload_ok())),
    );
    page.gauge(
        "prometheus_config_last_reload_success_timestamp_seconds",
        "Timestamp of the last successful configuration reload.",
        state.config.last_success_ms() as f64 / 1000.0,
    );
    page.gauge(
        "prometheus_ready",
        "Whether Prometheus startup was fully completed and the server is ready for normal operation.",
        f64::from(u8::from(state.lifecycle.is_ready())),
    );
}

fn put_queries(page: &mut Page, state: &ApiState) {
    page.gauge(
        "prometheus_engine_queries",
        "The current number of queries being executed or waiting.",
        state.queries.running.load(Ordering::Relaxed) as f64,
    );
    page.gauge(
        "prometheus_engine_queries_concurrent_max",
        "The max number of concurrent queries.",
        state.query_places_total as f64,
    );
    let inner = state.queries.inner_eval.lock().clone();
    page.summaries(
        "prometheus_engine_query_duration_seconds",
        "Query timings.",
        [(label("slice", "inner_eval"), inner.sum, inner.counts.iter().sum())],
    );
    if let Some(cache) = state.engine.cache() {
        put_query_cache(page, &cache.stats());
    }
}

fn put_query_cache(page: &mut Page, cache: &CacheStats) {
    let counters = [
        ("hits", "Range queries that took steps from the cache.", cache.hits),
        ("misses", "Range queries that found nothing in the cache.", cache.misses),
        ("steps_taken", "Steps of range queries that were taken from the cache.", cache.steps_taken),
        (
            "steps_computed",
            "Steps of range queries that were computed and may be kept.",
            cache.steps_computed,
        ),
        ("evictions", "Results that left the cache to make room.", cache.evictions),
    ];
    for (name, help, value) in counters {
        page.counter(&format!("promontory_query_cache_{name}_total"), help, value as f64);
    }
    let gauges = [
        ("entries", "Results in the cache.", cache.entries),
        ("bytes", "Memory that results in the cache take.", cache.bytes),
        ("limit_bytes", "Memory that results in the cache may take.", cache.budget_bytes),
    ];
    for (name, help, value) in gauges {
        page.gauge(&format!("promontory_query_cache_{name}"), help, value as f64);
    }
}

fn put_http(page: &mut Page, state: &ApiState) {
    let routes = state.http.snapshot();
    let requests = routes.iter().flat_map(|(route, metrics)| {
        metrics.requests.iter().map(move |(code, count)| {
            (format!("{},{}", label("code", &code.to_string()), label("handler", route)), *count as f64)
        })
    });
    page.counters("prometheus_http_requests_total", "Counter of HTTP requests.", requests);
    page.histograms(
        "prometheus_http_request_duration_seconds",
        "Histogram of latencies for HTTP requests, until the first byte of the answer.",
        &DURATION_BOUNDS_S,
        routes.iter().map(|(route, m)| (label("handler", route), &m.durations.counts[..], m.durations.sum)),
    );
}

fn put_storage(page: &mut Page, m: &DbMetrics, state: &ApiState) {
    let head = state.db.head_stats();
    let ms = |t: Option<i64>, empty: i64| t.unwrap_or(empty) as f64;
    let exemplars = state.db.exemplars().stats();
    let gauges = [
        ("prometheus_tsdb_head_series", "Total number of series in the head block.", m.head_series as f64),
        ("prometheus_tsdb_head_chunks", "Total number of chunks in the head block.", head.chunks as f64),
        (
            "prometheus_tsdb_head_min_time",
            "Minimum time bound of the head block, in ms.",
            ms(m.head_min_time, i64::MAX),
        ),
        (
            "prometheus_tsdb_head_max_time",
            "Maximum timestamp of the head block, in ms.",
            ms(m.head_max_time, i64::MIN),
        ),
        ("prometheus_tsdb_blocks_loaded", "Number of currently loaded data blocks.", m.blocks_loaded as f64),
        (
            "prometheus_tsdb_storage_blocks_bytes",
            "The number of bytes that are currently used for local storage by all blocks.",
            m.blocks_bytes as f64,
        ),
        (
            "prometheus_tsdb_wal_storage_size_bytes",
            "Size of the write log directory.",
            m.wal_storage_bytes as f64,
        ),
        (
            "prometheus_tsdb_wal_segment_current",
            "Write log segment index that TSDB is currently writing to.",
            f64::from(m.wal_segment),
        ),
        (
            "prometheus_tsdb_wal_poisoned",
            "1 after a failed write of the write log: no more samples are stored until a restart.",
            f64::from(u8::from(m.wal_poisoned)),
        ),
        (
            "prometheus_tsdb_retention_limit_bytes",
            "Max number of bytes to be retained in the tsdb blocks, configured 0 means disabled.",
            m.retention_limit_bytes as f64,
        ),
        (
            "prometheus_tsdb_exemplar_max_exemplars",
            "Total number of exemplars the exemplar storage can store, resizeable.",
            exemplars.max as f64,
        ),
        (
            "prometheus_tsdb_exemplar_exemplars_in_storage",
            "Number of exemplars currently in circular storage.",
            exemplars.exemplars as f64,
        ),
        (
            "prometheus_tsdb_exemplar_series_with_exemplars_in_storage",
            "Number of series with exemplars currently in circular storage.",
            exemplars.series as f64,
        ),
        (
            "prometheus_tsdb_exemplar_last_exemplars_timestamp_seconds",
            "The timestamp of the oldest exemplar stored in circular storage. Useful to check for what time range the current exemplar buffer limit allows. This usually means the last timestamp for all exemplars for a typical setup. This is not true though if one of the series timestamp is in future compared to rest series.",
            exemplars.oldest_time.unwrap_or_default() as f64 / 1000.0,
        ),
        (
            "prometheus_tsdb_clean_start",
            "-1: lockfile is disabled. 0: a lockfile from a previous execution was replaced. 1: lockfile creation was clean",
            m.clean_start.map_or(-1.0, |clean| f64::from(u8::from(clean))),
        ),
    ];
    for (name, help, value) in gauges {
        page.gauge(name, help, value);
    }
    page.counters(
        "prometheus_tsdb_head_samples_appended_total",
        "Total number of appended samples.",
        [(label("type", "float"), m.samples_appended as f64)],
    );
    let counters = [
        (
            "prometheus_tsdb_head_series_created_total",
            "Total number of series created in the head.",
            m.head_series_created,
        ),
        (
            "prometheus_tsdb_head_series_removed_total",
            "Total number of series removed in the head.",
            m.head_series_removed,
        ),
        (
            "prometheus_tsdb_head_truncations_total",
            "Total number of head truncations attempted.",
            m.head_truncations,
        ),
        (
            "prometheus_tsdb_compactions_total",
            "Total number of compactions that were executed for the partition.",
            m.compactions,
        ),
        (
            "prometheus_tsdb_compactions_failed_total",
            "Total number of compactions that failed for the partition.",
            m.compactions_failed,
        ),
        (
            "prometheus_tsdb_checkpoint_creations_total",
            "Total number of checkpoint creations.",
            m.checkpoints,
        ),
        (
            "prometheus_tsdb_reloads_total",
            "Number of times the database reloaded block data from disk.",
            m.reloads,
        ),
        (
            "prometheus_tsdb_time_retentions_total",
            "The number of times that blocks were deleted because the maximum time limit was exceeded.",
            m.time_retentions,
        ),
        (
            "prometheus_tsdb_size_retentions_total",
            "The number of times that blocks were deleted because the maximum number of bytes was exceeded.",
            m.size_retentions,
        ),
        (
            "prometheus_tsdb_reloads_failures_total",
            "Number of times the database failed to reloadBlocks block data from disk.",
            m.reloads_failed,
        ),
        (
            "prometheus_tsdb_vertical_compactions_total",
            "Total number of compactions done on overlapping blocks.",
            m.vertical_compactions,
        ),
        (
            "prometheus_tsdb_exemplar_exemplars_appended_total",
            "Total number of appended exemplars.",
            exemplars.appended,
        ),
        (
            "prometheus_tsdb_exemplar_out_of_order_exemplars_total",
            "Total number of out of order exemplar ingestion failed attempts.",
            exemplars.out_of_order,
        ),
        ("prometheus_tsdb_wal_corruptions_total", "Total number of WAL corruptions.", m.wal_corruptions),
        (
            "prometheus_tsdb_wal_writes_failed_total",
            "Total number of WAL writes that failed.",
            m.wal_writes_failed,
        ),
        ("prometheus_tsdb_wal_completed_pages_total", "Total number of completed pages.", m.wal_pages),
        ("prometheus_tsdb_wal_record_bytes_total", "Total number of bytes written to the WAL.", m.wal_bytes),
        (
            "prometheus_tsdb_out_of_bound_samples_total",
            "Total number of out of bound samples ingestion failed attempts.",
            m.out_of_bounds,
        ),
        (
            "prometheus_tsdb_duplicate_samples_total",
            "Total number of samples refused because another value has their timestamp.",
            m.duplicates,
        ),
    ];
    for (name, help, value) in counters {
        page.counter(name, help, value as f64);
    }
    page.counters(
        "prometheus_tsdb_out_of_order_samples_total",
        "Total number of out of order samples ingestion failed attempts.",
        [(label("type", "float"), m.out_of_order as f64)],
    );
    page.summaries(
        "prometheus_tsdb_wal_fsync_duration_seconds",
        "Duration of write log fsync.",
        [(String::new(), m.wal_sync_time.as_secs_f64(), m.wal_syncs)],
    );
}

/// What the kernel says about us; Linux only.
struct Process {
    cpu_seconds: f64,
    resident_bytes: f64,
    virtual_bytes: f64,
    threads: f64,
    open_fds: Option<f64>,
    max_fds: Option<f64>,
}

impl Process {
    fn read() -> Option<Self> {
        /// Linux reports times in this unit on every architecture, whatever the kernel's own tick is.
        const TICKS_PER_SECOND: f64 = 100.0;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        // The second field is the program's name and may hold anything, parentheses included.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        Some(Self {
            cpu_seconds: ticks / TICKS_PER_SECOND,
            resident_bytes: field("VmRSS:")? * 1024.0,
            virtual_bytes: field("VmSize:")? * 1024.0,
            threads: field("Threads:")?,
            open_fds: std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64),
            max_fds: max_fds(),
        })
    }
}

fn max_fds() -> Option<f64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
