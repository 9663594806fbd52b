//! [`Schema`]: built-in tables that are looked up on demand, plus tables registered by hand.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::TableType;
use parking_lot::RwLock;

use super::views::Views;

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
    /// They hide what has their names.
    views: Option<Arc<Views>>,
}

impl Schema {
    /// A schema with these tables built in.
    pub(crate) fn new(built_in: impl BuiltIn) -> Self {
        Self { built_in: Box::new(built_in), registered: RwLock::default(), views: None }
    }

    /// The same with `views`.
    pub(crate) fn with_views(self, views: Arc<Views>) -> Self {
        Self { views: Some(views), ..self }
    }

    /// Whether a built-in table is called `name`.
    pub(crate) fn has_built_in(&self, name: &str) -> bool {
        self.built_in.exists(name).unwrap_or(false)
    }

    /// The query of the view called `name`.
    pub(crate) fn definition(&self, name: &str) -> Option<String> {
        self.views.as_ref()?.definition(name)
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
        let views = self.views.iter().flat_map(|views| views.names());
        all.extend(views.map(|name| (name, TableType::View)));
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
        if let Some(views) = &self.views
            && let Some(view) = views.open(name).await?
        {
            return Ok(Some(view));
        }
        if let Some(table) = self.registered.read().get(name) {
            return Ok(Some(Arc::clone(table)));
        }
        let built_in = self.built_in.open(name).await?;
        if let (None, Some(views)) = (&built_in, &self.views) {
            // It may be one of those that cannot be read.
            views.check_readable()?;
        }
        Ok(built_in)
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        if self.definition(name).is_some() {
            return Ok(Some(TableType::View));
        }
        if let Some(table) = self.registered.read().get(name) {
            return Ok(Some(table.table_type()));
        }
        Ok(self.built_in.exists(name)?.then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.definition(name).is_some()
            || self.registered.read().contains_key(name)
            || self.built_in.exists(name).unwrap_or(false)
    }
}
