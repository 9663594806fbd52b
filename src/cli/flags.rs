//! Flags that Prometheus has and we do not serve, and the values of those we do.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, Command, ValueEnum};
use promontory_tsdb::Retention;

use super::ServerFlags;
use super::memory::max_memory_bytes;
use crate::config::format_bytes;
use crate::units::PromDuration;

/// How long samples are kept if nobody limits time or size.
pub const DEFAULT_RETENTION_MS: i64 = 15 * 24 * 3600 * 1000;

/// Whether a flag takes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// `--flag=value`
    Value,
    /// `--flag` and `--no-flag`
    Nothing,
}

use Takes::{Nothing, Value};

const GO_RUNTIME: &str = "it tunes the Go runtime, and there is none here";
const NO_RULES: &str = "rules and alerts are not evaluated yet";
const NO_REMOTE: &str = "remote read and write are not served yet";
const NO_UI: &str = "there are no web pages to configure yet";
const NO_AUTO_RELOAD: &str = "send SIGHUP or POST /-/reload instead";

/// Flags that are accepted and do nothing: name, whether it takes a value, why.
///
/// Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/cmd/prometheus/main.go>
pub const UNSERVED: &[(&str, Takes, &str)] = &[
    ("config.auto-reload", Nothing, NO_AUTO_RELOAD),
    ("config.auto-reload-interval", Value, NO_AUTO_RELOAD),
    ("auto-gomaxprocs", Nothing, GO_RUNTIME),
    ("auto-gomemlimit", Nothing, GO_RUNTIME),
    ("auto-gomemlimit.ratio", Value, GO_RUNTIME),
    ("auto-gomemlimit.refresh-interval", Value, GO_RUNTIME),
    ("web.read-timeout", Value, "connections have no read timeout yet"),
    ("web.max-connections", Value, "connections are not limited yet"),
    ("web.max-notifications-subscribers", Value, "there are no live notifications yet"),
    ("web.external-url", Value, "nothing here links to itself yet"),
    ("web.route-prefix", Value, "every route is served from the root"),
    ("web.user-assets", Value, NO_UI),
    ("web.enable-remote-write-receiver", Nothing, NO_REMOTE),
    ("web.remote-write-receiver.accepted-protobuf-messages", Value, NO_REMOTE),
    ("web.enable-otlp-receiver", Nothing, "OTLP is not received yet"),
    ("web.console.templates", Value, NO_UI),
    ("web.console.libraries", Value, NO_UI),
    ("web.page-title", Value, NO_UI),
    ("web.search.max-limit", Value, "the search API is not served yet"),
    ("storage.tsdb.head-chunks-write-queue-size", Value, "head chunks are written without a queue"),
    ("storage.tsdb.delay-compact-file.path", Value, "compaction is not delayed"),
    ("storage.tsdb.max-block-chunk-segment-size", Value, "chunk files have one size"),
    ("storage.tsdb.wal-segment-size", Value, "segments have one size"),
    ("storage.tsdb.allow-overlapping-compaction", Nothing, "overlapping blocks are always merged"),
    ("storage.tsdb.samples-per-chunk", Value, "chunks hold 120 samples"),
    ("storage.tsdb.delayed-compaction.max-percent", Value, "compaction is not delayed"),
    ("storage.tsdb.block-reload-interval", Value, "blocks are reloaded every minute"),
    ("storage.remote.flush-deadline", Value, NO_REMOTE),
    ("storage.remote.read-sample-limit", Value, NO_REMOTE),
    ("storage.remote.read-concurrent-limit", Value, NO_REMOTE),
    ("storage.remote.read-max-bytes-in-frame", Value, NO_REMOTE),
    ("rules.alert.for-outage-tolerance", Value, NO_RULES),
    ("rules.alert.for-grace-period", Value, NO_RULES),
    ("rules.alert.resend-delay", Value, NO_RULES),
    ("rules.max-concurrent-evals", Value, NO_RULES),
    ("alertmanager.notification-queue-capacity", Value, NO_RULES),
    ("alertmanager.notification-batch-size", Value, NO_RULES),
    ("alertmanager.drain-notification-queue-on-shutdown", Nothing, NO_RULES),
    ("scrape.adjust-timestamps", Nothing, "scrape timestamps are aligned as by default"),
    ("scrape.timestamp-tolerance", Value, "scrape timestamps are aligned as by default"),
    ("scrape.discovery-reload-interval", Value, "discovery has one interval"),
];

/// Flags that are an error: to ignore them would open what the user meant to close, or run something
/// else than was asked for.
pub const REFUSED: &[(&str, Takes, &str)] = &[
    (
        "web.config.file",
        Value,
        "TLS and authentication are not served yet; put a proxy in front, or leave the flag out",
    ),
    ("agent", Nothing, "there is no agent mode yet"),
    ("storage.agent.path", Value, "there is no agent mode yet"),
];

/// Adds the flags of [`UNSERVED`] and [`REFUSED`], hidden from `--help`.
pub fn with_unserved(mut command: Command) -> Command {
    for (name, takes, _) in UNSERVED.iter().chain(REFUSED) {
        match takes {
            Value => {
                command = command.arg(hidden(name).action(ArgAction::Append).num_args(1));
            }
            Nothing => {
                command = command.arg(hidden(name).action(ArgAction::SetTrue));
                let negated: &'static str = Box::leak(format!("no-{name}").into_boxed_str());
                command = command.arg(hidden(negated).action(ArgAction::SetTrue));
            }
        }
    }
    command
}

fn hidden(name: &'static str) -> Arg {
    Arg::new(name).long(name).hide(true)
}

/// What the command line says about keeping. Compat: zero is "not given"; if nothing is given, 15 days.
pub fn retention(flags: &ServerFlags) -> Retention {
    let bytes = flags.storage_tsdb_retention_size.filter(|bytes| *bytes > 0);
    let time_ms = flags.storage_tsdb_retention_time.map(PromDuration::as_ms).filter(|ms| *ms > 0);
    let default = Some(DEFAULT_RETENTION_MS).filter(|_| bytes.is_none());
    Retention { time_ms: time_ms.or(default), bytes, percentage: None }
}

/// Names and values of the flags that are served.
pub fn values(flags: &ServerFlags) -> BTreeMap<String, String> {
    let enum_name =
        |v: Option<clap::builder::PossibleValue>| v.map_or_else(String::new, |v| v.get_name().to_owned());
    let config_file = flags.config_file.as_ref().map(|p| p.display().to_string());
    [
        ("config.file", config_file.unwrap_or_else(|| "prometheus.yml".to_owned())),
        ("enable-feature", flags.enable_feature.join(",")),
        ("log.format", enum_name(flags.log_format.to_possible_value())),
        ("log.level", enum_name(flags.log_level.to_possible_value())),
        ("query.cache-size", format_bytes(flags.query_cache_size)),
        ("query.lookback-delta", flags.query_lookback_delta.to_string()),
        ("query.max-concurrency", flags.query_max_concurrency.to_string()),
        ("query.max-memory-bytes", max_memory_bytes(flags).to_string()),
        ("query.max-samples", flags.query_max_samples.to_string()),
        ("query.timeout", flags.query_timeout.to_string()),
        ("sql.flight-listen-address", flags.sql_flight_listen_address.clone()),
        ("sql.listen-address", flags.sql_listen_address.clone()),
        (
            "storage.tsdb.max-block-duration",
            flags.storage_tsdb_max_block_duration.unwrap_or(PromDuration::from_ms(0)).to_string(),
        ),
        ("storage.tsdb.min-block-duration", flags.storage_tsdb_min_block_duration.to_string()),
        ("storage.tsdb.no-lockfile", flags.storage_tsdb_no_lockfile.to_string()),
        ("storage.tsdb.path", flags.storage_tsdb_path.display().to_string()),
        ("storage.tsdb.retention.size", format_bytes(flags.storage_tsdb_retention_size.unwrap_or_default())),
        (
            "storage.tsdb.retention.time",
            PromDuration::from_ms(retention(flags).time_ms.unwrap_or(0)).to_string(),
        ),
        ("storage.tsdb.wal-compression", (!flags.no_storage_tsdb_wal_compression).to_string()),
        (
            "storage.tsdb.wal-compression-type",
            enum_name(flags.storage_tsdb_wal_compression_type.to_possible_value()),
        ),
        ("web.enable-admin-api", flags.web_enable_admin_api.to_string()),
        ("web.cors.origin", flags.web_cors_origin.clone()),
        ("web.enable-lifecycle", flags.web_enable_lifecycle.to_string()),
        ("web.listen-address", flags.web_listen_address.join(",")),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}
