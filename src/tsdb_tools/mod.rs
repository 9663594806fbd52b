//! `promontory tsdb …`: looks into data directories, and makes blocks from text.
//!
//! Subcommands, flags and what goes to standard output are those of `promtool tsdb`, so that scripts
//! work and outputs can be compared. Directories are only read, without a lock and without a sandbox,
//! also beside a server that uses them; `create-blocks-from` writes finished blocks into its output
//! directory and touches nothing else there.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/cmd/promtool/tsdb.go>. Differences: entries of
//! equal weight in the lists of `analyze` are in the order of their names (upstream: by chance); series
//! of `dump` are always sorted.

mod analyze;
mod chunk_stats;
mod dump;
mod import;
mod list;
mod text;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use promontory_promql::parser::parse_metric_selector;
use promontory_tsdb::block::Block;
use promontory_tsdb::{Error, Matcher, TimestampMs};
use ulid::Ulid;

use crate::units::PromDuration;

/// `promontory tsdb`
#[derive(Debug, Clone, clap::Args)]
pub struct TsdbArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: TsdbCommand,
}

/// Subcommands of `promontory tsdb`.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum TsdbCommand {
    /// List the blocks of a data directory
    List(ListArgs),
    /// Analyze churn, label pair cardinality and compaction efficiency of a block
    Analyze(AnalyzeArgs),
    /// Dump samples, or only series, of a data directory
    Dump(DumpArgs),
    /// Dump float samples as OpenMetrics text; native histograms are left out
    DumpOpenmetrics(DumpOpenMetricsArgs),
    /// Make blocks from samples in another format
    CreateBlocksFrom(CreateBlocksArgs),
}

/// Flags of `promontory tsdb list`.
#[derive(Debug, Clone, clap::Args)]
pub struct ListArgs {
    /// Print human readable values
    #[arg(short = 'r', long)]
    pub human_readable: bool,
    /// Data directory
    #[arg(value_name = "DB PATH", default_value = "data/")]
    pub db_path: PathBuf,
}

/// Flags of `promontory tsdb analyze`.
#[derive(Debug, Clone, clap::Args)]
pub struct AnalyzeArgs {
    /// Data directory
    #[arg(value_name = "DB PATH", default_value = "data/")]
    pub db_path: PathBuf,
    /// Block to analyze [default: the last block]
    #[arg(value_name = "BLOCK ID")]
    pub block_id: Option<String>,
    /// How many items to show in each list
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
    /// Also look at the chunks
    #[arg(long)]
    pub extended: bool,
    /// Series selector to analyze
    #[arg(long = "match", value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    pub selector: String,
}

/// What to dump.
#[derive(Debug, Clone, clap::Args)]
pub struct DumpRange {
    /// Data directory
    #[arg(value_name = "DB PATH", default_value = "data/")]
    pub db_path: PathBuf,
    /// Accepted for scripts; nothing is written, so no sandbox is needed
    #[arg(long, value_name = "DIR", hide = true)]
    pub sandbox_dir_root: Option<PathBuf>,
    /// Oldest timestamp to dump, ms since the epoch
    #[arg(long, value_name = "MS", default_value_t = TimestampMs::MIN, hide_default_value = true, allow_hyphen_values = true)]
    pub min_time: TimestampMs,
    /// Newest timestamp to dump, ms since the epoch
    #[arg(long, value_name = "MS", default_value_t = TimestampMs::MAX, hide_default_value = true, allow_hyphen_values = true)]
    pub max_time: TimestampMs,
    /// Series selector; repeatable
    #[arg(long = "match", value_name = "SELECTOR", default_value = "{__name__=~'(?s:.*)'}")]
    pub selectors: Vec<String>,
}

/// Flags of `promontory tsdb dump`.
#[derive(Debug, Clone, clap::Args)]
pub struct DumpArgs {
    /// What to dump.
    #[command(flatten)]
    pub range: DumpRange,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: DumpFormat,
}

/// Flags of `promontory tsdb dump-openmetrics`.
#[derive(Debug, Clone, clap::Args)]
pub struct DumpOpenMetricsArgs {
    /// What to dump.
    #[command(flatten)]
    pub range: DumpRange,
}

/// `--format` of `promontory tsdb dump`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum DumpFormat {
    /// A line per sample.
    #[default]
    Prom,
    /// A JSON object per series.
    #[value(name = "seriesjson")]
    SeriesJson,
}

/// Flags of `promontory tsdb create-blocks-from`.
#[derive(Debug, Clone, clap::Args)]
pub struct CreateBlocksArgs {
    /// Print human readable values
    #[arg(short = 'r', long, global = true)]
    pub human_readable: bool,
    /// Do not print created blocks
    #[arg(short = 'q', long, global = true)]
    pub quiet: bool,
    /// Longest block to make; less than 2h counts as 2h
    #[arg(long, value_name = "DURATION", default_value = "2h", global = true)]
    pub max_block_duration: PromDuration,
    /// The format.
    #[command(subcommand)]
    pub source: CreateBlocksSource,
}

/// Formats that blocks are made from.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum CreateBlocksSource {
    /// OpenMetrics text in which every sample has a timestamp
    Openmetrics(OpenMetricsArgs),
}

/// Flags of `promontory tsdb create-blocks-from openmetrics`.
#[derive(Debug, Clone, clap::Args)]
pub struct OpenMetricsArgs {
    /// Label to attach to every series; repeatable
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label)]
    pub labels: Vec<(String, String)>,
    /// File to read samples from
    #[arg(value_name = "INPUT FILE")]
    pub input_file: PathBuf,
    /// Directory for the blocks; made if there is none
    #[arg(value_name = "OUTPUT DIRECTORY", default_value = "data/")]
    pub output_dir: PathBuf,
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = pair.ok_or_else(|| format!("expected KEY=VALUE got '{text}'"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Why a tool failed.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// In upstream's words.
    #[error("{0}")]
    Message(String),
    /// The storage cannot be read or written.
    #[error(transparent)]
    Storage(#[from] Error),
    /// Standard output cannot be written.
    #[error("writing the output")]
    Output(#[from] io::Error),
}

impl ToolError {
    /// Whether the reader of standard output went away, as `head` does, which is nobody's fault.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Does what `args` ask for, and prints to `out`.
///
/// # Errors
/// The first thing that goes wrong; what was printed before stays.
pub fn run(args: &TsdbArgs, out: &mut dyn Write) -> Result<(), ToolError> {
    match &args.command {
        TsdbCommand::List(args) => list::list(args, out)?,
        TsdbCommand::Analyze(args) => analyze::analyze(args, out)?,
        TsdbCommand::Dump(args) => dump::dump(args, out)?,
        TsdbCommand::DumpOpenmetrics(args) => dump::dump_open_metrics(args, out)?,
        TsdbCommand::CreateBlocksFrom(args) => match &args.source {
            CreateBlocksSource::Openmetrics(source) => import::open_metrics(args, source, out)?,
        },
    }
    out.flush()?;
    Ok(())
}

fn selector(text: &str) -> Result<Vec<Matcher>, ToolError> {
    parse_metric_selector(text).map_err(|e| ToolError::Message(e.to_string()))
}

/// Names of the blocks in `dir`, sorted.
fn block_names(dir: &Path) -> Result<Vec<Ulid>, ToolError> {
    let entries = std::fs::read_dir(dir).map_err(|e| {
        ToolError::Message(format!("opening the db dir: open {}: {}", dir.display(), text::go_io_error(&e)))
    })?;
    let mut names: Vec<Ulid> = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", dir))?;
        let name = entry.file_name();
        let ulid = name.to_str().filter(|n| n.len() == ulid::ULID_LEN).map(Ulid::from_string);
        if let Some(Ok(ulid)) = ulid
            && entry.path().is_dir()
        {
            names.push(ulid);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The blocks of `dir`, oldest first.
///
/// A damaged block is an error unless a sound one has taken its samples over; one that its server
/// removes meanwhile is not listed.
fn open_blocks(dir: &Path) -> Result<Vec<Block>, ToolError> {
    let mut blocks = Vec::new();
    let mut damaged = Vec::new();
    for ulid in block_names(dir)? {
        let path = dir.join(ulid.to_string());
        match Block::open(&path) {
            Ok(block) => blocks.push(block),
            Err(_) if !path.exists() => {}
            Err(error) => damaged.push((ulid, error)),
        }
    }
    for block in &blocks {
        let parents = block.meta().compaction.parents;
        damaged.retain(|(ulid, _)| !parents.iter().any(|p| p.ulid == *ulid));
    }
    if !damaged.is_empty() {
        let lines = damaged.iter().map(|(ulid, error)| {
            format!("corrupted block {ulid}: {}", crate::api::error::with_causes(error))
        });
        return Err(ToolError::Message(lines.collect::<Vec<_>>().join("\n")));
    }
    blocks.sort_by_key(Block::min_time);
    Ok(blocks)
}
