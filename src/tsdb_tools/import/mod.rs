//! `promontory tsdb create-blocks-from openmetrics`: text with timestamps becomes blocks.
//!
//! # Way of a sample
//! The text is read once. Its samples are laid aside by the time slot of their future block
//! ([`spill::Spill`]: memory up to a limit, then files), then slot after slot becomes a block
//! ([`slot::Slot`]). Memory holds all series of the text and the compressed samples of one slot.
//!
//! Upstream reads the text once for every block instead. What is refused and what is dropped silently is the
//! same: a sample is compared with the samples of its series up to the last full batch of 5,000.
//!
//! # Crash safety
//! Blocks appear whole. What is laid aside is in a directory that the next server to open the data
//! directory removes.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/cmd/promtool/backfill.go>

mod slot;
mod spill;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write};
use std::ops::Deref;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use promontory_tsdb::block::{Block, BlockSpec, BlockWriter, new_ulid};
use promontory_tsdb::{Clock as _, Error, Labels, LabelsBuilder, SystemClock};

use super::list::put_blocks;
use super::text::go_io_error;
use super::{CreateBlocksArgs, OpenMetricsArgs, ToolError};
use crate::exposition::{Entry, Format, MetricType, Parser, Series};
use slot::Slot;
use spill::Spill;

/// Length of a block unless a longer one is asked for.
const BLOCK_MS: i64 = 2 * 3600 * 1000;

pub(super) fn open_metrics(
    args: &CreateBlocksArgs,
    source: &OpenMetricsArgs,
    out: &mut dyn Write,
) -> Result<(), ToolError> {
    let text = read(&source.input_file)?;
    let dir = source.output_dir.as_path();
    std::fs::create_dir_all(dir)
        .map_err(|e| ToolError::Message(format!("create output dir: {}", go_io_error(&e))))?;
    let block_ms = block_duration(args.max_block_duration.as_ms());
    let mut import = Import::new(&source.labels, Spill::new(dir, block_ms));
    import.take_in(&text)?;
    let Import { series, mut spill, .. } = import;
    drop(text);
    let progress = progress_bar(spill.slots().count() as u64, "{bar:30} {pos}/{len} blocks, {elapsed}");
    let slots: Vec<i64> = spill.slots().collect();
    let mut with_header = true;
    for start in slots {
        let failed = |e: ToolError| ToolError::Message(format!("block creation: process blocks: {e}"));
        let block = write_block(dir, &mut spill, start, &series).map_err(failed)?;
        if !args.quiet {
            progress.suspend(|| {
                put_blocks(out, std::slice::from_ref(&block), with_header, args.human_readable)?;
                out.flush()
            })?;
            with_header = false;
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(())
}

/// Length of blocks, ms: the longest of 2 h, 6 h, 18 h, … that is not above what is asked for.
fn block_duration(longest_ms: i64) -> i64 {
    let steps = std::iter::successors(Some(BLOCK_MS), |ms| Some(ms * 3)).take(10);
    steps.take_while(|ms| *ms <= longest_ms).last().unwrap_or(BLOCK_MS)
}

/// A file as it lies on disk, or what came through a pipe.
enum Text {
    Mapped(Box<dyn Deref<Target = [u8]>>),
    Read(Vec<u8>),
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Read(bytes) => bytes,
        }
    }
}

fn read(path: &Path) -> Result<Text, ToolError> {
    let failed = |what: &'static str| {
        move |e: std::io::Error| ToolError::Message(format!("{what} {}: {}", path.display(), go_io_error(&e)))
    };
    let metadata = std::fs::metadata(path).map_err(failed("stat"))?;
    if metadata.is_file() && metadata.len() > 0 {
        return Ok(Text::Mapped(Box::new(promontory_tsdb::fs::map(path)?)));
    }
    std::fs::read(path).map(Text::Read).map_err(failed("read"))
}

/// The text on its way into the slots.
struct Import<'a> {
    extra_labels: &'a [(String, String)],
    spill: Spill,
    /// Labels by number.
    series: Vec<Labels>,
    numbers: HashMap<Labels, u32>,
    /// Numbers by type and text: what a text means depends on the `# TYPE` before it.
    texts: HashMap<Box<[u8]>, u32>,
    key: Vec<u8>,
    last: Option<u32>,
}

impl<'a> Import<'a> {
    fn new(extra_labels: &'a [(String, String)], spill: Spill) -> Self {
        Self {
            extra_labels,
            spill,
            series: Vec::new(),
            numbers: HashMap::new(),
            texts: HashMap::new(),
            key: Vec::new(),
            last: None,
        }
    }

    fn take_in(&mut self, text: &[u8]) -> Result<(), ToolError> {
        /// How many lines pass between two looks at the clock of the progress bar.
        const LINES: u32 = 4096;
        let progress = progress_bar(text.len() as u64, "{bar:30} {bytes}/{total_bytes} read, {eta} to go");
        let failed = |e: String| ToolError::Message(format!("getting min and max timestamp: {e}"));
        let mut parser = Parser::new(Format::OpenMetrics, text);
        let mut metric_type = MetricType::Unknown;
        let mut lines = 0u32;
        while let Some(entry) = parser.next() {
            lines = lines.wrapping_add(1);
            if lines.is_multiple_of(LINES) {
                progress.set_position(parser.position() as u64);
            }
            match entry.map_err(|e| failed(format!("next: {e}")))? {
                Entry::Type { metric_type: found, .. } => metric_type = found,
                Entry::Series(series) => {
                    let t = series
                        .timestamp_ms
                        .ok_or_else(|| failed("expected timestamp for series got none".to_owned()))?;
                    let number = self
                        .number(&series, metric_type)
                        .map_err(|e| failed(format!("next: {}", parser.locate(&series, e))))?;
                    self.spill.add(number, t, series.value)?;
                }
                Entry::Histogram(..) | Entry::Help { .. } | Entry::Unit { .. } | Entry::Comment(_) => {}
            }
        }
        progress.finish_and_clear();
        Ok(())
    }

    /// The number of a series, a new one if it is new.
    fn number(
        &mut self,
        series: &Series<'_>,
        metric_type: MetricType,
    ) -> Result<u32, crate::exposition::ParseError> {
        let is_last = self
            .key
            .split_first()
            .is_some_and(|(kind, text)| *kind == metric_type as u8 && text == series.text);
        if let Some(last) = self.last.filter(|_| is_last) {
            return Ok(last);
        }
        self.key.clear();
        self.key.push(metric_type as u8);
        self.key.extend_from_slice(series.text);
        let number = match self.texts.get(self.key.as_slice()) {
            Some(number) => *number,
            None => {
                let mut builder = LabelsBuilder::default();
                series.labels_into(&mut builder)?;
                for (name, value) in self.extra_labels {
                    builder.set(name, value);
                }
                let labels = builder.build();
                let next = self.series.len() as u32;
                let number = *self.numbers.entry(labels.clone()).or_insert(next);
                if number == next {
                    self.series.push(labels);
                }
                self.texts.insert(self.key.as_slice().into(), number);
                number
            }
        };
        self.last = Some(number);
        Ok(number)
    }
}

fn write_block(dir: &Path, spill: &mut Spill, start: i64, series: &[Labels]) -> Result<Block, ToolError> {
    let mut slot = Slot::new(spill.block_ms());
    spill.drain(start, |number, t, v| slot.add(number, t, v))?;
    let slot::Finished { mint, maxt, chunks } = slot.finish()?;
    let mut order: Vec<u32> = chunks.keys().copied().collect();
    order.sort_unstable_by(|a, b| series[*a as usize].cmp(&series[*b as usize]));
    let ulid = new_ulid(SystemClock.now_ms(), &mut rand::rng());
    let mut writer = BlockWriter::create(dir, BlockSpec::new(ulid, mint, maxt + 1))?;
    for number in order {
        writer.add(&series[number as usize], &chunks[&number])?;
    }
    let nothing = || Error::Invalid("a slot without samples".to_owned());
    let meta = writer.finish()?.ok_or_else(nothing)?;
    Ok(Block::open(&dir.join(meta.ulid.to_string()))?)
}

fn progress_bar(total: u64, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
