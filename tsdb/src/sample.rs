//! Samples, timestamps, series references and the stale marker.

/// Milliseconds since the Unix epoch. API text is in seconds.
pub type TimestampMs = i64;

/// One value of one series at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Timestamp, ms since the epoch.
    pub t: TimestampMs,
    /// Value; a stale marker is one exact NaN, see [`is_stale`].
    pub v: f64,
}

/// Reference to a head series: what an append returns and takes back to skip the label lookup.
///
/// Zero means "not known". References are never reused while a data directory lives; they are the
/// `ref` of series records in the write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SeriesRef(pub u64);

/// Bit pattern of the stale marker.
///
/// Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/model/value/value.go>
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Bit pattern to which every scraped NaN is brought, so that no target can forge a stale marker.
pub const NORMAL_NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

/// The stale marker: "this series has ended".
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether `v` is the stale marker, compared by bits; every other NaN is a value.
#[inline]
pub fn is_stale(v: f64) -> bool {
    v.to_bits() == STALE_NAN_BITS
}

/// Whether each time is less than the next.
///
/// For chunks just decoded: faster than stopping at the first that is not, and than comparing, for which baseline
/// x86-64 has no vector instruction.
pub(crate) fn ascend(times: &[TimestampMs]) -> bool {
    let next = times.get(1..).unwrap_or_default();
    let distances = times.iter().zip(next).map(|(a, b)| b.wrapping_sub(*a).wrapping_sub(1).cast_unsigned());
    let bits = distances.fold(0, |bits, distance| bits | distance);
    if bits >> 32 == 0 && times.len() < 1 << 30 {
        // No distance is 0 or more than 2^32, all are less than 2^62: times that went around are below the first.
        return times.first() <= times.last();
    }
    times.is_sorted_by(|a, b| a < b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::ascend;

    proptest! {
        #[test]
        fn times_ascend_if_each_is_less_than_the_next(
            first in prop_oneof![any::<i64>(), i64::MAX - 9..=i64::MAX, Just(i64::MIN)],
            distances in prop::collection::vec(prop_oneof![20 => 1i64..9, 2 => 1i64..1 << 34, 1 => -1i64..1, 1 => any::<i64>()], 0..12),
        ) {
            let mut times = vec![first];
            times.extend(distances.iter().scan(first, |t, d| { *t = t.wrapping_add(*d); Some(*t) }));
            for times in [&times[..], &times[1..]] {
                prop_assert_eq!(ascend(times), times.is_sorted_by(|a, b| a < b), "{:?}", times);
            }
        }
    }
}
