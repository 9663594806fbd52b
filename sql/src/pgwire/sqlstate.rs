//! The one table from errors to SQLSTATE.
//!
//! Source: <https://www.postgresql.org/docs/15/errcodes-appendix.html>

use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError};
use pgwire::error::{ErrorInfo, PgWireError};
use promontory_tsdb::ErrorKind;

use crate::{FunctionError, QueryError};

/// SQLSTATE of an error that a layer below describes by its kind.
pub(crate) fn of_kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Invalid => "22023",
        ErrorKind::Unsupported => "0A000",
        ErrorKind::NotFound => "42P01",
        ErrorKind::Execution => "22000",
        ErrorKind::Limit => "53000",
        ErrorKind::Timeout | ErrorKind::Cancelled => "57014",
        ErrorKind::Unavailable => "57P03",
        ErrorKind::Data => "XX001",
        // `ErrorKind` may grow; a kind that is not in the table is our bug.
        _ => "XX000",
    }
}

/// An error that leaves the connection open.
pub(crate) fn error(code: &str, message: impl Into<String>) -> PgWireError {
    info("ERROR", code, message.into())
}

/// An error that ends the connection.
pub(crate) fn fatal(code: &str, message: impl Into<String>) -> PgWireError {
    info("FATAL", code, message.into())
}

/// The refusal of everything that would change something.
pub(crate) fn read_only(what: &str) -> PgWireError {
    error("0A000", format!("Promontory is read only: {what} is not supported"))
}

fn info(severity: &str, code: &str, message: String) -> PgWireError {
    let mut info = ErrorInfo::new(severity.to_owned(), code.to_owned(), message);
    info.severity_nonlocalized = Some(severity.to_owned());
    PgWireError::UserError(Box::new(info))
}

/// An error of planning or running a query, as its client should hear it.
pub(crate) fn from_datafusion(error: &DataFusionError) -> PgWireError {
    if let Some(QueryError { sqlstate, message }) = described(error) {
        return self::error(sqlstate, message.clone());
    }
    let (code, message) = describe(error);
    self::error(code, message)
}

/// What already has its SQLSTATE.
fn described(error: &DataFusionError) -> Option<&QueryError> {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => described(inner),
        DataFusionError::Shared(inner) => described(inner),
        DataFusionError::Collection(errors) => errors.first().and_then(described),
        DataFusionError::External(inner) => inner.downcast_ref(),
        _ => None,
    }
}

fn describe(error: &DataFusionError) -> (&'static str, String) {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => describe(inner),
        DataFusionError::Shared(inner) => describe(inner),
        DataFusionError::Collection(errors) if !errors.is_empty() => describe(&errors[0]),
        DataFusionError::SQL(parser, _) => ("42601", parser_message(&parser.to_string())),
        DataFusionError::SchemaError(schema, _) => describe_schema(schema),
        DataFusionError::Plan(message) => describe_plan(message),
        DataFusionError::NotImplemented(message) => describe_missing(message),
        DataFusionError::Configuration(message) => ("22023", message.clone()),
        DataFusionError::ResourcesExhausted(message) => ("53200", message.clone()),
        DataFusionError::Execution(message) if message.contains("coercion failed with:") => {
            describe_plan(message)
        }
        DataFusionError::Execution(message) | DataFusionError::Internal(message)
            if of_regex(message).is_some() =>
        {
            describe_other(message)
        }
        DataFusionError::Execution(message) => (of_execution(message), message.clone()),
        DataFusionError::ArrowError(arrow, _) => describe_arrow(arrow),
        DataFusionError::External(inner) => match inner.downcast_ref::<promontory_tsdb::Error>() {
            Some(storage) => (of_kind(storage.kind()), with_causes(storage)),
            None => match (inner.downcast_ref::<DataFusionError>(), inner.downcast_ref::<FunctionError>()) {
                (Some(inner), _) => describe(inner),
                (None, Some(function)) => (of_kind(function.kind), function.message.clone()),
                (None, None) => describe_other(&inner.to_string()),
            },
        },
        other => ("XX000", other.strip_backtrace()),
    }
}

fn describe_schema(error: &SchemaError) -> (&'static str, String) {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            if let Some(table) = &field.relation
                && !valid_fields.iter().any(|known| known.relation.as_ref() == Some(table))
            {
                return ("42P01", format!("missing FROM-clause entry for table {:?}", table.table()));
            }
            let known: Vec<_> = valid_fields.iter().map(|f| f.name.as_str()).collect();
            let mut message = format!("column {:?} does not exist", field.name);
            if !known.is_empty() {
                message.push_str("; there are ");
                message.push_str(&known.join(", "));
            }
            ("42703", message)
        }
        SchemaError::AmbiguousReference { .. } => ("42702", error.to_string()),
        SchemaError::DuplicateQualifiedField { qualifier, .. } => {
            ("42712", format!("table name {:?} specified more than once", qualifier.table()))
        }
        SchemaError::DuplicateUnqualifiedField { .. } => ("42701", error.to_string()),
    }
}

/// DataFusion says most of what is wrong with a query in words only.
fn describe_plan(message: &str) -> (&'static str, String) {
    let table = message.strip_prefix("table '").and_then(|rest| rest.strip_suffix("' not found"));
    if let Some(table) = table {
        let table = table.strip_prefix("promontory.").unwrap_or(table);
        return ("42P01", format!("relation {table:?} does not exist"));
    }
    if message.starts_with("LIMIT must be >= 0") {
        return ("2201W", "LIMIT must not be negative".to_owned());
    }
    // What one of our functions says of its arguments comes wrapped up.
    if let Some((_, said)) = message.split_once("coercion failed with: Error during planning: ") {
        let end = said.find(". No function matches the given name").unwrap_or(said.len());
        return ("42883", said[..end].to_owned());
    }
    let code = if message.starts_with("table function ")
        || message.starts_with("Invalid function")
        || message.contains("No function matches")
    {
        "42883"
    } else if message.contains("must appear in the GROUP BY")
        || message.contains("must be in GROUP BY")
        || message.starts_with("Aggregate functions are not allowed")
    {
        "42803"
    } else if message.contains("Cannot infer common argument type") || message.contains("Cannot coerce") {
        "42804"
    } else if message.contains("placeholder") || message.contains("Placeholder") {
        "42P02"
    } else {
        "42601"
    };
    (code, message.to_owned())
}

/// What a library below says for itself.
fn describe_other(message: &str) -> (&'static str, String) {
    match of_regex(message) {
        Some(reason) => ("2201B", format!("invalid regular expression: {reason}")),
        None => ("XX000", message.to_owned()),
    }
}

/// What is wrong with a regular expression, if `message` says that something is.
fn of_regex(message: &str) -> Option<&str> {
    const NOT_COMPILED: &str = "Regular expression did not compile: ";
    let known = ["regex parse error:", "Compiled regex exceeds size limit"];
    let message = match message.split_once(NOT_COMPILED) {
        Some((_, said)) => said,
        None if known.iter().any(|beginning| message.starts_with(beginning)) => message,
        None => return None,
    };
    if message.contains("Compiled regex exceeds size limit") || message.contains("CompiledTooBig") {
        return Some("it is too big");
    }
    // The pattern is drawn in front, with a mark where it is wrong.
    let reason = message.rsplit_once("error: ").and_then(|(_, reason)| reason.lines().next());
    Some(reason.unwrap_or(message).trim())
}

/// What DataFusion says it has not implemented, much of which is an error of the query.
fn describe_missing(message: &str) -> (&'static str, String) {
    if let Some(name) = message.strip_prefix("Unsupported SQL type ") {
        return ("42704", format!("type {name:?} does not exist"));
    }
    match message.strip_prefix("Physical plan does not support logical expression ") {
        Some(expression) if expression.starts_with("WindowFunction") => {
            ("42P20", "window functions are allowed in SELECT and ORDER BY only".to_owned())
        }
        Some(expression) if expression.starts_with("OuterReferenceColumn") => {
            ("0A000", "a subquery of this form cannot refer to the query around it".to_owned())
        }
        _ => ("0A000", message.to_owned()),
    }
}

/// What ends a statement that took too long.
pub(crate) const TIMED_OUT: &str = "canceling statement due to statement timeout";

fn of_execution(message: &str) -> &'static str {
    if message.contains("Error parsing timestamp") {
        "22007"
    } else if message.starts_with("Scalar subquery returned more than one row") {
        "21000"
    } else if message == TIMED_OUT {
        "57014"
    } else if message.starts_with("unrecognized configuration parameter") {
        "42704"
    } else {
        "22000"
    }
}

fn describe_arrow(error: &ArrowError) -> (&'static str, String) {
    let code = match error {
        ArrowError::ComputeError(text) if of_regex(text).is_some() => return describe_other(text),
        ArrowError::DivideByZero => "22012",
        ArrowError::ArithmeticOverflow(_) => "22003",
        ArrowError::ParseError(text) if text.contains("timestamp") => "22007",
        ArrowError::CastError(text) if text.starts_with("Can't cast value") => "22003",
        ArrowError::CastError(_) | ArrowError::ParseError(_) => "22P02",
        ArrowError::InvalidArgumentError(_) => "22023",
        ArrowError::NotYetImplemented(_) => "0A000",
        ArrowError::ExternalError(inner) => {
            return match inner.downcast_ref::<DataFusionError>() {
                Some(inner) => describe(inner),
                None => describe_other(&inner.to_string()),
            };
        }
        _ => "XX000",
    };
    let message = match error {
        ArrowError::DivideByZero => "division by zero".to_owned(),
        other => other.to_string(),
    };
    (code, message)
}

/// A syntax error, without the layer that found it.
pub(crate) fn parser_message(message: &str) -> String {
    let message = message.trim_start_matches("sql parser error: ");
    format!("syntax error: {message}")
}

/// `error` and what caused it, on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_pattern_is_said_in_one_line() {
        for (message, reason) in [
            ("regex parse error:\n    (\n    ^\nerror: unclosed group", Some("unclosed group")),
            (
                "Regular expression did not compile: Syntax(\n~~~~\nregex parse error:\n    (\n    ^\nerror: unclosed group\n~~~~\n)",
                Some("unclosed group"),
            ),
            ("Regular expression did not compile: CompiledTooBig(10485760)", Some("it is too big")),
            ("Compiled regex exceeds size limit of 10485760 bytes.", Some("it is too big")),
            ("Regular expression did not compile: a{", Some("a{")),
            (
                "failed to call 'regex_match_dyn_scalar' Compute error: Regular expression did not compile: CompiledTooBig(1)",
                Some("it is too big"),
            ),
            ("something else", None),
        ] {
            assert_eq!(of_regex(message), reason, "{message}");
        }
    }
}
