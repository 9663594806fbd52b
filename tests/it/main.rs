//! End to end: the whole server in-process on free ports, and the real binary where a process matters.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "tests say what they skip")]

mod admin;
mod api;
mod cli;
mod clients;
mod crash;
#[path = "../../sql/tests/it/data.rs"]
mod data;
mod exemplars;
mod export;
mod external;
mod fixtures;
mod flight;
mod lifecycle;
mod postgres;
mod queries;
mod scrape;
mod slt;
mod sql;
mod sql_docs;
mod sql_functions;
mod sql_oracle;
mod support;
mod tools;
