//! `::regclass`: the identifier of a table, which prints as the table's name.
//!
//! Between planning and client such a value is a number. Where a client sees it, among what a query selects, or where it
//! is made a text, `regclassout` is put around it, as Postgres' own output function is called.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments,
    GroupByExpr, Ident, ObjectName, Query, Select, SelectItem, SetExpr, Statement, Value,
    visit_expressions_mut,
};

use datafusion_pg_catalog::pg_catalog::PG_CATALOG_TABLES;

use super::dialect::OURS;
use super::names::name_of;
use crate::catalog::PG_CATALOG;

const REGCLASS: &str = "regclass";
/// The function that prints.
pub(super) const PRINT: &str = "regclassout";

/// Has them printed. Says whether there was any.
pub(super) fn print_names(statements: &mut Vec<Statement>) -> bool {
    let mut any = false;
    let _: ControlFlow<()> = visit_expressions_mut(statements, |expr| {
        if let Expr::Cast { expr: inner, data_type, .. } = expr
            && is_text(data_type)
            && is_regclass(inner)
        {
            **inner = printed(inner.as_ref().clone());
            any = true;
        }
        in_catalog(expr);
        ControlFlow::Continue(())
    });
    for statement in statements {
        if let Statement::Query(query) = statement {
            any |= in_query(query);
        }
    }
    any
}

fn in_query(query: &mut Query) -> bool {
    in_set(&mut query.body)
}

fn in_set(set: &mut SetExpr) -> bool {
    match set {
        SetExpr::Select(select) => in_select(select),
        SetExpr::Query(query) => in_query(query),
        SetExpr::SetOperation { left, right, .. } => in_set(left) | in_set(right),
        _ => false,
    }
}

fn in_select(select: &mut Select) -> bool {
    let mut any = false;
    for item in &mut select.projection {
        let (expr, alias) = match item {
            SelectItem::UnnamedExpr(expr) if is_regclass(expr) => {
                // Not that of a column, which what orders the rows may want to mean itself.
                let name = name_of(expr);
                (expr.clone(), (name == REGCLASS).then(|| Ident::with_quote('"', name)))
            }
            SelectItem::ExprWithAlias { expr, alias } if is_regclass(expr) => {
                (expr.clone(), Some(alias.clone()))
            }
            _ => continue,
        };
        any = true;
        if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
            keys.iter_mut().filter(|key| **key == expr).for_each(|key| *key = printed(expr.clone()));
        }
        *item = match alias {
            Some(alias) => SelectItem::ExprWithAlias { expr: printed(expr), alias },
            None => SelectItem::UnnamedExpr(printed(expr)),
        };
    }
    any
}

/// `'pg_class'::regclass`: `pg_catalog` is searched before the search path.
fn in_catalog(expr: &mut Expr) {
    if is_regclass(expr)
        && let Expr::Cast { expr: inner, .. } = expr
        && let Expr::Value(value) = &mut **inner
        && let Value::SingleQuotedString(name) = &mut value.value
        && (PG_CATALOG_TABLES.contains(&name.as_str()) || OURS.contains(&name.as_str()))
    {
        *name = format!("{PG_CATALOG}.{name}");
    }
}

fn is_regclass(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_regclass(inner),
        Expr::Cast { data_type, .. } => {
            let name = data_type.to_string().to_lowercase();
            name.strip_prefix("pg_catalog.").unwrap_or(&name) == REGCLASS
        }
        _ => false,
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Text | DataType::Varchar(None) | DataType::CharacterVarying(None))
}

fn printed(expr: Expr) -> Expr {
    let arguments = FunctionArgumentList {
        duplicate_treatment: None,
        args: vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))],
        clauses: Vec::new(),
    };
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(PRINT)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(arguments),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    #[test]
    fn identifiers_print_as_names_where_somebody_sees_them() {
        for (text, expected) in [
            ("SELECT 'up'::regclass", "SELECT regclassout('up'::REGCLASS) AS \"regclass\""),
            (
                "SELECT 'pg_class'::regclass",
                "SELECT regclassout('pg_catalog.pg_class'::REGCLASS) AS \"regclass\"",
            ),
            ("SELECT (a.oid)::regclass AS x FROM a", "SELECT regclassout((a.oid)::REGCLASS) AS x FROM a"),
            (
                "SELECT oid::regclass, count(*) FROM a GROUP BY oid::regclass",
                "SELECT regclassout(oid::REGCLASS), count(*) FROM a GROUP BY regclassout(oid::REGCLASS)",
            ),
            (
                "SELECT 1 FROM a WHERE oid::regclass::text = 'b' AND oid = 'c'::regclass",
                "SELECT 1 FROM a WHERE regclassout(oid::REGCLASS)::TEXT = 'b' AND oid = 'c'::REGCLASS",
            ),
            ("SELECT 'up'::regclass::oid", "SELECT 'up'::REGCLASS::oid"),
        ] {
            let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, text).expect(text);
            let any = print_names(&mut statements);
            assert_eq!(statements[0].to_string(), expected);
            assert_eq!(any, expected.contains("regclassout"));
        }
    }
}
