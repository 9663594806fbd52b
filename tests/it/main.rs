//! End to end: the whole server in-process on free ports, and the real binary where a process matters.

mod api;
mod cli;
mod crash;
mod export;
mod lifecycle;
mod scrape;
mod sql;
mod support;
