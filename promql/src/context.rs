//! [`QueryContext`]: what all operators of one running query share.
//!
//! It travels as an extension of DataFusion's session configuration, so that any operator reaches
//! it through its `TaskContext` and no plan node has to carry it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use parking_lot::Mutex;
use promontory_tsdb::labels::go_quote;
use tokio_util::sync::CancellationToken;

use crate::error::QueryError;

/// Shared by all operators of one query.
#[derive(Debug)]
pub struct QueryContext {
    annotations: Mutex<Notes>,
    samples: AtomicUsize,
    max_samples: usize,
    bytes: AtomicUsize,
    peak_bytes: AtomicUsize,
    max_bytes: usize,
    cancel: CancellationToken,
    deadline: Option<Instant>,
    counts: Option<SampleCounts>,
}

/// Samples that a query has looked at, if they are counted. A histogram counts as many as its
/// [`weight`](crate::histogram::weight) says.
#[derive(Debug, Default)]
pub struct SampleCounts {
    total: AtomicUsize,
    read: AtomicUsize,
    peak: AtomicUsize,
}

impl SampleCounts {
    /// Adds samples in all windows, and of those the ones that no window had before.
    pub(crate) fn add(&self, total: usize, read: usize) {
        self.total.fetch_add(total, Ordering::Relaxed);
        self.read.fetch_add(read, Ordering::Relaxed);
    }

    /// Adds the samples in windows that `other` counted, as none that were read.
    pub(crate) fn add_total(&self, other: &Self) {
        self.add(other.total.load(Ordering::Relaxed), 0);
    }
}

/// What [`SampleCounts`] came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SampleStats {
    /// Samples in windows, over all steps: one that several steps have in their window counts with each.
    pub total_queryable: usize,
    /// Of those, what the window of the step before did not have already.
    pub read: usize,
    /// The most that was held at a time.
    pub peak: usize,
}

/// What a query may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Samples that may be held at a time.
    pub max_samples: usize,
    /// Bytes that may be held at a time.
    pub max_bytes: usize,
    /// When it ends.
    pub deadline: Option<Instant>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_samples: usize::MAX, max_bytes: usize::MAX, deadline: None }
    }
}

/// What was noted so far.
#[derive(Debug, Default)]
struct Notes {
    /// Texts with their positions.
    all: Annotations,
    /// By metric name: how often, and the last position.
    start_overlaps: BTreeMap<String, (usize, String)>,
}

/// Texts for the user, each once.
#[derive(Debug, Default, Clone)]
pub struct Annotations {
    /// Complete texts, `PromQL warning: …`.
    pub warnings: BTreeSet<String>,
    /// Complete texts, `PromQL info: …`.
    pub infos: BTreeSet<String>,
}

impl QueryContext {
    /// A context for one run. `cancel` ends it early, at the next batch of any operator.
    pub fn new(max_samples: usize, cancel: CancellationToken) -> Arc<Self> {
        Self::with_limits(Limits { max_samples, ..Limits::default() }, cancel)
    }

    /// A context for one run within `limits`; at the deadline it ends even if nothing else gets to run until then.
    pub fn with_limits(limits: Limits, cancel: CancellationToken) -> Arc<Self> {
        Arc::new(Self::make(limits, cancel, None))
    }

    /// A context for one run within `limits` that counts samples.
    pub fn counting(limits: Limits, cancel: CancellationToken) -> Arc<Self> {
        Arc::new(Self::make(limits, cancel, Some(SampleCounts::default())))
    }

    fn make(limits: Limits, cancel: CancellationToken, counts: Option<SampleCounts>) -> Self {
        let Limits { max_samples, max_bytes, deadline } = limits;
        Self {
            annotations: Mutex::default(),
            samples: AtomicUsize::new(0),
            max_samples,
            bytes: AtomicUsize::new(0),
            peak_bytes: AtomicUsize::new(0),
            max_bytes,
            cancel,
            deadline,
            counts,
        }
    }

    /// Where samples are counted, if they are.
    pub(crate) fn counts(&self) -> Option<&SampleCounts> {
        self.counts.as_ref()
    }

    /// What was counted so far; nothing, unless samples are counted.
    pub fn sample_stats(&self) -> SampleStats {
        self.counts.as_ref().map_or_else(SampleStats::default, |counts| SampleStats {
            total_queryable: counts.total.load(Ordering::Relaxed),
            read: counts.read.load(Ordering::Relaxed),
            peak: counts.peak.load(Ordering::Relaxed),
        })
    }

    /// The context of the query that `task` belongs to.
    ///
    /// # Errors
    /// If the plan was not started by the engine: a bug.
    pub fn of(task: &TaskContext) -> Result<Arc<Self>, DataFusionError> {
        task.session_config()
            .get_extension::<Self>()
            .ok_or_else(|| DataFusionError::Internal("a PromQL operator runs without a query context".into()))
    }

    /// Notes a warning. `text` is upstream's, without the prefix, with the position behind it.
    pub fn warn(&self, text: &str) {
        self.annotations.lock().all.warnings.insert(format!("PromQL warning: {text}"));
    }

    /// Notes an info. `text` is upstream's, without the prefix, with the position behind it.
    pub fn info(&self, text: &str) {
        self.annotations.lock().all.infos.insert(format!("PromQL info: {text}"));
    }

    /// Notes that `n` windows of the metric `name` have a sample that starts before the one in front of
    /// it was taken.
    pub fn start_overlaps(&self, name: &str, position: &str, n: usize) {
        let mut notes = self.annotations.lock();
        let (count, place) = notes.start_overlaps.entry(go_quote(name).into_owned()).or_default();
        *count += n;
        if place.is_empty() || parts(place).2 < parts(position).2 {
            position.clone_into(place);
        }
    }

    /// What was noted so far. A text that belongs to several places is given for the last one, as
    /// upstream does.
    pub fn annotations(&self) -> Annotations {
        let notes = self.annotations.lock();
        let mut all = Annotations {
            warnings: last_evaluated(&notes.all.warnings),
            infos: last_evaluated(&notes.all.infos),
        };
        for (name, (count, position)) in &notes.start_overlaps {
            let times = if *count > 1 { format!(" ({count} occurrences)") } else { String::new() };
            let what = "sample has start time that overlaps with previous sample timestamp";
            all.warnings
                .insert(format!("PromQL warning: {what} for metric {name}{times}{}", parts(position).1));
        }
        all
    }

    /// Accounts for `n` more samples held in memory.
    ///
    /// # Errors
    /// [`QueryError::Limit`] with upstream's text once the query holds more than it may.
    pub fn hold_samples(&self, n: usize) -> Result<(), QueryError> {
        let held = self.samples.fetch_add(n, Ordering::Relaxed) + n;
        if let Some(counts) = &self.counts {
            counts.peak.fetch_max(held, Ordering::Relaxed);
        }
        if held > self.max_samples {
            return Err(too_many_samples());
        }
        Ok(())
    }

    /// Samples that are held now.
    #[cfg(test)]
    pub(crate) fn samples_held(&self) -> usize {
        self.samples.load(Ordering::Relaxed)
    }

    /// Gives `n` samples back.
    pub fn release_samples(&self, n: usize) {
        self.samples.fetch_sub(n, Ordering::Relaxed);
    }

    /// Accounts for `n` more bytes held in memory.
    ///
    /// # Errors
    /// [`QueryError::Limit`] once the query holds more than it may. They are accounted for all the same.
    pub fn hold_bytes(&self, n: usize) -> Result<(), QueryError> {
        let held = self.bytes.fetch_add(n, Ordering::Relaxed).saturating_add(n);
        self.peak_bytes.fetch_max(held, Ordering::Relaxed);
        if held > self.max_bytes {
            let text = "query processing would use too much memory in query execution";
            return Err(QueryError::Limit(format!("{text}: more than {} bytes", self.max_bytes)));
        }
        Ok(())
    }

    /// Gives `n` bytes back.
    pub fn release_bytes(&self, n: usize) {
        self.bytes.fetch_sub(n, Ordering::Relaxed);
    }

    /// Bytes that are held now.
    pub fn bytes_held(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The most bytes that were held at a time.
    pub fn peak_bytes(&self) -> usize {
        self.peak_bytes.load(Ordering::Relaxed)
    }

    /// Whether to go on; every operator asks once per batch, and within long loops ([`Pace`]).
    ///
    /// # Errors
    /// [`QueryError::Cancelled`] once the query is cancelled, [`QueryError::Timeout`] once its
    /// deadline has passed.
    pub fn check(&self) -> Result<(), QueryError> {
        if self.cancel.is_cancelled() {
            return Err(QueryError::Cancelled("query execution"));
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(QueryError::Timeout("query execution"));
        }
        Ok(())
    }
}

impl QueryContext {
    /// Cancelled when the query is.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Time until the deadline; a very long one if there is none.
    pub(crate) fn time_left(&self) -> Duration {
        self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

/// Stands between a position and its place in the order of evaluation; see [`ordered_position`].
const ORDER: char = '\0';

/// ` (line:col)` of an expression that ends at byte `end`, with the place of that expression in the order of
/// evaluation: what stands inside comes before what is around it, and left comes before right.
pub(crate) fn ordered_position(line: usize, column: usize, end: usize) -> String {
    format!(" ({line}:{column}){ORDER}{end:010}.{column:010}")
}

/// A text up to its position, the text with it, and the place in the order of evaluation.
fn parts(text: &str) -> (&str, &str, &str) {
    let (shown, order) = text.split_once(ORDER).unwrap_or((text, ""));
    let before =
        shown.strip_suffix(')').and_then(|s| s.rsplit_once(" (")).map_or(shown, |(before, _)| before);
    (before, shown, order)
}

/// Of texts that differ in their position only, the one of the expression that is evaluated last.
fn last_evaluated(texts: &BTreeSet<String>) -> BTreeSet<String> {
    let mut by_text: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for (before, shown, order) in texts.iter().map(|text| parts(text)) {
        let kept = by_text.entry(before).or_insert((order, shown));
        if kept.0 < order {
            *kept = (order, shown);
        }
    }
    by_text.into_values().map(|(_, shown)| shown.to_owned()).collect()
}

/// Upstream's text for a query that would hold more samples than it may.
pub(crate) fn too_many_samples() -> QueryError {
    QueryError::Limit("query processing would load too many samples into memory in query execution".into())
}

/// Bytes that somebody holds for a query, given back when dropped.
///
/// What is accounted for is what grows with data: keys, indexes, states, tiles. It is counted from lengths, with what
/// maps and vectors take besides at a flat rate; what allocators add is not in it.
#[derive(Debug)]
pub(crate) struct HeldBytes<C: Deref<Target = QueryContext>> {
    context: C,
    bytes: usize,
}

impl<C: Deref<Target = QueryContext>> HeldBytes<C> {
    /// Small holders are not worth an atomic operation for each row.
    const PIECE: usize = 16 * 1024;

    pub(crate) fn new(context: C) -> Self {
        Self { context, bytes: 0 }
    }

    /// Holds `n` more.
    pub(crate) fn add(&mut self, n: usize) -> Result<(), QueryError> {
        self.bytes = self.bytes.saturating_add(n);
        self.context.hold_bytes(n)
    }

    /// Holds `n` less.
    pub(crate) fn give_back(&mut self, n: usize) {
        let n = n.min(self.bytes);
        self.bytes -= n;
        self.context.release_bytes(n);
    }

    /// Holds at least `n` in all; asks for some more at a time.
    #[inline]
    pub(crate) fn grow_to(&mut self, n: usize) -> Result<(), QueryError> {
        if n <= self.bytes {
            return Ok(());
        }
        self.add((n - self.bytes).max(Self::PIECE))
    }
}

impl<C: Deref<Target = QueryContext>> Drop for HeldBytes<C> {
    fn drop(&mut self) {
        self.context.release_bytes(self.bytes);
    }
}

/// Asks [`QueryContext::check`] every so often in a loop that would run long without.
#[derive(Debug)]
pub(crate) struct Pace<'a> {
    context: &'a QueryContext,
    left: usize,
}

impl<'a> Pace<'a> {
    /// Units of work between two checks: rows, or as much as a row is.
    const STRIDE: usize = 256;

    pub(crate) fn new(context: &'a QueryContext) -> Self {
        Self { context, left: Self::STRIDE }
    }

    /// `work` more units are about to be done.
    pub(crate) fn step(&mut self, work: usize) -> Result<(), QueryError> {
        if work < self.left {
            self.left -= work;
            return Ok(());
        }
        self.left = Self::STRIDE;
        self.context.check()
    }
}

/// Errors cross DataFusion boxed, and come out as they went in; see [`QueryError::from_datafusion`].
impl From<QueryError> for DataFusionError {
    fn from(e: QueryError) -> Self {
        Self::External(Box::new(e))
    }
}

impl QueryError {
    /// Takes our error back out of DataFusion's wrapping; anything else is an internal error.
    pub fn from_datafusion(e: DataFusionError) -> Self {
        match e {
            DataFusionError::External(inner) => match inner.downcast::<Self>() {
                Ok(ours) => *ours,
                Err(other) => match other.downcast::<DataFusionError>() {
                    Ok(df) => Self::from_datafusion(*df),
                    Err(other) => Self::Internal(other.to_string()),
                },
            },
            DataFusionError::Context(_, inner) => Self::from_datafusion(*inner),
            DataFusionError::ResourcesExhausted(text) => Self::Limit(text),
            DataFusionError::Shared(shared) => match Arc::try_unwrap(shared) {
                Ok(inner) => Self::from_datafusion(inner),
                Err(shared) => Self::within(&shared).unwrap_or_else(|| Self::Internal(shared.to_string())),
            },
            other => Self::Internal(other.to_string()),
        }
    }

    /// As [`QueryError::from_datafusion`], of an error that others have, too.
    fn within(e: &DataFusionError) -> Option<Self> {
        match e {
            DataFusionError::External(inner) => match inner.downcast_ref::<Self>() {
                Some(ours) => Some(ours.again()),
                None => inner.downcast_ref::<DataFusionError>().and_then(Self::within),
            },
            DataFusionError::Context(_, inner) => Self::within(inner),
            DataFusionError::ResourcesExhausted(text) => Some(Self::Limit(text.clone())),
            DataFusionError::Shared(shared) => Self::within(shared),
            _ => None,
        }
    }
}
