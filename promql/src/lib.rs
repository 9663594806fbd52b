//! PromQL: parser, plans, kernels and operators on DataFusion.
//!
//! ```text
//! text ──parser──▶ Expr ──planner──▶ LogicalPlan ──▶ ExecutionPlan ──▶ tiles ──▶ QueryValue
//! ```
//!
//! - [`parser`] knows the language and nothing of its execution.
//! - [`logical`] describes leaves, windows and aggregates; [`physical`] runs them; [`kernels`] computes.
//! - [`histogram`] is the arithmetic of native histograms; [`notes`] what is told about them.
//! - [`tile`] is the column contract that every operator between leaf and result obeys.
//! - [`cache`] keeps steps of results, so that a refresh computes what is new.
//! - [`value`] is what a query gives: scalars, vectors, matrices, annotations.
//! - [`EngineOptions`] and [`QueryParams`] carry what a query may use and over which steps it runs.
//!
//! Knows labels and plans. Opens no file and no socket.

pub mod cache;
pub mod context;
mod engine;
mod error;
pub mod histogram;
pub mod kernels;
pub mod keys;
pub mod logical;
pub mod notes;
pub mod operators;
mod params;
pub mod parser;
pub mod physical;
mod planner;
pub mod promqltest;
mod result;
mod result_labels;
mod stack;
pub mod tile;
pub mod value;

pub use context::SampleStats;
pub use engine::{Engine, Explained};
pub use error::QueryError;
pub use params::{EngineOptions, Grid, QueryParams};
pub use result_labels::LabelNames;
