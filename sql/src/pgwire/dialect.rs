//! What Postgres says and DataFusion does not, said so that DataFusion understands it.
//!
//! Done on the syntax tree, before planning; what tools ask of `pg_catalog` beyond that is rewritten by
//! `datafusion-pg-catalog`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, SelectItem,
    SetExpr, Statement, TableFactor, Value, visit_expressions_mut, visit_relations_mut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::clients;

/// Rewrites `statements` in place.
pub(super) fn translate(statements: &mut Vec<Statement>) {
    let _: ControlFlow<()> = visit_relations_mut(statements, |name| {
        clients::find_activity(name);
        ControlFlow::Continue(())
    });
    let _: ControlFlow<()> = visit_expressions_mut(statements, |expr| {
        if let Some(other) = escaped_like(expr)
            .or_else(|| subscripts(expr))
            .or_else(|| from_nothing(expr))
            .or_else(|| looked_up(expr))
            .or_else(|| without_function(expr))
        {
            *expr = other;
        }
        ControlFlow::Continue(())
    });
}

/// `a LIKE p ESCAPE '/'`: the pattern with the escape character that is always understood.
fn escaped_like(expr: &mut Expr) -> Option<Expr> {
    let (Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. }) = expr else {
        return None;
    };
    let escape = match &escape_char.as_ref()?.value {
        Value::SingleQuotedString(text) => text.clone(),
        _ => return None,
    };
    if escape == "\\" || escape.chars().count() != 1 {
        return None;
    }
    let quoted = |text: &str| Value::SingleQuotedString(text.to_owned());
    // A doubled escape is the character itself, and must be out of the way while single ones are replaced.
    let itself = if matches!(escape.as_str(), "%" | "_") { format!("\\{escape}") } else { escape.clone() };
    let (twice, once, itself) = (quoted(&escape.repeat(2)), quoted(&escape), quoted(&itself));
    let aside = format!("replace(replace(({pattern}), '\\', '\\\\'), {twice}, chr(1))");
    **pattern = parsed(&format!("replace(replace({aside}, {once}, '\\'), chr(1), {itself})"))?;
    *escape_char = None;
    None
}

/// `generate_subscripts(array, 1)`: as many rows as the array has items, counted from 1.
fn subscripts(expr: &Expr) -> Option<Expr> {
    let [array, _dimension] = arguments(expr, "generate_subscripts")?[..] else { return None };
    parsed(&format!("unnest(range(1, 1 + CAST(cardinality({array}) AS BIGINT)))"))
}

/// `(SELECT … FROM pg_attrdef WHERE …)` beside the columns that it describes: no column has a default and there
/// are no sequences, so it is NULL, and nothing needs to be proved about how many rows it has.
fn from_nothing(expr: &Expr) -> Option<Expr> {
    let Expr::Subquery(query) = expr else { return None };
    let SetExpr::Select(select) = &*query.body else { return None };
    let [from] = &select.from[..] else { return None };
    let TableFactor::Table { name, .. } = &from.relation else { return None };
    let empty = ["pg_attrdef", "pg_sequence"].iter().any(|table| is(name, table));
    if empty && from.joins.is_empty() { parsed("CAST(NULL AS TEXT)") } else { None }
}

/// Tables of `pg_catalog` with an identifier.
const LOOKED_UP: [&str; 9] = [
    "pg_am",
    "pg_authid",
    "pg_class",
    "pg_collation",
    "pg_database",
    "pg_namespace",
    "pg_proc",
    "pg_roles",
    "pg_type",
];

/// `(SELECT typcollation FROM pg_type WHERE oid = …)`: tools look one row up by its identifier, and the planner
/// wants to be sure that it is one.
fn looked_up(expr: &mut Expr) -> Option<Expr> {
    let Expr::Subquery(query) = expr else { return None };
    if query.limit_clause.is_some() {
        return None;
    }
    let SetExpr::Select(select) = &mut *query.body else { return None };
    let [from] = &select.from[..] else { return None };
    let TableFactor::Table { name, .. } = &from.relation else { return None };
    let by_identifier = select.selection.as_ref().is_some_and(names_oid);
    // By name, for metrics may be called `pg_…` too.
    if !by_identifier || !LOOKED_UP.iter().any(|table| is(name, table)) {
        return None;
    }
    let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
        &mut select.projection[..]
    else {
        return None;
    };
    if !aggregates(item) {
        *item = parsed(&format!("max({item})"))?;
    }
    None
}

/// Whether `condition` compares something called `oid`.
fn names_oid(condition: &Expr) -> bool {
    let is_oid = |side: &Expr| match side {
        Expr::Identifier(name) => name.value == "oid",
        Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|name| name.value == "oid"),
        _ => false,
    };
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => names_oid(left) || names_oid(right),
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => is_oid(left) || is_oid(right),
        Expr::Nested(inner) => names_oid(inner),
        _ => false,
    }
}

/// Whether `item` is an aggregate already, as far as tools use them.
fn aggregates(item: &Expr) -> bool {
    let Expr::Function(function) = item else { return false };
    ["max", "min", "count", "array_agg", "string_agg", "bool_and"].iter().any(|name| is(&function.name, name))
}

/// `typreceive <> 0`: in Postgres a column of functions compares with 0 for "none"; here it has names.
fn without_function(expr: &Expr) -> Option<Expr> {
    let Expr::BinaryOp { left, op: BinaryOperator::NotEq | BinaryOperator::Eq, right } = expr else {
        return None;
    };
    let zero =
        matches!(&**right, Expr::Value(value) if matches!(&value.value, Value::Number(n, _) if n == "0"));
    let column = match &**left {
        Expr::Identifier(name) => name,
        Expr::CompoundIdentifier(parts) => parts.last()?,
        _ => return None,
    };
    let functions = ["typinput", "typoutput", "typreceive", "typsend", "typmodin", "typmodout", "typanalyze"];
    if !zero || !functions.contains(&column.value.as_str()) {
        return None;
    }
    let mut named = expr.clone();
    if let Expr::BinaryOp { right, .. } = &mut named {
        **right = Expr::value(Value::SingleQuotedString("-".to_owned()));
    }
    Some(named)
}

/// The arguments of a call of `name`, in `pg_catalog` or anywhere.
fn arguments<'a>(expr: &'a Expr, name: &str) -> Option<Vec<&'a Expr>> {
    let Expr::Function(function) = expr else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let plain = list.args.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(plain)) => Some(plain),
        _ => None,
    });
    if is(&function.name, name) { plain.collect() } else { None }
}

fn is(called: &ObjectName, name: &str) -> bool {
    last_word(called).is_some_and(|last| last.eq_ignore_ascii_case(name))
}

fn last_word(name: &ObjectName) -> Option<&str> {
    name.0.last().and_then(|part| part.as_ident()).map(|ident: &Ident| ident.value.as_str())
}

fn parsed(text: &str) -> Option<Expr> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(text).ok()?.parse_expr().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(text: &str) -> String {
        let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, text).expect(text);
        translate(&mut statements);
        statements[0].to_string()
    }

    #[test]
    fn what_datafusion_does_not_know_is_said_otherwise() {
        for (text, expected) in [
            (
                "SELECT a NOT LIKE $1 || '%' ESCAPE '/'",
                "SELECT a NOT LIKE replace(replace(replace(replace(($1 || '%'), '\\', '\\\\'), '//', chr(1)), '/', '\\'), chr(1), '/')",
            ),
            ("SELECT a LIKE 'x'", "SELECT a LIKE 'x'"),
            (
                "SELECT generate_subscripts(k, 1)",
                "SELECT unnest(range(1, 1 + CAST(cardinality(k) AS BIGINT)))",
            ),
            (
                "SELECT (SELECT d.adbin FROM pg_catalog.pg_attrdef d WHERE d.adrelid = a.oid) FROM a",
                "SELECT CAST(NULL AS TEXT) FROM a",
            ),
            (
                "SELECT (SELECT t.typname FROM pg_type AS t WHERE t.oid = a.kind AND true) FROM a",
                "SELECT (SELECT max(t.typname) FROM pg_type AS t WHERE t.oid = a.kind AND true) FROM a",
            ),
            (
                "SELECT (SELECT p.value FROM pg_stat_up AS p WHERE p.oid = a.kind) FROM a",
                "SELECT (SELECT p.value FROM pg_stat_up AS p WHERE p.oid = a.kind) FROM a",
            ),
            ("SELECT (SELECT max(x) FROM b) FROM a", "SELECT (SELECT max(x) FROM b) FROM a"),
            ("SELECT 1 WHERE t.typreceive <> 0", "SELECT 1 WHERE t.typreceive <> '-'"),
            ("SELECT 1 WHERE oid <> 0", "SELECT 1 WHERE oid <> 0"),
            ("SELECT * FROM pg_stat_activity", "SELECT * FROM pg_catalog.pg_stat_activity"),
        ] {
            assert_eq!(translated(text), expected);
        }
    }
}
