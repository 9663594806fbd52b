//! From record batches to Postgres rows, one batch at a time.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
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

/// Doubles and instants that go out as text, as the text that Postgres would print.
fn plain_texts(batch: &RecordBatch, fields: &[FieldInfo]) -> Result<RecordBatch, DataFusionError> {
    let mut columns = batch.columns().to_vec();
    let mut schema_fields = batch.schema_ref().fields().to_vec();
    for (i, field) in fields.iter().enumerate() {
        if field.format() != FieldFormat::Text {
            continue;
        }
        let texts: StringArray = match columns[i].data_type() {
            DataType::Float64 => {
                columns[i].as_primitive::<Float64Type>().iter().map(|v| v.map(float_text)).collect()
            }
            DataType::Timestamp(_, Some(zone)) if matches!(zone.as_ref(), "UTC" | "+00:00") => {
                let micros =
                    cast(&columns[i], &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))?;
                micros
                    .as_primitive::<TimestampMicrosecondType>()
                    .iter()
                    .map(|v| v.and_then(time_text))
                    .collect()
            }
            _ => continue,
        };
        columns[i] = Arc::new(texts);
        schema_fields[i] = Arc::new(schema_fields[i].as_ref().clone().with_data_type(DataType::Utf8));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(schema_fields)), columns, &options)?)
}

/// An instant in UTC, without the zeros at its end.
fn time_text(micros: i64) -> Option<String> {
    let time = chrono::DateTime::from_timestamp_micros(micros)?;
    let text = time.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
    Some(format!("{}+00", text.trim_end_matches('0').trim_end_matches('.')))
}

/// The shortest text that reads back as `v`, in the form of C's `%g`: an exponent of at least two
/// digits below 1e-4 and from 1e15 on, plain digits between.
fn float_text(v: f64) -> String {
    if v.is_nan() {
        return "NaN".to_owned();
    }
    if v.is_infinite() {
        return if v > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = format!("{v:e}");
    let exponent = scientific.split_once('e').and_then(|(digits, e)| Some((digits, e.parse::<i32>().ok()?)));
    match exponent {
        Some((digits, e)) if !(-4..15).contains(&e) => {
            let sign = if e < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", e.abs())
        }
        _ => v.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected texts are what `SELECT v::float8` prints in PostgreSQL 15.
    #[test]
    fn doubles_read_as_postgres_prints_them() {
        for (v, expected) in [
            (1.0, "1"),
            (0.0, "0"),
            (-0.0, "-0"),
            (0.1, "0.1"),
            (7200.5, "7200.5"),
            (1e100, "1e+100"),
            (1e15, "1e+15"),
            (1e14, "100000000000000"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-1.5e-7, "-1.5e-07"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(float_text(v), expected);
        }
        assert_eq!(float_text(f64::NAN), "NaN");
    }

    #[test]
    fn instants_lose_the_zeros_at_their_end_and_no_others() {
        assert_eq!(time_text(0).as_deref(), Some("1970-01-01 00:00:00+00"));
        assert_eq!(time_text(1_767_268_800_250_000).as_deref(), Some("2026-01-01 12:00:00.25+00"));
    }
}
