//! From record batches to Postgres rows, one batch at a time.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_pg::datatypes::arrow_schema_to_pg_fields;
use arrow_pg::encode_recordbatch;
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::stream::{self, StreamExt};
use pgwire::api::portal::Format;
use pgwire::api::results::{FieldInfo, QueryResponse};
use pgwire::error::PgWireResult;
use pgwire::types::format::FormatOptions;

use super::sqlstate;

/// The columns that a client is told of.
pub(super) fn fields(
    schema: &Schema,
    format: &Format,
    metadata: &HashMap<String, String>,
) -> PgWireResult<Arc<Vec<FieldInfo>>> {
    let options = Arc::new(FormatOptions::from_client_metadata(metadata));
    let fields = arrow_schema_to_pg_fields(&client_schema(schema), format, Some(Arc::clone(&options)))?;
    Ok(Arc::new(fields.into_iter().map(|field| field.with_format_options(Arc::clone(&options))).collect()))
}

/// The rows of `batches`, encoded as they come.
pub(super) fn response(batches: SendableRecordBatchStream, fields: Arc<Vec<FieldInfo>>) -> QueryResponse {
    let encoder_fields = Arc::clone(&fields);
    let rows = batches
        .map(move |batch| {
            let rows = batch
                .and_then(client_batch)
                .map(|batch| encode_recordbatch(Arc::clone(&encoder_fields), batch))
                .map_err(|error| sqlstate::from_datafusion(&error));
            match rows {
                Ok(rows) => stream::iter(rows).left_stream(),
                Err(error) => stream::iter([Err(error)]).right_stream(),
            }
        })
        .flatten();
    QueryResponse::new(fields, rows)
}

/// Postgres has no unsigned integers; `row_number()` and the like are bigints there.
fn client_schema(schema: &Schema) -> Schema {
    let fields = schema.fields().iter().map(|field| client_field(field));
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone())
}

fn client_field(field: &Arc<Field>) -> Arc<Field> {
    match field.data_type() {
        DataType::UInt64 => Arc::new(field.as_ref().clone().with_data_type(DataType::Int64)),
        _ => Arc::clone(field),
    }
}

fn client_batch(batch: RecordBatch) -> Result<RecordBatch, DataFusionError> {
    if batch.schema_ref().fields().iter().all(|f| *f.data_type() != DataType::UInt64) {
        return Ok(batch);
    }
    let schema: SchemaRef = Arc::new(client_schema(batch.schema_ref()));
    let columns = batch
        .columns()
        .iter()
        .map(|column| match column.data_type() {
            DataType::UInt64 => cast(column, &DataType::Int64),
            _ => Ok(Arc::clone(column)),
        })
        .collect::<Result<Vec<ArrayRef>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}
