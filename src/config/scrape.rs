//! A job: one entry of `scrape_configs`.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::global::GlobalConfig;
use super::http::HttpClientConfig;
use super::join_directory;
use super::reader::{Item, Notes, Result, Section};
use crate::exposition::{Format, PageFormat};
use crate::relabel::{Action, NameValidation, Rule, RuleConfig};

/// Service discovery mechanisms that Prometheus has and this build does not.
const UNSERVED_DISCOVERY: [&str; 35] = [
    "aws",
    "azure",
    "consul",
    "digitalocean",
    "dns",
    "docker",
    "dockerswarm",
    "ec2",
    "ecs",
    "elasticache",
    "eureka",
    "gce",
    "hetzner",
    "http",
    "ionos",
    "kubernetes",
    "kuma",
    "lightsail",
    "linode",
    "marathon",
    "msk",
    "nerve",
    "nomad",
    "oci",
    "openstack",
    "outscale",
    "ovhcloud",
    "puppetdb",
    "rds",
    "scaleway",
    "serverset",
    "stackit",
    "triton",
    "uyuni",
    "vultr",
];

/// A format to ask targets for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScrapeProtocol {
    /// Length-delimited protobuf, the format that has native histograms.
    PrometheusProto,
    /// Prometheus text 0.0.4.
    PrometheusText0_0_4,
    /// Prometheus text 1.0.0.
    PrometheusText1_0_0,
    /// OpenMetrics 0.0.1.
    OpenMetricsText0_0_1,
    /// OpenMetrics 1.0.0.
    OpenMetricsText1_0_0,
}

impl ScrapeProtocol {
    /// What targets are asked for unless a file says otherwise, best first.
    pub const DEFAULT: [Self; 4] = [
        Self::OpenMetricsText1_0_0,
        Self::OpenMetricsText0_0_1,
        Self::PrometheusText1_0_0,
        Self::PrometheusText0_0_4,
    ];

    /// As [`ScrapeProtocol::DEFAULT`], for jobs that scrape native histograms.
    pub const PROTOBUF_FIRST: [Self; 5] = [
        Self::PrometheusProto,
        Self::OpenMetricsText1_0_0,
        Self::OpenMetricsText0_0_1,
        Self::PrometheusText1_0_0,
        Self::PrometheusText0_0_4,
    ];

    /// The name in config files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PrometheusProto => "PrometheusProto",
            Self::PrometheusText0_0_4 => "PrometheusText0.0.4",
            Self::PrometheusText1_0_0 => "PrometheusText1.0.0",
            Self::OpenMetricsText0_0_1 => "OpenMetricsText0.0.1",
            Self::OpenMetricsText1_0_0 => "OpenMetricsText1.0.0",
        }
    }

    /// The media type for an `Accept` header.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::PrometheusProto => {
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
            }
            Self::PrometheusText0_0_4 => "text/plain;version=0.0.4",
            Self::PrometheusText1_0_0 => "text/plain;version=1.0.0",
            Self::OpenMetricsText0_0_1 => "application/openmetrics-text;version=0.0.1",
            Self::OpenMetricsText1_0_0 => "application/openmetrics-text;version=1.0.0",
        }
    }

    /// How to read the format.
    pub fn format(self) -> PageFormat {
        match self {
            Self::PrometheusProto => PageFormat::Protobuf,
            Self::PrometheusText0_0_4 | Self::PrometheusText1_0_0 => PageFormat::Text(Format::PrometheusText),
            Self::OpenMetricsText0_0_1 | Self::OpenMetricsText1_0_0 => PageFormat::Text(Format::OpenMetrics),
        }
    }

    fn parse(name: &str) -> std::result::Result<Self, String> {
        // Sorted, as the error lists them.
        let all = [
            Self::OpenMetricsText0_0_1,
            Self::OpenMetricsText1_0_0,
            Self::PrometheusProto,
            Self::PrometheusText0_0_4,
            Self::PrometheusText1_0_0,
        ];
        all.into_iter().find(|p| p.as_str() == name).ok_or_else(|| {
            format!("unknown scrape protocol {name}, supported: [{}]", all.map(Self::as_str).join(" "))
        })
    }
}

/// How a target is asked to write names that are not plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EscapingScheme {
    /// As they are.
    AllowUtf8,
    /// Other characters become underscores.
    Underscores,
    /// Dots become `_dot_`, other characters underscores.
    Dots,
    /// Other characters become their code points.
    Values,
}

impl EscapingScheme {
    /// The name in config files and in `Accept` headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllowUtf8 => "allow-utf-8",
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
        }
    }

    pub(super) fn read(section: &mut Section, notes: &Notes) -> Result<Option<Self>> {
        let Some(item) = section.take("metric_name_escaping_scheme") else { return Ok(None) };
        match item.string(notes)?.as_str() {
            "" => Ok(None),
            "allow-utf-8" => Ok(Some(Self::AllowUtf8)),
            "underscores" => Ok(Some(Self::Underscores)),
            "dots" => Ok(Some(Self::Dots)),
            "values" => Ok(Some(Self::Values)),
            other => Err(notes.error(
                &item.at,
                format!("unknown name escaping method specified, must be one of 'allow-utf-8', 'underscores', 'dots', or 'values', got {other:?}"),
            )),
        }
    }
}

/// What a scrape may not exceed; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrapeLimits {
    /// Uncompressed body, in bytes.
    pub body_size_bytes: u64,
    /// Samples after relabelling.
    pub samples: u64,
    /// Targets of a job.
    pub targets: u64,
    /// Labels of a series.
    pub labels: u64,
    /// Bytes of a label's name.
    pub label_name_bytes: u64,
    /// Bytes of a label's value.
    pub label_value_bytes: u64,
    /// Dropped targets that are remembered.
    pub keep_dropped_targets: u64,
}

impl ScrapeLimits {
    pub(super) fn read(section: &mut Section, notes: &Notes) -> Result<Self> {
        let mut number = |key| section.number(notes, key).map(Option::unwrap_or_default);
        Ok(Self {
            samples: number("sample_limit")?,
            targets: number("target_limit")?,
            labels: number("label_limit")?,
            label_name_bytes: number("label_name_length_limit")?,
            label_value_bytes: number("label_value_length_limit")?,
            keep_dropped_targets: number("keep_dropped_targets")?,
            body_size_bytes: section.bytes(notes, "body_size_limit")?.unwrap_or_default(),
        })
    }

    fn or(self, global: Self) -> Self {
        let or = |own: u64, global: u64| if own == 0 { global } else { own };
        Self {
            body_size_bytes: or(self.body_size_bytes, global.body_size_bytes),
            samples: or(self.samples, global.samples),
            targets: or(self.targets, global.targets),
            labels: or(self.labels, global.labels),
            label_name_bytes: or(self.label_name_bytes, global.label_name_bytes),
            label_value_bytes: or(self.label_value_bytes, global.label_value_bytes),
            keep_dropped_targets: or(self.keep_dropped_targets, global.keep_dropped_targets),
        }
    }
}

/// An entry of `static_configs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticConfig {
    /// Addresses.
    pub targets: Vec<String>,
    /// Labels that all of them get.
    pub labels: Vec<(String, String)>,
}

/// An entry of `file_sd_configs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSdConfig {
    /// Patterns of files.
    pub files: Vec<String>,
    /// How often to read them even if nothing seems to change.
    pub refresh_interval: Duration,
}

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub struct ScrapeConfig {
    /// Its name, the `job` label.
    pub job_name: String,
    /// Whether scraped labels win over the target's.
    pub honor_labels: bool,
    /// Whether timestamps in pages count.
    pub honor_timestamps: bool,
    /// Whether series with timestamps of their own get stale markers too.
    pub track_timestamps_staleness: bool,
    /// Query parameters, in the order written.
    pub params: Vec<(String, Vec<String>)>,
    /// Time between scrapes.
    pub scrape_interval: Duration,
    /// How long a scrape may take.
    pub scrape_timeout: Duration,
    /// Formats to ask for, best first.
    pub scrape_protocols: Vec<ScrapeProtocol>,
    /// Whether native histograms are stored as such.
    pub scrape_native_histograms: bool,
    /// Whether classic buckets are stored beside native ones.
    pub always_scrape_classic_histograms: bool,
    /// Format of pages that do not say what they are.
    pub fallback_scrape_protocol: Option<ScrapeProtocol>,
    /// Path on the target.
    pub metrics_path: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Whether to ask for a compressed page.
    pub enable_compression: bool,
    /// Limits.
    pub limits: ScrapeLimits,
    /// Which names are valid.
    pub name_validation: NameValidation,
    /// How names are to be escaped.
    pub name_escaping: EscapingScheme,
    /// Whether to store three more report series.
    pub extra_scrape_metrics: bool,
    /// How to make requests.
    pub http: HttpClientConfig,
    /// Rules for targets.
    pub relabel_configs: Vec<Rule>,
    /// Rules for scraped series.
    pub metric_relabel_configs: Vec<Rule>,
    /// Targets that are written out.
    pub static_configs: Vec<StaticConfig>,
    /// Targets that are in files.
    pub file_sd_configs: Vec<FileSdConfig>,
}

impl ScrapeConfig {
    /// A job with nothing but defaults.
    pub fn new(job_name: impl Into<String>, global: &GlobalConfig) -> Self {
        Self {
            job_name: job_name.into(),
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            params: Vec::new(),
            scrape_interval: global.scrape_interval,
            scrape_timeout: global.scrape_timeout.min(global.scrape_interval),
            scrape_protocols: global
                .scrape_protocols
                .clone()
                .unwrap_or_else(|| default_protocols(global.scrape_native_histograms)),
            scrape_native_histograms: global.scrape_native_histograms,
            always_scrape_classic_histograms: global.always_scrape_classic_histograms,
            fallback_scrape_protocol: None,
            metrics_path: "/metrics".to_owned(),
            scheme: "http".to_owned(),
            enable_compression: true,
            limits: global.limits,
            name_validation: global.name_validation,
            name_escaping: global.name_escaping.unwrap_or(default_escaping(global.name_validation)),
            extra_scrape_metrics: global.extra_scrape_metrics,
            http: HttpClientConfig::default(),
            relabel_configs: Vec::new(),
            metric_relabel_configs: Vec::new(),
            static_configs: Vec::new(),
            file_sd_configs: Vec::new(),
        }
    }

    pub(super) fn read(
        mut section: Section,
        global: &GlobalConfig,
        directory: &Path,
        notes: &mut Notes,
    ) -> Result<Self> {
        let at = section.at.clone();
        let job_name = section.string(notes, "job_name")?.unwrap_or_default();
        if job_name.is_empty() {
            return Err(notes.error(&at, "job_name is empty"));
        }
        let mut job = Self::new(job_name, global);
        job.read_switches(&mut section, notes)?;
        job.read_timing(&mut section, global, notes)?;
        job.read_formats(&mut section, global, notes)?;
        job.http = HttpClientConfig::read(&mut section, directory, notes)?;
        job.relabel_configs =
            read_rules(&mut section, "relabel_configs", "target", job.name_validation, notes)?;
        job.metric_relabel_configs =
            read_rules(&mut section, "metric_relabel_configs", "metric", job.name_validation, notes)?;
        job.read_discovery(&mut section, directory, notes)?;
        read_unserved(&mut section, notes)?;
        section.finish(notes)?;
        Ok(job)
    }

    fn read_switches(&mut self, section: &mut Section, notes: &mut Notes) -> Result<()> {
        self.honor_labels = section.bool(notes, "honor_labels")?.unwrap_or(self.honor_labels);
        self.honor_timestamps = section.bool(notes, "honor_timestamps")?.unwrap_or(self.honor_timestamps);
        self.track_timestamps_staleness =
            section.bool(notes, "track_timestamps_staleness")?.unwrap_or(self.track_timestamps_staleness);
        self.enable_compression =
            section.bool(notes, "enable_compression")?.unwrap_or(self.enable_compression);
        self.extra_scrape_metrics =
            section.bool(notes, "extra_scrape_metrics")?.unwrap_or(self.extra_scrape_metrics);
        self.params = section.string_list_map(notes, "params")?;
        self.metrics_path =
            section.string(notes, "metrics_path")?.unwrap_or_else(|| self.metrics_path.clone());
        self.scheme = section.string(notes, "scheme")?.unwrap_or_else(|| self.scheme.clone());
        self.limits = ScrapeLimits::read(section, notes)?.or(self.limits);
        Ok(())
    }

    fn read_timing(&mut self, section: &mut Section, global: &GlobalConfig, notes: &Notes) -> Result<()> {
        let nonzero = |d: &Duration| !d.is_zero();
        if let Some(interval) = section.duration(notes, "scrape_interval")?.filter(nonzero) {
            self.scrape_interval = interval;
        }
        let timeout = section.take("scrape_timeout");
        let at = timeout.as_ref().map_or(&section.at, |item| &item.at).clone();
        let timeout = timeout.map(|item| item.duration(notes)).transpose()?.filter(nonzero);
        if timeout.is_some_and(|t| t > self.scrape_interval) {
            let reason = format!(
                "scrape timeout greater than scrape interval for scrape config with job name {:?}",
                self.job_name
            );
            return Err(notes.error(&at, reason));
        }
        self.scrape_timeout = timeout.unwrap_or(global.scrape_timeout.min(self.scrape_interval));
        Ok(())
    }

    fn read_formats(&mut self, section: &mut Section, global: &GlobalConfig, notes: &Notes) -> Result<()> {
        if let Some(native) = section.bool(notes, "scrape_native_histograms")? {
            self.scrape_native_histograms = native;
            if global.scrape_protocols.is_none() {
                self.scrape_protocols = default_protocols(native);
            }
        }
        if let Some(classic) = section.bool(notes, "always_scrape_classic_histograms")? {
            self.always_scrape_classic_histograms = classic;
        }
        if let Some(protocols) = read_protocols(section, notes)? {
            self.scrape_protocols = protocols;
        }
        if let Some(item) = section.take("fallback_scrape_protocol") {
            let name = item.string(notes)?;
            let protocol = ScrapeProtocol::parse(&name).map_err(|e| {
                let job = &self.job_name;
                let reason =
                    format!("invalid fallback_scrape_protocol for scrape config with job name {job:?}: {e}");
                notes.error(&item.at, reason)
            })?;
            self.fallback_scrape_protocol = Some(protocol);
        }
        let own_validation = read_validation(section, notes)?;
        self.name_validation = own_validation.unwrap_or(global.name_validation);
        let at = section.at.clone();
        self.name_escaping = match (EscapingScheme::read(section, notes)?, own_validation) {
            (Some(scheme), _) => scheme,
            (None, Some(validation)) => default_escaping(validation),
            (None, None) => global.name_escaping.unwrap_or(default_escaping(global.name_validation)),
        };
        if self.name_escaping == EscapingScheme::AllowUtf8 && self.name_validation == NameValidation::Legacy {
            let reason = "utf8 metric names requested but validation scheme is not set to UTF8";
            return Err(notes.error(&at, reason));
        }
        Ok(())
    }

    fn read_discovery(&mut self, section: &mut Section, directory: &Path, notes: &Notes) -> Result<()> {
        for item in section.list(notes, "static_configs")? {
            if item.is_null() {
                return Err(notes.error(&item.at, "empty or null section in static_configs"));
            }
            self.static_configs.push(read_static(item, self.relabel_configs.is_empty(), notes)?);
        }
        for item in section.list(notes, "file_sd_configs")? {
            if item.is_null() {
                return Err(notes.error(&item.at, "empty or null section in file_sd_configs"));
            }
            self.file_sd_configs.push(read_file_sd(item, directory, notes)?);
        }
        Ok(())
    }
}

fn read_static(item: Item, check_addresses: bool, notes: &Notes) -> Result<StaticConfig> {
    let mut section = item.section(notes)?;
    let mut targets = Vec::new();
    for item in section.list(notes, "targets")? {
        let address = item.string(notes)?;
        // A rule may still turn a URL into an address.
        if check_addresses && address.contains('/') {
            return Err(notes.error(&item.at, format!("{address:?} is not a valid hostname")));
        }
        targets.push(address);
    }
    let mut labels = Vec::new();
    for (at, name, value) in section.string_map(notes, "labels")? {
        if name.is_empty() {
            return Err(notes.error(&at, format!("{name:?} is not a valid label name")));
        }
        labels.push((name, value));
    }
    section.finish(notes)?;
    Ok(StaticConfig { targets, labels })
}

fn read_file_sd(item: Item, directory: &Path, notes: &Notes) -> Result<FileSdConfig> {
    let mut section = item.section(notes)?;
    let at = section.at.clone();
    let mut files = Vec::new();
    for item in section.list(notes, "files")? {
        let name = item.string(notes)?;
        if !is_file_sd_pattern(&name) {
            return Err(notes.error(&item.at, format!("path name {name:?} is not valid for file discovery")));
        }
        files.push(join_directory(directory, &name));
    }
    if files.is_empty() {
        let reason = "file service discovery config must contain at least one path name";
        return Err(notes.error(&at, reason));
    }
    let refresh_interval = section
        .duration(notes, "refresh_interval")?
        .filter(|d| !d.is_zero())
        .unwrap_or(Duration::from_secs(300));
    section.finish(notes)?;
    Ok(FileSdConfig { files, refresh_interval })
}

/// `*` only in the last segment, and an extension that says how to read it.
fn is_file_sd_pattern(path: &str) -> bool {
    let extension = path.rsplit_once('.').map(|(_, extension)| extension);
    matches!(extension, Some("json" | "yml" | "yaml" | "JSON" | "YML" | "YAML")) && super::is_pattern(path)
}

fn read_unserved(section: &mut Section, notes: &mut Notes) -> Result<()> {
    section.unserved_flag(notes, "convert_classic_histograms_to_nhcb")?;
    for key in
        ["scrape_failure_log_file", "native_histogram_bucket_limit", "native_histogram_min_bucket_factor"]
    {
        section.unserved(notes, key);
    }
    for mechanism in UNSERVED_DISCOVERY {
        section.unserved(notes, &format!("{mechanism}_sd_configs"));
    }
    Ok(())
}

/// What a job asks for that says nothing about it.
fn default_protocols(native_histograms: bool) -> Vec<ScrapeProtocol> {
    match native_histograms {
        true => ScrapeProtocol::PROTOBUF_FIRST.to_vec(),
        false => ScrapeProtocol::DEFAULT.to_vec(),
    }
}

fn default_escaping(validation: NameValidation) -> EscapingScheme {
    match validation {
        NameValidation::Utf8 => EscapingScheme::AllowUtf8,
        NameValidation::Legacy => EscapingScheme::Underscores,
    }
}

pub(super) fn read_validation(section: &mut Section, notes: &Notes) -> Result<Option<NameValidation>> {
    let Some(item) = section.take("metric_name_validation_scheme") else { return Ok(None) };
    match item.string(notes)?.as_str() {
        "" => Ok(None),
        "utf8" => Ok(Some(NameValidation::Utf8)),
        "legacy" => Ok(Some(NameValidation::Legacy)),
        other => Err(notes.error(&item.at, format!("unrecognized ValidationScheme: {other:?}"))),
    }
}

pub(super) fn read_protocols(section: &mut Section, notes: &Notes) -> Result<Option<Vec<ScrapeProtocol>>> {
    let Some(item) = section.take("scrape_protocols") else { return Ok(None) };
    let at = item.at.clone();
    let mut protocols = Vec::new();
    for item in item.list(notes)? {
        let protocol = ScrapeProtocol::parse(&item.string(notes)?)
            .map_err(|e| notes.error(&item.at, format!("scrape_protocols: {e}")))?;
        if protocols.contains(&protocol) {
            return Err(notes.error(&item.at, "duplicated protocol in scrape_protocols"));
        }
        protocols.push(protocol);
    }
    if protocols.is_empty() {
        return Err(notes.error(&at, "scrape_protocols cannot be empty"));
    }
    Ok(Some(protocols))
}

fn read_rules(
    section: &mut Section,
    key: &str,
    of: &str,
    validation: NameValidation,
    notes: &Notes,
) -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for item in section.list(notes, key)? {
        if item.is_null() {
            let reason = format!("empty or null {of} relabeling rule in scrape config");
            return Err(notes.error(&item.at, reason));
        }
        let mut section = item.section(notes)?;
        let at = section.at.clone();
        let mut config = RuleConfig {
            source_labels: section.strings(notes, "source_labels")?.unwrap_or_default(),
            separator: section.string(notes, "separator")?,
            regex: section.string(notes, "regex")?,
            modulus: section.number(notes, "modulus")?.unwrap_or_default(),
            target_label: section.string(notes, "target_label")?.unwrap_or_default(),
            replacement: section.string(notes, "replacement")?,
            ..RuleConfig::default()
        };
        if let Some(item) = section.take("action") {
            let name = item.string(notes)?;
            config.action = Action::parse(&name).map_err(|reason| notes.error(&item.at, reason))?;
        }
        section.finish(notes)?;
        rules.push(Rule::try_new(config, validation).map_err(|reason| notes.error(&at, reason))?);
    }
    Ok(rules)
}

impl fmt::Display for ScrapeProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
