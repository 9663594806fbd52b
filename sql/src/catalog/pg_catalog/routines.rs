//! [`Routines`]: the functions that Postgres does not have, for `\df`.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{Result, ScalarValue};

use crate::functions::doc::{Family, FunctionDoc};

/// The first identifier; Postgres' own functions are below.
const FIRST: i32 = 15_000;
/// The language `internal`.
const INTERNAL: i32 = 12;

/// One way to call a function.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Routine {
    name: String,
    arguments: String,
    result: String,
    is_aggregate: bool,
    about: &'static str,
}

/// All of them; identifiers are positions.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Routines(Vec<Routine>);

/// What may be asked about one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// Types and names of arguments.
    Arguments,
    /// Type of the result.
    Result,
    /// What it does.
    About,
}

impl Routines {
    /// Those that `docs` are about.
    pub(super) fn new(docs: &[FunctionDoc]) -> Self {
        let syntax = docs.iter().flat_map(|doc| doc.syntax.iter().map(move |syntax| (doc, syntax)));
        Self(syntax.filter_map(|(doc, syntax)| parse(doc, syntax)).collect())
    }

    /// Part of what is known about the function with this identifier.
    pub(super) fn get(&self, oid: i32, part: Part) -> Option<&str> {
        let routine = self.0.get(usize::try_from(oid.checked_sub(FIRST)?).ok()?)?;
        Some(match part {
            Part::Arguments => &routine.arguments,
            Part::Result => &routine.result,
            Part::About => routine.about,
        })
    }

    /// Rows of `pg_proc`, whose columns are `schema`; the functions are in schema `namespace`.
    pub(super) fn rows(&self, schema: &SchemaRef, namespace: i32) -> Result<RecordBatch> {
        let columns = schema.fields().iter().map(|field| {
            let values = self.0.iter().zip(FIRST..).map(|(routine, oid)| match field.name().as_str() {
                "oid" => ScalarValue::from(oid),
                "proname" | "prosrc" => ScalarValue::from(routine.name.as_str()),
                "pronamespace" => ScalarValue::from(namespace),
                "proowner" => ScalarValue::from(super::OWNER_OID),
                "prolang" => ScalarValue::from(INTERNAL),
                "prokind" => ScalarValue::from(if routine.is_aggregate { "a" } else { "f" }),
                "provolatile" | "proparallel" => ScalarValue::from("s"),
                "proretset" => ScalarValue::from(routine.result.starts_with("SETOF")),
                "pronargs" => ScalarValue::from(
                    i16::try_from(routine.arguments.split(", ").count()).unwrap_or(i16::MAX),
                ),
                _ => empty(field.data_type()),
            });
            let values = values.map(|value| value.cast_to(field.data_type())).collect::<Result<Vec<_>>>()?;
            if values.is_empty() {
                return Ok(arrow::array::new_empty_array(field.data_type()));
            }
            ScalarValue::iter_to_array(values)
        });
        Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<Vec<ArrayRef>>>()?)?)
    }
}

/// Zero, nothing, or NULL.
fn empty(data_type: &DataType) -> ScalarValue {
    match data_type {
        DataType::Utf8 => ScalarValue::from(""),
        DataType::Boolean => ScalarValue::from(false),
        number if number.is_numeric() => ScalarValue::from(0i32),
        other => ScalarValue::try_new_null(other).unwrap_or(ScalarValue::Null),
    }
}

/// `rate(timestamp, value) → as value`, taken apart.
fn parse(doc: &FunctionDoc, syntax: &str) -> Option<Routine> {
    let (call, result) = syntax.split_once(" → ")?;
    let (name, arguments) = call.strip_suffix(')')?.split_once('(')?;
    let marked = result.strip_suffix(", an aggregate");
    let result = match marked.unwrap_or(result) {
        "rows" => "SETOF record",
        "as value" => "anyelement",
        "histogram" => "record",
        "timestamptz" => "timestamp with time zone",
        other => other,
    };
    Some(Routine {
        name: name.to_owned(),
        arguments: arguments.to_owned(),
        result: result.to_owned(),
        is_aggregate: marked.is_some() || doc.family == Family::Series || name == "approx_percentile",
        about: doc.gives,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_call_a_function_is_a_routine() {
        let docs = crate::functions::docs();
        let routines = Routines::new(&docs);
        assert_eq!(routines.0.len(), docs.iter().map(|doc| doc.syntax.len()).sum::<usize>());
        let bucket = routines.0.iter().position(|r| r.name == "time_bucket").unwrap();
        let oid = FIRST + i32::try_from(bucket).unwrap();
        assert_eq!(routines.get(oid, Part::Arguments), Some("width, timestamp"));
        assert_eq!(routines.get(oid, Part::Result), Some("timestamp with time zone"));
        assert_eq!(routines.get(1, Part::Result), None);
    }
}
