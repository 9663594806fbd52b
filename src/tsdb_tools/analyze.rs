//! `promontory tsdb analyze`: where the series of a block come from, and how many of them there are.

use std::collections::HashMap;
use std::io::{self, Write};

use promontory_tsdb::block::Block;
use promontory_tsdb::index::SeriesEntry;
use promontory_tsdb::postings::{self, PostingsSource as _};
use promontory_tsdb::{METRIC_NAME, Matcher, Queryable as _, TimestampMs};
use ulid::Ulid;

use super::text::go_duration;
use super::{AnalyzeArgs, ToolError, block_names, chunk_stats, selector};

pub(super) fn analyze(args: &AnalyzeArgs, out: &mut dyn Write) -> Result<(), ToolError> {
    let matchers = if args.selector.is_empty() { Vec::new() } else { selector(&args.selector)? };
    let block = open(args)?;
    let meta = block.meta();
    writeln!(out, "Block ID: {}", meta.ulid)?;
    writeln!(out, "Duration: {}", go_duration(meta.max_time - meta.min_time))?;
    writeln!(out, "Total Series: {}", meta.stats.num_series)?;
    if !args.selector.is_empty() {
        writeln!(out, "Matcher: {}", args.selector)?;
    }
    let names = block.label_names(&matchers, TimestampMs::MIN, TimestampMs::MAX)?;
    writeln!(out, "Label names: {}", names.len())?;
    let references = references(&block, &matchers)?;
    if !args.selector.is_empty() {
        writeln!(out, "Matched series: {}", references.len())?;
    }
    let counts = Counts::of(&block, &references)?;
    writeln!(out, "Postings (unique label pairs): {}", counts.pairs.len())?;
    writeln!(out, "Postings entries (total label pairs): {}", counts.entries)?;

    let limit = args.limit;
    let span = (meta.max_time - meta.min_time) as f64;
    let blocks_uncovered = |ms: u64| (ms as f64 / span) as u64;
    let pairs = counts.pairs.iter();
    let churning = pairs.clone().map(|(key, c)| (key.as_str(), blocks_uncovered(c.uncovered_ms)));
    put_top(out, limit, "Label pairs most involved in churning", churning)?;
    let churning = counts.names.iter().map(|(name, ms)| (name.as_str(), blocks_uncovered(*ms)));
    put_top(out, limit, "Label names most involved in churning", churning)?;
    put_top(out, limit, "Most common label pairs", pairs.map(|(key, c)| (key.as_str(), c.series)))?;

    let mut values = Vec::with_capacity(names.len());
    for name in &names {
        let of_name = block.label_values(name, &matchers, TimestampMs::MIN, TimestampMs::MAX)?;
        let bytes: usize = of_name.iter().map(String::len).sum();
        values.push((name.as_str(), bytes as u64, of_name.len() as u64));
    }
    let lengths = values.iter().map(|(name, bytes, _)| (*name, *bytes));
    put_top(out, limit, "Label names with highest cumulative label value length", lengths)?;
    put_top(out, limit, "Highest cardinality labels", values.iter().map(|(name, _, n)| (*name, *n)))?;
    let metrics = counts.metrics.iter().map(|(name, series)| (name.as_str(), *series));
    put_top(out, limit, "Highest cardinality metric names", metrics)?;
    if args.extended {
        chunk_stats::put(out, &block, &references)?;
    }
    Ok(())
}

fn open(args: &AnalyzeArgs) -> Result<Block, ToolError> {
    let id = match args.block_id.as_deref().filter(|id| !id.is_empty()) {
        Some(id) => id.to_owned(),
        None => {
            let last = block_names(&args.db_path)?.into_iter().max_by_key(Ulid::timestamp_ms);
            last.ok_or_else(|| ToolError::Message("no blocks found".to_owned()))?.to_string()
        }
    };
    let path = args.db_path.join(&id);
    if !path.exists() {
        return Err(ToolError::Message(format!("invalid block ID {id}")));
    }
    Ok(Block::open(&path)?)
}

fn references(block: &Block, matchers: &[Matcher]) -> Result<Vec<u64>, ToolError> {
    Ok(match matchers {
        [] => block.index().all()?.into_vec(),
        _ => postings::for_matchers(block.index(), matchers)?,
    })
}

/// Figures of one label pair.
#[derive(Debug, Default)]
struct Pair {
    series: u64,
    /// Summed over its series: the part of the block that they do not span.
    uncovered_ms: u64,
}

#[derive(Debug, Default)]
struct Counts {
    /// By `name=value`.
    pairs: HashMap<String, Pair>,
    /// By label name, as [`Pair::uncovered_ms`].
    names: HashMap<String, u64>,
    /// Series by metric name.
    metrics: HashMap<String, u64>,
    entries: u64,
}

impl Counts {
    fn of(block: &Block, references: &[u64]) -> Result<Self, ToolError> {
        let mut counts = Self::default();
        let span = block.max_time() - block.min_time();
        let mut entry = SeriesEntry::default();
        for reference in references {
            block.index().series(*reference, TimestampMs::MIN, TimestampMs::MAX, &mut entry)?;
            let covered = match (entry.chunks.first(), entry.chunks.last()) {
                (Some(first), Some(last)) => last.maxt - first.mint,
                _ => 0,
            };
            counts.add(&entry, u64::try_from(span - covered).unwrap_or_default());
        }
        Ok(counts)
    }

    fn add(&mut self, entry: &SeriesEntry, uncovered_ms: u64) {
        for (name, value) in entry.labels().iter() {
            let pair = self.pairs.entry(format!("{name}={value}")).or_default();
            pair.series += 1;
            pair.uncovered_ms += uncovered_ms;
            *self.names.entry(name.to_owned()).or_default() += uncovered_ms;
            if name == METRIC_NAME {
                *self.metrics.entry(value.to_owned()).or_default() += 1;
            }
            self.entries += 1;
        }
    }
}

/// A heading and the `limit` largest.
fn put_top<'a>(
    out: &mut dyn Write,
    limit: usize,
    heading: &str,
    items: impl Iterator<Item = (&'a str, u64)>,
) -> io::Result<()> {
    let mut items: Vec<_> = items.collect();
    items.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    writeln!(out, "\n{heading}:")?;
    for (key, weight) in items.into_iter().take(limit) {
        writeln!(out, "{weight} {key}")?;
    }
    Ok(())
}
