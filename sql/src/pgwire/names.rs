//! Names of result columns as Postgres chooses them where a query gives none: `max`, not
//! `max(metrics.up.value)`.
//!
//! Source: `FigureColname` in <https://github.com/postgres/postgres/blob/REL_15_0/src/backend/parser/parse_target.c>

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{
    AccessExpr, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    Query, SelectItem, SetExpr, TableFactor, TableWithJoins, TimezoneInfo, TrimWhereField, Value,
};

use super::regclass::PRINT;

/// What an expression without a name is called.
const NAMELESS: &str = "?column?";

/// Names of the columns of a query, as far as the planner's do not serve.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Of the columns before the first `*`.
    front: Vec<Option<String>>,
    /// Of the columns after the last `*`, from the end.
    back: Vec<Option<String>>,
}

impl Names {
    /// The names that Postgres would give to the columns of `query`.
    pub(super) fn of(query: &Query) -> Self {
        let Some(items) = projection(&query.body) else { return Self::default() };
        let is_star =
            |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
        let name = |item: &SelectItem| match item {
            SelectItem::UnnamedExpr(expr) => Some(name_of(expr)),
            SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
            _ => None,
        };
        let front: Vec<_> = items.iter().take_while(|item| !is_star(item)).map(name).collect();
        let back = match front.len() == items.len() {
            true => Vec::new(),
            false => items.iter().rev().take_while(|item| !is_star(item)).map(name).collect(),
        };
        Self { front, back }
    }

    /// `schema` with these names.
    pub(super) fn apply(self, schema: &SchemaRef) -> SchemaRef {
        let columns = schema.fields().len();
        if self.front.len() + self.back.len() > columns {
            return Arc::clone(schema);
        }
        let mut fields = schema.fields().to_vec();
        let front = self.front.into_iter().enumerate();
        let back = self.back.into_iter().enumerate().map(|(i, name)| (columns - 1 - i, name));
        for (i, name) in front.chain(back) {
            if let Some(name) = name.filter(|name| name != fields[i].name()) {
                fields[i] = Arc::new(fields[i].as_ref().clone().with_name(name));
            }
        }
        Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
    }
}

/// Gives the columns of `query` names that differ, which the planner wants; take its [`Names`] before.
pub(super) fn tell_apart(query: &mut Query) {
    tell_apart_in(&mut query.body);
}

fn tell_apart_in(body: &mut SetExpr) {
    let select = match body {
        SetExpr::Select(select) => select,
        SetExpr::Query(query) => return tell_apart(query),
        SetExpr::SetOperation { left, right, .. } => {
            tell_apart_in(left);
            return tell_apart_in(right);
        }
        _ => return,
    };
    let mut seen = HashSet::new();
    for (i, item) in select.projection.iter_mut().enumerate() {
        let (expr, known) = match item {
            SelectItem::UnnamedExpr(expr) => (expr.clone(), planned_name(expr)),
            SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), folded(alias)),
            _ => continue,
        };
        if !seen.insert(known) {
            let alias = Ident::with_quote('"', format!("?column? {i}"));
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
    }
}

/// Of subqueries it does not say what they are, and of casts that they are some.
fn planned_name(expr: &Expr) -> String {
    match expr {
        Expr::Subquery(_) => "<subquery>".to_owned(),
        Expr::Identifier(name) => folded(name),
        Expr::Cast { expr: inner, .. } => planned_name(inner),
        Expr::Function(function)
            if last(&function.name).is_some_and(|name| name == PRINT) && argument_of(function).is_none() =>
        {
            format!("{PRINT}(<subquery>)")
        }
        other => other.to_string(),
    }
}

/// Makes the names of functions known within `query`, so that `ORDER BY max`, or an outer query, can
/// refer to `max(value)`. The planner wants names to differ, so that one that occurs twice stays unknown.
pub(super) fn name_functions(query: &mut Query) {
    for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
        name_functions(&mut cte.query);
    }
    name_functions_of(&mut query.body);
}

fn name_functions_of(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            select.from.iter_mut().for_each(name_functions_in);
            name_items(&mut select.projection);
        }
        SetExpr::Query(query) => name_functions(query),
        SetExpr::SetOperation { left, right, .. } => {
            name_functions_of(left);
            name_functions_of(right);
        }
        _ => {}
    }
}

fn name_functions_in(table: &mut TableWithJoins) {
    let joined = table.joins.iter_mut().map(|join| &mut join.relation);
    for factor in std::iter::once(&mut table.relation).chain(joined) {
        match factor {
            TableFactor::Derived { subquery, .. } => name_functions(subquery),
            TableFactor::NestedJoin { table_with_joins, .. } => name_functions_in(table_with_joins),
            _ => {}
        }
    }
}

fn name_items(items: &mut [SelectItem]) {
    let names: Option<Vec<String>> = items
        .iter()
        .map(|item| match item {
            SelectItem::UnnamedExpr(expr) => Some(name_of(expr)),
            SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
            // Which names a star brings is not known here.
            _ => None,
        })
        .collect();
    let Some(names) = names else { return };
    for (item, name) in items.iter_mut().zip(&names) {
        if let SelectItem::UnnamedExpr(expr) = item
            && let Expr::Function(function) = &*expr
            && last(&function.name).is_none_or(|name| name != PRINT)
            && names.iter().filter(|other| *other == name).count() == 1
        {
            let alias = Ident::with_quote('"', name);
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

/// What a query selects; of a set operation, its first part names the columns.
fn projection(body: &SetExpr) -> Option<&[SelectItem]> {
    match body {
        SetExpr::Select(select) => Some(&select.projection),
        SetExpr::Query(query) => projection(&query.body),
        SetExpr::SetOperation { left, .. } => projection(left),
        _ => None,
    }
}

pub(super) fn name_of(expr: &Expr) -> String {
    own_name(expr).or_else(|| weak_name(expr)).unwrap_or_else(|| NAMELESS.to_owned())
}

/// The name of what `expr` is: a column, a function, a query's only column.
fn own_name(expr: &Expr) -> Option<String> {
    let named = match expr {
        Expr::Identifier(ident) => return Some(folded(ident)),
        Expr::CompoundIdentifier(parts) => return parts.last().map(folded),
        Expr::Function(function) => {
            return match last(&function.name).as_deref() {
                Some("mode_of") => Some("mode".to_owned()),
                Some(PRINT) => argument_of(function).and_then(own_name),
                Some("get_field") => field_of(function),
                name => name.map(str::to_owned),
            };
        }
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => return own_name(inner),
        Expr::Cast { expr, .. } => return own_name(expr),
        Expr::Case { else_result, .. } => return else_result.as_deref().and_then(own_name),
        Expr::Subquery(query) => return name_of_subquery(query),
        Expr::CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|access| match access {
                AccessExpr::Dot(Expr::Identifier(field)) => Some(folded(field)),
                _ => None,
            });
            return field.or_else(|| own_name(root));
        }
        Expr::AtTimeZone { .. } => "timezone",
        Expr::Extract { .. } => "extract",
        Expr::Ceil { .. } => "ceil",
        Expr::Floor { .. } => "floor",
        Expr::Position { .. } => "position",
        Expr::Substring { .. } => "substring",
        Expr::Overlay { .. } => "overlay",
        Expr::Trim { trim_where, .. } => match trim_where {
            Some(TrimWhereField::Leading) => "ltrim",
            Some(TrimWhereField::Trailing) => "rtrim",
            _ => "btrim",
        },
        Expr::Exists { .. } => "exists",
        Expr::Array(_) => "array",
        Expr::Tuple(_) => "row",
        _ => return None,
    };
    Some(named.to_owned())
}

/// The only argument, unless it is a query that the name of a table was replaced with.
fn argument_of(function: &Function) -> Option<&Expr> {
    let FunctionArguments::List(list) = &function.args else { return None };
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] => {
            (!matches!(argument, Expr::Subquery(_))).then_some(argument)
        }
        _ => None,
    }
}

/// The field that `get_field(struct, 'field')` gives.
fn field_of(function: &Function) -> Option<String> {
    let FunctionArguments::List(list) = &function.args else { return None };
    match list.args.last()? {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) => match &value.value {
            Value::SingleQuotedString(field) => Some(field.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// The name of the kind of `expr`, for want of a better one.
fn weak_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => weak_name(inner),
        Expr::Cast { data_type, .. } => Some(type_name(data_type)),
        Expr::TypedString(text) => Some(type_name(&text.data_type)),
        Expr::Interval(_) => Some("interval".to_owned()),
        Expr::Case { .. } => Some("case".to_owned()),
        Expr::Value(value) if matches!(value.value, Value::Boolean(_)) => Some("bool".to_owned()),
        _ => None,
    }
}

fn name_of_subquery(query: &Query) -> Option<String> {
    match projection(&query.body)?.first()? {
        SelectItem::UnnamedExpr(expr) => Some(name_of(expr)),
        SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
        _ => None,
    }
}

/// What Postgres itself calls a type.
fn type_name(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::SmallInt(_) | DataType::Int2(_) => "int2",
        DataType::Int(_) | DataType::Integer(_) | DataType::Int4(_) => "int4",
        DataType::BigInt(_) | DataType::Int8(_) => "int8",
        DataType::Real | DataType::Float4 => "float4",
        DataType::Float(_) | DataType::Double(_) | DataType::DoublePrecision | DataType::Float8 => "float8",
        DataType::Numeric(_) | DataType::Decimal(_) | DataType::Dec(_) => "numeric",
        DataType::Bool | DataType::Boolean => "bool",
        DataType::Varchar(_) | DataType::CharacterVarying(_) | DataType::CharVarying(_) => "varchar",
        DataType::Char(_) | DataType::Character(_) => "bpchar",
        DataType::Timestamp(_, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => "timestamptz",
        DataType::Timestamp(..) => "timestamp",
        DataType::Time(..) => "time",
        DataType::Interval { .. } => "interval",
        DataType::Custom(name, _) => return last(name).unwrap_or_default(),
        other => return other.to_string().to_lowercase(),
    };
    name.to_owned()
}

fn last(name: &ObjectName) -> Option<String> {
    name.0.last().and_then(|part| part.as_ident()).map(folded)
}

/// A name as written, in lower case unless it was quoted.
fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use datafusion::sql::sqlparser::ast::Statement;
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn names(query: &str, planned: &[&str]) -> Vec<String> {
        let statements = Parser::parse_sql(&PostgreSqlDialect {}, query).expect(query);
        let [Statement::Query(query)] = &statements[..] else { panic!("not a query: {query}") };
        let field = |name: &&str| Field::new(*name, arrow::datatypes::DataType::Int64, true);
        let schema = Arc::new(Schema::new(planned.iter().map(field).collect::<Vec<_>>()));
        Names::of(query).apply(&schema).fields().iter().map(|f| f.name().clone()).collect()
    }

    /// Expected names are what PostgreSQL 15 shows.
    #[test]
    fn expressions_are_called_what_postgres_calls_them() {
        for (expr, expected) in [
            ("max(value)", "max"),
            ("MAX(value) FILTER (WHERE value > 0) OVER ()", "max"),
            ("count(*)", "count"),
            ("up.job", "job"),
            ("\"Job\"", "Job"),
            ("1", "?column?"),
            ("value + 1", "?column?"),
            ("job || 'x'", "?column?"),
            ("job IS NULL", "?column?"),
            ("'x'", "?column?"),
            ("true", "bool"),
            ("value::int", "value"),
            ("'1'::int", "int4"),
            ("'1'::int::text", "text"),
            ("(max(value))::bigint", "max"),
            ("CAST('1' AS double precision)", "float8"),
            ("interval '1 hour'", "interval"),
            ("timestamp '2026-01-01'", "timestamp"),
            ("CASE WHEN value > 0 THEN 'up' ELSE 'down' END", "case"),
            ("CASE WHEN value > 0 THEN 'up' ELSE job END", "job"),
            ("(SELECT max(value) FROM up)", "max"),
            ("EXISTS (SELECT 1)", "exists"),
            ("extract(hour FROM timestamp)", "extract"),
            ("timestamp AT TIME ZONE 'UTC'", "timezone"),
            ("coalesce(env, 'none')", "coalesce"),
            ("trim(job)", "btrim"),
        ] {
            assert_eq!(names(&format!("SELECT {expr} FROM up"), &["planned"]), [expected], "{expr}");
        }
    }

    #[test]
    fn given_names_and_those_of_a_star_stay() {
        assert_eq!(names("SELECT max(value) AS top FROM up", &["top"]), ["top"]);
        let planned = ["max(a)", "a", "b", "min(a)", "x"];
        let query = "SELECT max(a), *, min(a), 1 AS x FROM up";
        assert_eq!(names(query, &planned), ["max", "a", "b", "min", "x"]);
        assert_eq!(names("SELECT *, a.*, max(b) FROM up a", &["b", "b", "max(b)"]), ["b", "b", "max"]);
        assert_eq!(names("SELECT max(a) FROM up UNION SELECT 1", &["max(a)"]), ["max"]);
        assert_eq!(names("VALUES (1)", &["column1"]), ["column1"]);
    }
}
