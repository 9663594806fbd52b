//! Histograms of tiles: the encoding of the `histograms` column.
//!
//! A row that has no histogram is null; a batch without any histogram has a column of nulls, which
//! costs a few bytes per row and no work per lane. Otherwise the value is
//!
//! ```text
//! mask u128 │ { start u32, length u32 } per lane of the mask, ascending │ histograms
//! ```
//!
//! little endian; `start` counts from the end of the table. Lanes may share a histogram: an instant
//! selector sees the same sample for many steps. A histogram is
//!
//! ```text
//! hint u8 │ schema i32 │ zero threshold, zero count, count, sum f64
//! │ numbers of positive spans, negative spans, positive buckets, negative buckets, bounds u32
//! │ spans {i32, u32} │ buckets f64 │ bounds f64
//! ```
//!
//! These bytes are made and read within one process and never stored. Reading is checked all the
//! same: what does not fit is read as if there was no histogram.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, LargeBinaryArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use datafusion::common::{Result, internal_datafusion_err};
use promontory_tsdb::histogram::{CounterResetHint, FloatHistogram, Span};

use crate::operators::rows::lanes;

const MASK_BYTES: usize = size_of::<u128>();
const ENTRY_BYTES: usize = 2 * size_of::<u32>();

/// The histograms of one row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lanes<'a>(&'a [u8]);

impl<'a> Lanes<'a> {
    /// The lanes encoded in `bytes`; none if it is empty.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Which lanes have a histogram.
    pub fn mask(self) -> u128 {
        self.0.first_chunk().map_or(0, |bytes| u128::from_le_bytes(*bytes))
    }

    fn entry(self, rank: usize) -> Option<(u32, &'a [u8])> {
        let table = MASK_BYTES + ENTRY_BYTES * self.mask().count_ones() as usize;
        let at = MASK_BYTES + ENTRY_BYTES * rank;
        let mut entry = Reader(self.0.get(at..at + ENTRY_BYTES)?);
        let (start, length) = (entry.u32()?, entry.u32()?);
        let from = table.checked_add(start as usize)?;
        Some((start, self.0.get(from..from.checked_add(length as usize)?)?))
    }

    /// The histogram of a lane.
    pub fn get(self, lane: usize) -> Option<FloatHistogram> {
        let mask = self.mask();
        if lane >= 128 || mask >> lane & 1 == 0 {
            return None;
        }
        let rank = (mask & ((1 << lane) - 1)).count_ones() as usize;
        decode(self.entry(rank)?.1)
    }

    /// Lanes with their histograms, ascending. Equal neighbours are decoded once.
    pub fn iter(self) -> impl Iterator<Item = (usize, Arc<FloatHistogram>)> + 'a {
        let mut last: Option<(u32, Arc<FloatHistogram>)> = None;
        lanes(self.mask()).enumerate().filter_map(move |(rank, lane)| {
            let (start, bytes) = self.entry(rank)?;
            if let Some((_, histogram)) = last.as_ref().filter(|(known, _)| *known == start) {
                return Some((lane, Arc::clone(histogram)));
            }
            let histogram = Arc::new(decode(bytes)?);
            last = Some((start, Arc::clone(&histogram)));
            Some((lane, histogram))
        })
    }

    /// What is encoded for each lane, ascending.
    pub fn blobs(self) -> impl Iterator<Item = (usize, &'a [u8])> {
        let with_bytes = move |(rank, lane)| Some((lane, self.entry(rank)?.1));
        lanes(self.mask()).enumerate().filter_map(with_bytes)
    }

    /// As many float samples as the histograms count for, where samples in memory are counted.
    pub fn weight(self) -> usize {
        let count = self.mask().count_ones() as usize;
        (0..count).filter_map(|rank| self.entry(rank)).map(|(_, bytes)| bytes.len() / 16 + 1).sum()
    }

    /// Encodes the lanes of `keep` alone.
    pub fn select_into(self, keep: u128, out: &mut Vec<u8>) {
        let mask = self.mask();
        if mask & keep == mask {
            out.extend_from_slice(self.0);
            return;
        }
        if mask & keep == 0 {
            return;
        }
        let mut entries = Vec::new();
        let mut blobs = Vec::new();
        let mut last = None;
        for (rank, lane) in lanes(mask).enumerate() {
            let Some((start, bytes)) = self.entry(rank).filter(|_| keep >> lane & 1 == 1) else { continue };
            let at = match last {
                Some((known, at)) if known == start => at,
                _ => {
                    let at = blobs.len() as u32;
                    blobs.extend_from_slice(bytes);
                    at
                }
            };
            last = Some((start, at));
            entries.push((lane, at, bytes.len() as u32));
        }
        write(&entries, &blobs, out);
    }
}

fn write(entries: &[(usize, u32, u32)], blobs: &[u8], out: &mut Vec<u8>) {
    let mask = entries.iter().fold(0_u128, |mask, (lane, ..)| mask | 1 << lane);
    out.extend_from_slice(&mask.to_le_bytes());
    for (_, start, length) in entries {
        out.extend_from_slice(&start.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
    }
    out.extend_from_slice(blobs);
}

/// The histograms of a row that is being made, by lane.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LaneHistograms {
    lanes: Vec<(usize, Arc<FloatHistogram>)>,
}

impl LaneHistograms {
    /// Takes all out.
    pub fn clear(&mut self) {
        self.lanes.clear();
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Puts a histogram into a lane, in the place of what is there.
    ///
    /// # Panics
    /// If `lane` is not below 128.
    pub fn set(&mut self, lane: usize, histogram: Arc<FloatHistogram>) {
        assert!(lane < 128, "a tile has at most 128 lanes");
        match self.lanes.last() {
            Some((last, _)) if *last >= lane => match self.lanes.binary_search_by_key(&lane, |(l, _)| *l) {
                Ok(at) => self.lanes[at].1 = histogram,
                Err(at) => self.lanes.insert(at, (lane, histogram)),
            },
            _ => self.lanes.push((lane, histogram)),
        }
    }

    /// Which lanes have a histogram.
    pub fn mask(&self) -> u128 {
        self.lanes.iter().fold(0, |mask, (lane, _)| mask | 1 << lane)
    }

    /// Lanes with their histograms, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Arc<FloatHistogram>)> {
        self.lanes.iter().map(|(lane, histogram)| (*lane, histogram))
    }

    /// Appends the encoding; nothing if there is no histogram.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if self.lanes.is_empty() {
            return;
        }
        let (mut entries, mut blobs) = (Vec::with_capacity(self.lanes.len()), Vec::new());
        let mut last: Option<(&Arc<FloatHistogram>, u32, u32)> = None;
        for (lane, histogram) in &self.lanes {
            let (start, length) = match last {
                Some((known, start, length)) if Arc::ptr_eq(known, histogram) => (start, length),
                _ => {
                    let start = blobs.len();
                    encode(histogram, &mut blobs);
                    (start as u32, (blobs.len() - start) as u32)
                }
            };
            last = Some((histogram, start, length));
            entries.push((*lane, start, length));
        }
        write(&entries, &blobs, out);
    }
}

/// Appends the encoding of lanes, ascending, each with what `write_lane(lane, out)` appends for it.
pub fn encode_lanes(mask: u128, mut write_lane: impl FnMut(usize, &mut Vec<u8>), out: &mut Vec<u8>) {
    if mask == 0 {
        return;
    }
    let (mut entries, mut blobs) = (Vec::new(), Vec::new());
    for lane in lanes(mask) {
        let start = blobs.len();
        write_lane(lane, &mut blobs);
        entries.push((lane, start as u32, (blobs.len() - start) as u32));
    }
    write(&entries, &blobs, out);
}

/// Appends the encoding of one histogram.
pub fn encode(h: &FloatHistogram, out: &mut Vec<u8>) {
    out.push(match h.counter_reset_hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::Reset => 1,
        CounterResetHint::NotReset => 2,
        CounterResetHint::Gauge => 3,
    });
    out.extend_from_slice(&h.schema.to_le_bytes());
    for v in [h.zero_threshold, h.zero_count, h.count, h.sum] {
        out.extend_from_slice(&v.to_le_bytes());
    }
    let counts = [
        h.positive_spans.len(),
        h.negative_spans.len(),
        h.positive_buckets.len(),
        h.negative_buckets.len(),
        h.custom_values.len(),
    ];
    for n in counts {
        out.extend_from_slice(&(n as u32).to_le_bytes());
    }
    for span in h.positive_spans.iter().chain(&h.negative_spans) {
        out.extend_from_slice(&span.offset.to_le_bytes());
        out.extend_from_slice(&span.length.to_le_bytes());
    }
    for v in h.positive_buckets.iter().chain(&h.negative_buckets).chain(&h.custom_values) {
        out.extend_from_slice(&v.to_le_bytes());
    }
}

/// Reads one histogram; `None` if `bytes` are not one.
pub fn decode(bytes: &[u8]) -> Option<FloatHistogram> {
    let mut r = Reader(bytes);
    let counter_reset_hint = match r.take::<1>()?[0] {
        0 => CounterResetHint::Unknown,
        1 => CounterResetHint::Reset,
        2 => CounterResetHint::NotReset,
        3 => CounterResetHint::Gauge,
        _ => return None,
    };
    let schema = i32::from_le_bytes(r.take()?);
    let (zero_threshold, zero_count, count, sum) = (r.f64()?, r.f64()?, r.f64()?, r.f64()?);
    let n: [usize; 5] =
        [r.u32()? as usize, r.u32()? as usize, r.u32()? as usize, r.u32()? as usize, r.u32()? as usize];
    Some(FloatHistogram {
        counter_reset_hint,
        schema,
        zero_threshold,
        zero_count,
        count,
        sum,
        positive_spans: r.spans(n[0])?,
        negative_spans: r.spans(n[1])?,
        positive_buckets: r.floats(n[2])?,
        negative_buckets: r.floats(n[3])?,
        custom_values: r.floats(n[4])?,
    })
}

/// Checked reads from the front.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }

    fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn f64(&mut self) -> Option<f64> {
        self.take().map(f64::from_le_bytes)
    }

    fn spans(&mut self, n: usize) -> Option<Vec<Span>> {
        let bytes = self.bytes(n.checked_mul(8)?)?;
        let span = |b: &[u8]| {
            let mut r = Reader(b);
            Some(Span { offset: i32::from_le_bytes(r.take()?), length: r.u32()? })
        };
        bytes.chunks_exact(8).map(span).collect()
    }

    pub(crate) fn floats(&mut self, n: usize) -> Option<Vec<f64>> {
        let bytes = self.bytes(n.checked_mul(8)?)?;
        bytes.chunks_exact(8).map(|b| Reader(b).f64()).collect()
    }
}

/// The column, read row by row.
#[derive(Debug, Clone, Copy)]
pub struct Column<'a>(Option<&'a LargeBinaryArray>);

impl<'a> Column<'a> {
    /// The histograms in `column`.
    ///
    /// # Errors
    /// If it is something else: a bug.
    pub fn of(column: &'a ArrayRef) -> Result<Self> {
        let wrong = || internal_datafusion_err!("histograms expected, not {}", column.data_type());
        let array = column.as_binary_opt::<i64>().ok_or_else(wrong)?;
        Ok(Self((array.null_count() < array.len()).then_some(array)))
    }

    /// Whether no row has a histogram.
    pub fn is_empty(self) -> bool {
        self.0.is_none()
    }

    /// The bytes of row `i`; empty where there is none.
    #[inline]
    pub fn bytes(self, i: usize) -> &'a [u8] {
        match self.0 {
            Some(array) if array.is_valid(i) => array.value(i),
            _ => &[],
        }
    }

    /// The histograms of row `i`.
    #[inline]
    pub fn row(self, i: usize) -> Lanes<'a> {
        Lanes(self.bytes(i))
    }
}

/// Makes a column of bytes that are absent in most rows.
#[derive(Debug, Default)]
pub struct ColumnBuilder {
    bytes: Vec<u8>,
    /// Row, and where its bytes end.
    ends: Vec<(usize, usize)>,
}

impl ColumnBuilder {
    /// Gives `row`, which is behind all rows so far, what `write` appends; nothing leaves it null.
    pub fn put(&mut self, row: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        if self.bytes.len() > before {
            self.ends.push((row, self.bytes.len()));
        }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether all rows are null so far.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The column of `rows` rows; the builder is empty afterwards.
    pub fn finish(&mut self, rows: usize) -> LargeBinaryArray {
        if self.ends.is_empty() {
            return LargeBinaryArray::new_null(rows);
        }
        let mut offsets = Vec::with_capacity(rows + 1);
        let mut present = vec![false; rows];
        offsets.push(0_i64);
        let mut end = 0;
        let mut ends = std::mem::take(&mut self.ends).into_iter().peekable();
        for (row, present) in present.iter_mut().enumerate() {
            if let Some((_, at)) = ends.next_if(|(r, _)| *r == row) {
                end = at as i64;
                *present = true;
            }
            offsets.push(end);
        }
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let bytes = std::mem::take(&mut self.bytes);
        LargeBinaryArray::new(offsets, bytes.into(), Some(NullBuffer::from(present)))
    }
}
