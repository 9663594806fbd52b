//! [`ProtobufPage`]: a page in the protobuf format, the one that carries native histograms.
//!
//! A body is a run of length-prefixed `io.prometheus.client.MetricFamily` messages. It is read as a whole
//! into entries like those of a text page: summaries and classic histograms become series with magic
//! suffixes and labels. The key of a series ([`Series::text`]) is its name and labels between bytes that
//! occur in no UTF-8 text.
//!
//! # Invariants
//! No input panics; memory is a small multiple of the body.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/model/textparse/protobufparse.go>. Differences: a NaN
//! is the one normal NaN, as on text pages; classic histograms are not converted to custom buckets; start
//! timestamps are not read.

mod message;
mod wire;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use promontory_tsdb::histogram::{CounterResetHint, FloatHistogram, Histogram, HistogramValue, Span};
use promontory_tsdb::sample::NORMAL_NAN_BITS;
use promontory_tsdb::{Labels, LabelsBuilder, METRIC_NAME};

use super::metadata::MetricType;
use super::number::format_open_metrics_float;
use super::parser::{Entry, ParseError, ParsedExemplar, Series, SeriesForm};
use super::quote;
use message::{Exemplar, Family, Metric, Side, Simple, Summary};

/// Between the parts of a key; not a byte of UTF-8.
const SEPARATOR: u8 = 0xff;

/// How to read histograms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProtobufOptions {
    /// Whether native histograms are read as such, rather than by their classic buckets.
    pub native_histograms: bool,
    /// Whether classic buckets are read beside native ones.
    pub classic_beside_native: bool,
}

/// A page that was read.
#[derive(Debug, Default)]
pub struct ProtobufPage<'a> {
    items: Vec<Item<'a>>,
    /// Keys, one after the other.
    keys: Vec<u8>,
    exemplars: Vec<ParsedExemplar>,
}

#[derive(Debug)]
enum Item<'a> {
    Metadata(Entry<'a>),
    Sample(Sample),
}

#[derive(Debug)]
struct Sample {
    key: Range<usize>,
    value: SampleValue,
    timestamp_ms: Option<i64>,
    exemplars: Range<usize>,
}

#[derive(Debug)]
enum SampleValue {
    Float(f64),
    Histogram(HistogramValue),
}

impl<'a> ProtobufPage<'a> {
    /// Reads `body`.
    ///
    /// # Errors
    /// What is wrong with it, in upstream's words where it has any; without a line.
    pub fn parse(mut body: &'a [u8], options: ProtobufOptions) -> Result<Self, ParseError> {
        let mut page = Self::default();
        while !body.is_empty() {
            let family = wire::take_delimited(&mut body).and_then(Family::read).map_err(damaged)?;
            if !family.metrics.is_empty() {
                page.family(&family, options).map_err(|reason| ParseError { line: 0, reason })?;
            }
        }
        Ok(page)
    }

    /// The entries in order, each with its exemplars.
    pub fn entries(&self) -> impl Iterator<Item = (Entry<'_>, &[ParsedExemplar])> {
        self.items.iter().map(|item| match item {
            Item::Metadata(entry) => (entry.clone(), &[][..]),
            Item::Sample(sample) => (self.entry(sample), &self.exemplars[sample.exemplars.clone()]),
        })
    }

    fn entry(&self, sample: &Sample) -> Entry<'_> {
        let value = match sample.value {
            SampleValue::Float(v) => v,
            SampleValue::Histogram(_) => 0.0,
        };
        let series = Series {
            text: &self.keys[sample.key.clone()],
            value,
            timestamp_ms: sample.timestamp_ms,
            form: SeriesForm::Protobuf,
            metric_type: MetricType::Unknown,
            at: 0,
        };
        match &sample.value {
            SampleValue::Float(_) => Entry::Series(series),
            SampleValue::Histogram(histogram) => Entry::Histogram(series, histogram.clone()),
        }
    }

    fn family(&mut self, family: &Family<'a>, options: ProtobufOptions) -> Result<(), String> {
        let name = std::str::from_utf8(family.name).ok().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| format!("invalid metric name: {}", quote(family.name)))?;
        if std::str::from_utf8(family.help).is_err() {
            return Err(format!("invalid help for metric {}: {}", quote(family.name), quote(family.help)));
        }
        let metric_type = match family.kind {
            0 => MetricType::Counter,
            1 => MetricType::Gauge,
            2 => MetricType::Summary,
            3 => MetricType::Unknown,
            4 => MetricType::Histogram,
            5 => MetricType::GaugeHistogram,
            kind => return Err(format!("unknown metric type for metric {}: {kind}", quote(family.name))),
        };
        let metric = family.name;
        self.items.push(Item::Metadata(Entry::Help { metric, text: Cow::Borrowed(family.help) }));
        if !family.unit.is_empty() {
            self.items.push(Item::Metadata(Entry::Unit { metric, unit: family.unit }));
        }
        self.items.push(Item::Metadata(Entry::Type { metric, metric_type }));
        for bytes in &family.metrics {
            self.metric(name, metric_type, bytes, options)?;
        }
        Ok(())
    }

    fn metric(
        &mut self,
        name: &str,
        metric_type: MetricType,
        bytes: &[u8],
        options: ProtobufOptions,
    ) -> Result<(), String> {
        let metric = Metric::read(bytes).map_err(wire_error)?;
        for (label, value) in &metric.labels {
            if !std::str::from_utf8(label).is_ok_and(|label| !label.is_empty()) {
                return Err(format!("invalid label name: {}", quote(label)));
            }
            if std::str::from_utf8(value).is_err() {
                return Err(format!("invalid label value: {}", quote(value)));
            }
        }
        let simple = match metric_type {
            MetricType::Counter => metric.counter,
            MetricType::Gauge => metric.gauge,
            MetricType::Summary => return self.summary(name, &metric),
            MetricType::Histogram | MetricType::GaugeHistogram => {
                return self.histogram(name, metric_type, &metric, options);
            }
            MetricType::Unknown | MetricType::Info | MetricType::StateSet => metric.untyped,
        };
        let simple = Simple::read(simple).map_err(wire_error)?;
        let exemplar = simple.exemplar.filter(|_| metric_type == MetricType::Counter);
        self.float(&metric, [name, ""], None, simple.value, exemplar)
    }

    fn summary(&mut self, name: &str, metric: &Metric<'_>) -> Result<(), String> {
        let summary = Summary::read(metric.summary).map_err(wire_error)?;
        self.float(metric, [name, "_count"], None, summary.count as f64, None)?;
        self.float(metric, [name, "_sum"], None, summary.sum, None)?;
        for (quantile, value) in summary.quantiles {
            self.float(metric, [name, ""], Some(("quantile", quantile)), value, None)?;
        }
        Ok(())
    }

    fn histogram(
        &mut self,
        name: &str,
        metric_type: MetricType,
        metric: &Metric<'_>,
        options: ProtobufOptions,
    ) -> Result<(), String> {
        let mut h = message::Histogram::read(metric.histogram).map_err(wire_error)?;
        if !(options.native_histograms && h.is_native()) {
            return self.classic(name, metric, &h);
        }
        let key = self.key(metric, [name, ""], None);
        let exemplars = self.native_exemplars(&h)?;
        let value =
            native(&mut h, metric_type).map_err(|e| format!("histogram {}: {e}", quote(name.as_bytes())))?;
        self.push(metric, key, SampleValue::Histogram(value), exemplars);
        if options.classic_beside_native && !h.buckets.is_empty() {
            return self.classic(name, metric, &h);
        }
        Ok(())
    }

    fn classic(&mut self, name: &str, metric: &Metric<'_>, h: &message::Histogram<'_>) -> Result<(), String> {
        let either = |float: f64, integer: u64| if float == 0.0 { integer as f64 } else { float };
        let count = either(h.count_float, h.count);
        self.float(metric, [name, "_count"], None, count, None)?;
        self.float(metric, [name, "_sum"], None, h.sum, None)?;
        let mut is_closed = false;
        for bucket in &h.buckets {
            let value = either(bucket.count_float, bucket.count);
            let bound = Some(("le", bucket.upper_bound));
            self.float(metric, [name, "_bucket"], bound, value, bucket.exemplar.clone())?;
            is_closed = bucket.upper_bound == f64::INFINITY;
            if is_closed {
                break;
            }
        }
        if !is_closed {
            self.float(metric, [name, "_bucket"], Some(("le", f64::INFINITY)), count, None)?;
        }
        Ok(())
    }

    /// Exemplars of a native histogram: its own, or if it has none those of its classic buckets; in any
    /// case only those with a timestamp.
    fn native_exemplars(&mut self, h: &message::Histogram<'_>) -> Result<Range<usize>, String> {
        let start = self.exemplars.len();
        let classic = || h.buckets.iter().filter_map(|b| b.exemplar.as_ref());
        let with_time = |e: &&Exemplar<'_>| e.timestamp_ms.is_some();
        let found: Vec<&Exemplar<'_>> = match h.exemplars.is_empty() {
            true => classic().filter(with_time).collect(),
            false => h.exemplars.iter().filter(with_time).collect(),
        };
        for exemplar in found {
            let exemplar = parsed(exemplar)?;
            self.exemplars.push(exemplar);
        }
        self.exemplars[start..].sort_by(|a, b| {
            a.timestamp_ms
                .cmp(&b.timestamp_ms)
                .then(a.value.total_cmp(&b.value))
                .then_with(|| a.labels.cmp(&b.labels))
        });
        Ok(start..self.exemplars.len())
    }

    fn float(
        &mut self,
        metric: &Metric<'_>,
        name: [&str; 2],
        magic: Option<(&str, f64)>,
        value: f64,
        exemplar: Option<Exemplar<'_>>,
    ) -> Result<(), String> {
        let key = self.key(metric, name, magic);
        let start = self.exemplars.len();
        if let Some(exemplar) = exemplar {
            let exemplar = parsed(&exemplar)?;
            self.exemplars.push(exemplar);
        }
        let value = if value.is_nan() { f64::from_bits(NORMAL_NAN_BITS) } else { value };
        let exemplars = start..self.exemplars.len();
        self.push(metric, key, SampleValue::Float(value), exemplars);
        Ok(())
    }

    fn push(&mut self, metric: &Metric<'_>, key: Range<usize>, value: SampleValue, exemplars: Range<usize>) {
        // Compat: zero is "none"; the format cannot tell.
        let timestamp_ms = Some(metric.timestamp_ms).filter(|t| *t != 0);
        self.items.push(Item::Sample(Sample { key, value, timestamp_ms, exemplars }));
    }

    fn key(&mut self, metric: &Metric<'_>, name: [&str; 2], magic: Option<(&str, f64)>) -> Range<usize> {
        let start = self.keys.len();
        for part in name {
            self.keys.extend_from_slice(part.as_bytes());
        }
        let mut put = |label: &[u8], value: &[u8]| {
            for part in [label, value] {
                self.keys.push(SEPARATOR);
                self.keys.extend_from_slice(part);
            }
        };
        for (label, value) in &metric.labels {
            put(label, value);
        }
        if let Some((label, bound)) = magic {
            put(label.as_bytes(), format_open_metrics_float(bound).as_bytes());
        }
        start..self.keys.len()
    }
}

/// Adds what a key says to `builder`.
///
/// # Errors
/// If a label occurs twice.
pub(super) fn labels_into(key: &[u8], builder: &mut LabelsBuilder) -> Result<(), ParseError> {
    let mut parts = key.split(|b| *b == SEPARATOR).map(String::from_utf8_lossy);
    builder.set(METRIC_NAME, &parts.next().unwrap_or_default());
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        if builder.get(&name).is_some() {
            let reason = format!("label name {} is not unique", quote(name.as_bytes()));
            return Err(ParseError { line: 0, reason });
        }
        builder.set(&name, &value);
    }
    Ok(())
}

fn damaged(reason: &'static str) -> ParseError {
    ParseError { line: 0, reason: wire_error(reason) }
}

fn wire_error(reason: &'static str) -> String {
    format!("protobuf: {reason}")
}

fn parsed(exemplar: &Exemplar<'_>) -> Result<ParsedExemplar, String> {
    let mut builder = LabelsBuilder::default();
    for (name, value) in &exemplar.labels {
        let text = |bytes| {
            std::str::from_utf8(bytes)
                .map_err(|_| format!("invalid UTF-8 in exemplar label {}", quote(bytes)))
        };
        builder.set(text(name)?, text(value)?);
    }
    let labels: Labels = builder.build();
    Ok(ParsedExemplar { labels, value: exemplar.value, timestamp_ms: exemplar.timestamp_ms })
}

/// Takes the native part out of a message.
fn native(h: &mut message::Histogram<'_>, metric_type: MetricType) -> Result<HistogramValue, String> {
    let is_float = h.is_float();
    let populated = |side: &Side| if is_float { side.counts.len() } else { side.deltas.len() };
    check_spans("positive", &h.positive.spans, populated(&h.positive))?;
    check_spans("negative", &h.negative.spans, populated(&h.negative))?;
    let counter_reset_hint = match metric_type {
        MetricType::GaugeHistogram => CounterResetHint::Gauge,
        _ => CounterResetHint::Unknown,
    };
    let schema = i32::try_from(h.schema).map_err(|_| "schema out of range".to_owned())?;
    let (positive, negative) = (std::mem::take(&mut h.positive), std::mem::take(&mut h.negative));
    if is_float {
        let mut histogram = FloatHistogram {
            counter_reset_hint,
            schema,
            zero_threshold: h.zero_threshold,
            zero_count: h.zero_count_float,
            count: h.count_float,
            sum: h.sum,
            positive_spans: positive.spans,
            negative_spans: negative.spans,
            positive_buckets: positive.counts,
            negative_buckets: negative.counts,
            custom_values: Vec::new(),
        };
        histogram.compact(0);
        return Ok(HistogramValue::Float(Arc::new(histogram)));
    }
    let mut histogram = Histogram {
        counter_reset_hint,
        schema,
        zero_threshold: h.zero_threshold,
        zero_count: h.zero_count,
        count: h.count,
        sum: h.sum,
        positive_spans: positive.spans,
        negative_spans: negative.spans,
        positive_buckets: positive.deltas,
        negative_buckets: negative.deltas,
        custom_values: Vec::new(),
    };
    histogram.compact(0);
    Ok(HistogramValue::Integer(Arc::new(histogram)))
}

fn check_spans(side: &str, spans: &[Span], populated: usize) -> Result<(), String> {
    let wanted: u64 = spans.iter().map(|s| u64::from(s.length)).sum();
    if wanted != populated as u64 {
        return Err(format!("{side} side: spans require {wanted} buckets, have {populated}"));
    }
    Ok(())
}
