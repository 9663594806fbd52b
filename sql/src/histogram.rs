//! Native histograms as values of a struct column.
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `count` | double | observations |
//! | `sum` | double | their sum |
//! | `buckets` | list of (`lower`, `upper`, `count`) | populated buckets, ascending, the zero bucket among them; counts are not cumulative |
//! | `schema` | int | resolution: each power of two has `2^schema` buckets; −53: bounds are listed |
//! | `zero_threshold` | double | half-width of the zero bucket |
//! | `zero_count` | double | observations in the zero bucket |
//! | `bounds` | list of double | upper bounds for schema −53, otherwise NULL |
//! | `reset_hint` | text | `unknown`, `reset`, `not_reset` (since the sample before) or `gauge` |
//!
//! Nothing but empty buckets is lost: a histogram read back equals the one that was written.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Builder, Int32Builder, ListArray, ListBuilder, StringBuilder,
    StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int32Type};
use datafusion::common::{Result, internal_err};
use promontory_tsdb::histogram::{
    Bucket, CUSTOM_SCHEMA, CounterResetHint, FloatHistogram, SCHEMA_MAX, SCHEMA_MIN, Span, exponential_bound,
};

/// `(lower, upper, count)`.
fn bucket_fields() -> Fields {
    ["lower", "upper", "count"].map(|name| Field::new(name, DataType::Float64, false)).to_vec().into()
}

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

/// The type of a list of buckets.
pub fn buckets_type() -> DataType {
    list_of(DataType::Struct(bucket_fields()))
}

fn histogram_fields() -> Fields {
    let field = |name: &str, data_type, nullable| Field::new(name, data_type, nullable);
    vec![
        field("count", DataType::Float64, true),
        field("sum", DataType::Float64, true),
        field("buckets", buckets_type(), true),
        field("schema", DataType::Int32, true),
        field("zero_threshold", DataType::Float64, true),
        field("zero_count", DataType::Float64, true),
        field("bounds", list_of(DataType::Float64), true),
        field("reset_hint", DataType::Utf8, true),
    ]
    .into()
}

/// The type of a histogram column.
pub fn histogram_type() -> DataType {
    DataType::Struct(histogram_fields())
}

/// Whether `data_type` is that of a histogram column.
pub fn is_histogram(data_type: &DataType) -> bool {
    *data_type == histogram_type()
}

/// A list of buckets under construction.
#[derive(Debug, Default)]
pub struct BucketsBuilder {
    bounds_and_counts: [Vec<f64>; 3],
    ends: Vec<usize>,
    valid: Vec<bool>,
}

impl BucketsBuilder {
    /// Appends the populated buckets of `histogram`, or NULL.
    pub fn append(&mut self, histogram: Option<&FloatHistogram>) {
        for bucket in histogram.iter().flat_map(|h| h.iter_all()).filter(|b| b.count != 0.0) {
            let Bucket { lower, upper, count, .. } = bucket;
            for (column, v) in self.bounds_and_counts.iter_mut().zip([lower, upper, count]) {
                column.push(v);
            }
        }
        self.ends.push(self.bounds_and_counts[0].len());
        self.valid.push(histogram.is_some());
    }

    /// The column.
    ///
    /// # Panics
    /// Past `i32::MAX` buckets.
    pub fn finish(self) -> ArrayRef {
        let columns = self.bounds_and_counts.map(|column| {
            let array: arrow::array::Float64Array = column.into();
            Arc::new(array) as ArrayRef
        });
        let items = StructArray::new(bucket_fields(), columns.to_vec(), None);
        let lengths = self.ends.iter().scan(0, |start, end| Some(end - std::mem::replace(start, *end)));
        let offsets = OffsetBuffer::from_lengths(lengths);
        let item = Arc::new(Field::new_list_field(DataType::Struct(bucket_fields()), true));
        Arc::new(ListArray::new(item, offsets, Arc::new(items), Some(NullBuffer::from(self.valid))))
    }
}

/// A histogram column under construction.
#[derive(Debug, Default)]
pub struct HistogramBuilder {
    count: Float64Builder,
    sum: Float64Builder,
    buckets: BucketsBuilder,
    schema: Int32Builder,
    zero_threshold: Float64Builder,
    zero_count: Float64Builder,
    bounds: ListBuilder<Float64Builder>,
    reset_hint: StringBuilder,
    valid: Vec<bool>,
}

impl HistogramBuilder {
    /// Appends a value, or NULL.
    pub fn append(&mut self, histogram: Option<&FloatHistogram>) {
        self.count.append_option(histogram.map(|h| h.count));
        self.sum.append_option(histogram.map(|h| h.sum));
        self.buckets.append(histogram);
        self.schema.append_option(histogram.map(|h| h.schema));
        self.zero_threshold.append_option(histogram.map(|h| h.zero_threshold));
        self.zero_count.append_option(histogram.map(|h| h.zero_count));
        let bounds = histogram.filter(|h| h.has_custom_bounds());
        self.bounds.values().append_slice(bounds.map_or(&[][..], |h| &h.custom_values));
        self.bounds.append(bounds.is_some());
        self.reset_hint.append_option(histogram.map(|h| hint_name(h.counter_reset_hint)));
        self.valid.push(histogram.is_some());
    }

    /// The column.
    pub fn finish(mut self) -> StructArray {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.count.finish()),
            Arc::new(self.sum.finish()),
            self.buckets.finish(),
            Arc::new(self.schema.finish()),
            Arc::new(self.zero_threshold.finish()),
            Arc::new(self.zero_count.finish()),
            Arc::new(self.bounds.finish()),
            Arc::new(self.reset_hint.finish()),
        ];
        StructArray::new(histogram_fields(), columns, Some(NullBuffer::from(self.valid)))
    }
}

fn hint_name(hint: CounterResetHint) -> &'static str {
    match hint {
        CounterResetHint::Unknown => "unknown",
        CounterResetHint::Reset => "reset",
        CounterResetHint::NotReset => "not_reset",
        CounterResetHint::Gauge => "gauge",
    }
}

fn hint_of(name: &str) -> CounterResetHint {
    match name {
        "reset" => CounterResetHint::Reset,
        "not_reset" => CounterResetHint::NotReset,
        "gauge" => CounterResetHint::Gauge,
        _ => CounterResetHint::Unknown,
    }
}

/// Reads histograms out of a column.
#[derive(Debug)]
pub struct Histograms<'a>(&'a StructArray);

impl<'a> Histograms<'a> {
    /// The histograms of `array`.
    ///
    /// # Errors
    /// If it is no histogram column.
    pub fn of(array: &'a dyn Array) -> Result<Self> {
        if !is_histogram(array.data_type()) {
            return internal_err!("not a column of histograms: {}", array.data_type());
        }
        Ok(Self(array.as_struct()))
    }

    /// The histogram of `row`; `None` for NULL, and for what is no histogram although it has the type.
    pub fn get(&self, row: usize) -> Option<FloatHistogram> {
        if self.0.is_null(row) {
            return None;
        }
        let double = |column: usize| {
            let column = self.0.column(column).as_primitive::<Float64Type>();
            column.is_valid(row).then(|| column.value(row))
        };
        let schema = self.0.column(3).as_primitive::<Int32Type>();
        let mut h = FloatHistogram {
            count: double(0)?,
            sum: double(1)?,
            schema: schema.is_valid(row).then(|| schema.value(row))?,
            zero_threshold: double(4)?,
            zero_count: double(5)?,
            ..FloatHistogram::default()
        };
        let bounds = self.0.column(6).as_list::<i32>();
        if bounds.is_valid(row) {
            h.custom_values = bounds.value(row).as_primitive::<Float64Type>().values().to_vec();
        }
        let hints = self.0.column(7).as_string::<i32>();
        if hints.is_valid(row) {
            h.counter_reset_hint = hint_of(hints.value(row));
        }
        let buckets = self.0.column(2).as_list::<i32>();
        if buckets.is_null(row) {
            return None;
        }
        put_buckets(&mut h, buckets.value(row).as_struct())?;
        Some(h)
    }
}

/// Sorts buckets that are told by their bounds into positive and negative ones, by index.
fn put_buckets(h: &mut FloatHistogram, buckets: &StructArray) -> Option<()> {
    let [lower, upper, count] = [0, 1, 2].map(|i| buckets.column(i).as_primitive::<Float64Type>().values());
    let (mut positive, mut negative) = (Vec::new(), Vec::new());
    for ((lower, upper), count) in lower.iter().zip(upper.iter()).zip(count.iter()) {
        if h.schema == CUSTOM_SCHEMA {
            let index = h.custom_values.partition_point(|bound| bound < upper);
            positive.push((i32::try_from(index).ok()?, *count));
        } else if *lower > 0.0 {
            positive.push((exponential_index(*upper, h.schema)?, *count));
        } else if *upper < 0.0 {
            negative.push((exponential_index(-lower, h.schema)?, *count));
        }
    }
    negative.reverse();
    (h.positive_spans, h.positive_buckets) = spans(&positive);
    (h.negative_spans, h.negative_buckets) = spans(&negative);
    Some(())
}

/// The index of the bucket whose bound away from zero is `bound`.
fn exponential_index(bound: f64, schema: i32) -> Option<i32> {
    if !(SCHEMA_MIN..=SCHEMA_MAX).contains(&schema) {
        return None;
    }
    let scaled = bound.log2() * f64::from(schema).exp2();
    let near = if bound.is_infinite() {
        // The bucket after the one that ends at the greatest number.
        (1024.0 * f64::from(schema).exp2()).ceil() as i32 + 1
    } else {
        scaled.round() as i32
    };
    // Logarithms are not exact to the last bit; bounds are.
    [near, near - 1, near + 1].into_iter().find(|i| exponential_bound(*i, schema) == bound)
}

fn spans(cells: &[(i32, f64)]) -> (Vec<Span>, Vec<f64>) {
    let mut spans = Vec::<Span>::new();
    let mut next = 0i32;
    for (index, _) in cells {
        let offset = index.wrapping_sub(next);
        match spans.last_mut() {
            Some(span) if offset == 0 => span.length += 1,
            _ => spans.push(Span { offset, length: 1 }),
        }
        next = index.wrapping_add(1);
    }
    (spans, cells.iter().map(|(_, count)| *count).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn back(h: &FloatHistogram) -> FloatHistogram {
        let mut builder = HistogramBuilder::default();
        builder.append(None);
        builder.append(Some(h));
        let column = builder.finish();
        let histograms = Histograms::of(&column).unwrap();
        assert_eq!(histograms.get(0), None);
        histograms.get(1).unwrap()
    }

    #[test]
    fn every_bound_of_every_schema_finds_its_index() {
        for schema in SCHEMA_MIN..=SCHEMA_MAX {
            let reach = (1024.0 * f64::from(schema).exp2()) as i32;
            for index in (-reach..=reach + 1).step_by(if schema > 4 { 7 } else { 1 }) {
                let bound = exponential_bound(index, schema);
                let found = exponential_index(bound, schema);
                assert_eq!(found.map(|i| exponential_bound(i, schema)), Some(bound), "{schema} {index}");
            }
        }
    }

    #[test]
    fn custom_bounds_come_back() {
        let h = FloatHistogram {
            schema: CUSTOM_SCHEMA,
            count: 6.0,
            sum: 9.5,
            custom_values: vec![0.5, 1.0, 2.5],
            positive_spans: vec![Span { offset: 0, length: 1 }, Span { offset: 1, length: 2 }],
            positive_buckets: vec![1.0, 2.0, 3.0],
            ..FloatHistogram::default()
        };
        assert_eq!(back(&h), h);
    }

    proptest! {
        #[test]
        fn histograms_come_back_as_they_were_but_for_empty_buckets(
            schema in SCHEMA_MIN..=SCHEMA_MAX,
            positive in prop::collection::btree_map(-40..40i32, 0.0..9.0f64, 0..8),
            negative in prop::collection::btree_map(-40..40i32, 1.0..9.0f64, 0..8),
            zero_count in 0.0..5.0f64,
            hint in 0..4usize,
        ) {
            let positive: Vec<_> = positive.into_iter().collect();
            let negative: Vec<_> = negative.into_iter().collect();
            let (positive_spans, positive_buckets) = spans(&positive);
            let (negative_spans, negative_buckets) = spans(&negative);
            let hints = [
                CounterResetHint::Unknown, CounterResetHint::Reset,
                CounterResetHint::NotReset, CounterResetHint::Gauge,
            ];
            let h = FloatHistogram {
                counter_reset_hint: hints[hint],
                schema, zero_count, zero_threshold: 1e-20, count: 3.0, sum: -1.0,
                positive_spans, positive_buckets, negative_spans, negative_buckets,
                custom_values: Vec::new(),
            };
            let full = |h: &FloatHistogram| h.iter_all().filter(|b| b.count != 0.0).collect::<Vec<_>>();
            let got = back(&h);
            prop_assert_eq!(full(&got), full(&h));
            prop_assert_eq!(got.counter_reset_hint, h.counter_reset_hint);
            prop_assert_eq!(got.zero_count.to_bits(), h.zero_count.to_bits());
        }
    }
}
