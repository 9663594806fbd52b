//! `prometheus.yml`: what to scrape, and how.
//!
//! # Strictness
//! A key that Prometheus does not have is an error that names file, line and key. A key that
//! Prometheus has and this build does not serve is accepted with one [`ConfigWarning`] that names it,
//! and has no effect. Everything else is checked while it is read, so a [`Config`] is always valid.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/config/config.go>. Differences: errors
//! carry the position; `scrape_config_files` are read with the file that names them.

mod global;
mod http;
mod reader;
mod render;
mod scrape;
mod sql;
mod storage;
#[cfg(test)]
mod tests;
pub mod units;
mod yaml;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use global::GlobalConfig;
pub use http::{AuthConfig, HttpClientConfig, PasswordSource, Secret, TlsConfig};
use reader::{At, Notes, Section};
pub use scrape::{EscapingScheme, FileSdConfig, ScrapeConfig, ScrapeLimits, ScrapeProtocol, StaticConfig};
pub use sql::{SqlConfig, SqlTlsConfig};
pub use storage::StorageConfig;
pub use units::{format_bytes, parse_bytes};

/// A checked configuration. What is left out of the file has its default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What holds for all jobs.
    pub global: GlobalConfig,
    /// How the data directory is kept.
    pub storage: StorageConfig,
    /// How Postgres clients are served.
    pub sql: SqlConfig,
    /// Patterns of further files with `scrape_configs`, made absolute or relative to the process.
    pub scrape_config_files: Vec<String>,
    /// Jobs of the file itself.
    pub scrape_configs: Vec<ScrapeConfig>,
    /// Jobs of the files in `scrape_config_files`.
    pub included_scrape_configs: Vec<ScrapeConfig>,
}

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1; 0 if the file as a whole is meant.
    pub line: usize,
    /// The key with all keys above it, as `scrape_configs[0].scrape_interval`; may be empty.
    pub key: String,
    /// What is wrong; upstream's words where it has any.
    pub reason: String,
}

/// A part of a configuration that has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigWarning {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// The key with all keys above it.
    pub key: String,
    /// What the user should know.
    pub message: String,
}

fn write_place(f: &mut fmt::Formatter<'_>, file: &Path, line: usize, key: &str) -> fmt::Result {
    write!(f, "{}:", file.display())?;
    if line > 0 {
        write!(f, "{line}:")?;
    }
    if !key.is_empty() {
        write!(f, " {key}:")?;
    }
    f.write_str(" ")
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.file, self.line, &self.key)?;
        f.write_str(&self.reason)
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.file, self.line, &self.key)?;
        f.write_str(&self.message)
    }
}

impl Config {
    /// Reads a file, and the files that its `scrape_config_files` name.
    ///
    /// # Errors
    /// The first thing that is wrong with any of them.
    pub fn load(path: impl AsRef<Path>) -> Result<(Self, Vec<ConfigWarning>), ConfigError> {
        let path = path.as_ref();
        Self::parse(&read(path)?, path)
    }

    /// [`Config::load`] of text that is in memory. `path` names it in messages, and paths in it are
    /// relative to `path`'s directory.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<(Self, Vec<ConfigWarning>), ConfigError> {
        let mut notes = Notes::new(path);
        let mut root = root(&notes, text)?;
        let global = match root.section(&notes, "global")? {
            Some(section) => GlobalConfig::read(section, &mut notes)?,
            None => GlobalConfig::default(),
        };
        let storage = match root.section(&notes, "storage")? {
            Some(section) => StorageConfig::read(section, &mut notes)?,
            None => StorageConfig::default(),
        };
        let directory = directory_of(path);
        let sql = match root.section(&notes, "sql")? {
            Some(section) => SqlConfig::read(section, directory, &notes)?,
            None => SqlConfig::default(),
        };
        let mut scrape_config_files = Vec::new();
        for item in root.list(&notes, "scrape_config_files")? {
            let pattern = item.string(&notes)?;
            if !is_pattern(&pattern) {
                return Err(notes.error(&item.at, format!("invalid scrape config file path {pattern:?}")));
            }
            scrape_config_files.push((item.at, join_directory(directory, &pattern)));
        }
        let scrape_configs = read_scrape_configs(&mut root, &global, directory, &mut notes)?;
        for key in ["runtime", "alerting", "rule_files", "tracing", "remote_write", "remote_read", "otlp"] {
            root.unserved(&mut notes, key);
        }
        root.finish(&notes)?;

        let mut job_names = HashMap::new();
        let mut included = Vec::new();
        check_job_names(&scrape_configs, &notes, None, &mut job_names)?;
        let mut warnings = notes.warnings;
        let main = Notes::new(path);
        for (at, pattern) in &scrape_config_files {
            let files = glob::glob(pattern).map_err(|e| {
                main.error(at, format!("error retrieving scrape config files for {pattern:?}: {e}"))
            })?;
            for file in files.flatten() {
                let mut notes = Notes::new(&file);
                let mut root = self::root(&notes, &read(&file)?)?;
                let jobs = read_scrape_configs(&mut root, &global, directory_of(&file), &mut notes)?;
                root.finish(&notes)?;
                check_job_names(&jobs, &notes, Some(&file), &mut job_names)?;
                included.extend(jobs.into_iter().map(|(_, job)| job));
                warnings.extend(notes.warnings);
            }
        }
        let config = Self {
            global,
            storage,
            sql,
            scrape_config_files: scrape_config_files.into_iter().map(|(_, pattern)| pattern).collect(),
            scrape_configs: scrape_configs.into_iter().map(|(_, job)| job).collect(),
            included_scrape_configs: included,
        };
        Ok((config, warnings))
    }

    /// What the server runs with when it is given no file: it scrapes itself every 5 s.
    pub fn embedded_default(listen: SocketAddr) -> Self {
        let host = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => "localhost".to_owned(),
            IpAddr::V6(ip) if ip.is_unspecified() => "localhost".to_owned(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let global = GlobalConfig {
            scrape_interval: Duration::from_secs(5),
            scrape_timeout: Duration::from_secs(5),
            ..GlobalConfig::default()
        };
        let mut job = ScrapeConfig::new("promontory", &global);
        job.static_configs
            .push(StaticConfig { targets: vec![format!("{host}:{}", listen.port())], labels: Vec::new() });
        Self {
            global,
            storage: StorageConfig::default(),
            sql: SqlConfig::default(),
            scrape_config_files: Vec::new(),
            scrape_configs: vec![job],
            included_scrape_configs: Vec::new(),
        }
    }

    /// All jobs, those of included files too.
    pub fn jobs(&self) -> impl Iterator<Item = &ScrapeConfig> {
        self.scrape_configs.iter().chain(&self.included_scrape_configs)
    }

    /// The configuration as YAML, defaults filled in, secrets shown as `<secret>`. Jobs of included
    /// files are not repeated.
    pub fn to_yaml(&self) -> String {
        render::render(self)
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let whole =
        |reason: String| ConfigError { file: path.to_path_buf(), line: 0, key: String::new(), reason };
    let bytes = std::fs::read(path).map_err(|e| whole(format!("cannot read: {e}")))?;
    String::from_utf8(bytes).map_err(|e| {
        let valid = e.utf8_error().valid_up_to();
        let line = 1 + memchr::memchr_iter(b'\n', &e.as_bytes()[..valid]).count();
        ConfigError { line, ..whole("not valid UTF-8".to_owned()) }
    })
}

fn root(notes: &Notes, text: &str) -> Result<Section, ConfigError> {
    let node =
        yaml::parse(text).map_err(|e| notes.error(&At { line: e.line, key: String::new() }, e.reason))?;
    Section::root(notes, node)
}

fn read_scrape_configs(
    root: &mut Section,
    global: &GlobalConfig,
    directory: &Path,
    notes: &mut Notes,
) -> Result<Vec<(At, ScrapeConfig)>, ConfigError> {
    let mut jobs = Vec::new();
    for item in root.list(notes, "scrape_configs")? {
        if item.is_null() {
            return Err(notes.error(&item.at, "empty or null scrape config section"));
        }
        let section = item.section(notes)?;
        let at = section.at.clone();
        jobs.push((at, ScrapeConfig::read(section, global, directory, notes)?));
    }
    Ok(jobs)
}

/// Refuses a job name that occurs twice. `names` holds where each one was first seen.
fn check_job_names(
    jobs: &[(At, ScrapeConfig)],
    notes: &Notes,
    file: Option<&Path>,
    names: &mut HashMap<String, String>,
) -> Result<(), ConfigError> {
    for (at, job) in jobs {
        let place = file.map_or("main config file".to_owned(), |f| format!("{:?}", f.display().to_string()));
        if let Some(first) = names.get(&job.job_name) {
            let mut reason = format!("found multiple scrape configs with job name {:?}", job.job_name);
            if file.is_some() {
                reason.push_str(&format!(", first found in {first}"));
            }
            return Err(notes.error(at, reason));
        }
        names.insert(job.job_name.clone(), place);
    }
    Ok(())
}

/// `*` only in the last segment.
fn is_pattern(path: &str) -> bool {
    path.split_once('*').is_none_or(|(_, after)| !after.contains('/'))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn join_directory(directory: &Path, path: &str) -> String {
    if path.is_empty() || directory.as_os_str().is_empty() {
        return path.to_owned();
    }
    directory.join(path).to_string_lossy().into_owned()
}
