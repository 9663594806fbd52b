//! The tile: the column contract of every PromQL operator between leaf and result.
//!
//! One row = one series × one run of at most [`MAX_TILE_STEPS`] consecutive steps of the plan's
//! [`Grid`].
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `labels_key` | `Binary`, not null | canonical label bytes ([`promontory_tsdb::Labels::as_bytes`]); equality is byte equality |
//! | `tile` | `UInt32`, not null | index of the run: lane `j` is step `tile * B + j` |
//! | `floats` | `FixedSizeList<Float64, B>`, not null | one lane per step; the child's null bit says "no float here" |
//! | `histograms` | `LargeBinary` | the row's native histograms by lane; null, the usual case, if there is none |
//!
//! # Invariants
//! - Absence is a null bit and never a NaN; every NaN in a valid lane is a value. Stale markers do
//!   not leave the leaf.
//! - A lane has a float or a histogram, never both. A row has at least one lane with a sample; lanes
//!   behind the grid's end have none. What a null lane's value slot holds is unspecified.
//! - `(labels_key, tile)` occurs at most once in the output of a vector-valued node, over all
//!   partitions, *unless* the node says otherwise: a leaf that was handed a group key emits that
//!   key instead, as often as it has series, for the aggregate right above it.
//! - No order of rows is promised unless a node declares one.
//! - A scalar-valued node emits rows with the empty key; every step of the grid is valid.
//!
//! # Histograms
//! Their encoding is in [`crate::histogram::lanes`]: opaque bytes, and not a list of structs, because
//! only our own operators look at them, one histogram at a time; as bytes they can be passed on,
//! repeated and selected by lane without being understood, and all of Arrow's kernels that
//! DataFusion uses between operators (take, concatenate, repartition) work. A batch without
//! histograms carries a column of nulls, and operators see with one look that there is none.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::params::Grid;

/// Largest number of steps in a tile: the presence of one tile fits a `u128`.
pub const MAX_TILE_STEPS: usize = 128;

/// Index and name of the labels column.
pub const LABELS_KEY: (usize, &str) = (0, "labels_key");
/// Index and name of the tile index column.
pub const TILE: (usize, &str) = (1, "tile");
/// Index and name of the float lanes.
pub const FLOATS: (usize, &str) = (2, "floats");

/// Index and name of the histograms.
pub const HISTOGRAMS: (usize, &str) = (3, "histograms");

/// The type of `floats` for tiles of `tile_steps` lanes.
pub fn floats_type(tile_steps: usize) -> DataType {
    let lanes = i32::try_from(tile_steps).expect("a tile has at most 128 lanes");
    DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Float64, true)), lanes)
}

/// The schema of tiles on `grid`.
pub fn tile_schema(grid: &Grid) -> SchemaRef {
    /// One schema per power of two, made once: small queries ask for it many times.
    static SCHEMAS: LazyLock<Vec<SchemaRef>> = LazyLock::new(|| {
        (0..=MAX_TILE_STEPS.trailing_zeros())
            .map(|log2| {
                Arc::new(Schema::new(vec![
                    Field::new(LABELS_KEY.1, DataType::Binary, false),
                    Field::new(TILE.1, DataType::UInt32, false),
                    Field::new(FLOATS.1, floats_type(1 << log2), false),
                    Field::new(HISTOGRAMS.1, DataType::LargeBinary, true),
                ]))
            })
            .collect()
    });
    assert!(
        grid.tile_steps.is_power_of_two() && grid.tile_steps <= MAX_TILE_STEPS,
        "tile width {}",
        grid.tile_steps
    );
    Arc::clone(&SCHEMAS[grid.tile_steps.trailing_zeros() as usize])
}
