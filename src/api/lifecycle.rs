//! `/-/healthy`, `/-/ready`, `/-/reload`, `/-/quit`, and the phase that the server is in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::ApiState;

/// Answers a request to reload: the text is what went wrong.
pub(crate) type ReloadReply = oneshot::Sender<Result<(), String>>;

/// Not upstream's, which goes on with a log that it cannot write.
const LOG_POISONED: &str = "The write-ahead log could not be written: no more samples are stored. \
    Look into the server's log, and restart it.\n";

const STARTING: u8 = 0;
const READY: u8 = 1;
const STOPPING: u8 = 2;

/// What the endpoints here steer.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    phase: AtomicU8,
    enabled: bool,
    quit: CancellationToken,
    reloads: mpsc::Sender<ReloadReply>,
}

impl Lifecycle {
    /// Starting. `enabled` is `--web.enable-lifecycle`; `quit` is cancelled by `/-/quit`.
    pub(crate) fn new(enabled: bool, quit: CancellationToken, reloads: mpsc::Sender<ReloadReply>) -> Self {
        Self { phase: AtomicU8::new(STARTING), enabled, quit, reloads }
    }

    /// From now on requests are served.
    pub(crate) fn set_ready(&self) {
        self.phase.store(READY, Ordering::SeqCst);
    }

    /// From now on requests are turned away.
    pub(crate) fn set_stopping(&self) {
        self.phase.store(STOPPING, Ordering::SeqCst);
    }

    /// Whether requests are served.
    pub(crate) fn is_ready(&self) -> bool {
        self.phase.load(Ordering::SeqCst) == READY
    }

    /// Upstream's answer while requests are not served.
    pub(crate) fn unavailable(&self) -> Response {
        let stopping = self.phase.load(Ordering::SeqCst) == STOPPING;
        let header = [("X-Prometheus-Stopping", if stopping { "true" } else { "false" })];
        (StatusCode::SERVICE_UNAVAILABLE, header, "Service Unavailable").into_response()
    }

    /// Has the configuration read again, and waits until it is applied or refused.
    pub(crate) async fn reload(&self) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let gone = || "the server is shutting down".to_owned();
        self.reloads.send(reply).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

pub(crate) async fn healthy() -> &'static str {
    "Prometheus Server is Healthy.\n"
}

pub(crate) async fn ready(State(state): State<Arc<ApiState>>) -> Response {
    if !state.lifecycle.is_ready() {
        return state.lifecycle.unavailable();
    }
    let db = Arc::clone(&state.db);
    match tokio::task::spawn_blocking(move || db.is_log_poisoned()).await {
        Ok(false) => "Prometheus Server is Ready.\n".into_response(),
        Ok(true) => (StatusCode::SERVICE_UNAVAILABLE, LOG_POISONED).into_response(),
        Err(_) => state.lifecycle.unavailable(),
    }
}

pub(crate) async fn reload(State(state): State<Arc<ApiState>>) -> Response {
    if !state.lifecycle.enabled {
        return not_enabled();
    }
    match state.lifecycle.reload().await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(e) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("failed to reload config: {e}\n")).into_response()
        }
    }
}

pub(crate) async fn quit(State(state): State<Arc<ApiState>>) -> Response {
    if !state.lifecycle.enabled {
        return not_enabled();
    }
    state.lifecycle.quit.cancel();
    "Requesting termination... Goodbye!".into_response()
}

fn not_enabled() -> Response {
    (StatusCode::FORBIDDEN, "Lifecycle API is not enabled.").into_response()
}
