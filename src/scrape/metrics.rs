//! Counters of the scraper, as plain numbers for whoever shows them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Live counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(super) exceeded_body_size_limit: Counter,
    pub(super) exceeded_sample_limit: Counter,
    pub(super) exceeded_label_limits: Counter,
    pub(super) exceeded_target_limit: Counter,
    pub(super) samples_duplicate: Counter,
    pub(super) samples_out_of_order: Counter,
    pub(super) samples_out_of_bounds: Counter,
    pub(super) exemplars_out_of_order: Counter,
    pub(super) cache_flush_forced: Counter,
    pub(super) pools: Counter,
    pub(super) pools_failed: Counter,
    pub(super) pool_reloads: Counter,
    pub(super) pool_reloads_failed: Counter,
    pub(super) samples_appended: Counter,
    pub(super) scrapes: Counter,
    pub(super) scrapes_failed: Counter,
    pub(super) file_sd_read_errors: Counter,
    /// Seconds between scrapes, by interval.
    intervals: Mutex<BTreeMap<Duration, Spread>>,
    duration: Mutex<Spread>,
}

/// A number that only goes up.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn inc(&self) {
        self.add(1);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many, and how much together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spread {
    /// Number of observations.
    pub count: u64,
    /// Their sum, in seconds.
    pub sum_seconds: f64,
}

impl Spread {
    pub(super) fn observe(&mut self, duration: Duration) {
        self.count += 1;
        self.sum_seconds += duration.as_secs_f64();
    }
}

impl Counters {
    pub(super) fn observe_interval(&self, interval: Duration, actual: Duration) {
        self.intervals.lock().entry(interval).or_default().observe(actual);
    }

    pub(super) fn observe_scrape(&self, took: Duration) {
        self.duration.lock().observe(took);
    }

    pub(super) fn snapshot(&self) -> ScrapeMetrics {
        ScrapeMetrics {
            exceeded_body_size_limit: self.exceeded_body_size_limit.get(),
            exceeded_sample_limit: self.exceeded_sample_limit.get(),
            exceeded_label_limits: self.exceeded_label_limits.get(),
            exceeded_target_limit: self.exceeded_target_limit.get(),
            samples_duplicate: self.samples_duplicate.get(),
            samples_out_of_order: self.samples_out_of_order.get(),
            samples_out_of_bounds: self.samples_out_of_bounds.get(),
            exemplars_out_of_order: self.exemplars_out_of_order.get(),
            cache_flush_forced: self.cache_flush_forced.get(),
            pools: self.pools.get(),
            pools_failed: self.pools_failed.get(),
            pool_reloads: self.pool_reloads.get(),
            pool_reloads_failed: self.pool_reloads_failed.get(),
            samples_appended: self.samples_appended.get(),
            scrapes: self.scrapes.get(),
            scrapes_failed: self.scrapes_failed.get(),
            file_sd_read_errors: self.file_sd_read_errors.get(),
            interval_length: self.intervals.lock().iter().map(|(i, s)| (*i, *s)).collect(),
            scrape_duration: *self.duration.lock(),
            jobs: Vec::new(),
        }
    }
}

/// Counters of the scraper. The comments give upstream's metric names.
#[derive(Debug, Clone, PartialEq)]
pub struct ScrapeMetrics {
    /// `prometheus_target_scrapes_exceeded_body_size_limit_total`
    pub exceeded_body_size_limit: u64,
    /// `prometheus_target_scrapes_exceeded_sample_limit_total`
    pub exceeded_sample_limit: u64,
    /// `prometheus_target_scrape_pool_exceeded_label_limits_total`
    pub exceeded_label_limits: u64,
    /// `prometheus_target_scrape_pool_exceeded_target_limit_total`
    pub exceeded_target_limit: u64,
    /// `prometheus_target_scrapes_sample_duplicate_timestamp_total`
    pub samples_duplicate: u64,
    /// `prometheus_target_scrapes_sample_out_of_order_total`
    pub samples_out_of_order: u64,
    /// `prometheus_target_scrapes_sample_out_of_bounds_total`
    pub samples_out_of_bounds: u64,
    /// `prometheus_target_scrapes_exemplar_out_of_order_total`
    pub exemplars_out_of_order: u64,
    /// `prometheus_target_scrapes_cache_flush_forced_total`
    pub cache_flush_forced: u64,
    /// `prometheus_target_scrape_pools_total`
    pub pools: u64,
    /// `prometheus_target_scrape_pools_failed_total`
    pub pools_failed: u64,
    /// `prometheus_target_scrape_pool_reloads_total`
    pub pool_reloads: u64,
    /// `prometheus_target_scrape_pool_reloads_failed_total`
    pub pool_reloads_failed: u64,
    /// Samples that scrapes have appended.
    pub samples_appended: u64,
    /// Scrapes.
    pub scrapes: u64,
    /// Scrapes with `up` 0.
    pub scrapes_failed: u64,
    /// `prometheus_sd_file_read_errors_total`
    pub file_sd_read_errors: u64,
    /// `prometheus_target_interval_length_seconds{interval}`: actual time between scrapes.
    pub interval_length: Vec<(Duration, Spread)>,
    /// Time that a scrape takes, the append included.
    pub scrape_duration: Spread,
    /// One entry per job.
    pub jobs: Vec<JobMetrics>,
}

/// Counters of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobMetrics {
    /// Its name, the label `scrape_job`.
    pub job: String,
    /// `prometheus_target_scrape_pool_targets`
    pub targets: u64,
    /// `prometheus_target_scrape_pool_target_limit`
    pub target_limit: u64,
    /// `prometheus_target_scrape_pool_sync_total`
    pub syncs: u64,
    /// `prometheus_target_sync_failed_total`: targets whose labels could not be made.
    pub sync_failures: u64,
    /// `prometheus_target_sync_length_seconds`
    pub sync_length: Spread,
    /// `prometheus_sd_discovered_targets{config=job, name="scrape"}`
    pub discovered_targets: u64,
}
