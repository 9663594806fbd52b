//! Rows of `tsdb.chunks` and `tsdb.label_values`, which may be many.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use futures::executor::block_on;
use futures::{StreamExt, TryStreamExt, stream};
use promontory_tsdb::{ChunkSummary, METRIC_NAME, MatchOp, Matcher, Queryable, SelectHints};

use super::lazy::{Rows, Take};
use crate::catalog::columns::{ColumnKind, Columns, timestamp_type};
use crate::catalog::scan::decode::labels_json;
use crate::catalog::scan::exec::storage_error;
use crate::catalog::scan::pushdown::{self, Pushed};

/// Rows in a batch.
const BATCH_ROWS: usize = 4096;

/// `tsdb.chunks`.
#[derive(Debug)]
pub(crate) struct ChunkRows {
    source: Arc<dyn Queryable>,
    /// Those by which series are chosen.
    of_series: Columns,
    schema: SchemaRef,
}

impl ChunkRows {
    pub(crate) fn new(source: Arc<dyn Queryable>) -> Self {
        let of_series = Columns::new(vec![
            ("metric".to_owned(), ColumnKind::Label(METRIC_NAME.to_owned())),
            ("labels".to_owned(), ColumnKind::LabelsJson),
        ]);
        let text = |name: &str| Field::new(name, DataType::Utf8, false);
        let count = |name: &str| Field::new(name, DataType::Int64, false);
        let schema = Schema::new(vec![
            text("block"),
            count("series_ref"),
            Field::new("metric", DataType::Utf8, true),
            text("labels"),
            Field::new("min_time", timestamp_type(), false),
            Field::new("max_time", timestamp_type(), false),
            text("encoding"),
            count("samples"),
            count("bytes"),
            Field::new("out_of_order", DataType::Boolean, false),
        ]);
        Self { source, of_series, schema: Arc::new(schema) }
    }

    fn batch(&self, chunks: &[ChunkSummary]) -> Result<RecordBatch> {
        let texts = |of: fn(&ChunkSummary) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(chunks.iter().map(of)))
        };
        let counts = |of: fn(&ChunkSummary) -> u64| -> ArrayRef {
            let counts = chunks.iter().map(|chunk| i64::try_from(of(chunk)).unwrap_or(i64::MAX));
            Arc::new(Int64Array::from_iter_values(counts))
        };
        let times = |of: fn(&ChunkSummary) -> i64| -> ArrayRef {
            let times = TimestampMillisecondArray::from_iter_values(chunks.iter().map(of));
            Arc::new(times.with_timezone("UTC"))
        };
        let metrics: StringArray = chunks.iter().map(|chunk| chunk.labels.get(METRIC_NAME)).collect();
        // Chunks of one series follow each other.
        let mut labels = Vec::with_capacity(chunks.len());
        let mut last: Option<(&ChunkSummary, Arc<str>)> = None;
        for chunk in chunks {
            let json = match &last {
                Some((before, json)) if before.labels == chunk.labels => Arc::clone(json),
                _ => labels_json(&chunk.labels).into(),
            };
            labels.push(Arc::clone(&json));
            last = Some((chunk, json));
        }
        let columns: Vec<ArrayRef> = vec![
            texts(|chunk| &chunk.block),
            counts(|chunk| chunk.series),
            Arc::new(metrics),
            Arc::new(StringArray::from_iter_values(labels)),
            times(|chunk| chunk.min_time),
            times(|chunk| chunk.max_time),
            texts(|chunk| chunk.encoding),
            counts(|chunk| chunk.samples),
            counts(|chunk| chunk.bytes),
            Arc::new(BooleanArray::from_iter(chunks.iter().map(|chunk| Some(chunk.out_of_order)))),
        ];
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

impl Rows for ChunkRows {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn narrows(&self, filter: &Expr) -> bool {
        filter.column_refs().iter().all(|column| self.of_series.kind_of(&column.name).is_some())
            && pushdown::support(filter, &self.of_series)
                != datafusion::logical_expr::TableProviderFilterPushDown::Unsupported
    }

    fn read(&self, filters: &[Expr], take: Take<'_>) -> Result<()> {
        let pushed = Pushed::from_filters(filters, &self.of_series);
        if pushed.is_empty() {
            return Ok(());
        }
        let mut chunks = Vec::with_capacity(BATCH_ROWS);
        let mut failed = None;
        let mut give = |chunks: &mut Vec<ChunkSummary>| {
            let batch = self.batch(chunks);
            chunks.clear();
            match batch {
                Ok(batch) => take(batch),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        };
        let visited = self.source.for_each_chunk(&pushed.matchers, &mut |chunk| {
            chunks.push(chunk);
            if chunks.len() < BATCH_ROWS { ControlFlow::Continue(()) } else { give(&mut chunks) }
        });
        if visited.map_err(storage_error)?.is_continue() && !chunks.is_empty() {
            let _ = give(&mut chunks);
        }
        failed.map_or(Ok(()), Err)
    }
}

/// `tsdb.label_values`.
#[derive(Debug)]
pub(crate) struct LabelValueRows {
    source: Arc<dyn Queryable>,
    schema: SchemaRef,
}

impl LabelValueRows {
    pub(crate) fn new(source: Arc<dyn Queryable>) -> Self {
        let schema = Schema::new(vec![
            Field::new("name", DataType::Utf8, false),
            Field::new("value", DataType::Utf8, false),
            Field::new("series", DataType::Int64, false),
        ]);
        Self { source, schema: Arc::new(schema) }
    }
}

impl Rows for LabelValueRows {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn narrows(&self, filter: &Expr) -> bool {
        demanded(filter).is_some()
    }

    fn read(&self, filters: &[Expr], take: Take<'_>) -> Result<()> {
        let Some((mint, maxt)) = self.source.time_bounds() else { return Ok(()) };
        let wanted = |column: &str| {
            let found = filters.iter().filter_map(demanded).find(|(name, _)| *name == column);
            found.map(|(_, value)| value.to_owned())
        };
        let (name, value) = (wanted("name"), wanted("value"));
        // One label is asked for: only series that have it, and, of several names, only that one is counted.
        let matcher = name.as_deref().and_then(|name| match &value {
            Some(value) => Some(Matcher::eq(name, value)),
            None => Matcher::new(MatchOp::Ne, name, "").ok(),
        });
        let hints = SelectHints { labels_only: true, ..SelectHints::default() };
        let matchers = Vec::from_iter(matcher);
        let selection = self.source.select(&matchers, mint, maxt, &hints).map_err(storage_error)?;
        let mut counts: BTreeMap<String, HashMap<String, i64>> = BTreeMap::new();
        let mut batches = stream::iter(selection.partitions).flatten();
        while let Some(batch) = block_on(batches.try_next()).map_err(storage_error)? {
            for (label, value) in batch.labels.iter().flat_map(|labels| labels.iter()) {
                if name.as_deref().is_some_and(|name| name != label) {
                    continue;
                }
                let of_name = match counts.get_mut(label) {
                    Some(of_name) => of_name,
                    None => counts.entry(label.to_owned()).or_default(),
                };
                match of_name.get_mut(value) {
                    Some(count) => *count += 1,
                    None => drop(of_name.insert(value.to_owned(), 1)),
                }
            }
        }
        for (name, values) in counts {
            let mut values: Vec<_> = values.into_iter().collect();
            values.sort_unstable();
            for part in values.chunks(BATCH_ROWS) {
                let columns: Vec<ArrayRef> = vec![
                    Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&name, part.len()))),
                    Arc::new(StringArray::from_iter_values(part.iter().map(|(value, _)| value))),
                    Arc::new(Int64Array::from_iter_values(part.iter().map(|(_, count)| *count))),
                ];
                if take(RecordBatch::try_new(Arc::clone(&self.schema), columns)?).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The column and the text that `filter` demands of it.
fn demanded(filter: &Expr) -> Option<(&str, &str)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = filter else { return None };
    let (Expr::Column(column), Expr::Literal(value, _)) = (&**left, &**right) else { return None };
    let name = matches!(column.name.as_str(), "name" | "value").then_some(column.name.as_str())?;
    // An empty value is nobody's, and to a matcher says that the label is missing.
    Some((name, value.try_as_str().flatten().filter(|text| !text.is_empty())?))
}
