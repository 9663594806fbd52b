//! `pg_catalog`, for the tools that ask it what there is.

use std::sync::Arc;

use datafusion::catalog::MemoryCatalogProvider;
use datafusion::prelude::SessionContext;
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::pg_catalog::setup_pg_catalog;

/// Name of the schema.
pub(crate) const PG_CATALOG: &str = "pg_catalog";

/// Adds the schema to `catalog`, and its functions to `context`.
pub(crate) fn install(context: &SessionContext, _catalog: &Arc<MemoryCatalogProvider>) {
    setup_pg_catalog(context, super::DATABASE, EmptyContextProvider)
        .expect("the tables of pg_catalog are well formed");
}
