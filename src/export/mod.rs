//! `promontory export`: metrics of a data directory as Parquet files that DuckDB, Spark or pandas read.
//!
//! One file per metric, `<metric>.parquet`, with the columns that the metric's SQL table has:
//! `timestamp`, `value`, and one text column per label, NULL where a series lacks it. Rows are sorted by
//! series (label order), then by time; stale markers are not rows. A file appears whole or not at all.
//! Memory is bounded by one row group being built, whatever the range.
//!
//! Samples of native histograms have no row; the summary counts them.

mod columns;
mod names;
pub(crate) mod series;
mod writer;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use promontory_promql::parser::parse_metric_selector;
use promontory_tsdb::{METRIC_NAME, Matcher, Queryable, TimestampMs};

use crate::units::parse_time_ms;
use series::SeriesCursor;
use writer::MetricFile;

/// Flags of `promontory export`.
#[derive(Debug, Clone, clap::Args)]
pub struct ExportArgs {
    /// Data directory to read
    #[arg(long = "storage.tsdb.path", value_name = "DIR", default_value = "data/")]
    pub data_dir: PathBuf,

    /// Series to export, such as 'http_requests_total{job="api"}'; repeatable
    #[arg(long = "match", value_name = "SELECTOR", required = true, value_parser = parse_selector)]
    pub matches: Vec<Selector>,

    /// First instant, RFC 3339 or unix seconds [default: the oldest sample]
    #[arg(long, value_name = "TIME", value_parser = parse_time_ms, allow_hyphen_values = true)]
    pub start: Option<TimestampMs>,

    /// Last instant (included), RFC 3339 or unix seconds [default: the newest sample]
    #[arg(long, value_name = "TIME", value_parser = parse_time_ms, allow_hyphen_values = true)]
    pub end: Option<TimestampMs>,

    /// Directory for the files; created if missing
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// The matchers of one `--match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector(pub Vec<Matcher>);

fn parse_selector(text: &str) -> Result<Selector, String> {
    let matchers = parse_metric_selector(text).map_err(|e| e.to_string())?;
    if matchers.iter().all(Matcher::matches_empty) {
        return Err("a selector must contain at least one non-empty matcher".to_owned());
    }
    Ok(Selector(matchers))
}

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Reading failed.
    #[error(transparent)]
    Storage(#[from] promontory_tsdb::Error),
    /// Encoding failed.
    #[error("writing {}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: parquet::errors::ParquetError,
    },
    /// The range is empty.
    #[error("--end ({end}) is before --start ({start})")]
    EmptyRange {
        /// As given.
        start: String,
        /// As given.
        end: String,
    },
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// One per metric, in order of their names.
    pub files: Vec<FileSummary>,
    /// Histogram samples, which have no row.
    pub histograms_skipped: u64,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSummary {
    /// The metric.
    pub metric: String,
    /// Where it is.
    pub path: PathBuf,
    /// Series.
    pub series: u64,
    /// Rows.
    pub rows: u64,
    /// Size.
    pub bytes: u64,
}

impl Summary {
    /// Rows of all files.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|f| f.rows).sum()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }
}

/// Writes what `args` ask for, out of `source`, on the calling thread.
///
/// Metrics without a row get no file; existing files of the same name are replaced.
///
/// # Errors
/// On the first failure. Files finished before it stay, the one in hand is removed.
pub fn export(source: &Arc<dyn Queryable>, args: &ExportArgs) -> Result<Summary, ExportError> {
    let Some((oldest, newest)) = source.time_bounds() else { return Ok(Summary::default()) };
    let (start, end) = (args.start.unwrap_or(oldest), args.end.unwrap_or(newest));
    if let (Some(start), Some(end)) = (args.start, args.end)
        && end < start
    {
        let text = crate::units::format_time_ms;
        return Err(ExportError::EmptyRange { start: text(start), end: text(end) });
    }
    let metrics = metrics_of(source, &args.matches, start, end)?;
    std::fs::create_dir_all(&args.out).map_err(promontory_tsdb::Error::io("create", &args.out))?;
    let progress = progress_bar(metrics.len() as u64);
    let names = names::file_names(metrics.keys().map(String::as_str));
    let mut summary = Summary::default();
    for ((metric, selectors), file_name) in metrics.into_iter().zip(names) {
        progress.set_message(metric.clone());
        let path = args.out.join(file_name);
        let (file, skipped) = export_metric(source, &metric, &selectors, start..=end, path)?;
        summary.files.extend(file);
        summary.histograms_skipped += skipped;
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(summary)
}

/// Which metrics the selectors reach, and through which of them.
fn metrics_of(
    source: &Arc<dyn Queryable>,
    selectors: &[Selector],
    start: TimestampMs,
    end: TimestampMs,
) -> Result<BTreeMap<String, Vec<Vec<Matcher>>>, ExportError> {
    let mut metrics = BTreeMap::<String, Vec<Vec<Matcher>>>::new();
    for Selector(matchers) in selectors {
        for metric in source.label_values(METRIC_NAME, matchers, start, end)? {
            let mut narrowed = matchers.clone();
            narrowed.push(Matcher::eq(METRIC_NAME, metric.as_str()));
            metrics.entry(metric).or_default().push(narrowed);
        }
    }
    Ok(metrics)
}

fn export_metric(
    source: &Arc<dyn Queryable>,
    metric: &str,
    selectors: &[Vec<Matcher>],
    range: std::ops::RangeInclusive<TimestampMs>,
    path: PathBuf,
) -> Result<(Option<FileSummary>, u64), ExportError> {
    let (start, end) = (*range.start(), *range.end());
    let mut label_names = std::collections::BTreeSet::new();
    for matchers in selectors {
        label_names.extend(source.label_names(matchers, start, end)?);
    }
    label_names.remove(METRIC_NAME);
    let mut file = MetricFile::create(metric, label_names.into_iter().collect(), path)?;
    let mut cursor = SeriesCursor::open(source, selectors, start, end)?;
    while let Some(series) = cursor.next()? {
        file.write_series(&series.labels, &series.timestamps, &series.values)?;
    }
    let skipped = cursor.histograms();
    Ok((file.finish()?, skipped))
}

fn progress_bar(metrics: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(metrics);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} metrics, {elapsed}  {msg}") {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests;
