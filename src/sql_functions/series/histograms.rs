//! Native histograms of one group: `rate(timestamp, histogram)` and the like.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Builder, Int64Builder, ListArray, ListBuilder};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{Field, Float64Type, Int64Type, TimestampMillisecondType};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::Accumulator;
use promontory_promql::context::QueryContext;
use promontory_promql::kernels::range::histogram;
use promontory_promql::logical::spec::RangeFunction;
use promontory_promql::value::SampleValue;
use promontory_sql::{HistogramBuilder, Histograms, histogram_type};
use promontory_tsdb::TimestampMs;
use promontory_tsdb::query::HistogramSample;
use tokio_util::sync::CancellationToken;

use super::evaluate::{NONE, Parameters, SeriesFunction};
use super::groups::parameters_of;

/// Histograms of one group or window frame; rows leave in the order in which they came.
#[derive(Debug)]
pub(super) struct HistogramGroup {
    function: SeriesFunction,
    samples: VecDeque<HistogramSample>,
    parameters: Parameters,
}

impl HistogramGroup {
    pub(super) fn new(function: SeriesFunction) -> Self {
        Self { function, samples: VecDeque::new(), parameters: NONE }
    }

    /// Strictly ascending in time, of equal times the first that came.
    fn sorted(&self) -> Vec<HistogramSample> {
        let mut samples: Vec<_> = self.samples.iter().cloned().collect();
        samples.sort_by_key(|s| s.timestamp);
        samples.dedup_by_key(|s| s.timestamp);
        samples
    }

    fn value(&self) -> Option<SampleValue> {
        let function = self.function.of_histograms()?;
        let mut samples = self.sorted();
        let [start, end] = self.parameters;
        let extrapolates =
            matches!(function, RangeFunction::Rate | RangeFunction::Increase | RangeFunction::Delta);
        let window = (extrapolates && !start.is_nan() && !end.is_nan())
            .then_some((start as TimestampMs, end as TimestampMs));
        if let Some((start, end)) = window {
            samples.retain(|s| s.timestamp > start && s.timestamp <= end);
        }
        // Nobody listens to what is worth noting.
        let context = QueryContext::new(usize::MAX, CancellationToken::new());
        histogram::evaluate_one(function, window, &samples, &context)
    }

    fn push(&mut self, timestamp: TimestampMs, histogram: promontory_tsdb::histogram::FloatHistogram) {
        let histogram = Arc::new(histogram);
        self.samples.push_back(HistogramSample { series: 0, timestamp, start_timestamp: 0, histogram });
    }
}

impl Accumulator for HistogramGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let times = values[0].as_primitive::<TimestampMillisecondType>();
        let histograms = Histograms::of(values[1].as_ref())?;
        for row in (0..times.len()).filter(|row| times.is_valid(*row)) {
            if let Some(histogram) = histograms.get(row) {
                self.push(times.value(row), histogram);
                self.parameters = parameters_of(&values[2..], row)?;
            }
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let gone = (0..values[0].len()).filter(|row| values[0].is_valid(*row) && values[1].is_valid(*row));
        self.samples.drain(..gone.count().min(self.samples.len()));
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let value = self.value();
        if self.function.gives_float() {
            let float = match value {
                Some(SampleValue::Float(v)) => Some(v),
                _ => None,
            };
            return Ok(ScalarValue::Float64(float));
        }
        let mut column = HistogramBuilder::default();
        match value {
            Some(SampleValue::Histogram(h)) => column.append(Some(&h)),
            _ => column.append(None),
        }
        Ok(ScalarValue::Struct(Arc::new(column.finish())))
    }

    fn size(&self) -> usize {
        let of = |s: &HistogramSample| {
            let h = &s.histogram;
            let spans = (h.positive_spans.len() + h.negative_spans.len()) * 8;
            200 + spans + (h.positive_buckets.len() + h.negative_buckets.len() + h.custom_values.len()) * 8
        };
        size_of::<Self>() + self.samples.iter().map(of).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let (mut times, mut parameters) =
            (ListBuilder::new(Int64Builder::new()), ListBuilder::new(Float64Builder::new()));
        let mut histograms = HistogramBuilder::default();
        for sample in &self.samples {
            times.values().append_value(sample.timestamp);
            histograms.append(Some(&sample.histogram));
        }
        times.append(true);
        parameters.values().append_slice(&self.parameters);
        parameters.append(true);
        let item = Arc::new(Field::new_list_field(histogram_type(), true));
        let offsets = OffsetBuffer::from_lengths([self.samples.len()]);
        let histograms = ListArray::new(item, offsets, Arc::new(histograms.finish()), None);
        let parts: [ArrayRef; 3] =
            [Arc::new(times.finish()), Arc::new(histograms), Arc::new(parameters.finish())];
        parts.iter().map(|part| ScalarValue::try_from_array(part, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [times, histograms, parameters] = states else { return internal_err!("a state has three parts") };
        let (times, histograms) = (times.as_list::<i32>(), histograms.as_list::<i32>());
        let parameters = parameters.as_list::<i32>();
        for row in (0..times.len()).filter(|row| times.is_valid(*row)) {
            let (times, column) = (times.value(row), histograms.value(row));
            let column = Histograms::of(column.as_ref())?;
            for (i, t) in times.as_primitive::<Int64Type>().values().iter().enumerate() {
                if let Some(histogram) = column.get(i) {
                    self.push(*t, histogram);
                }
            }
            if !times.is_empty() {
                let parameters = parameters.value(row);
                self.parameters =
                    parameters.as_primitive::<Float64Type>().values()[..].try_into().unwrap_or(NONE);
            }
        }
        Ok(())
    }
}
