//! Functions of Postgres that clients call when they connect and when they look around, beyond those that
//! come with `pg_catalog`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::prelude::SessionContext;
use pgwire::api::Type;

/// Object identifiers of built-in types are below this.
const BUILT_IN_OIDS: u32 = 6_000;

/// Adds the functions to `context`.
pub(crate) fn install(context: &SessionContext) {
    for (name, aliases, answer) in FUNCTIONS {
        context.register_udf(ScalarUDF::from(Function::new(name, aliases, *answer)));
    }
}

const FUNCTIONS: &[(&str, &[&str], Answer)] = &[
    ("to_regtype", &["pg_catalog.to_regtype"], Answer::TypeOid),
    ("pg_get_serial_sequence", &["pg_catalog.pg_get_serial_sequence"], Answer::NoText),
    ("pg_get_indexdef", &["pg_catalog.pg_get_indexdef"], Answer::NoText),
    ("obj_description", &["pg_catalog.obj_description"], Answer::NoText),
    ("inet_server_addr", &["pg_catalog.inet_server_addr"], Answer::NoText),
    ("json_build_object", &["jsonb_build_object"], Answer::JsonObject),
    ("pg_is_in_recovery", &["pg_catalog.pg_is_in_recovery"], Answer::No),
    ("pg_collation_is_visible", &["pg_catalog.pg_collation_is_visible"], Answer::Yes),
    ("pg_type_is_visible", &["pg_catalog.pg_type_is_visible"], Answer::Yes),
    ("pg_function_is_visible", &["pg_catalog.pg_function_is_visible"], Answer::Yes),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    /// The identifier of a type by its name; NULL for a name that no type has.
    TypeOid,
    /// NULL: there are no sequences and no indexes here, and nothing to say of them.
    NoText,
    /// A JSON object of names and values that alternate.
    JsonObject,
    /// `false`
    No,
    /// `true`
    Yes,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    name: &'static str,
    aliases: Vec<String>,
    answer: Answer,
    signature: Signature,
}

impl Function {
    fn new(name: &'static str, aliases: &[&str], answer: Answer) -> Self {
        let signature = match answer {
            Answer::TypeOid => Signature::string(1, Volatility::Immutable),
            Answer::NoText | Answer::JsonObject | Answer::No | Answer::Yes => Signature::one_of(
                vec![
                    datafusion::logical_expr::TypeSignature::VariadicAny,
                    datafusion::logical_expr::TypeSignature::Nullary,
                ],
                Volatility::Stable,
            ),
        };
        Self { name, aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(), answer, signature }
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(match self.answer {
            Answer::TypeOid => DataType::Int32,
            Answer::NoText | Answer::JsonObject => DataType::Utf8,
            Answer::No | Answer::Yes => DataType::Boolean,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        use datafusion::common::ScalarValue;
        Ok(match self.answer {
            Answer::NoText => ColumnarValue::Scalar(ScalarValue::Utf8(None)),
            Answer::No => ColumnarValue::Scalar(ScalarValue::Boolean(Some(false))),
            Answer::Yes => ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))),
            Answer::TypeOid => {
                let names = cast(&args.args[0].to_array(args.number_rows)?, &DataType::Utf8)?;
                let oids: Int32Array =
                    names.as_string::<i32>().iter().map(|name| name.and_then(type_oid)).collect();
                ColumnarValue::Array(Arc::new(oids))
            }
            Answer::JsonObject => ColumnarValue::Array(json_objects(&args)?),
        })
    }
}

/// The identifier of the type called `name`, in Postgres' own word or the standard's.
fn type_oid(name: &str) -> Option<i32> {
    let name = name.trim().to_lowercase();
    let own = match name.strip_prefix("pg_catalog.").unwrap_or(&name) {
        "smallint" => "int2",
        "integer" | "int" => "int4",
        "bigint" => "int8",
        "real" => "float4",
        "double precision" => "float8",
        "boolean" => "bool",
        "character varying" => "varchar",
        "character" => "bpchar",
        "timestamp with time zone" => "timestamptz",
        "timestamp without time zone" => "timestamp",
        "decimal" => "numeric",
        own => own,
    };
    let known = (16..BUILT_IN_OIDS).filter_map(Type::from_oid).find(|known| known.name() == own);
    known.and_then(|known| i32::try_from(known.oid()).ok())
}

fn json_objects(args: &ScalarFunctionArgs) -> Result<ArrayRef> {
    let columns = args.args.iter().map(|arg| arg.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
    let options = FormatOptions::default();
    let texts = columns
        .iter()
        .map(|column| Ok(ArrayFormatter::try_new(column, &options)?))
        .collect::<Result<Vec<_>>>()?;
    let value = |column: usize, row: usize| match columns[column].data_type() {
        DataType::Null => serde_json::Value::Null,
        _ if columns[column].is_null(row) => serde_json::Value::Null,
        data_type => {
            let text = texts[column].value(row).to_string();
            // Numbers and booleans read the same in JSON; what does not is a text.
            let plain = data_type.is_numeric() || *data_type == DataType::Boolean;
            let number = plain.then(|| serde_json::from_str(&text).ok()).flatten();
            number.unwrap_or(serde_json::Value::String(text))
        }
    };
    let objects: StringArray = (0..args.number_rows)
        .map(|row| {
            let pairs = (0..columns.len() / 2)
                .map(|pair| (texts[2 * pair].value(row).to_string(), value(2 * pair + 1, row)));
            Some(serde_json::Value::Object(pairs.collect()).to_string())
        })
        .collect();
    Ok(Arc::new(objects))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_by_each_of_their_names() {
        for (name, expected) in [
            ("text", Some(25)),
            ("Double Precision", Some(701)),
            ("pg_catalog.int4", Some(23)),
            ("hstore", None),
        ] {
            assert_eq!(type_oid(name), expected, "{name}");
        }
    }

    #[tokio::test]
    async fn json_objects_keep_numbers_and_nulls() {
        let context = SessionContext::new();
        install(&context);
        let query =
            "SELECT json_build_object('a', 1, 'b', NULL, 'c', 'x\"y', 'd', true), pg_is_in_recovery()";
        let rows = context.sql(query).await.expect("plans").collect().await.expect("runs");
        assert_eq!(rows[0].column(0).as_string::<i32>().value(0), r#"{"a":1,"b":null,"c":"x\"y","d":true}"#);
        assert!(!rows[0].column(1).as_boolean().value(0));
    }
}
