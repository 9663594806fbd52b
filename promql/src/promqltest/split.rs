//! The data of a script spread over several sources, as a database has it: blocks, a head, samples that
//! came late. Queries must not notice.

use std::sync::Arc;

use futures::StreamExt;
use futures::executor::block_on;
use promontory_tsdb::memory::MemoryStorage;
use promontory_tsdb::merge::Fanout;
use promontory_tsdb::query::{HistogramSample, SeriesBatch};
use promontory_tsdb::{AppendError, Queryable, SelectHints, TimestampMs};

/// How to spread samples over sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Every source has a time range of its own, as blocks and the head.
    Disjoint,
    /// Any sample may be in any source, and some are in two, as with samples out of order.
    Overlapping,
}

/// The number of sources.
const SOURCES: usize = 3;

/// Spreads what `storage` holds over several sources. The same `seed` spreads the same way.
///
/// # Errors
/// The text of what cannot be read or appended.
pub fn spread(storage: &MemoryStorage, split: Split, seed: u64) -> Result<Arc<dyn Queryable>, String> {
    let parts: Vec<_> = (0..SOURCES).map(|_| Arc::new(MemoryStorage::new())).collect();
    let (first, last) = storage.time_bounds().unwrap_or((0, 0));
    let mut random = Random(seed | 1);
    // Where one source ends and the next one begins.
    let width = last.saturating_sub(first).unsigned_abs() + 1;
    let mut cuts = [0; SOURCES - 1].map(|_| first.saturating_add((random.next() % width) as i64));
    cuts.sort_unstable();
    let all = storage
        .select(&[], TimestampMs::MIN, TimestampMs::MAX, &SelectHints::default())
        .map_err(|e| e.to_string())?;
    for mut partition in all.partitions {
        while let Some(batch) = block_on(partition.next()) {
            let batch = batch.map_err(|e| e.to_string())?;
            for i in 0..batch.len() {
                if batch.histograms.iter().any(|h| h.series as usize == i) {
                    append_whole(&batch, i, &parts[random.below(SOURCES)]).map_err(|e| e.to_string())?;
                    continue;
                }
                let (labels, timestamps, values) = batch.series(i);
                let starts = batch.starts(i);
                for (k, (t, v)) in timestamps.iter().zip(values).enumerate() {
                    let start = starts.get(k).copied().unwrap_or(0);
                    for part in places(split, *t, &cuts, &mut random) {
                        parts[part].append_with_start(labels, *t, start, *v).map_err(|e| e.to_string())?;
                    }
                }
            }
        }
    }
    Ok(Arc::new(Fanout::new(parts.into_iter().map(|part| part as Arc<dyn Queryable>).collect())))
}

/// Appends series `i` to one source. Histograms are not spread: what a source says of resets between them
/// depends on their neighbours there, and scripts look at that.
fn append_whole(batch: &SeriesBatch, i: usize, part: &MemoryStorage) -> Result<(), AppendError> {
    let (labels, timestamps, values) = batch.series(i);
    let starts = batch.starts(i);
    let mut histograms = batch.histograms.iter().filter(|h| h.series as usize == i).peekable();
    let put =
        |h: &HistogramSample| part.append_histogram(labels, h.timestamp, h.start_timestamp, &h.histogram);
    for (k, (t, v)) in timestamps.iter().zip(values).enumerate() {
        while let Some(h) = histograms.next_if(|h| h.timestamp < *t) {
            put(h)?;
        }
        part.append_with_start(labels, *t, starts.get(k).copied().unwrap_or(0), *v)?;
    }
    histograms.try_for_each(put)
}

/// The sources that a sample at `t` goes to.
fn places(split: Split, t: TimestampMs, cuts: &[TimestampMs], random: &mut Random) -> Vec<usize> {
    match split {
        Split::Disjoint => vec![cuts.partition_point(|cut| *cut <= t)],
        Split::Overlapping => {
            let (one, other) = (random.below(SOURCES), random.below(SOURCES));
            if one == other || random.below(4) > 0 { vec![one] } else { vec![one, other] }
        }
    }
}

/// Xorshift: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}
