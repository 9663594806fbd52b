//! `percentile_cont` over doubles, as PostgreSQL computes it and without a comparison per value.
//!
//! DataFusion's rounds the weight between the two values in the middle; PostgreSQL does not, and takes NaN for the
//! greatest value of all. Distinct values, windows and other types are left to DataFusion's.
//!
//! # How
//! Values stay in the buffers that they come in. The answer is looked for by counting: how many values begin with which
//! [`PREFIX_BITS`] bits says among which few the one that is wanted must be, and only these are compared.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, ListArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, plan_err};
use datafusion::functions_aggregate::percentile_cont::percentile_cont_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Documentation, EmitTo, GroupsAccumulator,
    Signature,
};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::accumulate::accumulate;

/// Leading bits that values are counted by: sign, exponent and the first of the fraction.
const PREFIX_BITS: u32 = 16;
/// Up to so many values, comparing is cheaper than counting.
const FEW: usize = 4_096;
/// Slices below so many values are copied together: the slice itself takes 40 bytes.
const SHORT: usize = 64;

/// `percentile_cont`.
pub(super) fn function() -> AggregateUDF {
    AggregateUDF::from(PercentileCont(percentile_cont_udaf().as_ref().clone()))
}

/// DataFusion's function, but for doubles.
#[derive(Debug, PartialEq, Eq, Hash)]
struct PercentileCont(AggregateUDF);

impl AggregateUDFImpl for PercentileCont {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.0.inner().return_type(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if !is_of_doubles(&args) {
            return self.0.inner().accumulator(args);
        }
        Ok(Box::new(OfAll { at: Fraction::of(&args)?, values: Values::default() }))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.0.inner().create_sliding_accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.0.inner().state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.0.inner().groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        if !is_of_doubles(&args) {
            return self.0.inner().create_groups_accumulator(args);
        }
        Ok(Box::new(OfGroups { at: Fraction::of(&args)?, groups: Vec::new(), bytes: 0 }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.0.inner().order_sensitivity()
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.inner().documentation()
    }
}

fn is_of_doubles(args: &AccumulatorArgs) -> bool {
    !args.is_distinct && *args.expr_fields[0].data_type() == DataType::Float64
}

/// Where between the first value (0) and the last (1).
#[derive(Debug, Clone, Copy)]
struct Fraction {
    at: f64,
    descending: bool,
}

impl Fraction {
    fn of(args: &AccumulatorArgs) -> Result<Self> {
        let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
        let constant = args.exprs.get(1).and_then(|expr| expr.evaluate(&nothing).ok());
        let Some(ColumnarValue::Scalar(ScalarValue::Float64(Some(at)))) = constant else {
            return plan_err!("the fraction of percentile_cont is a constant number");
        };
        if !(0.0..=1.0).contains(&at) {
            return plan_err!("percentile value {at} is not between 0 and 1");
        }
        Ok(Self { at, descending: args.order_bys.first().is_some_and(|order| order.options.descending) })
    }

    /// As PostgreSQL 15 does in `percentile_cont_final_common`:
    /// <https://github.com/postgres/postgres/blob/REL_15_0/src/backend/utils/adt/orderedsetaggs.c>.
    fn of_values(self, values: &Values) -> Option<f64> {
        let last = values.len().checked_sub(1)?;
        let place = self.at * last as f64;
        // Neither is negative nor above `last`.
        let [first, second] = [place.floor(), place.ceil()].map(|place| place as usize);
        let weight = place - first as f64;
        if self.descending {
            let (low, high) = values.neighbours(last - second, last - first);
            return Some(between(high, low, weight));
        }
        let (low, high) = values.neighbours(first, second);
        Some(between(low, high, weight))
    }
}

fn between(from: f64, to: f64, weight: f64) -> f64 {
    if weight == 0.0 { from } else { from + weight * (to - from) }
}

/// The values of one group, in no order.
#[derive(Debug, Default)]
struct Values {
    own: Vec<f64>,
    /// As they came from another phase.
    slices: Vec<ScalarBuffer<f64>>,
}

impl Values {
    fn len(&self) -> usize {
        self.parts().map(<[f64]>::len).sum()
    }

    fn parts(&self) -> impl Iterator<Item = &[f64]> {
        self.slices.iter().map(|slice| &slice[..]).chain([&self.own[..]])
    }

    fn extend(&mut self, values: &[f64]) {
        self.own.extend_from_slice(values);
    }

    /// Adds what is not NULL.
    fn extend_from(&mut self, values: &Float64Array) {
        match values.null_count() {
            0 => self.extend(values.values()),
            _ => self.own.extend(values.iter().flatten()),
        }
    }

    fn merge(&mut self, values: &ScalarBuffer<f64>) {
        if values.len() < SHORT {
            self.extend(values);
        } else {
            self.slices.push(values.clone());
        }
    }

    /// About, bytes.
    fn size(&self) -> usize {
        let shared: usize = self.slices.iter().map(|slice| size_of_val(&slice[..]) + 40).sum();
        shared + self.own.capacity() * size_of::<f64>()
    }

    /// The values at the places `first` and `second` of the ascending order, which are the same or follow each other.
    fn neighbours(&self, first: usize, second: usize) -> (f64, f64) {
        let (mut near, before, next) = self.near(first);
        let (_, &mut low, above) = near.select_nth_unstable(first - before);
        let high = if first == second { low } else { above.iter().copied().min().unwrap_or(next) };
        (from_key(low), from_key(high))
    }

    /// Keys of some values that are next to each other in the ascending order, that at `place` among them; how many come
    /// before them, and the first that comes after.
    fn near(&self, place: usize) -> (Vec<u64>, usize, u64) {
        if self.len() <= FEW {
            return (self.keys().collect(), 0, u64::MAX);
        }
        let prefix = |key: u64| (key >> (u64::BITS - PREFIX_BITS)) as usize;
        let mut counts = vec![0usize; 1 << PREFIX_BITS];
        self.keys().for_each(|key| counts[prefix(key)] += 1);
        let (mut before, mut wanted) = (0, 0);
        while before + counts[wanted] <= place {
            before += counts[wanted];
            wanted += 1;
        }
        let following = (wanted + 1..counts.len()).find(|&prefix| counts[prefix] > 0);
        let mut near = Vec::with_capacity(counts[wanted]);
        let mut next = u64::MAX;
        for key in self.keys() {
            if prefix(key) == wanted {
                near.push(key);
            } else if Some(prefix(key)) == following {
                next = next.min(key);
            }
        }
        (near, before, next)
    }

    fn keys(&self) -> impl Iterator<Item = u64> {
        self.parts().flatten().map(|&value| to_key(value))
    }
}

const SIGN: u64 = 1 << 63;

/// Orders as PostgreSQL orders doubles: NaN above all. 0 and -0 are told apart, which no one sees between them.
fn to_key(value: f64) -> u64 {
    let bits = value.to_bits();
    if value.is_nan() {
        u64::MAX
    } else if bits & SIGN == 0 {
        bits | SIGN
    } else {
        !bits
    }
}

fn from_key(key: u64) -> f64 {
    if key == u64::MAX {
        f64::NAN
    } else if key & SIGN == 0 {
        f64::from_bits(!key)
    } else {
        f64::from_bits(key & !SIGN)
    }
}

/// Of all rows.
#[derive(Debug)]
struct OfAll {
    at: Fraction,
    values: Values,
}

impl Accumulator for OfAll {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.extend_from(values[0].as_primitive());
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.at.of_values(&self.values)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::List(Arc::new(list(&[std::mem::take(&mut self.values)])?))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for values in states[0].as_list::<i32>().iter().flatten() {
            self.values.merge(values.as_primitive::<Float64Type>().values());
        }
        Ok(())
    }
}

/// Of each group of rows.
#[derive(Debug)]
struct OfGroups {
    at: Fraction,
    groups: Vec<Values>,
    /// Of the groups' values. Counted on the way: there may be many groups.
    bytes: usize,
}

impl OfGroups {
    fn resize(&mut self, groups: usize) {
        self.groups.resize_with(groups, Values::default);
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<Values> {
        let taken = emit_to.take_needed(&mut self.groups);
        self.bytes = self.groups.iter().map(Values::size).sum();
        taken
    }
}

impl GroupsAccumulator for OfGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.resize(total_num_groups);
        let values = values[0].as_primitive::<Float64Type>();
        let held = group_indices.len() * size_of::<f64>();
        if opt_filter.is_some() || values.null_count() > 0 {
            accumulate(group_indices, values, opt_filter, |group, value| self.groups[group].own.push(value));
        } else {
            let mut values = &values.values()[..];
            for run in group_indices.chunk_by(|a, b| a == b) {
                let (of_run, rest) = values.split_at(run.len());
                self.groups[run[0]].extend(of_run);
                values = rest;
            }
        }
        // Vectors grow to twice of what they hold.
        self.bytes += held + held / 2;
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let at = self.at;
        let values = self.take(emit_to);
        Ok(Arc::new(values.iter().map(|values| at.of_values(values)).collect::<Float64Array>()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![Arc::new(list(&self.take(emit_to))?)])
    }

    fn merge_batch(
        &mut self,
        states: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.resize(total_num_groups);
        for (&group, values) in group_indices.iter().zip(states[0].as_list::<i32>().iter()) {
            let Some(values) = values else { continue };
            let values = values.as_primitive::<Float64Type>().values();
            self.bytes += size_of_val(&values[..]);
            self.groups[group].merge(values);
        }
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let values = values[0].as_primitive::<Float64Type>();
        let mut groups: Vec<Values> = Vec::new();
        groups.resize_with(values.len(), Values::default);
        let each: Vec<_> = (0..values.len()).collect();
        accumulate(&each, values, opt_filter, |row, value| groups[row].own.push(value));
        Ok(vec![Arc::new(list(&groups)?)])
    }

    fn size(&self) -> usize {
        self.bytes + self.groups.capacity() * size_of::<Values>()
    }
}

/// A row per group with its values.
fn list(groups: &[Values]) -> Result<ListArray> {
    let lengths: Vec<_> = groups.iter().map(Values::len).collect();
    let count = lengths.iter().sum();
    if i32::try_from(count).is_err() {
        return Err(exec_datafusion_err!("percentile_cont cannot keep {count} values in one piece"));
    }
    let mut values = Vec::with_capacity(count);
    groups.iter().flat_map(Values::parts).for_each(|part| values.extend_from_slice(part));
    let item = Arc::new(Field::new_list_field(DataType::Float64, true));
    let values = Arc::new(Float64Array::new(values.into(), None));
    Ok(ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), values, None)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values_of(slices: &[Vec<f64>], own: &[f64]) -> Values {
        let mut values = Values::default();
        values.extend(own);
        slices.iter().for_each(|slice| values.merge(&slice.clone().into()));
        values
    }

    /// Most are of one octave, as latencies are; the others are anything.
    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![
            6 => 1.0..2.0f64,
            2 => (0..50).prop_map(f64::from),
            2 => any::<f64>(),
            1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(0.0), Just(-0.0)],
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn neighbours_are_those_of_the_sorted_values(
            slices in prop::collection::vec(prop::collection::vec(number(), 0..3 * FEW), 0..3),
            own in prop::collection::vec(number(), 1..200),
            place in any::<prop::sample::Index>(),
        ) {
            let values = values_of(&slices, &own);
            let mut sorted = [slices.concat(), own].concat();
            sorted.sort_by_key(|value| to_key(*value));
            let first = place.index(sorted.len());
            let second = (first + 1).min(sorted.len() - 1);
            let (low, high) = values.neighbours(first, second);
            prop_assert_eq!((to_key(low), to_key(high)), (to_key(sorted[first]), to_key(sorted[second])));
        }
    }

    #[test]
    fn nan_is_the_greatest_and_infinities_are_at_the_ends() {
        let ordered = [f64::NEG_INFINITY, -1.5, -f64::MIN_POSITIVE, 0.0, 2.0, f64::INFINITY, f64::NAN];
        assert!(ordered.is_sorted_by_key(|value| to_key(*value)));
        assert!(ordered[..6].iter().all(|value| from_key(to_key(*value)) == *value));
        assert_eq!(to_key(-f64::NAN), to_key(f64::NAN));
    }

    #[test]
    fn what_lies_between_two_values_is_weighed_without_rounding() {
        let values = values_of(&[], &[0.0, 1.0, 4.0]);
        let at = |at, descending| Fraction { at, descending }.of_values(&values);
        assert_eq!(at(0.123_456_789, false), Some(0.246_913_578));
        assert_eq!(at(0.75, false), Some(2.5));
        assert_eq!(at(0.75, true), Some(0.5));
        assert_eq!(at(1.0, true), Some(0.0));
        assert_eq!(Fraction { at: 0.5, descending: false }.of_values(&Values::default()), None);
    }
}
