//! [`PostgresCasts`] and [`Instants`]: casts that give something else in DataFusion than in PostgreSQL.
//!
//! - Of a double to an integer: rounded to the nearest, halves to even, where DataFusion cuts off.
//! - Of a double or a time to text: as PostgreSQL prints it, times in the session's time zone.
//! - Of a text to a timestamp, to compare it with one: read in the session's time zone.
//! - Of a text to a timestamp before 1678 or after 2261, which DataFusion's nanoseconds have no room for: in microseconds,
//!   as PostgreSQL's are. Tools use such times for "ever".
//! - Between timestamps with and without time zone, and dates: by the clocks of the session's time zone.

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
use crate::timezone::Timezone;

/// The rule about numbers and texts. It comes after types are coerced, so that it sees casts that nobody wrote as well.
#[derive(Debug)]
pub(super) struct PostgresCasts;

impl AnalyzerRule for PostgresCasts {
    fn name(&self) -> &'static str {
        "postgres_casts"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let zone = config.execution.time_zone.as_deref().unwrap_or("UTC");
        let is_cast = |expr: &Expr| matches!(expr, Expr::Cast(_));
        let rewrite = |expr: Expr, schema: &DFSchema| rewrite_cast(expr, schema, zone);
        plan.transform_up_with_subqueries(|node| rewrite_node(node, is_cast, rewrite)).data()
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
        let is_one = |expr: &Expr| far_constant(expr, zone).is_some() || instant(expr, zone).is_some();
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

fn rewrite_cast(expr: Expr, schema: &DFSchema, zone: &str) -> Result<Transformed<Expr>> {
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
            } else if !is_utc(zone)
                && let Some(shown) = by_clocks(&cast.expr, &from, &to, zone)
            {
                Transformed::yes(cast_to(shown, to))
            } else {
                Transformed::no(Expr::Cast(cast))
            }
        }
        other => Transformed::no(other),
    })
}

/// What is cast instead of `time`, of type `from`, so that it is `to` by the clocks of `zone`.
fn by_clocks(time: &Expr, from: &DataType, to: &DataType, zone: &str) -> Option<Expr> {
    let in_zone = |time: Expr| TIMEZONE.call(vec![Expr::Literal(ScalarValue::from(zone), None), time]);
    match (from, to) {
        (DataType::Timestamp(_, Some(_)), DataType::Timestamp(_, None) | DataType::Date32)
        | (DataType::Timestamp(_, None), DataType::Timestamp(_, Some(_))) => Some(in_zone(time.clone())),
        (DataType::Date32, DataType::Timestamp(unit, Some(_))) => {
            Some(in_zone(cast_to(time.clone(), DataType::Timestamp(*unit, None))))
        }
        _ => None,
    }
}

/// Texts that are compared with a timestamp in ms become timestamps in µs where DataFusion would read them as another.
fn rewrite_comparison(expr: Expr, schema: &DFSchema, zone: &str) -> Result<Transformed<Expr>> {
    let known = |expr: &Expr| instant(expr, zone).is_some();
    // The side that says what is compared; only of what is far away the finer ones matter as well.
    let time = |side: &Expr, other: &Expr| match side.get_type(schema) {
        Ok(of @ DataType::Timestamp(..)) if known(other) => {
            let coarse = matches!(of, DataType::Timestamp(TimeUnit::Millisecond, Some(_)));
            (coarse || is_far(other)).then_some(of)
        }
        _ => None,
    };
    // The other side as well, for of two units DataFusion takes the coarser one.
    let in_micros = |expr: Expr, time: &DataType| {
        let naive = matches!(time, DataType::Timestamp(_, None));
        match text_of(&expr) {
            Some(text) => micros(text, if naive { None } else { Some(zone) }).unwrap_or(expr),
            None => {
                let plain = (!naive).then(|| "UTC".into());
                cast_to(expr, DataType::Timestamp(TimeUnit::Microsecond, plain))
            }
        }
    };
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            match time(&left, &right).or_else(|| time(&right, &left)) {
                Some(time) => {
                    let (left, right) = (in_micros(*left, &time), in_micros(*right, &time));
                    Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
                }
                None => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
            }
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            match time(&expr, &low).or_else(|| time(&expr, &high)) {
                Some(time) => {
                    let [expr, low, high] = [expr, low, high].map(|expr| Box::new(in_micros(*expr, &time)));
                    Transformed::yes(Expr::Between(Between::new(expr, negated, low, high)))
                }
                None => Transformed::no(Expr::Between(Between { expr, negated, low, high })),
            }
        }
        Expr::InList(InList { expr, list, negated }) => {
            match list.iter().find_map(|item| time(&expr, item)) {
                Some(time) => {
                    let list = list.into_iter().map(|item| in_micros(item, &time)).collect();
                    let expr = Box::new(in_micros(*expr, &time));
                    Transformed::yes(Expr::InList(InList::new(expr, list, negated)))
                }
                None => Transformed::no(Expr::InList(InList { expr, list, negated })),
            }
        }
        other => match far_constant(&other, zone) {
            Some(constant) => Transformed::yes(constant),
            None => Transformed::no(other),
        },
    })
}

/// The instant that a text says in `zone`, in µs, if DataFusion would read another one, or none.
fn instant(expr: &Expr, zone: &str) -> Option<Expr> {
    let text = text_of(expr)?;
    if is_utc(zone) && !is_far_text(text) { None } else { micros(text, Some(zone)) }
}

/// A timestamp that is written as a constant and has no room in ns.
fn far_constant(expr: &Expr, zone: &str) -> Option<Expr> {
    let Expr::Cast(cast) = expr else { return None };
    let DataType::Timestamp(TimeUnit::Nanosecond, with_zone) = cast.field.data_type() else { return None };
    let text = text_of(expr).filter(|text| is_far_text(text))?;
    micros(text, with_zone.as_ref().map(|_| zone))
}

/// The text that is a constant, or cast to a time.
fn text_of(expr: &Expr) -> Option<&str> {
    let text = match expr {
        Expr::Cast(cast) if matches!(cast.field.data_type(), DataType::Timestamp(..) | DataType::Date32) => {
            &cast.expr
        }
        other => other,
    };
    let Expr::Literal(value, _) = text else { return None };
    value.try_as_str().flatten()
}

fn is_far(expr: &Expr) -> bool {
    text_of(expr).is_some_and(is_far_text)
}

/// Whether `text` says a time in a year that nanoseconds since 1970 do not have, or not all of it.
fn is_far_text(text: &str) -> bool {
    let year = text.split_once('-').map(|(year, _)| year).filter(|year| year.len() == 4);
    year.and_then(|year| year.parse().ok()).is_some_and(|year: u16| !(1678..=2261).contains(&year))
}

/// The time that `text` says, in µs; an instant if clocks show it in some `zone`.
fn micros(text: &str, zone: Option<&str>) -> Option<Expr> {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    Some(Expr::Literal(ScalarValue::from(text).cast_to(&micros).ok()?, None))
}

fn is_printed(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float64 | DataType::Timestamp(..))
}

fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "+00:00")
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

static ROUND: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Conversion::udf("round_half_even", Kind::Round));
static TIMEZONE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(Timezone::new())));
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
        // Not the same for ever: times are printed as the session's zone has them.
        let signature = Signature::any(1, Volatility::Stable);
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
                    let session = args.config_options.execution.time_zone.as_deref().unwrap_or("UTC");
                    let shown = zone.as_ref().and_then(|_| text::zone(session)).map(|(zone, _)| zone);
                    let micros = cast(&column, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
                    let micros = micros.as_primitive::<TimestampMicrosecondType>();
                    let texts = micros.iter().map(|v| v.and_then(|v| text::time(v, shown.as_ref())));
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
