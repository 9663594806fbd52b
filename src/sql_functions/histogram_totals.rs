//! Aggregates that make one thing of several histograms: `histogram_quantile(q, le, count)` over classic
//! buckets, and `histogram_merge(histogram)`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use promontory_promql::histogram::total::Total;
use promontory_promql::operators::{classic_quantile, parse_le};
use promontory_sql::functions::doc::{Family, FunctionDoc};
use promontory_sql::{FunctionError, HistogramBuilder, Histograms, histogram_type, is_histogram};
use promontory_tsdb::ErrorKind;

use super::series::list_field;

/// The functions' entries.
pub(super) const DOCS: &[FunctionDoc] = &[FunctionDoc {
    name: "histogram_merge",
    family: Family::Histograms,
    syntax: &["histogram_merge(histogram) → histogram, an aggregate"],
    gives: "The histogram of all observations of the group, as `sum` of native histograms in PromQL: at the coarsest resolution \
            among them.",
    arguments: &[("histogram", "native histogram")],
    odd_input: "NULL is left out; no rows give NULL, and so do exponential and custom buckets in one group.",
    errors: "",
    differs: "",
    example: "SELECT histogram_quantile(0.9, histogram_merge(histogram)) AS p90\nFROM promql_instant('rate(rpc_seconds[10m])', now());",
}];

/// Both.
pub(super) fn aggregates() -> Vec<AggregateUDF> {
    let signature = || Signature::user_defined(Volatility::Immutable);
    vec![
        AggregateUDF::from(ClassicQuantile { signature: signature() }),
        AggregateUDF::from(Merge { signature: signature() }),
    ]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ClassicQuantile {
    signature: Signature,
}

impl AggregateUDFImpl for ClassicQuantile {
    fn name(&self) -> &'static str {
        "histogram_quantile"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let is_number = |t: &DataType| t.is_numeric() || *t == DataType::Null;
        let is_text = |t: &DataType| match t {
            DataType::Dictionary(_, value) => value.is_string(),
            other => other.is_string(),
        };
        match arg_types {
            [q, le, count] if is_number(q) && is_number(count) && (is_number(le) || is_text(le)) => {
                let le = if is_text(le) { DataType::Utf8 } else { DataType::Float64 };
                Ok(vec![DataType::Float64, le, DataType::Float64])
            }
            _ => {
                let given: Vec<_> = arg_types.iter().map(ToString::to_string).collect();
                plan_err!(
                    "No function matches histogram_quantile({}): it is histogram_quantile(q, histogram) or \
                     histogram_quantile(q, le, count)",
                    given.join(", ")
                )
            }
        }
    }

    fn accumulator(&self, _args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(ClassicBuckets::default()))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![
            Arc::new(Field::new(format!("{}[q]", args.name), DataType::Float64, true)),
            list_field(args.name, "bounds", DataType::Float64),
            list_field(args.name, "counts", DataType::Float64),
        ])
    }
}

/// The buckets of one group.
#[derive(Debug, Default)]
struct ClassicBuckets {
    /// The same for all rows, or else the newest counts.
    q: Option<f64>,
    buckets: Vec<(f64, f64)>,
}

impl Accumulator for ClassicBuckets {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [q, le, counts] = values else { return internal_err!("three arguments") };
        let (q, counts) = (q.as_primitive::<Float64Type>(), counts.as_primitive::<Float64Type>());
        for row in (0..counts.len()).filter(|row| counts.is_valid(*row) && le.is_valid(*row)) {
            let upper = match le.data_type() {
                DataType::Utf8 => {
                    let text = le.as_string::<i32>().value(row);
                    parse_le(text).ok_or_else(|| no_bound(text))?
                }
                _ => le.as_primitive::<Float64Type>().value(row),
            };
            self.buckets.push((upper, counts.value(row)));
        }
        if let Some(row) = (0..q.len()).rev().find(|row| q.is_valid(*row)) {
            self.q = Some(q.value(row));
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let quantile = self.q.filter(|_| !self.buckets.is_empty());
        Ok(ScalarValue::Float64(quantile.map(|q| classic_quantile(q, &self.buckets))))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.buckets.capacity() * size_of::<(f64, f64)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let list = |of: &dyn Fn(&(f64, f64)) -> f64| {
            let items: Vec<_> = self.buckets.iter().map(|b| ScalarValue::from(of(b))).collect();
            ScalarValue::List(ScalarValue::new_list_nullable(&items, &DataType::Float64))
        };
        Ok(vec![ScalarValue::Float64(self.q), list(&|b| b.0), list(&|b| b.1)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [q, bounds, counts] = states else { return internal_err!("a state has three parts") };
        let q = q.as_primitive::<Float64Type>();
        let (bounds, counts) = (bounds.as_list::<i32>(), counts.as_list::<i32>());
        for row in 0..q.len() {
            if q.is_valid(row) {
                self.q = Some(q.value(row));
            }
            let (bounds, counts) = (bounds.value(row), counts.value(row));
            let bounds = bounds.as_primitive::<Float64Type>().values().iter().copied();
            self.buckets.extend(bounds.zip(counts.as_primitive::<Float64Type>().values().iter().copied()));
        }
        Ok(())
    }
}

fn no_bound(text: &str) -> DataFusionError {
    let message = format!("{text:?} is not the upper bound of a bucket");
    DataFusionError::External(Box::new(FunctionError { kind: ErrorKind::Execution, message }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Merge {
    signature: Signature,
}

impl AggregateUDFImpl for Merge {
    fn name(&self) -> &'static str {
        "histogram_merge"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(histogram_type())
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [histogram] if is_histogram(histogram) || *histogram == DataType::Null => {
                Ok(vec![histogram_type()])
            }
            _ => plan_err!("No function matches: it is histogram_merge(histogram) of native histograms"),
        }
    }

    fn accumulator(&self, _args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Merged(None)))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[total]", args.name), DataType::Binary, true))])
    }
}

/// The total so far.
#[derive(Debug)]
struct Merged(Option<Total>);

impl Accumulator for Merged {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [histograms] = values else { return internal_err!("one argument") };
        let column = Histograms::of(histograms.as_ref())?;
        for h in (0..histograms.len()).filter_map(|row| column.get(row)) {
            match &mut self.0 {
                Some(total) => total.add_to_sum(&h),
                None => self.0 = Some(Total::of(&h)),
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut merged = HistogramBuilder::default();
        merged.append(self.0.as_ref().and_then(|total| total.sum(true)).as_ref());
        Ok(ScalarValue::Struct(Arc::new(merged.finish())))
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let bytes = self.0.as_ref().map(|total| {
            let mut bytes = Vec::new();
            total.encode(&mut bytes);
            bytes
        });
        Ok(vec![ScalarValue::Binary(bytes)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [totals] = states else { return internal_err!("a state has one part") };
        let totals = totals.as_binary::<i32>();
        for bytes in totals.iter().flatten() {
            let Some(other) = Total::decode(bytes) else {
                return internal_err!("a total cannot be read back");
            };
            match &mut self.0 {
                Some(total) => total.merge_sum(&other),
                None => self.0 = Some(other),
            }
        }
        Ok(())
    }
}
