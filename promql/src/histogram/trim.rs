//! The operators `</` and `>/`: observations above or below a value are taken out.

use promontory_tsdb::histogram::{Bucket, FloatHistogram};

use super::stats::fraction_below;

/// Which observations stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Those up to the value: `</`.
    Below,
    /// Those from the value on: `>/`.
    Above,
}

/// Takes out the observations of `h` on the wrong side of `limit`. Buckets across it are split by
/// interpolation. If anything was taken out, count and sum are estimated anew from the buckets.
pub fn trim(h: &mut FloatHistogram, limit: f64, keep: Keep) {
    let custom = h.has_custom_bounds();
    let mut left = Left::default();
    let positive: Vec<_> = h.iter_positive().collect();
    let negative: Vec<_> = h.iter_negative().collect();
    let mut populated = [false; 2];
    for (side, buckets) in [&positive, &negative].into_iter().enumerate() {
        let counts = if side == 0 { &mut h.positive_buckets } else { &mut h.negative_buckets };
        for (bucket, count) in buckets.iter().zip(counts).filter(|(bucket, _)| bucket.count != 0.0) {
            populated[side] = true;
            *count = left.take(*bucket, limit, keep, side == 0, custom);
        }
    }
    if h.zero_count > 0.0 && !custom {
        let mut bucket = h.zero_bucket();
        match populated {
            [false, true] => bucket.upper = 0.0,
            [true, false] => bucket.lower = 0.0,
            _ => {}
        }
        let (kept, middle) = zero_bucket(bucket, limit, keep);
        left.trimmed |= differs(kept, h.zero_count);
        h.zero_count = kept;
        left.sum += middle * kept;
        left.count += kept;
    }
    if left.trimmed {
        h.count = left.count;
        h.sum = left.sum;
        h.compact(0);
    }
}

/// What is left so far.
#[derive(Debug, Default)]
struct Left {
    count: f64,
    sum: f64,
    trimmed: bool,
}

#[expect(clippy::float_cmp, reason = "whether anything changed at all")]
fn differs(a: f64, b: f64) -> bool {
    a != b
}

impl Left {
    /// Gives what is left of `bucket`.
    fn take(&mut self, bucket: Bucket, limit: f64, keep: Keep, positive: bool, linear: bool) -> f64 {
        let Bucket { lower, upper, count, .. } = bucket;
        let (inside, across) = match keep {
            Keep::Below => (upper <= limit, lower < limit),
            Keep::Above => (lower >= limit, upper > limit),
        };
        let (kept, middle) = if inside {
            (count, midpoint(lower, upper, positive, linear))
        } else if across {
            split(bucket, limit, keep, positive, linear)
        } else {
            self.trimmed = true;
            return 0.0;
        };
        self.count += kept;
        self.sum += middle * kept;
        self.trimmed |= differs(kept, count);
        kept
    }
}

/// What is left of a bucket across `limit`, and where the middle of it is.
fn split(bucket: Bucket, limit: f64, keep: Keep, positive: bool, linear: bool) -> (f64, f64) {
    let Bucket { lower, upper, count, .. } = bucket;
    if lower == f64::NEG_INFINITY || upper == f64::INFINITY {
        return split_unbounded(bucket, limit, keep);
    }
    let below = if limit <= lower {
        0.0
    } else if limit >= upper {
        count
    } else {
        count * fraction_below(bucket, limit, linear)
    };
    match keep {
        Keep::Below => (below, midpoint(lower, limit, positive, linear)),
        Keep::Above => (count - below, midpoint(limit, upper, positive, linear)),
    }
}

/// [`split`] where a bound is infinite: a first bucket is taken to begin at 0, if it can; otherwise
/// such buckets stay or go as a whole.
fn split_unbounded(bucket: Bucket, limit: f64, keep: Keep) -> (f64, f64) {
    let Bucket { lower, upper, count, .. } = bucket;
    let finite = |v: f64| if v.is_infinite() { 0.0 } else { v };
    if lower == f64::NEG_INFINITY {
        return match keep {
            Keep::Below if limit >= upper => (count, 0.0),
            Keep::Below if limit > 0.0 && upper > 0.0 && upper != f64::INFINITY => {
                (count * limit / upper, limit / 2.0)
            }
            Keep::Below if upper <= 0.0 => (count, limit),
            Keep::Above if limit <= lower => (count, 0.0),
            Keep::Above if limit >= 0.0 && upper > limit && upper != f64::INFINITY => {
                (count * (1.0 - limit / upper), f64::midpoint(limit, upper))
            }
            _ => (0.0, finite(upper)),
        };
    }
    match keep {
        Keep::Above if limit >= lower => (count, limit),
        _ => (0.0, finite(lower)),
    }
}

/// What is left of the zero bucket, and where the middle of it is.
fn zero_bucket(bucket: Bucket, limit: f64, keep: Keep) -> (f64, f64) {
    let Bucket { lower, upper, count, .. } = bucket;
    let all = (count, f64::midpoint(lower, upper));
    match keep {
        Keep::Below if limit <= lower => (0.0, 0.0),
        Keep::Below if limit >= upper => all,
        Keep::Below => (count * ((limit - lower) / (upper - lower)), f64::midpoint(lower, limit)),
        Keep::Above if limit <= lower => all,
        Keep::Above if limit >= upper => (0.0, 0.0),
        Keep::Above => (count * ((upper - limit) / (upper - lower)), f64::midpoint(limit, upper)),
    }
}

/// The middle of an interval: geometric for exponential buckets.
fn midpoint(lower: f64, upper: f64, positive: bool, linear: bool) -> f64 {
    match (lower.is_infinite(), upper.is_infinite()) {
        (true, true) => 0.0,
        (true, false) => {
            if upper > 0.0 {
                upper / 2.0
            } else {
                upper
            }
        }
        (false, true) => lower,
        (false, false) if linear => f64::midpoint(lower, upper),
        (false, false) => {
            let mean = (lower * upper).abs().sqrt();
            if positive { mean } else { -mean }
        }
    }
}
