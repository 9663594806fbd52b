//! Tile rows: reading them out of batches and writing them into batches.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, BinaryArray, BinaryBuilder, BooleanBufferBuilder, FixedSizeListArray, Float64Array,
    LargeBinaryArray, RecordBatch, UInt32Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::error::DataFusionError;
use promontory_tsdb::histogram::FloatHistogram;

use crate::context::{HeldBytes, Pace, QueryContext};
use crate::error::QueryError;
use crate::histogram::lanes::{Column, ColumnBuilder, LaneHistograms, Lanes};
use crate::histogram::weight;
use crate::params::Grid;
use crate::tile::{FLOATS, HISTOGRAMS, LABELS_KEY, TILE, tile_schema};

/// One row of a tile relation. Bit `j` of `mask` says that lane `j` of `values` is a float sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) tile: u32,
    pub(crate) mask: u128,
    pub(crate) values: &'a [f64],
    pub(crate) histograms: Lanes<'a>,
}

impl Row<'_> {
    /// Lanes that have a sample of either kind.
    pub(crate) fn any(&self) -> u128 {
        self.mask | self.histograms.mask()
    }
}

/// The lowest `lanes` bits.
pub(crate) fn lane_mask(lanes: usize) -> u128 {
    if lanes >= 128 { u128::MAX } else { (1 << lanes) - 1 }
}

/// Indexes of the bits that are set, ascending.
pub(crate) fn lanes(mut mask: u128) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let lane = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            lane
        })
    })
}

/// All rows of `batch`.
pub(crate) fn rows(batch: &RecordBatch) -> Result<Vec<Row<'_>>, DataFusionError> {
    let wrong = || DataFusionError::Internal(format!("not tiles: {}", batch.schema()));
    let keys = batch.column(LABELS_KEY.0).as_any().downcast_ref::<BinaryArray>().ok_or_else(wrong)?;
    let tiles = batch.column(TILE.0).as_any().downcast_ref::<UInt32Array>().ok_or_else(wrong)?;
    let floats = batch.column(FLOATS.0).as_any().downcast_ref::<FixedSizeListArray>().ok_or_else(wrong)?;
    let child = floats.values().as_any().downcast_ref::<Float64Array>().ok_or_else(wrong)?;
    let width = usize::try_from(floats.value_length()).map_err(|_| wrong())?;
    let values = child.values();
    let histograms = Column::of(batch.column(HISTOGRAMS.0))?;
    Ok((0..batch.num_rows())
        .map(|i| Row {
            key: keys.value(i),
            tile: tiles.value(i),
            mask: mask_of(child.nulls(), i * width, width),
            values: &values[i * width..(i + 1) * width],
            histograms: histograms.row(i),
        })
        .collect())
}

/// Number of samples in `batch`; a histogram counts for several.
pub(crate) fn samples(batch: &RecordBatch) -> usize {
    let floats = batch
        .column(FLOATS.0)
        .as_any()
        .downcast_ref::<FixedSizeListArray>()
        .map_or(0, |floats| floats.values().len() - floats.values().null_count());
    match Column::of(batch.column(HISTOGRAMS.0)) {
        Ok(column) if !column.is_empty() => {
            floats + (0..batch.num_rows()).map(|i| column.row(i).weight()).sum::<usize>()
        }
        _ => floats,
    }
}

/// Bytes of the rows in `batch`, which may be a part of another one.
pub(crate) fn bytes(batch: &RecordBatch) -> usize {
    let rows = batch.num_rows();
    let lanes = batch
        .column(FLOATS.0)
        .as_any()
        .downcast_ref::<FixedSizeListArray>()
        .map_or(0, |floats| floats.value_length() as usize);
    let keys = batch.column(LABELS_KEY.0).as_any().downcast_ref::<BinaryArray>();
    let keys = keys.map_or(0, |keys| keys.value_offsets()[rows] - keys.value_offsets()[0]) as usize;
    let histograms = batch.column(HISTOGRAMS.0).as_any().downcast_ref::<LargeBinaryArray>();
    let histograms = histograms.map_or(0, |h| h.value_offsets()[rows] - h.value_offsets()[0]) as usize;
    keys + histograms + rows * (lanes * size_of::<f64>() + lanes / 8 + 16)
}

/// Bytes that an operator needs for each row that it holds, besides the row: where it is, and the place of its key in
/// maps.
const ROW_BYTES: usize = size_of::<Row<'_>>() + 128;

fn mask_of(nulls: Option<&NullBuffer>, first: usize, len: usize) -> u128 {
    let Some(nulls) = nulls else { return lane_mask(len) };
    let bits = nulls.inner();
    let offset = bits.offset() + first;
    let (begin, end, shift) = (offset / 8, (offset + len).div_ceil(8), offset % 8);
    let mut raw = [0u8; 17];
    raw[..end - begin].copy_from_slice(&bits.values()[begin..end]);
    let mut low = [0u8; 16];
    low.copy_from_slice(&raw[..16]);
    let mut mask = u128::from_le_bytes(low) >> shift;
    if shift > 0 {
        mask |= u128::from(raw[16]) << (128 - shift);
    }
    mask & lane_mask(len)
}

/// Batches that an operator holds, accounted for until they are dropped.
#[derive(Debug)]
pub(crate) struct Held {
    batches: Vec<RecordBatch>,
    samples: usize,
    bytes: HeldBytes<Arc<QueryContext>>,
    context: Arc<QueryContext>,
}

impl Held {
    pub(crate) fn new(context: &Arc<QueryContext>) -> Self {
        let bytes = HeldBytes::new(Arc::clone(context));
        Self { batches: Vec::new(), samples: 0, bytes, context: Arc::clone(context) }
    }

    pub(crate) fn push(&mut self, batch: RecordBatch) -> Result<(), QueryError> {
        let n = samples(&batch);
        self.samples += n;
        self.context.hold_samples(n)?;
        self.bytes.add(bytes(&batch) + batch.num_rows() * ROW_BYTES)?;
        self.batches.push(batch);
        Ok(())
    }

    /// Leaves counting samples to whoever keeps the batches too; their bytes stay held.
    pub(crate) fn stop_counting(&mut self) {
        self.context.release_samples(std::mem::take(&mut self.samples));
    }

    pub(crate) fn context(&self) -> &Arc<QueryContext> {
        &self.context
    }

    pub(crate) fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    pub(crate) fn rows(&self) -> Result<Vec<Row<'_>>, DataFusionError> {
        let mut all = Vec::with_capacity(self.batches.iter().map(RecordBatch::num_rows).sum());
        for batch in &self.batches {
            all.extend(rows(batch)?);
        }
        Ok(all)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.context.release_samples(self.samples);
    }
}

/// Collects rows into batches of about a mebibyte.
///
/// The samples count as held until the writer is done; from then on whoever keeps the batches
/// accounts for them.
#[derive(Debug)]
pub(crate) struct TileWriter<'a> {
    context: &'a QueryContext,
    pace: Pace<'a>,
    held: usize,
    bytes: HeldBytes<&'a QueryContext>,
    /// Bytes of all rows so far.
    written: usize,
    schema: SchemaRef,
    width: usize,
    batch_rows: usize,
    keys: BinaryBuilder,
    tiles: Vec<u32>,
    values: Vec<f64>,
    present: BooleanBufferBuilder,
    histograms: ColumnBuilder,
    done: Vec<RecordBatch>,
}

/// Bytes of histograms after which a batch is full.
const HISTOGRAM_BYTES: usize = 4 << 20;

impl<'a> TileWriter<'a> {
    pub(crate) fn new(grid: &Grid, context: &'a QueryContext) -> Self {
        let width = grid.tile_steps;
        Self {
            context,
            pace: Pace::new(context),
            held: 0,
            bytes: HeldBytes::new(context),
            written: 0,
            schema: tile_schema(grid),
            width,
            batch_rows: ((1 << 20) / (8 * width)).clamp(64, 8192),
            keys: BinaryBuilder::new(),
            tiles: Vec::new(),
            values: Vec::new(),
            present: BooleanBufferBuilder::new(0),
            histograms: ColumnBuilder::default(),
            done: Vec::new(),
        }
    }

    /// Lanes per row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Adds a row of floats, unless it has no sample. Fails when the query is over or holds too much.
    pub(crate) fn push(
        &mut self,
        key: &[u8],
        tile: u32,
        mask: u128,
        values: &[f64],
    ) -> Result<(), QueryError> {
        self.push_encoded(key, tile, mask, values, |_| ())
    }

    /// Adds a row with histograms, in lanes that are not in `mask`.
    pub(crate) fn push_mixed(
        &mut self,
        key: &[u8],
        tile: u32,
        mask: u128,
        values: &[f64],
        histograms: &LaneHistograms,
    ) -> Result<(), QueryError> {
        self.push_encoded(key, tile, mask, values, |bytes| histograms.encode(bytes))
    }

    /// Adds the samples of `row` in the lanes of `keep`, under `key`.
    pub(crate) fn pass(&mut self, row: &Row<'_>, key: &[u8], keep: u128) -> Result<(), QueryError> {
        self.push_encoded(key, row.tile, row.mask & keep, row.values, |bytes| {
            row.histograms.select_into(keep, bytes);
        })
    }

    fn push_encoded(
        &mut self,
        key: &[u8],
        tile: u32,
        mask: u128,
        values: &[f64],
        histograms: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), QueryError> {
        debug_assert_eq!(values.len(), self.width, "a row has one value per lane");
        self.pace.step(1)?;
        let before = self.histograms.len();
        self.histograms.put(self.tiles.len(), histograms);
        let bytes = self.histograms.len() - before;
        if mask == 0 && bytes == 0 {
            return Ok(());
        }
        let samples = mask.count_ones() as usize + bytes / 16;
        self.held += samples;
        self.context.hold_samples(samples)?;
        self.written += key.len() + bytes + self.width * size_of::<f64>() + 32;
        self.bytes.grow_to(self.written)?;
        self.keys.append_value(key);
        self.tiles.push(tile);
        self.values.extend_from_slice(values);
        self.present.append_packed_range(0..self.width, &mask.to_le_bytes());
        if self.tiles.len() == self.batch_rows || self.histograms.len() >= HISTOGRAM_BYTES {
            self.flush();
        }
        Ok(())
    }

    fn flush(&mut self) {
        if self.tiles.is_empty() {
            return;
        }
        let width = self.width;
        let nulls = NullBuffer::new(self.present.finish());
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        let child = Float64Array::new(std::mem::take(&mut self.values).into(), nulls);
        let item = Arc::new(Field::new("item", DataType::Float64, true));
        let lanes = i32::try_from(width).expect("a tile has at most 128 lanes");
        let floats = FixedSizeListArray::new(item, lanes, Arc::new(child), None);
        let histograms = self.histograms.finish(self.tiles.len());
        let batch = RecordBatch::try_new(
            Arc::clone(&self.schema),
            vec![
                Arc::new(self.keys.finish()),
                Arc::new(UInt32Array::from(std::mem::take(&mut self.tiles))),
                Arc::new(floats),
                Arc::new(histograms),
            ],
        )
        .expect("the four columns have the types of `tile_schema` and one length");
        self.done.push(batch);
    }

    pub(crate) fn finish(mut self) -> Vec<RecordBatch> {
        self.flush();
        std::mem::take(&mut self.done)
    }
}

impl Drop for TileWriter<'_> {
    fn drop(&mut self) {
        self.context.release_samples(self.held);
    }
}

/// Rows by `(key, tile)`; rows that meet are laid over each other as long as no lane has two samples.
#[derive(Debug)]
pub(crate) struct Merger<'a> {
    held: HeldBytes<&'a QueryContext>,
    /// Bytes of all rows.
    bytes: usize,
    width: usize,
    index: HashMap<(Vec<u8>, u32), usize>,
    rows: Vec<MergedRow>,
}

/// A row of a [`Merger`].
#[derive(Debug)]
pub(crate) struct MergedRow {
    /// Lanes that have a float.
    pub(crate) mask: u128,
    pub(crate) values: Vec<f64>,
    pub(crate) histograms: LaneHistograms,
}

impl<'a> Merger<'a> {
    pub(crate) fn new(width: usize, context: &'a QueryContext) -> Self {
        Self { held: HeldBytes::new(context), bytes: 0, width, index: HashMap::new(), rows: Vec::new() }
    }

    /// Accounts for what was added; to be asked between rows.
    pub(crate) fn fits(&mut self) -> Result<(), QueryError> {
        self.held.grow_to(self.bytes)
    }

    /// Adds floats; gives the lanes that had a sample already.
    pub(crate) fn add(&mut self, key: &[u8], tile: u32, mask: u128, values: &[f64]) -> u128 {
        if mask == 0 {
            return 0;
        }
        let (at, _) = self.slot(key, tile);
        let row = &mut self.rows[at];
        let both = (row.mask | row.histograms.mask()) & mask;
        row.mask |= mask;
        for lane in lanes(mask & !both) {
            row.values[lane] = values[lane];
        }
        both
    }

    /// Adds the samples of `row` in the lanes of `keep`, under `key`; gives the lanes that had a
    /// sample already.
    pub(crate) fn add_row(&mut self, row: &Row<'_>, key: &[u8], keep: u128) -> u128 {
        let both = self.add(key, row.tile, row.mask & keep, row.values);
        if row.histograms.mask() & keep == 0 {
            return both;
        }
        let kept = row.histograms.iter().filter(|(lane, _)| keep >> lane & 1 == 1);
        both | self.add_histograms(key, row.tile, kept)
    }

    /// Adds histograms; gives the lanes that had a sample already.
    pub(crate) fn add_histograms(
        &mut self,
        key: &[u8],
        tile: u32,
        histograms: impl Iterator<Item = (usize, Arc<FloatHistogram>)>,
    ) -> u128 {
        let (at, _) = self.slot(key, tile);
        let row = &mut self.rows[at];
        let taken = row.mask | row.histograms.mask();
        let mut both = 0;
        for (lane, histogram) in histograms {
            if taken >> lane & 1 == 1 {
                both |= 1 << lane;
            } else {
                self.bytes += 16 * weight(&histogram);
                row.histograms.set(lane, histogram);
            }
        }
        both
    }

    /// The row of `(key, tile)`, made if it is not there, and whether it was there.
    pub(crate) fn slot(&mut self, key: &[u8], tile: u32) -> (usize, bool) {
        let next = self.rows.len();
        let at = *self.index.entry((key.to_vec(), tile)).or_insert(next);
        if at == next {
            self.bytes += key.len() + self.width * size_of::<f64>() + size_of::<MergedRow>() + 96;
            let histograms = LaneHistograms::default();
            self.rows.push(MergedRow { mask: 0, values: vec![0.0; self.width], histograms });
        }
        (at, at < next)
    }

    /// A slot.
    pub(crate) fn row(&mut self, at: usize) -> &mut MergedRow {
        &mut self.rows[at]
    }

    /// Writes all rows in the order in which they came.
    pub(crate) fn write(self, out: &mut TileWriter<'_>) -> Result<(), QueryError> {
        let mut order: Vec<_> = self.index.into_iter().collect();
        order.sort_unstable_by_key(|(_, at)| *at);
        for ((key, tile), at) in order {
            let MergedRow { mask, values, histograms } = &self.rows[at];
            out.push_mixed(&key, tile, *mask, values, histograms)?;
        }
        Ok(())
    }
}

/// What upstream says when two series of a result have the same labels.
pub(crate) fn same_labelset() -> QueryError {
    QueryError::Execution("vector cannot contain metrics with the same labelset".into())
}
