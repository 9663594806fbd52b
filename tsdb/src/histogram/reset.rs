//! Whether a counter reset lies between two histograms.
//!
//! Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/model/histogram/float_histogram.go>,
//! `DetectReset`.

use super::bounds::{coarser_index, exponential_bound, is_valid_schema, same_bounds, upper_bound};
use super::buckets::indexed;
use super::{CUSTOM_SCHEMA, CounterResetHint, FloatHistogram, Span};

impl FloatHistogram {
    /// Whether counts were reset between `previous` and this histogram.
    ///
    /// A hint that says so, or says not, is believed. Otherwise it is a reset if any count (not the
    /// sum) fell, a populated bucket is gone, resolution rose, or the zero threshold fell. A zero
    /// threshold that rose takes in buckets of `previous`; if it cuts through a populated one, that
    /// is a reset. Hints of gauges are passed over.
    pub fn detect_reset(&self, previous: &Self) -> bool {
        match self.counter_reset_hint {
            CounterResetHint::Reset => return true,
            CounterResetHint::NotReset => return false,
            CounterResetHint::Unknown | CounterResetHint::Gauge => {}
        }
        if self.count < previous.count {
            return true;
        }
        if self.has_custom_bounds() {
            if !previous.has_custom_bounds() {
                return true;
            }
            if !same_bounds(&self.custom_values, &previous.custom_values) {
                return self.fell_between_common_bounds(previous);
            }
        }
        if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let (zero_count, threshold) = previous.zero_count_for_larger_threshold(self.zero_threshold);
        #[expect(clippy::float_cmp, reason = "a threshold that was moved is another one")]
        if threshold != self.zero_threshold || self.zero_count < zero_count {
            return true;
        }
        let fell = |now: (&[Span], &[f64]), before: (&[Span], &[f64])| {
            let walk = |(spans, counts), schema| Merged::new(spans, counts, schema, self);
            any_fell(walk(now, self.schema), walk(before, previous.schema))
        };
        fell(
            (&self.positive_spans, &self.positive_buckets),
            (&previous.positive_spans, &previous.positive_buckets),
        ) || fell(
            (&self.negative_spans, &self.negative_buckets),
            (&previous.negative_spans, &previous.negative_buckets),
        )
    }

    /// What the zero count would be if the zero threshold were `threshold`, which must not be less
    /// than it is. A threshold that would cut through a populated bucket moves out to its far end;
    /// the answer is the count and that threshold.
    #[expect(clippy::float_cmp, reason = "the threshold is the same or it is not")]
    pub fn zero_count_for_larger_threshold(&self, threshold: f64) -> (f64, f64) {
        let mut threshold = threshold;
        if threshold == self.zero_threshold {
            return (self.zero_count, threshold);
        }
        'again: loop {
            let mut count = self.zero_count;
            for b in self.iter_positive().take_while(|b| b.lower < threshold) {
                count += b.count;
                if b.upper > threshold {
                    if b.count != 0.0 {
                        threshold = b.upper;
                    }
                    break;
                }
            }
            for b in self.iter_negative().take_while(|b| b.upper > -threshold) {
                count += b.count;
                if b.lower < -threshold {
                    if b.count != 0.0 {
                        // What was done with the positive buckets holds no more.
                        threshold = -b.lower;
                        continue 'again;
                    }
                    break;
                }
            }
            return (count, threshold);
        }
    }

    /// Whether any count fell, of two histograms with different custom bounds, looking at the bounds
    /// that both have.
    #[expect(clippy::float_cmp, reason = "a bound is common or it is not")]
    fn fell_between_common_bounds(&self, previous: &Self) -> bool {
        let bound = |bounds: &[f64], i: usize| bounds.get(i).copied().unwrap_or(f64::INFINITY);
        let (ours, theirs) = (&*self.custom_values, &*previous.custom_values);
        let (mut now, mut before) = (Rollup::new(self), Rollup::new(previous));
        let (mut i, mut j) = (0, 0);
        while i <= ours.len() && j <= theirs.len() {
            let (a, b) = (bound(ours, i), bound(theirs, j));
            if a == b {
                if now.up_to(a) < before.up_to(a) {
                    return true;
                }
                (i, j) = (i + 1, j + 1);
            } else if a < b {
                i += 1;
            } else {
                j += 1;
            }
        }
        false
    }
}

/// Sums buckets with custom bounds from bound to bound.
struct Rollup<'a> {
    buckets: std::iter::Peekable<Box<dyn Iterator<Item = (f64, f64)> + 'a>>,
}

impl<'a> Rollup<'a> {
    fn new(h: &'a FloatHistogram) -> Self {
        let buckets = indexed(&h.positive_spans, &h.positive_buckets)
            .map(|(i, count)| (upper_bound(i, CUSTOM_SCHEMA, &h.custom_values), count));
        let buckets: Box<dyn Iterator<Item = _>> = Box::new(buckets);
        Self { buckets: buckets.peekable() }
    }

    fn up_to(&mut self, bound: f64) -> f64 {
        let mut sum = 0.0;
        while let Some((_, count)) = self.buckets.next_if(|(upper, _)| *upper <= bound) {
            sum += count;
        }
        sum
    }
}

/// Buckets brought to the schema of another histogram, without those inside its zero bucket.
struct Merged<'a> {
    buckets: std::iter::Peekable<super::Indexed<'a>>,
    from: i32,
    to: i32,
    /// Buckets up to here are left out, until the first one beyond is met.
    skip_to: Option<f64>,
}

impl<'a> Merged<'a> {
    fn new(spans: &'a [Span], counts: &'a [f64], schema: i32, like: &FloatHistogram) -> Self {
        let skip_to =
            (like.zero_threshold != 0.0 && is_valid_schema(like.schema) && !like.has_custom_bounds())
                .then_some(like.zero_threshold);
        Self { buckets: indexed(spans, counts).peekable(), from: schema, to: like.schema, skip_to }
    }

    fn merged(&mut self) -> Option<(i32, f64)> {
        let (from, to) = (self.from, self.to);
        if from == to {
            return self.buckets.next();
        }
        let (index, mut sum) = self.buckets.next()?;
        let index = coarser_index(index, from, to);
        while let Some((_, count)) = self.buckets.next_if(|(i, _)| coarser_index(*i, from, to) == index) {
            sum += count;
        }
        Some((index, sum))
    }
}

impl Iterator for Merged<'_> {
    type Item = (i32, f64);

    fn next(&mut self) -> Option<(i32, f64)> {
        loop {
            let bucket = self.merged()?;
            match self.skip_to {
                Some(threshold) if exponential_bound(bucket.0, self.to) <= threshold => {}
                _ => {
                    self.skip_to = None;
                    return Some(bucket);
                }
            }
        }
    }
}

/// Whether a populated bucket of `before` is not in `now`, or has a lower count there.
fn any_fell(now: Merged<'_>, before: Merged<'_>) -> bool {
    let mut now = now.peekable();
    for (index, count) in before {
        while now.next_if(|(i, _)| *i < index).is_some() {}
        let fell = match now.peek() {
            Some((i, c)) if *i == index => *c < count,
            _ => count != 0.0,
        };
        if fell {
            return true;
        }
    }
    false
}
