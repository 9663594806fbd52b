//! [`Staircase`]: a function of time that never falls, learnt step by step.
//!
//! `date_trunc('hour', timestamp)` has the same value for hundreds of samples in a row, and for those of the next
//! series again. A function that never falls is known everywhere between two times where its value is the same; so it
//! is computed once or twice a step, and not once a sample.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMillisecondArray, UInt32Array, new_empty_array};
use arrow::compute::{SortOptions, take};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::sort_properties::SortProperties;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr};
use promontory_tsdb::TimestampMs;

use crate::catalog::columns::{TIMESTAMP, timestamp_type};

/// As many samples lie beneath a step at least, or it is not worth it.
const SAMPLES_A_STEP: usize = 3;
/// How far samples are taken to be apart.
const INTERVAL_MS: i64 = 15_000;
/// Samples that a guess at the length of steps is made from.
const PROBED: usize = 64;
/// More steps are not remembered one by one.
const STEPS: i64 = 1 << 20;

/// The function, of a table with nothing but a column of times.
#[derive(Debug, Clone)]
pub(super) struct Steps {
    function: Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
}

impl Steps {
    /// `expr`, whose only column is one of times, over times in `[mint, maxt]`; `None` if it may fall somewhere, or
    /// if its steps are too short to be worth it.
    pub(super) fn of(
        expr: &Arc<dyn PhysicalExpr>,
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> Result<Option<Self>> {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new(TIMESTAMP, timestamp_type(), false)]));
        let time: Arc<dyn PhysicalExpr> = Arc::new(Column::new(TIMESTAMP, 0));
        let function = Arc::clone(expr)
            .transform(|expr| {
                Ok(if expr.is::<Column>() {
                    Transformed::yes(Arc::clone(&time))
                } else {
                    Transformed::no(expr)
                })
            })
            .data()?;
        let mut ordered = EquivalenceProperties::new(Arc::clone(&schema));
        let ascending = SortOptions { descending: false, nulls_first: false };
        ordered.add_ordering([PhysicalSortExpr::new(time, ascending)]);
        let properties = ordered.get_expr_properties(Arc::clone(&function));
        let SortProperties::Ordered(SortOptions { descending: false, .. }) = properties.sort_properties
        else {
            return Ok(None);
        };
        let steps = Self { function, schema };
        let newest: Vec<_> = (0..PROBED as i64).map(|k| maxt.saturating_sub(k * INTERVAL_MS)).collect();
        let values = steps.values(newest)?;
        let (mut last, mut seen) = (ScalarValue::try_from_array(&values, 0)?, 1);
        for i in 1..PROBED {
            let value = ScalarValue::try_from_array(&values, i)?;
            seen += i64::from(value != last);
            last = value;
        }
        let in_range = maxt.abs_diff(mint) as f64 / (PROBED as i64 * INTERVAL_MS) as f64 * seen as f64;
        let worth_it = seen as usize * SAMPLES_A_STEP <= PROBED && in_range <= STEPS as f64;
        Ok(worth_it.then_some(steps))
    }

    fn values(&self, times: Vec<TimestampMs>) -> Result<ArrayRef> {
        let rows = times.len();
        let times = Arc::new(TimestampMillisecondArray::from(times).with_timezone("UTC"));
        self.function
            .evaluate(&RecordBatch::try_new(Arc::clone(&self.schema), vec![times])?)?
            .into_array(rows)
    }
}

/// What is known of [`Steps`].
#[derive(Debug)]
pub(super) struct Staircase {
    steps: Steps,
    /// Ascending, apart from each other.
    known: Vec<Step>,
    /// Where the last time was found.
    at: usize,
    /// By number.
    values: Vec<ScalarValue>,
}

/// The function has one value in `[first, last]`.
#[derive(Debug, Clone, Copy)]
struct Step {
    first: TimestampMs,
    last: TimestampMs,
    number: u32,
}

impl Staircase {
    pub(super) fn new(steps: Steps) -> Self {
        Self { steps, known: Vec::new(), at: 0, values: Vec::new() }
    }

    /// The number of the function's value at `times[0]`, and how many of `times`, which ascend and are not none,
    /// are known to have that value.
    pub(super) fn run(&mut self, times: &[TimestampMs]) -> Result<(u32, usize)> {
        let step = self.step_of(times[0])?;
        // Most runs are short against what is left, so look near first.
        let mut reach = 1;
        while reach < times.len() && times[reach] <= step.last {
            reach *= 2;
        }
        let (known, open) = (reach / 2, reach.min(times.len()));
        Ok((step.number, known + times[known..open].partition_point(|t| *t <= step.last)))
    }

    fn step_of(&mut self, time: TimestampMs) -> Result<Step> {
        for at in [self.at, self.at + 1] {
            if let Some(step) = self.known.get(at).filter(|step| step.first <= time && time <= step.last) {
                self.at = at;
                return Ok(*step);
            }
        }
        let at = self.known.partition_point(|step| step.last < time);
        let inside = self.known.get(at).is_some_and(|step| step.first <= time);
        self.at = if inside { at } else { self.learn(at, time)? };
        Ok(self.known[self.at])
    }

    /// Computes the value at `time`, which lies before step `at` and after the one before. Gives its step.
    fn learn(&mut self, at: usize, time: TimestampMs) -> Result<usize> {
        let value = ScalarValue::try_from_array(&self.steps.values(vec![time])?, 0)?;
        let has_it = |step: &Step| self.values[step.number as usize] == value;
        if at > 0 && self.known.get(at - 1).is_some_and(has_it) {
            self.known[at - 1].last = time;
            return Ok(at - 1);
        }
        if self.known.get(at).is_some_and(has_it) {
            self.known[at].first = time;
            return Ok(at);
        }
        let number = u32::try_from(self.values.len()).expect("steps are limited");
        self.values.push(value);
        self.known.insert(at, Step { first: time, last: time, number });
        Ok(at)
    }

    /// The values with these numbers.
    pub(super) fn values(&self, numbers: &[u32]) -> Result<ArrayRef> {
        if self.values.is_empty() {
            let data_type = self.steps.function.data_type(&self.steps.schema)?;
            return Ok(new_empty_array(&data_type));
        }
        let all = ScalarValue::iter_to_array(self.values.iter().cloned())?;
        Ok(take(&all, &UInt32Array::from(numbers.to_vec()), None)?)
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        self.known.capacity() * size_of::<Step>() + self.values.capacity() * size_of::<ScalarValue>()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use datafusion::physical_expr::expressions::{BinaryExpr, cast, lit};
    use proptest::prelude::*;

    use super::*;

    fn time() -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new("when", 7))
    }

    /// ⌊t ÷ width⌋, which DataFusion does not know to ascend.
    fn quotient(width: i64) -> Steps {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new(TIMESTAMP, timestamp_type(), false)]));
        let number = cast(Arc::new(Column::new(TIMESTAMP, 0)), &schema, arrow::datatypes::DataType::Int64);
        let function = BinaryExpr::new(
            number.expect("a cast"),
            datafusion::logical_expr::Operator::Divide,
            lit(ScalarValue::Int64(Some(width))),
        );
        Steps { function: Arc::new(function), schema }
    }

    #[test]
    fn what_may_fall_or_changes_with_each_sample_is_not_taken() {
        assert!(Steps::of(&time(), 0, 1_000_000).expect("asks").is_none(), "the time itself");
        let schema = Schema::new(vec![Field::new(TIMESTAMP, timestamp_type(), false)]);
        let number = cast(Arc::new(Column::new(TIMESTAMP, 0)), &schema, arrow::datatypes::DataType::Int64);
        let falls: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(
            lit(ScalarValue::Int64(Some(0))),
            datafusion::logical_expr::Operator::Minus,
            number.expect("a cast"),
        ));
        assert!(Steps::of(&falls, 0, 1_000_000).expect("asks").is_none());
    }

    proptest! {
        /// Runs cover all times, and each has the value that the function has there.
        #[test]
        fn runs_have_the_functions_values(
            series in prop::collection::vec(prop::collection::btree_set(0i64..5_000, 1..60), 1..12),
            width in 1i64..400,
        ) {
            let mut staircase = Staircase::new(quotient(width));
            for times in series {
                let times: Vec<_> = times.into_iter().collect();
                let mut start = 0;
                while start < times.len() {
                    let (number, length) = staircase.run(&times[start..]).expect("runs");
                    prop_assert!(length > 0 && start + length <= times.len());
                    let value = staircase.values(&[number]).expect("a value");
                    let value = value.as_any().downcast_ref::<Int64Array>().expect("a number").value(0);
                    for t in &times[start..start + length] {
                        prop_assert_eq!(t / width, value);
                    }
                    start += length;
                }
            }
            let gaps = staircase.known.windows(2).all(|pair| pair[0].last < pair[1].first);
            prop_assert!(gaps);
        }
    }
}
