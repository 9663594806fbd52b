//! The targets of one job, and their loops.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use promontory_tsdb::Labels;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::append::Ingest;
use super::client::PageClient;
use super::metrics::{JobMetrics, Spread};
use super::snapshot::{ActiveTarget, DroppedTarget};
use super::target::{Target, TargetKey, discovered_labels};
use super::worker::{ForcedError, Shared, Start, Stop, Worker};
use crate::config::{HttpClientConfig, ScrapeConfig, ScrapeLimits};
use crate::discovery::{TargetGroup, file_source, static_groups};

/// Tasks of the manager; they are joined at shutdown.
pub(super) type Tasks = Arc<Mutex<JoinSet<()>>>;

/// Runs `future` as a task of the manager.
pub(super) fn spawn(tasks: &Tasks, future: impl Future<Output = ()> + Send + 'static) {
    let mut tasks = tasks.lock();
    while tasks.try_join_next().is_some() {}
    tasks.spawn(future);
}

/// A loop that runs.
#[derive(Debug)]
struct Running {
    target: Arc<Target>,
    stop: oneshot::Sender<Stop>,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Pool {
    config: Arc<ScrapeConfig>,
    client: Arc<PageClient>,
    shared: Shared,
    tasks: Tasks,
    offset_seed: u64,
    forced_error: ForcedError,
    running: HashMap<TargetKey, Running>,
    /// What discovery last said, by source.
    groups: BTreeMap<String, TargetGroup>,
    dropped: Vec<Labels>,
    dropped_count: usize,
    syncs: u64,
    sync_failures: u64,
    sync_length: Spread,
}

impl Pool {
    pub(super) fn try_new(
        config: Arc<ScrapeConfig>,
        shared: Shared,
        tasks: Tasks,
        offset_seed: u64,
    ) -> Result<Self, String> {
        let client = Arc::new(PageClient::try_new(&config)?);
        Ok(Self {
            config,
            client,
            shared,
            tasks,
            offset_seed,
            forced_error: ForcedError::default(),
            running: HashMap::new(),
            groups: BTreeMap::new(),
            dropped: Vec::new(),
            dropped_count: 0,
            syncs: 0,
            sync_failures: 0,
            sync_length: Spread::default(),
        })
    }

    pub(super) fn config(&self) -> &Arc<ScrapeConfig> {
        &self.config
    }

    /// Takes what discovery says; loops follow at the next [`Pool::sync`].
    pub(super) fn update(&mut self, groups: Vec<TargetGroup>) {
        for group in groups {
            if group.targets.is_empty() {
                self.groups.remove(&group.source);
            } else {
                self.groups.insert(group.source.clone(), group);
            }
        }
    }

    /// [`Pool::update`] by a provider that starts anew: what it said before does not count.
    pub(super) fn replace(&mut self, source: &str, groups: Vec<TargetGroup>) {
        self.groups.retain(|known, _| !known.starts_with(source));
        self.update(groups);
    }

    /// Takes a configuration that finds its targets in another way.
    fn set_discovery(&mut self, config: &Arc<ScrapeConfig>) {
        // What files say is kept until they are read anew.
        let files: Vec<String> = (0..config.file_sd_configs.len()).map(file_source).collect();
        self.groups.retain(|source, _| files.iter().any(|f| source.starts_with(f)));
        self.update(static_groups(config));
        self.config = Arc::clone(config);
    }

    /// Starts loops for new targets and stops those of targets that are gone.
    pub(super) fn sync(&mut self) {
        let began = Instant::now();
        let wanted = self.wanted();
        let gone: Vec<TargetKey> =
            self.running.keys().filter(|k| !wanted.contains_key(*k)).cloned().collect();
        for key in gone {
            if let Some(running) = self.running.remove(&key) {
                // A loop that has already ended needs no telling.
                let _ = running.stop.send(Stop::Removed);
            }
        }
        let mut new = Vec::new();
        for (key, target) in wanted {
            match self.running.get(&key) {
                Some(running) => {
                    let discovered = target.discovered.lock().clone();
                    *running.target.discovered.lock() = discovered;
                }
                None => new.push((key, target)),
            }
        }
        self.refresh_limit(self.running.len() + new.len());
        for (key, target) in new {
            let target = Arc::new(target);
            let start = Start::With(self.fresh(&target));
            self.start(key, target, start);
        }
        self.syncs += 1;
        self.sync_length.observe(began.elapsed());
    }

    /// The targets that there should be; notes the dropped ones.
    fn wanted(&mut self) -> HashMap<TargetKey, Target> {
        let mut wanted = HashMap::new();
        let keep = usize::try_from(self.config.limits.keep_dropped_targets).unwrap_or(usize::MAX);
        self.dropped.clear();
        self.dropped_count = 0;
        for group in self.groups.values() {
            for (i, target) in group.targets.iter().enumerate() {
                let discovered = discovered_labels(&self.config, target, &group.labels);
                match Target::try_new(&self.config, discovered.clone()) {
                    Ok(Some(target)) => {
                        wanted.entry(target.key.clone()).or_insert(target);
                    }
                    Ok(None) => {
                        self.dropped_count += 1;
                        if keep == 0 || self.dropped.len() < keep {
                            self.dropped.push(discovered);
                        }
                    }
                    Err(error) => {
                        self.sync_failures += 1;
                        tracing::error!(
                            job = self.config.job_name,
                            error,
                            "creating target failed: instance {i} in group {}",
                            group.source
                        );
                    }
                }
            }
        }
        wanted
    }

    fn refresh_limit(&self, targets: usize) {
        let limit = self.config.limits.targets;
        let exceeded = limit > 0 && targets as u64 > limit;
        if exceeded {
            self.shared.counters.exceeded_target_limit.inc();
        }
        *self.forced_error.lock() =
            exceeded.then(|| format!("target_limit exceeded (number of targets: {targets}, limit: {limit})"));
    }

    fn fresh(&self, target: &Arc<Target>) -> Box<Ingest> {
        let counters = Arc::clone(&self.shared.counters);
        Box::new(Ingest::new(Arc::clone(&self.config), Arc::clone(target), counters))
    }

    fn start(&mut self, key: TargetKey, target: Arc<Target>, start: Start) {
        let (stop, stopped) = oneshot::channel();
        let worker = Worker {
            shared: self.shared.clone(),
            target: Arc::clone(&target),
            client: Arc::clone(&self.client),
            forced_error: Arc::clone(&self.forced_error),
            offset_seed: self.offset_seed,
        };
        spawn(&self.tasks, worker.run(start, stopped));
        self.running.insert(key, Running { target, stop });
    }

    /// Takes another configuration of the same job. If only discovery changed, loops run on.
    /// Otherwise every loop is replaced; what the loops know of their series is kept if samples are
    /// still labelled in the same way.
    pub(super) fn reload(&mut self, config: &Arc<ScrapeConfig>, offset_seed: u64) -> Result<(), String> {
        if without_discovery(&self.config) == without_discovery(config) {
            self.set_discovery(config);
            self.sync();
            return Ok(());
        }
        self.shared.counters.pool_reloads.inc();
        let client =
            PageClient::try_new(config).inspect_err(|_| self.shared.counters.pool_reloads_failed.inc())?;
        let keep_caches = what_labels(&self.config) == what_labels(config);
        self.set_discovery(config);
        self.client = Arc::new(client);
        self.offset_seed = offset_seed;

        let wanted = self.wanted();
        self.refresh_limit(wanted.len());
        let mut before = std::mem::take(&mut self.running);
        for (key, target) in wanted {
            let target = Arc::new(target);
            let fresh = self.fresh(&target);
            // A changed interval is part of the key, but not of what a sample is labelled with.
            let predecessor = before.remove(&key).or_else(|| {
                let same = before.iter().find(|(_, r)| {
                    r.target.labels == target.labels && r.target.key.shown_url == target.key.shown_url
                });
                let key = same.map(|(key, _)| key.clone())?;
                before.remove(&key)
            });
            let start = match predecessor {
                Some(predecessor) if keep_caches => {
                    *target.status.lock() = predecessor.target.status.lock().clone();
                    let (send, handed_over) = oneshot::channel();
                    match predecessor.stop.send(Stop::HandOver(send)) {
                        Ok(()) => Start::After { handed_over, fresh },
                        Err(_) => Start::With(fresh),
                    }
                }
                Some(predecessor) => {
                    let _ = predecessor.stop.send(Stop::Removed);
                    Start::With(fresh)
                }
                None => Start::With(fresh),
            };
            self.start(key, target, start);
        }
        for (_, gone) in before {
            let _ = gone.stop.send(Stop::Removed);
        }
        Ok(())
    }

    /// Ends all loops: the job is no more.
    pub(super) fn stop(&mut self) {
        for (_, running) in self.running.drain() {
            let _ = running.stop.send(Stop::Removed);
        }
    }

    pub(super) fn active(&self) -> Vec<ActiveTarget> {
        let mut active: Vec<ActiveTarget> =
            self.running.values().map(|r| ActiveTarget::new(&self.config.job_name, &r.target)).collect();
        active.sort_by(|a, b| a.scrape_url.cmp(&b.scrape_url).then_with(|| a.labels.cmp(&b.labels)));
        active
    }

    pub(super) fn dropped(&self) -> (Vec<DroppedTarget>, usize) {
        let dropped = self
            .dropped
            .iter()
            .map(|labels| DroppedTarget {
                discovered_labels: labels.clone(),
                scrape_pool: self.config.job_name.clone(),
            })
            .collect();
        (dropped, self.dropped_count)
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.running.values().map(|r| &r.target)
    }

    pub(super) fn metrics(&self) -> JobMetrics {
        JobMetrics {
            job: self.config.job_name.clone(),
            targets: self.running.len() as u64,
            target_limit: self.config.limits.targets,
            syncs: self.syncs,
            sync_failures: self.sync_failures,
            sync_length: self.sync_length,
            discovered_targets: self.groups.values().map(|g| g.targets.len() as u64).sum(),
        }
    }
}

/// The part of a configuration that decides which samples there are and how they are labelled.
fn what_labels(config: &ScrapeConfig) -> ScrapeConfig {
    ScrapeConfig {
        scrape_interval: std::time::Duration::ZERO,
        scrape_timeout: std::time::Duration::ZERO,
        limits: ScrapeLimits { samples: 0, ..config.limits },
        http: HttpClientConfig::default(),
        ..without_discovery(config)
    }
}

fn without_discovery(config: &ScrapeConfig) -> ScrapeConfig {
    ScrapeConfig { static_configs: Vec::new(), file_sd_configs: Vec::new(), ..config.clone() }
}
