//! Appending to histogram chunks.

use std::borrow::Cow;

use super::super::bits::BitWriter;
use super::super::varbit::StartTimestamps;
use super::super::{ChunkError, Encoding};
use super::coder::{Coder, Shape};
use super::fit::{Union, compare_counters, compare_gauges, normal};
use super::iter::Cursor;
use super::layout::Layout;
use super::{HEADER, header_bits, max_samples};
use crate::histogram::{CounterResetHint, InvalidHistogram, check_spans, same_bounds};
use crate::sample::{TimestampMs, is_stale};

/// What became of a sample.
#[derive(Debug)]
pub enum Appended<A> {
    /// It was added; what [`ChunkAppender::bytes`] gave before is the beginning of what it gives now,
    /// but for the header and the last byte.
    InPlace,
    /// It has buckets that the chunk did not have. The whole chunk was written anew with a wider layout,
    /// the sample at its end: earlier bytes hold no more.
    Recoded,
    /// It did not fit: another schema, threshold or bounds, a counter reset, a gauge among counters, or
    /// life after a stale marker. The chunk stays as it was, and here is the next one, whose first sample
    /// it is.
    NewChunk(Box<A>),
}

/// Writes one histogram chunk, of either kind.
#[derive(Debug, Clone)]
pub struct ChunkAppender<C> {
    out: BitWriter,
    encoding: Encoding,
    layout: Layout,
    coder: C,
    start: StartTimestamps,
    header: CounterResetHint,
    count: u16,
}

/// How a sample fits a chunk that is not empty.
enum Fit {
    /// As it is, or with more buckets on either side.
    Fits { positive: Option<Union>, negative: Option<Union> },
    /// Not at all. The next chunk starts with this header.
    Not(CounterResetHint),
}

impl<C: Coder> ChunkAppender<C> {
    /// An empty chunk, with room for start timestamps or without.
    pub fn new(start_timestamps: bool) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&[0; HEADER]);
        Self {
            out: BitWriter { bytes, free: 0 },
            encoding: C::ENCODINGS[usize::from(start_timestamps)],
            layout: Layout::default(),
            coder: C::default(),
            start: StartTimestamps::default(),
            header: CounterResetHint::Unknown,
            count: 0,
        }
    }

    /// Continues a chunk that [`ChunkAppender::bytes`] (or Prometheus) gave.
    ///
    /// # Errors
    /// If the chunk is damaged, its spans overlap, or it is of another encoding.
    pub fn resume(encoding: Encoding, mut data: Vec<u8>) -> Result<Self, ChunkError> {
        let mut cursor = Cursor::<C>::new(encoding, &data)?;
        while cursor.advance()? {}
        let Cursor { bits, coder, layout, header, mut start, done: count, .. } = cursor;
        // Such a layout can be read, but not be brought together with another.
        if [&layout.positive, &layout.negative].iter().any(|s| s.iter().skip(1).any(|s| s.offset < 0)) {
            return Err(bits.error("span offset is negative"));
        }
        let bits = bits.pos();
        start.resume(&mut data, count);
        Ok(Self { out: BitWriter::resume(data, bits), encoding, layout, coder, start, header, count })
    }

    /// Appends a histogram. `start` is when what it counts began, ms, 0 if not known; the encodings
    /// without start timestamps drop it. `before` is the chunk before, if this one is empty and is begun
    /// only because that one was long enough; it serves to find out whether there was a reset in between.
    ///
    /// # Errors
    /// If spans and buckets do not agree; nothing is appended then. Other validity is up to the caller.
    pub fn append(
        &mut self,
        before: Option<&Self>,
        t: TimestampMs,
        start: TimestampMs,
        value: &C::Value,
    ) -> Result<Appended<Self>, InvalidHistogram> {
        let shape = C::shape(value);
        check_spans(shape.positive.0, shape.positive.1)?;
        check_spans(shape.negative.0, shape.negative.1)?;
        if self.count == 0 {
            let hint = match (shape.hint, before) {
                (CounterResetHint::Gauge, _) => CounterResetHint::Gauge,
                (CounterResetHint::Reset, _) => CounterResetHint::Reset,
                (_, Some(before)) => C::header_of_next(before.header_of_next(&shape, value)),
                (_, None) => CounterResetHint::Unknown,
            };
            self.write_first(hint, t, start, value);
            return Ok(Appended::InPlace);
        }
        let gauge = shape.hint == CounterResetHint::Gauge;
        let fit = if gauge { self.fit_gauge(&shape) } else { self.fit_counter(&shape, value) };
        match fit {
            Fit::Fits { positive, negative } if self.count < max_samples(self.encoding) => {
                Ok(self.append_fitting(t, start, value, gauge, &[positive, negative]))
            }
            Fit::Fits { .. } => Ok(self.next_chunk(CounterResetHint::NotReset, t, start, value)),
            Fit::Not(header) => Ok(self.next_chunk(C::header_after_cut(header), t, start, value)),
        }
    }

    fn next_chunk(
        &self,
        header: CounterResetHint,
        t: TimestampMs,
        start: TimestampMs,
        value: &C::Value,
    ) -> Appended<Self> {
        let gauge = C::shape(value).hint == CounterResetHint::Gauge;
        let mut next = Self::new(self.encoding.has_start_timestamps());
        next.write_first(if gauge { CounterResetHint::Gauge } else { header }, t, start, value);
        Appended::NewChunk(Box::new(next))
    }

    /// What a sample that starts the next chunk is to this one.
    fn header_of_next(&self, shape: &Shape<'_>, value: &C::Value) -> CounterResetHint {
        match self.fit_counter(shape, value) {
            Fit::Fits { .. } => CounterResetHint::NotReset,
            Fit::Not(header) => header,
        }
    }

    #[expect(clippy::float_cmp, reason = "a threshold is the same or it is not")]
    fn fit_counter(&self, shape: &Shape<'_>, value: &C::Value) -> Fit {
        if self.count > 0 && self.header == CounterResetHint::Gauge {
            // Compat: not a reset, although nothing was compared.
            return Fit::Not(CounterResetHint::NotReset);
        }
        if shape.hint == CounterResetHint::Reset {
            return Fit::Not(CounterResetHint::Reset);
        }
        if shape.is_stale() {
            return Fit::Fits { positive: None, negative: None };
        }
        if is_stale(self.coder.sum()) {
            return Fit::Not(CounterResetHint::Unknown);
        }
        let (count_fell, zero_count_fell) = self.coder.fell(value);
        if count_fell {
            return Fit::Not(CounterResetHint::Reset);
        }
        let layout = &self.layout;
        if shape.schema != layout.schema || shape.zero_threshold != layout.zero_threshold {
            return Fit::Not(CounterResetHint::Unknown);
        }
        if !self.same_bounds(shape) || zero_count_fell {
            return Fit::Not(CounterResetHint::Reset);
        }
        let compare = |positive: bool, chunk, sample| {
            compare_counters((chunk, self.coder.newest(positive)), (sample, C::counts(value, positive)))
        };
        let positive = compare(true, &layout.positive, shape.positive.0);
        match positive.and_then(|p| Ok((p, compare(false, &layout.negative, shape.negative.0)?))) {
            Ok((positive, negative)) => Fit::Fits { positive, negative },
            Err(_) => Fit::Not(CounterResetHint::Reset),
        }
    }

    #[expect(clippy::float_cmp, reason = "a threshold is the same or it is not")]
    fn fit_gauge(&self, shape: &Shape<'_>) -> Fit {
        let layout = &self.layout;
        if self.header != CounterResetHint::Gauge {
            return Fit::Not(CounterResetHint::Gauge);
        }
        if shape.is_stale() {
            return Fit::Fits { positive: None, negative: None };
        }
        if is_stale(self.coder.sum())
            || shape.schema != layout.schema
            || shape.zero_threshold != layout.zero_threshold
            || !self.same_bounds(shape)
        {
            return Fit::Not(CounterResetHint::Gauge);
        }
        Fit::Fits {
            positive: compare_gauges(&layout.positive, shape.positive.0),
            negative: compare_gauges(&layout.negative, shape.negative.0),
        }
    }

    fn same_bounds(&self, shape: &Shape<'_>) -> bool {
        shape.schema != crate::histogram::CUSTOM_SCHEMA
            || same_bounds(shape.custom_values, &self.layout.custom_values)
    }

    /// Appends a sample once both it and the chunk have all buckets of either.
    fn append_fitting(
        &mut self,
        t: TimestampMs,
        start: TimestampMs,
        value: &C::Value,
        gauge: bool,
        unions: &[Option<Union>; 2],
    ) -> Appended<Self> {
        let sides = [true, false];
        let chunk_lacks = unions.iter().flatten().any(|u| u.chunk_lacks);
        let sample_lacks = unions.iter().flatten().any(|u| u.sample_lacks);
        let mut sample = Cow::Borrowed(value);
        if sample_lacks {
            let sample = sample.to_mut();
            for (positive, union) in sides.into_iter().zip(unions) {
                let shape = C::shape(value);
                let spans = if positive { shape.positive.0 } else { shape.negative.0 };
                let lacking = union.as_ref().filter(|u| u.sample_lacks);
                let counts = lacking.map(|u| u.expand(spans, C::counts(value, positive)));
                // Compat: how the layout is spelled shows in the bytes when the chunk is recoded.
                let spans = match (lacking, union) {
                    _ if !chunk_lacks && !gauge => self.spans(positive).to_vec(),
                    (Some(union), _) => union.spans(),
                    (None, Some(union)) if gauge => union.spans(),
                    (None, None) if gauge => normal(spans),
                    _ => spans.to_vec(),
                };
                C::set_side(sample, positive, spans, counts);
            }
        }
        if chunk_lacks {
            self.recode(&C::shape(&sample), unions);
        }
        self.write_next(t, start, &sample);
        if chunk_lacks { Appended::Recoded } else { Appended::InPlace }
    }

    fn spans(&self, positive: bool) -> &[crate::histogram::Span] {
        if positive { &self.layout.positive } else { &self.layout.negative }
    }

    /// Writes the whole chunk anew with the layout of `like`.
    fn recode(&mut self, like: &Shape<'_>, unions: &[Option<Union>; 2]) {
        let mut wide = Self::new(self.encoding.has_start_timestamps());
        let Ok(mut cursor) = Cursor::<C>::new(self.encoding, &self.out.bytes) else {
            return;
        };
        // Our own bytes, so there is no error.
        while let Ok(true) = cursor.advance() {
            let mut value = cursor.value();
            let sides = [(true, like.positive.0), (false, like.negative.0)];
            for ((positive, spans), union) in sides.into_iter().zip(unions) {
                let lacking = union.as_ref().filter(|u| u.chunk_lacks);
                let counts = lacking.map(|u| u.expand(self.spans(positive), C::counts(&value, positive)));
                C::set_side(&mut value, positive, spans.to_vec(), counts);
            }
            let (t, start) = (cursor.coder.time(), cursor.start.newest);
            if wide.count == 0 {
                wide.write_first(self.header, t, start, &value);
            } else {
                wide.write_next(t, start, &value);
            }
        }
        *self = wide;
    }

    /// The first sample of a chunk, behind the layout that it gives to all.
    fn write_first(
        &mut self,
        header: CounterResetHint,
        t: TimestampMs,
        start: TimestampMs,
        value: &C::Value,
    ) {
        let stale = C::shape(value).is_stale().then(C::stale);
        let value = stale.as_ref().unwrap_or(value);
        self.header = header;
        self.layout = C::shape(value).layout();
        self.layout.write(&mut self.out);
        self.coder.write_first(&mut self.out, t, value);
        self.finish(t, start);
    }

    fn write_next(&mut self, t: TimestampMs, start: TimestampMs, value: &C::Value) {
        let before = self.coder.time();
        self.coder.write_next(&mut self.out, t, value);
        self.finish(before, start);
    }

    /// What follows a sample, and the header.
    fn finish(&mut self, before: TimestampMs, start: TimestampMs) {
        let start_timestamps = self.encoding.has_start_timestamps();
        if start_timestamps {
            self.start.write(&mut self.out, self.count, before, self.coder.time(), start);
        }
        self.count += 1;
        let [mut high, low] = self.count.to_be_bytes();
        if start_timestamps {
            high |= header_bits(self.header);
        } else {
            self.out.bytes[2] = header_bits(self.header);
        }
        self.out.bytes[..2].copy_from_slice(&[high, low]);
    }

    /// The encoding of the chunk.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Time of the newest sample, ms; meaningless while the chunk is empty.
    pub fn last_timestamp(&self) -> TimestampMs {
        self.coder.time()
    }

    /// What the first sample is to the chunk before.
    pub fn counter_reset_header(&self) -> CounterResetHint {
        self.header
    }

    /// The chunk so far, valid after every append.
    pub fn bytes(&self) -> &[u8] {
        &self.out.bytes
    }

    /// The finished chunk.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out.bytes
    }
}
