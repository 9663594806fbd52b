//! Samples of groups, collected until results are wanted.
//!
//! Memory is that of the samples: 20 bytes each, which the session's memory limit counts.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Float64Builder, Int64Builder, ListBuilder,
};
use arrow::datatypes::{
    DataType, Float64Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMillisecondType,
};
use datafusion::common::{Result, ScalarValue, exec_err, internal_err};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use promontory_tsdb::TimestampMs;

use super::evaluate::{Evaluator, NONE, Parameters, SeriesFunction};

/// Columns of arguments: times, values, and what comes after.
struct Arguments<'a> {
    times: &'a arrow::array::TimestampMillisecondArray,
    values: &'a Float64Array,
    more: &'a [ArrayRef],
}

impl<'a> Arguments<'a> {
    fn of(columns: &'a [ArrayRef]) -> Self {
        Self {
            times: columns[0].as_primitive::<TimestampMillisecondType>(),
            values: columns[1].as_primitive::<Float64Type>(),
            more: &columns[2..],
        }
    }

    fn len(&self) -> usize {
        self.times.len()
    }

    fn get(&self, row: usize) -> Option<(TimestampMs, f64)> {
        (self.times.is_valid(row) && self.values.is_valid(row))
            .then(|| (self.times.value(row), self.values.value(row)))
    }
}

/// What further arguments say in `row`.
pub(super) fn parameters_of(more: &[ArrayRef], row: usize) -> Result<Parameters> {
    let mut parameters = NONE;
    for (slot, column) in parameters.iter_mut().zip(more) {
        *slot = number(column.as_ref(), row)?;
    }
    Ok(parameters)
}

/// A time in ms, an interval in seconds, or a number, as a number; NaN for NULL.
fn number(array: &dyn Array, row: usize) -> Result<f64> {
    if array.is_null(row) {
        return Ok(f64::NAN);
    }
    Ok(match array.data_type() {
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            array.as_primitive::<TimestampMillisecondType>().value(row) as f64
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let interval = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            if interval.months != 0 {
                return exec_err!("months differ in length: give days, or seconds");
            }
            f64::from(interval.days) * 86_400.0 + interval.nanoseconds as f64 / 1e9
        }
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row),
        other => return internal_err!("an argument of type {other} was let through"),
    })
}

/// Samples of all groups as they come.
#[derive(Debug)]
pub(super) struct Groups {
    function: SeriesFunction,
    group: Vec<u32>,
    times: Vec<TimestampMs>,
    values: Vec<f64>,
    /// Further arguments of each group: the same for all of its samples, or else the newest count.
    parameters: Vec<Parameters>,
}

impl Groups {
    pub(super) fn new(function: SeriesFunction) -> Self {
        Self { function, group: Vec::new(), times: Vec::new(), values: Vec::new(), parameters: Vec::new() }
    }

    fn grow(&mut self, groups: usize) {
        if self.parameters.len() < groups {
            self.parameters.resize(groups, NONE);
        }
    }

    fn push(&mut self, group: usize, t: TimestampMs, v: f64) {
        self.group.push(u32::try_from(group).expect("groups of one statement fit 32 bits"));
        self.times.push(t);
        self.values.push(v);
    }

    /// Takes out the samples of the first groups, and all that is kept of them.
    fn take(&mut self, emit_to: EmitTo) -> Taken {
        let groups = match emit_to {
            EmitTo::All => self.parameters.len(),
            EmitTo::First(n) => n.min(self.parameters.len()),
        };
        let mut ends = vec![0usize; groups + 1];
        for group in self.group.iter().map(|g| *g as usize).filter(|g| *g < groups) {
            ends[group + 1] += 1;
        }
        for i in 1..ends.len() {
            ends[i] += ends[i - 1];
        }
        let total = ends[groups];
        let mut next = ends.clone();
        let (mut times, mut values) = (vec![0; total], vec![0.0; total]);
        let mut rest = Self::new(self.function);
        for ((group, t), v) in self.group.iter().zip(&self.times).zip(&self.values) {
            let group = *group as usize;
            if group < groups {
                let at = &mut next[group];
                (times[*at], values[*at]) = (*t, *v);
                *at += 1;
            } else {
                rest.push(group - groups, *t, *v);
            }
        }
        rest.parameters = self.parameters.split_off(groups);
        let parameters = std::mem::replace(self, rest).parameters;
        Taken { ends, times, values, parameters }
    }
}

/// Samples sorted by group.
struct Taken {
    /// Group `i` has samples `ends[i]..ends[i + 1]`.
    ends: Vec<usize>,
    times: Vec<TimestampMs>,
    values: Vec<f64>,
    parameters: Vec<Parameters>,
}

impl Taken {
    fn groups(&self) -> impl Iterator<Item = (&[TimestampMs], &[f64], Parameters)> {
        self.parameters.iter().enumerate().map(|(i, parameters)| {
            let range = self.ends[i]..self.ends[i + 1];
            (&self.times[range.clone()], &self.values[range], *parameters)
        })
    }

    fn state(&self) -> Vec<ArrayRef> {
        let mut times = ListBuilder::new(Int64Builder::with_capacity(self.times.len()));
        let mut values = ListBuilder::new(Float64Builder::with_capacity(self.values.len()));
        let mut parameters = ListBuilder::new(Float64Builder::new());
        for (group_times, group_values, group_parameters) in self.groups() {
            times.values().append_slice(group_times);
            values.values().append_slice(group_values);
            parameters.values().append_slice(&group_parameters);
            times.append(true);
            values.append(true);
            parameters.append(true);
        }
        vec![Arc::new(times.finish()), Arc::new(values.finish()), Arc::new(parameters.finish())]
    }
}

/// Calls `f(row, times, values, parameters)` for each row of a state.
fn each_state(
    columns: &[ArrayRef],
    mut f: impl FnMut(usize, &[TimestampMs], &[f64], Parameters),
) -> Result<()> {
    let [times, values, parameters] = columns else { return internal_err!("a state has three parts") };
    let (times, values) = (times.as_list::<i32>(), values.as_list::<i32>());
    let parameters = parameters.as_list::<i32>();
    for row in (0..times.len()).filter(|row| times.is_valid(*row)) {
        let (times, values, parameters) = (times.value(row), values.value(row), parameters.value(row));
        let parameters = parameters.as_primitive::<Float64Type>().values();
        f(
            row,
            times.as_primitive::<Int64Type>().values(),
            values.as_primitive::<Float64Type>().values(),
            parameters[..].try_into().unwrap_or(NONE),
        );
    }
    Ok(())
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.grow(total_num_groups);
        let arguments = Arguments::of(values);
        for (row, &group) in group_indices.iter().enumerate() {
            let wanted = filter.is_none_or(|f| f.is_valid(row) && f.value(row));
            if let Some((t, v)) = arguments.get(row).filter(|_| wanted) {
                self.push(group, t, v);
                if !arguments.more.is_empty() {
                    self.parameters[group] = parameters_of(arguments.more, row)?;
                }
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let taken = self.take(emit_to);
        let mut evaluator = Evaluator::default();
        let mut out = Float64Builder::with_capacity(taken.parameters.len());
        for (times, values, parameters) in taken.groups() {
            out.append_option(evaluator.evaluate(self.function, times, values, parameters)?);
        }
        Ok(Arc::new(out.finish()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(self.take(emit_to).state())
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.grow(total_num_groups);
        each_state(values, |row, times, values, parameters| {
            let group = group_indices[row];
            times.iter().zip(values).for_each(|(t, v)| self.push(group, *t, *v));
            if !times.is_empty() {
                self.parameters[group] = parameters;
            }
        })
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let rows = values[0].len();
        let mut each = Self::new(self.function);
        each.update_batch(values, &(0..rows).collect::<Vec<_>>(), opt_filter, rows)?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.group.capacity() * size_of::<u32>()
            + self.times.capacity() * size_of::<TimestampMs>()
            + self.values.capacity() * size_of::<f64>()
            + self.parameters.capacity() * size_of::<Parameters>()
    }
}

/// The same without GROUP BY, and over window frames: rows leave in the order in which they came.
#[derive(Debug)]
pub(super) struct OneGroup {
    function: SeriesFunction,
    /// Samples before this one have left the frame.
    start: usize,
    times: Vec<TimestampMs>,
    values: Vec<f64>,
    parameters: Parameters,
    evaluator: Evaluator,
}

impl OneGroup {
    pub(super) fn new(function: SeriesFunction) -> Self {
        Self {
            function,
            start: 0,
            times: Vec::new(),
            values: Vec::new(),
            parameters: NONE,
            evaluator: Evaluator::default(),
        }
    }
}

impl Accumulator for OneGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let arguments = Arguments::of(values);
        for row in 0..arguments.len() {
            if let Some((t, v)) = arguments.get(row) {
                self.times.push(t);
                self.values.push(v);
                if !arguments.more.is_empty() {
                    self.parameters = parameters_of(arguments.more, row)?;
                }
            }
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let arguments = Arguments::of(values);
        self.start += (0..arguments.len()).filter(|row| arguments.get(*row).is_some()).count();
        self.start = self.start.min(self.times.len());
        // Now and then, so that a sample is moved about once.
        if self.start > 64 && self.start > self.times.len() / 2 {
            self.times.drain(..self.start);
            self.values.drain(..self.start);
            self.start = 0;
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let (times, values) = (&self.times[self.start..], &self.values[self.start..]);
        let value = self.evaluator.evaluate(self.function, times, values, self.parameters)?;
        Ok(ScalarValue::Float64(value))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let taken = Taken {
            ends: vec![0, self.times.len() - self.start],
            times: self.times.split_off(self.start),
            values: self.values.split_off(self.start),
            parameters: vec![self.parameters],
        };
        taken.state().iter().map(|part| ScalarValue::try_from_array(part, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        each_state(states, |_, times, values, parameters| {
            self.times.extend_from_slice(times);
            self.values.extend_from_slice(values);
            if !times.is_empty() {
                self.parameters = parameters;
            }
        })
    }

    fn size(&self) -> usize {
        size_of::<Self>()
            + self.times.capacity() * size_of::<TimestampMs>()
            + self.values.capacity() * size_of::<f64>()
    }
}
