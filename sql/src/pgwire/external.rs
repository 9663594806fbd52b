//! `CREATE EXTERNAL TABLE name STORED AS format [OPTIONS (…)] LOCATION 'path'` and `DROP TABLE external.name`.
//!
//! The syntax is DataFusion's, which its parser for other statements does not know; between parsing and understanding
//! such a statement is a `CREATE TABLE` that is external, with the format as its comment.

use std::sync::LazyLock;

use datafusion::sql::parser::{CreateExternalTable, DFParser, Statement as AnyStatement};
use datafusion::sql::sqlparser::ast::helpers::stmt_create_table::CreateTableBuilder;
use datafusion::sql::sqlparser::ast::{
    CommentDef, CreateTable, CreateTableOptions, Expr, Ident, ObjectName, SqlOption, Statement, Value,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use pgwire::error::PgWireResult;
use regex::Regex;

use super::access::Access;
use super::sqlstate;
use super::statement::Command;
use crate::catalog::external::{ExternalFormat, ExternalTable, Location, NewTable};
use crate::catalog::{EXTERNAL, views};

/// The statement of `text`, if that is `CREATE EXTERNAL TABLE`.
///
/// # Errors
/// 42601 if it cannot be parsed, 0A000 for what there is not here.
pub(super) fn parse(text: &str) -> PgWireResult<Option<Statement>> {
    static BEGINS: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"(?is)^(\s|--[^\n]*\n|/\*.*?\*/)*create\s+(or\s+replace\s+)?external\s+table\b").ok()
    });
    if !BEGINS.as_ref().is_some_and(|begins| begins.is_match(text)) {
        return Ok(None);
    }
    let failed = |message: String| sqlstate::error("42601", message);
    let parsed = DFParser::parse_sql_with_dialect(text, &PostgreSqlDialect {});
    let mut statements = parsed.map_err(|error| failed(error.strip_backtrace()))?;
    let only = statements.pop_front().filter(|_| statements.is_empty());
    let Some(AnyStatement::CreateExternalTable(create)) = only else {
        return Err(failed("CREATE EXTERNAL TABLE stands alone".to_owned()));
    };
    carried(create).map(Some)
}

fn carried(create: CreateExternalTable) -> PgWireResult<Statement> {
    let unsupported = [
        (!create.columns.is_empty(), "columns: they are those of the files"),
        (!create.table_partition_cols.is_empty(), "PARTITIONED BY"),
        (!create.order_exprs.is_empty(), "WITH ORDER"),
        (!create.constraints.is_empty(), "constraints"),
        (create.unbounded, "UNBOUNDED"),
        (create.temporary, "TEMPORARY"),
        (create.locations.len() != 1, "several locations"),
    ];
    if let Some((_, what)) = unsupported.iter().find(|(said, _)| *said) {
        return Err(sqlstate::error("0A000", format!("CREATE EXTERNAL TABLE: no {what}")));
    }
    let options = create.options.into_iter().map(|(key, value)| SqlOption::KeyValue {
        key: Ident::with_quote('\'', key),
        value: Expr::value(value),
    });
    let table = CreateTableBuilder::new(create.name)
        .external(true)
        .or_replace(create.or_replace)
        .if_not_exists(create.if_not_exists)
        .location(create.locations.into_iter().next())
        .comment_after_column_def(Some(CommentDef::WithoutEq(create.file_type)))
        .table_options(CreateTableOptions::With(options.collect()))
        .build();
    Ok(Statement::CreateTable(table))
}

/// Understands what [`parse`] gave.
///
/// # Errors
/// 42501 if it is not allowed, 0A000 for a form that there is not here, 3F000 for another schema.
pub(super) fn create(access: &Access, create: &CreateTable) -> PgWireResult<Command> {
    check(access)?;
    let (Some(CommentDef::WithoutEq(format)), Some(location)) = (&create.comment, &create.location) else {
        return Err(sqlstate::error("0A000", "CREATE EXTERNAL TABLE takes STORED AS and LOCATION"));
    };
    let location = Location::parse(location).map_err(|reason| sqlstate::error("22023", reason))?;
    let unknown =
        || sqlstate::error("0A000", format!("external tables are PARQUET, CSV or JSON, not {format}"));
    let mut format = ExternalFormat::by_name(format).ok_or_else(unknown)?;
    if let CreateTableOptions::With(options) = &create.table_options {
        for option in options {
            let SqlOption::KeyValue { key, value } = option else { continue };
            let value = match value {
                Expr::Value(value) => match &value.value {
                    Value::SingleQuotedString(text) => text.clone(),
                    other => other.to_string(),
                },
                other => other.to_string(),
            };
            format = with_option(format, &key.value, &value)?;
        }
    }
    let table = ExternalTable { name: own_name(&create.name)?, location, format };
    Ok(Command::CreateTable(NewTable {
        table,
        replace: create.or_replace,
        if_not_exists: create.if_not_exists,
    }))
}

fn with_option(format: ExternalFormat, key: &str, value: &str) -> PgWireResult<ExternalFormat> {
    let wrong = || sqlstate::error("22023", format!("option {key} cannot be {value:?}"));
    let ExternalFormat::Csv { header, delimiter } = format else {
        return Err(sqlstate::error(
            "42601",
            format!("there is no option {key} for {} files", format.name()),
        ));
    };
    let name = key.to_ascii_lowercase();
    Ok(match name.strip_prefix("format.").unwrap_or(&name) {
        "has_header" | "header" => {
            let header = match value.to_ascii_lowercase().as_str() {
                "true" | "on" | "1" => true,
                "false" | "off" | "0" => false,
                _ => return Err(wrong()),
            };
            ExternalFormat::Csv { header, delimiter }
        }
        "delimiter" => match value.as_bytes() {
            [delimiter] if delimiter.is_ascii() => ExternalFormat::Csv { header, delimiter: *delimiter },
            _ => return Err(wrong()),
        },
        _ => return Err(sqlstate::error("42601", format!("there is no option {key} for csv files"))),
    })
}

/// Understands `DROP TABLE`.
///
/// # Errors
/// As [`create`].
pub(super) fn drop(access: &Access, names: &[ObjectName], if_exists: bool) -> PgWireResult<Command> {
    check(access)?;
    let names = names.iter().map(own_name).collect::<PgWireResult<_>>()?;
    Ok(Command::DropTables { names, if_exists })
}

/// Whether `name` says that it is in schema `external`.
pub(super) fn is_external(name: &ObjectName) -> bool {
    views::parts_of(name).is_some_and(|parts| parts.len() > 1 && parts[parts.len() - 2] == EXTERNAL)
}

fn own_name(name: &ObjectName) -> PgWireResult<String> {
    let parts = views::parts_of(name);
    match parts.as_deref() {
        Some([name]) => Ok(name.clone()),
        Some([.., schema, name]) if schema == EXTERNAL => Ok(name.clone()),
        _ => Err(sqlstate::error("3F000", format!("tables over files are in schema {EXTERNAL}, not {name}"))),
    }
}

fn check(access: &Access) -> PgWireResult<()> {
    if access.may_create() {
        return Ok(());
    }
    let message = "permission denied: this user may not create or drop tables; \
                   `create: true` in the configuration allows it";
    Err(sqlstate::error("42501", message))
}
