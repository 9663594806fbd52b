//! EXPLAIN the way Postgres clients expect it: one text column, a row per line.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{DataFusionError, Result};

use super::statement::text_columns;

/// The one column.
pub(super) fn schema() -> SchemaRef {
    text_columns(&["QUERY PLAN"])
}

/// DataFusion's rows of (kind of plan, plan) as lines.
pub(super) fn lines(batches: &[RecordBatch]) -> Result<RecordBatch> {
    let mut lines: Vec<String> = Vec::new();
    for batch in batches {
        let kinds = cast(batch.column(0), &DataType::Utf8)?;
        let plans = cast(batch.column(1), &DataType::Utf8)?;
        let (kinds, plans) = (strings(&kinds)?, strings(&plans)?);
        for row in 0..batch.num_rows() {
            lines.push(format!("{}:", title(kinds.value(row))));
            lines.extend(plans.value(row).lines().map(|line| format!("  {line}")));
        }
    }
    Ok(RecordBatch::try_new(schema(), vec![Arc::new(StringArray::from(lines))])?)
}

fn strings(array: &Arc<dyn Array>) -> Result<&StringArray> {
    array
        .as_any()
        .downcast_ref::<StringArray>()
        .ok_or_else(|| DataFusionError::Internal("EXPLAIN gives text".to_owned()))
}

fn title(kind: &str) -> String {
    match kind {
        "logical_plan" => "Logical plan".to_owned(),
        "physical_plan" => "Physical plan".to_owned(),
        other => other.to_owned(),
    }
}
