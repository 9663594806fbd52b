//! Where the memory of a head is.

use std::mem::size_of;
use std::sync::Arc;

use super::{Head, MemSeries};

/// Bytes of a head's parts, as requested from the allocator, which adds some to each piece.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeadMemory {
    /// Series.
    pub series: u64,
    /// Fixed parts of series.
    pub series_bytes: u64,
    /// Label sets.
    pub label_bytes: u64,
    /// Buffers of open chunks.
    pub open_bytes: u64,
    /// Finished chunks that wait to be written to disk, and out-of-order samples.
    pub pending_bytes: u64,
    /// References to chunks on disk.
    pub mapped_bytes: u64,
    /// Tables from references and from labels to series.
    pub table_bytes: u64,
    /// Tables from label pairs to references.
    pub postings_bytes: u64,
}

impl HeadMemory {
    /// All parts.
    pub fn total(&self) -> u64 {
        self.series_bytes
            + self.label_bytes
            + self.open_bytes
            + self.pending_bytes
            + self.mapped_bytes
            + self.table_bytes
            + self.postings_bytes
    }
}

/// Two counters before what an `Arc` holds.
const ARC: usize = 2 * size_of::<usize>();

impl Head {
    /// Adds up what the head takes; looks at every series.
    pub fn memory(&self) -> HeadMemory {
        let mut out = HeadMemory {
            table_bytes: self.index.table_bytes(),
            postings_bytes: self.index.with_postings(super::postings::Postings::bytes),
            ..HeadMemory::default()
        };
        self.index.for_each(|series: &Arc<MemSeries>| {
            out.series += 1;
            out.series_bytes += (ARC + size_of::<MemSeries>()) as u64;
            out.label_bytes += (ARC + series.labels.as_bytes().len()) as u64;
            let state = series.lock();
            out.open_bytes += state.open.as_ref().map_or(0, |o| o.capacity()) as u64;
            out.mapped_bytes += size_of_val(&*state.mapped) as u64;
            out.pending_bytes += state.pending_bytes() as u64;
        });
        out
    }
}
