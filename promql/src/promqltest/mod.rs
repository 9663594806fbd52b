//! Runs PromQL test scripts, upstream's and our own, against an engine over a memory storage.
//!
//! - [`script`] reads a script: `load`, `clear` and `eval` commands with what they expect.
//! - [`run`] executes the commands and gives a [`Report`] with one [`Case`] per `eval`.
//! - [`compare`] tells whether a result is what a case expects.
//! - [`Evaluate`] is what is tested; [`EngineEvaluator`] tests our engine.
//!
//! Each instant `eval` runs many times: once as written, then with `@` at all selectors and seen from
//! other times, and each of these also as the middle step of a range query. All must agree.
//!
//! # Limits
//! The memory storage holds floats. Series with histograms are read but not loaded; cases that run on such data are marked ([`Case::data_incomplete`]).
//!
//! Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/promqltest/README.md>

pub mod compare;
mod evaluate;
mod expect;
mod nhcb;
pub mod run;
pub mod script;
pub mod split;

pub use evaluate::{EngineEvaluator, Evaluate, script_engine_options};
pub use run::{Case, Report, run_script};
pub use split::Split;
