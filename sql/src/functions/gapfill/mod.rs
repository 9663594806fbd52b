//! Gap filling: `time_bucket_gapfill`, `locf` and `interpolate`.
//!
//! ```text
//! Projection: locf(avg(value))           Projection: "locf(avg(value))"
//!   Aggregate: group by             ──▶    GapFill: rows for empty buckets, and the filled columns
//!     time_bucket_gapfill(…), job            Aggregate: group by time_bucket(…), job
//! ```
//!
//! - [`rule`] finds such queries and puts the node in; it also finds out from which bucket to which.
//! - [`node`] is the node, [`exec`] its operator.

mod exec;
mod node;
mod rule;

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Result, plan_err};
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::doc::{Family, FunctionDoc};
use super::time_bucket::coerce_bucket;

/// Name of the function that makes buckets.
const GAPFILL: &str = "time_bucket_gapfill";

/// The functions' entries.
pub(super) const DOCS: &[FunctionDoc] = &[
    FunctionDoc {
        name: "time_bucket_gapfill",
        family: Family::Time,
        syntax: &[
            "time_bucket_gapfill(width, timestamp) → timestamptz",
            "time_bucket_gapfill(width, timestamp, start, finish) → timestamptz",
        ],
        gives: "As `time_bucket`, and a row for each bucket without data, in each group of the other expressions of `GROUP \
                BY`. Aggregates are NULL there, unless `locf` or `interpolate` is put around them.",
        arguments: &[
            ("width", "as of `time_bucket`"),
            ("timestamp", "as of `time_bucket`"),
            (
                "start",
                "timestamp: the first bucket is the one that it is in. Left out, what `WHERE` says of the same column counts; without that, the first bucket with data",
            ),
            (
                "finish",
                "timestamp: buckets begin before it. Left out as `start`; without it, the last bucket with data",
            ),
        ],
        odd_input: "A group without any row gets none.",
        errors: "42601 outside of `GROUP BY`; 53200 for more than ten million rows.",
        differs: "As TimescaleDB's, except that the range may be left out altogether.",
        example: "SELECT time_bucket_gapfill('10 minutes', timestamp) AS t, avg(value), locf(avg(value)), interpolate(avg(value))\n\
                  FROM sensor_celsius WHERE timestamp >= now() - interval '1 hour' AND timestamp < now()\n\
                  GROUP BY t ORDER BY t;",
    },
    FunctionDoc {
        name: "locf",
        family: Family::Time,
        syntax: &["locf(value) → as value"],
        gives: "Last observation carried forward: where `value` is NULL, the newest value before it in the same group.",
        arguments: &[(
            "value",
            "an expression over aggregates, in a query that groups by `time_bucket_gapfill`",
        )],
        odd_input: "NULL until there is a value.",
        errors: "42601 elsewhere than in the `SELECT` list of such a query.",
        differs: "",
        example: "SELECT time_bucket_gapfill('20 minutes', timestamp, now() - interval '2 hours', now()) AS t,\n\
                  \u{20}      locf(last(timestamp, value)) AS celsius\n\
                  FROM sensor_celsius GROUP BY t ORDER BY t;",
    },
    FunctionDoc {
        name: "interpolate",
        family: Family::Time,
        syntax: &["interpolate(value) → double precision"],
        gives: "Where `value` is NULL, the value on the straight line between its neighbours in the same group.",
        arguments: &[("value", "as of `locf`, a number")],
        odd_input: "NULL before the first and after the last value.",
        errors: "As `locf`.",
        differs: "",
        example: "SELECT time_bucket_gapfill('15 minutes', timestamp) AS t, round(interpolate(avg(value)), 2) AS celsius\n\
                  FROM sensor_celsius WHERE timestamp > now() - interval '1 hour' GROUP BY t ORDER BY t;",
    },
];

/// Adds the rule and the operator.
pub(super) fn prepare(builder: SessionStateBuilder) -> SessionStateBuilder {
    builder.with_analyzer_rule(Arc::new(rule::FindGapFill)).with_query_planner(Arc::new(exec::GapFillPlanner))
}

/// The functions, which stand for what the rule makes of them.
pub(super) fn functions() -> Vec<ScalarUDF> {
    [(GAPFILL, Kind::Bucket), ("locf", Kind::Locf), ("interpolate", Kind::Interpolate)]
        .map(|(name, kind)| {
            let signature = Signature::user_defined(Volatility::Volatile);
            ScalarUDF::from(Placeholder { name, kind, signature })
        })
        .to_vec()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Bucket,
    Locf,
    Interpolate,
}

/// A function that is never called: the rule takes it out, or it stood where it means nothing.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Placeholder {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

impl ScalarUDFImpl for Placeholder {
    fn name(&self) -> &'static str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        const USAGE: &str = "time_bucket_gapfill(width, timestamp [, start, finish])";
        match (self.kind, arg_types) {
            (Kind::Bucket, [width, time, bounds @ ..]) if matches!(bounds.len(), 0 | 2) => {
                let [width, time] = coerce_bucket(width, time, USAGE)?;
                let bounds = bounds.iter().map(|_| time.clone());
                Ok([width, time.clone()].into_iter().chain(bounds).collect())
            }
            (Kind::Bucket, _) => {
                plan_err!("No function matches {} arguments: it is {USAGE}", arg_types.len())
            }
            (Kind::Interpolate, [_]) => Ok(vec![DataType::Float64]),
            (Kind::Locf, [value]) => Ok(vec![value.clone()]),
            _ => plan_err!("No function matches {} arguments: it is {}(value)", arg_types.len(), self.name),
        }
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let value = if self.kind == Kind::Bucket { arg_types.get(1) } else { arg_types.first() };
        value.cloned().map_or_else(|| plan_err!("{}() takes arguments", self.name), Ok)
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.kind {
            Kind::Bucket => plan_err!("{GAPFILL}() must be an expression of GROUP BY"),
            Kind::Locf | Kind::Interpolate => plan_err!(
                "{}() must stand in the SELECT list of a query that groups by {GAPFILL}(), outside of aggregates",
                self.name
            ),
        }
    }
}
