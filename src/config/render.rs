//! A configuration back as YAML.

use std::time::Duration;

use promontory_sql::ExternalFormat;
use promontory_tsdb::chunkenc::Encoding;
use promontory_tsdb::{Labels, Retention};
use serde_yaml_ng::{Mapping, Value};

use super::http::{AuthConfig, HttpClientConfig, PasswordSource};
use super::scrape::{ScrapeConfig, ScrapeLimits, ScrapeProtocol};
use super::sql::SqlConfig;
use super::storage::StorageConfig;
use super::units::{format_bytes, format_duration};
use super::{Config, GlobalConfig};
use crate::relabel::Rule;

const MASK: &str = "<secret>";

pub(super) fn render(config: &Config) -> String {
    let mut root = Map::default();
    root.put("global", global(&config.global));
    storage(&mut root, &config.storage);
    sql(&mut root, &config.sql);
    root.list("scrape_config_files", config.scrape_config_files.iter().map(|f| Value::from(f.as_str())));
    root.list("scrape_configs", config.scrape_configs.iter().map(job));
    serde_yaml_ng::to_string(&root.0).unwrap_or_else(|e| format!("<error creating config string: {e}>"))
}

/// A map in the order it is written, without what is empty.
#[derive(Default)]
struct Map(Mapping);

impl Map {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(Value::from(key), value.into());
    }

    fn count(&mut self, key: &str, n: u64) {
        if n > 0 {
            self.put(key, n);
        }
    }

    fn list(&mut self, key: &str, values: impl IntoIterator<Item = Value>) {
        let values: Vec<Value> = values.into_iter().collect();
        if !values.is_empty() {
            self.put(key, Value::Sequence(values));
        }
    }

    fn flag(&mut self, key: &str, on: bool) {
        if on {
            self.put(key, true);
        }
    }
}

impl From<Map> for Value {
    fn from(map: Map) -> Self {
        Value::Mapping(map.0)
    }
}

fn storage(root: &mut Map, config: &StorageConfig) {
    let mut map = Map::default();
    let mut tsdb = Map::default();
    if config.out_of_order_window_ms > 0 {
        let window = Duration::from_millis(config.out_of_order_window_ms.unsigned_abs());
        tsdb.put("out_of_order_time_window", format_duration(window));
    }
    if let Some(encoding) = config.float_encoding {
        let name = if encoding == Encoding::Xor2 { "xor2" } else { "xor" };
        tsdb.put("chunk_encoding", nested("floats", name));
    }
    if let Some(Retention { time_ms, bytes, percentage }) = config.retention {
        let mut retention = Map::default();
        if let Some(ms) = time_ms {
            retention.put("time", format_duration(Duration::from_millis(ms.unsigned_abs())));
        }
        if let Some(bytes) = bytes {
            retention.put("size", format_bytes(bytes));
        }
        if let Some(percentage) = percentage {
            retention.put("percentage", percentage);
        }
        tsdb.put("retention", retention);
    }
    if !tsdb.0.is_empty() {
        map.put("tsdb", tsdb);
    }
    if let Some(max) = config.exemplars_max {
        let mut exemplars = Map::default();
        exemplars.put("max_exemplars", max as u64);
        map.put("exemplars", exemplars);
    }
    if !map.0.is_empty() {
        root.put("storage", map);
    }
}

fn sql(root: &mut Map, config: &SqlConfig) {
    let mut map = Map::default();
    map.list(
        "users",
        config.users.iter().map(|user| {
            let mut one = Map::default();
            one.put("name", user.name.as_str());
            one.put("verifier", MASK);
            if let Some(schemas) = user.access.schemas() {
                one.put("schemas", schemas.map(Value::from).collect::<Vec<_>>());
            }
            one.flag("create", user.access.may_create());
            one.into()
        }),
    );
    if let Some(tls) = &config.tls {
        let mut one = Map::default();
        one.put("cert_file", tls.cert_file.display().to_string());
        one.put("key_file", tls.key_file.display().to_string());
        one.flag("required", tls.required);
        map.put("tls", one);
    }
    map.count("max_connections", config.max_connections.unwrap_or(0) as u64);
    if let Some(timeout) = config.statement_timeout {
        map.put("statement_timeout", format_duration(timeout));
    }
    map.list(
        "external",
        config.external.tables.iter().map(|table| {
            let mut one = Map::default();
            one.put("name", table.name.as_str());
            one.put("path", table.location.to_string());
            one.put("format", table.format.name());
            if let ExternalFormat::Csv { header, delimiter } = table.format {
                one.put("header", header);
                one.put("delimiter", char::from(delimiter).to_string());
            }
            one.into()
        }),
    );
    if !config.external.folders.is_empty() {
        let folders = config.external.folders.iter().map(|folder| Value::from(folder.to_string()));
        map.put("external_folders", folders.collect::<Vec<_>>());
    }
    map.list(
        "object_stores",
        config.external.stores.iter().map(|store| {
            let mut one = Map::default();
            one.put("url", store.bucket());
            let mut options = Map::default();
            store.keys().for_each(|key| options.put(key, MASK));
            one.put("options", options);
            one.into()
        }),
    );
    if !map.0.is_empty() {
        root.put("sql", map);
    }
}

fn nested(key: &str, value: impl Into<Value>) -> Map {
    let mut map = Map::default();
    map.put(key, value);
    map
}

fn global(global: &GlobalConfig) -> Value {
    let mut map = Map::default();
    map.put("scrape_interval", format_duration(global.scrape_interval));
    map.put("scrape_timeout", format_duration(global.scrape_timeout));
    protocols(&mut map, global.scrape_protocols.as_deref().unwrap_or_default());
    map.put("evaluation_interval", format_duration(global.evaluation_interval));
    labels(&mut map, "external_labels", &global.external_labels);
    limits(&mut map, global.limits);
    map.flag("scrape_native_histograms", global.scrape_native_histograms);
    map.flag("always_scrape_classic_histograms", global.always_scrape_classic_histograms);
    map.flag("extra_scrape_metrics", global.extra_scrape_metrics);
    map.into()
}

fn protocols(map: &mut Map, protocols: &[ScrapeProtocol]) {
    map.list("scrape_protocols", protocols.iter().map(|p| Value::from(p.as_str())));
}

fn labels(map: &mut Map, key: &str, labels: &Labels) {
    let mut pairs = Map::default();
    for (name, value) in labels.iter() {
        pairs.put(name, value);
    }
    if !labels.is_empty() {
        map.put(key, pairs);
    }
}

fn limits(map: &mut Map, limits: ScrapeLimits) {
    if limits.body_size_bytes > 0 {
        map.put("body_size_limit", format_bytes(limits.body_size_bytes));
    }
    map.count("sample_limit", limits.samples);
    map.count("target_limit", limits.targets);
    map.count("label_limit", limits.labels);
    map.count("label_name_length_limit", limits.label_name_bytes);
    map.count("label_value_length_limit", limits.label_value_bytes);
    map.count("keep_dropped_targets", limits.keep_dropped_targets);
}

fn job(job: &ScrapeConfig) -> Value {
    let mut map = Map::default();
    map.put("job_name", job.job_name.as_str());
    map.flag("honor_labels", job.honor_labels);
    map.flag("scrape_native_histograms", job.scrape_native_histograms);
    map.flag("always_scrape_classic_histograms", job.always_scrape_classic_histograms);
    map.put("honor_timestamps", job.honor_timestamps);
    map.put("track_timestamps_staleness", job.track_timestamps_staleness);
    if !job.params.is_empty() {
        let mut params = Map::default();
        for (name, values) in &job.params {
            params.put(name, values.iter().map(|v| Value::from(v.as_str())).collect::<Vec<_>>());
        }
        map.put("params", params);
    }
    map.put("scrape_interval", format_duration(job.scrape_interval));
    map.put("scrape_timeout", format_duration(job.scrape_timeout));
    protocols(&mut map, &job.scrape_protocols);
    if let Some(fallback) = job.fallback_scrape_protocol {
        map.put("fallback_scrape_protocol", fallback.as_str());
    }
    map.put("metrics_path", job.metrics_path.as_str());
    map.put("scheme", job.scheme.as_str());
    map.put("enable_compression", job.enable_compression);
    limits(&mut map, job.limits);
    map.flag("extra_scrape_metrics", job.extra_scrape_metrics);
    http(&mut map, &job.http);
    map.list("relabel_configs", job.relabel_configs.iter().map(rule));
    map.list("metric_relabel_configs", job.metric_relabel_configs.iter().map(rule));
    map.list(
        "static_configs",
        job.static_configs.iter().map(|group| {
            let mut map = Map::default();
            map.put("targets", group.targets.iter().map(|t| Value::from(t.as_str())).collect::<Vec<_>>());
            labels(&mut map, "labels", &Labels::from_pairs(group.labels.iter().map(|(n, v)| (n, v))));
            map.into()
        }),
    );
    map.list(
        "file_sd_configs",
        job.file_sd_configs.iter().map(|sd| {
            let mut map = Map::default();
            map.list("files", sd.files.iter().map(|f| Value::from(f.as_str())));
            map.put("refresh_interval", format_duration(sd.refresh_interval));
            map.into()
        }),
    );
    map.into()
}

fn source(map: &mut Map, key: &str, source: &PasswordSource, secret: bool) {
    match source {
        PasswordSource::Inline(text) if text.reveal().is_empty() => {}
        PasswordSource::Inline(_) if secret => map.put(key, MASK),
        PasswordSource::Inline(text) => map.put(key, text.reveal()),
        PasswordSource::File(path) => map.put(&format!("{key}_file"), path.display().to_string()),
    }
}

fn http(map: &mut Map, http: &HttpClientConfig) {
    match &http.auth {
        Some(AuthConfig::Basic { username, password }) => {
            let mut basic = Map::default();
            source(&mut basic, "username", username, false);
            source(&mut basic, "password", password, true);
            map.put("basic_auth", basic);
        }
        Some(AuthConfig::Header { kind, credentials }) => {
            let mut authorization = Map::default();
            authorization.put("type", kind.as_str());
            source(&mut authorization, "credentials", credentials, true);
            map.put("authorization", authorization);
        }
        None => {}
    }
    let mut tls = Map::default();
    for (key, value, secret) in
        [("ca", &http.tls.ca, false), ("cert", &http.tls.cert, false), ("key", &http.tls.key, true)]
    {
        if let Some(value) = value {
            source(&mut tls, key, value, secret);
        }
    }
    tls.flag("insecure_skip_verify", http.tls.insecure_skip_verify);
    if !tls.0.is_empty() {
        map.put("tls_config", tls);
    }
    map.put("follow_redirects", http.follow_redirects);
    map.put("enable_http2", http.enable_http2);
}

fn rule(rule: &Rule) -> Value {
    let config = rule.config();
    let mut map = Map::default();
    map.list("source_labels", config.source_labels.iter().map(|l| Value::from(l.as_str())));
    for (key, text) in
        [("separator", &config.separator), ("regex", &config.regex), ("replacement", &config.replacement)]
    {
        if let Some(text) = text {
            map.put(key, text.as_str());
        }
    }
    map.count("modulus", config.modulus);
    if !config.target_label.is_empty() {
        map.put("target_label", config.target_label.as_str());
    }
    map.put("action", config.action.as_str());
    map.into()
}
