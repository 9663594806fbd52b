//! [`SelectorExec`]: reads series, evaluates their window function, emits tiles, or groups where it does the first
//! phase of an aggregate above.
//!
//! The source is asked once, when the first partition starts, for several runs of series per partition of the
//! operator. Each partition takes the next run when it is done with one, so that none waits for another that has
//! more to do; it decodes and evaluates on its own. A series is in memory as two vectors while its steps are
//! computed, and after that as tiles only.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::task::Poll;

use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::EmissionType;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions, SendableRecordBatchStream,
};
use futures::TryStreamExt;
use parking_lot::Mutex;
use promontory_tsdb::histogram::{CounterResetHint, FloatHistogram};
use promontory_tsdb::query::HistogramSample;
use promontory_tsdb::{
    Labels, METRIC_NAME, Needed, Queryable, SelectHints, SeriesBatch, SeriesStream, TimestampMs, is_stale,
};

use super::partial::{LeafGroups, Partial};
use super::scalars::ScalarInputs;
use super::tiles::TileBuilder;
use super::{batch_stream, count, leaf_properties, tile_properties};
use crate::context::QueryContext;
use crate::error::QueryError;
use crate::histogram::weight;
use crate::kernels::{Live, Samples, StepRow, StepScalar, Windows, instant, range};
use crate::logical::spec::{KeyOutput, RangeFunction, SelectorSpec, Window};
use crate::notes::Notes;
use crate::operators::rows::same_labelset;
use crate::operators::{non_counter, non_counter_type, tell_bad_quantiles};
use crate::params::Grid;

/// The leaf of every plan.
#[derive(Debug)]
pub struct SelectorExec {
    source: Arc<dyn Queryable>,
    spec: Arc<SelectorSpec>,
    scalars: Arc<ScalarInputs>,
    partitions: usize,
    /// What is added up here, and not by an aggregate above.
    partial: Option<Partial>,
    /// The running selection.
    selection: Mutex<Selected>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

#[derive(Debug, Default)]
struct Selected {
    /// Which partitions have begun.
    begun: Vec<bool>,
    runs: Runs,
    seen: Arc<Seen>,
}

/// Series without their names, by hash, to find two that are the same: 128 bits, so that no others are taken for it.
#[derive(Debug, Default)]
struct Seen {
    hashers: [RandomState; 2],
    hashes: Mutex<HashSet<[u64; 2]>>,
}

impl Seen {
    /// Whether `key` is seen for the first time.
    fn insert(&self, key: &[u8]) -> bool {
        let hash = self.hashers.each_ref().map(|hasher| hasher.hash_one(key));
        self.hashes.lock().insert(hash)
    }
}

/// Runs of series that no partition has taken yet, the first at the end.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<Vec<SeriesStream>>>);

impl Runs {
    /// How many runs there are for each partition.
    const EACH: usize = 8;

    fn take(&self) -> Option<SeriesStream> {
        self.0.lock().pop()
    }

    /// Whether other partitions take runs too, or could.
    fn are_shared(&self) -> bool {
        !self.0.lock().is_empty()
    }
}

/// Lets other tasks of the thread go first, and idle threads take this one.
///
/// What a task wakes, such as a partition that waits for the same scalar, is next on its own thread, where no other can
/// take it; without this it would wait until this task has done all its work. `tokio::task::yield_now` keeps the task
/// on its thread.
async fn give_way() {
    let mut gave_way = false;
    futures::future::poll_fn(|context| {
        if std::mem::replace(&mut gave_way, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl fmt::Debug for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runs").field("left", &self.0.lock().len()).finish()
    }
}

impl SelectorExec {
    /// A leaf over `partitions` partitions of `source`. `scalars` are the scalar arguments of the
    /// range function.
    pub fn new(
        source: Arc<dyn Queryable>,
        spec: Arc<SelectorSpec>,
        scalars: Vec<Arc<dyn ExecutionPlan>>,
        partitions: usize,
    ) -> Self {
        let properties = tile_properties(&spec.grid, partitions, EmissionType::Incremental);
        Self {
            source,
            spec,
            scalars: Arc::new(ScalarInputs::new(scalars)),
            partitions,
            partial: None,
            selection: Mutex::default(),
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// What is selected, and what is made of it.
    pub(super) fn spec(&self) -> &SelectorSpec {
        &self.spec
    }

    /// The same leaf, adding up.
    pub(super) fn with_partial(&self, partial: Partial) -> Self {
        let properties = leaf_properties(Arc::clone(&partial.schema), self.partitions, EmissionType::Final);
        Self {
            source: Arc::clone(&self.source),
            spec: Arc::clone(&self.spec),
            scalars: Arc::clone(&self.scalars),
            partitions: self.partitions,
            partial: Some(partial),
            selection: Mutex::default(),
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// What the partitions share. Asks the source when nothing is selected yet, or when the partition has begun
    /// already because the plan runs again.
    fn runs(&self, partition: usize) -> Result<(Runs, Arc<Seen>), QueryError> {
        let mut selection = self.selection.lock();
        if selection.begun.get(partition).is_none_or(|begun| *begun) {
            let (first, last) = self.spec.bounds();
            let runs = if self.partitions == 1 { 1 } else { self.partitions * Runs::EACH };
            let one = matches!(self.spec.window, Window::Instant { .. }) && self.spec.grid.steps == 1;
            let needed = if one { Needed::Newest } else { Needed::All };
            let hints = SelectHints { partitions: runs, needed, ..SelectHints::default() };
            let mut streams = self.source.select(&self.spec.matchers, first, last, &hints)?.partitions;
            streams.reverse();
            *selection = Selected {
                begun: vec![false; self.partitions],
                runs: Runs(Arc::new(Mutex::new(streams))),
                seen: Arc::default(),
            };
        }
        selection.begun[partition] = true;
        Ok((selection.runs.clone(), Arc::clone(&selection.seen)))
    }
}

fn windows(spec: &SelectorSpec) -> Windows {
    let width_ms = match spec.window {
        Window::Instant { lookback_ms, .. } | Window::Smoothed { lookback_ms } => lookback_ms,
        Window::Range { range_ms, .. } => range_ms,
    };
    Windows { grid: spec.grid, view: spec.view, width_ms }
}

impl DisplayAs for SelectorExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SelectorExec: {} partitions={}", self.spec, self.partitions)?;
        self.partial.as_ref().map_or(Ok(()), |partial| write!(f, " {}", partial.name()))
    }
}

impl ExecutionPlan for SelectorExec {
    fn name(&self) -> &'static str {
        "SelectorExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.scalars.plans().iter().collect()
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; self.scalars.plans().len()]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let leaf = Self::new(Arc::clone(&self.source), Arc::clone(&self.spec), children, self.partitions);
        Ok(Arc::new(match &self.partial {
            Some(partial) => leaf.with_partial(partial.clone()),
            None => leaf,
        }))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition >= self.partitions {
            return Err(internal_datafusion_err!("partition {partition} of {}", self.partitions));
        }
        let query = QueryContext::of(&context)?;
        query.check()?;
        let (runs, seen) = self.runs(partition)?;
        let mut held = Held { query, samples: 0 };
        held.points(long_buffer(&self.spec.grid))?;
        let leaf = Leaf {
            input: runs.take(),
            runs,
            evaluator: Evaluator::new(Arc::clone(&self.spec), seen, &held.query),
            sink: match &self.partial {
                Some(partial) => Sink::Groups(Box::new(LeafGroups::new(partial.clone(), self.spec.grid)?)),
                None => Sink::Tiles(Box::new(TileBuilder::new(self.spec.grid))),
            },
            done: Vec::new(),
            batch: SeriesBatch::new(),
            next: 0,
            next_histogram: 0,
            held,
            work: 0,
            metrics: BaselineMetrics::new(&self.metrics, partition),
        };
        let scalars = Arc::clone(&self.scalars);
        let grid = self.spec.grid;
        let start = async move {
            let scalars = scalars.values(&grid, &context).await?;
            if leaf.runs.are_shared() {
                give_way().await;
            }
            Ok(futures::stream::try_unfold((leaf, scalars), async |(mut leaf, scalars)| {
                Ok(leaf.next_batch(&scalars).await?.map(|batch| (batch, (leaf, scalars))))
            }))
        };
        Ok(batch_stream(self.schema(), start))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// One running partition.
struct Leaf {
    /// The run that is being read.
    input: Option<SeriesStream>,
    runs: Runs,
    evaluator: Evaluator,
    sink: Sink,
    /// Batches to be given, the last one first.
    done: Vec<RecordBatch>,
    batch: SeriesBatch,
    /// Next series of `batch`.
    next: usize,
    /// First histogram of that series, or of one behind it.
    next_histogram: usize,
    held: Held,
    /// Samples and steps since the last look at token and deadline.
    work: usize,
    metrics: BaselineMetrics,
}

/// Where evaluated series go.
enum Sink {
    Tiles(Box<TileBuilder>),
    Groups(Box<LeafGroups>),
    /// All was given.
    End,
}

impl Sink {
    fn is_full(&self) -> bool {
        matches!(self, Self::Tiles(tiles) if tiles.is_full())
    }

    /// What it holds, the last batch first.
    fn finish(&mut self) -> Result<Vec<RecordBatch>> {
        match self {
            Self::Tiles(tiles) if tiles.is_empty() => Ok(Vec::new()),
            Self::Tiles(tiles) => Ok(vec![tiles.finish()?]),
            Self::Groups(_) => match std::mem::replace(self, Self::End) {
                Self::Groups(groups) => groups.finish().map(|mut batches| {
                    batches.reverse();
                    batches
                }),
                _ => Ok(Vec::new()),
            },
            Self::End => Ok(Vec::new()),
        }
    }
}

impl Leaf {
    async fn next_batch(&mut self, scalars: &[StepScalar]) -> Result<Option<RecordBatch>> {
        let batch = match self.done.pop() {
            Some(batch) => Some(batch),
            None => {
                self.read(scalars).await?;
                self.done = self.sink.finish()?;
                self.done.pop()
            }
        };
        match &batch {
            Some(batch) => {
                self.metrics.record_output(batch.num_rows());
            }
            None => self.metrics.done(),
        }
        Ok(batch)
    }

    /// Evaluates series until the sink is full, or there are no more.
    async fn read(&mut self, scalars: &[StepScalar]) -> Result<()> {
        loop {
            self.evaluate(scalars)?;
            if self.sink.is_full() {
                return Ok(());
            }
            // All series of the batch are evaluated.
            let Some(input) = &mut self.input else { return Ok(()) };
            match input.try_next().await.map_err(QueryError::from)? {
                Some(batch) => (self.batch, self.next, self.next_histogram) = (batch, 0, 0),
                None => {
                    self.input = self.runs.take();
                    if self.runs.are_shared() {
                        give_way().await;
                    }
                }
            }
        }
    }

    /// Evaluates series until the batch is used up or the tiles are full.
    fn evaluate(&mut self, scalars: &[StepScalar]) -> Result<(), QueryError> {
        let _timer = self.metrics.elapsed_compute().timer();
        self.held.query.check()?;
        while self.next < self.batch.len() && !self.sink.is_full() {
            let (labels, timestamps, values) = self.batch.series(self.next);
            self.work += timestamps.len() + self.evaluator.spec.grid.steps;
            if self.work >= range::WORK_PER_CHECK {
                self.work = 0;
                self.held.query.check()?;
            }
            let histograms = &self.batch.histograms[self.next_histogram..];
            let histograms = &histograms[..histograms.partition_point(|h| h.series as usize <= self.next)];
            self.next_histogram += histograms.len();
            let stats = self.evaluator.spec.without_buckets && !histograms.is_empty();
            let histograms =
                if stats { Cow::Owned(without_buckets(histograms)) } else { Cow::Borrowed(histograms) };
            self.evaluator.series(
                labels,
                Samples::new(timestamps, values).with_starts(self.batch.starts(self.next)),
                &histograms,
                scalars,
                &mut self.held,
                &mut self.sink,
            )?;
            self.next += 1;
        }
        Ok(())
    }
}

/// How many samples the buffer of a row counts for: that of a few thousand steps is small change.
pub(super) fn long_buffer(grid: &Grid) -> usize {
    const FREE_STEPS: usize = 16_384;
    grid.steps.saturating_sub(FREE_STEPS)
}

/// What the query holds on behalf of one partition: as in Prometheus, the points of its result and,
/// for a moment, the samples of one window.
struct Held {
    query: Arc<QueryContext>,
    samples: usize,
}

impl Held {
    fn points(&mut self, n: usize) -> Result<(), QueryError> {
        self.samples += n;
        self.query.hold_samples(n)
    }

    fn window(&self, windows: &Windows, timestamps: &[TimestampMs]) -> Result<(), QueryError> {
        // A whole series that fits means that its windows do; only otherwise they are measured.
        let fits = self.query.hold_samples(timestamps.len());
        self.query.release_samples(timestamps.len());
        if fits.is_ok() {
            return Ok(());
        }
        let mut widest = 0;
        windows.walk(timestamps, |_, _, lo, hi| widest = widest.max(hi - lo));
        let fits = self.query.hold_samples(widest);
        self.query.release_samples(widest);
        fits
    }
}

impl Held {
    /// As [`Held::window`], for histograms.
    fn histogram_window(&self, windows: &Windows, histograms: &[HistogramSample]) -> Result<(), QueryError> {
        let timestamps: Vec<_> = histograms.iter().map(|h| h.timestamp).collect();
        let mut sums = vec![0];
        sums.extend(histograms.iter().scan(0, |sum, h| {
            *sum += weight(&h.histogram);
            Some(*sum)
        }));
        let mut widest = 0;
        windows.walk(&timestamps, |_, _, lo, hi| widest = widest.max(sums[hi] - sums[lo]));
        let fits = self.query.hold_samples(widest);
        self.query.release_samples(widest);
        fits
    }
}

/// Histograms without buckets. What buckets would tell of counter resets is put into the hints.
fn without_buckets(histograms: &[HistogramSample]) -> Vec<HistogramSample> {
    let mut last: Option<Arc<FloatHistogram>> = None;
    let mut out = Vec::with_capacity(histograms.len());
    for sample in histograms {
        let h = sample.histogram.as_ref();
        let mut hint = h.counter_reset_hint;
        if let (CounterResetHint::Unknown, Some(last), false) = (hint, &last, is_stale(h.sum)) {
            let reset = h.detect_reset(last);
            hint = if reset { CounterResetHint::Reset } else { CounterResetHint::NotReset };
        }
        if !is_stale(h.sum) {
            last = Some(Arc::clone(&sample.histogram));
        }
        let stats = FloatHistogram {
            counter_reset_hint: hint,
            schema: h.schema,
            count: h.count,
            sum: h.sum,
            ..FloatHistogram::default()
        };
        out.push(HistogramSample { histogram: Arc::new(stats), ..sample.clone() });
    }
    out
}

/// Without stale markers, and without start timestamps unless they are in use.
pub(super) fn live_histograms(
    histograms: &[HistogramSample],
    use_starts: bool,
) -> Cow<'_, [HistogramSample]> {
    let is_fine = |h: &HistogramSample| !h.histogram.is_stale() && (use_starts || h.start_timestamp == 0);
    if histograms.iter().all(is_fine) {
        return Cow::Borrowed(histograms);
    }
    let live = histograms.iter().filter(|h| !h.histogram.is_stale());
    let start = |h: &HistogramSample| if use_starts { h.start_timestamp } else { 0 };
    Cow::Owned(live.map(|h| HistogramSample { start_timestamp: start(h), ..h.clone() }).collect())
}

fn notes<'a>(held: &'a Held, spec: &'a SelectorSpec, labels: &'a Labels) -> Notes<'a> {
    let name = labels.get(METRIC_NAME).unwrap_or_default();
    Notes { context: &held.query, position: &spec.position, name }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.query.release_samples(self.samples);
    }
}

/// From a series to its row, which goes to the sink; owns the buffers that series after series uses. Series come one at
/// a time, with all samples that any step of the grid looks at.
struct Evaluator {
    spec: Arc<SelectorSpec>,
    windows: Windows,
    key: Vec<u8>,
    row: StepRow,
    live: Live,
    scratch: range::Scratch,
    seen: Arc<Seen>,
    /// The last name that was found to be no counter's.
    told: String,
}

impl Evaluator {
    fn new(spec: Arc<SelectorSpec>, seen: Arc<Seen>, query: &Arc<QueryContext>) -> Self {
        let windows = windows(&spec);
        Self {
            spec,
            windows,
            key: Vec::new(),
            row: StepRow::default(),
            live: Live::default(),
            scratch: range::Scratch::watching(Arc::clone(query)),
            seen,
            told: String::new(),
        }
    }

    /// What is to be said of a series that has a result, apart from the result.
    fn look_at(&mut self, labels: &Labels, held: &Held) -> Result<(), QueryError> {
        let has_floats = self.row.has_floats();
        if let Some(check) = self.spec.counters.as_ref().filter(|_| has_floats) {
            let name = labels.metric_name();
            let text = if check.by_type {
                non_counter_type(labels.as_bytes())
            } else if self.told == name {
                None
            } else {
                non_counter(name)
            };
            if let Some(text) = text {
                name.clone_into(&mut self.told);
                held.query.info(&format!("{text}{}", check.position));
            }
        }
        if self.spec.distinct && (has_floats || !self.row.histograms().is_empty()) {
            KeyOutput::DropName.write_key(labels, &mut self.key);
            if !self.seen.insert(&self.key) {
                return Err(same_labelset());
            }
        }
        Ok(())
    }

    fn series(
        &mut self,
        labels: &Labels,
        samples: Samples<'_>,
        histograms: &[HistogramSample],
        scalars: &[StepScalar],
        held: &mut Held,
        sink: &mut Sink,
    ) -> Result<(), QueryError> {
        match self.spec.window {
            Window::Instant { read, .. } => {
                instant::evaluate(&self.windows, samples, read, &mut self.row);
                instant::overlay(&self.windows, samples.timestamps, histograms, read, &mut self.row);
            }
            Window::Smoothed { lookback_ms } => {
                let samples = samples.without_stale(&mut self.live);
                range::extended::smoothed_instant(lookback_ms, &self.windows, samples, &mut self.row);
                if !histograms.is_empty() {
                    let (live, row) = (live_histograms(histograms, true), &mut self.row);
                    let notes = notes(held, &self.spec, labels);
                    range::extended_histogram::overlay_instant(
                        lookback_ms,
                        &self.windows,
                        samples,
                        &live,
                        &notes,
                        row,
                    );
                }
            }
            Window::Range { function, extension, use_starts, .. } => {
                let samples = samples.with_starts(if use_starts { samples.starts } else { &[] });
                let counter = matches!(function, RangeFunction::Rate | RangeFunction::Increase);
                let samples = if counter && extension.is_none() {
                    samples.without_stale_rising(&mut self.live)
                } else {
                    samples.without_stale(&mut self.live)
                };
                held.window(&self.windows, samples.timestamps)?;
                let looked_at = held.query.counts().map(|c| (c, count::extended(&self.windows, extension)));
                if let Some((counts, windows)) = &looked_at {
                    count::floats(counts, self.spec.counted, windows, samples.timestamps);
                }
                match extension {
                    None => {
                        let (scratch, row) = (&mut self.scratch, &mut self.row);
                        range::evaluate(function, &self.windows, samples, scalars, scratch, row)?;
                    }
                    Some(extension) => {
                        range::extended::evaluate(
                            function,
                            extension,
                            &self.windows,
                            samples,
                            &mut self.row,
                        )?;
                    }
                }
                if let (RangeFunction::QuantileOverTime, Some(phi)) = (function, scalars.first()) {
                    tell_bad_quantiles(&held.query, phi, &self.row, &self.spec.position);
                }
                let overlaps = std::mem::take(&mut self.scratch.start_overlaps);
                if overlaps > 0 {
                    let name = labels.get(METRIC_NAME).unwrap_or_default();
                    held.query.start_overlaps(name, &self.spec.position, overlaps);
                }
                if !histograms.is_empty() {
                    let live = live_histograms(histograms, use_starts);
                    held.histogram_window(&self.windows, &live)?;
                    if let Some((counts, windows)) = &looked_at {
                        count::histograms(counts, self.spec.counted, windows, &live);
                    }
                    range::histogram::check_scalars(function, &self.windows, &live, scalars)?;
                    let (notes, windows, row) =
                        (notes(held, &self.spec, labels), &self.windows, &mut self.row);
                    match extension {
                        None => range::histogram::overlay(function, windows, samples, &live, &notes, row),
                        Some(extension) => range::extended_histogram::overlay(
                            function, extension, windows, samples, &live, &notes, row,
                        ),
                    }
                    held.query.check()?;
                }
            }
        }
        if !matches!(self.spec.window, Window::Range { .. })
            && let Some(counts) = held.query.counts()
        {
            count::row(counts, self.spec.counted, &self.windows, &self.row);
        }
        if self.spec.distinct || self.spec.counters.is_some() {
            self.look_at(labels, held)?;
        }
        self.spec.output.write_key(labels, &mut self.key);
        match sink {
            Sink::Tiles(tiles) => {
                held.points(self.row.count())?;
                tiles.push_row(&self.key, &self.row);
            }
            Sink::Groups(groups) => {
                let new = groups.add(&self.key, &self.row, &held.query)?;
                held.points(new)?;
            }
            Sink::End => {}
        }
        Ok(())
    }
}
