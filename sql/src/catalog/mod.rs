//! [`SqlCatalog`]: what SQL sees of a storage.
//!
//! One database, `promontory`, with these schemas:
//! - `metrics`, the default one: a table per metric name that exists at that moment, and [`views`];
//! - [`external`]: files as tables;
//! - `tsdb`: the storage itself (`series`, `samples`, `labels`, `blocks`, …), what is asked of it (`queries`), and whatever the server
//!   registers with [`SqlCatalog::register_table`];
//! - `information_schema` and `pg_catalog`, for tools.
//!
//! Names are looked up when a query is planned: listing tables reads one list of label values, and
//! only the tables that a query names are opened.

mod columns;
mod comments;
pub(crate) mod external;
mod kept;
mod lazy;
mod listing;
mod metrics;
mod now;
mod pg_catalog;
mod scan;
mod schema;
mod storage_rows;
mod tsdb;
mod version;
pub(crate) mod views;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, TableProvider};
use datafusion::common::DataFusionError;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::{SessionConfig, SessionContext};
use promontory_tsdb::{Clock, Queryable};

use crate::functions::{self, SqlFunctions};
use crate::query_log::{self, QueryLog};
use crate::{Notices, QueryError, SqlError};
pub use comments::{MetricDescription, MetricDescriptions};
use external::External;
pub use external::{ExternalFormat, ExternalOptions, ExternalTable, Location, ObjectStoreOptions};
pub use listing::Listing;
use metrics::MetricTables;
pub(crate) use pg_catalog::{DATABASE_OID, INFORMATION_SCHEMA, OWNER_NAME, OWNER_OID, PG_CATALOG};
use schema::Schema;
use tsdb::StorageTables;
pub(crate) use version::POSTGRES_VERSION;
use views::Views;

pub use columns::column_of_label_beside;
pub use scan::decode::labels_json;

/// Name of the only database.
pub const DATABASE: &str = "promontory";
/// Schema with a table per metric; where unqualified names are looked up.
pub const METRICS: &str = "metrics";
/// Schema with the tables about the storage.
pub const TSDB: &str = "tsdb";

/// Schema with tables over files.
pub const EXTERNAL: &str = "external";

/// Memory that sorts, joins and groups of all statements share, bytes. What needs more is spilled to the
/// system's temporary directory, or refused with 53200 where it cannot be.
const QUERY_MEMORY_BYTES: usize = 2 * 1024 * 1024 * 1024;

/// The tables over one storage, and sessions that can query them.
pub struct SqlCatalog {
    catalog: Arc<MemoryCatalogProvider>,
    for_tools: Arc<pg_catalog::PgCatalog>,
    comments: Arc<comments::Comments>,
    query_log: Arc<QueryLog>,
    views: Arc<Views>,
    external: Arc<External>,
    /// What every session starts from: functions, catalogs, the shared runtime.
    template: SessionState,
}

impl SqlCatalog {
    /// The tables over `source`. In SQL, `now()` asks `clock`.
    pub fn new(source: Arc<dyn Queryable>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::with_functions(source, clock, SqlFunctions::default())
    }

    /// As [`SqlCatalog::new`], with more functions.
    pub fn with_functions(
        source: Arc<dyn Queryable>,
        clock: Arc<dyn Clock>,
        functions: SqlFunctions,
    ) -> Arc<Self> {
        let catalog = Arc::new(MemoryCatalogProvider::new());
        let views = Arc::new(Views::new());
        let metrics = Schema::new(MetricTables::new(Arc::clone(&source))).with_views(Arc::clone(&views));
        let external = Arc::new(External::new());
        let schemas: [(&str, Arc<Schema>); 3] = [
            (EXTERNAL, Arc::new(Schema::new(Arc::clone(&external)))),
            (METRICS, Arc::new(metrics)),
            (TSDB, Arc::new(Schema::new(StorageTables::new(Arc::clone(&source))))),
        ];
        for (name, schema) in schemas {
            catalog.register_schema(name, schema).expect("a memory catalog takes every schema");
        }
        let config = SessionConfig::new()
            .with_default_catalog_and_schema(DATABASE, METRICS)
            .with_information_schema(true)
            .with_create_default_catalog_and_schema(false)
            .set_str("datafusion.sql_parser.dialect", "postgresql")
            .set_str("datafusion.execution.time_zone", "UTC")
            // All beneath a prefix are objects of its table.
            .set_bool("datafusion.execution.listing_table_ignore_subdirectory", false);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(QUERY_MEMORY_BYTES)))
            .build_arc()
            .expect("the defaults of everything but the memory pool are valid");
        let state =
            SessionStateBuilder::new_with_default_features().with_config(config).with_runtime_env(runtime);
        let state = state.with_physical_optimizer_rule(Arc::new(scan::OneRowPerSeries));
        let state = state.with_optimizer_rule(Arc::new(scan::GroupBeforeJoin));
        let state = functions::prepare(state).build();
        let context = SessionContext::new_with_state(state);
        context.register_catalog(DATABASE, Arc::clone(&catalog) as Arc<dyn CatalogProvider>);
        let comments = Arc::<comments::Comments>::default();
        let docs = [functions::docs(), functions.docs.clone()].concat();
        let surroundings =
            pg_catalog::Surroundings { comments: Arc::clone(&comments), source, started_ms: clock.now_ms() };
        let for_tools = pg_catalog::install(&context, &catalog, surroundings, &docs);
        let query_log = QueryLog::new(Arc::clone(&clock));
        context.register_udf(ScalarUDF::from(now::Now::new(clock)));
        context.register_udf(ScalarUDF::from(version::Version::new()));
        functions::register(&context, functions);
        let own = Arc::new(Self {
            catalog,
            for_tools,
            comments,
            query_log,
            views,
            external,
            template: context.state(),
        });
        let queries = query_log::table(Arc::clone(&own.query_log));
        own.register_table(TSDB, "queries", queries).expect("this schema takes tables");
        own.views.plan_in(&own);
        own.external.read_in(&own);
        own
    }

    /// Asks `descriptions` for what there is to say about metrics; table `tsdb.metadata` shows them all.
    ///
    /// # Errors
    /// If the table cannot be registered.
    pub fn describe(&self, descriptions: Arc<dyn MetricDescriptions>) -> Result<(), SqlError> {
        self.register_table(TSDB, "metadata", comments::table(Arc::clone(&descriptions)))?;
        self.comments.ask(descriptions);
        Ok(())
    }

    /// Keeps views and created tables in folder `sql` of `directory` from now on, and takes those that are in it. A
    /// file that cannot be read is logged and left as it is; whoever names what may be in it is told.
    pub fn keep_in(&self, directory: &Path) {
        let folder = directory.join("sql");
        let views = self.views.keep_in(folder.join("views.json"));
        let tables = self.external.keep_in(folder.join("external_tables.json"));
        for reason in views.into_iter().chain(tables) {
            tracing::error!(reason, "SQL objects cannot be read, used, made or dropped until that is mended");
        }
    }

    /// Shows files as tables of schema `external`, those and no others from now on.
    pub fn mount(&self, options: ExternalOptions) {
        self.external.configure(options);
    }

    /// Tables over files.
    pub(crate) fn external(&self) -> &External {
        &self.external
    }

    /// The views.
    pub(crate) fn views(&self) -> &Views {
        &self.views
    }

    /// Whether there is a metric called `name`.
    pub(crate) fn is_metric(&self, name: &str) -> bool {
        let metrics = self.catalog.schema(METRICS);
        metrics
            .as_ref()
            .and_then(|schema| schema.downcast_ref::<Schema>())
            .is_some_and(|s| s.has_built_in(name))
    }

    /// Where queries are noted.
    pub fn query_log(&self) -> &Arc<QueryLog> {
        &self.query_log
    }

    /// A session of its own: settings changed in it show nowhere else.
    pub fn session(&self) -> SessionContext {
        let config = self.template.config().clone().with_extension(Arc::<Notices>::default());
        let state = SessionStateBuilder::new_from_existing(self.template.clone())
            .with_config(config)
            .with_session_id(format!("{:032x}", rand::random::<u128>()))
            .build();
        SessionContext::new_with_state(state)
    }

    /// Adds table `name` to `pg_catalog`. Replaces what has the name.
    pub(crate) fn show_to_tools(&self, name: &str, provider: Arc<dyn TableProvider>) {
        self.for_tools.add(name, provider);
    }

    /// Adds table `name` to `schema`, which is made if there is none. Replaces what has the name.
    ///
    /// # Errors
    /// If `schema` belongs to tools (`pg_catalog`, `information_schema`).
    pub fn register_table(
        &self,
        schema: &str,
        name: &str,
        provider: Arc<dyn TableProvider>,
    ) -> Result<(), SqlError> {
        let refused =
            |reason| SqlError::Register { schema: schema.to_owned(), table: name.to_owned(), reason };
        if matches!(schema, PG_CATALOG | "information_schema") {
            return Err(refused("this schema is made for tools and takes no tables"));
        }
        if self.catalog.schema(schema).is_none() {
            self.catalog
                .register_schema(schema, Arc::new(Schema::new(schema::NoTables)))
                .map_err(|_| refused("the schema cannot be made"))?;
        }
        let tables = self.catalog.schema(schema).ok_or_else(|| refused("the schema is gone"))?;
        let tables = tables.downcast_ref::<Schema>().ok_or_else(|| refused("the schema takes no tables"))?;
        tables.add(name, provider);
        Ok(())
    }
}

/// An error that has its SQLSTATE, on its way through DataFusion.
fn external_error(error: pgwire::error::PgWireError) -> DataFusionError {
    DataFusionError::External(Box::new(QueryError::from(error)))
}

impl fmt::Debug for SqlCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlCatalog").field("schemas", &self.catalog.schema_names()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
