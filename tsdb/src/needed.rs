//! [`Needed`]: which samples of a series a reader has to have, and which chunks must be decoded for them.

use std::ops::Range;

use crate::error::Result;

/// Which samples of each series in the range a caller has to have. A source may leave out others, and may deliver
/// them as well; what it delivers is what is stored. A live sample is one that is no stale marker.
///
/// In all but [`Needed::All`] and [`Needed::Newest`] start timestamps may be left out. A series without a live sample
/// may be delivered, with or without its markers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Needed {
    /// All.
    #[default]
    All,
    /// The newest, be it a stale marker.
    Newest,
    /// Any live sample.
    AnyLive,
    /// The oldest live sample.
    OldestLive,
    /// The newest live sample.
    NewestLive,
    /// The oldest and the newest live sample.
    LiveEnds,
}

impl Needed {
    /// Whether what is needed may be hidden by a sample of another source at the same time.
    pub(crate) fn looks_past_markers(self) -> bool {
        !matches!(self, Self::All | Self::Newest)
    }
}

/// Chunks of one series, all in range in part or in full, in order of time and apart from each other.
pub(crate) trait Chunks {
    /// How many samples there are so far.
    type Mark: Copy;

    fn len(&self) -> usize;

    /// Whether the first sample of chunk `i` is in the range.
    fn starts_inside(&self, i: usize) -> bool;

    /// Adds the first sample of chunk `i` if it is live and can be had by itself; says whether it did.
    fn first_live(&mut self, i: usize) -> Result<bool>;

    /// Adds the samples of `chunks` that are in range; says whether there was a live one.
    fn read(&mut self, chunks: Range<usize>) -> Result<bool>;

    fn mark(&self) -> Self::Mark;

    /// Forgets what was added since `mark`.
    fn forget(&mut self, mark: Self::Mark);
}

/// Adds what is `needed` of `chunks`, which are not empty.
pub(crate) fn read(needed: Needed, chunks: &mut impl Chunks) -> Result<()> {
    let count = chunks.len();
    match needed {
        Needed::All => {
            chunks.read(0..count)?;
        }
        // A chunk has a sample at its start, so the last one has one in range, if it is not the only one.
        Needed::Newest => {
            chunks.read(count.saturating_sub(1)..count)?;
        }
        Needed::AnyLive => {
            let starts = (0..count).find(|i| chunks.starts_inside(*i));
            if let Some(i) = starts
                && chunks.first_live(i)?
            {
                return Ok(());
            }
            oldest(chunks, 0)?;
        }
        Needed::OldestLive => {
            if !(chunks.starts_inside(0) && chunks.first_live(0)?) {
                oldest(chunks, 0)?;
            }
        }
        Needed::NewestLive => {
            newest(chunks, 0)?;
        }
        Needed::LiveEnds => {
            let before = chunks.mark();
            let apart = count > 1 && chunks.starts_inside(0) && chunks.first_live(0)?;
            if !(apart && newest(chunks, 1)?) {
                chunks.forget(before);
                chunks.read(0..count)?;
            }
        }
    }
    Ok(())
}

/// Reads chunks from `from` on until one has a live sample.
fn oldest(chunks: &mut impl Chunks, from: usize) -> Result<()> {
    for i in from..chunks.len() {
        if chunks.read(i..i + 1)? {
            break;
        }
    }
    Ok(())
}

/// Reads the last chunks, but none before `from`, as many as it takes to have a live sample; says whether there is one.
fn newest(chunks: &mut impl Chunks, from: usize) -> Result<bool> {
    let (before, count) = (chunks.mark(), chunks.len());
    let mut back = 1;
    loop {
        let first = count.saturating_sub(back).max(from);
        if chunks.read(first..count)? {
            return Ok(true);
        }
        if first == from {
            return Ok(false);
        }
        chunks.forget(before);
        back *= 2;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use futures::StreamExt as _;
    use proptest::prelude::*;

    use super::*;
    use crate::{Db, DbOptions, Labels, ManualClock, Queryable, SelectHints, SeriesRef, is_stale, stale_nan};

    type Samples = Vec<(i64, u64)>;

    const SOME: [Needed; 5] =
        [Needed::Newest, Needed::AnyLive, Needed::OldestLive, Needed::NewestLive, Needed::LiveEnds];

    fn samples(source: &dyn Queryable, mint: i64, maxt: i64, needed: Needed) -> BTreeMap<Labels, Samples> {
        let mut out = BTreeMap::new();
        let hints = SelectHints { needed, ..SelectHints::default() };
        for mut partition in source.select(&[], mint, maxt, &hints).unwrap().partitions {
            while let Some(batch) = futures::executor::block_on(partition.next()) {
                let batch = batch.unwrap();
                for i in 0..batch.len() {
                    let (labels, times, values) = batch.series(i);
                    assert!(
                        times.is_sorted_by(|a, b| a < b) && times.iter().all(|t| (mint..=maxt).contains(t))
                    );
                    let samples = times.iter().copied().zip(values.iter().map(|v| v.to_bits())).collect();
                    assert!(out.insert(labels.clone(), samples).is_none());
                }
            }
        }
        out
    }

    /// What must be among the samples of a series.
    fn ends(needed: Needed, samples: &Samples) -> Vec<(i64, u64)> {
        let mut live = samples.iter().filter(|(_, v)| !is_stale(f64::from_bits(*v))).copied();
        match needed {
            Needed::All => samples.clone(),
            Needed::Newest => samples.last().copied().into_iter().collect(),
            // Which one is up to the source.
            Needed::AnyLive => Vec::new(),
            Needed::OldestLive => live.next().into_iter().collect(),
            Needed::NewestLive => live.next_back().into_iter().collect(),
            Needed::LiveEnds => [live.next(), live.next_back()].into_iter().flatten().collect(),
        }
    }

    fn is_live(samples: &Samples) -> bool {
        samples.iter().any(|(_, v)| !is_stale(f64::from_bits(*v)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn some_samples_of_blocks_and_head_are_those_that_are_needed(
            // Of each series, for how many samples it is live or marked stale in turn.
            runs in prop::collection::vec(prop::collection::vec(1usize..150, 1..12), 1..6),
            begins_stale in any::<bool>(), upkeep in any::<bool>(), late in any::<bool>(),
            ranges in prop::collection::vec((-100i64..900, 0i64..900), 6),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut options = DbOptions::new(dir.path());
            options.clock = Arc::new(ManualClock::new(4_000_000_000));
            options.block_range_ms = 200;
            options.out_of_order_window_ms = if late { 1000 } else { 0 };
            options.retention_ms = None;
            let db = Db::open(options).unwrap();
            for t in 0..800i64 {
                let mut appender = db.appender();
                for (i, runs) in runs.iter().enumerate() {
                    let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("i", i.to_string())]);
                    let mut left = t as usize;
                    let run = runs.iter().position(|run| left < *run || { left -= run; false });
                    let Some(run) = run else { continue };
                    let stale = (run % 2 == 0) == begins_stale;
                    let value = if stale { stale_nan() } else { t as f64 };
                    let _ = appender.append(SeriesRef(0), &labels, t, value);
                    if late && t % 97 == 90 {
                        let _ = appender.append(SeriesRef(0), &labels, t - 60, 1e6);
                    }
                }
                appender.commit().unwrap();
                if upkeep && t % 300 == 299 {
                    db.maintain().unwrap();
                }
            }
            for (mint, length) in ranges {
                let (mint, maxt) = (mint, mint + length);
                let all = samples(db.as_ref(), mint, maxt, Needed::All);
                for needed in SOME {
                    let some = samples(db.as_ref(), mint, maxt, needed);
                    for (labels, all) in &all {
                        let none = Samples::new();
                        let some = some.get(labels).unwrap_or(&none);
                        prop_assert!(some.iter().all(|s| all.contains(s)), "{needed:?}: {some:?} of {all:?}");
                        prop_assert!(needed == Needed::Newest || is_live(some) == is_live(all), "{needed:?}: {some:?}");
                        for end in ends(needed, all) {
                            prop_assert!(some.contains(&end), "{needed:?} [{mint}, {maxt}]: {end:?} is not in {some:?}");
                        }
                    }
                    prop_assert!(some.keys().all(|labels| all.contains_key(labels)));
                }
            }
        }
    }
}
