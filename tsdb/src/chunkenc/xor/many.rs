//! Many chunks at once.

use super::decode_into;
use crate::chunkenc::ChunkError;
use crate::sample::TimestampMs;

/// Appends all samples of all chunks, in order, to `timestamps` and `values`: what [`decode_into`] gives for one after
/// the other, and faster for four or more.
///
/// # Errors
/// If a chunk is damaged: the place of the first that is in `chunks`, and how. The vectors are then as they were.
pub fn decode_many_into(
    chunks: &[&[u8]],
    timestamps: &mut Vec<TimestampMs>,
    values: &mut Vec<f64>,
) -> Result<(), (usize, ChunkError)> {
    #[cfg(target_arch = "x86_64")]
    if super::side_by_side::decode(chunks, timestamps, values) {
        return Ok(());
    }
    let before = (timestamps.len(), values.len());
    for (i, data) in chunks.iter().enumerate() {
        if let Err(e) = decode_into(data, timestamps, values) {
            timestamps.truncate(before.0);
            values.truncate(before.1);
            return Err((i, e));
        }
    }
    Ok(())
}
