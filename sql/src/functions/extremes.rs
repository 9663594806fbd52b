//! `min` and `max` where groups have NaN and infinities.
//!
//! PostgreSQL takes NaN for the greatest of all. DataFusion's accumulators of groups let the values after a NaN win, and
//! begin with the least finite value, which is above -Infinity. Everything else is DataFusion's.

use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF,
    SetMonotonicity, Signature, StatisticsArgs,
};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::prim_op::PrimitiveGroupsAccumulator;

/// `min` and `max`.
pub(super) fn functions() -> [AggregateUDF; 2] {
    [min_udaf(), max_udaf()].map(|original| AggregateUDF::from(Extreme(original.as_ref().clone())))
}

/// DataFusion's function, but for doubles in groups.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme(AggregateUDF);

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.0.inner().return_type(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.0.inner().accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<arrow::datatypes::FieldRef>> {
        self.0.inner().state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.0.inner().groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let data_type = args.return_field.data_type();
        if *data_type != DataType::Float64 {
            return self.0.inner().create_groups_accumulator(args);
        }
        Ok(if self.0.name() == "max" {
            let greater = |current: &mut f64, new: f64| {
                if new > *current || new.is_nan() {
                    *current = new;
                }
            };
            let groups = PrimitiveGroupsAccumulator::<Float64Type, _>::new(data_type, greater);
            Box::new(groups.with_starting_value(f64::NEG_INFINITY))
        } else {
            let less = |current: &mut f64, new: f64| {
                if new < *current || current.is_nan() {
                    *current = new;
                }
            };
            let groups = PrimitiveGroupsAccumulator::<Float64Type, _>::new(data_type, less);
            Box::new(groups.with_starting_value(f64::NAN))
        })
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.0.inner().create_sliding_accumulator(args)
    }

    fn is_descending(&self) -> Option<bool> {
        self.0.inner().is_descending()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.0.inner().order_sensitivity()
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.0.inner().coerce_types(arg_types)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn value_from_stats(&self, statistics: &StatisticsArgs) -> Option<ScalarValue> {
        self.0.inner().value_from_stats(statistics)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.inner().documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.0.inner().set_monotonicity(data_type)
    }
}
