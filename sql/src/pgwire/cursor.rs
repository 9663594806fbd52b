//! SQL cursors: `DECLARE`, `FETCH` and `CLOSE`.
//!
//! A cursor only goes forward: its rows are streamed and nobody keeps those that were fetched. Its
//! query runs as far ahead as any other whose client does not read, and sees what was there when it was
//! declared. Without `WITH HOLD` it ends with its transaction.
//!
//! Source: <https://www.postgresql.org/docs/15/sql-declare.html>

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::sql::sqlparser::ast::{FetchDirection, Value, ValueWithSpan};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use pgwire::error::PgWireResult;

use super::sqlstate;

/// Rows on their way.
pub(crate) struct Cursor {
    /// The columns, as its client is told of them.
    pub(super) columns: SchemaRef,
    hold: bool,
    rows: tokio::sync::Mutex<Rows>,
}

struct Rows {
    /// What is left of the batch that the last fetch ended in.
    begun: Option<RecordBatch>,
    rest: SendableRecordBatchStream,
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor")
            .field("columns", &self.columns)
            .field("hold", &self.hold)
            .finish_non_exhaustive()
    }
}

impl Cursor {
    /// A cursor before the first of `rows`.
    pub(super) fn new(columns: SchemaRef, hold: bool, rows: SendableRecordBatchStream) -> Self {
        Self { columns, hold, rows: tokio::sync::Mutex::new(Rows { begun: None, rest: rows }) }
    }

    /// Up to `limit` rows; `None` gives all. What is not read of them is for the next fetch.
    pub(super) async fn fetch(self: &Arc<Self>, limit: Option<usize>) -> SendableRecordBatchStream {
        let cursor = Arc::clone(self);
        let schema = self.rows.lock().await.rest.schema();
        let batches = stream::try_unfold(limit, move |left| {
            let cursor = Arc::clone(&cursor);
            async move {
                if left == Some(0) {
                    return Ok(None);
                }
                let batch = cursor.rows.lock().await.next(left).await?;
                Ok(batch.map(|batch| {
                    let left = left.map(|left| left - batch.num_rows());
                    (batch, left)
                }))
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, batches))
    }
}

impl Rows {
    /// The next batch, cut to `limit` rows; never an empty one.
    async fn next(&mut self, limit: Option<usize>) -> Result<Option<RecordBatch>, DataFusionError> {
        let batch = loop {
            match self.begun.take() {
                Some(batch) if batch.num_rows() > 0 => break batch,
                _ => match self.rest.next().await.transpose()? {
                    Some(batch) => self.begun = Some(batch),
                    None => return Ok(None),
                },
            }
        };
        let take = limit.map_or(batch.num_rows(), |limit| limit.min(batch.num_rows()));
        if take < batch.num_rows() {
            self.begun = Some(batch.slice(take, batch.num_rows() - take));
        }
        Ok(Some(batch.slice(0, take)))
    }
}

/// The open cursors of a session, by name.
#[derive(Debug, Default)]
pub(crate) struct Cursors(Mutex<HashMap<String, Arc<Cursor>>>);

impl Cursors {
    /// # Errors
    /// 42P03 if there is one of that name.
    pub(super) fn open(&self, name: &str, cursor: Cursor) -> PgWireResult<()> {
        let mut cursors = self.0.lock();
        if cursors.contains_key(name) {
            return Err(sqlstate::error("42P03", format!("cursor {name:?} already exists")));
        }
        cursors.insert(name.to_owned(), Arc::new(cursor));
        Ok(())
    }

    /// # Errors
    /// 34000 if there is none of that name.
    pub(super) fn get(&self, name: &str) -> PgWireResult<Arc<Cursor>> {
        self.0.lock().get(name).cloned().ok_or_else(|| missing(name))
    }

    /// CLOSE; without a name, all.
    ///
    /// # Errors
    /// 34000 if there is none of that name.
    pub(super) fn close(&self, name: Option<&str>) -> PgWireResult<()> {
        let mut cursors = self.0.lock();
        match name {
            Some(name) => cursors.remove(name).map(drop).ok_or_else(|| missing(name)),
            None => {
                cursors.clear();
                Ok(())
            }
        }
    }

    /// The transaction is over.
    pub(super) fn end_transaction(&self) {
        self.0.lock().retain(|_, cursor| cursor.hold);
    }
}

fn missing(name: &str) -> pgwire::error::PgWireError {
    sqlstate::error("34000", format!("cursor {name:?} does not exist"))
}

/// A FETCH with the words that Postgres lets one leave out (`NEXT`, `FROM`) and the parser does not; `None`
/// for everything else.
pub(super) fn spelled_out(text: &str) -> Option<String> {
    let begins = text.trim_start().get(..5).is_some_and(|word| word.eq_ignore_ascii_case("fetch"));
    let tokens = begins.then(|| Tokenizer::new(&PostgreSqlDialect {}, text).tokenize().ok()).flatten()?;
    let blank = |token: &&Token| !matches!(token, Token::Whitespace(_) | Token::EOF);
    let mut words: Vec<_> = tokens.iter().filter(blank).map(ToString::to_string).collect();
    while words.last().is_some_and(|word| word == ";") {
        words.pop();
    }
    if words.iter().any(|word| word == ";") {
        return several(&words);
    }
    let is = |word: &String, keywords: &[&str]| keywords.iter().any(|k| word.eq_ignore_ascii_case(k));
    if !words.first().is_some_and(|word| is(word, &["fetch"])) || words.len() < 2 {
        return None;
    }
    let name = words.pop()?;
    if words.last().is_some_and(|word| is(word, &["from", "in"])) {
        words.pop();
    }
    if words.len() == 1 {
        words.push("NEXT".to_owned());
    }
    Some(format!("{} FROM {name}", words.join(" ")))
}

/// Several of them, one after the other.
fn several(words: &[String]) -> Option<String> {
    let each = words.split(|word| word == ";").map(|words| {
        let one = words.join(" ");
        spelled_out(&one).unwrap_or(one)
    });
    Some(each.collect::<Vec<_>>().join("; "))
}

/// How many rows a FETCH takes; `None` is all that are left.
///
/// # Errors
/// 55000 for a way that is not forward.
pub(super) fn rows_of_fetch(direction: &FetchDirection) -> PgWireResult<Option<usize>> {
    let count = |limit: &ValueWithSpan| match &limit.value {
        Value::Number(digits, _) => digits.to_string().parse().ok(),
        _ => None,
    };
    let rows = match direction {
        FetchDirection::All | FetchDirection::ForwardAll => return Ok(None),
        FetchDirection::Next | FetchDirection::Forward { limit: None } => Some(1),
        FetchDirection::Count { limit } | FetchDirection::Forward { limit: Some(limit) } => count(limit),
        _ => None,
    };
    // As Postgres says of a cursor that was declared NO SCROLL.
    rows.map(Some).ok_or_else(|| sqlstate::error("55000", "cursor can only scan forward"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_may_leave_words_out() {
        for (text, expected) in [
            ("FETCH c", Some("FETCH NEXT FROM c")),
            ("fetch from \"My Cursor\";", Some("fetch NEXT FROM \"My Cursor\"")),
            ("FETCH 5 c", Some("FETCH 5 FROM c")),
            ("FETCH FORWARD 5 IN c", Some("FETCH FORWARD 5 FROM c")),
            ("FETCH ALL FROM c", Some("FETCH ALL FROM c")),
            ("FETCH", None),
            ("fetched", None),
            ("SELECT 1", None),
        ] {
            assert_eq!(spelled_out(text).as_deref(), expected, "{text}");
        }
    }
}
