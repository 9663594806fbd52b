//! What a user may read.

use std::collections::BTreeSet;

use datafusion::common::TableReference;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use pgwire::error::PgWireResult;

use super::sqlstate;
use crate::catalog::METRICS;

/// Schemas for tools, which everyone may ask what there is.
const FOR_TOOLS: [&str; 2] = ["pg_catalog", "information_schema"];

/// The schemas that a user may read; `None` is all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access(Option<BTreeSet<String>>);

impl Access {
    /// Only `schemas`, and those that are made for tools.
    pub fn only(schemas: impl IntoIterator<Item = String>) -> Self {
        Self(Some(schemas.into_iter().collect()))
    }

    /// The schemas by name; `None` is all of them.
    pub fn schemas(&self) -> Option<impl Iterator<Item = &str>> {
        self.0.as_ref().map(|schemas| schemas.iter().map(String::as_str))
    }

    /// Checks every table that `plan` reads, in subqueries as well.
    ///
    /// # Errors
    /// 42501 for the first that is not allowed.
    pub(crate) fn check(&self, plan: &LogicalPlan) -> PgWireResult<()> {
        let Some(allowed) = &self.0 else { return Ok(()) };
        let mut refused = None;
        let visited = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && !may_read(allowed, &scan.table_name)
            {
                refused = Some(scan.table_name.to_string());
                return Ok(TreeNodeRecursion::Stop);
            }
            Ok(TreeNodeRecursion::Continue)
        });
        visited.map_err(|error| sqlstate::from_datafusion(&error))?;
        match refused {
            Some(table) => Err(sqlstate::error("42501", format!("permission denied for table {table}"))),
            None => Ok(()),
        }
    }
}

fn may_read(allowed: &BTreeSet<String>, table: &TableReference) -> bool {
    // Without a schema it is a table function: they compute from metrics.
    let schema = table.schema().unwrap_or(METRICS);
    allowed.contains(schema) || FOR_TOOLS.contains(&schema)
}
