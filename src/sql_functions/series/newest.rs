//! `first(timestamp, value)` and `last(timestamp, value)`: the value at the oldest and at the newest time.
//!
//! The value may be of any type. NULL in either argument is left out; of two values at one time the first
//! that comes counts.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, TimestampMillisecondArray, TimestampMillisecondBuilder,
};
use arrow::datatypes::{DataType, Field, FieldRef, TimestampMillisecondType};
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use promontory_tsdb::TimestampMs;

use super::{is_time, time_type};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct NewestAggregate {
    name: &'static str,
    oldest: bool,
    signature: Signature,
}

impl NewestAggregate {
    /// The function called `name`; `oldest` for the value at the oldest time.
    pub(super) fn new(name: &'static str, oldest: bool) -> Self {
        Self { name, oldest, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for NewestAggregate {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [_, value] => Ok(value.clone()),
            _ => internal_err!("{} takes two arguments", self.name),
        }
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            // Dictionaries of different batches differ; what is kept is plain.
            [t, DataType::Dictionary(_, value)] if is_time(t) => {
                Ok(vec![time_type(), value.as_ref().clone()])
            }
            [t, value] if is_time(t) => Ok(vec![time_type(), value.clone()]),
            _ => {
                let given: Vec<_> = arg_types.iter().map(ToString::to_string).collect();
                let (name, given) = (self.name, given.join(", "));
                plan_err!("No function matches {name}({given}): it is {name}(timestamp, value)")
            }
        }
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(OneBest(Best::new(self.oldest, args.return_field.data_type())?)))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let value = args.return_field.data_type().clone();
        Ok(vec![
            Arc::new(Field::new(format!("{}[time]", args.name), time_type(), true)),
            Arc::new(Field::new(format!("{}[value]", args.name), value, true)),
        ])
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Best::new(self.oldest, args.return_field.data_type())?))
    }
}

/// The best value so far of each group.
#[derive(Debug)]
struct Best {
    oldest: bool,
    null: ScalarValue,
    groups: Vec<Option<(TimestampMs, ScalarValue)>>,
    /// Bytes of values beyond their own size.
    value_bytes: usize,
}

impl Best {
    fn new(oldest: bool, data_type: &DataType) -> Result<Self> {
        Ok(Self { oldest, null: ScalarValue::try_from(data_type)?, groups: Vec::new(), value_bytes: 0 })
    }

    /// Looks at the rows of a batch. Values are taken out for the best row of each group only.
    fn look(
        &mut self,
        times: &TimestampMillisecondArray,
        values: &ArrayRef,
        group_indices: impl Iterator<Item = usize>,
        filter: Option<&BooleanArray>,
    ) -> Result<()> {
        let mut best: HashMap<usize, (TimestampMs, usize)> = HashMap::new();
        let mut last: Option<(usize, (TimestampMs, usize))> = None;
        let nulls = values.logical_nulls();
        for (row, group) in group_indices.enumerate() {
            let wanted = filter.is_none_or(|f| f.is_valid(row) && f.value(row));
            let valid = times.is_valid(row) && nulls.as_ref().is_none_or(|n| n.is_valid(row));
            if !wanted || !valid {
                continue;
            }
            let t = times.value(row);
            // Rows of one series come in runs, so that the map is asked rarely.
            let mut slot = match last {
                Some((of, slot)) if of == group => slot,
                _ => {
                    best.extend(last);
                    best.get(&group).copied().unwrap_or((t, row))
                }
            };
            if self.better(t, slot.0) {
                slot = (t, row);
            }
            last = Some((group, slot));
        }
        best.extend(last);
        for (group, (t, row)) in best {
            let known = self.groups[group].as_ref().map(|(known, _)| *known);
            if known.is_none_or(|known| self.better(t, known)) {
                let value = ScalarValue::try_from_array(values, row)?;
                self.value_bytes += value.size();
                if let Some((_, old)) = self.groups[group].replace((t, value)) {
                    self.value_bytes = self.value_bytes.saturating_sub(old.size());
                }
            }
        }
        Ok(())
    }

    fn better(&self, t: TimestampMs, than: TimestampMs) -> bool {
        if self.oldest { t < than } else { t > than }
    }

    fn grow(&mut self, groups: usize) {
        if self.groups.len() < groups {
            self.groups.resize(groups, None);
        }
    }

    /// Times and values of the first groups, which are forgotten.
    fn take(&mut self, emit_to: EmitTo) -> Result<(ArrayRef, ArrayRef)> {
        let taken = emit_to.take_needed(&mut self.groups);
        let mut times = TimestampMillisecondBuilder::with_capacity(taken.len());
        taken.iter().for_each(|best| times.append_option(best.as_ref().map(|(t, _)| *t)));
        let times = Arc::new(times.finish().with_timezone("UTC"));
        if taken.is_empty() {
            return Ok((times, arrow::array::new_empty_array(&self.null.data_type())));
        }
        let values = taken.into_iter().map(|best| best.map_or_else(|| self.null.clone(), |(_, v)| v));
        Ok((times, ScalarValue::iter_to_array(values)?))
    }
}

impl GroupsAccumulator for Best {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.grow(total_num_groups);
        let times = values[0].as_primitive::<TimestampMillisecondType>();
        self.look(times, &values[1], group_indices.iter().copied(), filter)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(self.take(emit_to)?.1)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (times, values) = self.take(emit_to)?;
        Ok(vec![times, values])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        GroupsAccumulator::update_batch(self, values, group_indices, None, total_num_groups)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let rows = values[0].len();
        let mut each = Self { groups: vec![None; rows], null: self.null.clone(), ..*self };
        each.value_bytes = 0;
        GroupsAccumulator::update_batch(&mut each, values, &(0..rows).collect::<Vec<_>>(), opt_filter, rows)?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.groups.capacity() * size_of::<Option<(TimestampMs, ScalarValue)>>() + self.value_bytes
    }
}

/// The same without GROUP BY.
#[derive(Debug)]
struct OneBest(Best);

impl Accumulator for OneBest {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.grow(1);
        let times = values[0].as_primitive::<TimestampMillisecondType>();
        self.0.look(times, &values[1], std::iter::repeat_n(0, times.len()), None)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let best = self.0.groups.first().and_then(Option::as_ref);
        Ok(best.map_or_else(|| self.0.null.clone(), |(_, value)| value.clone()))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.grow(1);
        let (times, values) = self.0.take(EmitTo::All)?;
        Ok(vec![ScalarValue::try_from_array(&times, 0)?, ScalarValue::try_from_array(&values, 0)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        Accumulator::update_batch(self, states)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + GroupsAccumulator::size(&self.0)
    }
}
