//! What Postgres says and DataFusion does not, said so that DataFusion understands it.
//!
//! Done on the syntax tree, before planning; what tools ask of `pg_catalog` beyond that is rewritten by
//! `datafusion-pg-catalog`.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident,
    LimitClause, ObjectName, ObjectNamePart, OrderBy, OrderByKind, Query, SelectItem, SetExpr, Statement,
    TableFactor, Value, VisitMut, VisitorMut, visit_expressions_mut, visit_relations_mut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use regex::Regex;

use super::postgres;
use crate::catalog::{INFORMATION_SCHEMA, PG_CATALOG};

/// Tables of `pg_catalog` that `datafusion-pg-catalog` does not know.
pub(super) const OURS: [&str; 12] = [
    "pg_available_extensions",
    "pg_group",
    "pg_indexes",
    "pg_locks",
    "pg_prepared_xacts",
    "pg_rules",
    "pg_sequences",
    "pg_shadow",
    "pg_stat_activity",
    "pg_stat_database",
    "pg_user",
    "pg_views",
];

/// Makes their bare names full ones: in Postgres `pg_catalog` is searched before everything else. And leads from
/// `information_schema`, which the engine keeps to itself, to our own.
pub(super) fn qualify(statements: &mut Vec<Statement>) {
    let _: ControlFlow<()> = visit_relations_mut(statements, |name| {
        if let [.., ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(table)] = name.0.as_slice()
            && schema.value.eq_ignore_ascii_case(INFORMATION_SCHEMA)
        {
            let full =
                [PG_CATALOG.to_owned(), format!("{INFORMATION_SCHEMA}_{}", table.value.to_lowercase())];
            *name = ObjectName(full.map(|part| ObjectNamePart::Identifier(part.as_str().into())).into());
        }
        if let [ObjectNamePart::Identifier(only)] = name.0.as_slice()
            && OURS.iter().any(|ours| only.value.eq_ignore_ascii_case(ours))
        {
            let full = [PG_CATALOG.to_owned(), only.value.to_lowercase()];
            *name = ObjectName(full.map(|part| ObjectNamePart::Identifier(part.as_str().into())).into());
        }
        ControlFlow::Continue(())
    });
}

/// Rewrites `statements` in place.
pub(super) fn translate(statements: &mut Vec<Statement>) {
    qualify(statements);
    let _ = statements.visit(&mut Queries);
    let _: ControlFlow<()> = visit_expressions_mut(statements, |expr| {
        if let Some(other) = escaped_like(expr)
            .or_else(|| subscripts(expr))
            .or_else(|| from_nothing(expr))
            .or_else(|| array_of(expr))
            .or_else(|| of_time(expr))
            .or_else(|| pattern_of_time(expr))
            .or_else(|| current_role(expr))
            .or_else(|| postgres::make_interval(expr))
            .or_else(|| postgres::mode(expr))
            .or_else(|| postgres::expanded(expr))
            .or_else(|| postgres::field(expr))
            .or_else(|| json_type(expr))
            .or_else(|| with_seconds(expr))
            .or_else(|| looked_up(expr))
            .or_else(|| without_function(expr))
            .or_else(|| same_function(expr))
            .or_else(|| array_text(expr))
        {
            *expr = other;
        }
        ControlFlow::Continue(())
    });
}

/// What is said of a whole query.
struct Queries;

impl VisitorMut for Queries {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        // `FETCH FIRST 10 ROWS ONLY` is `LIMIT 10`.
        if let Some(fetch) = query.fetch.take_if(|fetch| !fetch.percent && !fetch.with_ties) {
            let rows = fetch.quantity.unwrap_or_else(|| Expr::value(Value::Number("1".to_owned(), false)));
            match &mut query.limit_clause {
                Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => *limit = Some(rows),
                None => {
                    query.limit_clause = Some(LimitClause::LimitOffset {
                        limit: Some(rows),
                        offset: None,
                        limit_by: Vec::new(),
                    });
                }
                Some(_) => {}
            }
        }
        // A key that was there before decides nothing, and DISTINCT ON does not bear it.
        if let Some(OrderBy { kind: OrderByKind::Expressions(keys), .. }) = &mut query.order_by {
            let mut seen = HashSet::new();
            keys.retain(|key| seen.insert(key.expr.to_string()));
        }
        if let SetExpr::Select(select) = &mut *query.body {
            for item in &mut select.projection {
                if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                    count_rows(expr);
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// `EXISTS (…)` among what is selected, where the planner takes it only in conditions: whether there is a row.
fn count_rows(expr: &mut Expr) {
    match expr {
        Expr::Exists { subquery, negated } => {
            let compared = if *negated { "=" } else { ">" };
            let text = format!(
                "((SELECT count(*) FROM (SELECT 1 FROM ({subquery}) AS a LIMIT 1) AS b) {compared} 0)"
            );
            if let Some(counted) = parsed(&text) {
                *expr = counted;
            }
        }
        Expr::Nested(inner) | Expr::UnaryOp { expr: inner, .. } | Expr::Cast { expr: inner, .. } => {
            count_rows(inner);
        }
        Expr::Case { conditions, .. } => {
            conditions.iter_mut().for_each(|when| count_rows(&mut when.condition));
        }
        _ => {}
    }
}

/// `current_role`, a word that is a function.
fn current_role(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Identifier(name)
            if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("current_role") =>
        {
            parsed("session_user()")
        }
        _ => None,
    }
}

/// `labels::json`: JSON is text here.
fn json_type(expr: &mut Expr) -> Option<Expr> {
    if let Expr::Cast { data_type: data_type @ (DataType::JSON | DataType::JSONB), .. } = expr {
        *data_type = DataType::Text;
    }
    None
}

/// `timestamp > '2026-01-01 12:00'`: the engine reads times with seconds only.
fn with_seconds(expr: &mut Expr) -> Option<Expr> {
    match expr {
        Expr::TypedString(text) if matches!(text.data_type, DataType::Timestamp(..)) => {
            add_seconds(&mut text.value.value);
        }
        Expr::Cast { expr: inner, data_type: DataType::Timestamp(..), .. } => seconds_of(inner),
        Expr::BinaryOp { left, right, .. } if is_time(left) => seconds_of(right),
        Expr::BinaryOp { left, right, .. } if is_time(right) => seconds_of(left),
        Expr::Between { expr: inner, low, high, .. } if is_time(inner) => {
            seconds_of(low);
            seconds_of(high);
        }
        Expr::InList { expr: inner, list, .. } if is_time(inner) => list.iter_mut().for_each(seconds_of),
        Expr::Function(function) if takes_times(&function.name) => {
            if let FunctionArguments::List(list) = &mut function.args {
                for argument in &mut list.args {
                    if let FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) = argument {
                        seconds_of(argument);
                    }
                }
            }
        }
        _ => {}
    }
    None
}

/// Whether `expr` is a time, as far as one can see.
fn is_time(expr: &Expr) -> bool {
    match expr {
        Expr::Identifier(name) => is_time_column(&name.value),
        Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|name| is_time_column(&name.value)),
        Expr::Nested(inner) => is_time(inner),
        Expr::Cast { data_type, .. } => matches!(data_type, DataType::Timestamp(..)),
        Expr::AtTimeZone { .. } => true,
        Expr::Function(function) => GIVE_TIMES.iter().any(|name| is(&function.name, name)),
        _ => false,
    }
}

/// Functions of times that give times.
const GIVE_TIMES: [&str; 5] = ["time_bucket", "time_bucket_gapfill", "date_bin", "date_trunc", "timezone"];

fn takes_times(function: &ObjectName) -> bool {
    GIVE_TIMES.iter().chain(&["rate", "increase", "delta"]).any(|name| is(function, name))
}

fn is_time_column(name: &str) -> bool {
    let name = name.to_lowercase();
    name == "timestamp" || name == "time" || name.ends_with("_time")
}

fn seconds_of(expr: &mut Expr) {
    if let Expr::Value(value) = expr {
        add_seconds(&mut value.value);
    }
}

fn add_seconds(value: &mut Value) {
    static TIME: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"^(\d{4}-\d\d-\d\d[ T]\d\d:\d\d)(Z|[+-]\d\d(:?\d\d)?)?$").ok());
    if let Value::SingleQuotedString(text) = value
        && let Some(found) = TIME.as_ref().and_then(|time| time.captures(text))
    {
        let zone = found.get(2).map_or("", |zone| zone.as_str());
        *text = format!("{}:00{zone}", &found[1]);
    }
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

/// `ARRAY(SELECT x FROM …)`: an aggregate over the rows.
fn array_of(expr: &Expr) -> Option<Expr> {
    let Expr::Function(function) = expr else { return None };
    let FunctionArguments::Subquery(query) = &function.args else { return None };
    if !is(&function.name, "array") {
        return None;
    }
    // Options of tables and policies, over which only psql asks this, are nowhere set.
    let text = query.to_string();
    if text.contains("unnest(tc.reloptions)") || text.contains("pg_policy") {
        return parsed("CAST(NULL AS TEXT[])");
    }
    let rows = aggregated(query).or_else(|| {
        let by = match query.order_by.as_ref().map(|order| &order.kind) {
            Some(OrderByKind::Expressions(by)) if by.len() == 1 && by[0].expr.to_string() == "1" => {
                format!(" ORDER BY x{}", if by[0].options.asc == Some(false) { " DESC" } else { "" })
            }
            _ => String::new(),
        };
        parsed(&format!("(SELECT array_agg(x{by}) FROM ({query}) AS t (x))"))
    })?;
    parsed(&format!("list_or_empty({rows})"))
}

/// `query` with its only column aggregated in place, so that it may refer to what is around it.
fn aggregated(query: &Query) -> Option<Expr> {
    let mut query = query.clone();
    let order = query.order_by.take().map(|order| match order.kind {
        OrderByKind::Expressions(by) => Some(by),
        OrderByKind::All(_) => None,
    });
    let order = match order {
        Some(by) => by?,
        None => Vec::new(),
    };
    let SetExpr::Select(select) = &mut *query.body else { return None };
    let plain = select.distinct.is_none()
        && select.having.is_none()
        && matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty())
        && query.limit_clause.is_none()
        && query.with.is_none();
    let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
        &mut select.projection[..]
    else {
        return None;
    };
    if !plain || aggregates(item) {
        return None;
    }
    let by: Vec<_> = order
        .into_iter()
        .map(|mut by| {
            if by.expr.to_string() == "1" {
                by.expr = item.clone();
            }
            by.to_string()
        })
        .collect();
    let by = if by.is_empty() { String::new() } else { format!(" ORDER BY {}", by.join(", ")) };
    *item = parsed(&format!("array_agg({item}{by})"))?;
    Some(Expr::Subquery(Box::new(query)))
}

/// `to_timestamp('…', 'YYYY-MM-DD HH24:MI:SS.US')`: the pattern as the engine has it, like C's.
fn pattern_of_time(expr: &Expr) -> Option<Expr> {
    let arguments = arguments(expr, "to_timestamp").or_else(|| arguments(expr, "to_date"))?;
    let [time, Expr::Value(pattern)] = arguments[..] else { return None };
    let Value::SingleQuotedString(pattern) = &pattern.value else { return None };
    if pattern.contains('%') {
        return None;
    }
    const PATTERNS: [(&str, &str); 9] = [
        ("HH24", "%H"),
        ("YYYY", "%Y"),
        ("MM", "%m"),
        ("DD", "%d"),
        ("MI", "%M"),
        ("SS", "%S"),
        (".US", "%.f"),
        (".MS", "%.f"),
        ("\"T\"", "T"),
    ];
    let translated =
        PATTERNS.iter().fold(pattern.clone(), |text, (postgres, own)| text.replace(postgres, own));
    let Expr::Function(function) = expr else { return None };
    parsed(&format!("{}({time}, '{}')", function.name, translated.replace('\'', "''")))
}

/// `t AT TIME ZONE zone` and `age(t)`, which have other ways to be said.
fn of_time(expr: &Expr) -> Option<Expr> {
    if let Expr::AtTimeZone { timestamp, time_zone } = expr {
        let mut timestamp = timestamp.clone();
        seconds_of(&mut timestamp);
        return parsed(&format!("timezone({time_zone}, {timestamp})"));
    }
    match arguments(expr, "age")?[..] {
        [time] => parsed(&format!("age(date_trunc('day', now()), {time})")),
        _ => None,
    }
}

/// Tables of `pg_catalog` with an identifier.
const LOOKED_UP: [&str; 10] = [
    "pg_am",
    "pg_authid",
    "pg_class",
    "pg_collation",
    "pg_database",
    "pg_namespace",
    "pg_proc",
    "pg_range",
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

/// `proc.oid = typ.typreceive`: see [`without_function`].
fn same_function(expr: &mut Expr) -> Option<Expr> {
    let Expr::BinaryOp { left, op: BinaryOperator::Eq, right } = expr else { return None };
    let last = |side: &Expr| match side {
        Expr::CompoundIdentifier(parts) => parts.last().map(|name| name.value.clone()),
        _ => None,
    };
    let (Some(a), Some(b)) = (last(left), last(right)) else { return None };
    let by_identifier = match (a.as_str(), b.as_str()) {
        ("oid", "typreceive") => left,
        ("typreceive", "oid") => right,
        _ => return None,
    };
    if let Expr::CompoundIdentifier(parts) = &mut **by_identifier {
        parts.pop();
        parts.push("proname".into());
    }
    None
}

/// `pol.polroles <> '{0}'`: the text is an array.
fn array_text(expr: &mut Expr) -> Option<Expr> {
    if let Expr::BinaryOp { left, op: BinaryOperator::NotEq | BinaryOperator::Eq, right } = expr
        && let Expr::CompoundIdentifier(_) | Expr::Identifier(_) = &**left
        && left.to_string().ends_with("polroles")
    {
        **right = parsed("ARRAY[CAST(0 AS INT)]")?;
    }
    None
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
pub(super) fn arguments<'a>(expr: &'a Expr, name: &str) -> Option<Vec<&'a Expr>> {
    let Expr::Function(function) = expr else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let plain = list.args.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(plain)) => Some(plain),
        _ => None,
    });
    if is(&function.name, name) { plain.collect() } else { None }
}

pub(super) fn is(called: &ObjectName, name: &str) -> bool {
    last_word(called).is_some_and(|last| last.eq_ignore_ascii_case(name))
}

fn last_word(name: &ObjectName) -> Option<&str> {
    name.0.last().and_then(|part| part.as_ident()).map(|ident: &Ident| ident.value.as_str())
}

pub(super) fn parsed(text: &str) -> Option<Expr> {
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
            (
                "SELECT ARRAY(SELECT b.x FROM b WHERE b.y = a.y ORDER BY 1 DESC) FROM a",
                "SELECT list_or_empty((SELECT array_agg(b.x ORDER BY b.x DESC) FROM b WHERE b.y = a.y)) FROM a",
            ),
            (
                "SELECT ARRAY(SELECT DISTINCT x FROM b LIMIT 2)",
                "SELECT list_or_empty((SELECT array_agg(x) FROM (SELECT DISTINCT x FROM b LIMIT 2) AS t (x)))",
            ),
            ("SELECT x FROM b FETCH FIRST 3 ROWS ONLY", "SELECT x FROM b LIMIT 3"),
            (
                "SELECT EXISTS(SELECT x FROM b)",
                "SELECT ((SELECT count(*) FROM (SELECT 1 FROM (SELECT x FROM b) AS a LIMIT 1) AS b) > 0)",
            ),
            (
                "SELECT x FROM b WHERE EXISTS (SELECT 1 FROM c)",
                "SELECT x FROM b WHERE EXISTS (SELECT 1 FROM c)",
            ),
            (
                "SELECT timestamp '2026-01-01 12:00' FROM b WHERE b.timestamp > '2026-01-01T12:00Z' AND x = '2026-01-01 12:00'",
                "SELECT TIMESTAMP '2026-01-01 12:00:00' FROM b WHERE b.timestamp > '2026-01-01T12:00:00Z' AND x = '2026-01-01 12:00'",
            ),
            ("SELECT labels::jsonb ->> 'job'", "SELECT labels::TEXT ->> 'job'"),
            ("SELECT t AT TIME ZONE 'UTC'", "SELECT timezone('UTC', t)"),
            (
                "SELECT to_timestamp('2026-01-01 00:00:00.5', 'YYYY-MM-DD HH24:MI:SS.US')",
                "SELECT to_timestamp('2026-01-01 00:00:00.5', '%Y-%m-%d %H:%M:%S%.f')",
            ),
            ("SELECT age(t)", "SELECT age(date_trunc('day', now()), t)"),
            ("SELECT 1 WHERE p.oid = t.typreceive", "SELECT 1 WHERE p.proname = t.typreceive"),
            (
                "SELECT * FROM INFORMATION_SCHEMA.Tables AS t",
                "SELECT * FROM pg_catalog.information_schema_tables AS t",
            ),
            ("SELECT * FROM pg_stat_activity", "SELECT * FROM pg_catalog.pg_stat_activity"),
        ] {
            assert_eq!(translated(text), expected);
        }
    }
}
