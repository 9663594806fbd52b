//! From record batches to Postgres rows, one batch at a time.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, DurationMicrosecondType, Field, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
    IntervalUnit, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use arrow_pg::datatypes::arrow_schema_to_pg_fields;
use arrow_pg::encode_recordbatch;
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::stream::{self, StreamExt};
use pgwire::api::portal::Format;
use pgwire::api::results::{FieldFormat, FieldInfo, QueryResponse};
use pgwire::error::PgWireResult;
use pgwire::types::format::FormatOptions;

use super::sqlstate;
use crate::text;

/// The columns that a client is told of.
pub(super) fn fields(
    schema: &Schema,
    format: &Format,
    metadata: &HashMap<String, String>,
) -> PgWireResult<Arc<Vec<FieldInfo>>> {
    let mut options = FormatOptions::from_client_metadata(metadata);
    if let Some(zone) = metadata.get("timezone") {
        options.time_zone.clone_from(zone);
    }
    let options = Arc::new(options);
    let fields = arrow_schema_to_pg_fields(&client_schema(schema), format, Some(Arc::clone(&options)))?;
    Ok(Arc::new(fields.into_iter().map(|field| field.with_format_options(Arc::clone(&options))).collect()))
}

/// Rows that are encoded in one go. Then others get their turn: a client that reads as fast as rows come
/// must not keep the thread from noticing that another one cancels.
const ROWS_AT_ONCE: usize = 512;

/// The rows of `batches`, encoded as they come.
pub(super) fn response(batches: SendableRecordBatchStream, fields: Arc<Vec<FieldInfo>>) -> QueryResponse {
    let encoder_fields = Arc::clone(&fields);
    let rows = batches
        .flat_map(|batch| stream::iter(slices(batch)))
        .then(|slice| async {
            tokio::task::yield_now().await;
            slice
        })
        .map(move |slice| {
            let rows = slice
                .and_then(client_batch)
                .and_then(|batch| plain_texts(&batch, &encoder_fields))
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

/// `batch` in parts of [`ROWS_AT_ONCE`].
fn slices(
    batch: Result<RecordBatch, DataFusionError>,
) -> impl Iterator<Item = Result<RecordBatch, DataFusionError>> {
    let (batch, error) = match batch {
        Ok(batch) => (Some(batch), None),
        Err(error) => (None, Some(Err(error))),
    };
    let slices = batch.into_iter().flat_map(|batch| {
        let starts = (0..batch.num_rows()).step_by(ROWS_AT_ONCE);
        starts.map(move |start| Ok(batch.slice(start, ROWS_AT_ONCE.min(batch.num_rows() - start))))
    });
    slices.chain(error)
}

/// Postgres has no unsigned integers, `row_number()` and the like are bigints there; and within lists and structs no
/// dictionaries can be written.
fn client_schema(schema: &Schema) -> Schema {
    let fields = schema.fields().iter().map(client_field);
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone())
}

fn client_field(field: &Arc<Field>) -> Arc<Field> {
    match client_type(field.data_type()) {
        Some(data_type) => Arc::new(field.as_ref().clone().with_data_type(data_type)),
        None => Arc::clone(field),
    }
}

/// The type that goes out instead of `data_type`; `None` if that goes out itself.
fn client_type(data_type: &DataType) -> Option<DataType> {
    let within = |field: &Arc<Field>| match field.data_type() {
        DataType::Dictionary(_, value) => {
            let value = client_type(value).unwrap_or_else(|| value.as_ref().clone());
            Some(Arc::new(field.as_ref().clone().with_data_type(value)))
        }
        other => client_type(other).map(|t| Arc::new(field.as_ref().clone().with_data_type(t))),
    };
    match data_type {
        DataType::UInt64 => Some(DataType::Int64),
        DataType::List(item) => within(item).map(DataType::List),
        DataType::Struct(fields) if fields.iter().any(|field| within(field).is_some()) => {
            let fields = fields.iter().map(|field| within(field).unwrap_or_else(|| Arc::clone(field)));
            Some(DataType::Struct(fields.collect()))
        }
        _ => None,
    }
}

fn client_batch(batch: RecordBatch) -> Result<RecordBatch, DataFusionError> {
    if batch.schema_ref().fields().iter().all(|field| client_type(field.data_type()).is_none()) {
        return Ok(batch);
    }
    let schema: SchemaRef = Arc::new(client_schema(batch.schema_ref()));
    let columns = batch
        .columns()
        .iter()
        .map(|column| match client_type(column.data_type()) {
            Some(data_type) => cast(column, &data_type),
            None => Ok(Arc::clone(column)),
        })
        .collect::<Result<Vec<ArrayRef>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// Doubles, instants and intervals that go out as text, as the text that Postgres would print.
fn plain_texts(batch: &RecordBatch, fields: &[FieldInfo]) -> Result<RecordBatch, DataFusionError> {
    let mut columns = batch.columns().to_vec();
    let mut schema_fields = batch.schema_ref().fields().to_vec();
    for (i, field) in fields.iter().enumerate() {
        if field.format() != FieldFormat::Text {
            continue;
        }
        let texts: StringArray = match columns[i].data_type() {
            DataType::Float64 => {
                let extra = field.format_options().extra_float_digits;
                let digits = usize::try_from(15 + extra).unwrap_or(1);
                let print = |v| if extra > 0 { text::float(v) } else { text::rounded_float(v, digits) };
                columns[i].as_primitive::<Float64Type>().iter().map(|v| v.map(print)).collect()
            }
            DataType::Timestamp(_, zone) => {
                let shown = zone.as_ref().and_then(|_| text::zone(&field.format_options().time_zone));
                let shown =
                    shown.map(|(zone, _)| zone).or_else(|| zone.as_ref().and_then(|_| "UTC".parse().ok()));
                let micros = cast(&columns[i], &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
                let micros = micros.as_primitive::<TimestampMicrosecondType>();
                micros.iter().map(|v| v.and_then(|v| text::time(v, shown.as_ref()))).collect()
            }
            DataType::Duration(_) => {
                let micros = cast(&columns[i], &DataType::Duration(TimeUnit::Microsecond))?;
                let micros = micros.as_primitive::<DurationMicrosecondType>();
                micros.iter().map(|v| v.map(text::duration)).collect()
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                let all = columns[i].as_primitive::<IntervalMonthDayNanoType>();
                let print = |v: IntervalMonthDayNano| text::interval(v.months, v.days, v.nanoseconds / 1000);
                all.iter().map(|v| v.map(print)).collect()
            }
            _ => continue,
        };
        columns[i] = Arc::new(texts);
        schema_fields[i] = Arc::new(schema_fields[i].as_ref().clone().with_data_type(DataType::Utf8));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(schema_fields)), columns, &options)?)
}
