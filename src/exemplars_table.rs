//! `tsdb.exemplars`: the newest exemplars, as a SQL table.
//!
//! | column | meaning |
//! |---|---|
//! | `metric` | the metric of the series |
//! | `labels` | the series' other labels, JSON text |
//! | `exemplar` | the exemplar's own labels, JSON text; its trace, for one |
//! | `timestamp` | when it was observed |
//! | `value` | what was observed |

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use promontory_sql::catalog::Listing;
use promontory_sql::labels_json;
use promontory_tsdb::exemplar::Exemplar;
use promontory_tsdb::{Db, Labels, METRIC_NAME, Matcher};

/// The table; a scan shows the exemplars that there are when it is planned.
pub(crate) fn exemplars_table(db: Arc<Db>) -> Arc<dyn TableProvider> {
    let schema = Arc::new(schema());
    Listing::table(Arc::clone(&schema), move || {
        let every: &[Matcher] = &[];
        let found = db.exemplars().select(i64::MIN, i64::MAX, &[every]);
        let all: Vec<_> = found.iter().flat_map(|(series, of)| of.iter().map(move |e| (series, e))).collect();
        rows(&all, Arc::clone(&schema))
    })
}

fn schema() -> Schema {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Schema::new(vec![
        text("metric"),
        text("labels"),
        text("exemplar"),
        Field::new("timestamp", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), false),
        Field::new("value", DataType::Float64, false),
    ])
}

fn rows(all: &[(&Labels, &Exemplar)], schema: SchemaRef) -> Result<RecordBatch> {
    let metrics: StringArray = all.iter().map(|(series, _)| series.get(METRIC_NAME)).collect();
    let times = TimestampMillisecondArray::from_iter_values(all.iter().map(|(_, e)| e.timestamp));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(metrics),
        Arc::new(StringArray::from_iter_values(all.iter().map(|(series, _)| labels_json(series)))),
        Arc::new(StringArray::from_iter_values(all.iter().map(|(_, e)| labels_json(&e.labels)))),
        Arc::new(times.with_timezone("UTC")),
        Arc::new(Float64Array::from_iter_values(all.iter().map(|(_, e)| e.value))),
    ];
    Ok(RecordBatch::try_new(schema, columns)?)
}
