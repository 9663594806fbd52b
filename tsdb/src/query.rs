//! [`Queryable`]: the one door to data, implemented by head, block, archive, remote read and test storage.

use std::fmt;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;

use futures_core::Stream;

use crate::changes::{ChangedRanges, Version};
use crate::error::Result;
use crate::histogram::FloatHistogram;
use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::needed::Needed;
use crate::sample::TimestampMs;

/// Series in label order, batch by batch.
///
/// Local data is ready at once and is decoded on the polling thread; archive and remote sources
/// may return `Pending`. Dropping the stream cancels it. After an `Err` the stream is over.
pub type SeriesStream = Pin<Box<dyn Stream<Item = Result<SeriesBatch>> + Send>>;

/// A source of series.
///
/// All time ranges are closed: `[mint, maxt]`, ms. All matchers must hold (AND); a label that a
/// series lacks is matched as the empty string. No matcher means every series.
///
/// An implementer promises:
/// - **Order.** Within a partition, series come in label order ([`Labels`]' `Ord`), each once, with
///   samples in strictly ascending time.
/// - **Partitions** are runs of label order: every series of a partition sorts before every series of the
///   next one. Where they are divided is up to the source, unless `hints.splits` says it: then the same
///   partition of two sources can be merged without looking at the others.
/// - **Snapshot.** What `select` returns is fixed at the call: later appends, compactions and
///   deletions do not show, and a half-committed scrape is never seen.
/// - **Raw values.** Stale markers are delivered as stored; tombstoned samples are not delivered.
/// - **No empty series.** A series without a sample in range is left out, except when
///   `hints.labels_only` is set, where a source may include series whose chunks overlap the range.
pub trait Queryable: fmt::Debug + Send + Sync {
    /// Series that match, with their samples in `[mint, maxt]`.
    ///
    /// Cheap by itself: resolves postings and labels; samples are decoded as the streams are polled.
    ///
    /// # Errors
    /// When the index cannot be read. Damage in samples comes out of the streams.
    fn select(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        hints: &SelectHints,
    ) -> Result<Selection>;

    /// Label sets that divide the matching series into `parts` runs of about the same size, for
    /// [`SelectHints::splits`]: ascending, at most `parts - 1` of them. None if there is nothing to divide.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn splits(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        parts: usize,
    ) -> Result<Vec<Labels>> {
        let _ = (matchers, mint, maxt, parts);
        Ok(Vec::new())
    }

    /// Names of labels that occur on matching series, sorted.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn label_names(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Result<Vec<String>>;

    /// Values of label `name` on matching series, sorted, without the empty value.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> Result<Vec<String>>;

    /// What is known about matching series without decoding a sample.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn series_stats(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs)
    -> Result<SeriesStats>;

    /// About how many series match: an upper bound that is cheap to get, from postings alone.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn series_estimate(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Result<u64> {
        self.series_stats(matchers, mint, maxt).map(|stats| stats.series)
    }

    /// The present moment, for [`Queryable::changed_since`]; `None` if the source cannot tell what changes.
    fn version(&self) -> Option<Version> {
        None
    }

    /// Where samples came, went or changed since `version` was given; `None` if that is not known. What a read that
    /// began after the version was given saw elsewhere is still so.
    fn changed_since(&self, version: Version) -> Option<ChangedRanges> {
        let _ = version;
        None
    }

    /// Oldest and newest timestamp that the source may hold; `None` when it is empty.
    fn time_bounds(&self) -> Option<(TimestampMs, TimestampMs)>;

    /// Shows `visit` the chunks of matching series until it breaks off; nothing where the notion means nothing.
    /// Places come one after the other, the head first, and chunks of a series in order of time. A chunk that is
    /// being moved may be shown where it was and where it comes.
    ///
    /// # Errors
    /// When an index or a chunk header cannot be read.
    fn for_each_chunk(
        &self,
        matchers: &[Matcher],
        visit: &mut dyn FnMut(ChunkSummary) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let _ = (matchers, visit);
        Ok(ControlFlow::Continue(()))
    }

    /// The immutable pieces that the source reads, oldest first; empty where the notion means nothing.
    fn blocks(&self) -> Vec<BlockSummary> {
        Vec::new()
    }
}

/// How the caller wants a selection delivered. Hints never change which samples there are,
/// except `labels_only` and `needed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectHints {
    /// Number of partitions to return; at least 1.
    pub partitions: usize,
    /// Where partitions are divided: ascending label sets, fewer than `partitions`. A series is in the partition
    /// whose number is that of the splits which it is not in front of.
    pub splits: Option<Arc<[Labels]>>,
    /// A batch ends once it holds this many samples (a series is never split).
    pub batch_samples: usize,
    /// Only labels are wanted: batches carry no samples, no chunk is decoded.
    pub labels_only: bool,
    /// Which samples of each series are wanted: a source may leave out others.
    pub needed: Needed,
    /// Stop after about this many series in each partition; 0 is no limit.
    pub series_limit: usize,
}

impl Default for SelectHints {
    fn default() -> Self {
        Self {
            partitions: 1,
            splits: None,
            batch_samples: 16 * 1024,
            labels_only: false,
            needed: Needed::All,
            series_limit: 0,
        }
    }
}

impl SelectHints {
    /// Where `count` things in label order are divided into partitions, as `partitions + 1` ascending indexes from
    /// 0 to `count`: where the splits say, and into equal parts if they say nothing. `is_before(i, labels)` is
    /// whether thing `i` sorts before `labels`.
    ///
    /// # Errors
    /// Those of `is_before`.
    pub(crate) fn divide(
        &self,
        count: usize,
        mut is_before: impl FnMut(usize, &Labels) -> Result<bool>,
    ) -> Result<Vec<usize>> {
        let partitions = self.partitions.max(1);
        let mut bounds = Vec::with_capacity(partitions + 1);
        bounds.push(0);
        match &self.splits {
            None => bounds.extend((1..partitions).map(|i| count * i / partitions)),
            Some(splits) => {
                for split in splits.iter().take(partitions - 1) {
                    let (mut low, mut high) = (bounds[bounds.len() - 1], count);
                    while low < high {
                        let middle = low + (high - low) / 2;
                        if is_before(middle, split)? { low = middle + 1 } else { high = middle }
                    }
                    bounds.push(low);
                }
            }
        }
        bounds.resize(partitions + 1, count);
        Ok(bounds)
    }
}

/// Answer to [`Queryable::select`].
pub struct Selection {
    /// One stream per partition; exactly `hints.partitions` of them, empty ones included.
    pub partitions: Vec<SeriesStream>,
    /// Number of series that the index says will come, over all partitions; an upper bound.
    pub series: u64,
}

impl fmt::Debug for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Selection")
            .field("partitions", &self.partitions.len())
            .field("series", &self.series)
            .finish()
    }
}

/// Some whole series, in label order.
///
/// Samples of series `i` are `timestamps[offsets[i]..offsets[i + 1]]` and the same range of
/// `values`. The vectors are made to be moved into Arrow buffers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SeriesBatch {
    /// One label set per series.
    pub labels: Vec<Labels>,
    /// `labels.len() + 1` ascending offsets, the first 0.
    pub offsets: Vec<u32>,
    /// ms since the epoch, strictly ascending within a series.
    pub timestamps: Vec<TimestampMs>,
    /// Float values, stale markers included.
    pub values: Vec<f64>,
    /// Start timestamps of the float samples, ms, 0 where a sample has none. Either as long as
    /// `values`, or empty: no sample of the batch has one, the usual case.
    pub start_timestamps: Vec<TimestampMs>,
    /// Histogram samples, sparse, ordered by (series, timestamp). Empty in the usual case.
    pub histograms: Vec<HistogramSample>,
}

/// A histogram sample of a [`SeriesBatch`].
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramSample {
    /// Index into [`SeriesBatch::labels`].
    pub series: u32,
    /// ms since the epoch.
    pub timestamp: TimestampMs,
    /// When what it counts began, ms; 0 if not known.
    pub start_timestamp: TimestampMs,
    /// The value.
    pub histogram: Arc<FloatHistogram>,
}

impl SeriesBatch {
    /// An empty batch, ready for [`SeriesBatch::finish_series`].
    pub fn new() -> Self {
        Self { offsets: vec![0], ..Self::default() }
    }

    /// Closes the series whose samples were just pushed onto `timestamps` and `values`.
    ///
    /// # Panics
    /// If a batch grows past `u32::MAX` samples, or the two vectors differ in length.
    pub fn finish_series(&mut self, labels: Labels) {
        assert_eq!(self.timestamps.len(), self.values.len(), "a sample is a timestamp and a value");
        self.finish_series_at(labels, self.values.len());
    }

    /// Closes a series whose float samples end at index `end`; what is behind them is not yet of any.
    ///
    /// # Panics
    /// If `end` is past `u32::MAX`.
    pub(crate) fn finish_series_at(&mut self, labels: Labels, end: usize) {
        self.labels.push(labels);
        self.offsets.push(u32::try_from(end).expect("a batch holds less than 2^32 samples"));
    }

    /// Forgets all but the newest of the samples that were just pushed, floats from index `floats` on and histograms
    /// from `histograms` on, both in order of time.
    pub(crate) fn keep_newest(&mut self, floats: usize, histograms: usize) {
        let float = self.timestamps[floats..].last().copied();
        let histogram = self.histograms[histograms..].last().map(|h| h.timestamp);
        let newest = float.max(histogram);
        let kept = |last: Option<TimestampMs>| usize::from(last.is_some() && last == newest);
        let older = floats..self.values.len() - kept(float);
        self.timestamps.drain(older.clone());
        self.values.drain(older.clone());
        if !self.start_timestamps.is_empty() {
            self.start_timestamps.drain(older);
        }
        self.histograms.drain(histograms..self.histograms.len() - kept(histogram));
    }

    /// Start timestamps of the float samples of series `i`; empty if none in the batch has one.
    ///
    /// # Panics
    /// If `i >= self.len()`.
    pub fn starts(&self, i: usize) -> &[TimestampMs] {
        if self.start_timestamps.is_empty() {
            return &[];
        }
        &self.start_timestamps[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no series.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Labels, timestamps and values of series `i`.
    ///
    /// # Panics
    /// If `i >= self.len()`.
    pub fn series(&self, i: usize) -> (&Labels, &[TimestampMs], &[f64]) {
        let range = self.offsets[i] as usize..self.offsets[i + 1] as usize;
        (&self.labels[i], &self.timestamps[range.clone()], &self.values[range])
    }
}

/// What an index knows about a selection. `exact` says whether the three counts count just what
/// `[mint, maxt]` holds, or whole chunks that overlap it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SeriesStats {
    /// Matching series.
    pub series: u64,
    /// Chunks that overlap the range.
    pub chunks: u64,
    /// Samples in those chunks, stale markers included.
    pub samples: u64,
    /// Oldest sample, ms; meaningless if `samples` is 0.
    pub min_time: TimestampMs,
    /// Newest sample, ms; meaningless if `samples` is 0.
    pub max_time: TimestampMs,
    /// Whether the figures are exact for the range.
    pub exact: bool,
}

/// A chunk as a table row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkSummary {
    /// ULID of its block, `head` in the head.
    pub block: Arc<str>,
    /// Its series' number in that place.
    pub series: u64,
    /// Its series' labels.
    pub labels: Labels,
    /// Oldest sample, ms.
    pub min_time: TimestampMs,
    /// Newest sample, ms (included).
    pub max_time: TimestampMs,
    /// How it is encoded, as Prometheus calls that; `none` for late samples that are not encoded yet.
    pub encoding: &'static str,
    /// Number of samples, stale markers and deleted ones included.
    pub samples: u64,
    /// Size of its data.
    pub bytes: u64,
    /// Whether its samples came out of order, as far as that is known.
    pub out_of_order: bool,
}

/// A block as a table row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSummary {
    /// ULID, as text.
    pub ulid: String,
    /// First instant, ms (included).
    pub min_time: TimestampMs,
    /// End, ms (excluded).
    pub max_time: TimestampMs,
    /// Number of series.
    pub series: u64,
    /// Number of samples.
    pub samples: u64,
    /// Number of chunks.
    pub chunks: u64,
    /// Compaction level, 1 for a block cut from the head.
    pub level: u32,
    /// Size on disk of index, chunks and tombstones.
    pub bytes: u64,
}
