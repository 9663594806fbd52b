//! Reads the samples of several series at once.
//!
//! XOR chunks are decoded faster side by side, of whatever series they are; those of one series are often too few. So
//! the chunks of series that were read ahead are decoded in one go, and then looked at series by series, in place.
//!
//! Only what is simple is read so: whole series of XOR chunks that are apart, with nothing deleted, of which all
//! samples or the newest are needed. What is not, and what turns out to be damaged, is left to the caller.

use std::ops::Range;

use super::Files;
use super::ahead::Ahead;
use crate::chunkenc::{Encoding, num_samples, xor};
use crate::chunks::ChunkMeta;
use crate::needed::Needed;
use crate::query::SeriesBatch;
use crate::sample::{TimestampMs, ascend};
use crate::tombstones::Tombstones;

/// Most chunks of a group: what they are and what comes of them stays in the cache.
const CHUNKS: usize = 192;

/// What is read, and how much of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Both ends included, ms.
    pub(super) range: (TimestampMs, TimestampMs),
    pub(super) needed: Needed,
    /// Most series.
    pub(super) series: usize,
    /// Samples, reached or passed with the last series.
    pub(super) samples: usize,
}

/// The first series that were read ahead, as many as can be read at once.
#[derive(Debug)]
pub(super) struct Group<'a> {
    range: (TimestampMs, TimestampMs),
    newest: bool,
    /// Of all series, one after the other.
    chunks: Vec<&'a [u8]>,
    series: Vec<Member>,
}

/// What is known of a series before its chunks are decoded.
#[derive(Debug, Clone, Copy)]
struct Member {
    samples: usize,
    /// Whether some may be out of the range.
    partly: bool,
}

impl<'a> Group<'a> {
    /// No more than is `wanted`. Without series if the first is not simple, or there is none.
    pub(super) fn gather(files: &'a Files, tombstones: &Tombstones, wanted: Wanted, ahead: &Ahead) -> Self {
        let Wanted { range, needed, .. } = wanted;
        let newest = needed == Needed::Newest;
        let mut group = Self { range, newest, chunks: Vec::new(), series: Vec::new() };
        if !(newest || needed == Needed::All) || is_off() {
            return group;
        }
        let mut samples = 0;
        for (reference, chunks) in ahead.series() {
            if group.series.len() >= wanted.series || samples >= wanted.samples {
                break;
            }
            let simple = tombstones.of(reference).is_empty();
            let Some(added) = simple.then(|| group.add(files, chunks)).flatten() else { break };
            samples += if newest { 1 } else { added };
        }
        group
    }

    /// Adds a series and says how many samples its chunks have; `None`, and nothing is added, if it is not simple.
    fn add(&mut self, files: &'a Files, chunks: &[ChunkMeta]) -> Option<usize> {
        if !chunks.is_sorted_by(|a, b| a.maxt < b.mint) {
            return None;
        }
        // See `needed::read`.
        let chunks = if self.newest { chunks.last_chunk::<1>()? } else { chunks };
        let (first, last) = (chunks.first()?, chunks.last()?);
        let before = self.chunks.len();
        let room = before + chunks.len() <= CHUNKS;
        // Not all is read of chunks that are for others.
        if !room || files.chunks.header(first.reference).ok()?.0 != Encoding::Xor {
            return None;
        }
        let mut samples = 0;
        for chunk in chunks {
            let Ok((Encoding::Xor, data)) = files.chunks.chunk(chunk.reference) else {
                self.chunks.truncate(before);
                return None;
            };
            samples += usize::from(num_samples(Encoding::Xor, data));
            self.chunks.push(data);
        }
        let partly = first.mint < self.range.0 || self.range.1 < last.maxt;
        self.series.push(Member { samples, partly });
        Some(samples)
    }

    /// Number of series.
    pub(super) fn len(&self) -> usize {
        self.series.len()
    }

    /// Takes the series from `ahead`, and appends those that have samples in range to `batch`.
    ///
    /// If there is none, or they are not what they seemed to be, both are left as they are, and the answer is `false`.
    pub(super) fn read(&self, ahead: &mut Ahead, batch: &mut SeriesBatch) -> bool {
        let start = batch.values.len();
        let SeriesBatch { timestamps, values, .. } = batch;
        if self.series.is_empty() || xor::decode_many_into(&self.chunks, timestamps, values).is_err() {
            return false;
        }
        if !self.all_ascend(&timestamps[start..]) {
            timestamps.truncate(start);
            values.truncate(start);
            return false;
        }
        // What is kept goes to `end`, what is looked at lies there or behind.
        let (mut from, mut end) = (start, start);
        for member in &self.series {
            let all = from..from + member.samples;
            from = all.end;
            let Some(series) = ahead.take() else { break };
            let kept = self.kept(member, &batch.timestamps, all);
            if !kept.is_empty() {
                let len = kept.len();
                if kept.start != end {
                    batch.timestamps.copy_within(kept.clone(), end);
                    batch.values.copy_within(kept, end);
                }
                end += len;
                batch.finish_series_at(series.labels, end);
            }
        }
        batch.timestamps.truncate(end);
        batch.values.truncate(end);
        if !batch.start_timestamps.is_empty() {
            batch.start_timestamps.resize(end, 0);
        }
        true
    }

    /// Whether the times of each series do.
    fn all_ascend(&self, mut times: &[TimestampMs]) -> bool {
        let mut all = self.series.iter();
        all.all(|member| ascend(times.split_off(..member.samples).unwrap_or_default()))
    }

    /// Where the samples lie that are kept of a series whose samples are at `all`.
    fn kept(&self, member: &Member, times: &[TimestampMs], all: Range<usize>) -> Range<usize> {
        let mut kept = all;
        if member.partly {
            let times = &times[kept.clone()];
            let end = kept.start + times.partition_point(|t| *t <= self.range.1);
            let first = kept.start + times.partition_point(|t| *t < self.range.0);
            kept = first.min(end)..end;
        }
        if self.newest {
            kept.start = kept.start.max(kept.end.saturating_sub(1));
        }
        kept
    }
}

/// Whether a test wants all series to be read one by one.
fn is_off() -> bool {
    #[cfg(test)]
    return tests::OFF.get();
    #[cfg(not(test))]
    false
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::Path;

    use futures::StreamExt as _;
    use proptest::prelude::*;
    use ulid::Ulid;

    use super::*;
    use crate::block::{Block, BlockSpec, write};
    use crate::chunkenc::histogram::{ChunkAppender, IntegerCoder};
    use crate::chunkenc::xor2;
    use crate::chunks::{ChunkData, ChunkRef};
    use crate::histogram::Histogram;
    use crate::labels::Labels;
    use crate::query::{Queryable as _, SelectHints};
    use crate::sample::stale_nan;

    thread_local! {
        pub(super) static OFF: Cell<bool> = const { Cell::new(false) };
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Kind {
        Xor,
        Xor2,
        Histograms,
        /// Its samples reach beyond what the index says of it, over those of the chunk before it.
        Overlapping,
        /// Its samples are not in order of time.
        Disordered,
        /// Its checksum is right, its content is not.
        Damaged,
    }

    /// How far its first sample is from the end of the chunk before, and how its samples are apart.
    #[derive(Debug, Clone)]
    struct Chunk {
        kind: Kind,
        gap: i64,
        /// Distance from the sample before and value.
        samples: Vec<(i64, u64)>,
    }

    fn chunks(damaged: bool) -> impl Strategy<Value = Vec<Chunk>> {
        let kind = (0..if damaged { 100 } else { 99 }).prop_map(|n| match n {
            0..88 => Kind::Xor,
            88..91 => Kind::Xor2,
            91..94 => Kind::Histograms,
            94..97 => Kind::Overlapping,
            97..99 => Kind::Disordered,
            _ => Kind::Damaged,
        });
        let value = prop_oneof![4 => any::<u64>(), 2 => Just(0), 1 => Just(stale_nan().to_bits())];
        let sample = (prop_oneof![3 => Just(10i64), 1 => 1i64..50], value);
        let chunk = (kind, 1i64..200, prop::collection::vec(sample, 1..25));
        let chunk = chunk.prop_map(|(kind, gap, samples)| Chunk { kind, gap, samples });
        prop::collection::vec(chunk, 1..13)
    }

    fn encode(chunks: &[Chunk]) -> Vec<ChunkData> {
        let mut t = 0;
        chunks.iter().map(|chunk| encode_one(chunk, &mut t)).collect()
    }

    fn encode_one(chunk: &Chunk, t: &mut TimestampMs) -> ChunkData {
        let from = *t;
        *t += chunk.gap;
        let mint = *t;
        let mut samples = Vec::new();
        for (distance, v) in &chunk.samples {
            samples.push((*t, f64::from_bits(*v)));
            *t += distance;
        }
        let maxt = samples[samples.len() - 1].0;
        match chunk.kind {
            Kind::Overlapping => samples[0].0 = from - 20,
            Kind::Disordered => samples.reverse(),
            _ => {}
        }
        let (encoding, bytes) = match chunk.kind {
            Kind::Xor2 => {
                let mut appender = xor2::Appender::new();
                samples.iter().for_each(|(t, v)| appender.append(1, *t, *v));
                (Encoding::Xor2, appender.into_bytes())
            }
            Kind::Histograms => {
                let mut appender = ChunkAppender::<IntegerCoder>::new(false);
                samples.iter().enumerate().for_each(|(i, (t, _))| {
                    let n = i as u64;
                    let histogram = Histogram { count: n, zero_count: n, sum: 1.0, ..Histogram::default() };
                    appender.append(None, *t, 0, &histogram).unwrap();
                });
                (appender.encoding(), appender.into_bytes())
            }
            _ => {
                let mut appender = xor::Appender::new();
                samples.iter().for_each(|(t, v)| appender.append(*t, *v));
                let mut bytes = appender.into_bytes();
                if chunk.kind == Kind::Damaged {
                    // One more than there are, or many.
                    bytes[usize::from(chunk.gap % 2 == 0)] += 1;
                }
                (Encoding::Xor, bytes)
            }
        };
        ChunkData { mint, maxt, encoding, bytes }
    }

    fn block(dir: &Path, series: &[Vec<Chunk>]) -> Block {
        let spec = BlockSpec { segment_bytes: 4096, ..BlockSpec::new(Ulid(7), 0, 1 << 40) };
        let series = series.iter().enumerate().map(|(i, chunks)| Ok((labels(i), encode(chunks))));
        write(dir, spec, series).unwrap().unwrap();
        Block::open(&dir.join(Ulid(7).to_string())).unwrap()
    }

    fn labels(i: usize) -> Labels {
        Labels::from_pairs([("i", format!("{i:03}"))])
    }

    /// What is read of a series, to the bit: floats with start timestamps, histograms.
    type Seen = (Labels, Vec<(TimestampMs, u64, TimestampMs)>, Vec<(TimestampMs, String)>);

    /// Series before the error, if there is one, and the error.
    fn read(block: &Block, range: (i64, i64), hints: &SelectHints) -> (Vec<Seen>, Option<String>) {
        let mut out = Vec::new();
        for mut partition in block.select(&[], range.0, range.1, hints).unwrap().partitions {
            while let Some(batch) = futures::executor::block_on(partition.next()) {
                let batch = match batch {
                    Ok(batch) => batch,
                    Err(e) => return (out, Some(e.to_string())),
                };
                assert_eq!(batch.offsets.len(), batch.len() + 1);
                assert_eq!(batch.offsets[batch.len()] as usize, batch.values.len());
                assert_eq!(batch.timestamps.len(), batch.values.len());
                assert!([0, batch.values.len()].contains(&batch.start_timestamps.len()));
                for i in 0..batch.len() {
                    let (labels, times, values) = batch.series(i);
                    let starts = batch.starts(i).iter().copied().chain(std::iter::repeat(0));
                    let floats = times.iter().zip(values).zip(starts).map(|((t, v), s)| (*t, v.to_bits(), s));
                    let histograms = batch.histograms.iter().filter(|h| h.series as usize == i);
                    let histograms = histograms.map(|h| (h.timestamp, format!("{:?}", h.histogram)));
                    out.push((labels.clone(), floats.collect(), histograms.collect()));
                }
            }
        }
        (out, None)
    }

    fn read_one_by_one(block: &Block, range: (i64, i64), hints: &SelectHints) -> (Vec<Seen>, Option<String>) {
        OFF.set(true);
        let seen = read(block, range, hints);
        OFF.set(false);
        seen
    }

    const KINDS: [Needed; 6] = [
        Needed::All,
        Needed::Newest,
        Needed::AnyLive,
        Needed::OldestLive,
        Needed::NewestLive,
        Needed::LiveEnds,
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn series_read_together_are_those_read_one_by_one(
            series in any::<bool>().prop_flat_map(|damaged| prop::collection::vec(chunks(damaged), 1..31)),
            ranges in prop::collection::vec((-50i64..3000, 0i64..3000), 4),
            deleted in prop::collection::vec((0usize..30, 0i64..3000, 0i64..500), 0..3),
            batch_samples in prop::sample::select(vec![1usize, 20, 300, 2000, 100_000]),
            partitions in 1usize..3, series_limit in prop::sample::select(vec![0usize, 1, 7, 20]),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let block = block(dir.path(), &series);
            for (i, mint, length) in deleted {
                // Damage is told when a deletion looks for samples.
                let _ = block.delete(&[crate::Matcher::eq("i", format!("{i:03}"))], mint, mint + length);
            }
            let ranges = ranges.into_iter().map(|(mint, length)| (mint, mint + length));
            for range in ranges.chain([(i64::MIN, i64::MAX)]) {
                for needed in KINDS {
                    let hints = SelectHints { needed, batch_samples, partitions, series_limit, ..SelectHints::default() };
                    let (seen, error) = read(&block, range, &hints);
                    let (expected, expected_error) = read_one_by_one(&block, range, &hints);
                    prop_assert_eq!(&error, &expected_error);
                    if error.is_none() {
                        prop_assert_eq!(seen, expected, "{:?} {:?}", needed, range);
                    } else {
                        // Batches may end at other series, and that with the error is not given.
                        prop_assert!(seen.iter().zip(&expected).all(|(a, b)| a == b));
                    }
                }
            }
        }
    }

    fn counters(series: usize, chunks: usize) -> Vec<Vec<Chunk>> {
        let samples = |k: usize| (0..20).map(|i| (10, ((k * 20 + i) as f64 * 1.5).to_bits())).collect();
        let chunk = |k| Chunk { kind: Kind::Xor, gap: 10, samples: samples(k) };
        (0..series).map(|s| (0..chunks).map(|k| chunk(s + k)).collect()).collect()
    }

    /// The group that begins with the first series of `block`.
    fn gathered<'a>(block: &'a Block, needed: Needed, samples: usize, ahead: &mut Ahead) -> Group<'a> {
        let range = (i64::MIN, i64::MAX);
        let references = crate::postings::for_matchers(&block.files.index, &[]).unwrap();
        *ahead = Ahead::new(references.into(), 0..block.meta().stats.num_series as usize);
        ahead.fill(&block.files, range, &SelectHints { needed, ..SelectHints::default() }, usize::MAX);
        let wanted = Wanted { range, needed, series: usize::MAX, samples };
        Group::gather(&block.files, &block.tombstones(), wanted, ahead)
    }

    #[test]
    fn a_group_is_what_is_simple_and_fits() {
        let dir = tempfile::tempdir().unwrap();
        let mut series = counters(12, 5);
        series[9][4].kind = Kind::Histograms;
        let block = block(dir.path(), &series);
        let mut ahead = Ahead::default();
        let mut len = |needed, samples| gathered(&block, needed, samples, &mut ahead).len();
        assert_eq!(len(Needed::All, usize::MAX), 9);
        assert_eq!(len(Needed::Newest, usize::MAX), 9);
        assert_eq!(len(Needed::LiveEnds, usize::MAX), 0);
        // 100 samples each.
        assert_eq!(len(Needed::All, 301), 4);
        assert_eq!(len(Needed::Newest, 2), 2);
        block.delete(&[crate::Matcher::eq("i", "003")], 0, 50).unwrap();
        assert_eq!(gathered(&block, Needed::All, usize::MAX, &mut ahead).len(), 3);
    }

    #[test]
    fn a_series_too_large_for_a_group_is_read_alone() {
        let dir = tempfile::tempdir().unwrap();
        let block = block(dir.path(), &counters(2, CHUNKS + 1));
        let mut ahead = Ahead::default();
        assert_eq!(gathered(&block, Needed::All, usize::MAX, &mut ahead).len(), 0);
        assert_eq!(gathered(&block, Needed::Newest, usize::MAX, &mut ahead).len(), 2);
        let (seen, error) = read(&block, (0, i64::MAX), &SelectHints::default());
        assert_eq!((seen.len(), error), (2, None));
        assert!(seen.iter().all(|s| s.1.len() == (CHUNKS + 1) * 20));
    }

    /// The index writer refuses such chunks; some versions of Prometheus wrote them.
    #[test]
    fn chunks_that_overlap_are_not_simple() {
        let dir = tempfile::tempdir().unwrap();
        let block = block(dir.path(), &counters(1, 2));
        let mut group = gathered(&block, Needed::All, 1, &mut Ahead::default());
        let chunk = |mint, maxt| ChunkMeta { mint, maxt, reference: ChunkRef::new(0, 8) };
        assert_eq!(group.add(&block.files, &[chunk(0, 9), chunk(9, 20)]), None);
        assert_eq!(group.add(&block.files, &[chunk(0, 9), chunk(10, 20)]), Some(40));
    }

    #[test]
    fn a_group_that_cannot_be_read_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for kind in [Kind::Damaged, Kind::Disordered] {
            let mut series = counters(6, 3);
            series[4][1].kind = kind;
            let dir = dir.path().join(format!("{kind:?}"));
            std::fs::create_dir(&dir).unwrap();
            let block = block(&dir, &series);
            let (mut ahead, mut batch) = (Ahead::default(), SeriesBatch::new());
            let group = gathered(&block, Needed::All, usize::MAX, &mut ahead);
            assert_eq!(group.len(), 6);
            assert!(!group.read(&mut ahead, &mut batch));
            assert_eq!((batch, ahead.left()), (SeriesBatch::new(), 6));
        }
    }
}
