//! What the HTTP API shows of targets.

use std::collections::BTreeMap;
use std::time::Duration;

use promontory_tsdb::{Labels, TimestampMs};

use super::metadata::MetricMetadata;
use super::target::{Health, Target};

/// All targets at one instant, by job and address.
#[derive(Debug, Clone, Default)]
pub struct TargetsSnapshot {
    /// Targets that are scraped.
    pub active: Vec<ActiveTarget>,
    /// Targets that relabelling dropped, as far as they are remembered.
    pub dropped: Vec<DroppedTarget>,
    /// How many targets relabelling dropped, by job.
    pub dropped_counts: BTreeMap<String, usize>,
    /// Names of all jobs.
    pub scrape_pools: Vec<String>,
}

/// A target that is scraped.
#[derive(Debug, Clone)]
pub struct ActiveTarget {
    /// Labels before relabelling.
    pub discovered_labels: Labels,
    /// Labels that its samples get.
    pub labels: Labels,
    /// Its job.
    pub scrape_pool: String,
    /// What is asked.
    pub scrape_url: String,
    /// The same for other machines: a loopback address is replaced by this machine's name.
    pub global_url: String,
    /// Why the last scrape failed; empty if it did not.
    pub last_error: String,
    /// When the last scrape was, ms; `None` if there was none.
    pub last_scrape_ms: Option<TimestampMs>,
    /// How long it took.
    pub last_scrape_duration: Duration,
    /// How it went.
    pub health: Health,
    /// Time between scrapes.
    pub scrape_interval: Duration,
    /// How long a scrape may take.
    pub scrape_timeout: Duration,
}

/// A target that relabelling dropped.
#[derive(Debug, Clone)]
pub struct DroppedTarget {
    /// Labels before relabelling.
    pub discovered_labels: Labels,
    /// Its job.
    pub scrape_pool: String,
}

/// What one target says of one metric family.
#[derive(Debug, Clone)]
pub struct TargetMetadata {
    /// The target's labels.
    pub target: Labels,
    /// Name of the family.
    pub metric: String,
    /// Type, help text and unit.
    pub metadata: MetricMetadata,
}

impl ActiveTarget {
    pub(super) fn new(job: &str, target: &Target) -> Self {
        let status = target.status.lock().clone();
        Self {
            discovered_labels: target.discovered.lock().clone(),
            labels: target.labels.clone(),
            scrape_pool: job.to_owned(),
            scrape_url: target.key.shown_url.clone(),
            global_url: global_url(&target.key.shown_url),
            last_error: status.last_error,
            last_scrape_ms: status.last_scrape_ms,
            last_scrape_duration: status.last_duration,
            health: status.health,
            scrape_interval: target.interval,
            scrape_timeout: target.timeout,
        }
    }
}

fn global_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    for local in ["127.0.0.1", "localhost", "[::1]"] {
        if let Some(tail) = rest.strip_prefix(local)
            && tail.starts_with([':', '/'])
        {
            let host = hostname::get().unwrap_or_default();
            return format!("{scheme}://{}{tail}", host.to_string_lossy());
        }
    }
    url.to_owned()
}
