//! Counts and times of HTTP requests, per route.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

/// Upper bounds of `prometheus_http_request_duration_seconds`, as upstream's.
pub(crate) const DURATION_BOUNDS_S: [f64; 9] = [0.1, 0.2, 0.4, 1.0, 3.0, 8.0, 20.0, 60.0, 120.0];

/// What was served.
#[derive(Debug, Default)]
pub(crate) struct HttpMetrics {
    routes: Mutex<BTreeMap<String, RouteMetrics>>,
}

/// One route's figures.
#[derive(Debug, Clone, Default)]
pub(crate) struct RouteMetrics {
    /// Requests by status.
    pub(crate) requests: BTreeMap<u16, u64>,
    /// Times until the first byte of the answer.
    pub(crate) durations: Durations,
}

/// A histogram with [`DURATION_BOUNDS_S`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Durations {
    /// Not cumulative; the last one is above all bounds.
    pub(crate) counts: [u64; DURATION_BOUNDS_S.len() + 1],
    /// Seconds.
    pub(crate) sum: f64,
}

impl Durations {
    /// Adds one.
    pub(crate) fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = DURATION_BOUNDS_S.iter().position(|b| seconds <= *b).unwrap_or(DURATION_BOUNDS_S.len());
        self.counts[bucket] += 1;
        self.sum += seconds;
    }
}

impl HttpMetrics {
    /// Counts a request to `route`, which is a pattern and not a path, so that there are few.
    pub(crate) fn observe(&self, route: &str, status: u16, took: Duration) {
        let mut routes = self.routes.lock();
        if !routes.contains_key(route) {
            routes.insert(route.to_owned(), RouteMetrics::default());
        }
        if let Some(metrics) = routes.get_mut(route) {
            *metrics.requests.entry(status).or_default() += 1;
            metrics.durations.observe(took);
        }
    }

    /// What was counted so far.
    pub(crate) fn snapshot(&self) -> BTreeMap<String, RouteMetrics> {
        self.routes.lock().clone()
    }
}
