//! Reading histogram chunks sample by sample.

use super::super::bits::BitReader;
use super::super::varbit::StartTimestamps;
use super::super::{ChunkError, Encoding};
use super::coder::{Coder, FloatCoder, IntegerCoder};
use super::layout::Layout;
use super::{HEADER, counter_reset_header};
use crate::histogram::{CounterResetHint, FloatHistogram, HistogramValue};
use crate::sample::{TimestampMs, is_stale};

/// A chunk that is being read, of one kind.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a, C> {
    pub(super) bits: BitReader<'a>,
    pub(super) coder: C,
    pub(super) layout: Layout,
    pub(super) header: CounterResetHint,
    pub(super) start: StartTimestamps,
    has_start_timestamps: bool,
    count: u16,
    /// Samples that were read.
    pub(super) done: u16,
}

impl<'a, C: Coder> Cursor<'a, C> {
    pub(super) fn new(encoding: Encoding, data: &'a [u8]) -> Result<Self, ChunkError> {
        if !C::ENCODINGS.contains(&encoding) {
            return Err(ChunkError::Unsupported(encoding));
        }
        if data.len() < HEADER {
            return Err(ChunkError::Corrupt { bit: 0, reason: "chunk has no header" });
        }
        let count = super::super::num_samples(encoding, data);
        // Four bits for a stale marker, or for a sample of a layout without buckets.
        let least = match usize::from(count) {
            0 => 0,
            n => C::FIRST_BITS + 4 * (n - 1),
        };
        if least > (data.len() - HEADER) * 8 {
            let reason = "sample count is more than the chunk can hold";
            return Err(ChunkError::Corrupt { bit: 0, reason });
        }
        let has_start_timestamps = encoding.has_start_timestamps();
        Ok(Self {
            bits: BitReader::new(data, HEADER),
            coder: C::default(),
            layout: Layout::default(),
            header: counter_reset_header(encoding, data),
            start: StartTimestamps::open(if has_start_timestamps { data[2] } else { 0 }),
            has_start_timestamps,
            count,
            done: 0,
        })
    }

    /// Goes on to the next sample; false at the end.
    pub(super) fn advance(&mut self) -> Result<bool, ChunkError> {
        if self.done == self.count {
            return Ok(false);
        }
        let before = self.coder.time();
        if self.done == 0 {
            self.layout = Layout::read(&mut self.bits, self.count, C::BUCKET_BITS)?;
            self.coder.read_first(&mut self.bits, &self.layout);
        } else {
            self.coder.read_next(&mut self.bits)?;
        }
        if self.has_start_timestamps {
            self.start.read(&mut self.bits, usize::from(self.done), before, self.coder.time())?;
        }
        self.bits.check()?;
        self.done += 1;
        Ok(true)
    }

    /// Whether the newest sample follows a reset, as far as the chunk can tell.
    ///
    /// The header is not believed for the first sample, because the chunk before may not be there.
    fn hint(&self) -> CounterResetHint {
        match self.header {
            CounterResetHint::Gauge => CounterResetHint::Gauge,
            _ if self.done > 1 => CounterResetHint::NotReset,
            _ => CounterResetHint::Unknown,
        }
    }

    pub(super) fn value(&self) -> C::Value {
        if is_stale(self.coder.sum()) { C::stale() } else { self.coder.value(&self.layout, self.hint()) }
    }

    fn float_value(&self) -> FloatHistogram {
        if is_stale(self.coder.sum()) {
            FloatHistogram::stale()
        } else {
            self.coder.float_value(&self.layout, self.hint())
        }
    }
}

/// A histogram chunk that is being read, sample by sample.
///
/// Starts before the first sample. A sample is built only when it is asked for, so that passing over
/// one costs no allocation.
///
/// ```
/// # use promontory_tsdb::chunkenc::{ChunkError, Encoding, histogram};
/// # fn sum(data: &[u8]) -> Result<f64, ChunkError> {
/// let mut samples = histogram::Iter::new(Encoding::Histogram, data)?;
/// let mut sum = 0.0;
/// while samples.advance()? {
///     sum += samples.to_float().sum;
/// }
/// # Ok(sum)
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    cursor: Either<'a>,
}

#[derive(Debug, Clone)]
enum Either<'a> {
    Integer(Cursor<'a, IntegerCoder>),
    Float(Cursor<'a, FloatCoder>),
}

/// Does the same with either kind of cursor.
macro_rules! either {
    ($it:expr, $c:ident => $do:expr) => {
        match $it {
            Either::Integer($c) => $do,
            Either::Float($c) => $do,
        }
    };
}

impl<'a> Iter<'a> {
    /// Starts before the first sample.
    ///
    /// # Errors
    /// If the header is damaged, or the encoding is of floats ([`ChunkError::Unsupported`]).
    pub fn new(encoding: Encoding, data: &'a [u8]) -> Result<Self, ChunkError> {
        let cursor = if IntegerCoder::ENCODINGS.contains(&encoding) {
            Either::Integer(Cursor::new(encoding, data)?)
        } else {
            Either::Float(Cursor::new(encoding, data)?)
        };
        Ok(Self { cursor })
    }

    /// Goes on to the next sample; false at the end. After an error there is nothing more to be had.
    ///
    /// # Errors
    /// If the chunk is damaged.
    pub fn advance(&mut self) -> Result<bool, ChunkError> {
        either!(&mut self.cursor, c => c.advance())
    }

    /// Number of samples in the chunk.
    pub fn len(&self) -> usize {
        usize::from(either!(&self.cursor, c => c.count))
    }

    /// Whether the chunk has no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the first sample is to the chunk before.
    pub fn counter_reset_header(&self) -> CounterResetHint {
        either!(&self.cursor, c => c.header)
    }

    /// Time of the current sample, ms.
    pub fn timestamp(&self) -> TimestampMs {
        either!(&self.cursor, c => c.coder.time())
    }

    /// When what the current sample counts began, ms; 0 if not known.
    pub fn start_timestamp(&self) -> TimestampMs {
        either!(&self.cursor, c => c.start.newest)
    }

    /// Whether the current sample is a stale marker.
    pub fn is_stale(&self) -> bool {
        is_stale(either!(&self.cursor, c => c.coder.sum()))
    }

    /// The current sample as it was appended. Resolutions above schema 8 are brought down to it.
    pub fn value(&self) -> HistogramValue {
        either!(&self.cursor, c => c.value().into())
    }

    /// The current sample as queries see it. Resolutions above schema 8 are brought down to it.
    pub fn to_float(&self) -> FloatHistogram {
        either!(&self.cursor, c => c.float_value())
    }
}
