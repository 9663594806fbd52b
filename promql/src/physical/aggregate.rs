//! Vector aggregates as DataFusion aggregate functions over `floats`.
//!
//! They work on groups only (`GroupsAccumulator`), in two phases when there are several partitions:
//! the state travels as one `FixedSizeList` column per state component, the presence of lanes as
//! the nulls of the first.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use super::tiles::{Lanes, lanes_array};
use crate::histogram::lanes::Column;
use crate::kernels::aggregate as kernel;
use crate::kernels::aggregate::{Groups, LaneOp};
use crate::parser::ast::AggregateOp;

/// The function for `op` over a `floats` column; `None` if the operator is not of the kind "one
/// value per group and step, kept up value by value".
pub fn vector_aggregate(op: AggregateOp) -> Option<AggregateUDF> {
    let (name, state_columns) = match op {
        AggregateOp::Sum => ("prom_sum", 2),
        AggregateOp::Avg => ("prom_avg", 4),
        AggregateOp::Count => ("prom_count", 1),
        AggregateOp::Min => ("prom_min", 1),
        AggregateOp::Max => ("prom_max", 1),
        AggregateOp::Group => ("prom_group", 1),
        AggregateOp::Stddev => ("prom_stddev", 3),
        AggregateOp::Stdvar => ("prom_stdvar", 3),
        AggregateOp::TopK
        | AggregateOp::BottomK
        | AggregateOp::CountValues
        | AggregateOp::Quantile
        | AggregateOp::LimitK
        | AggregateOp::LimitRatio => return None,
    };
    let signature = Signature::any(if counts(op) { 2 } else { 1 }, Volatility::Immutable);
    Some(AggregateUDF::new_from_impl(VectorAggregate { op, name, state_columns, signature }))
}

/// The operator of a function of ours; `None` for any other function.
pub(super) fn operator_of(function: &AggregateUDF) -> Option<AggregateOp> {
    function.inner().as_ref().downcast_ref::<VectorAggregate>().map(|function| function.op)
}

/// The states of groups of `lanes` lanes under `op`, for who has rows at hand; `None` as for [`vector_aggregate`].
pub(super) fn lane_states(op: AggregateOp, lanes: usize) -> Option<Box<dyn LaneStates>> {
    Some(match op {
        AggregateOp::Sum => Box::new(VectorAccumulator::<kernel::Sum, 2>::new(lanes)),
        AggregateOp::Avg => Box::new(VectorAccumulator::<kernel::Avg, 4>::new(lanes)),
        AggregateOp::Count => Box::new(VectorAccumulator::<kernel::Count, 1>::new(lanes)),
        AggregateOp::Min => Box::new(VectorAccumulator::<kernel::Min, 1>::new(lanes)),
        AggregateOp::Max => Box::new(VectorAccumulator::<kernel::Max, 1>::new(lanes)),
        AggregateOp::Group => Box::new(VectorAccumulator::<kernel::Group, 1>::new(lanes)),
        AggregateOp::Stddev => Box::new(VectorAccumulator::<kernel::Stddev, 3>::new(lanes)),
        AggregateOp::Stdvar => Box::new(VectorAccumulator::<kernel::Stdvar, 3>::new(lanes)),
        _ => return None,
    })
}

/// States of groups, row by row.
pub(super) trait LaneStates: Send {
    /// Makes sure that there are `groups` groups.
    fn grow(&mut self, groups: usize);

    /// Adds the valid lanes of a row to a group.
    fn update(&mut self, group: usize, row: &[f64], mask: u128);

    /// Bytes of the state of a group.
    fn group_bytes(&self) -> usize;

    /// Takes all states out, as [`GroupsAccumulator::state`] does.
    fn state(&mut self) -> Result<Vec<ArrayRef>>;
}

impl<Op: LaneOp<K>, const K: usize> LaneStates for VectorAccumulator<Op, K> {
    fn grow(&mut self, groups: usize) {
        self.groups.grow::<Op>(groups);
    }

    fn update(&mut self, group: usize, row: &[f64], mask: u128) {
        self.groups.update::<Op>(group, row, mask);
    }

    fn group_bytes(&self) -> usize {
        K * self.groups.lanes() * size_of::<f64>() + size_of::<u128>()
    }

    fn state(&mut self) -> Result<Vec<ArrayRef>> {
        GroupsAccumulator::state(self, EmitTo::All)
    }
}

/// Whether samples are counted, whatever their kind: such functions take `histograms` as well.
pub fn counts(op: AggregateOp) -> bool {
    matches!(op, AggregateOp::Count | AggregateOp::Group)
}

/// An aggregation operator as a function of `floats`, and of `histograms` if it counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct VectorAggregate {
    op: AggregateOp,
    name: &'static str,
    state_columns: usize,
    signature: Signature,
}

impl AggregateUDFImpl for VectorAggregate {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [lanes @ DataType::FixedSizeList(..), ..] => Ok(lanes.clone()),
            other => Err(internal_datafusion_err!("{} of {other:?}", self.name)),
        }
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field = |i: usize| {
            let name = format_state_name(args.name, &i.to_string());
            Arc::new(Field::new(name, args.return_type().clone(), false))
        };
        Ok((0..self.state_columns).map(field).collect())
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Err(internal_datafusion_err!("{} without a group key", self.name))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let DataType::FixedSizeList(_, lanes) = args.return_type() else {
            return Err(internal_datafusion_err!("{} of {}", self.name, args.return_type()));
        };
        let lanes = *lanes as usize;
        Ok(match self.op {
            AggregateOp::Sum => VectorAccumulator::<kernel::Sum, 2>::boxed(lanes),
            AggregateOp::Avg => VectorAccumulator::<kernel::Avg, 4>::boxed(lanes),
            AggregateOp::Count => VectorAccumulator::<kernel::Count, 1>::boxed(lanes),
            AggregateOp::Min => VectorAccumulator::<kernel::Min, 1>::boxed(lanes),
            AggregateOp::Max => VectorAccumulator::<kernel::Max, 1>::boxed(lanes),
            AggregateOp::Group => VectorAccumulator::<kernel::Group, 1>::boxed(lanes),
            AggregateOp::Stddev => VectorAccumulator::<kernel::Stddev, 3>::boxed(lanes),
            AggregateOp::Stdvar => VectorAccumulator::<kernel::Stdvar, 3>::boxed(lanes),
            other => return Err(internal_datafusion_err!("{} is not a vector aggregate", other.name())),
        })
    }
}

/// The states of all groups of one aggregation.
struct VectorAccumulator<Op, const K: usize> {
    groups: Groups<K>,
    op: PhantomData<Op>,
}

impl<Op, const K: usize> fmt::Debug for VectorAccumulator<Op, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VectorAccumulator").field("groups", &self.groups.len()).finish_non_exhaustive()
    }
}

impl<Op: LaneOp<K>, const K: usize> VectorAccumulator<Op, K> {
    fn new(lanes: usize) -> Self {
        Self { groups: Groups::new(lanes), op: PhantomData }
    }

    fn boxed(lanes: usize) -> Box<dyn GroupsAccumulator> {
        Box::new(Self::new(lanes))
    }

    fn count(&self, emit_to: EmitTo) -> usize {
        match emit_to {
            EmitTo::All => self.groups.len(),
            EmitTo::First(n) => n.min(self.groups.len()),
        }
    }
}

impl<Op: LaneOp<K>, const K: usize> GroupsAccumulator for VectorAccumulator<Op, K> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let (rows, histograms) = match values {
            [values] => (Lanes::of(values)?, None),
            [values, histograms] => (Lanes::of(values)?, Some(Column::of(histograms)?)),
            _ => return Err(internal_datafusion_err!("a vector aggregate has one or two arguments")),
        };
        let histograms = histograms.filter(|column| !column.is_empty());
        self.groups.grow::<Op>(total_num_groups);
        for (i, &group) in group_indices.iter().enumerate() {
            if opt_filter.is_none_or(|f| f.is_valid(i) && f.value(i)) {
                let (row, mut mask) = rows.row(i);
                if let Some(column) = histograms {
                    mask |= column.row(i).mask();
                }
                self.groups.update::<Op>(group, row, mask);
            }
        }
        Ok(())
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        let columns = values.iter().map(Lanes::of).collect::<Result<Vec<_>>>()?;
        let columns = <[Lanes<'_>; K]>::try_from(columns)
            .map_err(|c| internal_datafusion_err!("{} of {K} state columns", c.len()))?;
        self.groups.grow::<Op>(total_num_groups);
        for (i, &group) in group_indices.iter().enumerate() {
            // The first column says which lanes there are.
            let mask = columns.first().map_or(0, |c| c.row(i).1);
            self.groups.merge::<Op>(group, columns.each_ref().map(|c| c.row(i).0), mask);
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let n = self.count(emit_to);
        let (seen, values) = self.groups.finish::<Op>(n);
        Ok(Arc::new(lanes_array(self.groups.lanes(), values, Some(&seen))?))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let n = self.count(emit_to);
        let (seen, columns) = self.groups.take(n);
        let lanes = self.groups.lanes();
        let array = |(k, column): (usize, Vec<f64>)| {
            let masks = (k == 0).then_some(seen.as_slice());
            Ok(Arc::new(lanes_array(lanes, column, masks)?) as ArrayRef)
        };
        columns.into_iter().enumerate().map(array).collect()
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |v| v.len());
        let mut each = Self::new(self.groups.lanes());
        each.update_batch(values, &(0..rows).collect::<Vec<_>>(), opt_filter, rows)?;
        GroupsAccumulator::state(&mut each, EmitTo::All)
    }

    fn size(&self) -> usize {
        self.groups.bytes()
    }
}
