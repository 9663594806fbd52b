//! [`SqlParser`]: from text to statements that DataFusion understands.
//!
//! Statements about `pg_catalog` go through all of `datafusion-pg-catalog`'s rules. One of them puts NULL in the place
//! of correlated subqueries, which serves tools that describe tables; everything else goes without that rule, for to
//! anyone who asks about data it would be a wrong answer.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Statement, visit_relations};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use datafusion_pg_catalog::sql::rules::{
    AliasDuplicatedProjectionRewrite, CurrentUserVariableToSessionUserFunctionCall, FixArrayLiteral,
    PrependUnqualifiedPgTableName, ResolveUnqualifiedIdentifier, RewriteArrayAnyAllOperation,
    RewritePgCatalogOperator, RewriteRegCastToSubquery, SqlStatementRewriteRule, StripCallableQualifier,
    StripCollate,
};

use super::{dialect, postgres, regclass};
use crate::catalog::PG_CATALOG;

/// Reads statements.
#[derive(Debug)]
pub(crate) struct SqlParser {
    for_tools: PostgresCompatibilityParser,
    rules: Vec<Box<dyn SqlStatementRewriteRule>>,
}

impl SqlParser {
    pub(crate) fn new() -> Self {
        Self {
            for_tools: PostgresCompatibilityParser::new(),
            rules: vec![
                Box::new(AliasDuplicatedProjectionRewrite),
                Box::new(ResolveUnqualifiedIdentifier),
                Box::new(RewriteArrayAnyAllOperation),
                Box::new(PrependUnqualifiedPgTableName),
                Box::new(StripCallableQualifier),
                Box::new(FixArrayLiteral),
                Box::new(CurrentUserVariableToSessionUserFunctionCall),
                Box::new(StripCollate),
                Box::new(RewritePgCatalogOperator),
                Box::new(RewriteRegCastToSubquery::new()),
            ],
        }
    }

    /// The statements of `text`.
    ///
    /// # Errors
    /// If it cannot be parsed.
    pub(crate) fn parse(&self, text: &str) -> Result<Vec<Statement>, ParserError> {
        let mut printed = false;
        let parsed = Parser::parse_sql(&PostgreSqlDialect {}, text).map(|mut statements| {
            if !statements.iter().any(is_view) {
                printed = regclass::print_names(&mut statements);
            }
            statements
        });
        let mut statements = match parsed {
            // A view is rewritten when it is used, and shown as it was written.
            Ok(statements) if statements.iter().any(is_view) => {
                let each = statements.into_iter().map(|statement| match is_view(&statement) {
                    true => Ok(vec![statement]),
                    false => self.parse(&statement.to_string()),
                });
                return Ok(each.collect::<Result<Vec<_>, _>>()?.concat());
            }
            Ok(statements) if !statements.iter().any(|statement| self.is_for_tools(statement)) => {
                let rewrite = |statement| self.rules.iter().fold(statement, |s, rule| rule.rewrite(s));
                statements.into_iter().map(rewrite).collect()
            }
            // Also what only that parser knows, `ABORT` for one.
            Ok(mut statements) => {
                if postgres::without_tableoid(&mut statements) || printed {
                    let text = statements.iter().map(ToString::to_string).collect::<Vec<_>>().join(";");
                    self.for_tools.parse(&text)?
                } else {
                    self.for_tools.parse(text)?
                }
            }
            Err(_) => self.for_tools.parse(text)?,
        };
        dialect::translate(&mut statements);
        Ok(statements)
    }

    /// Whether `statement` reads `pg_catalog`.
    fn is_for_tools(&self, statement: &Statement) -> bool {
        let mut qualified = vec![PrependUnqualifiedPgTableName.rewrite(statement.clone())];
        dialect::qualify(&mut qualified);
        visit_relations(&qualified, |name| match &name.0[..] {
            [.., schema, _] if schema.to_string().eq_ignore_ascii_case(PG_CATALOG) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .is_break()
    }
}

fn is_view(statement: &Statement) -> bool {
    matches!(statement, Statement::CreateView(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlated_subqueries_stay_unless_they_describe_tables() {
        let parser = SqlParser::new();
        let parsed = |text: &str| parser.parse(text).expect(text)[0].to_string();
        let query = "SELECT a.job, (SELECT max(b.value) FROM up AS b WHERE b.job = a.job) FROM up AS a";
        assert_eq!(parsed(query), query);
        let query = "SELECT (SELECT x.y FROM z AS x WHERE x.y = c.oid) FROM pg_class AS c";
        assert_eq!(parsed(query), "SELECT NULL FROM pg_catalog.pg_class AS c");
        assert_eq!(parsed("ABORT"), "ROLLBACK");
    }
}
