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
