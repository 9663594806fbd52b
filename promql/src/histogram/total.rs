//! [`Total`]: the sum or the mean of several histograms, with all that is to be told about it.

use promontory_tsdb::histogram::{CounterResetHint, FloatHistogram};

use super::lanes::{Reader, decode, encode};
use super::layout::{Added, Incompatible, Kahan, Layout, Number};

/// A compensated sum of histograms; a mean once the sum would overflow.
#[derive(Debug, Clone, PartialEq)]
pub struct Total {
    layout: Layout<Kahan>,
    /// How many were added.
    count: f64,
    /// `layout` is the mean.
    is_mean: bool,
    /// What came up on the way.
    pub seen: Seen,
}

/// What came up in a [`Total`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// A histogram that follows a counter reset.
    pub reset: bool,
    /// A histogram that follows none.
    pub not_reset: bool,
    /// Custom bounds differed.
    pub reconciled: bool,
    /// Exponential and custom buckets: there is no result.
    pub incompatible: bool,
}

impl Seen {
    fn hint(&mut self, hint: CounterResetHint) {
        self.reset |= hint == CounterResetHint::Reset;
        self.not_reset |= hint == CounterResetHint::NotReset;
    }

    fn merge(&mut self, other: Self) {
        self.reset |= other.reset;
        self.not_reset |= other.not_reset;
        self.reconciled |= other.reconciled;
        self.incompatible |= other.incompatible;
    }

    /// Whether hints contradict each other.
    pub fn collision(self) -> bool {
        self.reset && self.not_reset
    }
}

impl Total {
    /// The total of `h` alone.
    pub fn of(h: &FloatHistogram) -> Self {
        let mut seen = Seen::default();
        seen.hint(h.counter_reset_hint);
        Self { layout: Layout::of(h), count: 1.0, is_mean: false, seen }
    }

    fn note(&mut self, added: Result<Added, Incompatible>) {
        match added {
            Ok(added) => self.seen.reconciled |= added.reconciled,
            Err(Incompatible) => self.seen.incompatible = true,
        }
    }

    /// Adds `h` to a sum.
    pub fn add_to_sum(&mut self, h: &FloatHistogram) {
        if self.seen.incompatible {
            return;
        }
        self.seen.hint(h.counter_reset_hint);
        self.count += 1.0;
        let added = self.layout.add(&Layout::of(h));
        self.note(added);
    }

    /// Adds `h` to a mean: the sum as long as it is finite, an incremental mean from there on.
    pub fn add_to_mean(&mut self, h: &FloatHistogram) {
        if self.seen.incompatible {
            return;
        }
        self.seen.hint(h.counter_reset_hint);
        self.count += 1.0;
        let other = Layout::<Kahan>::of(h);
        if !self.is_mean {
            let mut sum = self.layout.clone();
            let added = sum.add(&other);
            self.note(added);
            if self.seen.incompatible {
                return;
            }
            if !sum.has_overflow() {
                self.layout = sum;
                return;
            }
            self.become_mean(self.count - 1.0);
        }
        let (count, mut part) = (self.count, other);
        let q = (count - 1.0) / count;
        self.layout.scale(|v| v * q);
        part.scale(|v| v / count);
        let added = self.layout.add(&part);
        self.note(added);
    }

    fn become_mean(&mut self, count: f64) {
        if !self.is_mean {
            self.layout.scale(|v| v / count);
            self.is_mean = true;
        }
    }

    /// Takes what another sum took.
    pub fn merge_sum(&mut self, other: &Self) {
        self.seen.merge(other.seen);
        self.count += other.count;
        if !self.seen.incompatible {
            let added = self.layout.add(&other.layout);
            self.note(added);
        }
    }

    /// Takes what another mean took.
    pub fn merge_mean(&mut self, other: &Self) {
        self.seen.merge(other.seen);
        if self.seen.incompatible {
            return;
        }
        let count = self.count + other.count;
        if !self.is_mean && !other.is_mean {
            let mut sum = self.layout.clone();
            let added = sum.add(&other.layout);
            self.note(added);
            if self.seen.incompatible {
                return;
            }
            if !sum.has_overflow() {
                (self.layout, self.count) = (sum, count);
                return;
            }
        }
        let mut other = other.clone();
        self.become_mean(self.count);
        other.become_mean(other.count);
        let (own, others) = (self.count / count, other.count / count);
        self.layout.scale(|v| v * own);
        other.layout.scale(|v| v * others);
        let added = self.layout.add(&other.layout);
        self.note(added);
        self.count = count;
    }

    /// The sum; `None` if the histograms do not go together.
    pub fn sum(&self, compact: bool) -> Option<FloatHistogram> {
        (!self.seen.incompatible).then(|| self.layout.histogram(compact))
    }

    /// The mean; `None` if the histograms do not go together.
    pub fn mean(&self, compact: bool) -> Option<FloatHistogram> {
        if self.seen.incompatible {
            return None;
        }
        let mut mean = self.clone();
        mean.become_mean(self.count);
        Some(mean.layout.histogram(compact))
    }

    /// Appends an encoding: flags, number, sums and compensations as two histograms.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Seen { reset, not_reset, reconciled, incompatible } = self.seen;
        let flags = [reset, not_reset, reconciled, incompatible, self.is_mean];
        out.push(flags.iter().enumerate().fold(0, |all, (i, flag)| all | u8::from(*flag) << i));
        out.extend_from_slice(&self.count.to_le_bytes());
        let mut sums = Vec::new();
        encode(&self.part(|n| n.sum), &mut sums);
        out.extend_from_slice(&(sums.len() as u32).to_le_bytes());
        out.extend_from_slice(&sums);
        encode(&self.part(|n| n.c), out);
    }

    fn part(&self, of: impl Fn(Kahan) -> f64) -> FloatHistogram {
        let cells = |cells: &[(i32, Kahan)]| cells.iter().map(|(i, n)| (*i, of(*n))).collect();
        let Layout { hint, schema, zero_threshold, .. } = self.layout;
        let layout = Layout::<f64> {
            hint,
            schema,
            zero_threshold,
            zero: of(self.layout.zero),
            count: of(self.layout.count),
            sum: of(self.layout.sum),
            positive: cells(&self.layout.positive),
            negative: cells(&self.layout.negative),
            custom_values: self.layout.custom_values.clone(),
        };
        layout.histogram(false)
    }

    /// Reads what [`Total::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        let [flags] = r.take::<1>()?;
        let flag = |i: u8| flags >> i & 1 == 1;
        let count = r.f64()?;
        let length = r.u32()? as usize;
        let (sums, c) = r.0.split_at_checked(length)?;
        let (mut layout, c) = (Layout::<Kahan>::of(&decode(sums)?), Layout::<f64>::of(&decode(c)?));
        let put = |n: &mut Kahan, c: f64| n.c = c;
        put(&mut layout.zero, c.zero);
        put(&mut layout.count, c.count);
        put(&mut layout.sum, c.sum);
        for (cells, cs) in [(&mut layout.positive, &c.positive), (&mut layout.negative, &c.negative)] {
            for ((_, n), (_, c)) in cells.iter_mut().zip(cs) {
                put(n, c.total());
            }
        }
        let seen = Seen { reset: flag(0), not_reset: flag(1), reconciled: flag(2), incompatible: flag(3) };
        Some(Self { layout, count, is_mean: flag(4), seen })
    }
}
