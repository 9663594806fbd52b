//! `has_table_privilege` and the like: whoever is in may read, and nobody may write.
//!
//! What a user may not read is refused where it is read, by [`Access`](crate::Access).

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::prelude::SessionContext;

/// Adds the functions to `context`.
pub(super) fn install(context: &SessionContext) {
    for name in [
        "has_any_column_privilege",
        "has_column_privilege",
        "has_database_privilege",
        "has_foreign_data_wrapper_privilege",
        "has_function_privilege",
        "has_language_privilege",
        "has_schema_privilege",
        "has_sequence_privilege",
        "has_server_privilege",
        "has_table_privilege",
        "has_tablespace_privilege",
        "has_type_privilege",
        "pg_has_role",
    ] {
        let signature = Signature::variadic_any(Volatility::Stable);
        context.register_udf(ScalarUDF::from(HasPrivilege { name, signature }));
    }
}

/// Privileges that everyone has; Postgres writes several with commas between.
const READING: [&str; 6] = ["CONNECT", "EXECUTE", "MEMBER", "SELECT", "SET", "USAGE"];

fn may(privileges: &str) -> bool {
    privileges.split(',').any(|privilege| {
        let privilege = privilege.trim().to_uppercase();
        READING.contains(&privilege.as_str())
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct HasPrivilege {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for HasPrivilege {
    fn name(&self) -> &'static str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        if arg_types.len() < 2 {
            return plan_err!("No function matches: {} takes an object and a privilege", self.name);
        }
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(privileges) = args.args.last() else { return plan_err!("{} takes a privilege", self.name) };
        let privileges = cast(&privileges.to_array(args.number_rows)?, &DataType::Utf8)?;
        let answers: BooleanArray = privileges.as_string::<i32>().iter().map(|p| p.map(may)).collect();
        Ok(ColumnarValue::Array(Arc::new(answers)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_may_read_and_nobody_may_write() {
        assert!(may("SELECT") && may("select, insert") && may("USAGE"));
        assert!(!may("INSERT") && !may("CREATE") && !may(""));
    }
}
