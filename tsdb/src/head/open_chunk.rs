//! The chunk of a series that takes samples, and when it ends.
//!
//! # Memory
//! The buffer of a float chunk grows in small steps, because there is one per series.
//!
//! # Source
//! `appendPreprocessor` and `histogramsAppendPreprocessor` of
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/head_append.go>.

use std::sync::Arc;

use super::series::ClosedChunk;
use crate::chunkenc::histogram::{Appended, ChunkAppender, Coder, FloatCoder, IntegerCoder};
use crate::chunkenc::{Encoding, xor, xor2};
use crate::histogram::{HistogramValue, InvalidHistogram};
use crate::prefetch::prefetch;
use crate::sample::TimestampMs;

/// Samples that a chunk of floats should hold.
pub(super) const SAMPLES_PER_CHUNK: usize = 120;
/// A chunk of floats larger than this is cut whatever its count: 1 KiB less the largest sample.
const MAX_FLOAT_BYTES: usize = 1024 - 19;
/// Bytes that a chunk of histograms should hold.
const HISTOGRAM_BYTES: usize = 1024;
/// A chunk of histograms holds at least so many, if its range does not end before.
const MIN_HISTOGRAMS: usize = 10;
/// First size and growth of the buffer; with the allocator's own 8 bytes a multiple of 16.
const STEP_BYTES: usize = 56;

/// How chunks are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkRules {
    /// No chunk crosses a multiple of this.
    pub(crate) block_range_ms: i64,
    /// Whether floats are encoded as XOR2.
    pub(crate) xor2: bool,
    /// Whether chunks have start timestamps; then floats are XOR2.
    pub(crate) start_timestamps: bool,
}

impl ChunkRules {
    pub(super) fn float_encoding(self) -> Encoding {
        if self.xor2 || self.start_timestamps { Encoding::Xor2 } else { Encoding::Xor }
    }
}

/// The newest chunk.
#[derive(Debug)]
pub(crate) struct OpenChunk {
    pub(crate) mint: TimestampMs,
    /// A sample at or after this starts the next chunk.
    next_at: TimestampMs,
    appender: OpenAppender,
}

/// What most series have is in place.
#[derive(Debug)]
enum OpenAppender {
    Xor(xor::Appender),
    Xor2(Box<xor2::Appender>),
    Integer(Box<OpenHistograms<IntegerCoder>>),
    Float(Box<OpenHistograms<FloatCoder>>),
}

/// A chunk of histograms of one flavour.
#[derive(Debug)]
pub(super) struct OpenHistograms<C: Coder> {
    appender: ChunkAppender<C>,
    last: Arc<C::Value>,
    /// Whether the end was predicted already.
    predicted: bool,
}

/// A kind of histogram chunk.
pub(super) trait Flavour: Coder<Value: Clone> {
    /// The chunk, if it is of this kind.
    fn of(chunk: &mut OpenChunk) -> Option<&mut OpenHistograms<Self>>;
    fn wrap(open: Box<OpenHistograms<Self>>) -> OpenKind;
}

/// What [`Flavour::wrap`] gives; only this module looks inside.
#[derive(Debug)]
pub(super) struct OpenKind(OpenAppender);

impl Flavour for IntegerCoder {
    fn of(chunk: &mut OpenChunk) -> Option<&mut OpenHistograms<Self>> {
        if let OpenAppender::Integer(open) = &mut chunk.appender { Some(open) } else { None }
    }
    fn wrap(open: Box<OpenHistograms<Self>>) -> OpenKind {
        OpenKind(OpenAppender::Integer(open))
    }
}

impl Flavour for FloatCoder {
    fn of(chunk: &mut OpenChunk) -> Option<&mut OpenHistograms<Self>> {
        if let OpenAppender::Float(open) = &mut chunk.appender { Some(open) } else { None }
    }
    fn wrap(open: Box<OpenHistograms<Self>>) -> OpenKind {
        OpenKind(OpenAppender::Float(open))
    }
}

/// The newest sample of an open chunk.
#[derive(Debug, Clone)]
pub(crate) enum Newest {
    Float(f64),
    Histogram(HistogramValue),
}

impl OpenChunk {
    /// A chunk of floats whose first sample will be at `t`.
    pub(super) fn floats(t: TimestampMs, rules: ChunkRules) -> Self {
        let appender = match rules.float_encoding() {
            Encoding::Xor2 => OpenAppender::Xor2(Box::new(xor2::Appender::with_capacity(STEP_BYTES))),
            _ => OpenAppender::Xor(xor::Appender::with_capacity(STEP_BYTES)),
        };
        Self { mint: t, next_at: range_end(t, rules.block_range_ms), appender }
    }

    pub(crate) fn maxt(&self) -> TimestampMs {
        match &self.appender {
            OpenAppender::Xor(a) => a.last().t,
            OpenAppender::Xor2(a) => a.last().t,
            OpenAppender::Integer(a) => a.appender.last_timestamp(),
            OpenAppender::Float(a) => a.appender.last_timestamp(),
        }
    }

    pub(crate) fn encoding(&self) -> Encoding {
        match &self.appender {
            OpenAppender::Xor(_) => Encoding::Xor,
            OpenAppender::Xor2(_) => Encoding::Xor2,
            OpenAppender::Integer(a) => a.appender.encoding(),
            OpenAppender::Float(a) => a.appender.encoding(),
        }
    }

    /// Starts to load from memory what an append writes: the count of samples in front, and the end.
    pub(super) fn prefetch(&self) {
        let bytes = self.bytes().as_ptr_range();
        prefetch(bytes.start);
        prefetch(bytes.end);
    }

    /// The chunk so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.appender {
            OpenAppender::Xor(a) => a.bytes(),
            OpenAppender::Xor2(a) => a.bytes(),
            OpenAppender::Integer(a) => a.appender.bytes(),
            OpenAppender::Float(a) => a.appender.bytes(),
        }
    }

    /// Number of samples.
    pub(crate) fn len(&self) -> usize {
        match &self.appender {
            OpenAppender::Xor(a) => a.len(),
            OpenAppender::Xor2(a) => a.len(),
            OpenAppender::Integer(a) => a.appender.len(),
            OpenAppender::Float(a) => a.appender.len(),
        }
    }

    /// The newest sample.
    pub(crate) fn newest(&self) -> Newest {
        match &self.appender {
            OpenAppender::Xor(a) => Newest::Float(a.last().v),
            OpenAppender::Xor2(a) => Newest::Float(a.last().v),
            OpenAppender::Integer(a) => Newest::Histogram(HistogramValue::Integer(Arc::clone(&a.last))),
            OpenAppender::Float(a) => Newest::Histogram(HistogramValue::Float(Arc::clone(&a.last))),
        }
    }

    /// Bytes of the buffer.
    pub(super) fn capacity(&self) -> usize {
        match &self.appender {
            OpenAppender::Xor(a) => a.capacity(),
            OpenAppender::Xor2(a) => size_of_val(&**a) + a.bytes().len(),
            OpenAppender::Integer(a) => size_of_val(&**a) + a.appender.bytes().len(),
            OpenAppender::Float(a) => size_of_val(&**a) + a.appender.bytes().len(),
        }
    }

    /// Appends a float to a chunk that [`OpenChunk::takes_float`].
    pub(super) fn append_float(&mut self, t: TimestampMs, start: TimestampMs, v: f64) {
        match &mut self.appender {
            OpenAppender::Xor(a) => {
                a.reserve_step(STEP_BYTES);
                a.append(t, v);
            }
            OpenAppender::Xor2(a) => a.append(start, t, v),
            OpenAppender::Integer(_) | OpenAppender::Float(_) => {
                debug_assert!(false, "a float goes to a chunk of floats");
            }
        }
    }

    /// Whether a float at `t` belongs to this chunk; refines the predicted end on the way.
    pub(super) fn takes_float(&mut self, t: TimestampMs, rules: ChunkRules) -> bool {
        let (encoding, len) = (self.encoding(), self.len());
        // Without start timestamps both float encodings hold the same, so a chunk is finished as it is.
        let other = encoding != rules.float_encoding() && (encoding.is_histogram() || rules.start_timestamps);
        if other || self.bytes().len() > MAX_FLOAT_BYTES {
            return false;
        }
        if len == SAMPLES_PER_CHUNK / 4 {
            self.next_at = predict_end(self.mint, self.maxt(), self.next_at, 4.0);
        }
        t < self.next_at && len < 2 * SAMPLES_PER_CHUNK
    }

    pub(super) fn into_closed(self) -> ClosedChunk {
        let data = Arc::from(self.bytes());
        ClosedChunk { mint: self.mint, maxt: self.maxt(), encoding: self.encoding(), data }
    }
}

/// What became of a histogram.
#[derive(Debug)]
pub(super) enum HistogramAppended {
    /// The open chunk has it.
    Same,
    /// It begins this chunk; the open one is finished.
    Next(OpenChunk),
}

/// Appends a histogram to `open`, or begins the next chunk with it.
///
/// # Errors
/// If spans and buckets do not agree.
pub(super) fn append_histogram<C: Flavour>(
    open: Option<&mut OpenChunk>,
    t: TimestampMs,
    start: TimestampMs,
    value: &Arc<C::Value>,
    rules: ChunkRules,
) -> Result<HistogramAppended, InvalidHistogram> {
    let encoding = C::ENCODINGS[usize::from(rules.start_timestamps)];
    let next = |appender, predicted| {
        let open = Box::new(OpenHistograms { appender, last: Arc::clone(value), predicted });
        let OpenKind(appender) = C::wrap(open);
        OpenChunk { mint: t, next_at: range_end(t, rules.block_range_ms), appender }
    };
    let same = open.filter(|open| open.encoding() == encoding);
    let mut before = None;
    if let Some(open) = same {
        let full = is_full::<C>(open, t, rules);
        let histograms = C::of(open);
        if let Some(histograms) = histograms.filter(|_| !full) {
            return Ok(match histograms.appender.append(None, t, start, value)? {
                Appended::InPlace | Appended::Recoded => {
                    histograms.last = Arc::clone(value);
                    HistogramAppended::Same
                }
                // Compat: whether the end was predicted is carried over.
                Appended::NewChunk(appender) => {
                    HistogramAppended::Next(next(*appender, histograms.predicted))
                }
            });
        }
        // The chunk before tells whether there was a reset in between.
        before = C::of(open).map(|histograms| &histograms.appender);
    }
    let mut appender = ChunkAppender::<C>::new(rules.start_timestamps);
    appender.append(before, t, start, value)?;
    Ok(HistogramAppended::Next(next(appender, false)))
}

/// Whether a histogram at `t` belongs to the next chunk; refines the predicted end on the way.
fn is_full<C: Flavour>(open: &mut OpenChunk, t: TimestampMs, rules: ChunkRules) -> bool {
    let (bytes, len, mint, maxt, next_at) =
        (open.bytes().len(), open.len(), open.mint, open.maxt(), open.next_at);
    let Some(histograms) = C::of(open) else { return true };
    let range_end = if histograms.predicted { range_end(mint, rules.block_range_ms) } else { next_at };
    if !histograms.predicted && bytes >= HISTOGRAM_BYTES / 4 {
        histograms.predicted = true;
        let ratio = HISTOGRAM_BYTES as f64 / bytes as f64;
        open.next_at = predict_end(mint, maxt, next_at, ratio);
    }
    (t >= open.next_at || bytes >= 2 * HISTOGRAM_BYTES) && (len >= MIN_HISTOGRAMS || t >= range_end)
}

/// End of the slot of `width_ms` that holds `t`.
pub(crate) fn range_end(t: TimestampMs, width_ms: i64) -> TimestampMs {
    t.div_euclid(width_ms).saturating_add(1).saturating_mul(width_ms)
}

/// Where to cut a chunk that is `1 / ratio` full at `current`, so that chunks up to `end` are even.
fn predict_end(start: TimestampMs, current: TimestampMs, end: TimestampMs, ratio: f64) -> TimestampMs {
    let left = end.saturating_sub(start) as f64;
    let chunks = left / ((current.saturating_sub(start).saturating_add(1)) as f64 * ratio);
    if chunks <= 1.0 { end } else { (start as f64 + left / chunks.floor()) as TimestampMs }
}
