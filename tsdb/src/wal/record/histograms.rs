//! Native histograms: exponential (7, 8) and with custom bounds (9, 10), integer and float; and the form
//! with start timestamps, which holds both (12 integer, 13 float).
//!
//! # Schemas
//! As upstream, exponential schemas 9..=52, which a later Prometheus may log, are brought down to 8 when
//! they are read; unknown schemas are skipped. Unlike upstream, a histogram whose spans do not fit its
//! buckets is skipped too, instead of ending the log there.

use std::sync::Arc;

use super::{body, kind, put_start, take_start};
use crate::encoding::{Cursor, DecodeError, put_be_f64, put_be64, put_uvarint, put_varint};
use crate::histogram::{
    CUSTOM_SCHEMA, CounterResetHint, FloatHistogram, Histogram, HistogramValue, Span, is_known_schema,
};
use crate::sample::{SeriesRef, TimestampMs};

/// A native histogram of a referenced series.
#[derive(Debug, Clone, PartialEq)]
pub struct RefHistogramSample {
    /// Which series.
    pub series: SeriesRef,
    /// Timestamp, ms.
    pub t: TimestampMs,
    /// When counting began, ms; 0 if that is not known.
    pub start_timestamp: TimestampMs,
    /// The histogram.
    pub value: HistogramValue,
}

/// Which record a histogram goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistogramRecord {
    /// Integer, exponential (type 7).
    Integer,
    /// Float, exponential (type 8).
    Float,
    /// Integer, custom bounds (type 9).
    CustomInteger,
    /// Float, custom bounds (type 10).
    CustomFloat,
    /// Integer with start timestamp (type 12).
    IntegerV2,
    /// Float with start timestamp (type 13).
    FloatV2,
}

impl HistogramRecord {
    fn type_byte(self) -> u8 {
        match self {
            Self::Integer => kind::HISTOGRAMS,
            Self::Float => kind::FLOAT_HISTOGRAMS,
            Self::CustomInteger => kind::CUSTOM_HISTOGRAMS,
            Self::CustomFloat => kind::CUSTOM_FLOAT_HISTOGRAMS,
            Self::IntegerV2 => kind::HISTOGRAMS_V2,
            Self::FloatV2 => kind::FLOAT_HISTOGRAMS_V2,
        }
    }

    /// Whether histograms of this flavour are in such records.
    fn has_flavour(self, value: &HistogramValue) -> bool {
        let float = matches!(self, Self::Float | Self::CustomFloat | Self::FloatV2);
        float == matches!(value, HistogramValue::Float(_))
    }

    fn takes(self, value: &HistogramValue) -> bool {
        let custom = match value {
            HistogramValue::Integer(h) => h.schema == CUSTOM_SCHEMA,
            HistogramValue::Float(h) => h.schema == CUSTOM_SCHEMA,
        };
        self.has_flavour(value)
            && match self {
                Self::Integer | Self::Float => !custom,
                Self::CustomInteger | Self::CustomFloat => custom,
                Self::IntegerV2 | Self::FloatV2 => true,
            }
    }
}

/// The records that a batch of histograms becomes, in the order in which upstream logs them: integer,
/// custom integer, float, custom float.
pub fn histogram_records(samples: &[RefHistogramSample], start_timestamps: bool) -> Vec<Vec<u8>> {
    use HistogramRecord::{CustomFloat, CustomInteger, Float, FloatV2, Integer, IntegerV2};
    let forms: &[HistogramRecord] =
        if start_timestamps { &[IntegerV2, FloatV2] } else { &[Integer, CustomInteger, Float, CustomFloat] };
    let mut out = Vec::new();
    for form in forms {
        let mut record = Vec::new();
        if encode_histograms(&mut record, *form, samples) > 0 {
            out.push(record);
        }
    }
    out
}

/// Writes a record of those `samples` that go to `form` to `out`, replacing what it held. Returns how
/// many they are; if none, `out` is not a record.
pub fn encode_histograms(out: &mut Vec<u8>, form: HistogramRecord, samples: &[RefHistogramSample]) -> usize {
    out.clear();
    out.push(form.type_byte());
    if matches!(form, HistogramRecord::IntegerV2 | HistogramRecord::FloatV2) {
        return encode_v2(out, samples.iter().filter(|s| form.takes(&s.value)));
    }
    // The base of an exponential record is the first sample of the batch, even if that has custom bounds.
    let custom = matches!(form, HistogramRecord::CustomInteger | HistogramRecord::CustomFloat);
    let is_base =
        |s: &&RefHistogramSample| if custom { form.takes(&s.value) } else { form.has_flavour(&s.value) };
    let Some(base) = samples.iter().find(is_base) else { return 0 };
    put_be64(out, base.series.0);
    put_be64(out, base.t as u64);
    let mut taken = 0;
    for sample in samples.iter().filter(|s| form.takes(&s.value)) {
        put_varint(out, sample.series.0.wrapping_sub(base.series.0) as i64);
        put_varint(out, sample.t.wrapping_sub(base.t));
        put_value(out, &sample.value);
        taken += 1;
    }
    taken
}

fn encode_v2<'a>(out: &mut Vec<u8>, samples: impl Iterator<Item = &'a RefHistogramSample>) -> usize {
    let mut state: Option<(&RefHistogramSample, &RefHistogramSample)> = None;
    let mut taken = 0;
    for sample in samples {
        match state {
            None => {
                put_varint(out, sample.series.0 as i64);
                put_varint(out, sample.t);
                put_varint(out, sample.start_timestamp);
                state = Some((sample, sample));
            }
            Some((first, previous)) => {
                put_varint(out, sample.series.0.wrapping_sub(previous.series.0) as i64);
                put_varint(out, sample.t.wrapping_sub(first.t));
                put_start(out, sample.start_timestamp, first.start_timestamp, previous.start_timestamp);
                state = Some((first, sample));
            }
        }
        put_value(out, &sample.value);
        taken += 1;
    }
    taken
}

fn put_value(out: &mut Vec<u8>, value: &HistogramValue) {
    match value {
        HistogramValue::Integer(h) => put_histogram(out, h),
        HistogramValue::Float(h) => put_float_histogram(out, h),
    }
}

/// Appends an integer histogram.
pub(crate) fn put_histogram(out: &mut Vec<u8>, h: &Histogram) {
    out.push(hint_byte(h.counter_reset_hint));
    put_varint(out, i64::from(h.schema));
    put_be_f64(out, h.zero_threshold);
    put_uvarint(out, h.zero_count);
    put_uvarint(out, h.count);
    put_be_f64(out, h.sum);
    put_spans(out, &h.positive_spans);
    put_spans(out, &h.negative_spans);
    for buckets in [&h.positive_buckets, &h.negative_buckets] {
        put_uvarint(out, buckets.len() as u64);
        buckets.iter().for_each(|b| put_varint(out, *b));
    }
    if h.schema == CUSTOM_SCHEMA {
        put_floats(out, &h.custom_values);
    }
}

/// Appends a float histogram.
pub(crate) fn put_float_histogram(out: &mut Vec<u8>, h: &FloatHistogram) {
    out.push(hint_byte(h.counter_reset_hint));
    put_varint(out, i64::from(h.schema));
    for v in [h.zero_threshold, h.zero_count, h.count, h.sum] {
        put_be_f64(out, v);
    }
    put_spans(out, &h.positive_spans);
    put_spans(out, &h.negative_spans);
    put_floats(out, &h.positive_buckets);
    put_floats(out, &h.negative_buckets);
    if h.schema == CUSTOM_SCHEMA {
        put_floats(out, &h.custom_values);
    }
}

fn put_spans(out: &mut Vec<u8>, spans: &[Span]) {
    put_uvarint(out, spans.len() as u64);
    for span in spans {
        put_varint(out, i64::from(span.offset));
        put_uvarint(out, u64::from(span.length));
    }
}

fn put_floats(out: &mut Vec<u8>, values: &[f64]) {
    put_uvarint(out, values.len() as u64);
    values.iter().for_each(|v| put_be_f64(out, *v));
}

fn hint_byte(hint: CounterResetHint) -> u8 {
    match hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::Reset => 1,
        CounterResetHint::NotReset => 2,
        CounterResetHint::Gauge => 3,
    }
}

fn hint(byte: u8) -> CounterResetHint {
    match byte {
        1 => CounterResetHint::Reset,
        2 => CounterResetHint::NotReset,
        3 => CounterResetHint::Gauge,
        _ => CounterResetHint::Unknown,
    }
}

/// Appends the histograms of `record`, of any form, to `out`. Returns how many were skipped, because their
/// schema is unknown or their spans do not fit their buckets.
///
/// # Errors
/// If it is not a well-formed histogram record.
pub fn decode_histograms(record: &[u8], out: &mut Vec<RefHistogramSample>) -> Result<u64, DecodeError> {
    const KINDS: [u8; 6] = [
        kind::HISTOGRAMS,
        kind::FLOAT_HISTOGRAMS,
        kind::CUSTOM_HISTOGRAMS,
        kind::CUSTOM_FLOAT_HISTOGRAMS,
        kind::HISTOGRAMS_V2,
        kind::FLOAT_HISTOGRAMS_V2,
    ];
    let (mut cursor, kind) = body(record, &KINDS)?;
    if cursor.is_empty() {
        return Ok(0);
    }
    let float =
        matches!(kind, kind::FLOAT_HISTOGRAMS | kind::CUSTOM_FLOAT_HISTOGRAMS | kind::FLOAT_HISTOGRAMS_V2);
    let mut decode = |cursor: &mut Cursor<'_>, series, t, start_timestamp| {
        let mut value = if float {
            HistogramValue::Float(Arc::new(decode_float_histogram(cursor)?))
        } else {
            HistogramValue::Integer(Arc::new(decode_histogram(cursor)?))
        };
        let skipped = !is_usable(&mut value);
        if !skipped {
            out.push(RefHistogramSample { series, t, start_timestamp, value });
        }
        Ok(u64::from(skipped))
    };
    let mut skipped = 0;
    if kind < kind::HISTOGRAMS_V2 {
        let (base_ref, base_t) = (cursor.be64()?, cursor.be64_i64()?);
        while !cursor.is_empty() {
            let series = SeriesRef(base_ref.wrapping_add(cursor.varint()? as u64));
            let t = base_t.wrapping_add(cursor.varint()?);
            skipped += decode(&mut cursor, series, t, 0)?;
        }
        return Ok(skipped);
    }
    let (mut series, first_t) = (cursor.varint()? as u64, cursor.varint()?);
    let first_start = cursor.varint()?;
    let (mut t, mut start) = (first_t, first_start);
    loop {
        skipped += decode(&mut cursor, SeriesRef(series), t, start)?;
        if cursor.is_empty() {
            return Ok(skipped);
        }
        series = series.wrapping_add(cursor.varint()? as u64);
        t = first_t.wrapping_add(cursor.varint()?);
        start = take_start(&mut cursor, first_start, start)?;
    }
}

/// Takes an integer histogram as [`put_histogram`] writes it, whatever its schema.
fn decode_histogram(cursor: &mut Cursor<'_>) -> Result<Histogram, DecodeError> {
    let mut h = Histogram {
        counter_reset_hint: hint(cursor.u8()?),
        schema: cursor.varint()? as i32,
        zero_threshold: cursor.be_f64()?,
        zero_count: cursor.uvarint()?,
        count: cursor.uvarint()?,
        sum: cursor.be_f64()?,
        positive_spans: take_spans(cursor)?,
        negative_spans: take_spans(cursor)?,
        ..Histogram::default()
    };
    for buckets in [&mut h.positive_buckets, &mut h.negative_buckets] {
        *buckets = take_many(cursor, 1, Cursor::varint)?;
    }
    if h.schema == CUSTOM_SCHEMA {
        h.custom_values = take_many(cursor, 8, Cursor::be_f64)?;
    }
    Ok(h)
}

/// Takes a float histogram as [`put_float_histogram`] writes it, whatever its schema.
fn decode_float_histogram(cursor: &mut Cursor<'_>) -> Result<FloatHistogram, DecodeError> {
    let mut h = FloatHistogram {
        counter_reset_hint: hint(cursor.u8()?),
        schema: cursor.varint()? as i32,
        zero_threshold: cursor.be_f64()?,
        zero_count: cursor.be_f64()?,
        count: cursor.be_f64()?,
        sum: cursor.be_f64()?,
        positive_spans: take_spans(cursor)?,
        negative_spans: take_spans(cursor)?,
        positive_buckets: take_many(cursor, 8, Cursor::be_f64)?,
        negative_buckets: take_many(cursor, 8, Cursor::be_f64)?,
        ..FloatHistogram::default()
    };
    if h.schema == CUSTOM_SCHEMA {
        h.custom_values = take_many(cursor, 8, Cursor::be_f64)?;
    }
    Ok(h)
}

fn take_spans(cursor: &mut Cursor<'_>) -> Result<Vec<Span>, DecodeError> {
    take_many(cursor, 2, |c| Ok(Span { offset: c.varint()? as i32, length: c.uvarint()? as u32 }))
}

/// Takes a count and as many values of at least `min_bytes` each.
fn take_many<'a, T>(
    cursor: &mut Cursor<'a>,
    min_bytes: usize,
    take: impl Fn(&mut Cursor<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = cursor.uvarint()?;
    if count > (cursor.remaining() / min_bytes) as u64 {
        return Err(cursor.error("more values are claimed than there are bytes"));
    }
    (0..count).map(|_| take(cursor)).collect()
}

/// Whether the histogram can be worked with; brings its resolution down to what is.
fn is_usable(value: &mut HistogramValue) -> bool {
    let sides = match value {
        HistogramValue::Integer(h) => {
            [(&h.positive_spans, h.positive_buckets.len()), (&h.negative_spans, h.negative_buckets.len())]
        }
        HistogramValue::Float(h) => {
            [(&h.positive_spans, h.positive_buckets.len()), (&h.negative_spans, h.negative_buckets.len())]
        }
    };
    let fits = sides.into_iter().all(|(spans, buckets)| fits(spans, buckets));
    fits && is_known_schema(value.schema()) && value.limit_resolution().is_ok()
}

/// Whether the spans describe `buckets` buckets, the first span wherever, the others behind each other.
fn fits(spans: &[Span], buckets: usize) -> bool {
    spans.iter().skip(1).all(|s| s.offset >= 0)
        && spans.iter().map(|s| u64::from(s.length)).sum::<u64>() == buckets as u64
}
