//! `pg_catalog`, for the tools that ask it what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::{LogicalPlanBuilder, col, ident, lit};
use datafusion::prelude::SessionContext;
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::pg_catalog::setup_pg_catalog;
use parking_lot::RwLock;

/// Name of the schema.
pub(crate) const PG_CATALOG: &str = "pg_catalog";
const PG_DATABASE: &str = "pg_database";
const PG_CLASS: &str = "pg_class";

/// Adds the schema to `catalog`, and its functions to `context`.
pub(crate) fn install(context: &SessionContext, catalog: &Arc<MemoryCatalogProvider>) -> Arc<OneDatabase> {
    setup_pg_catalog(context, super::DATABASE, EmptyContextProvider)
        .expect("the tables of pg_catalog are well formed");
    let inner = catalog.schema(PG_CATALOG).expect("the schema was just made");
    let schema = Arc::new(OneDatabase { inner, ours: RwLock::default() });
    schema.add("pg_index", Arc::new(EmptyTable::new(Arc::new(index_columns()))));
    catalog
        .register_schema(PG_CATALOG, Arc::clone(&schema) as Arc<dyn SchemaProvider>)
        .expect("a memory catalog takes every schema");
    schema
}

/// `pg_class` with the columns that it lacks; nothing here has options or access lists.
fn with_options(table: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    let nothing = ScalarValue::try_new_null(&list)?;
    let schema = table.schema();
    let mut columns: Vec<_> = schema.fields().iter().map(|field| ident(field.name())).collect();
    for name in ["relacl", "reloptions"] {
        if schema.column_with_name(name).is_none() {
            columns.push(lit(nothing.clone()).alias(name));
        }
    }
    let plan = LogicalPlanBuilder::scan(PG_CLASS, provider_as_source(table), None)?.project(columns)?;
    Ok(Arc::new(ViewTable::new(plan.build()?, None)))
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

/// `pg_catalog`, without the database `postgres` that is always added to the real ones, and with what
/// only the server knows.
#[derive(Debug)]
pub(crate) struct OneDatabase {
    inner: Arc<dyn SchemaProvider>,
    ours: RwLock<BTreeMap<String, Arc<dyn TableProvider>>>,
}

impl OneDatabase {
    /// Adds a table, or replaces it.
    pub(crate) fn add(&self, name: &str, table: Arc<dyn TableProvider>) {
        self.ours.write().insert(name.to_owned(), table);
    }
}

#[async_trait]
impl SchemaProvider for OneDatabase {
    fn table_names(&self) -> Vec<String> {
        let ours: BTreeSet<_> = self.ours.read().keys().cloned().collect();
        let others = self.inner.table_names().into_iter().filter(|name| !ours.contains(name));
        others.chain(ours.iter().cloned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(table) = self.ours.read().get(name) {
            return Ok(Some(Arc::clone(table)));
        }
        let table = self.inner.table(name).await?;
        let Some(table) = table else { return Ok(None) };
        if name == PG_CLASS {
            return with_options(table).map(Some);
        }
        if name != PG_DATABASE {
            return Ok(Some(table));
        }
        let ours = LogicalPlanBuilder::scan(PG_DATABASE, provider_as_source(table), None)?
            .filter(col("datname").eq(lit(super::DATABASE)))?
            .build()?;
        Ok(Some(Arc::new(ViewTable::new(ours, None))))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.ours.read().contains_key(name) || self.inner.table_exist(name)
    }
}
