//! The Promontory server: command line, configuration, scraping, HTTP API, Parquet export.
//!
//! [`server::Server`] is the whole of it in one process: what the binary starts, and what tests start
//! in-process on free ports. The crates below know nothing of files of configuration, of sockets for
//! HTTP, or of each other, except that all read through one trait, [`promontory_tsdb::Queryable`].

pub mod api;
pub mod cli;
pub mod config;
pub mod discovery;
mod exemplars_table;
pub mod export;
pub mod exposition;
pub mod flight;
mod lenient_url;
mod metric_descriptions;
pub mod relabel;
mod reload;
pub mod scrape;
pub mod server;
pub mod sql_functions;
mod sql_login;
pub mod sql_tools;
mod targets_table;
pub mod tasks;
pub mod telemetry;
pub mod tsdb_tools;
pub mod units;
