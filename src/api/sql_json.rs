//! [`JsonRows`]: record batches as JSON arrays, one per row.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::array::{PrimitiveArray, RecordBatch};
use arrow::datatypes::{ArrowPrimitiveType, DataType, FieldRef, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow_json::writer::{JsonFormat, NullableEncoder, Writer, WriterBuilder};
use arrow_json::{Encoder, EncoderFactory, EncoderOptions, StructMode};
use bytes::Bytes;

/// Writes rows one after the other, with commas between them.
#[derive(Debug)]
pub(super) struct JsonRows(Writer<Vec<u8>, Separated>);

impl JsonRows {
    pub(super) fn new() -> Self {
        let builder = WriterBuilder::new()
            .with_explicit_nulls(true)
            .with_struct_mode(StructMode::ListOnly)
            .with_encoder_factory(Arc::new(Doubles));
        Self(builder.build(Vec::new()))
    }

    /// The text of the rows of `batch`.
    ///
    /// # Errors
    /// If there is a column that has no form in JSON.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<Bytes, ArrowError> {
        self.0.write(batch)?;
        Ok(Bytes::from(std::mem::take(self.0.get_mut())))
    }
}

/// Rows with commas between them and nothing around.
#[derive(Debug, Default)]
struct Separated;

impl JsonFormat for Separated {
    fn start_row<W: Write>(&self, writer: &mut W, is_first_row: bool) -> Result<(), ArrowError> {
        if !is_first_row {
            writer.write_all(b",")?;
        }
        Ok(())
    }
}

/// Writes doubles that JSON has no numbers for as the texts of Postgres; null would say that there is no
/// value.
#[derive(Debug)]
struct Doubles;

impl EncoderFactory for Doubles {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Float64 => Box::new(Finite(array.as_primitive::<Float64Type>())),
            DataType::Float32 => Box::new(Finite(array.as_primitive::<Float32Type>())),
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

struct Finite<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>);

impl<T: ArrowPrimitiveType> Encoder for Finite<'_, T>
where
    T::Native: Into<f64> + serde::Serialize,
{
    fn encode(&mut self, idx: usize, out: &mut Vec<u8>) {
        let value = self.0.value(idx);
        let double: f64 = value.into();
        let text: &[u8] = if double.is_nan() {
            b"\"NaN\""
        } else if double == f64::INFINITY {
            b"\"Infinity\""
        } else if double == f64::NEG_INFINITY {
            b"\"-Infinity\""
        } else {
            // Cannot fail: a finite number into memory.
            let _ = serde_json::to_writer(out, &value);
            return;
        };
        out.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, RecordBatch, StringArray, TimestampMillisecondArray};

    use super::*;

    #[test]
    fn rows_are_arrays_and_doubles_stay_what_they_are() {
        let values =
            Float64Array::from(vec![Some(1.0), None, Some(f64::NAN), Some(f64::NEG_INFINITY), Some(0.1)]);
        let times = TimestampMillisecondArray::from(vec![0, 1, 2, 3, 4]).with_timezone("UTC");
        let names = StringArray::from(vec![Some("a\"b"), None, Some("c"), Some("d"), Some("e")]);
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("v", Arc::new(values) as Arc<dyn Array>, true),
            ("t", Arc::new(times), true),
            ("n", Arc::new(names), true),
        ])
        .unwrap();
        let mut rows = JsonRows::new();
        let text =
            [rows.write(&batch.slice(0, 2)).unwrap(), rows.write(&batch.slice(2, 3)).unwrap()].concat();
        let text = String::from_utf8(text).unwrap();
        let read: serde_json::Value = serde_json::from_str(&format!("[{text}]")).unwrap();
        let first = serde_json::json!([1.0, "1970-01-01T00:00:00Z", "a\"b"]);
        assert_eq!(read[0], first, "{text}");
        assert_eq!(read[1], serde_json::json!([null, "1970-01-01T00:00:00.001Z", null]), "{text}");
        let doubles: Vec<_> = (2..5).map(|i| read[i][0].clone()).collect();
        assert_eq!(
            doubles,
            [serde_json::json!("NaN"), serde_json::json!("-Infinity"), serde_json::json!(0.1)]
        );
    }
}
