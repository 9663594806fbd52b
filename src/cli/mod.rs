//! The command line: Prometheus' flags, and subcommands beside them.
//!
//! An unknown flag is an error that names it. A flag that Prometheus has and this build does not serve
//! is accepted with a warning ([`flags::UNSERVED`]), so that an existing start script works; except the
//! few whose neglect would be dangerous ([`flags::REFUSED`]).

pub mod features;
pub mod flags;
pub mod memory;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::parse_bytes;
use crate::export::ExportArgs;
use crate::sql_tools::SqlArgs;
use crate::telemetry::{LogFormat, LogLevel};
use crate::tsdb_tools::TsdbArgs;
use crate::units::PromDuration;

/// What was asked for.
#[derive(Debug, Parser)]
#[command(
    name = "promontory",
    version,
    about = "A Prometheus server that is also an analytical SQL database",
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// Flags of the server.
    #[command(flatten)]
    pub server: ServerFlags,
    /// Something else than the server.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write metrics of a data directory to Parquet files
    Export(ExportArgs),
    /// Look into data directories, and make blocks, as `promtool tsdb` does
    Tsdb(TsdbArgs),
    /// Help with the SQL server
    Sql(SqlArgs),
}

/// Flags of the server, named and meant as Prometheus'.
#[derive(Debug, Clone, Args)]
pub struct ServerFlags {
    /// Configuration file [default: prometheus.yml if there is one, else the server scrapes itself]
    #[arg(long = "config.file", value_name = "FILE")]
    pub config_file: Option<PathBuf>,

    /// Address for the web interface and API; repeatable
    #[arg(long = "web.listen-address", value_name = "HOST:PORT", default_value = "0.0.0.0:9090")]
    pub web_listen_address: Vec<String>,

    /// Serve /-/reload and /-/quit
    #[arg(long = "web.enable-lifecycle")]
    pub web_enable_lifecycle: bool,

    /// Serve /api/v1/admin/tsdb: deletion and snapshots
    #[arg(long = "web.enable-admin-api")]
    pub web_enable_admin_api: bool,

    /// Origins that may read the API from a browser: an anchored regular expression
    #[arg(long = "web.cors.origin", value_name = "REGEX", default_value = ".*")]
    pub web_cors_origin: String,

    /// Address for Postgres clients; empty turns SQL over the wire off
    #[arg(long = "sql.listen-address", value_name = "HOST:PORT", default_value = "127.0.0.1:5433")]
    pub sql_listen_address: String,

    /// Address for Flight SQL clients (ADBC, JDBC); empty serves none
    #[arg(long = "sql.flight-listen-address", value_name = "HOST:PORT", default_value = "")]
    pub sql_flight_listen_address: String,

    /// Data directory
    #[arg(long = "storage.tsdb.path", value_name = "DIR", default_value = "data/")]
    pub storage_tsdb_path: PathBuf,

    /// How long to keep samples [default: 15d, or for ever if only a size is given]
    #[arg(long = "storage.tsdb.retention.time", value_name = "DURATION")]
    pub storage_tsdb_retention_time: Option<PromDuration>,

    /// How many bytes blocks and logs may take together, such as 512MB
    #[arg(long = "storage.tsdb.retention.size", value_name = "BYTES", value_parser = parse_bytes)]
    pub storage_tsdb_retention_size: Option<u64>,

    /// Do not lock the data directory
    #[arg(long = "storage.tsdb.no-lockfile")]
    pub storage_tsdb_no_lockfile: bool,

    /// Range of a block cut from the head; for tests
    #[arg(
        long = "storage.tsdb.min-block-duration",
        value_name = "DURATION",
        default_value = "2h",
        hide = true
    )]
    pub storage_tsdb_min_block_duration: PromDuration,

    /// Longest range of a merged block; for tests
    #[arg(long = "storage.tsdb.max-block-duration", value_name = "DURATION", hide = true)]
    pub storage_tsdb_max_block_duration: Option<PromDuration>,

    /// Compress the write-ahead log; on by default
    #[arg(long = "storage.tsdb.wal-compression", hide = true)]
    pub storage_tsdb_wal_compression: bool,

    /// Do not compress the write-ahead log
    #[arg(long = "no-storage.tsdb.wal-compression", hide = true)]
    pub no_storage_tsdb_wal_compression: bool,

    /// Algorithm that the write-ahead log is compressed with
    #[arg(
        long = "storage.tsdb.wal-compression-type",
        value_name = "NAME",
        value_enum,
        default_value_t,
        hide = true
    )]
    pub storage_tsdb_wal_compression_type: WalCompression,

    /// How far an expression looks back for a sample
    #[arg(long = "query.lookback-delta", value_name = "DURATION", default_value = "5m")]
    pub query_lookback_delta: PromDuration,

    /// Longest run of a query
    #[arg(long = "query.timeout", value_name = "DURATION", default_value = "2m")]
    pub query_timeout: PromDuration,

    /// Queries that run at the same time; more wait
    #[arg(long = "query.max-concurrency", value_name = "N", default_value_t = 20)]
    pub query_max_concurrency: usize,

    /// Samples that one query may hold in memory
    #[arg(long = "query.max-samples", value_name = "N", default_value_t = 50_000_000)]
    pub query_max_samples: usize,

    /// Memory that one query may use, in bytes; 0 is no limit. A quarter of the machine's or control group's unless given
    #[arg(long = "query.max-memory-bytes", value_name = "BYTES", value_parser = memory::parse_memory)]
    pub query_max_memory_bytes: Option<u64>,

    /// Memory for results of range queries, so that a refreshed dashboard costs what is new; 0 keeps none
    #[arg(long = "query.cache-size", value_name = "BYTES", value_parser = parse_bytes, default_value = "64MB")]
    pub query_cache_size: u64,

    /// Features to enable, comma-separated; repeatable
    #[arg(long = "enable-feature", value_name = "NAME", value_delimiter = ',')]
    pub enable_feature: Vec<String>,

    /// Least severe level to log
    #[arg(long = "log.level", value_enum, default_value_t)]
    pub log_level: LogLevel,

    /// Format of log lines
    #[arg(long = "log.format", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// `--storage.tsdb.wal-compression-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum WalCompression {
    /// Fast.
    #[default]
    Snappy,
    /// Small.
    Zstd,
}

/// A command line that was understood.
#[derive(Debug)]
pub struct Parsed {
    /// What was asked for.
    pub cli: Cli,
    /// Names and values of the server's flags, for `/api/v1/status/flags`.
    pub flags: BTreeMap<String, String>,
    /// One text per flag that was given and does nothing.
    pub warnings: Vec<String>,
}

/// Reads a command line, program name first.
///
/// # Errors
/// clap's, which know their exit status (0 for `--help` and `--version`, 2 otherwise) and print
/// themselves.
pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Parsed, clap::Error> {
    let mut command = flags::with_unserved(Cli::command());
    let matches = command.try_get_matches_from_mut(args)?;
    let cli = Cli::from_arg_matches(&matches)?;
    let given = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
    if let Some((name, why)) = flags::REFUSED.iter().find(|(name, _, _)| given(name)).map(|(n, _, w)| (n, w))
    {
        return Err(command.error(clap::error::ErrorKind::ArgumentConflict, format!("--{name}: {why}")));
    }
    let warnings: Vec<String> = flags::UNSERVED
        .iter()
        .flat_map(|(name, _, why)| {
            [(*name).to_owned(), format!("no-{name}")].into_iter().map(move |name| (name, why))
        })
        .filter(|(name, _)| command_has(&command, name) && given(name))
        .map(|(name, why)| format!("--{name} has no effect: {why}"))
        .collect();
    let flags = flags::values(&cli.server);
    Ok(Parsed { cli, flags, warnings })
}

fn command_has(command: &clap::Command, name: &str) -> bool {
    command.get_arguments().any(|arg| arg.get_id() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str) -> Result<Parsed, clap::Error> {
        parse(std::iter::once("promontory".to_owned()).chain(words.split_whitespace().map(str::to_owned)))
    }

    #[test]
    fn prometheus_flags_are_read() {
        let parsed = parse_words(
            "--config.file=x.yml --storage.tsdb.path=d --storage.tsdb.retention.time=30d \
             --web.listen-address=127.0.0.1:0 --web.listen-address=:9091 --log.level=warn --log.format=json \
             --query.timeout=30s --query.max-samples=5 --query.lookback-delta=1m --query.max-concurrency=3 \
             --web.enable-lifecycle --sql.listen-address=127.0.0.1:0 --enable-feature=a,b --enable-feature=c",
        )
        .unwrap();
        let server = &parsed.cli.server;
        assert_eq!(server.config_file, Some(PathBuf::from("x.yml")));
        assert_eq!(server.web_listen_address, ["127.0.0.1:0", ":9091"]);
        assert_eq!(server.query_timeout.as_ms(), 30_000);
        assert_eq!(server.enable_feature, ["a", "b", "c"]);
        assert!(server.web_enable_lifecycle);
        assert!(parsed.warnings.is_empty());
        assert_eq!(parsed.flags["storage.tsdb.retention.time"], "30d");
        assert_eq!(parsed.flags["web.enable-lifecycle"], "true");
        assert_eq!(parsed.flags["log.level"], "warn");
    }

    #[test]
    fn a_space_may_stand_for_the_equals_sign() {
        let parsed = parse_words("--config.file x.yml").unwrap();
        assert_eq!(parsed.cli.server.config_file, Some(PathBuf::from("x.yml")));
    }

    #[test]
    fn an_unknown_flag_is_named_and_ends_with_2() {
        let e = parse_words("--storage.tsdb.pth=x").unwrap_err();
        assert!(e.to_string().contains("--storage.tsdb.pth"), "{e}");
        assert_eq!(e.exit_code(), 2);
    }

    #[test]
    fn a_bad_value_names_its_flag() {
        let e = parse_words("--query.timeout=soon").unwrap_err().to_string();
        assert!(e.contains("--query.timeout") && e.contains("not a valid duration string: \"soon\""), "{e}");
    }

    #[test]
    fn flags_not_served_warn_by_name() {
        let parsed =
            parse_words("--web.page-title=x --storage.tsdb.samples-per-chunk=9 --no-auto-gomemlimit")
                .unwrap();
        let named = |n: &str| parsed.warnings.iter().filter(|w| w.starts_with(n)).count();
        assert_eq!(
            (
                named("--web.page-title "),
                named("--storage.tsdb.samples-per-chunk "),
                named("--no-auto-gomemlimit ")
            ),
            (1, 1, 1),
            "{:?}",
            parsed.warnings
        );
        assert_eq!(parsed.warnings.len(), 3);
    }

    #[test]
    fn the_retention_time_that_nobody_gave_is_told_from_one_that_was() {
        let retention = |words: &str| {
            let parsed = parse_words(words).unwrap();
            let kept = flags::retention(&parsed.cli.server);
            let shown = |name: &str| parsed.flags[&format!("storage.tsdb.retention.{name}")].clone();
            (kept.time_ms.map(|ms| ms / 86_400_000), kept.bytes, shown("time"), shown("size"))
        };
        let text = str::to_owned;
        assert_eq!(retention(""), (Some(15), None, text("15d"), text("0B")));
        assert_eq!(retention("--storage.tsdb.retention.time=0s"), (Some(15), None, text("15d"), text("0B")));
        assert_eq!(retention("--storage.tsdb.retention.time=30d"), (Some(30), None, text("30d"), text("0B")));
        let gib = Some(1 << 30);
        assert_eq!(retention("--storage.tsdb.retention.size=1GB"), (None, gib, text("0s"), text("1GiB")));
        let both = "--storage.tsdb.retention.size=1GB --storage.tsdb.retention.time=30d";
        assert_eq!(retention(both), (Some(30), gib, text("30d"), text("1GiB")));
        assert_eq!(retention("--storage.tsdb.retention.size=0"), (Some(15), None, text("15d"), text("0B")));
    }

    #[test]
    fn a_flag_whose_neglect_is_dangerous_is_refused() {
        let e = parse_words("--web.config.file=web.yml").unwrap_err();
        assert!(e.to_string().contains("--web.config.file"), "{e}");
        assert_eq!(e.exit_code(), 2);
    }

    #[test]
    fn the_definition_is_consistent() {
        flags::with_unserved(Cli::command()).debug_assert();
    }
}
