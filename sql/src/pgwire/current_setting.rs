//! `current_setting(name [, missing_ok])`: a setting of the session that asks.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use parking_lot::Mutex;

use super::settings::Settings;

/// The function over the settings of one session.
#[derive(Debug)]
pub(super) struct CurrentSetting {
    settings: Arc<Mutex<Settings>>,
    signature: Signature,
}

impl CurrentSetting {
    pub(super) fn new(settings: Arc<Mutex<Settings>>) -> Self {
        Self { settings, signature: Signature::variadic_any(Volatility::Stable) }
    }
}

impl PartialEq for CurrentSetting {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.settings, &other.settings)
    }
}

impl Eq for CurrentSetting {}

impl Hash for CurrentSetting {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.settings).hash(state);
    }
}

impl ScalarUDFImpl for CurrentSetting {
    fn name(&self) -> &'static str {
        "current_setting"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(names) = args.args.first() else { return exec_err!("current_setting needs a name") };
        let names = cast(&names.to_array(args.number_rows)?, &DataType::Utf8)?;
        // Compat: a second argument that is NULL or false is not looked at; tools only ever say true.
        let missing_ok = args.args.len() > 1;
        let settings = self.settings.lock();
        let value = |name: Option<&str>| -> Result<Option<String>> {
            let Some(name) = name else { return Ok(None) };
            match settings.show(name) {
                Some((_, value)) => Ok(Some(value)),
                None if missing_ok => Ok(None),
                None => exec_err!("unrecognized configuration parameter {name:?}"),
            }
        };
        let values = names.as_string::<i32>().iter().map(value).collect::<Result<StringArray>>()?;
        Ok(ColumnarValue::Array(Arc::new(values)))
    }
}
