//! Reads the configuration, and reads it again when asked.
//!
//! A configuration that cannot be read or applied changes nothing: the one in force stays.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::RwLock;
use promontory_promql::Engine;
use promontory_tsdb::{Clock, Db, Retention};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::lifecycle::ReloadReply;
use crate::config::{Config, ConfigError};
use crate::scrape::ScrapeManager;
use crate::server::reachable;

/// Read when `--config.file` is not given, if it is there.
const DEFAULT_CONFIG_FILE: &str = "prometheus.yml";

/// The configuration that is in force.
#[derive(Debug, Default)]
pub(crate) struct ConfigState {
    yaml: RwLock<String>,
    last_reload_ok: AtomicBool,
    last_success_ms: AtomicI64,
}

impl ConfigState {
    /// The configuration as text, secrets masked.
    pub(crate) fn yaml(&self) -> String {
        self.yaml.read().clone()
    }

    pub(crate) fn last_reload_ok(&self) -> bool {
        self.last_reload_ok.load(Ordering::Relaxed)
    }

    pub(crate) fn last_success_ms(&self) -> i64 {
        self.last_success_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn applied(&self, config: &Config, now_ms: i64) {
        *self.yaml.write() = config.to_yaml();
        self.last_reload_ok.store(true, Ordering::Relaxed);
        self.last_success_ms.store(now_ms, Ordering::Relaxed);
    }

    fn failed(&self) {
        self.last_reload_ok.store(false, Ordering::Relaxed);
    }
}

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub(crate) struct ConfigFile(Option<PathBuf>);

impl ConfigFile {
    pub(crate) fn find(given: Option<PathBuf>) -> Self {
        let default = || Some(PathBuf::from(DEFAULT_CONFIG_FILE)).filter(|path| path.exists());
        Self(given.or_else(default))
    }

    pub(crate) fn load(&self, http_addr: SocketAddr) -> Result<Config, ConfigError> {
        match &self.0 {
            Some(path) => Self::load_file(path),
            None => {
                tracing::info!("no configuration file; the server scrapes itself");
                Ok(Config::embedded_default(reachable(http_addr)))
            }
        }
    }

    fn load_file(path: &Path) -> Result<Config, ConfigError> {
        let (config, warnings) = Config::load(path)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        tracing::info!(file = %path.display(), "configuration loaded");
        Ok(config)
    }
}

/// What the command line says about storage that a configuration file may overrule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StorageFlags {
    pub(crate) retention: Retention,
    /// Whether exemplars are kept.
    pub(crate) exemplars: bool,
}

impl StorageFlags {
    /// How many exemplars are kept unless the file says something else.
    const EXEMPLARS_MAX: usize = 100_000;

    /// What is kept together with a configuration file.
    pub(crate) fn retention(self, config: &Config) -> Retention {
        config.storage.retention_with(self.retention)
    }

    /// How many exemplars are kept together with a configuration file.
    pub(crate) fn exemplars_max(self, config: &Config) -> usize {
        match self.exemplars {
            true => config.storage.exemplars_max.unwrap_or(Self::EXEMPLARS_MAX),
            false => 0,
        }
    }
}

/// Reads the configuration again when asked, one request at a time.
pub(crate) struct Reloader {
    pub(crate) file: ConfigFile,
    pub(crate) http_addr: SocketAddr,
    pub(crate) scrapes: Arc<ScrapeManager>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) db: Arc<Db>,
    pub(crate) storage_flags: StorageFlags,
    pub(crate) config_state: Arc<ConfigState>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Reloader {
    pub(crate) async fn run(self, mut requests: mpsc::Receiver<ReloadReply>, token: CancellationToken) {
        loop {
            let reply = tokio::select! {
                () = token.cancelled() => return,
                request = requests.recv() => match request {
                    Some(reply) => reply,
                    None => return,
                },
            };
            let outcome = self.reload().await;
            if let Err(e) = &outcome {
                self.config_state.failed();
                tracing::error!(error = e, "the configuration was not reloaded; the old one stays in force");
            }
            // The one who asked may have gone away.
            let _ = reply.send(outcome);
        }
    }

    async fn reload(&self) -> Result<(), String> {
        match self.file.load(self.http_addr) {
            Ok(config) => {
                self.scrapes.apply(&config).await.map_err(|e| e.to_string())?;
                self.db.set_retention(self.storage_flags.retention(&config));
                self.db.exemplars().resize(self.storage_flags.exemplars_max(&config));
                let window_ms = config.storage.out_of_order_window_ms;
                self.db.set_out_of_order_window_ms(window_ms).map_err(|e| e.to_string())?;
                self.engine
                    .set_default_subquery_step_ms(config.global.evaluation_interval.as_millis() as i64);
                self.config_state.applied(&config, self.clock.now_ms());
                Ok(())
            }
            Err(e) => Err(e.to_string()),
        }
    }
}
