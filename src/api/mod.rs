//! The HTTP API of Prometheus, so that Grafana and everything else that speaks it works unchanged.
//!
//! One endpoint (or family of them) per file. All answers are in one [`envelope`]; all errors go through
//! one table in [`error`]; parameters are read by [`params`] with upstream's texts. Query results are
//! written in pieces ([`result`]), so that their text is never whole in memory.
//!
//! # Cancellation
//! A request whose client goes away is dropped, and its query is cancelled with it.
//!
//! # Not served yet
//! `/federate`, remote read and write, OTLP.

pub(crate) mod active_queries;
mod admin;
mod ast;
mod cors;
mod envelope;
pub mod error;
mod exemplars;
mod explain;
mod exposition;
mod histogram;
mod http_metrics;
pub(crate) mod json;
mod labels;
mod landing;
pub(crate) mod lifecycle;
mod metadata;
mod metrics;
mod params;
mod query;
mod result;
mod rules;
mod series;
mod sql;
mod sql_json;
mod status;
mod targets;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::ORIGIN;
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use parking_lot::Mutex;
use promontory_promql::Engine;
use promontory_sql::{QueryLog, SqlQueries};
use promontory_tsdb::{Clock, Db, ErrorKind, Queryable};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;

pub(crate) use cors::CorsOrigin;
use error::ApiError;
use http_metrics::{Durations, HttpMetrics};
use lifecycle::Lifecycle;

use crate::reload::ConfigState;
use crate::scrape::ScrapeManager;

/// What the endpoints share.
#[derive(Debug)]
pub(crate) struct ApiState {
    pub(crate) storage: Arc<dyn Queryable>,
    pub(crate) db: Arc<Db>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) sql: Arc<SqlQueries>,
    pub(crate) scrapes: Arc<ScrapeManager>,
    pub(crate) config: Arc<ConfigState>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    /// Where queries and index reads run; sockets are served elsewhere.
    pub(crate) query_runtime: Handle,
    /// As many permits as queries may run at a time.
    pub(crate) query_places: Arc<Semaphore>,
    pub(crate) query_places_total: usize,
    pub(crate) queries: QueryMetrics,
    /// None where its file cannot be written.
    /// Queries that run, and the last ones that did, SQL and PromQL.
    pub(crate) query_log: Arc<QueryLog>,
    pub(crate) active_queries: Option<Arc<active_queries::ActiveQueries>>,
    pub(crate) http: HttpMetrics,
    pub(crate) cors: CorsOrigin,
    pub(crate) flags: BTreeMap<String, String>,
    pub(crate) enable_admin_api: bool,
    /// First and last log segment that were there at the start.
    pub(crate) replayed_segments: (u32, u32),
    pub(crate) started_ms: i64,
    pub(crate) sql_addr: Option<SocketAddr>,
}

/// Figures about queries.
#[derive(Debug, Default)]
pub(crate) struct QueryMetrics {
    pub(crate) running: AtomicUsize,
    pub(crate) inner_eval: Mutex<Durations>,
}

impl ApiState {
    /// Runs `work` where blocking is allowed, off the threads that serve sockets.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> promontory_tsdb::Result<T> + Send + 'static,
    ) -> Result<T, ApiError> {
        match self.query_runtime.spawn_blocking(work).await {
            Ok(outcome) => outcome.map_err(ApiError::from),
            Err(e) => Err(ApiError::new(ErrorKind::Internal, format!("unexpected error: {e}"))),
        }
    }
}

/// Bytes that a form may have, as in Go's server.
const MAX_FORM_BYTES: usize = 10 << 20;

/// All routes.
pub(crate) fn router(state: Arc<ApiState>) -> Router {
    let compression = CompressionLayer::new().gzip(true).quality(CompressionLevel::Fastest);
    Router::new()
        .nest("/api/v1", v1())
        .route("/", get(landing::landing))
        .route("/metrics", get(metrics::metrics))
        .route("/federate", get(not_served))
        .route("/-/healthy", get(lifecycle::healthy))
        .route("/-/ready", get(lifecycle::ready))
        .route("/-/reload", post(lifecycle::reload).put(lifecycle::reload))
        .route("/-/quit", post(lifecycle::quit).put(lifecycle::quit))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .layer(compression)
        .layer(from_fn_with_state(Arc::clone(&state), around))
        .with_state(state)
}

fn v1() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/query", get(query::instant).post(query::instant))
        .route("/query_range", get(query::range).post(query::range))
        .route("/query_exemplars", get(exemplars::query_exemplars).post(exemplars::query_exemplars))
        .route("/query_explain", get(explain::explain).post(explain::explain))
        .route("/format_query", get(query::format).post(query::format))
        .route("/parse_query", get(query::parse).post(query::parse))
        .route("/labels", get(labels::names).post(labels::names))
        .route("/label/{name}/values", get(labels::values))
        .route("/series", get(series::series).post(series::series))
        .route("/metadata", get(metadata::metadata))
        .route("/targets", get(targets::targets))
        .route("/targets/metadata", get(metadata::targets))
        .route("/scrape_pools", get(targets::scrape_pools))
        .route("/sql", post(sql::sql))
        .route("/rules", get(rules::rules))
        .route("/alerts", get(rules::alerts))
        .route("/alertmanagers", get(rules::alertmanagers))
        .route("/status/config", get(status::config))
        .route("/status/flags", get(status::flags))
        .route("/status/runtimeinfo", get(status::runtimeinfo))
        .route("/status/buildinfo", get(status::buildinfo))
        .route("/status/tsdb", get(status::tsdb))
        .route("/status/tsdb/blocks", get(status::blocks))
        .route("/status/walreplay", get(status::wal_replay))
        .route("/admin/tsdb/delete_series", post(admin::delete_series).put(admin::delete_series))
        .route("/admin/tsdb/clean_tombstones", post(admin::clean_tombstones).put(admin::clean_tombstones))
        .route("/admin/tsdb/snapshot", post(admin::snapshot).put(admin::snapshot))
}

/// Around every request: readiness, preflights, CORS headers, figures.
async fn around(State(state): State<Arc<ApiState>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let origin = request.headers().get(ORIGIN).cloned();
    let route = request.extensions().get::<MatchedPath>().map(|path| handler_label(path.as_str()));
    let is_api = request.uri().path().starts_with("/api/v1/");
    let mut response = if is_api && request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else if is_api && !state.lifecycle.is_ready() {
        state.lifecycle.unavailable()
    } else {
        next.run(request).await
    };
    if is_api {
        state.cors.allow(origin.as_ref(), response.headers_mut());
    }
    if let Some(route) = route {
        state.http.observe(&route, response.status().as_u16(), started.elapsed());
    }
    response
}

/// `/label/{name}/values` as upstream writes it in the label `handler`.
fn handler_label(route: &str) -> String {
    route.replace('{', ":").replace('}', "")
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

async fn not_served() -> Response {
    (StatusCode::NOT_FOUND, "federation is not served yet\n").into_response()
}
