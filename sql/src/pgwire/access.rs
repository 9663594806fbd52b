//! What a user may read.

use std::collections::BTreeSet;

use datafusion::common::TableReference;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use pgwire::error::{PgWireError, PgWireResult};

use super::sqlstate;
use crate::catalog::METRICS;

/// Schemas for tools, which everyone may ask what there is.
const FOR_TOOLS: [&str; 2] = ["pg_catalog", "information_schema"];

/// What a user may do. The default is everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The schemas that they may read; `None` is all of them.
    schemas: Option<BTreeSet<String>>,
    /// Whether they may make and drop views and tables over files.
    create: bool,
}

impl Default for Access {
    fn default() -> Self {
        Self { schemas: None, create: true }
    }
}

impl Access {
    /// To read everything.
    pub fn reading() -> Self {
        Self { schemas: None, create: false }
    }

    /// To read only `schemas`, and those that are made for tools.
    pub fn only(schemas: impl IntoIterator<Item = String>) -> Self {
        Self { schemas: Some(schemas.into_iter().collect()), create: false }
    }

    /// The same, with or without the right to make and drop views and tables over files.
    #[must_use]
    pub fn creating(self, create: bool) -> Self {
        Self { create, ..self }
    }

    /// Whether they may make and drop views and tables over files.
    pub fn may_create(&self) -> bool {
        self.create
    }

    /// The schemas by name; `None` is all of them.
    pub fn schemas(&self) -> Option<impl Iterator<Item = &str>> {
        self.schemas.as_ref().map(|schemas| schemas.iter().map(String::as_str))
    }

    /// Checks `tables` as they are named in a statement, bare ones being of `default_schema`.
    ///
    /// # Errors
    /// 42501 for the first that is not allowed.
    pub(crate) fn check_names(&self, tables: &[TableReference], default_schema: &str) -> PgWireResult<()> {
        let Some(allowed) = &self.schemas else { return Ok(()) };
        let refused = tables.iter().find(|table| {
            let schema = table.schema().unwrap_or(default_schema);
            !allowed.contains(schema) && !FOR_TOOLS.contains(&schema)
        });
        refused.map_or(Ok(()), |table| Err(denied(&table.to_string())))
    }

    /// Checks every table that `plan` reads, in subqueries as well.
    ///
    /// # Errors
    /// 42501 for the first that is not allowed.
    pub(crate) fn check(&self, plan: &LogicalPlan) -> PgWireResult<()> {
        let Some(allowed) = &self.schemas else { return Ok(()) };
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
            Some(table) => Err(denied(&table)),
            None => Ok(()),
        }
    }
}

fn denied(table: &str) -> PgWireError {
    sqlstate::error("42501", format!("permission denied for table {table}"))
}

fn may_read(allowed: &BTreeSet<String>, table: &TableReference) -> bool {
    // Without a schema it is a table function: they compute from metrics.
    let schema = table.schema().unwrap_or(METRICS);
    allowed.contains(schema) || FOR_TOOLS.contains(&schema)
}
