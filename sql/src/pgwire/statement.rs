//! What a statement is: a query for DataFusion, or a command to the session.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{DataFusionError, ParamValues};
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as AnyStatement;
use datafusion::sql::sqlparser::ast::{
    CloseCursor, ContextModifier, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    ObjectType, Query, Reset, SelectItem, Set, SetAssignment, SetExpr, Statement, Value,
};
use pgwire::error::PgWireResult;

use super::access::{Access, Named};
use super::copy::{self, Copy};
use super::names::{Names, name_functions, tell_apart};
use super::settings::Scope;
use super::{depth, explain, external, sqlstate, views};
use crate::catalog::external::NewTable;
use crate::catalog::views::NewView;

/// A statement, understood.
#[derive(Debug, Clone)]
pub(crate) enum Prepared {
    /// Gives rows, in these columns.
    Query { plan: Arc<LogicalPlan>, columns: SchemaRef },
    /// Gives the lines of a plan.
    Explain(Arc<LogicalPlan>),
    /// Gives rows in another envelope.
    Copy(Copy),
    /// Opens a cursor over the rows of a query.
    Declare { name: String, hold: bool, plan: Arc<LogicalPlan>, columns: SchemaRef },
    /// Gives rows of the cursor that has this name then, with the columns it has now; `None` all that are left.
    Fetch { name: String, columns: SchemaRef, rows: Option<usize> },
    /// Keeps a statement under a name.
    Prepare { name: String, prepared: Box<Self> },
    /// Talks to the session.
    Command(Command),
}

impl Prepared {
    /// The columns that it answers with, if it answers with rows.
    pub(crate) fn schema(&self) -> Option<SchemaRef> {
        match self {
            Self::Query { columns, .. } => Some(Arc::clone(columns)),
            Self::Explain(_) => Some(explain::schema()),
            Self::Fetch { columns, .. } => Some(Arc::clone(columns)),
            Self::Command(command) => command.schema(),
            Self::Copy(_) | Self::Declare { .. } | Self::Prepare { .. } => None,
        }
    }

    /// The plan that it runs, if it runs one.
    pub(crate) fn plan(&self) -> Option<&Arc<LogicalPlan>> {
        match self {
            Self::Query { plan, .. } | Self::Explain(plan) | Self::Declare { plan, .. } => Some(plan),
            Self::Copy(copy) => Some(&copy.plan),
            Self::Fetch { .. } | Self::Prepare { .. } | Self::Command(_) => None,
        }
    }

    /// The statement with values for its parameters.
    ///
    /// # Errors
    /// If a value does not fit where its parameter stands.
    pub(crate) fn with_parameters(mut self, values: Option<ParamValues>) -> PgWireResult<Self> {
        let plan = match &mut self {
            Self::Query { plan, .. } | Self::Explain(plan) | Self::Declare { plan, .. } => plan,
            Self::Copy(copy) => &mut copy.plan,
            Self::Fetch { .. } | Self::Prepare { .. } | Self::Command(_) => return Ok(self),
        };
        if let Some(values) = values {
            let replaced = Arc::unwrap_or_clone(Arc::clone(plan)).replace_params_with_values(&values);
            *plan = Arc::new(replaced.map_err(|error| sqlstate::from_datafusion(&error))?);
        }
        Ok(self)
    }
}

/// A command to the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// SET; without a value, to the one at the start.
    Set { name: String, value: Option<String>, scope: Scope },
    /// `SELECT set_config(…)`: SET that answers with a row.
    SetConfig { name: String, value: String, scope: Scope },
    /// SHOW; without a name, all.
    Show { name: Option<String> },
    /// RESET; without a name, all.
    Reset { name: Option<String> },
    /// BEGIN, START TRANSACTION.
    Begin { tag: &'static str },
    /// COMMIT, END.
    Commit,
    /// ROLLBACK.
    Rollback,
    /// ROLLBACK TO SAVEPOINT: the transaction goes on, also after an error.
    RollbackTo,
    /// DEALLOCATE; without a name, all.
    Deallocate { name: Option<String> },
    /// CLOSE; without a name, all.
    Close { name: Option<String> },
    /// DISCARD ALL.
    DiscardAll,
    /// CREATE VIEW.
    CreateView(NewView),
    /// CREATE EXTERNAL TABLE.
    CreateTable(NewTable),
    /// DROP TABLE, of tables over files.
    DropTables { names: Vec<String>, if_exists: bool },
    /// DROP VIEW.
    DropViews { names: Vec<String>, if_exists: bool },
    /// Accepted, for there is nothing to do.
    Nothing { tag: &'static str },
}

impl Command {
    /// The columns that it answers with, if it answers with rows.
    pub(crate) fn schema(&self) -> Option<SchemaRef> {
        match self {
            Self::SetConfig { .. } => Some(text_columns(&["set_config"])),
            Self::Show { name: Some(name) } => Some(text_columns(&[name])),
            Self::Show { name: None } => Some(text_columns(&["name", "setting", "description"])),
            _ => None,
        }
    }
}

/// A schema of text columns.
pub(crate) fn text_columns(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(
        names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect::<Vec<_>>(),
    ))
}

/// Understands `statement` in `session`, for someone with `access`. Nothing is run.
///
/// # Errors
/// With the SQLSTATE that fits; 0A000 for everything that would change data, 42501 for what is not
/// allowed.
pub(crate) async fn prepare(
    session: &SessionContext,
    access: &Access,
    statement: Statement,
) -> PgWireResult<Prepared> {
    if let Some(command) = command(&statement)? {
        return Ok(Prepared::Command(command));
    }
    match statement {
        Statement::CreateView(view) => Ok(Prepared::Command(views::create(access, &view)?)),
        Statement::Drop { object_type: ObjectType::View, if_exists, names, cascade, .. } => {
            Ok(Prepared::Command(views::drop(access, &names, if_exists, cascade)?))
        }
        Statement::CreateTable(table) if table.external => {
            Ok(Prepared::Command(external::create(access, &table)?))
        }
        Statement::Drop { object_type: ObjectType::Table, if_exists, names, .. }
            if names.iter().any(external::is_external) =>
        {
            Ok(Prepared::Command(external::drop(access, &names, if_exists)?))
        }
        Statement::Query(query) => {
            let (plan, columns) = plan_query(session, access, query).await?;
            Ok(Prepared::Query { plan, columns })
        }
        copy @ Statement::Copy { .. } => {
            let (query, style) = copy::understand(copy)?;
            let (plan, columns) = plan_query(session, access, query).await?;
            Ok(Prepared::Copy(Copy { plan, columns, style }))
        }
        Statement::Declare { mut stmts } => {
            let declared = stmts.pop().filter(|_| stmts.is_empty());
            let query = declared.as_ref().and_then(|declared| declared.for_query.clone());
            let (Some(declared), Some(query)) = (declared, query) else {
                return Err(sqlstate::error("0A000", "DECLARE is for cursors only"));
            };
            if declared.scroll == Some(true) {
                return Err(sqlstate::error("0A000", "SCROLL is not supported: cursors only go forward"));
            }
            let name = declared.names.into_iter().map(|name| name.value).collect();
            let (plan, columns) = plan_query(session, access, query).await?;
            Ok(Prepared::Declare { name, hold: declared.hold == Some(true), plan, columns })
        }
        Statement::Explain {
            mut statement,
            describe_alias,
            analyze,
            verbose,
            query_plan,
            estimate,
            format,
            options,
        } => {
            match statement.as_mut() {
                Statement::Query(query) => {
                    name_functions(query);
                    tell_apart(query);
                }
                other => return Err(sqlstate::read_only(&verb(other))),
            }
            let explain = Statement::Explain {
                statement,
                describe_alias,
                analyze,
                verbose,
                query_plan,
                estimate,
                format,
                options,
            };
            Ok(Prepared::Explain(Arc::new(plan(session, access, explain).await?)))
        }
        other => Err(sqlstate::read_only(&verb(&other))),
    }
}

pub(crate) async fn plan_query(
    session: &SessionContext,
    access: &Access,
    mut query: Box<Query>,
) -> PgWireResult<(Arc<LogicalPlan>, SchemaRef)> {
    let names = Names::of(&query);
    name_functions(&mut query);
    tell_apart(&mut query);
    let plan = plan(session, access, Statement::Query(query)).await?;
    let columns = names.apply(plan.schema().inner());
    Ok((Arc::new(plan), columns))
}

async fn plan(session: &SessionContext, access: &Access, statement: Statement) -> PgWireResult<LogicalPlan> {
    depth::check_tables(&statement)?;
    let (state, statement) = (session.state(), AnyStatement::Statement(Box::new(statement)));
    let named = Named::of(&statement, &state)?;
    access.check_names(&named)?;
    let plan = state.statement_to_plan(statement).await;
    let plan = plan.map_err(|error| sqlstate::from_datafusion(&error))?;
    // Before anything else walks it.
    depth::check_plan(&plan)?;
    let read_only =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    read_only.verify_plan(&plan).map_err(|error| match error {
        DataFusionError::Plan(_) => sqlstate::read_only("a statement that writes"),
        other => sqlstate::from_datafusion(&other),
    })?;
    access.check(&plan, &named)?;
    Ok(plan)
}

/// The first word or two, as in Postgres' messages.
fn verb(statement: &Statement) -> String {
    let text = statement.to_string();
    let mut words = text.split_whitespace().map(str::to_uppercase);
    let first = words.next().unwrap_or_default();
    match first.as_str() {
        "CREATE" | "DROP" | "ALTER" => {
            let object = words.find(|w| !matches!(w.as_str(), "OR" | "REPLACE" | "TEMPORARY" | "TEMP"));
            format!("{first} {}", object.unwrap_or_default()).trim_end().to_owned()
        }
        _ => first,
    }
}

fn command(statement: &Statement) -> PgWireResult<Option<Command>> {
    Ok(Some(match statement {
        Statement::Set(set) => return set_command(set).map(Some),
        Statement::Query(query) => return Ok(set_config(query)),
        Statement::ShowVariable { variable } => Command::Show { name: setting_name(variable) },
        Statement::Reset(reset) => Command::Reset {
            name: match &reset.reset {
                Reset::ALL => None,
                Reset::ConfigurationParameter(name) => Some(folded(name)),
            },
        },
        Statement::StartTransaction { begin, .. } => {
            Command::Begin { tag: if *begin { "BEGIN" } else { "START TRANSACTION" } }
        }
        Statement::Commit { .. } => Command::Commit,
        Statement::Rollback { savepoint: None, .. } => Command::Rollback,
        Statement::Rollback { .. } => Command::RollbackTo,
        Statement::Savepoint { .. } => Command::Nothing { tag: "SAVEPOINT" },
        Statement::ReleaseSavepoint { .. } => Command::Nothing { tag: "RELEASE" },
        Statement::Deallocate { name, .. } => {
            let all = name.quote_style.is_none() && name.value.eq_ignore_ascii_case("all");
            Command::Deallocate { name: (!all).then(|| name.value.clone()) }
        }
        Statement::Close { cursor } => Command::Close {
            name: match cursor {
                CloseCursor::All => None,
                CloseCursor::Specific { name } => Some(name.value.clone()),
            },
        },
        Statement::Discard { object_type } => match object_type.to_string().as_str() {
            "ALL" => Command::DiscardAll,
            "PLANS" => Command::Nothing { tag: "DISCARD PLANS" },
            "SEQUENCES" => Command::Nothing { tag: "DISCARD SEQUENCES" },
            _ => Command::Nothing { tag: "DISCARD TEMP" },
        },
        Statement::UNLISTEN { .. } => Command::Nothing { tag: "UNLISTEN" },
        _ => return Ok(None),
    }))
}

/// `SELECT set_config('name', 'value', false)`, if `query` is that and nothing else.
fn set_config(query: &Query) -> Option<Command> {
    let SetExpr::Select(select) = &*query.body else { return None };
    let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
        &select.projection[..]
    else {
        return None;
    };
    let Expr::Function(function) = item else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let is_it = function.name.0.last()?.as_ident()?.value.eq_ignore_ascii_case("set_config");
    if !is_it || !select.from.is_empty() || select.selection.is_some() {
        return None;
    }
    let text = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    };
    match &list.args[..] {
        [name, value, is_local] => {
            let is_local = is_local.to_string().eq_ignore_ascii_case("true");
            let scope = if is_local { Scope::Transaction } else { Scope::Session };
            Some(Command::SetConfig { name: text(name)?, value: text(value)?, scope })
        }
        _ => None,
    }
}

fn set_command(set: &Set) -> PgWireResult<Command> {
    let assign = |name: String, values: &[Expr], is_local: bool| {
        let values: Vec<_> = values.iter().map(value_text).collect();
        let default = matches!(values.as_slice(), [one] if one.eq_ignore_ascii_case("default"));
        let scope = if is_local { Scope::Transaction } else { Scope::Session };
        Command::Set { name, value: (!default).then(|| values.join(", ")), scope }
    };
    let is_local = |scope: &Option<ContextModifier>| *scope == Some(ContextModifier::Local);
    let encoding = |value| Command::Set { name: "client_encoding".to_owned(), value, scope: Scope::Session };
    Ok(match set {
        Set::SingleAssignment { scope, variable, values, .. } => {
            assign(folded(variable), values, is_local(scope))
        }
        Set::SetTimeZone { local, value } => {
            assign("TimeZone".to_owned(), std::slice::from_ref(value), *local)
        }
        Set::SetNames { charset_name, .. } => encoding(Some(charset_name.value.clone())),
        Set::SetNamesDefault {} => encoding(None),
        Set::MultipleAssignments { assignments } => match assignments.as_slice() {
            [SetAssignment { scope, name, value }] => {
                assign(folded(name), std::slice::from_ref(value), is_local(scope))
            }
            _ => return Err(sqlstate::error("0A000", "SET takes one setting at a time")),
        },
        // All that is ever read is committed, and nobody writes.
        Set::SetTransaction { .. } | Set::SetSessionAuthorization(_) | Set::SetRole { .. } => {
            Command::Nothing { tag: "SET" }
        }
        _ => return Err(sqlstate::error("0A000", "this form of SET is not supported")),
    })
}

/// A name as written, parts joined by dots.
pub(crate) fn folded(name: &ObjectName) -> String {
    let parts =
        name.0.iter().map(|part| part.as_ident().map_or_else(|| part.to_string(), |i| i.value.clone()));
    parts.collect::<Vec<_>>().join(".")
}

/// SHOW takes several words for some settings.
fn setting_name(words: &[Ident]) -> Option<String> {
    let name = words.iter().map(|w| w.value.as_str()).collect::<Vec<_>>().join(".");
    match name.to_lowercase().as_str() {
        "all" => None,
        "time.zone" => Some("TimeZone".to_owned()),
        "transaction.isolation.level" => Some("transaction_isolation".to_owned()),
        "session.authorization" => Some("session_authorization".to_owned()),
        _ => Some(name),
    }
}

fn value_text(value: &Expr) -> String {
    match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => text.clone(),
            other => other.to_string(),
        },
        Expr::Identifier(name) => name.value.clone(),
        other => other.to_string(),
    }
}
