//! SQL over metrics: the catalog that shows series as tables, and the Postgres wire in front of it.
//!
//! [`SqlCatalog`] turns a [`Queryable`](promontory_tsdb::Queryable) into DataFusion tables with
//! push-down; [`SqlServer`] lets Postgres clients query them. Knows nothing of PromQL, scraping or
//! configuration files: the server hands over a source, a clock and [`SqlOptions`].
//!
//! Data is read only; views and tables over files can be named. What a table shows is fixed when its scan starts.

pub mod catalog;
mod error;
mod execute;
pub mod functions;
mod histogram;
mod notices;
pub mod pgwire;
mod query;
mod query_log;
mod text;
mod timezone;
mod viewer;

pub use catalog::{
    ExternalFormat, ExternalOptions, ExternalTable, Location, MetricDescription, MetricDescriptions,
    ObjectStoreOptions, SqlCatalog, labels_json,
};
pub use error::{FunctionError, SqlError};
pub use functions::SqlFunctions;
pub use histogram::{
    BucketsBuilder, HistogramBuilder, Histograms, buckets_type, histogram_type, is_histogram,
};
pub use notices::{Notices, Severity};
pub use pgwire::{Access, STACK_BYTES, ScramVerifier, SqlOptions, SqlServer, SqlTls, SqlUser};
pub use query::{Described, QueryError, Rows, SqlQueries};
pub use query_log::{NewQuery, QueryLog, RunningQuery};
