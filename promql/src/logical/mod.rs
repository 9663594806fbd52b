//! Logical plan nodes: typed, pure descriptions of what is computed. Nothing here runs.
//!
//! A plan is a DataFusion [`LogicalPlan`](datafusion::logical_expr::LogicalPlan) whose nodes all
//! speak tiles on a stated [`Grid`](crate::Grid). One node, one file.

pub mod spec;
