//! The server.

pub mod config;
pub mod exposition;
pub mod relabel;
