//! Statements on their way between calls, and rows on their way to clients.
//!
//! What clients send back is decoded only under this process' own signature, and what they send of their own with its
//! sizes looked at first: Arrow's decoders take room for as much as a message says that it holds.

use std::pin::pin;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use bytes::Bytes;
use datafusion::common::ScalarValue;
use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use ring::{digest, hmac};
use tonic::Status;

use super::status;

/// Most that a statement with its parameters may be, bytes. Clients send it back as part of their messages.
const MAX_STATEMENT_BYTES: usize = 1024 * 1024;
/// Most that a client may send as parameters, bytes.
const MAX_STREAM_BYTES: usize = 4 * 1024 * 1024;
/// Parameters of a statement, as on the Postgres wire.
const MAX_PARAMETERS: usize = 65_535;

/// A statement as it stands in tickets and in handles of prepared statements.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Statement {
    /// What it says.
    #[prost(string, tag = "1")]
    pub(super) text: String,
    /// The values of its parameters: an Arrow IPC stream of one row; empty if there are none.
    #[prost(bytes = "bytes", tag = "2")]
    parameters: Bytes,
}

impl Statement {
    pub(super) fn new(text: String) -> Self {
        Self { text, parameters: Bytes::new() }
    }

    /// The same with the values that `stream`, what a client puts, binds.
    pub(super) async fn bound(
        self,
        stream: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    ) -> Result<Self, Status> {
        // In a task of its own, so that whatever the decoder makes of hostile bytes ends no more than this call.
        let decoded = tokio::spawn(one_row(bounded(stream)));
        let row = decoded.await.map_err(|_| status::malformed("the parameters cannot be read"))??;
        let Some(row) = row else { return Ok(Self { parameters: Bytes::new(), ..self }) };
        let write = || -> Result<Vec<u8>, ArrowError> {
            let mut writer = StreamWriter::try_new(Vec::new(), row.schema_ref())?;
            writer.write(&row)?;
            writer.into_inner()
        };
        let parameters = write().map_err(|error| status::malformed(format!("the parameters: {error}")))?;
        Ok(Self { parameters: parameters.into(), ..self })
    }

    /// The values of its parameters.
    pub(super) fn parameters(&self) -> Result<Vec<ScalarValue>, Status> {
        if self.parameters.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = &self.parameters;
        let read = || -> Result<Vec<ScalarValue>, Status> {
            let unreadable =
                |error: &dyn std::fmt::Display| status::malformed(format!("the parameters: {error}"));
            let reader = StreamReader::try_new(&bytes[..], None).map_err(|error| unreadable(&error))?;
            for batch in reader {
                let batch = batch.map_err(|error| unreadable(&error))?;
                if batch.num_rows() > 0 {
                    let values = batch.columns().iter().map(|column| ScalarValue::try_from_array(column, 0));
                    return values.collect::<Result<_, _>>().map_err(|error| unreadable(&error));
                }
            }
            Ok(Vec::new())
        };
        read()
    }
}

/// Makes statements to tickets and handles, and reads them again.
pub(super) struct Seal(hmac::Key);

impl Seal {
    /// With a key that only this process knows.
    pub(super) fn new() -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()))
    }

    /// What clients get of `statement`.
    pub(super) fn handle(&self, statement: &Statement) -> Result<Bytes, Status> {
        let said = statement.encode_to_vec();
        if said.len() > MAX_STATEMENT_BYTES {
            return Err(Status::resource_exhausted(
                "a statement with its parameters may be 1 MiB at most (SQLSTATE 54000)",
            ));
        }
        Ok([hmac::sign(&self.0, &said).as_ref(), &said].concat().into())
    }

    /// Reads what [`Seal::handle`] wrote, and nothing else.
    pub(super) fn read(&self, handle: &[u8]) -> Result<Statement, Status> {
        let read = || {
            let (signature, said) = handle.split_at_checked(digest::SHA256_OUTPUT_LEN)?;
            hmac::verify(&self.0, said, signature).ok()?;
            Statement::decode(said).ok()
        };
        read().ok_or_else(|| status::malformed("this is no ticket and no handle that this server gave out"))
    }
}

/// `stream`, of which there may be so much, and which may not say that it is packed: then it says how much it is.
fn bounded(
    stream: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> impl Stream<Item = Result<FlightData, Status>> + Send + 'static {
    let mut left = MAX_STREAM_BYTES;
    stream.map(move |data| {
        let data = data?;
        let too_much = || Status::resource_exhausted("the parameters are too large (SQLSTATE 54000)");
        left = left.checked_sub(data.encoded_len()).ok_or_else(too_much)?;
        if let Ok(message) = arrow_ipc::root_as_message(&data.data_header) {
            let in_dictionary = message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
            let batch = message.header_as_record_batch().or(in_dictionary);
            if batch.is_some_and(|batch| batch.compression().is_some()) {
                return Err(status::unsupported("parameters are not taken compressed"));
            }
        }
        Ok(data)
    })
}

/// The one row of a stream; `None` if there is none.
async fn one_row(
    stream: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> Result<Option<RecordBatch>, Status> {
    let stream = stream.map_err(|status| FlightError::Tonic(Box::new(status)));
    let mut batches = pin!(FlightRecordBatchStream::new_from_flight_data(stream));
    let mut row: Option<RecordBatch> = None;
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(|error| match error {
            FlightError::Tonic(status) => *status,
            other => status::malformed(format!("the parameters: {other}")),
        })?;
        if batch.num_columns() > MAX_PARAMETERS {
            return Err(status::malformed("there are too many parameters"));
        }
        if batch.num_rows() + row.as_ref().map_or(0, RecordBatch::num_rows) > 1 {
            return Err(status::unsupported("a query takes one row of parameters"));
        }
        row = Some(batch).filter(|batch| batch.num_rows() == 1).or(row);
    }
    Ok(row)
}

/// How `schema` goes out: dictionaries and views as what they stand for, which all clients know; and whatever a plan
/// promises of NULLs is left out, so that a schema that is told beforehand is that of the rows.
pub(super) fn wire_schema(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(wire_field).collect::<Vec<_>>()))
}

fn wire_field(field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(field.name(), wire_type(field.data_type()), true))
}

fn wire_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, value) => wire_type(value),
        // As on the Postgres wire, which knows no others.
        DataType::UInt64 => DataType::Int64,
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) | DataType::ListView(item) => DataType::List(wire_field(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(wire_field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(wire_field).collect()),
        other => other.clone(),
    }
}

/// `batch` as `schema` says, which [`wire_schema`] made of its own.
pub(super) fn wire_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| match column.data_type() == field.data_type() {
        true => Ok(Arc::clone(column)),
        false => cast(column, field.data_type()),
    });
    let columns = columns.collect::<Result<Vec<ArrayRef>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, DictionaryArray, Int64Array, StringArray};
    use arrow::datatypes::Int32Type;
    use arrow_flight::encode::FlightDataEncoderBuilder;
    use arrow_ipc::CompressionType;
    use arrow_ipc::writer::IpcWriteOptions;
    use futures::stream;

    use super::*;

    fn sent(batches: Vec<RecordBatch>) -> impl Stream<Item = Result<FlightData, Status>> + Send + 'static {
        FlightDataEncoderBuilder::new().build(stream::iter(batches.into_iter().map(Ok))).map_err(Status::from)
    }

    fn row(values: &[i64]) -> RecordBatch {
        RecordBatch::try_from_iter([("1", Arc::new(Int64Array::from(values.to_vec())) as ArrayRef)])
            .expect("a batch")
    }

    #[tokio::test]
    async fn a_handle_carries_text_and_parameters() {
        let seal = Seal::new();
        let statement = Statement::new("SELECT $1".to_owned());
        let bound = statement.clone().bound(sent(vec![row(&[]), row(&[7])])).await.expect("binds");
        let read = seal.read(&seal.handle(&bound).expect("fits")).expect("reads");
        assert_eq!(read.text, "SELECT $1");
        assert_eq!(read.parameters().expect("reads"), [ScalarValue::from(7_i64)]);
        assert!(statement.clone().bound(sent(vec![row(&[1, 2])])).await.is_err());
        assert!(statement.bound(sent(vec![row(&[1]), row(&[2])])).await.is_err());
        assert!(seal.handle(&Statement::new("x".repeat(MAX_STATEMENT_BYTES))).is_err());
    }

    #[test]
    fn a_handle_that_was_changed_or_is_of_another_process_is_not_read() {
        let seal = Seal::new();
        let whole = seal.handle(&Statement::new("SELECT 1".to_owned())).expect("fits");
        assert!(seal.read(&whole).is_ok() && Seal::new().read(&whole).is_err());
        for at in 0..whole.len() {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 1;
            assert!(seal.read(&bytes).is_err() && seal.read(&whole[..at]).is_err());
        }
    }

    #[tokio::test]
    async fn parameters_of_any_bytes_give_errors_or_values() {
        let good: Vec<FlightData> = sent(vec![row(&[7])]).try_collect().await.expect("encodes");
        let put = |data: Vec<FlightData>| {
            Statement::new(String::new()).bound(stream::iter(data.into_iter().map(Ok)).boxed())
        };
        assert!(put(good.clone()).await.is_ok());
        for message in 0..good.len() {
            for at in 0..good[message].data_header.len() {
                for bit in 0..8 {
                    let mut data = good.clone();
                    let mut header = data[message].data_header.to_vec();
                    header[at] ^= 1 << bit;
                    data[message].data_header = header.into();
                    let _ = put(data).await;
                }
            }
            for cut in 0..good[message].data_body.len() {
                let mut data = good.clone();
                data[message].data_body.truncate(cut);
                let _ = put(data).await;
            }
        }
        let many = FlightData { data_body: vec![0; MAX_STREAM_BYTES].into(), ..FlightData::default() };
        let refused = put(vec![good[0].clone(), many]).await.expect_err("too much");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    }

    #[tokio::test]
    async fn packed_parameters_are_refused_before_room_is_made_for_them() {
        let options = IpcWriteOptions::default()
            .try_with_compression(Some(CompressionType::LZ4_FRAME))
            .expect("takes it");
        let many = RecordBatch::try_from_iter([(
            "1",
            Arc::new(StringArray::from(vec!["x".repeat(9999)])) as ArrayRef,
        )]);
        let batches = stream::iter([many.map_err(FlightError::Arrow)]);
        let packed =
            FlightDataEncoderBuilder::new().with_options(options).build(batches).map_err(Status::from);
        let refused = Statement::new(String::new()).bound(packed).await.expect_err("is packed");
        assert!(refused.message().contains("compressed"), "{refused}");
    }

    #[test]
    fn dictionaries_go_out_as_their_values_at_any_depth() {
        let labels: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
        let batch = RecordBatch::try_from_iter([("job", Arc::new(labels) as ArrayRef)]).expect("a batch");
        let sent = wire_batch(&batch, &wire_schema(batch.schema_ref())).expect("casts");
        assert_eq!(sent.column(0).as_string::<i32>(), &StringArray::from(vec!["a", "b", "a"]));
        let nested = DataType::List(Arc::new(Field::new("item", batch.column(0).data_type().clone(), false)));
        let wanted = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
        assert_eq!(wire_type(&nested), wanted);
    }
}
