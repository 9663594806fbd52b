//! `pg_catalog`, for the tools that ask it what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::{LogicalPlanBuilder, col, lit};
use datafusion::prelude::SessionContext;
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::pg_catalog::setup_pg_catalog;
use parking_lot::RwLock;

/// Name of the schema.
pub(crate) const PG_CATALOG: &str = "pg_catalog";
const PG_DATABASE: &str = "pg_database";

/// Adds the schema to `catalog`, and its functions to `context`.
pub(crate) fn install(context: &SessionContext, catalog: &Arc<MemoryCatalogProvider>) -> Arc<OneDatabase> {
    setup_pg_catalog(context, super::DATABASE, EmptyContextProvider)
        .expect("the tables of pg_catalog are well formed");
    let inner = catalog.schema(PG_CATALOG).expect("the schema was just made");
    let schema = Arc::new(OneDatabase { inner, ours: RwLock::default() });
    catalog
        .register_schema(PG_CATALOG, Arc::clone(&schema) as Arc<dyn SchemaProvider>)
        .expect("a memory catalog takes every schema");
    schema
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
        if name != PG_DATABASE {
            return Ok(table);
        }
        let Some(table) = table else { return Ok(None) };
        let ours = LogicalPlanBuilder::scan(PG_DATABASE, provider_as_source(table), None)?
            .filter(col("datname").eq(lit(super::DATABASE)))?
            .build()?;
        Ok(Some(Arc::new(ViewTable::new(ours, None))))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.ours.read().contains_key(name) || self.inner.table_exist(name)
    }
}
