//! A target: labels, address, and how its last scrape went.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use promontory_tsdb::{Labels, LabelsBuilder, TimestampMs};
use reqwest::Url;

use crate::config::ScrapeConfig;
use crate::config::units::{format_duration, parse_duration};
use crate::relabel;

use super::metadata::MetadataStore;

const RESERVED_PREFIX: &str = "__";
const META_PREFIX: &str = "__meta_";
const PARAM_PREFIX: &str = "__param_";

/// How the last scrape went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// There has been none.
    #[default]
    Unknown,
    /// Well.
    Up,
    /// Badly.
    Down,
}

impl Health {
    /// The word that the HTTP API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// What the last scrape left.
#[derive(Debug, Clone, Default)]
pub(super) struct Status {
    pub(super) health: Health,
    pub(super) last_error: String,
    pub(super) last_scrape_ms: Option<TimestampMs>,
    pub(super) last_duration: Duration,
}

/// Labels that discovery gave, before relabelling.
pub(super) fn discovered_labels(
    config: &ScrapeConfig,
    target: &BTreeMap<String, String>,
    group: &BTreeMap<String, String>,
) -> Labels {
    let mut builder = LabelsBuilder::default();
    for (name, value) in target {
        builder.set(name, value);
    }
    for (name, value) in group {
        if !target.contains_key(name) {
            builder.set(name, value);
        }
    }
    let interval = format_duration(config.scrape_interval);
    let timeout = format_duration(config.scrape_timeout);
    for (name, value) in [
        ("job", config.job_name.as_str()),
        ("__scrape_interval__", &interval),
        ("__scrape_timeout__", &timeout),
        ("__metrics_path__", &config.metrics_path),
        ("__scheme__", &config.scheme),
    ] {
        if builder.get(name).is_none() {
            builder.set(name, value);
        }
    }
    for (name, values) in &config.params {
        if let Some(first) = values.first() {
            builder.set(&format!("{PARAM_PREFIX}{name}"), first);
        }
    }
    builder.build()
}

/// What identifies a target: everything that decides what is scraped, how often, and how it is labelled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TargetKey {
    /// Labels after relabelling, without `__meta_*`.
    pub(super) labels: Labels,
    /// The address that is scraped, for people.
    pub(super) shown_url: String,
}

/// A target that is scraped.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) key: TargetKey,
    /// Labels that its samples get.
    pub(super) labels: Labels,
    pub(super) url: Url,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    /// Labels before relabelling; they may change while the target stays the same.
    pub(super) discovered: Mutex<Labels>,
    pub(super) status: Mutex<Status>,
    pub(super) metadata: MetadataStore,
}

impl Target {
    /// Applies the rules of the job; `None` if they drop the target.
    pub(super) fn try_new(config: &ScrapeConfig, discovered: Labels) -> Result<Option<Self>, String> {
        let mut builder = discovered.to_builder();
        if !relabel::apply(&config.relabel_configs, &mut builder) {
            return Ok(None);
        }
        let address = builder.get("__address__").unwrap_or_default().to_owned();
        if address.is_empty() {
            return Err("no address".to_owned());
        }
        if address.contains('/') {
            return Err(format!("{address:?} is not a valid hostname"));
        }
        let interval = span(&builder, "__scrape_interval__", "interval")?;
        let timeout = span(&builder, "__scrape_timeout__", "timeout")?;
        if timeout > interval {
            return Err(format!(
                "scrape timeout cannot be greater than scrape interval ({:?} > {:?})",
                format_duration(timeout),
                format_duration(interval)
            ));
        }
        let meta: Vec<String> =
            builder.iter().filter(|(n, _)| n.starts_with(META_PREFIX)).map(|(n, _)| n.to_owned()).collect();
        for name in meta {
            builder.remove(&name);
        }
        if builder.get("instance").is_none() {
            builder.set("instance", &address);
        }
        let (url, shown_url) = url_of(config, &builder, &address)?;
        let all = builder.build();
        let labels = all.retain(|name| !name.starts_with(RESERVED_PREFIX));
        if labels.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            key: TargetKey { labels: all, shown_url },
            labels,
            url,
            interval,
            timeout,
            discovered: Mutex::new(discovered),
            status: Mutex::default(),
            metadata: MetadataStore::default(),
        }))
    }

    /// When to scrape first, counted from `now_ms`: targets spread over the interval, and a target
    /// keeps its place in it whenever the server starts.
    pub(super) fn first_scrape_in(&self, now_ms: TimestampMs, seed: u64) -> Duration {
        let interval = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        let mut hash = fnv1a(FNV_OFFSET, format!("{:016}", self.hash_labels()).as_bytes());
        hash = fnv1a(hash, self.key.shown_url.as_bytes());
        let now = u64::try_from(now_ms).unwrap_or_default().wrapping_mul(1_000_000);
        let base = interval - now % interval;
        let next = base.wrapping_add((hash ^ seed) % interval);
        Duration::from_nanos(if next > interval { next - interval } else { next })
    }

    fn hash_labels(&self) -> u64 {
        fnv1a(FNV_OFFSET, self.key.labels.as_bytes())
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, which makes offsets the same on every machine and in every version.
fn fnv1a(mut hash: u64, bytes: &[u8]) -> u64 {
    for b in bytes {
        hash = (hash ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash
}

/// What makes two servers scrape the same targets at different times.
pub(super) fn offset_seed(external_labels: &Labels) -> u64 {
    let host = hostname::get().unwrap_or_default();
    fnv1a(fnv1a(FNV_OFFSET, host.as_encoded_bytes()), external_labels.as_bytes())
}

fn span(builder: &LabelsBuilder, label: &str, what: &str) -> Result<Duration, String> {
    let text = builder.get(label).unwrap_or_default();
    let span = parse_duration(text).map_err(|e| format!("error parsing scrape {what}: {e}"))?;
    if span.is_zero() {
        return Err(format!("scrape {what} cannot be 0"));
    }
    Ok(span)
}

/// The address to ask, and how to show it.
fn url_of(config: &ScrapeConfig, builder: &LabelsBuilder, address: &str) -> Result<(Url, String), String> {
    let scheme = builder.get("__scheme__").unwrap_or_default();
    if !matches!(scheme, "http" | "https") {
        return Err(format!("scheme {scheme:?} is not supported, must be 'http' or 'https'"));
    }
    let mut url =
        Url::parse(&format!("{scheme}://{address}")).map_err(|e| format!("address {address:?}: {e}"))?;
    url.set_path(builder.get("__metrics_path__").unwrap_or_default());
    // Labels hold the first value of a parameter, and may have been changed; the config has the rest.
    let mut params: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, values) in &config.params {
        params.insert(name, values.iter().map(String::as_str).collect());
    }
    for (name, value) in builder.iter() {
        let Some(name) = name.strip_prefix(PARAM_PREFIX) else { continue };
        let values = params.entry(name).or_default();
        match values.first_mut() {
            Some(first) => *first = value,
            None => values.push(value),
        }
    }
    if !params.is_empty() {
        let mut pairs = url.query_pairs_mut();
        for (name, values) in params {
            for value in values {
                pairs.append_pair(name, value);
            }
        }
    }
    let query = url.query().map(|q| format!("?{q}")).unwrap_or_default();
    let shown = format!("{scheme}://{address}{}{query}", url.path());
    Ok((url, shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, GlobalConfig};

    fn config(yaml: &str) -> ScrapeConfig {
        let text = format!("scrape_configs:\n- job_name: j\n{yaml}");
        let (config, _) = Config::parse(&text, std::path::Path::new("c.yml")).unwrap();
        config.scrape_configs.into_iter().next().unwrap()
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    fn target(config: &ScrapeConfig, labels: &[(&str, &str)]) -> Result<Option<Target>, String> {
        Target::try_new(config, discovered_labels(config, &map(labels), &map(&[("group", "g")])))
    }

    #[test]
    fn a_target_gets_default_labels() {
        let config = ScrapeConfig::new("j", &GlobalConfig::default());
        let target = target(&config, &[("__address__", "host:80"), ("__meta_x", "y"), ("__tmp", "z")])
            .unwrap()
            .unwrap();
        assert_eq!(target.labels.to_string(), r#"{group="g", instance="host:80", job="j"}"#);
        assert_eq!(target.key.shown_url, "http://host:80/metrics");
        assert_eq!(
            target.discovered.lock().to_string(),
            r#"{__address__="host:80", __meta_x="y", __metrics_path__="/metrics", __scheme__="http", __scrape_interval__="1m", __scrape_timeout__="10s", __tmp="z", group="g", job="j"}"#
        );
        assert_eq!((target.interval.as_secs(), target.timeout.as_secs()), (60, 10));
    }

    #[test]
    fn rules_may_change_where_and_how_often() {
        let config = config(
            "  params: {module: [a, b], x: ['1 2']}\n  relabel_configs:\n\
             \x20 - {source_labels: [__address__], target_label: __param_target}\n\
             \x20 - {target_label: __address__, replacement: 'prober:9115'}\n\
             \x20 - {target_label: __param_module, replacement: 'c'}\n\
             \x20 - {target_label: __metrics_path__, replacement: '/probe'}\n\
             \x20 - {target_label: __scrape_interval__, replacement: '20s'}\n\
             \x20 - {source_labels: [__param_target], target_label: instance}\n",
        );
        let target = target(&config, &[("__address__", "https://a.example/x")]).unwrap().unwrap();
        assert_eq!(
            target.key.shown_url,
            "http://prober:9115/probe?module=c&module=b&target=https%3A%2F%2Fa.example%2Fx&x=1+2"
        );
        assert_eq!(target.labels.get("instance"), Some("https://a.example/x"));
        assert_eq!(target.interval, Duration::from_secs(20));
    }

    #[test]
    fn bad_targets_say_why() {
        let plain = ScrapeConfig::new("j", &GlobalConfig::default());
        for (labels, want) in [
            (&[("a", "b")][..], "no address"),
            (&[("__address__", "a/b")], "\"a/b\" is not a valid hostname"),
            (&[("__address__", "a"), ("__scrape_interval__", "0s")], "scrape interval cannot be 0"),
            (
                &[("__address__", "a"), ("__scrape_timeout__", "2m")],
                "scrape timeout cannot be greater than scrape interval (\"2m\" > \"1m\")",
            ),
            (
                &[("__address__", "a"), ("__scrape_interval__", "x")],
                "error parsing scrape interval: not a valid duration string: \"x\"",
            ),
        ] {
            assert_eq!(target(&plain, labels).unwrap_err(), want);
        }
        let dropping = config("  relabel_configs:\n  - {action: keep, source_labels: [a], regex: x}\n");
        assert!(target(&dropping, &[("__address__", "a")]).unwrap().is_none());
    }

    #[test]
    fn first_scrapes_are_spread_and_stay_put() {
        let config = ScrapeConfig::new("j", &GlobalConfig::default());
        let places: Vec<u64> = (0..60)
            .map(|i| {
                let target = target(&config, &[("__address__", &format!("host-{i}:80"))]).unwrap().unwrap();
                let place = |now_ms: i64| {
                    let wait = target.first_scrape_in(now_ms, 7);
                    assert!(wait <= target.interval);
                    (now_ms as u64 + wait.as_millis() as u64) % 60_000
                };
                let (a, b) = (place(1_700_000_000_000), place(1_700_000_012_345));
                assert!(a.abs_diff(b) <= 1 || a.abs_diff(b) >= 59_999, "{a} {b}");
                a
            })
            .collect();
        for half in [0..30_000, 30_000..60_000] {
            assert!(places.iter().filter(|p| half.contains(*p)).count() > 10, "{places:?}");
        }
    }
}
