//! Functions of Postgres that clients call when they connect and when they look around, beyond those that
//! come with `pg_catalog`.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int32Type, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_pg::datatypes::into_pg_type;
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::prelude::SessionContext;
use pgwire::api::Type;
use promontory_tsdb::Queryable;

use super::relations::Relations;
use super::routines::{Part, Routines};
use super::text::identifier;
use super::{OWNER_NAME, PG_CATALOG};

/// Object identifiers of built-in types are below this.
const BUILT_IN_OIDS: u32 = 6_000;

/// What the functions know.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) relations: Arc<Relations>,
    pub(super) routines: Arc<Routines>,
    pub(super) source: Arc<dyn Queryable>,
    /// When the server started.
    pub(super) started_ms: i64,
}

/// Adds the functions to `context`.
pub(super) fn install(context: &SessionContext, known: Known) {
    let known = Arc::new(known);
    for (name, answer) in FUNCTIONS {
        context.register_udf(ScalarUDF::from(Function::new(name, *answer, &known)));
    }
    for name in VISIBLE {
        context.register_udf(ScalarUDF::from(Function::new(name, Answer::Yes, &known)));
    }
}

/// Of all that there is, everything but tables is visible everywhere.
const VISIBLE: [&str; 11] = [
    "pg_collation_is_visible",
    "pg_conversion_is_visible",
    "pg_function_is_visible",
    "pg_opclass_is_visible",
    "pg_operator_is_visible",
    "pg_opfamily_is_visible",
    "pg_statistics_obj_is_visible",
    "pg_ts_config_is_visible",
    "pg_ts_dict_is_visible",
    "pg_ts_parser_is_visible",
    "pg_type_is_visible",
];

const FUNCTIONS: &[(&str, Answer)] = &[
    ("to_regtype", Answer::TypeOid),
    ("col_description", Answer::ColumnComment),
    ("current_schema", Answer::CurrentSchema),
    ("current_schemas", Answer::CurrentSchemas),
    ("getdatabaseencoding", Answer::Encoding),
    ("inet_client_addr", Answer::NoText),
    ("inet_server_addr", Answer::NoText),
    ("inet_server_port", Answer::NoNumber),
    ("json_build_object", Answer::JsonObject),
    ("jsonb_build_object", Answer::JsonObject),
    ("obj_description", Answer::Comment),
    ("pg_conf_load_time", Answer::Started),
    ("pg_database_size", Answer::DatabaseSize),
    ("pg_describe_object", Answer::NoText),
    ("pg_get_constraintdef", Answer::NoText),
    ("pg_get_function_arguments", Answer::Routine(Part::Arguments)),
    ("pg_get_function_identity_arguments", Answer::Routine(Part::Arguments)),
    ("pg_get_function_result", Answer::Routine(Part::Result)),
    ("pg_get_function_sqlbody", Answer::NoText),
    ("pg_get_functiondef", Answer::NoText),
    ("pg_get_indexdef", Answer::NoText),
    ("pg_get_partkeydef", Answer::NoText),
    ("pg_get_ruledef", Answer::NoText),
    ("pg_get_serial_sequence", Answer::NoText),
    ("pg_get_triggerdef", Answer::NoText),
    ("pg_get_userbyid", Answer::Owner),
    ("pg_get_viewdef", Answer::ViewDefinition),
    ("pg_indexes_size", Answer::NoNumber),
    ("pg_is_in_recovery", Answer::No),
    ("pg_is_other_temp_schema", Answer::No),
    ("pg_postmaster_start_time", Answer::Started),
    ("pg_relation_size", Answer::NoNumber),
    ("pg_table_is_visible", Answer::TableVisible),
    ("pg_table_size", Answer::NoNumber),
    ("pg_tablespace_location", Answer::EmptyText),
    ("pg_tablespace_size", Answer::NoNumber),
    ("pg_total_relation_size", Answer::NoNumber),
    ("pg_typeof", Answer::TypeName),
    ("regclassout", Answer::TableName),
    ("row_security_active", Answer::No),
    ("shobj_description", Answer::NoText),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    /// The identifier of a type by its name; NULL for a name that no type has.
    TypeOid,
    /// NULL: there is no such thing here, or nothing to say of it.
    NoText,
    /// NULL, as a number: it is not known.
    NoNumber,
    /// An empty text.
    EmptyText,
    /// How texts are encoded.
    Encoding,
    /// The type of the argument.
    TypeName,
    /// A JSON object of names and values that alternate.
    JsonObject,
    /// `false`
    No,
    /// `true`
    Yes,
    /// Who everything belongs to.
    Owner,
    /// When the server started.
    Started,
    /// Bytes of all blocks.
    DatabaseSize,
    /// Whether the table with this identifier is found without its schema.
    TableVisible,
    /// The name of the table with this identifier, as it is found from here; the identifier where there is none.
    TableName,
    /// The schema where names are looked up.
    CurrentSchema,
    /// All of them; with the argument true those that every session has, too.
    CurrentSchemas,
    /// What there is to say about a table or a function.
    Comment,
    /// What there is to say about a column, by the identifier of its table and its position.
    ColumnComment,
    /// The query of a view.
    ViewDefinition,
    /// Part of the signature of a function.
    Routine(Part),
}

#[derive(Debug)]
struct Function {
    name: &'static str,
    answer: Answer,
    signature: Signature,
    known: Arc<Known>,
}

impl Function {
    fn new(name: &'static str, answer: Answer, known: &Arc<Known>) -> Self {
        let signature = match answer {
            Answer::TypeOid => Signature::string(1, Volatility::Immutable),
            _ => Signature::one_of(
                vec![TypeSignature::VariadicAny, TypeSignature::Nullary],
                Volatility::Stable,
            ),
        };
        Self { name, answer, signature, known: Arc::clone(known) }
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.known, &other.known)
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(match self.answer {
            Answer::TypeOid => DataType::Int32,
            Answer::No | Answer::Yes | Answer::TableVisible => DataType::Boolean,
            Answer::NoNumber | Answer::DatabaseSize => DataType::Int64,
            Answer::Started => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            Answer::CurrentSchemas => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
            _ => DataType::Utf8,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let text = |text: &str| ColumnarValue::Scalar(ScalarValue::from(text));
        Ok(match self.answer {
            Answer::NoText => ColumnarValue::Scalar(ScalarValue::Utf8(None)),
            Answer::NoNumber => ColumnarValue::Scalar(ScalarValue::Int64(None)),
            Answer::EmptyText => text(""),
            Answer::Encoding => text("UTF8"),
            Answer::TypeName => text(match args.arg_fields.first() {
                Some(field) => type_name(field.data_type()),
                None => return plan_err!("No function matches: pg_typeof() takes a value"),
            }),
            Answer::No => ColumnarValue::Scalar(ScalarValue::Boolean(Some(false))),
            Answer::Yes => ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))),
            Answer::Owner => text(OWNER_NAME),
            Answer::Started => ColumnarValue::Scalar(ScalarValue::TimestampMillisecond(
                Some(self.known.started_ms),
                Some("UTC".into()),
            )),
            Answer::DatabaseSize => {
                let bytes: u64 = self.known.source.blocks().iter().map(|block| block.bytes).sum();
                ColumnarValue::Scalar(ScalarValue::Int64(i64::try_from(bytes).ok()))
            }
            Answer::CurrentSchema => text(&args.config_options.catalog.default_schema),
            Answer::CurrentSchemas => {
                let implicit = matches!(
                    args.args.first(),
                    Some(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))))
                );
                let own = args.config_options.catalog.default_schema.as_str();
                let names: &[&str] = if implicit { &[PG_CATALOG, own] } else { &[own] };
                let names: Vec<_> = names.iter().map(|name| ScalarValue::from(*name)).collect();
                let list = ScalarValue::new_list_nullable(&names, &DataType::Utf8);
                ColumnarValue::Scalar(ScalarValue::List(list))
            }
            Answer::TypeOid => {
                let names = cast(&args.args[0].to_array(args.number_rows)?, &DataType::Utf8)?;
                let oids: Int32Array =
                    names.as_string::<i32>().iter().map(|name| name.and_then(type_oid)).collect();
                ColumnarValue::Array(Arc::new(oids))
            }
            Answer::TableVisible => {
                let path = &args.config_options.catalog.default_schema;
                let visible = |oid: i32| {
                    let table = self.known.relations.oids.table(oid);
                    table.map(|(schema, _)| schema == *path || schema == PG_CATALOG)
                };
                let oids = self.numbers(&args, 0)?;
                let answers: BooleanArray = oids.iter().map(|oid| oid.and_then(visible)).collect();
                ColumnarValue::Array(Arc::new(answers))
            }
            Answer::TableName => {
                let path = &args.config_options.catalog.default_schema;
                let oids = self.numbers(&args, 0)?;
                let names = oids.iter().map(|oid| oid.map(|oid| self.table_name(oid, path)));
                ColumnarValue::Array(Arc::new(names.collect::<StringArray>()))
            }
            Answer::Routine(part) => {
                let oids = self.numbers(&args, 0)?;
                let texts = oids.iter().map(|oid| self.known.routines.get(oid?, part));
                ColumnarValue::Array(Arc::new(texts.collect::<StringArray>()))
            }
            Answer::ViewDefinition => {
                let oids = self.numbers(&args, 0)?;
                let texts = oids.iter().map(|oid| {
                    let (schema, view) = self.known.relations.oids.table(oid?)?;
                    self.known.relations.definition(&schema, &view)
                });
                ColumnarValue::Array(Arc::new(texts.collect::<StringArray>()))
            }
            Answer::Comment => ColumnarValue::Array(self.comments(&args)?),
            Answer::ColumnComment => ColumnarValue::Array(self.column_comments(&args)?),
            Answer::JsonObject => ColumnarValue::Array(json_objects(&args)?),
        })
    }
}

impl Function {
    /// The argument at `position` as identifiers, however they were written.
    fn numbers(&self, args: &ScalarFunctionArgs, position: usize) -> Result<Int32Array> {
        let Some(argument) = args.args.get(position) else {
            return plan_err!("No function matches: {}() takes more arguments", self.name);
        };
        let numbers = cast(&argument.to_array(args.number_rows)?, &DataType::Int32)?;
        Ok(numbers.as_primitive::<Int32Type>().clone())
    }

    /// As Postgres prints it where `path` is searched.
    fn table_name(&self, oid: i32, path: &str) -> String {
        match self.known.relations.oids.table(oid) {
            Some((schema, table)) if schema == path || schema == PG_CATALOG => identifier(&table),
            Some((schema, table)) => format!("{}.{}", identifier(&schema), identifier(&table)),
            None if oid == 0 => "-".to_owned(),
            None => oid.to_string(),
        }
    }

    fn comments(&self, args: &ScalarFunctionArgs) -> Result<ArrayRef> {
        let oids = self.numbers(args, 0)?;
        let class = match args.args.get(1) {
            Some(ColumnarValue::Scalar(class)) => class.try_as_str().flatten().map(str::to_owned),
            _ => None,
        };
        let of_functions = class.as_deref() == Some("pg_proc");
        let of_tables = class.as_deref().is_none_or(|class| class == "pg_class");
        let now = of_tables.then(|| self.known.relations.comments.now());
        let texts = oids.iter().map(|oid| {
            if of_functions {
                return self.known.routines.get(oid?, Part::About).map(str::to_owned);
            }
            let (schema, table) = self.known.relations.oids.table(oid?)?;
            Some(now.as_ref()?.of_table(&schema, &table)?.table)
        });
        Ok(Arc::new(texts.collect::<StringArray>()))
    }

    fn column_comments(&self, args: &ScalarFunctionArgs) -> Result<ArrayRef> {
        let (oids, positions) = (self.numbers(args, 0)?, self.numbers(args, 1)?);
        let now = self.known.relations.comments.now();
        let texts = oids.iter().zip(&positions).map(|(oid, position)| {
            let (schema, table) = self.known.relations.oids.table(oid?)?;
            let about = now.of_table(&schema, &table)?;
            // Columns that are spoken of come first, in their own order.
            let at = usize::try_from(position?.checked_sub(1)?).ok()?;
            about.columns.into_iter().nth(at).map(|(_, text)| text)
        });
        Ok(Arc::new(texts.collect::<StringArray>()))
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

/// What Postgres calls the type that a client sees.
pub(super) fn type_name(data_type: &DataType) -> &'static str {
    match into_pg_type(data_type) {
        Ok(Type::INT2) => "smallint",
        Ok(Type::INT4) => "integer",
        Ok(Type::INT8) => "bigint",
        Ok(Type::FLOAT4) => "real",
        Ok(Type::FLOAT8) => "double precision",
        Ok(Type::BOOL) => "boolean",
        Ok(Type::NUMERIC) => "numeric",
        Ok(Type::TIMESTAMP) => "timestamp without time zone",
        Ok(Type::TIMESTAMPTZ) => "timestamp with time zone",
        Ok(Type::DATE) => "date",
        Ok(Type::TIME) => "time without time zone",
        Ok(Type::INTERVAL) => "interval",
        Ok(Type::BYTEA) => "bytea",
        Ok(Type::TEXT_ARRAY | Type::VARCHAR_ARRAY) => "text[]",
        Ok(Type::FLOAT8_ARRAY) => "double precision[]",
        Ok(Type::INT8_ARRAY) => "bigint[]",
        Ok(Type::RECORD) => "record",
        _ => "text",
    }
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
        let source = Arc::new(promontory_tsdb::memory::MemoryStorage::new());
        let clock = Arc::new(promontory_tsdb::ManualClock::new(0));
        let context = crate::SqlCatalog::new(source, clock).session();
        let query =
            "SELECT json_build_object('a', 1, 'b', NULL, 'c', 'x\"y', 'd', true), pg_is_in_recovery()";
        let rows = context.sql(query).await.expect("plans").collect().await.expect("runs");
        assert_eq!(rows[0].column(0).as_string::<i32>().value(0), r#"{"a":1,"b":null,"c":"x\"y","d":true}"#);
        assert!(!rows[0].column(1).as_boolean().value(0));
    }
}
