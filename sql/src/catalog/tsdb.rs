//! Schema `tsdb`: the storage itself, as tables.
//!
//! | table | row | columns |
//! |---|---|---|
//! | `series` | series | `metric`, `labels` (JSON text, without the metric name) |
//! | `samples` | sample of any metric | `metric`, `labels`, `timestamp`, `value`, `histogram` |
//! | `labels` | label value | `name`, `value` |
//! | `label_values` | label value | `name`, `value`, `series` |
//! | `chunks` | chunk | `block` (or `head`), `series_ref`, `metric`, `labels`, `min_time`, `max_time`, `encoding`, … |
//! | `blocks` | block | `ulid`, `min_time`, `max_time` (excluded), `series`, `samples`, `chunks`, `level`, `bytes` |

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use promontory_tsdb::{BlockSummary, METRIC_NAME, Queryable};

use crate::catalog::columns::{ColumnKind, Columns, HISTOGRAM, TIMESTAMP, VALUE, timestamp_type};
use crate::catalog::lazy::LazyTable;
use crate::catalog::scan::exec::storage_error;
use crate::catalog::scan::{Rows, SeriesTable};
use crate::catalog::schema::BuiltIn;
use crate::catalog::storage_rows::{ChunkRows, LabelValueRows};
use crate::catalog::{Listing, TSDB};

/// The tables of schema `tsdb`.
#[derive(Debug)]
pub(crate) struct StorageTables {
    source: Arc<dyn Queryable>,
}

impl StorageTables {
    /// Tables about `source`.
    pub(crate) fn new(source: Arc<dyn Queryable>) -> Self {
        Self { source }
    }

    fn series_table(&self, name: &str, rows: Rows) -> Arc<dyn TableProvider> {
        let mut columns = vec![
            ("metric".to_owned(), ColumnKind::Label(METRIC_NAME.to_owned())),
            ("labels".to_owned(), ColumnKind::LabelsJson),
        ];
        if rows == Rows::Samples {
            columns.push((TIMESTAMP.to_owned(), ColumnKind::Timestamp));
            columns.push((VALUE.to_owned(), ColumnKind::Value));
            columns.push((HISTOGRAM.to_owned(), ColumnKind::Histogram));
        }
        Arc::new(SeriesTable::new(
            format!("{TSDB}.{name}"),
            Arc::clone(&self.source),
            Vec::new(),
            Columns::new(columns),
            rows,
        ))
    }
}

/// What there is to say about a table.
pub(crate) fn comment(table: &str) -> Option<&'static str> {
    Some(match table {
        "blocks" => "blocks on disk",
        "chunks" => "chunks of samples, in the head and in blocks",
        "exemplars" => "the newest exemplars",
        "label_values" => "values of labels, with how many series have them",
        "queries" => "queries that run, and the last ones that did",
        "labels" => "values of labels",
        "metadata" => "what targets say of their metrics",
        "samples" => "samples of all metrics",
        "series" => "series of all metrics",
        "targets" => "targets that are scraped",
        _ => return None,
    })
}

const TABLES: [&str; 6] = ["blocks", "chunks", "label_values", "labels", "samples", "series"];

#[async_trait]
impl BuiltIn for StorageTables {
    fn names(&self) -> Result<Vec<String>> {
        Ok(TABLES.map(str::to_owned).to_vec())
    }

    fn exists(&self, name: &str) -> Result<bool> {
        Ok(TABLES.contains(&name))
    }

    async fn open(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let source = Arc::clone(&self.source);
        Ok(match name {
            "series" => Some(self.series_table(name, Rows::Series)),
            "samples" => Some(self.series_table(name, Rows::Samples)),
            "labels" => Some(Listing::table(labels_schema(), move || label_rows(source.as_ref()))),
            "label_values" => Some(LazyTable::table(LabelValueRows::new(source))),
            "chunks" => Some(LazyTable::table(ChunkRows::new(source))),
            "blocks" => Some(Listing::table(blocks_schema(), move || block_rows(&source.blocks()))),
            _ => None,
        })
    }
}

fn labels_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, false),
    ]))
}

fn label_rows(source: &dyn Queryable) -> Result<RecordBatch> {
    let (mut names, mut values) = (Vec::new(), Vec::new());
    if let Some((mint, maxt)) = source.time_bounds() {
        for name in source.label_names(&[], mint, maxt).map_err(storage_error)? {
            let found = source.label_values(&name, &[], mint, maxt).map_err(storage_error)?;
            names.extend(std::iter::repeat_n(name, found.len()));
            values.extend(found);
        }
    }
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(names)), Arc::new(StringArray::from(values))];
    Ok(RecordBatch::try_new(labels_schema(), columns)?)
}

fn blocks_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ulid", DataType::Utf8, false),
        Field::new("min_time", timestamp_type(), false),
        Field::new("max_time", timestamp_type(), false),
        Field::new("series", DataType::Int64, false),
        Field::new("samples", DataType::Int64, false),
        Field::new("chunks", DataType::Int64, false),
        Field::new("level", DataType::Int32, false),
        Field::new("bytes", DataType::Int64, false),
    ]))
}

fn block_rows(blocks: &[BlockSummary]) -> Result<RecordBatch> {
    let times = |of: fn(&BlockSummary) -> i64| -> ArrayRef {
        Arc::new(TimestampMillisecondArray::from_iter_values(blocks.iter().map(of)).with_timezone("UTC"))
    };
    let counts = |of: fn(&BlockSummary) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(
            blocks.iter().map(|b| i64::try_from(of(b)).unwrap_or(i64::MAX)),
        ))
    };
    let levels = blocks.iter().map(|b| i32::try_from(b.level).unwrap_or(i32::MAX));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(blocks.iter().map(|b| &b.ulid))),
        times(|b| b.min_time),
        times(|b| b.max_time),
        counts(|b| b.series),
        counts(|b| b.samples),
        counts(|b| b.chunks),
        Arc::new(Int32Array::from_iter_values(levels)),
        counts(|b| b.bytes),
    ];
    Ok(RecordBatch::try_new(blocks_schema(), columns)?)
}
