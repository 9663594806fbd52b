//! Refuses statements whose expression trees would be deeper than a thread's stack.
//!
//! And plans that are larger than their text lets on: a CTE that reads the previous one twice doubles the plan.
//!
//! Planning, optimising and dropping an expression recurse once per operator of a chain
//! (`a + a + …`), and an overflow would end the whole process. Whoever runs statements gives their
//! threads [`STACK_BYTES`].

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{ObjectName, Query, Statement, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use pgwire::error::PgWireResult;

use super::sqlstate;

/// Stack of a thread that runs statements, bytes. Address space only, until it is used.
pub const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Most operators in one text. Without optimisation 300 of them need 2 MiB of stack.
const MAX_OPERATORS: usize = 4_000;

/// Bytes of a text, as over HTTP.
const MAX_BYTES: usize = 4 << 20;

/// Most tables in one statement. Each is a level of the plan where they are joined.
const MAX_TABLES: usize = 500;

/// Most operators in one plan. What walks plans cannot be stopped while it does.
const MAX_NODES: usize = 20_000;

/// # Errors
/// 54001, Postgres' code for an exhausted stack. What cannot be read is left to the parser.
pub(super) fn check(query: &str) -> PgWireResult<()> {
    if query.len() > MAX_BYTES {
        let message = format!("statement too long: {} bytes, at most {MAX_BYTES} are taken", query.len());
        return Err(sqlstate::error("54001", message));
    }
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, query).tokenize() else { return Ok(()) };
    let operators = tokens.iter().filter(|token| nests(token)).count();
    if operators > MAX_OPERATORS {
        return Err(sqlstate::error(
            "54001",
            format!(
                "statement too complex: {operators} operators, at most {MAX_OPERATORS} are taken; use IN for long lists of values"
            ),
        ));
    }
    Ok(())
}

/// # Errors
/// 54001 if `statement` names too many tables, each as often as it is named once common table expressions stand where
/// they are used. The planner writes them out like that, and walks what it wrote at each step.
pub(super) fn check_tables(statement: &Statement) -> PgWireResult<()> {
    let mut tables = WrittenOut { open: vec![0], ..WrittenOut::default() };
    let _ = statement.visit(&mut tables);
    if tables.open.iter().any(|count| *count > MAX_TABLES) {
        let message = format!(
            "statement too complex: at most {MAX_TABLES} tables are taken, those of common table expressions \
             counted wherever these are used"
        );
        return Err(sqlstate::error("54001", message));
    }
    Ok(())
}

/// Counts tables.
#[derive(Default)]
struct WrittenOut {
    /// Of the queries around the place, the innermost last.
    open: Vec<usize>,
    /// The names that queries have as common table expressions, by address.
    names: HashMap<*const Query, String>,
    /// Tables of common table expressions by name; of two of one name those of the larger.
    sizes: HashMap<String, usize>,
}

impl Visitor for WrittenOut {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.names.insert(&raw const *cte.query, cte.alias.name.value.to_lowercase());
        }
        self.open.push(0);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let count = self.open.pop().unwrap_or_default();
        if let Some(name) = self.names.remove(&(&raw const *query)) {
            let size = self.sizes.entry(name).or_default();
            // One that names no table is a step of the plan all the same.
            *size = count.max(*size).max(1);
        } else if let Some(around) = self.open.last_mut() {
            *around = around.saturating_add(count);
        }
        if count > MAX_TABLES {
            self.open.push(count);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let size = self.sizes.get(&relation.to_string().to_lowercase()).copied().unwrap_or(1);
        if let Some(count) = self.open.last_mut() {
            *count = count.saturating_add(size);
        }
        ControlFlow::Continue(())
    }
}

/// # Errors
/// 54001 if `plan` has too many nodes, subqueries included. The answer takes no longer the larger it is.
pub(super) fn check_plan(plan: &LogicalPlan) -> PgWireResult<()> {
    let mut nodes = 0;
    let visited = plan.apply_with_subqueries(|_| {
        nodes += 1;
        Ok(if nodes > MAX_NODES { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    visited.map_err(|error| sqlstate::from_datafusion(&error))?;
    if nodes > MAX_NODES {
        let message = format!(
            "statement too complex: with its common table expressions and views written out it has more than {MAX_NODES} steps"
        );
        return Err(sqlstate::error("54001", message));
    }
    Ok(())
}

/// Whether a token may make the tree one level deeper. Commas make it wider, and so do words between clauses;
/// of all others some are operators (`ILIKE`, `COLLATE`, `AT TIME ZONE`), of which the parser makes chains.
fn nests(token: &Token) -> bool {
    match token {
        Token::Word(word) => !matches!(
            word.keyword,
            Keyword::NoKeyword
                | Keyword::SELECT
                | Keyword::DISTINCT
                | Keyword::AS
                | Keyword::FROM
                | Keyword::WHERE
                | Keyword::GROUP
                | Keyword::ORDER
                | Keyword::BY
                | Keyword::ASC
                | Keyword::DESC
                | Keyword::VALUES
                | Keyword::NULL
                | Keyword::TRUE
                | Keyword::FALSE
                | Keyword::WHEN
                | Keyword::THEN
                | Keyword::ELSE
                | Keyword::END
        ),
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::Whitespace(_)
        | Token::Comma
        | Token::Period
        | Token::RParen
        | Token::SemiColon
        | Token::Placeholder(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    #[test]
    fn tables_count_wherever_their_expression_is_used() {
        let tables = |text: &str| {
            let mut parsed = Parser::parse_sql(&PostgreSqlDialect {}, text).expect("parses");
            check_tables(&parsed.pop().expect("a statement"))
        };
        let doubling = |n: usize| {
            let steps = (1..n).map(|i| format!(", a{i} AS (SELECT a.x FROM a{0} a, a{0} b)", i - 1));
            format!("WITH a0 AS (SELECT 1 AS x){} SELECT * FROM a{}", steps.collect::<String>(), n - 1)
        };
        assert!(tables(&doubling(8)).is_ok());
        assert!(tables(&doubling(40)).is_err());
        assert!(tables(&format!("SELECT * FROM ({}) AS t", doubling(12))).is_err());
        assert!(tables(&format!("SELECT 1 FROM t{}", ", t".repeat(600))).is_err());
        let unions = format!("SELECT 1 FROM t{}", " UNION ALL SELECT 1 FROM t".repeat(400));
        assert!(tables(&unions).is_ok());
    }

    #[test]
    fn long_chains_are_refused_and_long_lists_are_not() {
        assert!(check(&format!("SELECT 1{}", "+1".repeat(5_000))).is_err());
        assert!(check(&format!("SELECT {}1", "NOT ".repeat(5_000))).is_err());
        assert!(check(&format!("SELECT * FROM m WHERE a IN ('x'{})", ", 'x'".repeat(20_000))).is_ok());
        assert!(check("SELECT 'unfinished").is_ok());
        for chain in [
            "ILIKE 'a'",
            "COLLATE c",
            "AT TIME ZONE 'UTC'",
            "SIMILAR TO 'a'",
            "IN ('a')",
            "BETWEEN 'a' AND 'b'",
        ] {
            assert!(check(&format!("SELECT 'a'{}", format!(" {chain}").repeat(5_000))).is_err(), "{chain}");
        }
        assert!(
            check(&format!("SELECT * FROM m WHERE a IN (NULL{})", ", TRUE, NULL".repeat(20_000))).is_ok()
        );
        assert!(check(&" ".repeat(MAX_BYTES + 1)).is_err());
    }
}
