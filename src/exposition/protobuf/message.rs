//! The messages of `io.prometheus.client`.
//!
//! # Source
//! <https://github.com/prometheus/client_model/blob/v0.6.2/io/prometheus/client/metrics.proto>

use promontory_tsdb::histogram::Span;

use super::wire::{Fields, Result};

/// A `MetricFamily`; its metrics are still encoded.
#[derive(Debug, Default)]
pub(super) struct Family<'a> {
    pub(super) name: &'a [u8],
    pub(super) help: &'a [u8],
    pub(super) unit: &'a [u8],
    pub(super) kind: u64,
    pub(super) metrics: Vec<&'a [u8]>,
}

/// A `Metric`; its value is still encoded.
#[derive(Debug, Default)]
pub(super) struct Metric<'a> {
    pub(super) labels: Vec<(&'a [u8], &'a [u8])>,
    pub(super) timestamp_ms: i64,
    pub(super) gauge: &'a [u8],
    pub(super) counter: &'a [u8],
    pub(super) summary: &'a [u8],
    pub(super) untyped: &'a [u8],
    pub(super) histogram: &'a [u8],
}

#[derive(Debug, Default)]
pub(super) struct Simple<'a> {
    pub(super) value: f64,
    pub(super) exemplar: Option<Exemplar<'a>>,
}

#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) count: u64,
    pub(super) sum: f64,
    /// Quantile and value.
    pub(super) quantiles: Vec<(f64, f64)>,
}

#[derive(Debug, Default)]
pub(super) struct Histogram<'a> {
    pub(super) count: u64,
    pub(super) count_float: f64,
    pub(super) sum: f64,
    pub(super) buckets: Vec<Bucket<'a>>,
    pub(super) schema: i64,
    pub(super) zero_threshold: f64,
    pub(super) zero_count: u64,
    pub(super) zero_count_float: f64,
    pub(super) negative: Side,
    pub(super) positive: Side,
    pub(super) exemplars: Vec<Exemplar<'a>>,
}

/// Buckets on one side of zero.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) spans: Vec<Span>,
    pub(super) deltas: Vec<i64>,
    pub(super) counts: Vec<f64>,
}

#[derive(Debug, Default)]
pub(super) struct Bucket<'a> {
    pub(super) count: u64,
    pub(super) count_float: f64,
    pub(super) upper_bound: f64,
    pub(super) exemplar: Option<Exemplar<'a>>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Exemplar<'a> {
    pub(super) labels: Vec<(&'a [u8], &'a [u8])>,
    pub(super) value: f64,
    pub(super) timestamp_ms: Option<i64>,
}

impl<'a> Family<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut family = Self::default();
        for field in Fields(bytes) {
            let (number, value) = field?;
            match number {
                1 => family.name = value.bytes()?,
                2 => family.help = value.bytes()?,
                3 => family.kind = value.u64()?,
                4 => family.metrics.push(value.bytes()?),
                5 => family.unit = value.bytes()?,
                _ => {}
            }
        }
        Ok(family)
    }
}

impl<'a> Metric<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut metric = Self::default();
        for field in Fields(bytes) {
            let (number, value) = field?;
            match number {
                1 => metric.labels.push(read_label(value.bytes()?)?),
                2 => metric.gauge = value.bytes()?,
                3 => metric.counter = value.bytes()?,
                4 => metric.summary = value.bytes()?,
                5 => metric.untyped = value.bytes()?,
                6 => metric.timestamp_ms = value.i64()?,
                7 => metric.histogram = value.bytes()?,
                _ => {}
            }
        }
        Ok(metric)
    }
}

fn read_label(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let (mut name, mut text): (&[u8], &[u8]) = (&[], &[]);
    for field in Fields(bytes) {
        let (number, value) = field?;
        match number {
            1 => name = value.bytes()?,
            2 => text = value.bytes()?,
            _ => {}
        }
    }
    Ok((name, text))
}

impl<'a> Simple<'a> {
    /// A `Counter`, `Gauge` or `Untyped`.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut simple = Self::default();
        for field in Fields(bytes) {
            let (number, value) = field?;
            match number {
                1 => simple.value = value.f64()?,
                2 => simple.exemplar = Some(Exemplar::read(value.bytes()?)?),
                _ => {}
            }
        }
        Ok(simple)
    }
}

impl Summary {
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let mut summary = Self::default();
        for field in Fields(bytes) {
            let (number, value) = field?;
            match number {
                1 => summary.count = value.u64()?,
                2 => summary.sum = value.f64()?,
                3 => summary.quantiles.push(read_quantile(value.bytes()?)?),
                _ => {}
            }
        }
        Ok(summary)
    }
}

fn read_quantile(bytes: &[u8]) -> Result<(f64, f64)> {
    let (mut quantile, mut v) = (0.0, 0.0);
    for field in Fields(bytes) {
        let (number, value) = field?;
        match number {
            1 => quantile = value.f64()?,
            2 => v = value.f64()?,
            _ => {}
        }
    }
    Ok((quantile, v))
}

impl<'a> Histogram<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut h = Self::default();
        for field in Fields(bytes) {
            let (number, value) = field?;
            match number {
                1 => h.count = value.u64()?,
                2 => h.sum = value.f64()?,
                3 => h.buckets.push(Bucket::read(value.bytes()?)?),
                4 => h.count_float = value.f64()?,
                5 => h.schema = value.zigzag()?,
                6 => h.zero_threshold = value.f64()?,
                7 => h.zero_count = value.u64()?,
                8 => h.zero_count_float = value.f64()?,
                9 => h.negative.spans.push(read_span(value.bytes()?)?),
                10 => value.push_zigzags(&mut h.negative.deltas)?,
                11 => value.push_f64s(&mut h.negative.counts)?,
                12 => h.positive.spans.push(read_span(value.bytes()?)?),
                13 => value.push_zigzags(&mut h.positive.deltas)?,
                14 => value.push_f64s(&mut h.positive.counts)?,
                16 => h.exemplars.push(Exemplar::read(value.bytes()?)?),
                _ => {}
            }
        }
        Ok(h)
    }

    /// Whether it says more than its classic buckets do. A native histogram without observations shows
    /// itself by an empty span.
    pub(super) fn is_native(&self) -> bool {
        !self.positive.spans.is_empty()
            || !self.negative.spans.is_empty()
            || self.zero_threshold > 0.0
            || self.zero_count > 0
    }

    /// Whether counts are floats.
    pub(super) fn is_float(&self) -> bool {
        self.count_float > 0.0 || self.zero_count_float > 0.0
    }
}

fn read_span(bytes: &[u8]) -> Result<Span> {
    let mut span = Span { offset: 0, length: 0 };
    for field in Fields(bytes) {
        let (number, value) = field?;
        match number {
            1 => span.offset = i32::try_from(value.zigzag()?).map_err(|_| "span offset out of range")?,
            2 => span.length = u32::try_from(value.u64()?).map_err(|_| "span length out of range")?,
            _ => {}
        }
    }
    Ok(span)
}

impl<'a> Bucket<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut bucket = Self::default();
        for field in Fields(bytes) {
            let (number, value) = field?;
            match number {
                1 => bucket.count = value.u64()?,
                2 => bucket.upper_bound = value.f64()?,
                3 => bucket.exemplar = Some(Exemplar::read(value.bytes()?)?),
                4 => bucket.count_float = value.f64()?,
                _ => {}
            }
        }
        Ok(bucket)
    }
}

impl<'a> Exemplar<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut exemplar = Self::default();
        for field in Fields(bytes) {
            let (number, value) = field?;
            match number {
                1 => exemplar.labels.push(read_label(value.bytes()?)?),
                2 => exemplar.value = value.f64()?,
                3 => exemplar.timestamp_ms = Some(read_timestamp_ms(value.bytes()?)?),
                _ => {}
            }
        }
        Ok(exemplar)
    }
}

fn read_timestamp_ms(bytes: &[u8]) -> Result<i64> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    for field in Fields(bytes) {
        let (number, value) = field?;
        match number {
            1 => seconds = value.i64()?,
            2 => nanos = value.i64()?,
            _ => {}
        }
    }
    Ok(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}
