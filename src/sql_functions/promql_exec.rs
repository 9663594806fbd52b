//! [`PromqlExec`]: evaluates a PromQL expression and streams its result as rows.
//!
//! The whole result is there before the first row, as over HTTP; rows are made of it batch by batch.
//! `EXPLAIN` shows the PromQL plan within, after `EXPLAIN ANALYZE` with its figures.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Builder, RecordBatch, RecordBatchOptions, StringDictionaryBuilder,
    TimestampMillisecondBuilder,
};
use arrow::datatypes::{Int32Type, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use promontory_promql::value::{QueryValue, RangeSeries, SampleValue};
use promontory_sql::{HistogramBuilder, Notices, Severity, labels_json};
use promontory_tsdb::{Labels, TimestampMs};
use tokio_util::sync::CancellationToken;

use super::promql::{Column, PromqlCall, failed};

/// Spaces in front of the lines of the PromQL plan.
const INDENT: &str = "          ";

/// One evaluation per run.
#[derive(Debug)]
pub(super) struct PromqlExec {
    call: Arc<PromqlCall>,
    /// Indexes into the call's columns.
    projection: Vec<usize>,
    limit: Option<usize>,
    /// The plan with its figures, once it has run.
    ran: Arc<Mutex<Option<String>>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl PromqlExec {
    /// The columns of `call` at `projection`, at most `limit` rows.
    pub(super) fn new(call: Arc<PromqlCall>, projection: Vec<usize>, limit: Option<usize>) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(call.schema(&projection)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        ));
        let ran = Arc::default();
        Self { call, projection, limit, ran, properties, metrics: ExecutionPlanMetricsSet::new() }
    }

    fn plan(&self) -> String {
        if let Some(ran) = self.ran.lock().as_ref() {
            return ran.clone();
        }
        let PromqlCall { engine, source, text, params, .. } = self.call.as_ref();
        match engine.explain(Arc::clone(source), text, *params) {
            Ok(explained) => explained.physical,
            Err(error) => error.to_string(),
        }
    }
}

impl DisplayAs for PromqlExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PromqlCall { text, params, .. } = self.call.as_ref();
        if matches!(t, DisplayFormatType::TreeRender) {
            return write!(f, "expr={text}");
        }
        write!(f, "PromqlExec: expr={text:?}, ")?;
        match params.step {
            0 => write!(f, "at={}", Instant(params.start))?,
            step => write!(f, "time=[{}, {}], step={step}ms", Instant(params.start), Instant(params.end))?,
        }
        let columns = self.schema();
        let columns: Vec<_> = columns.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, ", columns=[{}]", columns.join(", "))?;
        if let Some(limit) = self.limit {
            write!(f, ", limit={limit}")?;
        }
        self.plan().lines().try_for_each(|line| write!(f, "\n{INDENT}{line}"))
    }
}

/// For people.
struct Instant(TimestampMs);

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match chrono::DateTime::from_timestamp_millis(self.0) {
            Some(time) => f.write_str(&time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)),
            None => write!(f, "{} ms", self.0),
        }
    }
}

impl ExecutionPlan for PromqlExec {
    fn name(&self) -> &'static str {
        "PromqlExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { exec_err!("a PromQL expression has no children") }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (call, projection, schema) = (Arc::clone(&self.call), self.projection.clone(), self.schema());
        let (ran, limit) = (Arc::clone(&self.ran), self.limit.unwrap_or(usize::MAX));
        let rows_per_batch = context.session_config().batch_size().max(1);
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let batches = stream::once(async move {
            let PromqlCall { engine, source, text, params, .. } = call.as_ref();
            // Dropped with the stream, the evaluation ends by itself.
            let (explained, result) = engine
                .analyze(Arc::clone(source), text, *params, CancellationToken::new())
                .await
                .map_err(failed)?;
            *ran.lock() = Some(explained.physical);
            if let Some(notices) = context.session_config().get_extension::<Notices>() {
                let said =
                    |severity, texts: &[String]| texts.iter().for_each(|t| notices.say(severity, t.as_str()));
                said(Severity::Warning, &result.warnings);
                said(Severity::Notice, &result.infos);
            }
            let mut rows = Rows { points: points(result.value).take(limit), call, projection, schema };
            let batches = std::iter::from_fn(move || rows.next_batch(rows_per_batch).transpose());
            Ok::<_, DataFusionError>(stream::iter(batches))
        });
        let batches = batches.try_flatten().map(move |batch| {
            let batch = batch?;
            metrics.output_rows().add(batch.num_rows());
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// One row to be.
struct Point {
    labels: Arc<Labels>,
    timestamp: TimestampMs,
    value: SampleValue,
}

/// The points of a result, in its order.
fn points(value: QueryValue) -> Box<dyn Iterator<Item = Point> + Send> {
    match value {
        QueryValue::Scalar(timestamp, v) => {
            let labels = Arc::new(Labels::default());
            Box::new(std::iter::once(Point { labels, timestamp, value: SampleValue::Float(v) }))
        }
        // Refused when planned: a text is neither a float nor a histogram.
        QueryValue::String(..) => Box::new(std::iter::empty()),
        QueryValue::Vector(samples) => Box::new(samples.into_iter().map(|s| Point {
            labels: Arc::new(s.labels),
            timestamp: s.timestamp,
            value: s.value,
        })),
        QueryValue::Matrix(series) => Box::new(series.into_iter().flat_map(series_points)),
    }
}

fn series_points(series: RangeSeries) -> impl Iterator<Item = Point> + Send {
    let RangeSeries { labels, floats, histograms } = series;
    let labels = Arc::new(labels);
    let mut floats = floats.into_iter().map(|(t, v)| (t, SampleValue::Float(v))).peekable();
    let mut histograms = histograms.into_iter().map(|(t, h)| (t, SampleValue::Histogram(h))).peekable();
    std::iter::from_fn(move || {
        let histogram_first = match (floats.peek(), histograms.peek()) {
            (Some((float, _)), Some((histogram, _))) => histogram < float,
            (float, _) => float.is_none(),
        };
        let (timestamp, value) = if histogram_first { histograms.next() } else { floats.next() }?;
        Some(Point { labels: Arc::clone(&labels), timestamp, value })
    })
}

/// Points on their way into batches.
struct Rows<I> {
    points: I,
    call: Arc<PromqlCall>,
    projection: Vec<usize>,
    schema: SchemaRef,
}

impl<I: Iterator<Item = Point>> Rows<I> {
    fn next_batch(&mut self, rows: usize) -> Result<Option<RecordBatch>> {
        let points: Vec<Point> = self.points.by_ref().take(rows).collect();
        if points.is_empty() {
            return Ok(None);
        }
        let columns = self.projection.iter().map(|i| column(&self.call.columns[*i].1, &points));
        let options = RecordBatchOptions::new().with_row_count(Some(points.len()));
        let columns = columns.collect::<Result<_>>()?;
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?))
    }
}

fn column(column: &Column, points: &[Point]) -> Result<ArrayRef> {
    Ok(match column {
        Column::Timestamp => {
            let mut times = TimestampMillisecondBuilder::with_capacity(points.len());
            points.iter().for_each(|point| times.append_value(point.timestamp));
            Arc::new(times.finish().with_timezone("UTC"))
        }
        Column::Value => {
            let mut values = Float64Builder::with_capacity(points.len());
            points.iter().for_each(|point| match point.value {
                SampleValue::Float(v) => values.append_value(v),
                SampleValue::Histogram(_) => values.append_null(),
            });
            Arc::new(values.finish())
        }
        Column::Histogram => {
            let mut histograms = HistogramBuilder::default();
            points.iter().for_each(|point| match &point.value {
                SampleValue::Float(_) => histograms.append(None),
                SampleValue::Histogram(h) => histograms.append(Some(h)),
            });
            Arc::new(histograms.finish())
        }
        Column::Label(label) => texts(points, |labels| labels.get(label).map(str::to_owned))?,
        Column::Labels => texts(points, |labels| Some(labels_json(labels)))?,
    })
}

/// A text that is the same for all points of a series, looked up once per series.
fn texts(points: &[Point], text: impl Fn(&Labels) -> Option<String>) -> Result<ArrayRef> {
    let mut texts = StringDictionaryBuilder::<Int32Type>::new();
    for run in points.chunk_by(|a, b| Arc::ptr_eq(&a.labels, &b.labels)) {
        match text(&run[0].labels) {
            Some(text) => texts.append_n(text, run.len()).map(drop)?,
            None => texts.append_nulls(run.len()),
        }
    }
    Ok(Arc::new(texts.finish()))
}
