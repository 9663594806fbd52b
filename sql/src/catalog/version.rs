//! `version()`, in the form that clients take apart: `PostgreSQL`, a version, the rest.

use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

/// The Postgres version that clients are told, because they choose their catalog queries by it.
pub(crate) const POSTGRES_VERSION: &str = "15.0";

/// What this server is.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Version {
    signature: Signature,
}

impl Version {
    /// `version()`.
    pub(crate) fn new() -> Self {
        Self { signature: Signature::nullary(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Version {
    fn name(&self) -> &'static str {
        "version"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let text =
            format!("PostgreSQL {POSTGRES_VERSION} compatible Promontory {}", env!("CARGO_PKG_VERSION"));
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(text))))
    }
}
