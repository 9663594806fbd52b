//! What schemas and tables there are, for clients that look around. Only what the asker may read is named.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow_flight::sql::CommandGetTables;
use datafusion::common::ScalarValue;
use futures::{Stream, TryStreamExt, stream};
use promontory_sql::catalog::DATABASE;
use promontory_sql::{QueryError, SqlQueries};
use tonic::Status;

use super::statement::wire_schema;
use super::status;
use super::who::Who;

/// Kinds of tables.
pub(super) const TYPES: [&str; 2] = ["TABLE", "VIEW"];

/// Tables that are told of together.
const BATCH: usize = 256;

const SCHEMAS: &str = "SELECT schema_name FROM information_schema.schemata ORDER BY 1";

const TABLES: &str = "SELECT table_schema, table_name, table_type FROM information_schema.tables \
                      WHERE table_schema LIKE $1 AND table_name LIKE $2 ORDER BY 1, 2";

/// A table, not opened.
struct Table {
    schema: String,
    name: String,
    kind: &'static str,
}

/// The schemas.
pub(super) async fn schemas(queries: &SqlQueries, who: Who) -> Result<Vec<String>, Status> {
    let rows = texts(queries, SCHEMAS, &[], &who).await?;
    let names = rows.into_iter().filter_map(|row| row.into_iter().next());
    Ok(names.filter(|schema| who.access.may_read(schema)).collect())
}

/// The tables that `query` asks for, with their columns if it asks for them.
pub(super) async fn tables(
    queries: Arc<SqlQueries>,
    query: CommandGetTables,
    who: Who,
) -> Result<impl Stream<Item = Result<RecordBatch, Status>> + Send + 'static, Status> {
    let pattern = |pattern: &Option<String>| ScalarValue::from(pattern.as_deref().unwrap_or("%"));
    let patterns = [pattern(&query.db_schema_filter_pattern), pattern(&query.table_name_filter_pattern)];
    let here = query.catalog.as_deref().is_none_or(|catalog| catalog == DATABASE);
    let rows = match here {
        true => texts(&queries, TABLES, &patterns, &who).await?,
        false => Vec::new(),
    };
    let tables: Vec<Table> =
        rows.into_iter().filter_map(table).filter(|table| who.access.may_read(&table.schema)).collect();
    let state = (tables.into_iter(), queries, query, who);
    Ok(stream::try_unfold(state, |(mut tables, queries, query, who)| async move {
        let some: Vec<_> = tables.by_ref().take(BATCH).collect();
        if some.is_empty() {
            return Ok(None);
        }
        // Filters are applied; the builder's own take a backslash for something else.
        let unfiltered =
            CommandGetTables { include_schema: query.include_schema, ..CommandGetTables::default() };
        let mut builder = unfiltered.into_builder();
        for Table { schema, name, kind } in &some {
            if !query.table_types.is_empty() && !query.table_types.iter().any(|wanted| wanted == kind) {
                continue;
            }
            let columns = match query.include_schema {
                true => columns(&queries, schema, name, &who).await,
                false => Arc::new(Schema::empty()),
            };
            builder.append(DATABASE, schema, name, kind, &columns).map_err(Status::from)?;
        }
        Ok(Some((builder.build().map_err(Status::from)?, (tables, queries, query, who))))
    }))
}

fn table(row: Vec<String>) -> Option<Table> {
    let [schema, name, kind] = <[String; 3]>::try_from(row).ok()?;
    let kind = if kind == "VIEW" { TYPES[1] } else { TYPES[0] };
    Some(Table { schema, name, kind })
}

/// The columns of a table; none of one that cannot be opened, which must not keep others from being shown.
async fn columns(queries: &SqlQueries, schema: &str, name: &str, who: &Who) -> SchemaRef {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let text = format!("SELECT * FROM {}.{}", quoted(schema), quoted(name));
    match queries.describe(&text, &[], who.access.clone(), &who.name).await {
        Ok(described) => wire_schema(&described.schema),
        Err(error) => {
            tracing::debug!(%error, schema, name, "a table has no columns to show");
            Arc::new(Schema::empty())
        }
    }
}

/// The rows of a query whose columns are texts.
async fn texts(
    queries: &SqlQueries,
    text: &str,
    parameters: &[ScalarValue],
    who: &Who,
) -> Result<Vec<Vec<String>>, Status> {
    let rows = queries.run(text, parameters, who.access.clone(), &who.name).await;
    let batches = rows.map_err(|error| status::of(&error))?.batches;
    let batches: Vec<RecordBatch> =
        batches.try_collect().await.map_err(|error| status::of(&QueryError::from(&error)))?;
    let mut all = Vec::new();
    for batch in batches {
        let columns = batch.columns().iter().map(|column| cast(column, &DataType::Utf8));
        let columns =
            columns.collect::<Result<Vec<_>, _>>().map_err(|error| Status::internal(error.to_string()))?;
        let columns: Vec<_> = columns.iter().map(|column| column.as_string::<i32>()).collect();
        all.extend(
            (0..batch.num_rows()).map(|row| columns.iter().map(|c| c.value(row).to_owned()).collect()),
        );
    }
    Ok(all)
}
