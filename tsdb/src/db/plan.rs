//! Decides what maintenance does; does nothing itself.

use crate::head::range_end;
use crate::sample::TimestampMs;

/// The range `[mint, maxt)` of the next block to cut from the head, if it is due.
///
/// `window` is the head's in-order `[min, max]`. Out-of-order samples get blocks of their own.
pub(super) fn next_cut(
    window: Option<(TimestampMs, TimestampMs)>,
    block_range_ms: i64,
) -> Option<(TimestampMs, TimestampMs)> {
    let (min, max) = window?;
    if max.saturating_sub(min) <= block_range_ms / 2 * 3 {
        return None;
    }
    Some((min, range_end(min, block_range_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_of_up_to_one_and_a_half_ranges_is_left_alone() {
        assert_eq!(next_cut(None, 100), None);
        assert_eq!(next_cut(Some((10, 160)), 100), None);
        assert_eq!(next_cut(Some((10, 161)), 100), Some((10, 100)));
    }

    #[test]
    fn a_block_ends_where_its_slot_ends() {
        assert_eq!(next_cut(Some((100, 300)), 100), Some((100, 200)));
        assert_eq!(next_cut(Some((-30, 200)), 100), Some((-30, 0)));
    }
}
