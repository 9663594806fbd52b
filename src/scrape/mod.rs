//! Scraping: pages of targets become samples.
//!
//! A [`ScrapeManager`] holds one pool per job; a pool holds one loop per target; a loop fetches a
//! page, and stores it in one transaction with its report series. Discovery feeds the pools.
//!
//! ```text
//! discovery ─→ pool ─→ worker ─┬─ client   bytes over the network
//!   (groups)   (targets)       └─ append   parser → cache → relabelling → appender
//! ```
//!
//! # Concurrency
//! Every loop is a task and owns its cache. Locks are held for moments and never across an await;
//! order: pools → one pool → tasks, or a target's own.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/tree/v3.14.0/scrape>

mod append;
mod cache;
mod client;
mod metadata;
mod metrics;
mod pool;
mod snapshot;
mod storage;
mod target;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use promontory_tsdb::Clock;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use client::Buffers;
pub use metadata::MetricMetadata;
use metrics::Counters;
pub use metrics::{JobMetrics, ScrapeMetrics, Spread};
use pool::{Pool, Tasks, spawn};
pub use snapshot::{ActiveTarget, DroppedTarget, TargetMetadata, TargetsSnapshot};
pub use storage::{Append, Storage, Takes, WithMetadata};
pub use target::Health;
use worker::Shared;

use crate::config::{Config, ScrapeConfig};
use crate::discovery;

/// Discovery may change its mind often; loops follow at most this often.
const SYNC_INTERVAL: Duration = Duration::from_secs(5);

/// Scrapes the targets of a configuration.
#[derive(Debug)]
pub struct ScrapeManager {
    shared: Shared,
    tasks: Tasks,
    jobs: Mutex<BTreeMap<String, Job>>,
}

/// A pool and what feeds it.
#[derive(Debug)]
struct Job {
    pool: Arc<Mutex<Pool>>,
    discovery: Discovery,
}

/// Stops the discovery of a job when dropped.
#[derive(Debug)]
struct Discovery(CancellationToken);

impl Drop for Discovery {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl ScrapeManager {
    /// A manager without jobs. `storage` is usually an `Arc<Db>`.
    pub fn new(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>) -> Self {
        let shared = Shared {
            storage,
            clock,
            counters: Arc::new(Counters::default()),
            buffers: Buffers::default(),
            shutdown: CancellationToken::new(),
        };
        Self { shared, tasks: Tasks::default(), jobs: Mutex::default() }
    }

    /// Makes the jobs those of `config`. Jobs that did not change are left alone.
    ///
    /// # Errors
    /// If a job's client cannot be set up; the other jobs are applied, and the failing one keeps
    /// running as it was, if it was.
    pub async fn apply(&self, config: &Config) -> Result<(), ApplyError> {
        let seed = target::offset_seed(&config.global.external_labels);
        let mut failed = Vec::new();
        {
            let mut jobs = self.jobs.lock();
            let wanted: HashMap<&str, &ScrapeConfig> =
                config.jobs().map(|job| (job.job_name.as_str(), job)).collect();
            let gone: Vec<String> =
                jobs.keys().filter(|name| !wanted.contains_key(name.as_str())).cloned().collect();
            for name in gone {
                if let Some(Job { pool, discovery }) = jobs.remove(&name) {
                    drop(discovery);
                    pool.lock().stop();
                }
            }
            for job in config.jobs() {
                if let Err(reason) = self.apply_job(&mut jobs, job, seed) {
                    tracing::error!(job = job.job_name, error = reason, "applying scrape config failed");
                    failed.push((job.job_name.clone(), reason));
                }
            }
        }
        // Let the new loops start before the caller goes on.
        tokio::task::yield_now().await;
        match failed.is_empty() {
            true => Ok(()),
            false => Err(ApplyError { jobs: failed }),
        }
    }

    fn apply_job(
        &self,
        jobs: &mut BTreeMap<String, Job>,
        config: &ScrapeConfig,
        seed: u64,
    ) -> Result<(), String> {
        let config = Arc::new(config.clone());
        let pool = match jobs.get(&config.job_name) {
            Some(job) => {
                let pool = Arc::clone(&job.pool);
                let mut locked = pool.lock();
                if **locked.config() == *config {
                    return Ok(());
                }
                locked.reload(&config, seed)?;
                drop(locked);
                pool
            }
            None => {
                self.shared.counters.pools.inc();
                let pool =
                    Pool::try_new(Arc::clone(&config), self.shared.clone(), Arc::clone(&self.tasks), seed);
                let mut pool = pool.inspect_err(|_| self.shared.counters.pools_failed.inc())?;
                pool.update(discovery::static_groups(&config));
                pool.sync();
                Arc::new(Mutex::new(pool))
            }
        };
        let discovery = self.discover(&config, &pool);
        jobs.insert(config.job_name.clone(), Job { pool, discovery });
        Ok(())
    }

    /// Starts what finds the targets of a job.
    fn discover(&self, config: &ScrapeConfig, pool: &Arc<Mutex<Pool>>) -> Discovery {
        let token = self.shared.shutdown.child_token();
        if config.file_sd_configs.is_empty() {
            return Discovery(token);
        }
        let changed = Arc::new(Notify::new());
        for (i, sd) in config.file_sd_configs.iter().enumerate() {
            let pool = Arc::clone(pool);
            let changed = Arc::clone(&changed);
            let counters = Arc::clone(&self.shared.counters);
            let token = token.clone();
            let source = discovery::file_source(i);
            let mut files = discovery::FileDiscovery::new(sd.clone(), source.clone());
            spawn(&self.tasks, async move {
                let mut is_first = true;
                let publish = |groups, read_errors| {
                    counters.file_sd_read_errors.add(read_errors);
                    match std::mem::take(&mut is_first) {
                        true => pool.lock().replace(&source, groups),
                        false => pool.lock().update(groups),
                    }
                    changed.notify_one();
                };
                files.run(token, publish).await;
            });
        }
        let pool = Arc::clone(pool);
        let stopped = token.clone();
        spawn(&self.tasks, async move {
            loop {
                tokio::select! {
                    biased;
                    () = stopped.cancelled() => return,
                    () = changed.notified() => pool.lock().sync(),
                }
                tokio::select! {
                    () = stopped.cancelled() => return,
                    () = tokio::time::sleep(SYNC_INTERVAL) => {}
                }
            }
        });
        Discovery(token)
    }

    /// All targets, as they are now.
    pub fn targets(&self) -> TargetsSnapshot {
        let mut snapshot = TargetsSnapshot::default();
        for (name, job) in self.jobs.lock().iter() {
            let pool = job.pool.lock();
            snapshot.active.extend(pool.active());
            let (dropped, count) = pool.dropped();
            snapshot.dropped.extend(dropped);
            snapshot.dropped_counts.insert(name.clone(), count);
            snapshot.scrape_pools.push(name.clone());
        }
        snapshot
    }

    /// What targets say of their metrics.
    pub fn metadata(&self) -> Vec<TargetMetadata> {
        let mut all = Vec::new();
        for job in self.jobs.lock().values() {
            for target in job.pool.lock().targets() {
                all.extend(target.metadata.list().into_iter().map(|(metric, metadata)| TargetMetadata {
                    target: target.labels.clone(),
                    metric,
                    metadata,
                }));
            }
        }
        all
    }

    /// Counters.
    pub fn metrics(&self) -> ScrapeMetrics {
        let mut metrics = self.shared.counters.snapshot();
        metrics.jobs = self.jobs.lock().values().map(|job| job.pool.lock().metrics()).collect();
        metrics
    }

    /// Stops all loops and waits for them. Requests under way are dropped, pages that are being
    /// stored are stored, and no stale markers are written.
    pub async fn shutdown(&self) {
        self.shared.shutdown.cancel();
        self.jobs.lock().clear();
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        while tasks.join_next().await.is_some() {}
    }
}

/// Jobs that could not be applied, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error applying scrape configs: {}", self.list())]
pub struct ApplyError {
    /// Name and reason.
    pub jobs: Vec<(String, String)>,
}

impl ApplyError {
    fn list(&self) -> String {
        self.jobs.iter().map(|(job, reason)| format!("{job}: {reason}")).collect::<Vec<_>>().join("; ")
    }
}
