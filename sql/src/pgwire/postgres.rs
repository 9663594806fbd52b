//! More words of Postgres, see [`dialect`](super::dialect): functions with a syntax of their own, and what tools ask of
//! things that there are not.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Statement, visit_expressions_mut,
};

use super::dialect::{arguments, is, parsed};

/// `make_interval(days => 2, hours => 3)`: a sum of intervals.
pub(super) fn make_interval(expr: &Expr) -> Option<Expr> {
    const UNITS: [(&str, &str); 7] = [
        ("years", "1 year"),
        ("months", "1 month"),
        ("weeks", "7 days"),
        ("days", "1 day"),
        ("hours", "1 hour"),
        ("mins", "1 minute"),
        ("secs", "1 second"),
    ];
    let Expr::Function(function) = expr else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    if !is(&function.name, "make_interval") {
        return None;
    }
    let mut sum = "INTERVAL '0 seconds'".to_owned();
    for (i, argument) in list.args.iter().enumerate() {
        let (unit, value) = match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => (UNITS.get(i)?.1, value),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => {
                (UNITS.iter().find(|(unit, _)| name.value.eq_ignore_ascii_case(unit))?.1, value)
            }
            FunctionArg::ExprNamed { name, arg: FunctionArgExpr::Expr(value), .. } => {
                let name = name.to_string();
                (UNITS.iter().find(|(unit, _)| name.eq_ignore_ascii_case(unit))?.1, value)
            }
            _ => return None,
        };
        sum.push_str(&format!(" + ({value}) * INTERVAL '{unit}'"));
    }
    parsed(&format!("({sum})"))
}

/// `mode() WITHIN GROUP (ORDER BY x)`: an aggregate of `x`.
pub(super) fn mode(expr: &Expr) -> Option<Expr> {
    let Expr::Function(function) = expr else { return None };
    let [by] = &function.within_group[..] else { return None };
    let filter =
        function.filter.as_ref().map(|filter| format!(" FILTER (WHERE {filter})")).unwrap_or_default();
    match arguments(expr, "mode")?[..] {
        [] => parsed(&format!("mode_of({}){filter}", by.expr)),
        _ => None,
    }
}

/// `information_schema._pg_expandarray(indkey)`, by which JDBC asks for the columns of keys: there are none, so that the
/// type is all that matters.
pub(super) fn expanded(expr: &Expr) -> Option<Expr> {
    let [_keys] = arguments(expr, "_pg_expandarray")?[..] else { return None };
    parsed("named_struct('x', CAST(NULL AS INT), 'n', CAST(NULL AS INT))")
}

/// `(keys).x`: a field of a struct.
pub(super) fn field(expr: &Expr) -> Option<Expr> {
    let Expr::CompoundFieldAccess { root, access_chain } = expr else { return None };
    let [AccessExpr::Dot(Expr::Identifier(field))] = &access_chain[..] else { return None };
    parsed(&format!("get_field({root}, '{}')", field.value.replace('\'', "''")))
}

/// Tools compare `tableoid`, the table that a row of `pg_catalog` is in, with `pg_description`, which is about tables
/// alone; so that any number that is none will do. Says whether there was one.
pub(super) fn without_tableoid(statements: &mut Vec<Statement>) -> bool {
    let mut found = false;
    let _: ControlFlow<()> = visit_expressions_mut(statements, |expr| {
        if let Expr::CompoundIdentifier(parts) = expr
            && parts.last().is_some_and(|name| name.value == "tableoid")
            && parts.first().is_some_and(|name| name.value != "tt")
            && let Some(none) = parsed("CAST(0 AS INT)")
        {
            *expr = none;
            found = true;
        }
        ControlFlow::Continue(())
    });
    found
}
