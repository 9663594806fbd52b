//! End to end: the whole server in-process on free ports, and the real binary where a process matters.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "tests say what they skip")]

mod admin;
mod api;
mod cli;
mod clients;
mod crash;
mod exemplars;
mod export;
mod fixtures;
mod lifecycle;
mod queries;
mod scrape;
mod sql;
mod sql_docs;
mod sql_functions;
mod support;
mod tools;
