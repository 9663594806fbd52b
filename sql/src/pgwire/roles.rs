//! Who there is: `pg_roles`, `pg_user` and `pg_authid`; who asks: `session_user`; how many there are:
//! `pg_stat_database`.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::clients::Clients;
use crate::SqlUser;
use crate::catalog::{DATABASE, DATABASE_OID, Listing, OWNER_NAME, OWNER_OID, SqlCatalog};

/// Identifiers of users begin here.
const FIRST: i32 = 10_001;

/// Adds the tables to `catalog`. Without `users` those count that are connected.
pub(super) fn show(catalog: &SqlCatalog, clients: &Arc<Clients>, users: &[SqlUser]) {
    let users: Arc<[String]> = users.iter().map(|user| user.name.clone()).collect();
    for (name, columns) in [
        ("pg_roles", role_columns("rol")),
        ("pg_authid", role_columns("rol")),
        ("pg_user", user_columns()),
        ("pg_shadow", user_columns()),
    ] {
        let fields = columns.iter().map(|(name, value)| field(name, value)).collect::<Vec<_>>();
        let schema = Arc::new(Schema::new(fields));
        let (clients, users, shown) = (Arc::clone(clients), Arc::clone(&users), Arc::clone(&schema));
        let rows = move || rows(&columns, &shown, &names(&clients, &users));
        catalog.show_to_tools(name, Listing::table(schema, rows));
    }
    let schema = Arc::new(database_schema());
    let (clients, shown) = (Arc::clone(clients), Arc::clone(&schema));
    catalog.show_to_tools(
        "pg_stat_database",
        Listing::table(schema, move || database_row(&shown, clients.count())),
    );
}

/// The owner of everything first, then users by name.
fn names(clients: &Clients, users: &[String]) -> Vec<String> {
    let mut names = if users.is_empty() { clients.users() } else { users.to_vec() };
    names.retain(|name| name != OWNER_NAME);
    names.sort();
    names.dedup();
    names.insert(0, OWNER_NAME.to_owned());
    names
}

/// What is in a column of a table of roles.
#[derive(Debug, Clone)]
enum Value {
    Name,
    Oid,
    /// Whether it is the owner.
    Super,
    Constant(ScalarValue),
}

fn field(name: &str, value: &Value) -> Field {
    match value {
        Value::Name => Field::new(name, DataType::Utf8, true),
        Value::Oid => Field::new(name, DataType::Int32, true)
            .with_metadata([("pg.oid_alias".to_owned(), "oid".to_owned())].into()),
        Value::Super => Field::new(name, DataType::Boolean, true),
        Value::Constant(value) => Field::new(name, value.data_type(), true),
    }
}

fn role_columns(prefix: &str) -> Vec<(String, Value)> {
    let no = || Value::Constant(false.into());
    let columns = vec![
        ("name", Value::Name),
        ("super", Value::Super),
        ("inherit", Value::Constant(true.into())),
        ("createrole", no()),
        ("createdb", no()),
        ("canlogin", Value::Constant(true.into())),
        ("replication", no()),
        ("connlimit", Value::Constant((-1i32).into())),
        ("password", Value::Constant(ScalarValue::from("********"))),
        ("validuntil", Value::Constant(no_time())),
        ("bypassrls", no()),
        ("config", Value::Constant(no_list())),
    ];
    let columns = columns.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value));
    columns.chain([("oid".to_owned(), Value::Oid)]).collect()
}

fn user_columns() -> Vec<(String, Value)> {
    let no = || Value::Constant(false.into());
    let columns = vec![
        ("usename", Value::Name),
        ("usesysid", Value::Oid),
        ("usecreatedb", no()),
        ("usesuper", Value::Super),
        ("userepl", no()),
        ("usebypassrls", no()),
        ("passwd", Value::Constant(ScalarValue::from("********"))),
        ("valuntil", Value::Constant(no_time())),
        ("useconfig", Value::Constant(no_list())),
    ];
    columns.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn no_time() -> ScalarValue {
    ScalarValue::TimestampMicrosecond(None, Some("UTC".into()))
}

fn no_list() -> ScalarValue {
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    ScalarValue::try_new_null(&list).unwrap_or(ScalarValue::Null)
}

fn rows(columns: &[(String, Value)], schema: &SchemaRef, names: &[String]) -> Result<RecordBatch> {
    let oids = std::iter::once(OWNER_OID).chain(FIRST..).take(names.len());
    let arrays = columns.iter().map(|(_, value)| -> Result<ArrayRef> {
        Ok(match value {
            Value::Name => Arc::new(StringArray::from_iter_values(names)),
            Value::Oid => Arc::new(Int32Array::from_iter_values(oids.clone())),
            Value::Super => {
                let flags: Vec<_> = names.iter().map(|name| name == OWNER_NAME).collect();
                Arc::new(arrow::array::BooleanArray::from(flags))
            }
            Value::Constant(value) => value.to_array_of_size(names.len())?,
        })
    });
    Ok(RecordBatch::try_new(Arc::clone(schema), arrays.collect::<Result<Vec<_>>>()?)?)
}

fn database_schema() -> Schema {
    let number = |name: &str| Field::new(name, DataType::Int64, true);
    let mut fields = vec![
        Field::new("datid", DataType::Int32, true),
        Field::new("datname", DataType::Utf8, true),
        Field::new("numbackends", DataType::Int32, true),
    ];
    let counted = [
        "xact_commit",
        "xact_rollback",
        "blks_read",
        "blks_hit",
        "tup_returned",
        "tup_fetched",
        "tup_inserted",
        "tup_updated",
        "tup_deleted",
        "conflicts",
        "temp_files",
        "temp_bytes",
        "deadlocks",
    ];
    fields.extend(counted.map(number));
    fields.push(Field::new(
        "stats_reset",
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        true,
    ));
    Schema::new(fields)
}

/// Of what Postgres counts, only clients are counted here; the rest is NULL.
fn database_row(schema: &SchemaRef, clients: usize) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| {
        let value = match field.name().as_str() {
            "datid" => ScalarValue::from(DATABASE_OID),
            "datname" => ScalarValue::from(DATABASE),
            "numbackends" => ScalarValue::from(i32::try_from(clients).unwrap_or(i32::MAX)),
            _ => ScalarValue::try_new_null(field.data_type())?,
        };
        value.to_array_of_size(1)
    });
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<Vec<_>>>()?)?)
}

/// A function that gives the same in all of a session.
#[derive(Debug)]
pub(super) struct OfSession {
    name: &'static str,
    aliases: Vec<String>,
    value: ScalarValue,
    signature: Signature,
}

impl OfSession {
    /// `session_user` and its other names.
    pub(super) fn user(name: &str) -> ScalarUDF {
        Self::udf("session_user", &["current_user", "current_role", "user"], ScalarValue::from(name))
    }

    /// `pg_backend_pid()`: the number that a cancel request names.
    pub(super) fn pid(pid: i32) -> ScalarUDF {
        Self::udf("pg_backend_pid", &[], ScalarValue::from(pid))
    }

    fn udf(name: &'static str, aliases: &[&str], value: ScalarValue) -> ScalarUDF {
        let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        ScalarUDF::from(Self { name, aliases, value, signature: Signature::nullary(Volatility::Stable) })
    }
}

impl PartialEq for OfSession {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.value == other.value
    }
}

impl Eq for OfSession {}

impl Hash for OfSession {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.value.hash(state);
    }
}

impl ScalarUDFImpl for OfSession {
    fn name(&self) -> &'static str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}
