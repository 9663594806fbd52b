//! [`PostgresCasts`] and [`Instants`]: casts that give something else in DataFusion than in PostgreSQL.
//!
//! - Of a double to an integer: rounded to the nearest, halves to even, where DataFusion cuts off.
//! - Of a double or a time to text: as PostgreSQL prints it, times in UTC.
//! - Of a text to a timestamp, to compare it with one: read in the session's time zone.

use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, StringArray};
use arrow::compute::{cast, unary};
use arrow::datatypes::{DataType, Float64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::{Between, BinaryExpr, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, cast as cast_to,
};
use datafusion::optimizer::AnalyzerRule;

use crate::text;

/// The rule about numbers and texts. It comes after types are coerced, so that it sees casts that nobody wrote as well.
#[derive(Debug)]
pub(super) struct PostgresCasts;

impl AnalyzerRule for PostgresCasts {
    fn name(&self) -> &'static str {
        "postgres_casts"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let is_cast = |expr: &Expr| matches!(expr, Expr::Cast(_));
        plan.transform_up_with_subqueries(|node| rewrite_node(node, is_cast, rewrite_cast)).data()
    }
}

/// The rule about texts that are compared with times. It comes before types are coerced, where texts still are texts.
#[derive(Debug)]
pub(super) struct Instants;

impl AnalyzerRule for Instants {
    fn name(&self) -> &'static str {
        "instants"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let zone = config.execution.time_zone.as_deref().unwrap_or("UTC");
        let is_one = |expr: &Expr| instant(expr, zone).is_some();
        let rewrite = |expr: Expr, schema: &DFSchema| rewrite_comparison(expr, schema, zone);
        plan.transform_up_with_subqueries(|node| rewrite_node(node, is_one, rewrite)).data()
    }
}

/// Applies `rewrite` to the expressions of one node, if there is any that `concerns` it.
fn rewrite_node(
    plan: LogicalPlan,
    concerns: impl Fn(&Expr) -> bool,
    rewrite: impl Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    // Most plans have nothing of it, and what their columns are is not asked then.
    let mut any = false;
    plan.apply_expressions(|expr| {
        any = any || expr.exists(|e| Ok(concerns(e)))?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    if !any {
        return Ok(Transformed::no(plan));
    }
    let schema = match &plan {
        LogicalPlan::TableScan(scan) => {
            DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?
        }
        _ => merge_schema(&plan.inputs()),
    };
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let rewritten = expr.transform_up(|expr| rewrite(expr, &schema))?;
        Ok(rewritten.update_data(|expr| name.restore(expr)))
    })?
    .map_data(LogicalPlan::recompute_schema)
}

fn rewrite_cast(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::Cast(cast) => {
            let to = cast.field.data_type().clone();
            // What refers to the query around a subquery is not in its schema; DataFusion casts that.
            let Ok(from) = cast.expr.get_type(schema) else { return Ok(Transformed::no(Expr::Cast(cast))) };
            if from == DataType::Float64 && to.is_integer() {
                Transformed::yes(cast_to(ROUND.call(vec![*cast.expr]), to))
            } else if is_printed(&from) && is_text(&to) {
                let printed = PRINT.call(vec![*cast.expr]);
                Transformed::yes(if to == DataType::Utf8 { printed } else { cast_to(printed, to) })
            } else {
                Transformed::no(Expr::Cast(cast))
            }
        }
        other => Transformed::no(other),
    })
}

/// Texts that are compared with a timestamp in ms become timestamps in µs where DataFusion would read them as another.
fn rewrite_comparison(expr: Expr, schema: &DFSchema, zone: &str) -> Result<Transformed<Expr>> {
    let is_coarse =
        |expr: &Expr| matches!(expr.get_type(schema), Ok(DataType::Timestamp(TimeUnit::Millisecond, _)));
    let known = |expr: &Expr| instant(expr, zone).is_some();
    // The other side as well, for of two units DataFusion takes the coarser one.
    let micros = |expr: Expr| {
        let plain = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        instant(&expr, zone).unwrap_or_else(|| cast_to(expr, plain))
    };
    let boxed = |expr: Expr| Box::new(micros(expr));
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if (is_coarse(&left) && known(&right)) || (is_coarse(&right) && known(&left)) =>
        {
            Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(boxed(*left), op, boxed(*right))))
        }
        Expr::Between(Between { expr, negated, low, high })
            if is_coarse(&expr) && (known(&low) || known(&high)) =>
        {
            let (expr, low, high) = (boxed(*expr), boxed(*low), boxed(*high));
            Transformed::yes(Expr::Between(Between::new(expr, negated, low, high)))
        }
        Expr::InList(InList { expr, list, negated }) if is_coarse(&expr) && list.iter().any(known) => {
            let list = list.into_iter().map(micros).collect();
            Transformed::yes(Expr::InList(InList::new(boxed(*expr), list, negated)))
        }
        other => Transformed::no(other),
    })
}

/// The instant that a text says in `zone`, in µs, if the zone matters.
fn instant(expr: &Expr, zone: &str) -> Option<Expr> {
    let text = match expr {
        Expr::Cast(cast) if matches!(cast.field.data_type(), DataType::Timestamp(_, Some(_))) => &cast.expr,
        other => other,
    };
    let Expr::Literal(value, _) = text else { return None };
    let text = value.try_as_str().flatten()?;
    if is_utc(zone) {
        return None;
    }
    let micros = DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into()));
    let instant = ScalarValue::from(text).cast_to(&micros).ok()?;
    Some(Expr::Literal(instant, None))
}

fn is_printed(data_type: &DataType) -> bool {
    match data_type {
        DataType::Float64 => true,
        DataType::Timestamp(_, zone) => zone.as_deref().is_none_or(is_utc),
        _ => false,
    }
}

fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "+00:00")
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

static ROUND: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Conversion::udf("round_half_even", Kind::Round));
static PRINT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Conversion::udf("to_text", Kind::Print));

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Round,
    Print,
}

/// A function that only the rule calls.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Conversion {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

impl Conversion {
    fn udf(name: &'static str, kind: Kind) -> Arc<ScalarUDF> {
        let signature = Signature::any(1, Volatility::Immutable);
        Arc::new(ScalarUDF::from(Self { name, kind, signature }))
    }
}

impl ScalarUDFImpl for Conversion {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Round => DataType::Float64,
            Kind::Print => DataType::Utf8,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let column = args.args[0].to_array(args.number_rows)?;
        let (result, is_constant): (arrow::array::ArrayRef, _) = (
            match (self.kind, column.data_type()) {
                (Kind::Round, _) => {
                    let column = column.as_primitive::<Float64Type>();
                    Arc::new(unary::<_, _, Float64Type>(column, f64::round_ties_even))
                }
                (Kind::Print, DataType::Timestamp(_, zone)) => {
                    let east = zone.as_ref().map(|_| 0);
                    let micros = cast(&column, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
                    let micros = micros.as_primitive::<TimestampMicrosecondType>();
                    let texts = micros.iter().map(|v| v.and_then(|v| text::time(v, east)));
                    Arc::new(texts.collect::<StringArray>())
                }
                (Kind::Print, _) => {
                    let column = column.as_primitive::<Float64Type>();
                    Arc::new(column.iter().map(|v| v.map(text::float)).collect::<StringArray>())
                }
            },
            matches!(args.args[0], ColumnarValue::Scalar(_)),
        );
        Ok(if is_constant {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)
        } else {
            ColumnarValue::Array(result)
        })
    }
}
