//! Integration tests of the PromQL crate, one module per behaviour.

mod scripts;
mod sharing;
