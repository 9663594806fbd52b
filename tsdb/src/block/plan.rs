//! Decides which blocks to merge next; does nothing itself.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/compact.go>, `LeveledCompactor.plan`.

use crate::meta::{HINT_OUT_OF_ORDER, HINT_SELECTED_SERIES, HINT_STALE_SERIES, Meta};

/// How many times longer each range is than the one before.
const RANGE_STEP: i64 = 3;
/// Number of ranges before those above the longest allowed are dropped.
const RANGES: u32 = 10;
/// Deleted intervals per series above which a large block is rewritten.
const TOMBSTONES_PER_SERIES: f64 = 0.05;

/// Lengths that blocks grow to, ms, ascending: `shortest`, then three times as long each, none above
/// `longest` (but `shortest` always).
pub fn ranges(shortest: i64, longest: i64) -> Vec<i64> {
    (0..RANGES)
        .map(|i| shortest.saturating_mul(RANGE_STEP.pow(i)))
        .enumerate()
        .take_while(|(i, range)| *i == 0 || *range <= longest)
        .map(|(_, range)| range)
        .collect()
}

/// Which of `metas` to merge into one block next, as indexes in order of their start; empty if none.
/// `ranges` are those of [`ranges()`].
///
/// Blocks that overlap come first. Else the newest block is left alone, and blocks that fill one of the
/// ranges, or lie in one that is over, are merged, short ranges first. Else a single block with many
/// deletions is chosen, to be written anew.
///
/// Blocks cut from a part of the head's series (hints `from-stale-series`, `from-selected-series`) are merged
/// only with their like. So are blocks of out-of-order samples that end after the newest whole view. Crash
/// safety: where the newest block that is a whole view ends, the log begins to count; a merge that took such a
/// block in would be one, and a restart would pass over what the head has not been cut of yet. Upstream does that.
pub fn plan(metas: &[Meta], ranges: &[i64]) -> Vec<usize> {
    let end = metas.iter().filter(|m| m.is_whole_view()).map(|m| m.max_time).max();
    let class = |hint: Option<&str>| -> Vec<usize> {
        (0..metas.len()).filter(|&i| partial_view(&metas[i], end) == hint).collect()
    };
    let planned = |hint: Option<&str>| match hint {
        // The head will soon be cut so far, and what is longer than its slots would have to wait.
        Some(HINT_OUT_OF_ORDER) => overlapping(metas, &by_start(metas, class(hint))),
        _ => plan_class(metas, class(hint), ranges),
    };
    // Whole views first, so that the others never keep them waiting.
    [None, Some(HINT_OUT_OF_ORDER), Some(HINT_STALE_SERIES), Some(HINT_SELECTED_SERIES)]
        .into_iter()
        .map(planned)
        .find(|chosen| !chosen.is_empty())
        .unwrap_or_default()
}

fn by_start(metas: &[Meta], mut class: Vec<usize>) -> Vec<usize> {
    class.sort_by_key(|&i| metas[i].min_time);
    class
}

/// The hint that keeps a block apart from others; `end` is that of the newest whole view.
fn partial_view(meta: &Meta, end: Option<i64>) -> Option<&'static str> {
    let hint = [HINT_STALE_SERIES, HINT_SELECTED_SERIES].into_iter().find(|hint| meta.has_hint(hint));
    let ahead = meta.has_hint(HINT_OUT_OF_ORDER) && end.is_none_or(|end| meta.max_time > end);
    hint.or(ahead.then_some(HINT_OUT_OF_ORDER))
}

fn plan_class(metas: &[Meta], class: Vec<usize>, ranges: &[i64]) -> Vec<usize> {
    let mut class = by_start(metas, class);
    let overlapping = overlapping(metas, &class);
    if !overlapping.is_empty() {
        return overlapping;
    }
    // The newest block was just cut: a whole block range to back it up before it becomes part of another.
    class.pop();
    let filled = filled_range(metas, &class, ranges);
    if !filled.is_empty() {
        return filled;
    }
    much_deleted(metas, &class, ranges).into_iter().collect()
}

/// The first run of blocks in which each overlaps what came before.
fn overlapping(metas: &[Meta], by_start: &[usize]) -> Vec<usize> {
    let mut out: Vec<usize> = Vec::new();
    let mut end = i64::MIN;
    let mut previous = None;
    for &i in by_start {
        let meta = &metas[i];
        match previous {
            Some(previous) if meta.min_time < end => {
                if out.is_empty() {
                    out.push(previous);
                }
                out.push(i);
            }
            Some(_) if !out.is_empty() => break,
            _ => {}
        }
        end = end.max(meta.max_time);
        previous = Some(i);
    }
    out
}

/// More than one block in an aligned range that they fill, or that is over.
fn filled_range(metas: &[Meta], by_start: &[usize], ranges: &[i64]) -> Vec<usize> {
    let Some(newest_start) = by_start.last().map(|&i| metas[i].min_time) else { return Vec::new() };
    for &range in ranges.iter().skip(1) {
        for group in split_by_range(metas, by_start, range) {
            let (Some(&first), Some(&last)) = (group.first(), group.last()) else { continue };
            if group.iter().any(|&i| metas[i].compaction.failed) {
                continue;
            }
            let (mint, maxt) = (metas[first].min_time, metas[last].max_time);
            if group.len() > 1 && (maxt.saturating_sub(mint) == range || maxt <= newest_start) {
                return group;
            }
        }
    }
    Vec::new()
}

/// Groups of blocks that lie in the same slot `[k·range, (k+1)·range)`; those in none are left out.
fn split_by_range(metas: &[Meta], by_start: &[usize], range: i64) -> Vec<Vec<usize>> {
    let mut out = Vec::new();
    let mut rest = by_start;
    while let Some(&first) = rest.first() {
        let start = metas[first].min_time.div_euclid(range).saturating_mul(range);
        let end = start.saturating_add(range);
        let n = rest.iter().take_while(|&&i| metas[i].max_time <= end).count();
        if n > 0 {
            out.push(rest[..n].to_vec());
        }
        rest = &rest[n.max(1)..];
    }
    out
}

/// A block that is worth to be written anew without what was deleted.
fn much_deleted(metas: &[Meta], by_start: &[usize], ranges: &[i64]) -> Option<usize> {
    let large = ranges.get(ranges.len() / 2).copied().unwrap_or(i64::MAX);
    for &i in by_start.iter().rev() {
        let meta = &metas[i];
        let (tombstones, series) = (meta.stats.num_tombstones, meta.stats.num_series);
        if meta.max_time.saturating_sub(meta.min_time) < large {
            // Wholly deleted blocks go whatever their length. Compat: as upstream, the first smaller block
            // ends the search.
            return (tombstones > 0 && tombstones >= series).then_some(i);
        }
        if tombstones as f64 / (series + 1) as f64 > TOMBSTONES_PER_SERIES {
            return Some(i);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    const RANGES: [i64; 5] = [20, 60, 180, 540, 1620];

    /// A block `[mint, maxt)`; the name is a number.
    fn block(name: u128, mint: i64, maxt: i64) -> Meta {
        Meta::new(Ulid(name), mint, maxt)
    }

    fn with_stats(mut meta: Meta, series: u64, tombstones: u64) -> Meta {
        (meta.stats.num_series, meta.stats.num_tombstones) = (series, tombstones);
        meta
    }

    fn with_hint(mut meta: Meta, hint: &str) -> Meta {
        meta.compaction.hints.push(hint.to_owned());
        meta
    }

    fn check(title: &str, metas: &[Meta], expected: &[u128]) {
        let chosen: Vec<u128> = plan(metas, &RANGES).into_iter().map(|i| metas[i].ulid.0).collect();
        assert_eq!(chosen, expected, "{title}");
    }

    fn blocks(of: &[(u128, i64, i64)]) -> Vec<Meta> {
        of.iter().map(|&(name, mint, maxt)| block(name, mint, maxt)).collect()
    }

    #[test]
    fn ranges_triple_up_to_the_longest() {
        let hour = 3_600_000;
        assert_eq!(ranges(2 * hour, 36 * hour), [2 * hour, 6 * hour, 18 * hour]);
        assert_eq!(ranges(2 * hour, hour), [2 * hour]);
        assert_eq!(ranges(1, i64::MAX).len(), 10);
        let default = ranges(2 * hour, 31 * 24 * hour);
        assert_eq!(default.last(), Some(&(486 * hour)));
    }

    /// The situations that upstream's own tests list.
    #[test]
    fn blocks_are_merged_when_upstream_merges_them() {
        check("one block", &blocks(&[(1, 0, 20)]), &[]);
        check("none", &[], &[]);
        check("not full yet", &blocks(&[(1, 0, 20), (2, 20, 40)]), &[]);
        check("full, but the third is the newest", &blocks(&[(1, 0, 20), (2, 20, 40), (3, 40, 60)]), &[]);
        let full = [(1, 0, 20), (2, 20, 40), (3, 40, 60), (4, 60, 80)];
        check("full", &blocks(&full), &[1, 2, 3]);
        check("a gap, and the newest in the next", &blocks(&[(1, 0, 20), (2, 20, 40), (3, 60, 80)]), &[]);
        let gap = [(1, 0, 20), (2, 20, 40), (3, 60, 80), (4, 80, 100)];
        check("a gap that is over", &blocks(&gap), &[1, 2]);
        let lengths = [(1, 0, 20), (2, 20, 40), (3, 40, 60), (4, 60, 120), (5, 120, 180)];
        check("short ranges first", &blocks(&lengths), &[1, 2, 3]);
        let mixed = [(2, 20, 40), (4, 60, 120), (5, 960, 980), (6, 120, 180), (7, 720, 960)];
        check("several lengths in one range that is over", &blocks(&mixed), &[2, 4, 6]);
        let unsorted = [(5, 0, 360), (6, 540, 560), (7, 360, 420), (8, 420, 540)];
        check("the newest is the one that begins last, whatever its name", &blocks(&unsorted), &[7, 8]);
    }

    #[test]
    fn large_blocks_with_many_deletions_are_written_anew() {
        check("not the newest", &[with_stats(block(1, 0, 540), 10, 3)], &[]);
        let newest = block(2, 540, 560);
        check("many", &[with_stats(block(1, 0, 540), 10, 3), newest.clone()], &[1]);
        check("few", &[with_stats(block(1, 0, 540), 100, 5), newest.clone()], &[]);
        check("no series, no deletions", &[with_stats(block(1, 0, 540), 0, 0), newest], &[]);
        check("a small block", &[with_stats(block(1, 0, 60), 10, 3), block(2, 60, 80)], &[]);
        check("a small block, wholly deleted", &[with_stats(block(1, 0, 60), 3, 3), block(2, 60, 80)], &[1]);
    }

    #[test]
    fn overlapping_blocks_come_first() {
        check("the first two", &blocks(&[(1, 0, 20), (2, 19, 40), (3, 40, 60)]), &[1, 2]);
        check("the newest too", &blocks(&[(1, 0, 20), (2, 20, 40), (3, 30, 50)]), &[2, 3]);
        check("a chain", &blocks(&[(1, 0, 20), (2, 10, 40), (3, 30, 50)]), &[1, 2, 3]);
        let long = [(5, 0, 360), (6, 340, 560), (7, 360, 420), (8, 420, 540)];
        check("one over several", &blocks(&long), &[5, 6, 7, 8]);
        let two = [(1, 0, 10), (2, 9, 20), (3, 30, 40), (4, 39, 50)];
        check("one chain at a time", &blocks(&two), &[1, 2]);
        let full = [(1, 0, 20), (2, 20, 40), (3, 40, 60), (4, 60, 80), (5, 70, 80)];
        check("before full ranges", &blocks(&full), &[4, 5]);
    }

    #[test]
    fn a_range_with_a_failed_block_is_left_alone() {
        for of in [
            vec![(1, 0, 20), (2, 20, 40), (3, 40, 60), (4, 60, 80)],
            vec![(1, 0, 20), (2, 20, 40), (3, 60, 80), (4, 80, 100)],
            vec![(1, 0, 20), (2, 20, 40), (3, 40, 60), (4, 60, 120), (5, 120, 180), (6, 180, 200)],
        ] {
            let mut metas = blocks(&of);
            assert!(!plan(&metas, &RANGES).is_empty());
            metas[1].compaction.failed = true;
            check("failed", &metas, &[]);
        }
    }

    #[test]
    fn blocks_of_a_part_of_the_series_stay_among_themselves() {
        let stale = |name, mint, maxt| with_hint(block(name, mint, maxt), HINT_STALE_SERIES);
        let stale_run = [stale(11, 0, 20), stale(12, 20, 40), stale(13, 40, 60), stale(14, 60, 80)];
        let mut mixed = blocks(&[(1, 0, 20), (2, 20, 40), (3, 40, 60), (4, 60, 80)]);
        mixed.push(stale(11, 0, 20));
        check("whole views first", &mixed, &[1, 2, 3]);
        check("a class of its own", &stale_run, &[11, 12, 13]);
        let mut waiting = stale_run.to_vec();
        waiting.push(block(1, 0, 20));
        check("when there is nothing else", &waiting, &[11, 12, 13]);
        let selected = [
            with_hint(block(21, 0, 20), HINT_SELECTED_SERIES),
            with_hint(block(22, 10, 20), HINT_SELECTED_SERIES),
            stale(11, 0, 20),
        ];
        check("classes overlap without harm", &selected, &[21, 22]);
    }

    #[test]
    fn late_blocks_wait_until_the_head_was_cut_so_far() {
        let late = |name, mint, maxt| with_hint(block(name, mint, maxt), HINT_OUT_OF_ORDER);
        let mut metas = blocks(&[(1, 0, 20), (2, 20, 40)]);
        metas.extend([late(11, 40, 60), late(12, 60, 80)]);
        check("they would fill a range", &metas, &[]);
        metas.push(late(13, 40, 60));
        check("with their like", &metas, &[11, 13]);
        metas.push(block(3, 40, 60));
        check("the head was cut", &metas, &[11, 13, 3]);
        check(
            "only late ones",
            &[late(11, 0, 20), late(12, 20, 40), late(13, 40, 60), late(14, 60, 80)],
            &[],
        );
    }

    #[test]
    fn ranges_are_aligned_also_before_the_epoch() {
        let groups = |range: i64, of: &[(i64, i64)]| -> Vec<Vec<(i64, i64)>> {
            let metas: Vec<Meta> = of.iter().map(|&(mint, maxt)| block(0, mint, maxt)).collect();
            let all: Vec<usize> = (0..metas.len()).collect();
            let of_group = |g: Vec<usize>| g.into_iter().map(|i| of[i]).collect();
            split_by_range(&metas, &all, range).into_iter().map(of_group).collect()
        };
        assert_eq!(groups(60, &[(0, 10), (9, 15), (30, 60)]), [vec![(0, 10), (9, 15), (30, 60)]]);
        assert_eq!(
            groups(60, &[(70, 90), (125, 130), (130, 180), (1000, 1001)]),
            [vec![(70, 90)], vec![(125, 130), (130, 180)], vec![(1000, 1001)]]
        );
        assert_eq!(groups(60, &[(50, 70), (70, 80)]), [vec![(70, 80)]], "one that crosses a border");
        assert_eq!(groups(72, &[(0, 144), (144, 216), (216, 288)]), [vec![(144, 216)], vec![(216, 288)]]);
        assert_eq!(
            groups(60, &[(-60, -50), (-10, -5), (0, 15)]),
            [vec![(-60, -50), (-10, -5)], vec![(0, 15)]]
        );
    }

    #[test]
    fn a_single_range_merges_nothing() {
        let metas = blocks(&[(1, 0, 20), (2, 20, 40), (3, 40, 60), (4, 60, 80)]);
        assert!(plan(&metas, &[20]).is_empty());
        assert!(plan(&metas, &[]).is_empty());
    }
}
