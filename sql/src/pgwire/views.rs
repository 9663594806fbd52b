//! `CREATE VIEW` and `DROP VIEW`: who may, and which forms of them there are.

use datafusion::sql::sqlparser::ast::{CreateTableOptions, CreateView, ObjectName};
use pgwire::error::PgWireResult;

use super::access::Access;
use super::sqlstate;
use super::statement::Command;
use crate::catalog::views::{NewView, name_of};

/// Understands `CREATE VIEW`.
///
/// # Errors
/// 42501 if it is not allowed, 0A000 for a form that there is not here, 3F000 for another schema.
pub(super) fn create(access: &Access, view: &CreateView) -> PgWireResult<Command> {
    check(access, "create views")?;
    let other = [
        (view.materialized, "MATERIALIZED"),
        (view.temporary, "TEMPORARY"),
        (view.options != CreateTableOptions::None, "WITH options"),
    ];
    if let Some((_, what)) = other.iter().find(|(said, _)| *said) {
        return Err(sqlstate::error("0A000", format!("CREATE VIEW: {what} is not supported")));
    }
    let name = own_name(&view.name)?;
    let query = match view.columns.is_empty() {
        true => view.query.to_string(),
        false => {
            let columns: Vec<_> = view.columns.iter().map(|column| column.name.to_string()).collect();
            format!("SELECT * FROM ({}) AS v ({})", view.query, columns.join(", "))
        }
    };
    Ok(Command::CreateView(NewView {
        name,
        query,
        replace: view.or_replace,
        if_not_exists: view.if_not_exists,
    }))
}

/// Understands `DROP VIEW`.
///
/// # Errors
/// As [`create`].
pub(super) fn drop(
    access: &Access,
    names: &[ObjectName],
    if_exists: bool,
    cascade: bool,
) -> PgWireResult<Command> {
    check(access, "drop views")?;
    if cascade {
        return Err(sqlstate::error("0A000", "DROP VIEW: CASCADE is not supported"));
    }
    let names = names.iter().map(own_name).collect::<PgWireResult<_>>()?;
    Ok(Command::DropViews { names, if_exists })
}

fn check(access: &Access, what: &str) -> PgWireResult<()> {
    if access.may_create() {
        return Ok(());
    }
    let message =
        format!("permission denied: this user may not {what}; `create: true` in the configuration allows it");
    Err(sqlstate::error("42501", message))
}

fn own_name(name: &ObjectName) -> PgWireResult<String> {
    name_of(name).ok_or_else(|| sqlstate::error("3F000", format!("views are in schema metrics, not {name}")))
}
