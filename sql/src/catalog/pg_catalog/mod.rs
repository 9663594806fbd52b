//! `pg_catalog`, for the tools that ask it what there is.
//!
//! What differs from one Postgres to the next is ours: [`relations`], [`routines`], and the functions over them in
//! [`functions`], [`privileges`], [`text`] and [`time`]. What is the same in every Postgres (types, operators, its own functions)
//! comes from `datafusion-pg-catalog`, and is empty where it describes what there is not here, indexes for one.

mod functions;
mod information_schema;
mod json;
mod lists;
mod mode;
mod oids;
mod privileges;
mod relations;
mod routines;
mod text;
mod time;
mod to_char;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::new_null_array;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemTable, MemoryCatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::empty::EmptyTable;
use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::SessionContext;
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::pg_catalog::setup_pg_catalog;
use parking_lot::RwLock;
use promontory_tsdb::Queryable;

use super::comments::Comments;
use crate::functions::doc::FunctionDoc;
use crate::timezone::Timezone;
use relations::{Kind, Relations, RelationsTable};
use routines::Routines;

/// Name of the schema.
pub(crate) const PG_CATALOG: &str = "pg_catalog";
/// Name of the standard's schema for the same purpose.
pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";
/// Who everything belongs to.
pub(crate) const OWNER_NAME: &str = "postgres";
/// The identifier of that user, which is the same in every Postgres.
pub(crate) const OWNER_OID: i32 = 10;
/// The identifier of the only database.
pub(crate) const DATABASE_OID: i32 = 5;
const PG_PROC: &str = "pg_proc";

/// What the catalog describes, beyond tables.
pub(super) struct Surroundings {
    /// What there is to say about tables.
    pub(super) comments: Arc<Comments>,
    /// What is stored.
    pub(super) source: Arc<dyn Queryable>,
    /// When the server started.
    pub(super) started_ms: i64,
}

/// Adds the schema to `catalog`, and its functions to `context`. `docs` are about the functions that Postgres does
/// not have.
pub(super) fn install(
    context: &SessionContext,
    catalog: &Arc<MemoryCatalogProvider>,
    surroundings: Surroundings,
    docs: &[FunctionDoc],
) -> Arc<PgCatalog> {
    setup_pg_catalog(context, super::DATABASE, EmptyContextProvider)
        .expect("the tables of pg_catalog are well formed");
    let inner = catalog.schema(PG_CATALOG).expect("the schema was just made");
    let Surroundings { comments, source, started_ms } = surroundings;
    let relations = Arc::new(Relations::new(Arc::clone(catalog), comments));
    let routines = Arc::new(Routines::new(docs));
    let schema = PgCatalog {
        inner,
        ours: RwLock::default(),
        mended: RwLock::default(),
        routines: Arc::clone(&routines),
        functions_in: relations.oids.of_schema(super::METRICS),
    };
    let schema = Arc::new(schema);
    for (name, kind) in Kind::ALL {
        schema.add(name, Arc::new(RelationsTable::new(&relations, kind)));
    }
    for (name, kind) in information_schema::Kind::ALL {
        schema.add(name, Arc::new(information_schema::InformationTable::new(&relations, kind)));
    }
    for (name, columns) in empty_tables().into_iter().chain(information_schema::empty_tables()) {
        schema.add(name, Arc::new(EmptyTable::new(Arc::new(columns))));
    }
    catalog
        .register_schema(PG_CATALOG, Arc::clone(&schema) as Arc<dyn SchemaProvider>)
        .expect("a memory catalog takes every schema");
    functions::install(context, functions::Known { relations, routines, source, started_ms });
    json::install(context);
    lists::install(context);
    mode::install(context);
    privileges::install(context);
    text::install(context);
    time::install(context);
    to_char::install(context);
    context.register_udf(ScalarUDF::from(Timezone::new()));
    schema
}

/// A schema of texts.
fn of_texts(names: &[&str]) -> Schema {
    Schema::new(names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect::<Vec<_>>())
}

/// Tables in which there is nothing, with columns that the ones of `datafusion-pg-catalog` lack or that must be lists.
fn empty_tables() -> Vec<(&'static str, Schema)> {
    let columns = |columns: &[(&str, DataType)]| {
        let field = |(name, data_type): &(&str, DataType)| Field::new(*name, data_type.clone(), true);
        Schema::new(columns.iter().map(field).collect::<Vec<_>>())
    };
    let text = DataType::Utf8;
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    vec![
        ("pg_index", index_columns()),
        ("pg_indexes", of_texts(&["schemaname", "tablename", "indexname", "tablespace", "indexdef"])),
        (
            "pg_locks",
            columns(&[
                ("locktype", text.clone()),
                ("database", DataType::Int32),
                ("relation", DataType::Int32),
                ("page", DataType::Int32),
                ("tuple", DataType::Int16),
                ("virtualxid", text.clone()),
                ("transactionid", DataType::Int32),
                ("virtualtransaction", text.clone()),
                ("pid", DataType::Int32),
                ("mode", text.clone()),
                ("granted", DataType::Boolean),
                ("fastpath", DataType::Boolean),
                ("waitstart", time),
            ]),
        ),
        (
            "pg_db_role_setting",
            columns(&[("setdatabase", DataType::Int32), ("setrole", DataType::Int32), ("setconfig", list)]),
        ),
        (
            "pg_settings",
            of_texts(&[
                "name",
                "setting",
                "unit",
                "category",
                "short_desc",
                "extra_desc",
                "context",
                "vartype",
                "source",
                "min_val",
                "max_val",
                "enumvals",
                "boot_val",
                "reset_val",
                "sourcefile",
                "sourceline",
                "pending_restart",
            ]),
        ),
        ("pg_group", of_texts(&["groname", "grosysid", "grolist"])),
        ("pg_rules", of_texts(&["schemaname", "tablename", "rulename", "definition"])),
        (
            "pg_sequences",
            columns(&[
                ("schemaname", text.clone()),
                ("sequencename", text.clone()),
                ("sequenceowner", text.clone()),
                ("start_value", DataType::Int64),
                ("min_value", DataType::Int64),
                ("max_value", DataType::Int64),
                ("increment_by", DataType::Int64),
                ("last_value", DataType::Int64),
            ]),
        ),
        ("pg_available_extensions", of_texts(&["name", "default_version", "installed_version", "comment"])),
        ("pg_prepared_xacts", of_texts(&["transaction", "gid", "prepared", "owner", "database"])),
    ]
}

/// The columns of `pg_index`, in which there is nothing. Ours, because its vectors must be lists: tools
/// unnest them.
fn index_columns() -> Schema {
    let list = |item: DataType| DataType::List(Arc::new(Field::new_list_field(item, true)));
    let numbers = ["indexrelid", "indrelid"].map(|name| (name, DataType::Int32));
    let counts = ["indnatts", "indnkeyatts"].map(|name| (name, DataType::Int16));
    let flags = [
        "indisunique",
        "indnullsnotdistinct",
        "indisprimary",
        "indisexclusion",
        "indimmediate",
        "indisclustered",
        "indisvalid",
        "indcheckxmin",
        "indisready",
        "indislive",
        "indisreplident",
    ]
    .map(|name| (name, DataType::Boolean));
    let vectors = [
        ("indkey", list(DataType::Int16)),
        ("indcollation", list(DataType::Int32)),
        ("indclass", list(DataType::Int32)),
        ("indoption", list(DataType::Int16)),
    ];
    let trees = ["indexprs", "indpred"].map(|name| (name, DataType::Utf8));
    let all = numbers.into_iter().chain(counts).chain(flags).chain(vectors).chain(trees);
    Schema::new(all.map(|(name, data_type)| Field::new(name, data_type, true)).collect::<Vec<_>>())
}

/// `pg_catalog`.
#[derive(Debug)]
pub(crate) struct PgCatalog {
    inner: Arc<dyn SchemaProvider>,
    ours: RwLock<BTreeMap<String, Arc<dyn TableProvider>>>,
    /// Tables of `inner` that never change, as the mending above leaves them.
    mended: RwLock<BTreeMap<String, Arc<dyn TableProvider>>>,
    routines: Arc<Routines>,
    /// The schema that the functions are said to be in.
    functions_in: i32,
}

impl PgCatalog {
    /// Adds a table, or replaces it.
    pub(crate) fn add(&self, name: &str, table: Arc<dyn TableProvider>) {
        self.ours.write().insert(name.to_owned(), table);
    }

    /// A table that is the same in every Postgres, with our functions among those of Postgres.
    fn fixed(&self, name: &str, table: &MemTable) -> Result<Option<Arc<dyn TableProvider>>> {
        let schema = mended_schema(&table.schema());
        let mut batches = Vec::new();
        for partition in &table.batches {
            let Ok(partition) = partition.try_read() else { return Ok(None) };
            for batch in partition.iter() {
                let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
                    if column.data_type() == field.data_type() {
                        Arc::clone(column)
                    } else {
                        new_null_array(field.data_type(), column.len())
                    }
                });
                batches.push(arrow::array::RecordBatch::try_new(Arc::clone(&schema), columns.collect())?);
            }
        }
        if name == PG_PROC {
            batches.push(self.routines.rows(&schema, self.functions_in)?);
        }
        Ok(Some(Arc::new(MemTable::try_new(schema, vec![batches])?)))
    }
}

/// `schema` with lists where Postgres has lists of which there are none, and without promises about NULL: tools look
/// things up by scalar subqueries, which may find nothing.
fn mended_schema(schema: &Schema) -> SchemaRef {
    let list_of = |item: DataType| DataType::List(Arc::new(Field::new_list_field(item, true)));
    let field = |field: &Arc<Field>| {
        let field = field.as_ref().clone().with_nullable(true);
        let name = field.name().as_str();
        let item = match name {
            _ if *field.data_type() != DataType::Utf8 => return field,
            "polroles" => DataType::Int32,
            "conkey" | "confkey" | "prattrs" => DataType::Int16,
            "stxkind" | "evttags" => DataType::Utf8,
            _ if ["acl", "options", "config"].iter().any(|end| name.ends_with(end)) => DataType::Utf8,
            _ => return field,
        };
        field.with_data_type(list_of(item))
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

#[async_trait]
impl SchemaProvider for PgCatalog {
    fn table_names(&self) -> Vec<String> {
        let ours: BTreeSet<_> = self.ours.read().keys().cloned().collect();
        let others = self.inner.table_names().into_iter().filter(|name| !ours.contains(name));
        others.chain(ours.iter().cloned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        for known in [&self.ours, &self.mended] {
            if let Some(table) = known.read().get(name) {
                return Ok(Some(Arc::clone(table)));
            }
        }
        let table = self.inner.table(name).await?;
        let Some(table) = table else { return Ok(None) };
        if let Some(memory) = table.downcast_ref::<MemTable>()
            && let Some(mended) = self.fixed(name, memory)?
        {
            self.mended.write().insert(name.to_owned(), Arc::clone(&mended));
            return Ok(Some(mended));
        }
        Ok(Some(table))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.ours.read().contains_key(name) || self.inner.table_exist(name)
    }
}
