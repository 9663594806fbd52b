//! Decides what maintenance does; does nothing itself.

use crate::head::range_end;
use crate::sample::TimestampMs;

/// The range `[mint, maxt)` of the next block to cut from the head, if it is due.
///
/// `window` is the head's in-order `[min, max]`. Older out-of-order samples get blocks of their own.
pub(super) fn next_cut(
    window: Option<(TimestampMs, TimestampMs)>,
    ooo_min: Option<TimestampMs>,
    block_range_ms: i64,
) -> Option<(TimestampMs, TimestampMs)> {
    let (min, max) = window?;
    if max.saturating_sub(min) <= block_range_ms / 2 * 3 {
        return None;
    }
    let mint = ooo_min.map_or(min, |o| o.min(min));
    Some((mint, range_end(mint, block_range_ms)))
}

/// Which of `blocks` (`[mint, maxt)` each) are older than `retention_ms` before the newest end.
pub(super) fn expired(blocks: &[(TimestampMs, TimestampMs)], retention_ms: Option<i64>) -> Vec<usize> {
    let (Some(retention_ms), Some(newest)) = (retention_ms, blocks.iter().map(|b| b.1).max()) else {
        return Vec::new();
    };
    (0..blocks.len()).filter(|i| newest.saturating_sub(blocks[*i].1) >= retention_ms).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_of_up_to_one_and_a_half_ranges_is_left_alone() {
        assert_eq!(next_cut(None, None, 100), None);
        assert_eq!(next_cut(Some((10, 160)), None, 100), None);
        assert_eq!(next_cut(Some((10, 161)), None, 100), Some((10, 100)));
    }

    #[test]
    fn a_block_ends_where_its_slot_ends() {
        assert_eq!(next_cut(Some((100, 300)), None, 100), Some((100, 200)));
        assert_eq!(next_cut(Some((-30, 200)), None, 100), Some((-30, 0)));
    }

    #[test]
    fn out_of_order_samples_before_the_window_go_first() {
        assert_eq!(next_cut(Some((210, 400)), Some(50), 100), Some((50, 100)));
        assert_eq!(next_cut(Some((210, 400)), Some(250), 100), Some((210, 300)));
    }

    #[test]
    fn retention_counts_from_the_end_of_the_newest_block() {
        let blocks = [(0, 100), (100, 200), (200, 300)];
        assert_eq!(expired(&blocks, Some(200)), vec![0]);
        assert_eq!(expired(&blocks, Some(201)), Vec::<usize>::new());
        assert_eq!(expired(&blocks, None), Vec::<usize>::new());
    }
}
