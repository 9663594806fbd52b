//! Refuses statements whose expression trees would be deeper than a thread's stack.
//!
//! Planning, optimising and dropping an expression recurse once per operator of a chain
//! (`a + a + …`), and an overflow would end the whole process. Whoever runs statements gives their
//! threads [`STACK_BYTES`].

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use pgwire::error::PgWireResult;

use super::sqlstate;

/// Stack of a thread that runs statements, bytes. Address space only, until it is used.
pub const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Most operators in one text. Without optimisation 300 of them need 2 MiB of stack.
const MAX_OPERATORS: usize = 4_000;

/// # Errors
/// 54001, Postgres' code for an exhausted stack. What cannot be read is left to the parser.
pub(super) fn check(query: &str) -> PgWireResult<()> {
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

/// Whether a token may make the tree one level deeper. Commas make it wider.
fn nests(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::UNION
                | Keyword::INTERSECT
                | Keyword::EXCEPT
                | Keyword::JOIN
                | Keyword::CASE
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
    use super::*;

    #[test]
    fn long_chains_are_refused_and_long_lists_are_not() {
        assert!(check(&format!("SELECT 1{}", "+1".repeat(5_000))).is_err());
        assert!(check(&format!("SELECT {}1", "NOT ".repeat(5_000))).is_err());
        assert!(check(&format!("SELECT * FROM m WHERE a IN ('x'{})", ", 'x'".repeat(20_000))).is_ok());
        assert!(check("SELECT 'unfinished").is_ok());
    }
}
