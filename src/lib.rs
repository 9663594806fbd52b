//! The server.

pub mod exposition;
pub mod relabel;
