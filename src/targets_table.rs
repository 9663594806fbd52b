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
use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use promontory_sql::catalog::Listing;
use promontory_tsdb::Labels;

use crate::scrape::{ActiveTarget, ScrapeManager};

/// The table; a scan shows the targets as they are when it is planned.
pub(crate) fn targets_table(scrapes: Arc<ScrapeManager>) -> Arc<dyn TableProvider> {
    let schema = Arc::new(schema());
    Listing::table(Arc::clone(&schema), move || rows(&scrapes.targets().active, Arc::clone(&schema)))
}

fn schema() -> Schema {
    let time = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    Schema::new(vec![
        text("scrape_pool"),
        text("url"),
        text("labels"),
        text("health"),
        Field::new("last_scrape", time, true),
        Field::new("last_scrape_duration_seconds", DataType::Float64, false),
        text("last_error"),
    ])
}

fn rows(targets: &[ActiveTarget], schema: SchemaRef) -> Result<RecordBatch> {
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
    Ok(RecordBatch::try_new(schema, columns)?)
}

fn json_text(labels: &Labels) -> String {
    let object = labels.iter().map(|(name, value)| (name.to_owned(), value.into()));
    serde_json::Value::Object(object.collect()).to_string()
}
