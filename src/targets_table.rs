//! `tsdb.targets`: what is scraped, as a SQL table.
//!
//! | column | meaning |
//! |---|---|
//! | `scrape_pool` | the job |
//! | `url` | what is asked |
//! | `labels` | the target's labels, JSON text |
//! | `health` | `up`, `down` or `unknown` |
//! | `last_scrape` | when it was asked last; NULL if never |
//! | `last_scrape_duration_seconds` | how long that took |
//! | `last_error` | why it failed; empty if it did not |

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use promontory_tsdb::Labels;

use crate::scrape::{ActiveTarget, ScrapeManager};

/// The table; a scan shows the targets as they are when it is planned.
#[derive(Debug)]
pub(crate) struct TargetsTable {
    scrapes: Arc<ScrapeManager>,
    schema: SchemaRef,
}

impl TargetsTable {
    pub(crate) fn new(scrapes: Arc<ScrapeManager>) -> Self {
        let time = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        let text = |name: &str| Field::new(name, DataType::Utf8, false);
        let schema = Schema::new(vec![
            text("scrape_pool"),
            text("url"),
            text("labels"),
            text("health"),
            Field::new("last_scrape", time, true),
            Field::new("last_scrape_duration_seconds", DataType::Float64, false),
            text("last_error"),
        ]);
        Self { scrapes, schema: Arc::new(schema) }
    }

    fn rows(&self) -> Result<RecordBatch> {
        let targets = self.scrapes.targets().active;
        let text = |of: &dyn Fn(&ActiveTarget) -> String| -> ArrayRef {
            Arc::new(targets.iter().map(|t| Some(of(t))).collect::<StringArray>())
        };
        let times: TimestampMillisecondArray = targets.iter().map(|t| t.last_scrape_ms).collect();
        let durations: Float64Array =
            targets.iter().map(|t| Some(t.last_scrape_duration.as_secs_f64())).collect();
        let columns: Vec<ArrayRef> = vec![
            text(&|t| t.scrape_pool.clone()),
            text(&|t| t.scrape_url.clone()),
            text(&|t| json_text(&t.labels)),
            text(&|t| t.health.as_str().to_owned()),
            Arc::new(times.with_timezone("UTC")),
            Arc::new(durations),
            text(&|t| t.last_error.clone()),
        ];
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

fn json_text(labels: &Labels) -> String {
    let object = labels.iter().map(|(name, value)| (name.to_owned(), value.into()));
    serde_json::Value::Object(object.collect()).to_string()
}

#[async_trait]
impl TableProvider for TargetsTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = MemTable::try_new(self.schema(), vec![vec![self.rows()?]])?;
        rows.scan(state, projection, filters, limit).await
    }
}
