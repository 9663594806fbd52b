//! `list_or_empty(list)`: what `ARRAY(SELECT …)` gives where there are no rows.

use std::sync::Arc;

use arrow::array::{Array, AsArray, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::prelude::SessionContext;

/// Adds the function to `context`.
pub(super) fn install(context: &SessionContext) {
    context.register_udf(ScalarUDF::from(ListOrEmpty(Signature::any(1, Volatility::Immutable))));
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ListOrEmpty(Signature);

impl ScalarUDFImpl for ListOrEmpty {
    fn name(&self) -> &'static str {
        "list_or_empty"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [list @ DataType::List(_)] => Ok(list.clone()),
            _ => plan_err!("ARRAY() takes a query with one column"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(list) = args.args.first() else { return plan_err!("ARRAY() takes a query") };
        let list = list.to_array(args.number_rows)?;
        let list: &ListArray = list.as_list();
        if list.null_count() == 0 {
            return Ok(ColumnarValue::Array(Arc::new(list.clone())));
        }
        // A NULL may have items under it.
        let lengths = (0..list.len()).map(|row| if list.is_null(row) { 0 } else { list.value(row).len() });
        let offsets = OffsetBuffer::from_lengths(lengths.collect::<Vec<_>>());
        let known: Vec<_> =
            (0..list.len()).filter(|row| list.is_valid(*row)).map(|row| list.value(row)).collect();
        let items: Vec<&dyn Array> = known.iter().map(AsRef::as_ref).collect();
        let items = match items.is_empty() {
            true => arrow::array::new_empty_array(&list.value_type()),
            false => arrow::compute::concat(&items)?,
        };
        let DataType::List(item) = list.data_type() else { return plan_err!("a list has items") };
        Ok(ColumnarValue::Array(Arc::new(ListArray::try_new(Arc::clone(item), offsets, items, None)?)))
    }
}
