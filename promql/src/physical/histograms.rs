//! Sums of histograms as DataFusion aggregate functions over `histograms`.
//!
//! Floats are added up by a function of their own ([`super::aggregate`]); that a group has both at
//! one step is found out behind the aggregate (`Totals`). State and result are the same: a
//! [`Total`] per lane, in the encoding of the column, null for groups without a histogram. While no
//! histogram comes, nothing is allocated and nothing is looked at row by row.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use promontory_tsdb::histogram::FloatHistogram;

use crate::histogram::lanes::{Column, ColumnBuilder, encode_lanes};
use crate::histogram::total::Total;

/// What becomes of the histograms of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HistogramAggregation {
    /// They are added up.
    Sum,
    /// Their mean.
    Mean,
    /// They are left out: the column is null.
    Nothing,
}

/// The function for `kind` over a `histograms` column.
pub fn histogram_aggregate(kind: HistogramAggregation) -> AggregateUDF {
    let name = match kind {
        HistogramAggregation::Sum => "prom_sum_histograms",
        HistogramAggregation::Mean => "prom_avg_histograms",
        HistogramAggregation::Nothing => "prom_no_histograms",
    };
    let signature = Signature::any(1, Volatility::Immutable);
    AggregateUDF::new_from_impl(Function { kind, name, signature })
}

/// What a function of ours does; `None` for any other function.
pub(super) fn kind_of(function: &AggregateUDF) -> Option<HistogramAggregation> {
    function.inner().as_ref().downcast_ref::<Function>().map(|function| function.kind)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Function {
    kind: HistogramAggregation,
    name: &'static str,
    signature: Signature,
}

impl AggregateUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::LargeBinary)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let name = format_state_name(args.name, "0");
        Ok(vec![Arc::new(Field::new(name, DataType::LargeBinary, true))])
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Err(internal_datafusion_err!("{} without a group key", self.name))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Totals::new(self.kind)))
    }
}

/// Totals by lane.
type Group = BTreeMap<usize, Total>;

/// The states of all groups of one aggregation.
#[derive(Debug)]
pub(super) struct Totals {
    kind: HistogramAggregation,
    /// The first groups; those behind them have no histogram.
    groups: Vec<Group>,
    /// Number of groups.
    count: usize,
}

impl Totals {
    pub(super) fn new(kind: HistogramAggregation) -> Self {
        Self { kind, groups: Vec::new(), count: 0 }
    }

    /// Makes sure that there are `groups` groups.
    pub(super) fn grow(&mut self, groups: usize) {
        self.count = self.count.max(groups);
    }

    /// Adds a histogram to a lane of a group.
    pub(super) fn add(&mut self, group: usize, lane: usize, histogram: &FloatHistogram) {
        let mean = self.kind == HistogramAggregation::Mean;
        self.group(group)
            .entry(lane)
            .and_modify(|total| {
                if mean {
                    total.add_to_mean(histogram);
                } else {
                    total.add_to_sum(histogram);
                }
            })
            .or_insert_with(|| Total::of(histogram));
    }

    fn column<'a>(&self, values: &'a [ArrayRef]) -> Result<Option<Column<'a>>> {
        let [values] = values else {
            return Err(internal_datafusion_err!("an aggregate of histograms has one argument"));
        };
        if self.kind == HistogramAggregation::Nothing {
            return Ok(None);
        }
        let column = Column::of(values)?;
        Ok((!column.is_empty()).then_some(column))
    }

    fn group(&mut self, index: usize) -> &mut Group {
        if index >= self.groups.len() {
            self.groups.resize_with(self.count.max(index + 1), Group::new);
        }
        &mut self.groups[index]
    }

    fn encode(&mut self, emit_to: EmitTo) -> ArrayRef {
        let rows = match emit_to {
            EmitTo::All => self.count,
            EmitTo::First(n) => n.min(self.count),
        };
        self.count -= rows;
        let mut column = ColumnBuilder::default();
        for (row, group) in self.groups.drain(..rows.min(self.groups.len())).enumerate() {
            let mask = group.keys().fold(0_u128, |mask, lane| mask | 1 << lane);
            let write = |lane: usize, out: &mut Vec<u8>| {
                if let Some(total) = group.get(&lane) {
                    total.encode(out);
                }
            };
            column.put(row, |out| encode_lanes(mask, write, out));
        }
        Arc::new(column.finish(rows))
    }
}

impl GroupsAccumulator for Totals {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.count = self.count.max(total_num_groups);
        let Some(column) = self.column(values)? else { return Ok(()) };
        for (i, &index) in group_indices.iter().enumerate() {
            if column.bytes(i).is_empty() || opt_filter.is_some_and(|f| !f.is_valid(i) || !f.value(i)) {
                continue;
            }
            for (lane, histogram) in column.row(i).iter() {
                self.add(index, lane, &histogram);
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
        self.count = self.count.max(total_num_groups);
        let Some(column) = self.column(values)? else { return Ok(()) };
        let mean = self.kind == HistogramAggregation::Mean;
        for (i, &index) in group_indices.iter().enumerate() {
            if column.bytes(i).is_empty() {
                continue;
            }
            let group = self.group(index);
            for (lane, bytes) in column.row(i).blobs() {
                let other = Total::decode(bytes)
                    .ok_or_else(|| internal_datafusion_err!("a state of an aggregate is no total"))?;
                match group.get_mut(&lane) {
                    Some(total) if mean => total.merge_mean(&other),
                    Some(total) => total.merge_sum(&other),
                    None => {
                        group.insert(lane, other);
                    }
                }
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(self.encode(emit_to))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.encode(emit_to)])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |v| v.len());
        let mut each = Self { kind: self.kind, groups: Vec::new(), count: 0 };
        each.update_batch(values, &(0..rows).collect::<Vec<_>>(), opt_filter, rows)?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        let totals: usize = self.groups.iter().map(BTreeMap::len).sum();
        self.groups.capacity() * size_of::<Group>() + totals * 2 * size_of::<Total>()
    }
}
