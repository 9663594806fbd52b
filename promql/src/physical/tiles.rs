//! Tiles in and out of Arrow: [`TileColumns`] reads a batch, [`TileBuilder`] makes one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, FixedSizeListArray, Float64Array};
use arrow::array::{BooleanBufferBuilder, UInt32Array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::datatypes::{DataType, Field, Float64Type, UInt32Type};
use arrow::record_batch::RecordBatch;
use datafusion::common::{Result, internal_datafusion_err};

use crate::histogram::lanes::{Column, ColumnBuilder, LaneHistograms, Lanes as Histograms};
use crate::kernels::StepRow;
use crate::kernels::aggregate::full_mask;
use crate::params::Grid;
use crate::tile::{FLOATS, HISTOGRAMS, LABELS_KEY, TILE, tile_schema};

/// Bytes of tiles after which a batch is full.
pub const BATCH_BYTES: usize = 1 << 20;

/// The columns of a tile batch, typed.
#[derive(Debug)]
pub struct TileColumns<'a> {
    keys: &'a BinaryArray,
    tiles: &'a UInt32Array,
    floats: Lanes<'a>,
    histograms: Column<'a>,
}

impl<'a> TileColumns<'a> {
    /// The columns of `batch`.
    ///
    /// # Errors
    /// If they are not those of a tile: a bug.
    pub fn of(batch: &'a RecordBatch) -> Result<Self> {
        let wrong = || internal_datafusion_err!("not a batch of tiles: {}", batch.schema());
        let column = |i: usize| (i < batch.num_columns()).then(|| batch.column(i)).ok_or_else(wrong);
        Ok(Self {
            keys: column(LABELS_KEY.0)?.as_binary_opt::<i32>().ok_or_else(wrong)?,
            tiles: column(TILE.0)?.as_primitive_opt::<UInt32Type>().ok_or_else(wrong)?,
            floats: Lanes::of(column(FLOATS.0)?)?,
            histograms: Column::of(column(HISTOGRAMS.0)?)?,
        })
    }

    /// Number of tiles.
    pub fn len(&self) -> usize {
        self.tiles.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Labels key of a row.
    pub fn key(&self, row: usize) -> &'a [u8] {
        self.keys.value(row)
    }

    /// Tile index of a row.
    pub fn tile(&self, row: usize) -> u32 {
        self.tiles.value(row)
    }

    /// Float lanes of a row, and which of them are valid.
    pub fn row(&self, row: usize) -> (&'a [f64], u128) {
        self.floats.row(row)
    }

    /// Histograms of a row.
    pub fn histograms(&self, row: usize) -> Histograms<'a> {
        self.histograms.row(row)
    }
}

/// A `FixedSizeList<Float64>` column, read row by row.
#[derive(Debug)]
pub struct Lanes<'a> {
    lanes: usize,
    values: &'a [f64],
    nulls: Option<&'a NullBuffer>,
}

impl<'a> Lanes<'a> {
    /// The lanes in `column`.
    ///
    /// # Errors
    /// If it is something else: a bug.
    pub fn of(column: &'a ArrayRef) -> Result<Self> {
        let wrong = || internal_datafusion_err!("lanes expected, not {}", column.data_type());
        let list = column.as_fixed_size_list_opt().ok_or_else(wrong)?;
        let values = list.values().as_primitive_opt::<Float64Type>().ok_or_else(wrong)?;
        // A list without nulls of its own: a row of a tile always exists.
        Ok(Self { lanes: list.value_length() as usize, values: values.values(), nulls: values.nulls() })
    }

    /// Lanes per row.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// The values of a row, and which of them are valid.
    #[inline]
    pub fn row(&self, row: usize) -> (&'a [f64], u128) {
        let range = row * self.lanes..(row + 1) * self.lanes;
        let mask = self
            .nulls
            .map_or(full_mask(self.lanes), |nulls| read_mask(nulls.inner(), range.start, self.lanes));
        (&self.values[range], mask)
    }
}

/// `n <= 128` bits of `bits` from `start` on.
fn read_mask(bits: &BooleanBuffer, start: usize, n: usize) -> u128 {
    let first = bits.offset() + start;
    let bytes = &bits.values()[first / 8..(first + n).div_ceil(8)];
    let mut low = [0; 16];
    let head = bytes.len().min(16);
    low[..head].copy_from_slice(&bytes[..head]);
    let shift = first % 8;
    let mut mask = u128::from_le_bytes(low) >> shift;
    if let Some(last) = bytes.get(16) {
        mask |= u128::from(*last) << (128 - shift);
    }
    mask & full_mask(n)
}

/// Makes tile batches.
#[derive(Debug)]
pub struct TileBuilder {
    grid: Grid,
    keys: BinaryBuilder,
    tiles: Vec<u32>,
    values: Vec<f64>,
    masks: Vec<u128>,
    histograms: ColumnBuilder,
}

impl TileBuilder {
    /// A builder of tiles on `grid`.
    pub fn new(grid: Grid) -> Self {
        Self {
            grid,
            keys: BinaryBuilder::new(),
            tiles: Vec::new(),
            values: Vec::new(),
            masks: Vec::new(),
            histograms: ColumnBuilder::default(),
        }
    }

    /// Appends a tile. `lanes` may be shorter than a tile; what is missing is absent.
    pub fn push(&mut self, key: &[u8], tile: u32, lanes: &[f64], mask: u128) {
        self.keys.append_value(key);
        self.tiles.push(tile);
        self.values.extend_from_slice(lanes);
        self.masks.push(mask);
        self.values.resize(self.masks.len() * self.grid.tile_steps, 0.0);
    }

    /// Appends the tiles of a series: those that have a sample.
    pub fn push_row(&mut self, key: &[u8], row: &StepRow) {
        let lanes = self.grid.tile_steps;
        let mut histograms = row.histograms();
        let mut here = LaneHistograms::default();
        for tile in 0..self.grid.tiles() {
            let mask = row.mask(tile, lanes);
            let first = tile * lanes;
            let end = first + self.grid.steps_in_tile(tile);
            if !histograms.is_empty() {
                let (now, later) = histograms.split_at(histograms.partition_point(|(step, _)| *step < end));
                histograms = later;
                here.clear();
                now.iter().for_each(|(step, h)| here.set(step - first, Arc::clone(h)));
                self.histograms.put(self.masks.len(), |bytes| here.encode(bytes));
            }
            if mask != 0 || !here.is_empty() {
                self.push(key, tile as u32, &row.values()[first..end], mask);
            }
            here.clear();
        }
    }

    /// Whether nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.tiles.is_empty()
    }

    /// Whether it is time for [`TileBuilder::finish`].
    pub fn is_full(&self) -> bool {
        self.values.len() * size_of::<f64>() + self.keys.values_slice().len() + self.histograms.len()
            >= BATCH_BYTES
    }

    /// A batch of what was appended; the builder is empty afterwards.
    ///
    /// # Errors
    /// If the columns do not fit each other: a bug.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        let keys = self.keys.finish();
        let tiles = UInt32Array::from(std::mem::take(&mut self.tiles));
        let values = std::mem::take(&mut self.values);
        let masks = std::mem::take(&mut self.masks);
        let floats = lanes_array(self.grid.tile_steps, values, Some(&masks))?;
        let histograms = self.histograms.finish(tiles.len());
        let columns: Vec<ArrayRef> =
            vec![Arc::new(keys), Arc::new(tiles), Arc::new(floats), Arc::new(histograms)];
        Ok(RecordBatch::try_new(tile_schema(&self.grid), columns)?)
    }
}

/// A `floats` column of `lanes` lanes: `values` row after row, valid where `masks` says, or everywhere.
///
/// # Errors
/// If the columns do not fit each other: a bug.
pub fn lanes_array(lanes: usize, values: Vec<f64>, masks: Option<&[u128]>) -> Result<FixedSizeListArray> {
    let values = Float64Array::new(values.into(), masks.and_then(|masks| null_buffer(lanes, masks)));
    let field = Arc::new(Field::new("item", DataType::Float64, true));
    Ok(FixedSizeListArray::try_new(field, lanes as i32, Arc::new(values), None)?)
}

fn null_buffer(lanes: usize, masks: &[u128]) -> Option<NullBuffer> {
    let full = full_mask(lanes);
    if masks.iter().all(|m| *m == full) {
        return None;
    }
    let bits = masks.len() * lanes;
    let buffer = if lanes.is_multiple_of(8) {
        let bytes =
            masks.iter().flat_map(|m| m.to_le_bytes().into_iter().take(lanes / 8)).collect::<Vec<u8>>();
        BooleanBuffer::new(Buffer::from_vec(bytes), 0, bits)
    } else {
        let mut builder = BooleanBufferBuilder::new(bits);
        for mask in masks {
            (0..lanes).for_each(|j| builder.append(mask >> j & 1 == 1));
        }
        builder.finish()
    };
    Some(NullBuffer::new(buffer))
}
