//! The syntax tree of an expression as JSON, for tree views.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/web/api/v1/translate_ast.go>

use promontory_promql::parser::{
    AtModifier, Cardinality, DurationExpr, DurationExprKind, Expr, ExprKind, RangeExtension, TimeShift,
    UnaryOp, ValueType, VectorMatching, VectorSelector,
};
use serde_json::{Map, Value, json};

/// Deepest tree that is made: writing and dropping it takes a stack as deep.
const MAX_DEPTH: usize = 1_000;

/// `expr` as a tree of objects, each with its `type`; `None` if it would be too deep.
pub(crate) fn tree(expr: &Expr) -> Option<Value> {
    (depth(expr) <= MAX_DEPTH).then(|| subtree(expr))
}

/// How deep the tree of `expr` is, up to about [`MAX_DEPTH`].
fn depth(expr: &Expr) -> usize {
    let mut todo = vec![(expr, 1)];
    let mut deepest = 0;
    while let Some((expr, depth)) = todo.pop() {
        deepest = deepest.max(depth);
        if deepest > MAX_DEPTH {
            break;
        }
        let mut below = |child| todo.push((child, depth + 1));
        match &expr.kind {
            ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => below(inner),
            ExprKind::Binary(binary) => {
                below(&binary.lhs);
                below(&binary.rhs);
            }
            ExprKind::Aggregate(aggregate) => {
                below(&aggregate.expr);
                aggregate.param.iter().for_each(|param| below(param));
            }
            ExprKind::Call(call) => call.args.iter().for_each(below),
            ExprKind::Subquery(subquery) => below(&subquery.expr),
            _ => {}
        }
    }
    deepest
}

/// Chains of operators lean to the left; they are walked in a loop.
fn subtree(expr: &Expr) -> Value {
    let mut links = Vec::new();
    let mut leftmost = expr;
    while let ExprKind::Binary(binary) = &leftmost.kind {
        links.push(binary);
        leftmost = &binary.lhs;
    }
    let mut done = node(leftmost);
    for binary in links.into_iter().rev() {
        done = json!({
            "type": "binaryExpr",
            "op": binary.op.symbol(),
            "lhs": done,
            "rhs": subtree(&binary.rhs),
            "matching": binary.matching.as_ref().map(matching),
            "bool": binary.return_bool,
        });
    }
    done
}

fn node(expr: &Expr) -> Value {
    match &expr.kind {
        ExprKind::Number(n) => json!({"type": "numberLiteral", "val": number(n.value)}),
        ExprKind::String(text) => json!({"type": "stringLiteral", "val": text}),
        ExprKind::Paren(inner) => json!({"type": "parenExpr", "expr": subtree(inner)}),
        ExprKind::Unary(op, inner) => json!({"type": "unaryExpr", "op": sign(*op), "expr": subtree(inner)}),
        ExprKind::Binary(_) => subtree(expr),
        ExprKind::Aggregate(aggregate) => json!({
            "type": "aggregation",
            "op": aggregate.op.name(),
            "expr": subtree(&aggregate.expr),
            "param": aggregate.param.as_deref().map(subtree),
            "grouping": aggregate.grouping,
            "without": aggregate.without,
        }),
        ExprKind::Call(call) => json!({
            "type": "call",
            "func": {
                "name": call.function.name,
                "argTypes": call.function.arg_types.iter().map(|t| type_name(*t)).collect::<Vec<_>>(),
                "variadic": call.function.variadic,
                "returnType": type_name(call.function.return_type),
            },
            "args": call.args.iter().map(subtree).collect::<Vec<_>>(),
        }),
        ExprKind::VectorSelector(selector) => {
            let mut out = of_type("vectorSelector");
            put_selector(&mut out, selector);
            Value::Object(out)
        }
        ExprKind::MatrixSelector(matrix) => {
            let mut out = of_type("matrixSelector");
            put_duration(&mut out, "range", Some(&matrix.range));
            put_selector(&mut out, &matrix.selector);
            Value::Object(out)
        }
        ExprKind::Subquery(subquery) => {
            let mut out = of_type("subquery");
            out.insert("expr".to_owned(), subtree(&subquery.expr));
            put_duration(&mut out, "range", Some(&subquery.range));
            put_duration(&mut out, "step", subquery.step.as_ref());
            put_time(&mut out, &subquery.time);
            Value::Object(out)
        }
    }
}

fn of_type(name: &str) -> Map<String, Value> {
    Map::from_iter([("type".to_owned(), name.into())])
}

fn put_selector(out: &mut Map<String, Value>, selector: &VectorSelector) {
    let matchers: Vec<_> = selector
        .matchers
        .iter()
        .map(|m| json!({"name": m.name(), "value": m.value(), "type": m.op().to_string()}))
        .collect();
    out.insert("name".to_owned(), selector.name.as_deref().unwrap_or_default().into());
    out.insert("matchers".to_owned(), matchers.into());
    for kind in [RangeExtension::Anchored, RangeExtension::Smoothed] {
        out.insert(kind.name().to_owned(), (selector.extension == Some(kind)).into());
    }
    put_time(out, &selector.time);
}

fn put_time(out: &mut Map<String, Value>, time: &TimeShift) {
    put_duration(out, "offset", time.offset.as_ref());
    let (timestamp, bound) = match time.at {
        None => (Value::Null, Value::Null),
        Some(AtModifier::At(ms)) => (ms.into(), Value::Null),
        Some(AtModifier::Start) => (Value::Null, "start".into()),
        Some(AtModifier::End) => (Value::Null, "end".into()),
    };
    out.insert("timestamp".to_owned(), timestamp);
    out.insert("startOrEnd".to_owned(), bound);
}

/// A duration is `name` in ms, or 0 and an expression as `nameExpr`.
fn put_duration(out: &mut Map<String, Value>, name: &str, duration: Option<&DurationExpr>) {
    let (ms, expr) = match duration.map(|d| (d, &d.kind)) {
        None => (0, Value::Null),
        Some((_, DurationExprKind::Literal(n))) => ((n.value * 1000.0).round() as i64, Value::Null),
        Some((duration, _)) => (0, duration_tree(duration, false)),
    };
    out.insert(name.to_owned(), ms.into());
    out.insert(format!("{name}Expr"), expr);
}

fn duration_tree(duration: &DurationExpr, wrapped: bool) -> Value {
    let made = |op: &str, lhs: Option<&DurationExpr>, rhs: Option<&DurationExpr>| {
        json!({
            "type": "durationExpr",
            "op": op,
            "lhs": lhs.map(|d| duration_tree(d, false)),
            "rhs": rhs.map(|d| duration_tree(d, false)),
            "wrapped": wrapped,
        })
    };
    match &duration.kind {
        DurationExprKind::Literal(n) => {
            json!({"type": "numberLiteral", "val": number(n.value), "duration": n.is_duration})
        }
        DurationExprKind::Paren(inner) => duration_tree(inner, true),
        // Compat: a plus sign leaves no trace.
        DurationExprKind::Unary(UnaryOp::Plus, inner) => duration_tree(inner, wrapped),
        DurationExprKind::Unary(UnaryOp::Minus, inner) => made("-", None, Some(inner)),
        DurationExprKind::Binary(op, lhs, rhs) => made(op.symbol(), Some(lhs), Some(rhs)),
        DurationExprKind::Step => made("step", None, None),
        DurationExprKind::Range => made("range", None, None),
        DurationExprKind::MinOf(a, b) => made("min_of", Some(a), Some(b)),
        DurationExprKind::MaxOf(a, b) => made("max_of", Some(a), Some(b)),
    }
}

fn matching(matching: &VectorMatching) -> Value {
    let fill = |v: Option<f64>| v.filter(|v| v.is_finite());
    json!({
        "card": match matching.cardinality {
            Cardinality::OneToOne => "one-to-one",
            Cardinality::ManyToOne => "many-to-one",
            Cardinality::OneToMany => "one-to-many",
            Cardinality::ManyToMany => "many-to-many",
        },
        "labels": matching.labels,
        "on": matching.on,
        "include": matching.include,
        "fillValues": {"lhs": fill(matching.fill_left), "rhs": fill(matching.fill_right)},
    })
}

fn number(v: f64) -> String {
    if v.is_infinite() { if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned() } else { format!("{v}") }
}

fn sign(op: UnaryOp) -> &'static str {
    match op {
        UnaryOp::Plus => "+",
        UnaryOp::Minus => "-",
    }
}

fn type_name(t: ValueType) -> &'static str {
    match t {
        ValueType::Scalar => "scalar",
        ValueType::Vector => "vector",
        ValueType::Matrix => "matrix",
        ValueType::String => "string",
    }
}

#[cfg(test)]
mod tests {
    use promontory_promql::parser::{ParserOptions, parse};

    use super::*;

    fn parsed(query: &str) -> Option<Value> {
        tree(&parse(query, &ParserOptions::all()).unwrap())
    }

    fn check(query: &str, want: Value) {
        assert_eq!(parsed(query), Some(want), "{query}");
    }

    #[test]
    fn a_call_knows_its_function_and_arguments() {
        check(
            "-rate(up{job!=\"x\"}[5m] offset 1m @ start())",
            json!({"type": "unaryExpr", "op": "-", "expr": {
                "type": "call",
                "func": {"name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"},
                "args": [{
                    "type": "matrixSelector", "name": "up",
                    "range": 300_000, "rangeExpr": null, "offset": 60_000, "offsetExpr": null,
                    "matchers": [
                        {"name": "job", "value": "x", "type": "!="},
                        {"name": "__name__", "value": "up", "type": "="},
                    ],
                    "timestamp": null, "startOrEnd": "start", "anchored": false, "smoothed": false,
                }],
            }}),
        );
    }

    #[test]
    fn operators_know_how_they_match() {
        let tree = parsed("a / on (x) group_left (y) fill_right(0) b").unwrap();
        let want = json!({
            "card": "many-to-one", "labels": ["x"], "on": true, "include": ["y"],
            "fillValues": {"lhs": null, "rhs": 0.0},
        });
        assert_eq!(tree["matching"], want);
        check(
            "1 + 0x10",
            json!({"type": "binaryExpr", "op": "+", "bool": false, "matching": null,
                "lhs": {"type": "numberLiteral", "val": "1"}, "rhs": {"type": "numberLiteral", "val": "16"}}),
        );
    }

    #[test]
    fn durations_are_milliseconds_or_expressions() {
        let tree = parsed("(a)[1h:30s] offset -(step() + 1m)").unwrap();
        assert_eq!(
            (&tree["range"], &tree["step"], &tree["offset"]),
            (&json!(3_600_000), &json!(30_000), &json!(0))
        );
        let want = json!({"type": "durationExpr", "op": "-", "wrapped": false, "lhs": null, "rhs": {
            "type": "durationExpr", "op": "+", "wrapped": true,
            "lhs": {"type": "durationExpr", "op": "step", "lhs": null, "rhs": null, "wrapped": false},
            "rhs": {"type": "numberLiteral", "val": "60", "duration": true},
        }});
        assert_eq!(tree["offsetExpr"], want);
    }

    #[test]
    fn a_chain_may_be_long_but_not_too_long() {
        let chain = |links: usize| vec!["1"; links].join(" + ");
        assert_eq!(parsed(&chain(900)).unwrap()["op"], json!("+"));
        assert_eq!(parsed(&chain(100_000)), None);
    }
}
