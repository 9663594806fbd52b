//! `promql('expr', start, end, step)` and `promql_instant('expr', at)`: a PromQL result as a table.
//!
//! | column | meaning |
//! |---|---|
//! | `timestamp` | the evaluation time |
//! | `value` | the float; NULL where the value is a native histogram |
//! | `histogram` | the native histogram; NULL where the value is a float |
//! | `metric` | the metric name, if the result may have one |
//! | one per label | its value; NULL where a series lacks it |
//! | `labels` | all of them but the name, as JSON text |
//!
//! A label whose name is taken gets `label_` in front. Columns are known before anything is evaluated
//! ([`Engine::result_labels`]): planning a statement reads the index only. A label that comes up between
//! planning and running is in `labels` alone.
//!
//! The expression is evaluated when the table is scanned, under the limits that it has over HTTP, and
//! ends with its statement. Rows come series by series in label order, ascending in time; of an instant
//! query in the order that `sort` and `topk` give.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use promontory_promql::parser::{self, ValueType};
use promontory_promql::{Engine, QueryError, QueryParams};
use promontory_sql::catalog::column_of_label_beside;
use promontory_sql::functions::doc::{Family, FunctionDoc};
use promontory_sql::{FunctionError, histogram_type};
use promontory_tsdb::{Clock, METRIC_NAME, Queryable};

use super::arguments::{literal, span, time};
use super::promql_exec::PromqlExec;

/// The functions' entries.
pub(super) const DOCS: &[FunctionDoc] = &[
    FunctionDoc {
        name: "promql",
        family: Family::Promql,
        syntax: &["promql(expression, start, end, step) → rows"],
        gives: "The value of a PromQL expression at each step from `start` to `end`, both included: a row per series and step, \
                series by series in label order, ascending in time.",
        arguments: &[
            ("expression", "text, PromQL; a constant, as all arguments"),
            (
                "start, end",
                "timestamp, a text that says one, or seconds since the epoch; `now() - interval '1 hour'` is a constant",
            ),
            ("step", "interval, a text such as `'5m'` or `'5 minutes'`, or seconds"),
        ],
        odd_input: "Steps without a value have no row.",
        errors: "22023 if the expression cannot be parsed, or `end` is before `start`; 22000 if evaluation fails; 53000 beyond \
                 `--query.max-samples` or `--query.max-memory-bytes`; 57014 after `--query.timeout`; 42601 for arguments that are no constants.",
        differs: "Parameters of prepared statements (`$1`) cannot stand among the arguments.",
        example: "SELECT timestamp, code, value\n\
                  FROM promql('sum by (code) (rate(http_requests_total[5m]))', now() - interval '10 minutes', now(), '5m')\n\
                  ORDER BY code, timestamp;",
    },
    FunctionDoc {
        name: "promql_instant",
        family: Family::Promql,
        syntax: &["promql_instant(expression) → rows", "promql_instant(expression, at) → rows"],
        gives: "The value of a PromQL expression at one time: a row per series, in the order that `sort` or `topk` give, label order \
                otherwise.",
        arguments: &[
            (
                "expression",
                "as of `promql`; may also be a range selector, which gives samples as they are stored",
            ),
            ("at", "as `start` of `promql`; now, if it is left out"),
        ],
        odd_input: "As `promql`.",
        errors: "As `promql`.",
        differs: "As `promql`.",
        example: "SELECT u.instance, u.value AS up, p.value AS requests_per_second\n\
                  FROM promql_instant('sum by (instance) (rate(http_requests_total[5m]))', now()) AS p\n\
                  JOIN up AS u ON u.instance = p.instance AND u.timestamp = p.timestamp;",
    },
];

/// Which of the two functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `promql`.
    Range,
    /// `promql_instant`.
    Instant,
}

impl Shape {
    /// The function's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Range => "promql",
            Self::Instant => "promql_instant",
        }
    }
}

/// The function.
#[derive(Debug)]
pub(super) struct PromqlFunction {
    /// Evaluates.
    pub(super) engine: Arc<Engine>,
    /// What is asked.
    pub(super) source: Arc<dyn Queryable>,
    /// Says what "now" is where no time is given.
    pub(super) clock: Arc<dyn Clock>,
    /// Which function.
    pub(super) shape: Shape,
}

impl PromqlFunction {
    fn params(&self, arguments: &[Expr]) -> Result<QueryParams> {
        let literal = |expr| literal(self.shape.name(), expr);
        match (self.shape, arguments) {
            (Shape::Range, [start, end, step]) => {
                let params =
                    QueryParams::range(time(literal(start)?)?, time(literal(end)?)?, span(literal(step)?)?);
                if params.step < 1 {
                    return plan_err!("the step of promql() must be at least a millisecond");
                }
                Ok(params)
            }
            (Shape::Instant, [at]) => Ok(QueryParams::instant(time(literal(at)?)?)),
            (Shape::Instant, []) => Ok(QueryParams::instant(self.clock.now_ms())),
            (Shape::Range, _) => plan_err!("promql() takes an expression, start, end and step"),
            (Shape::Instant, _) => plan_err!("promql_instant() takes an expression and a time"),
        }
    }
}

impl TableFunctionImpl for PromqlFunction {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let Some((expr, arguments)) = args.exprs().split_first() else {
            return plan_err!("{}() takes a PromQL expression", self.shape.name());
        };
        let Some(text) = literal(self.shape.name(), expr)?.try_as_str().flatten() else {
            return plan_err!(
                "the first argument of {}() is a PromQL expression, as text",
                self.shape.name()
            );
        };
        let params = self.params(arguments)?;
        let parsed = parser::parse(text, &self.engine.options().parser).map_err(|e| failed(e.into()))?;
        if parsed.value_type() == ValueType::String {
            return plan_err!("a PromQL string has no rows");
        }
        let labels = self.engine.result_labels(self.source.as_ref(), text, params).map_err(failed)?;
        Ok(Arc::new(PromqlTable(Arc::new(PromqlCall {
            engine: Arc::clone(&self.engine),
            source: Arc::clone(&self.source),
            text: text.to_owned(),
            params,
            columns: columns(labels),
        }))))
    }
}

/// A PromQL error, with its kind kept on its way through DataFusion.
pub(super) fn failed(error: QueryError) -> DataFusionError {
    match error {
        QueryError::Storage(e) => DataFusionError::External(Box::new(e)),
        other => {
            let (kind, message) = (other.kind(), format!("PromQL: {other}"));
            DataFusionError::External(Box::new(FunctionError { kind, message }))
        }
    }
}

/// A call with its arguments understood.
#[derive(Debug)]
pub(super) struct PromqlCall {
    pub(super) engine: Arc<Engine>,
    pub(super) source: Arc<dyn Queryable>,
    pub(super) text: String,
    pub(super) params: QueryParams,
    /// What the table has.
    pub(super) columns: Vec<(String, Column)>,
}

/// Where a column takes its values from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Column {
    /// The evaluation time.
    Timestamp,
    /// The float.
    Value,
    /// The native histogram.
    Histogram,
    /// A label, the metric name among them.
    Label(String),
    /// All labels but the metric name, as JSON text.
    Labels,
}

impl Column {
    fn field(&self, name: &str) -> Field {
        let data_type = match self {
            Self::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            Self::Value => DataType::Float64,
            Self::Histogram => histogram_type(),
            Self::Label(_) | Self::Labels => {
                DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
            }
        };
        Field::new(name, data_type, !matches!(self, Self::Timestamp | Self::Labels))
    }
}

fn columns(labels: impl IntoIterator<Item = String>) -> Vec<(String, Column)> {
    const TAKEN: [&str; 5] = ["timestamp", "value", "histogram", "metric", "labels"];
    let mut columns = vec![
        ("timestamp".to_owned(), Column::Timestamp),
        ("value".to_owned(), Column::Value),
        ("histogram".to_owned(), Column::Histogram),
    ];
    let mut named = Vec::new();
    for label in labels {
        match label.as_str() {
            METRIC_NAME => columns.push(("metric".to_owned(), Column::Label(label))),
            other => named.push((column_of_label_beside(&TAKEN, other), Column::Label(label))),
        }
    }
    columns.extend(named);
    columns.push(("labels".to_owned(), Column::Labels));
    columns
}

impl PromqlCall {
    /// The columns at `projection`, as a schema.
    pub(super) fn schema(&self, projection: &[usize]) -> SchemaRef {
        let field = |i: &usize| self.columns[*i].1.field(&self.columns[*i].0);
        Arc::new(Schema::new(projection.iter().map(field).collect::<Vec<_>>()))
    }
}

/// The table that a call stands for.
struct PromqlTable(Arc<PromqlCall>);

impl fmt::Debug for PromqlTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PromqlTable").field("expr", &self.0.text).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for PromqlTable {
    fn schema(&self) -> SchemaRef {
        self.0.schema(&(0..self.0.columns.len()).collect::<Vec<_>>())
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let projection = projection.map_or_else(|| (0..self.0.columns.len()).collect(), Vec::clone);
        Ok(Arc::new(PromqlExec::new(Arc::clone(&self.0), projection, limit)))
    }
}
