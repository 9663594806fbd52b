//! [`Schema`]: built-in tables that are looked up on demand, plus tables registered by hand.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::TableType;
use parking_lot::RwLock;

/// Tables that exist because the storage says so.
#[async_trait]
pub(crate) trait BuiltIn: Debug + Send + Sync + 'static {
    /// Their names. Opens none of them.
    fn names(&self) -> Result<Vec<String>>;

    /// Whether there is one called `name`. Does not open it.
    fn exists(&self, name: &str) -> Result<bool>;

    /// Opens the one called `name`.
    async fn open(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>>;
}

/// Nothing built in.
#[derive(Debug)]
pub(crate) struct NoTables;

#[async_trait]
impl BuiltIn for NoTables {
    fn names(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn exists(&self, _name: &str) -> Result<bool> {
        Ok(false)
    }

    async fn open(&self, _name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        Ok(None)
    }
}

/// Built-in tables and registered ones; a registered table hides a built-in one of its name.
#[derive(Debug)]
pub(crate) struct Schema {
    built_in: Box<dyn BuiltIn>,
    registered: RwLock<BTreeMap<String, Arc<dyn TableProvider>>>,
}

impl Schema {
    /// A schema with these tables built in.
    pub(crate) fn new(built_in: impl BuiltIn) -> Self {
        Self { built_in: Box::new(built_in), registered: RwLock::default() }
    }

    /// All tables with their types. Opens none of them.
    pub(crate) fn listing(&self) -> BTreeMap<String, TableType> {
        // Whoever lists tables has no way to hear that the index cannot be read.
        let names = self.built_in.names().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot list SQL tables");
            Vec::new()
        });
        let mut all: BTreeMap<_, _> = names.into_iter().map(|name| (name, TableType::Base)).collect();
        let registered = self.registered.read();
        all.extend(registered.iter().map(|(name, table)| (name.clone(), table.table_type())));
        all
    }

    /// Adds a table, or replaces it.
    pub(crate) fn add(&self, name: &str, table: Arc<dyn TableProvider>) {
        self.registered.write().insert(name.to_owned(), table);
    }
}

#[async_trait]
impl SchemaProvider for Schema {
    fn table_names(&self) -> Vec<String> {
        self.listing().into_keys().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(table) = self.registered.read().get(name) {
            return Ok(Some(Arc::clone(table)));
        }
        self.built_in.open(name).await
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        if let Some(table) = self.registered.read().get(name) {
            return Ok(Some(table.table_type()));
        }
        Ok(self.built_in.exists(name)?.then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.registered.read().contains_key(name) || self.built_in.exists(name).unwrap_or(false)
    }
}
