//! [`Layout`]: a histogram whose buckets can be added to, with plain or compensated counts.
//!
//! Two histograms may differ in resolution (the coarser one wins), in the width of the zero bucket
//! (the wider one wins, grown to a bucket bound) or in custom bounds (those that both have win).
//! Only exponential and custom buckets do not go together.

use promontory_tsdb::histogram::{
    CUSTOM_SCHEMA, CounterResetHint, FloatHistogram, Span, coarser_index, indexed, same_bounds, upper_bound,
};

use crate::kernels::kahan;

/// One histogram has exponential, the other one custom buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incompatible;

/// What is to be told after an addition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Added {
    /// One histogram says that it follows a counter reset, the other one that it does not.
    pub collision: bool,
    /// Custom bounds differed.
    pub reconciled: bool,
}

/// A count that can be added to.
pub trait Number: Copy + Default {
    /// From a plain float.
    fn of(v: f64) -> Self;
    /// The sum.
    #[must_use]
    fn plus(self, other: Self) -> Self;
    /// The number with the other sign.
    #[must_use]
    fn negated(self) -> Self;
    /// As a plain float.
    fn total(self) -> f64;
    /// Whether nothing is in it.
    fn is_zero(self) -> bool;
}

impl Number for f64 {
    fn of(v: f64) -> Self {
        v
    }

    fn plus(self, other: Self) -> Self {
        self + other
    }

    fn negated(self) -> Self {
        -self
    }

    fn total(self) -> f64 {
        self
    }

    fn is_zero(self) -> bool {
        self == 0.0
    }
}

/// A compensated sum.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Kahan {
    /// The sum.
    pub sum: f64,
    /// What it lacks.
    pub c: f64,
}

impl Number for Kahan {
    fn of(sum: f64) -> Self {
        Self { sum, c: 0.0 }
    }

    fn plus(self, other: Self) -> Self {
        let (mut sum, mut c) = kahan::inc(other.sum, self.sum, self.c);
        if other.c != 0.0 {
            (sum, c) = kahan::inc(other.c, sum, c);
        }
        Self { sum, c }
    }

    fn negated(self) -> Self {
        Self { sum: -self.sum, c: -self.c }
    }

    fn total(self) -> f64 {
        self.sum + self.c
    }

    fn is_zero(self) -> bool {
        self.sum == 0.0 && self.c == 0.0
    }
}

impl Kahan {
    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Self { sum: f(self.sum), c: f(self.c) }
    }
}

/// Buckets of one side: indexes ascend.
pub type Cells<N> = Vec<(i32, N)>;

/// A histogram with buckets as pairs of index and count.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout<N> {
    /// As in the model.
    pub hint: CounterResetHint,
    /// As in the model.
    pub schema: i32,
    /// As in the model.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero: N,
    /// Observations.
    pub count: N,
    /// Sum of observations.
    pub sum: N,
    /// Positive or custom buckets.
    pub positive: Cells<N>,
    /// Negative buckets.
    pub negative: Cells<N>,
    /// Bounds of custom buckets.
    pub custom_values: Vec<f64>,
}

impl<N: Number> Layout<N> {
    /// The layout of `h`.
    pub fn of(h: &FloatHistogram) -> Self {
        let cells = |spans: &[Span], counts: &[f64]| -> Cells<N> {
            indexed(spans, counts).map(|(i, n)| (i, N::of(n))).collect()
        };
        let custom = h.has_custom_bounds();
        Self {
            hint: h.counter_reset_hint,
            schema: h.schema,
            zero_threshold: if custom { 0.0 } else { h.zero_threshold },
            zero: N::of(if custom { 0.0 } else { h.zero_count }),
            count: N::of(h.count),
            sum: N::of(h.sum),
            positive: cells(&h.positive_spans, &h.positive_buckets),
            negative: if custom { Vec::new() } else { cells(&h.negative_spans, &h.negative_buckets) },
            custom_values: if custom { h.custom_values.clone() } else { Vec::new() },
        }
    }

    /// The histogram; `compact` leaves empty buckets out.
    pub fn histogram(&self, compact: bool) -> FloatHistogram {
        let side = |cells: &Cells<N>| {
            spans(cells.iter().map(|(i, n)| (*i, n.total())).filter(|(_, n)| !compact || *n != 0.0))
        };
        let (positive_spans, positive_buckets) = side(&self.positive);
        let (negative_spans, negative_buckets) = side(&self.negative);
        FloatHistogram {
            counter_reset_hint: self.hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero.total(),
            count: self.count.total(),
            sum: self.sum.total(),
            positive_spans,
            negative_spans,
            positive_buckets,
            negative_buckets,
            custom_values: self.custom_values.clone(),
        }
    }

    fn is_custom(&self) -> bool {
        self.schema == CUSTOM_SCHEMA
    }

    /// Adds `other`.
    ///
    /// # Errors
    /// [`Incompatible`]; the receiver is as before then.
    pub fn add(&mut self, other: &Self) -> Result<Added, Incompatible> {
        self.combine(other, false)
    }

    /// Subtracts `other`. Hints are handled as in an addition.
    ///
    /// # Errors
    /// [`Incompatible`]; the receiver is as before then.
    pub fn sub(&mut self, other: &Self) -> Result<Added, Incompatible> {
        self.combine(other, true)
    }

    fn combine(&mut self, other: &Self, negative: bool) -> Result<Added, Incompatible> {
        if self.is_custom() != other.is_custom() {
            return Err(Incompatible);
        }
        let (hint, collision) = combine_hints(self.hint, other.hint);
        self.hint = hint;
        let signed = |n: N| if negative { n.negated() } else { n };
        let mut added = Added { collision, reconciled: false };
        if !self.is_custom() {
            let zero = self.reconcile_zero(other);
            self.zero = self.zero.plus(signed(zero));
        }
        self.count = self.count.plus(signed(other.count));
        self.sum = self.sum.plus(signed(other.sum));
        if self.is_custom() && !same_bounds(&self.custom_values, &other.custom_values) {
            added.reconciled = true;
            let bounds = shared_bounds(&self.custom_values, &other.custom_values);
            let mut target = vec![N::default(); bounds.len() + 1];
            map_to_bounds(&self.positive, &self.custom_values, &bounds, |n| n, &mut target);
            map_to_bounds(&other.positive, &other.custom_values, &bounds, signed, &mut target);
            self.positive = (0..).zip(target).filter(|(_, n)| !n.is_zero()).collect();
            self.custom_values = bounds;
            return Ok(added);
        }
        if other.schema < self.schema {
            self.reduce_resolution(other.schema);
        }
        let threshold = self.zero_threshold;
        let (schema, custom) = (self.schema, self.is_custom());
        for (own, others) in [(&mut self.positive, &other.positive), (&mut self.negative, &other.negative)] {
            let coarse = reduce(others, other.schema, schema);
            // What lies below the threshold is in the zero count already.
            let below = coarse
                .iter()
                .take_while(|(i, _)| !custom && upper_bound(*i, schema, &[]) <= threshold)
                .count();
            *own = merge(own, coarse[below..].iter().map(|(i, n)| (*i, signed(*n))));
        }
        Ok(added)
    }

    /// Sinks to `schema`, which is not above the present one.
    pub fn reduce_resolution(&mut self, schema: i32) {
        self.positive = reduce(&self.positive, self.schema, schema);
        self.negative = reduce(&self.negative, self.schema, schema);
        self.schema = schema;
    }

    /// Widens the zero bucket as far as `other` makes it necessary; gives what `other` has in it then.
    fn reconcile_zero(&mut self, other: &Self) -> N {
        let (mut zero, mut threshold) = (other.zero, other.zero_threshold);
        while self.zero_threshold < threshold || threshold < self.zero_threshold {
            if self.zero_threshold > threshold {
                (zero, threshold) = other.zero_for_threshold(self.zero_threshold);
            }
            if threshold > self.zero_threshold {
                (self.zero, self.zero_threshold) = self.zero_for_threshold(threshold);
                self.trim_zero();
            }
        }
        zero
    }

    /// The zero count if the zero bucket reached to `threshold` or, where a populated bucket stands
    /// across it, to the end of that bucket; and how far that is.
    pub fn zero_for_threshold(&self, mut threshold: f64) -> (N, f64) {
        if threshold <= self.zero_threshold {
            return (self.zero, threshold);
        }
        loop {
            let mut zero = self.zero;
            self.absorb(&self.positive, &mut threshold, &mut zero);
            // A negative bucket that moves the threshold may take in more of the positive side.
            if !self.absorb(&self.negative, &mut threshold, &mut zero) {
                return (zero, threshold);
            }
        }
    }

    /// Adds the buckets below `threshold` to `zero`; `true` if one of them moved the threshold.
    fn absorb(&self, cells: &Cells<N>, threshold: &mut f64, zero: &mut N) -> bool {
        for (i, n) in cells {
            let bound = |i: i32| upper_bound(i, self.schema, &[]);
            let (lower, upper) = (bound(i.wrapping_sub(1)), bound(*i));
            if lower >= *threshold {
                return false;
            }
            *zero = zero.plus(*n);
            if upper > *threshold {
                if n.is_zero() {
                    return false;
                }
                *threshold = upper;
                return true;
            }
        }
        false
    }

    /// Drops buckets that the zero bucket covers, and empty ones.
    fn trim_zero(&mut self) {
        let (schema, threshold) = (self.schema, self.zero_threshold);
        for cells in [&mut self.positive, &mut self.negative] {
            cells.retain(|(i, n)| !n.is_zero() && upper_bound(i.wrapping_sub(1), schema, &[]) >= threshold);
        }
    }
}

impl Layout<Kahan> {
    /// Applies `f`, a multiplication or division, to all counts and the sum.
    pub fn scale(&mut self, f: impl Fn(f64) -> f64 + Copy) {
        self.zero = self.zero.map(f);
        self.count = self.count.map(f);
        self.sum = self.sum.map(f);
        for (_, n) in self.positive.iter_mut().chain(&mut self.negative) {
            *n = n.map(f);
        }
    }

    /// Whether a count or the sum has become infinite.
    pub fn has_overflow(&self) -> bool {
        let cells = self.positive.iter().chain(&self.negative).map(|(_, n)| *n);
        [self.zero, self.count, self.sum].into_iter().chain(cells).any(|n| n.sum.is_infinite())
            || self.custom_values.iter().any(|v| v.is_infinite())
    }
}

/// The hint of a sum, and whether the hints contradict each other.
fn combine_hints(a: CounterResetHint, b: CounterResetHint) -> (CounterResetHint, bool) {
    use CounterResetHint as H;
    match (a, b) {
        (a, b) if a == b => (a, false),
        (H::Gauge, _) | (_, H::Gauge) => (H::Gauge, false),
        (H::Unknown, _) | (_, H::Unknown) => (H::Unknown, false),
        _ => (H::Unknown, true),
    }
}

/// The buckets of schema `to` that take in `cells` of schema `from`.
pub fn reduce<N: Number>(cells: &Cells<N>, from: i32, to: i32) -> Cells<N> {
    if from == to {
        return cells.clone();
    }
    let mut out: Cells<N> = Vec::with_capacity(cells.len());
    for (i, n) in cells {
        let index = coarser_index(*i, from, to);
        match out.last_mut().filter(|(last, _)| *last == index) {
            Some((_, sum)) => *sum = sum.plus(*n),
            None => out.push((index, *n)),
        }
    }
    out
}

/// `a` and `b` together.
fn merge<N: Number>(a: &Cells<N>, b: impl Iterator<Item = (i32, N)>) -> Cells<N> {
    let mut out = Vec::with_capacity(a.len());
    let mut rest = a.iter().copied().peekable();
    for (index, n) in b {
        while let Some(cell) = rest.next_if(|(i, _)| *i < index) {
            out.push(cell);
        }
        match rest.next_if(|(i, _)| *i == index) {
            Some((_, own)) => out.push((index, own.plus(n))),
            None => out.push((index, n)),
        }
    }
    out.extend(rest);
    out
}

/// Bounds that are in both lists.
#[expect(clippy::float_cmp, reason = "bounds are equal or not")]
pub fn shared_bounds(a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut others = b.iter().peekable();
    let in_both = |v: &&f64| {
        while others.next_if(|o| *o < *v).is_some() {}
        others.peek().is_some_and(|o| **o == **v)
    };
    a.iter().filter(in_both).copied().collect()
}

/// Adds each bucket to the bucket of `target` that holds all of it.
pub fn map_to_bounds<N: Number>(
    cells: &Cells<N>,
    bounds: &[f64],
    target_bounds: &[f64],
    signed: impl Fn(N) -> N,
    target: &mut [N],
) {
    for (index, n) in cells {
        let upper = upper_bound(*index, CUSTOM_SCHEMA, bounds);
        let at = target_bounds.partition_point(|b| *b < upper);
        if let Some(slot) = target.get_mut(at) {
            *slot = slot.plus(signed(*n));
        }
    }
}

/// Spans and counts of cells.
pub fn spans(cells: impl Iterator<Item = (i32, f64)>) -> (Vec<Span>, Vec<f64>) {
    let (mut spans, mut counts) = (Vec::<Span>::new(), Vec::new());
    let mut next = 0_i32;
    for (index, count) in cells {
        let offset = index.wrapping_sub(next);
        match spans.last_mut() {
            Some(span) if offset == 0 => span.length += 1,
            _ => spans.push(Span { offset, length: 1 }),
        }
        counts.push(count);
        next = index.wrapping_add(1);
    }
    (spans, counts)
}

/// `a + b`, empty buckets included.
///
/// # Errors
/// [`Incompatible`]
pub fn add(a: &FloatHistogram, b: &FloatHistogram) -> Result<(FloatHistogram, Added), Incompatible> {
    let mut sum = Layout::<f64>::of(a);
    let added = sum.add(&Layout::of(b))?;
    Ok((sum.histogram(false), added))
}

/// `a - b`, empty buckets included. The hint is that of a sum.
///
/// # Errors
/// [`Incompatible`]
pub fn sub(a: &FloatHistogram, b: &FloatHistogram) -> Result<(FloatHistogram, Added), Incompatible> {
    let mut difference = Layout::<f64>::of(a);
    let added = difference.sub(&Layout::of(b))?;
    Ok((difference.histogram(false), added))
}

/// Multiplies all counts and the sum by `factor`; a negative one makes a gauge.
pub fn multiply(h: &mut FloatHistogram, factor: f64) {
    each_count(h, |v| v * factor);
    if factor < 0.0 {
        h.counter_reset_hint = CounterResetHint::Gauge;
    }
}

/// Divides all counts and the sum by `divisor`; a negative one makes a gauge, and 0 leaves no bucket.
pub fn divide(h: &mut FloatHistogram, divisor: f64) {
    each_count(h, |v| v / divisor);
    if divisor == 0.0 {
        h.positive_spans.clear();
        h.positive_buckets.clear();
        h.negative_spans.clear();
        h.negative_buckets.clear();
    } else if divisor < 0.0 {
        h.counter_reset_hint = CounterResetHint::Gauge;
    }
}

fn each_count(h: &mut FloatHistogram, f: impl Fn(f64) -> f64) {
    for v in [&mut h.zero_count, &mut h.count, &mut h.sum] {
        *v = f(*v);
    }
    for v in h.positive_buckets.iter_mut().chain(&mut h.negative_buckets) {
        *v = f(*v);
    }
}
