//! How samples of either kind are written and read, one against the other.

use std::borrow::Cow;
use std::fmt::Debug;

use super::super::bits::{BitReader, BitWriter};
use super::super::varbit::XorField;
use super::super::{ChunkError, Encoding};
use super::layout::{Layout, length};
use crate::histogram::{CounterResetHint, FloatHistogram, Histogram, HistogramValue, Span, absolute, deltas};
use crate::sample::{TimestampMs, is_stale};

/// One of the two kinds of histograms: [`IntegerCoder`] and [`FloatCoder`].
///
/// Holds what the next sample is stored against. Not to be implemented elsewhere.
#[expect(private_interfaces, reason = "what is not public is what nobody else may call")]
pub trait Coder: Sized + Clone + Debug + Default + sealed::Sealed {
    /// The histograms.
    type Value: Clone + Debug + Into<HistogramValue>;
    /// A count in a bucket.
    #[doc(hidden)]
    type Count: Copy + Debug + Default + PartialOrd;
    /// The encoding without and with start timestamps.
    const ENCODINGS: [Encoding; 2];
    /// Bits of a bucket in the first sample, at least.
    #[doc(hidden)]
    const BUCKET_BITS: usize;
    /// Bits of a first sample without buckets, at least, the layout included.
    #[doc(hidden)]
    const FIRST_BITS: usize;

    /// What both kinds of histograms have.
    #[doc(hidden)]
    fn shape(value: &Self::Value) -> Shape<'_>;
    /// Counts in buckets, positive or negative.
    #[doc(hidden)]
    fn counts(value: &Self::Value, positive: bool) -> impl Iterator<Item = Self::Count> + '_;
    /// Replaces the buckets of one side.
    #[doc(hidden)]
    fn set_side(value: &mut Self::Value, positive: bool, spans: Vec<Span>, counts: Option<Vec<Self::Count>>);
    /// A stale marker.
    #[doc(hidden)]
    fn stale() -> Self::Value;

    /// Sum of the newest sample.
    #[doc(hidden)]
    fn sum(&self) -> f64;
    /// Counts of the newest sample.
    #[doc(hidden)]
    fn newest(&self, positive: bool) -> impl Iterator<Item = Self::Count> + '_;
    /// Whether `value` has fewer observations in all, or fewer in the zero bucket, than the newest.
    #[doc(hidden)]
    fn fell(&self, value: &Self::Value) -> (bool, bool);
    /// Header of a chunk that is cut because a sample does not fit the one before.
    #[doc(hidden)]
    fn header_after_cut(header: CounterResetHint) -> CounterResetHint;
    /// Header of a chunk that is begun for other reasons, by what the sample is to the one before.
    #[doc(hidden)]
    fn header_of_next(header: CounterResetHint) -> CounterResetHint;

    #[doc(hidden)]
    fn write_first(&mut self, out: &mut BitWriter, t: TimestampMs, value: &Self::Value);
    #[doc(hidden)]
    fn write_next(&mut self, out: &mut BitWriter, t: TimestampMs, value: &Self::Value);
    #[doc(hidden)]
    fn read_first(&mut self, bits: &mut BitReader<'_>, layout: &Layout);
    #[doc(hidden)]
    fn read_next(&mut self, bits: &mut BitReader<'_>) -> Result<(), ChunkError>;
    /// Time of the newest sample.
    #[doc(hidden)]
    fn time(&self) -> TimestampMs;
    /// The newest sample, which must not be a stale marker.
    #[doc(hidden)]
    fn value(&self, layout: &Layout, hint: CounterResetHint) -> Self::Value;
    /// The newest sample with float counts, which must not be a stale marker.
    #[doc(hidden)]
    fn float_value(&self, layout: &Layout, hint: CounterResetHint) -> FloatHistogram;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::IntegerCoder {}
    impl Sealed for super::FloatCoder {}
}

/// What both kinds of histograms have.
#[derive(Debug)]
pub(super) struct Shape<'a> {
    pub(super) hint: CounterResetHint,
    pub(super) schema: i32,
    pub(super) zero_threshold: f64,
    pub(super) sum: f64,
    pub(super) positive: (&'a [Span], usize),
    pub(super) negative: (&'a [Span], usize),
    pub(super) custom_values: &'a [f64],
}

impl Shape<'_> {
    pub(super) fn layout(&self) -> Layout {
        Layout {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            positive: self.positive.0.to_vec(),
            negative: self.negative.0.to_vec(),
            custom_values: self.custom_values.to_vec(),
        }
    }

    pub(super) fn is_stale(&self) -> bool {
        is_stale(self.sum)
    }
}

macro_rules! shape {
    ($h:expr) => {
        Shape {
            hint: $h.counter_reset_hint,
            schema: $h.schema,
            zero_threshold: $h.zero_threshold,
            sum: $h.sum,
            positive: (&$h.positive_spans, $h.positive_buckets.len()),
            negative: (&$h.negative_spans, $h.negative_buckets.len()),
            custom_values: &$h.custom_values,
        }
    };
}

/// An integer that is stored as the change of its change.
#[derive(Debug, Clone, Copy, Default)]
struct Dod {
    value: i64,
    delta: i64,
}

impl Dod {
    fn write(&mut self, out: &mut BitWriter, value: i64) {
        let delta = value.wrapping_sub(self.value);
        out.put_varbit(delta.wrapping_sub(self.delta));
        *self = Self { value, delta };
    }

    #[inline]
    fn read(&mut self, bits: &mut BitReader<'_>) {
        self.delta = self.delta.wrapping_add(bits.varbit());
        self.value = self.value.wrapping_add(self.delta);
    }
}

/// Integer counts: times, counts and buckets as changes of changes. Buckets are differences already.
#[derive(Debug, Clone)]
pub struct IntegerCoder {
    t: Dod,
    count: Dod,
    zero_count: Dod,
    sum: XorField,
    positive: Vec<Dod>,
    negative: Vec<Dod>,
}

impl Default for IntegerCoder {
    fn default() -> Self {
        let none = Dod::default();
        let (positive, negative) = (Vec::new(), Vec::new());
        Self { t: none, count: none, zero_count: none, sum: XorField::new(0.0), positive, negative }
    }
}

#[expect(private_interfaces, reason = "as in the trait")]
impl Coder for IntegerCoder {
    type Value = Histogram;
    type Count = i64;
    const ENCODINGS: [Encoding; 2] = [Encoding::Histogram, Encoding::HistogramSt];
    const BUCKET_BITS: usize = 1;
    const FIRST_BITS: usize = 11 + 3 + 64;

    fn shape(value: &Histogram) -> Shape<'_> {
        shape!(value)
    }

    fn counts(value: &Histogram, positive: bool) -> impl Iterator<Item = i64> + '_ {
        absolute(if positive { &value.positive_buckets } else { &value.negative_buckets })
    }

    fn set_side(value: &mut Histogram, positive: bool, spans: Vec<Span>, counts: Option<Vec<i64>>) {
        let (to_spans, to_buckets) = if positive {
            (&mut value.positive_spans, &mut value.positive_buckets)
        } else {
            (&mut value.negative_spans, &mut value.negative_buckets)
        };
        *to_spans = spans;
        if let Some(counts) = counts {
            *to_buckets = deltas(counts).collect();
        }
    }

    fn stale() -> Histogram {
        Histogram::stale()
    }

    fn sum(&self) -> f64 {
        self.sum.value()
    }

    fn newest(&self, positive: bool) -> impl Iterator<Item = i64> + '_ {
        let mut count = 0i64;
        let buckets = if positive { &self.positive } else { &self.negative };
        buckets.iter().map(move |b| {
            count = count.wrapping_add(b.value);
            count
        })
    }

    fn fell(&self, value: &Histogram) -> (bool, bool) {
        (value.count < self.count.value as u64, value.zero_count < self.zero_count.value as u64)
    }

    fn header_after_cut(header: CounterResetHint) -> CounterResetHint {
        header
    }

    fn header_of_next(header: CounterResetHint) -> CounterResetHint {
        header
    }

    fn write_first(&mut self, out: &mut BitWriter, t: TimestampMs, h: &Histogram) {
        out.put_varbit(t);
        out.put_uvarbit(h.count);
        out.put_uvarbit(h.zero_count);
        out.put(h.sum.to_bits(), 64);
        let first = |value: i64| Dod { value, delta: 0 };
        self.t = first(t);
        self.count = first(h.count as i64);
        self.zero_count = first(h.zero_count as i64);
        self.sum = XorField::new(h.sum);
        for (to, buckets) in
            [(&mut self.positive, &h.positive_buckets), (&mut self.negative, &h.negative_buckets)]
        {
            buckets.iter().for_each(|b| out.put_varbit(*b));
            *to = buckets.iter().map(|b| first(*b)).collect();
        }
    }

    fn write_next(&mut self, out: &mut BitWriter, t: TimestampMs, h: &Histogram) {
        self.t.write(out, t);
        if is_stale(h.sum) {
            // Counts of a stale marker are not looked at; the zeros stand for no change.
            out.put(0b00, 2);
            return self.sum.write(out, h.sum);
        }
        self.count.write(out, h.count as i64);
        self.zero_count.write(out, h.zero_count as i64);
        self.sum.write(out, h.sum);
        self.positive.iter_mut().zip(&h.positive_buckets).for_each(|(f, b)| f.write(out, *b));
        self.negative.iter_mut().zip(&h.negative_buckets).for_each(|(f, b)| f.write(out, *b));
    }

    fn read_first(&mut self, bits: &mut BitReader<'_>, layout: &Layout) {
        let first = |value: i64| Dod { value, delta: 0 };
        self.t = first(bits.varbit());
        self.count = first(bits.uvarbit() as i64);
        self.zero_count = first(bits.uvarbit() as i64);
        self.sum = XorField::new(f64::from_bits(bits.take(64)));
        for (to, spans) in [(&mut self.positive, &layout.positive), (&mut self.negative, &layout.negative)] {
            to.clear();
            to.extend((0..length(spans)).map(|_| first(bits.varbit())));
        }
    }

    #[inline]
    fn read_next(&mut self, bits: &mut BitReader<'_>) -> Result<(), ChunkError> {
        self.t.read(bits);
        self.count.read(bits);
        self.zero_count.read(bits);
        self.sum.read(bits)?;
        if !is_stale(self.sum.value()) {
            self.positive.iter_mut().chain(&mut self.negative).for_each(|b| b.read(bits));
        }
        Ok(())
    }

    fn time(&self) -> TimestampMs {
        self.t.value
    }

    fn value(&self, layout: &Layout, hint: CounterResetHint) -> Histogram {
        let mut h = Histogram {
            counter_reset_hint: hint,
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            zero_count: self.zero_count.value as u64,
            count: self.count.value as u64,
            sum: self.sum.value(),
            positive_spans: layout.positive.clone(),
            negative_spans: layout.negative.clone(),
            positive_buckets: self.positive.iter().map(|b| b.value).collect(),
            negative_buckets: self.negative.iter().map(|b| b.value).collect(),
            custom_values: layout.custom_values.clone(),
        };
        // Cannot fail: spans were checked when the layout was read, and there is a bucket for each.
        drop(h.limit_resolution());
        h
    }

    fn float_value(&self, layout: &Layout, hint: CounterResetHint) -> FloatHistogram {
        let mut h = FloatHistogram {
            counter_reset_hint: hint,
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            zero_count: self.zero_count.value as u64 as f64,
            count: self.count.value as u64 as f64,
            sum: self.sum.value(),
            positive_spans: layout.positive.clone(),
            negative_spans: layout.negative.clone(),
            positive_buckets: self.newest(true).map(|c| c as f64).collect(),
            negative_buckets: self.newest(false).map(|c| c as f64).collect(),
            custom_values: layout.custom_values.clone(),
        };
        drop(h.limit_resolution());
        h
    }
}

/// Float counts: times as changes of changes, all else XORed with the sample before.
#[derive(Debug, Clone)]
pub struct FloatCoder {
    t: Dod,
    count: XorField,
    zero_count: XorField,
    sum: XorField,
    positive: Vec<XorField>,
    negative: Vec<XorField>,
}

impl Default for FloatCoder {
    fn default() -> Self {
        let none = XorField::new(0.0);
        let (positive, negative) = (Vec::new(), Vec::new());
        Self { t: Dod::default(), count: none, zero_count: none, sum: none, positive, negative }
    }
}

#[expect(private_interfaces, reason = "as in the trait")]
impl Coder for FloatCoder {
    type Value = FloatHistogram;
    type Count = f64;
    const ENCODINGS: [Encoding; 2] = [Encoding::FloatHistogram, Encoding::FloatHistogramSt];
    const BUCKET_BITS: usize = 64;
    const FIRST_BITS: usize = 11 + 1 + 3 * 64;

    fn shape(value: &FloatHistogram) -> Shape<'_> {
        shape!(value)
    }

    fn counts(value: &FloatHistogram, positive: bool) -> impl Iterator<Item = f64> + '_ {
        if positive { &value.positive_buckets } else { &value.negative_buckets }.iter().copied()
    }

    fn set_side(value: &mut FloatHistogram, positive: bool, spans: Vec<Span>, counts: Option<Vec<f64>>) {
        let (to_spans, to_buckets) = if positive {
            (&mut value.positive_spans, &mut value.positive_buckets)
        } else {
            (&mut value.negative_spans, &mut value.negative_buckets)
        };
        *to_spans = spans;
        if let Some(counts) = counts {
            *to_buckets = counts;
        }
    }

    fn stale() -> FloatHistogram {
        FloatHistogram::stale()
    }

    fn sum(&self) -> f64 {
        self.sum.value()
    }

    fn newest(&self, positive: bool) -> impl Iterator<Item = f64> + '_ {
        if positive { &self.positive } else { &self.negative }.iter().map(XorField::value)
    }

    fn fell(&self, value: &FloatHistogram) -> (bool, bool) {
        (value.count < self.count.value(), value.zero_count < self.zero_count.value())
    }

    // Compat: for float counts Prometheus knows resets only, and says "unknown" of a chunk that was cut
    // for another reason, "no reset" of any other.
    fn header_after_cut(header: CounterResetHint) -> CounterResetHint {
        match header {
            CounterResetHint::Reset => CounterResetHint::Reset,
            _ => CounterResetHint::Unknown,
        }
    }

    fn header_of_next(header: CounterResetHint) -> CounterResetHint {
        match header {
            CounterResetHint::Reset => CounterResetHint::Reset,
            _ => CounterResetHint::NotReset,
        }
    }

    fn write_first(&mut self, out: &mut BitWriter, t: TimestampMs, h: &FloatHistogram) {
        out.put_varbit(t);
        self.t = Dod { value: t, delta: 0 };
        let mut first = |v: f64| {
            out.put(v.to_bits(), 64);
            XorField::new(v)
        };
        self.count = first(h.count);
        self.zero_count = first(h.zero_count);
        self.sum = first(h.sum);
        self.positive = h.positive_buckets.iter().map(|b| first(*b)).collect();
        self.negative = h.negative_buckets.iter().map(|b| first(*b)).collect();
    }

    fn write_next(&mut self, out: &mut BitWriter, t: TimestampMs, h: &FloatHistogram) {
        let h = if is_stale(h.sum) { Cow::Owned(FloatHistogram::stale()) } else { Cow::Borrowed(h) };
        self.t.write(out, t);
        self.count.write(out, h.count);
        self.zero_count.write(out, h.zero_count);
        self.sum.write(out, h.sum);
        self.positive.iter_mut().zip(&h.positive_buckets).for_each(|(f, b)| f.write(out, *b));
        self.negative.iter_mut().zip(&h.negative_buckets).for_each(|(f, b)| f.write(out, *b));
    }

    fn read_first(&mut self, bits: &mut BitReader<'_>, layout: &Layout) {
        self.t = Dod { value: bits.varbit(), delta: 0 };
        let mut first = || XorField::new(f64::from_bits(bits.take(64)));
        self.count = first();
        self.zero_count = first();
        self.sum = first();
        self.positive = (0..length(&layout.positive)).map(|_| first()).collect();
        self.negative = (0..length(&layout.negative)).map(|_| first()).collect();
    }

    #[inline]
    fn read_next(&mut self, bits: &mut BitReader<'_>) -> Result<(), ChunkError> {
        self.t.read(bits);
        self.count.read(bits)?;
        self.zero_count.read(bits)?;
        self.sum.read(bits)?;
        if !is_stale(self.sum.value()) {
            self.positive.iter_mut().chain(&mut self.negative).try_for_each(|b| b.read(bits))?;
        }
        Ok(())
    }

    fn time(&self) -> TimestampMs {
        self.t.value
    }

    fn value(&self, layout: &Layout, hint: CounterResetHint) -> FloatHistogram {
        let mut h = FloatHistogram {
            counter_reset_hint: hint,
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            zero_count: self.zero_count.value(),
            count: self.count.value(),
            sum: self.sum.value(),
            positive_spans: layout.positive.clone(),
            negative_spans: layout.negative.clone(),
            positive_buckets: self.newest(true).collect(),
            negative_buckets: self.newest(false).collect(),
            custom_values: layout.custom_values.clone(),
        };
        // Cannot fail: spans were checked when the layout was read, and there is a bucket for each.
        drop(h.limit_resolution());
        h
    }

    fn float_value(&self, layout: &Layout, hint: CounterResetHint) -> FloatHistogram {
        self.value(layout, hint)
    }
}
