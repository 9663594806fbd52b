//! What a user may read.

use std::collections::BTreeSet;

use datafusion::common::TableReference;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
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

    /// Whether they may read tables of `schema`; what is made for tools, everyone may.
    pub fn may_read(&self, schema: &str) -> bool {
        FOR_TOOLS.contains(&schema) || self.schemas.as_ref().is_none_or(|allowed| allowed.contains(schema))
    }

    /// Whether they may see what others ask, which tells of all schemas.
    pub(crate) fn sees_everyone(&self) -> bool {
        self.schemas.is_none()
    }

    /// Checks the tables that a statement names, before it is planned.
    ///
    /// # Errors
    /// 42501 for the first that is not allowed.
    pub(crate) fn check_names(&self, named: &Named) -> PgWireResult<()> {
        let refused = named.tables.iter().find(|table| !self.may_read(named.schema_of_named(table)));
        refused.map_or(Ok(()), |table| Err(denied(table)))
    }

    /// Checks every table that `plan` of a statement reads, in subqueries and views as well.
    ///
    /// # Errors
    /// 42501 for the first that is not allowed.
    pub(crate) fn check(&self, plan: &LogicalPlan, named: &Named) -> PgWireResult<()> {
        if self.schemas.is_none() {
            return Ok(());
        }
        let mut refused = None;
        let visited = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && !self.may_read(named.schema_of_scanned(&scan.table_name))
            {
                refused = Some(denied(&scan.table_name));
                return Ok(TreeNodeRecursion::Stop);
            }
            Ok(TreeNodeRecursion::Continue)
        });
        visited.map_err(|error| sqlstate::from_datafusion(&error))?;
        refused.map_or(Ok(()), Err)
    }
}

/// The tables that a statement names, and what bare names mean there.
#[derive(Debug)]
pub(crate) struct Named {
    tables: Vec<TableReference>,
    default_schema: String,
    /// Bare names that are table functions.
    functions: BTreeSet<String>,
}

impl Named {
    /// Those of `statement` in a session with `state`.
    ///
    /// # Errors
    /// If a name has too many parts.
    pub(crate) fn of(statement: &Statement, state: &SessionState) -> PgWireResult<Self> {
        let tables = state.resolve_table_references(statement);
        let tables = tables.map_err(|error| sqlstate::from_datafusion(&error))?;
        Ok(Self {
            tables,
            default_schema: state.config_options().catalog.default_schema.clone(),
            functions: state.table_functions().keys().cloned().collect(),
        })
    }

    /// A bare name of the statement is found in the schema of the search path.
    fn schema_of_named<'a>(&'a self, table: &'a TableReference) -> &'a str {
        table.schema().unwrap_or(&self.default_schema)
    }

    /// A plan does not say what a bare name stood for. Those that the statement does not have are of views, which have
    /// no search path, or of table functions, which compute from metrics.
    fn schema_of_scanned<'a>(&'a self, table: &'a TableReference) -> &'a str {
        match table.schema() {
            Some(schema) => schema,
            None if self.functions.contains(table.table()) => METRICS,
            None if self
                .tables
                .iter()
                .any(|named| named.schema().is_none() && named.table() == table.table()) =>
            {
                &self.default_schema
            }
            None => METRICS,
        }
    }
}

fn denied(table: &TableReference) -> PgWireError {
    sqlstate::error("42501", format!("permission denied for table {table}"))
}
