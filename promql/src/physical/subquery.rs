//! [`SubqueryExec`]: a range function over tiles.
//!
//! Tiles of a series may come from any partition in any order, so all of them are collected first;
//! then each series' points are lined up and go through the same kernels as stored samples.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::EmissionType;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions, SendableRecordBatchStream,
};
use futures::TryStreamExt;
use promontory_tsdb::histogram::{CounterResetHint, FloatHistogram};
use promontory_tsdb::query::HistogramSample;
use promontory_tsdb::{Labels, METRIC_NAME, TimestampMs};

use super::scalars::ScalarInputs;
use super::selector::long_buffer;
use super::tiles::{TileBuilder, TileColumns};
use super::{all_partitions, count, tile_properties, tile_stream};
use crate::context::{HeldBytes, QueryContext, SampleCounts};
use crate::error::QueryError;
use crate::kernels::{Samples, StepRow, StepScalar, Windows, range};
use crate::logical::spec::{RangeFunction, SubquerySpec};
use crate::notes::Notes;
use crate::operators::{get, tell_bad_quantiles};
use crate::params::Grid;

/// The window of a subquery. One output partition.
#[derive(Debug)]
pub struct SubqueryExec {
    spec: Arc<SubquerySpec>,
    input: Arc<dyn ExecutionPlan>,
    scalars: Arc<ScalarInputs>,
    properties: Arc<PlanProperties>,
}

impl SubqueryExec {
    /// `inputs` are the inner plan and the scalar arguments.
    ///
    /// # Errors
    /// If there is no inner plan.
    pub fn try_new(spec: Arc<SubquerySpec>, inputs: Vec<Arc<dyn ExecutionPlan>>) -> Result<Self> {
        let mut inputs = inputs.into_iter();
        let input = inputs.next().ok_or_else(|| internal_datafusion_err!("a subquery has an inner plan"))?;
        let properties = tile_properties(&spec.grid, 1, EmissionType::Final);
        Ok(Self { spec, input, scalars: Arc::new(ScalarInputs::new(inputs.collect())), properties })
    }
}

impl DisplayAs for SubqueryExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubqueryExec: {}", self.spec)
    }
}

impl ExecutionPlan for SubqueryExec {
    fn name(&self) -> &'static str {
        "SubqueryExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        std::iter::once(&self.input).chain(self.scalars.plans()).collect()
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; 1 + self.scalars.plans().len()]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::try_new(Arc::clone(&self.spec), children)?))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let query = QueryContext::of(&context)?;
        let (spec, scalars) = (Arc::clone(&self.spec), Arc::clone(&self.scalars));
        let input = all_partitions(&self.input, &context)?;
        let grid = spec.grid;
        let start = async move {
            let scalars = scalars.values(&grid, &context).await?;
            let collected = InnerSeries::new(spec.inner.tile_steps);
            let bytes = HeldBytes::new(Arc::clone(&query));
            let mut run = Run { spec, query, scalars, collected, next: 0, held: 0, bytes };
            run.hold(long_buffer(&run.spec.grid))?;
            run.collect(input).await?;
            Ok(futures::stream::try_unfold(run, async |mut run| Ok(run.next_batch()?.map(|b| (b, run)))))
        };
        Ok(tile_stream(&self.spec.grid, start))
    }
}

/// Collected tiles, by series in the order in which they came.
struct InnerSeries {
    lanes: usize,
    ids: HashMap<Arc<[u8]>, usize>,
    series: Vec<Inner>,
    values: Vec<f64>,
    /// What all of it takes, about.
    bytes: usize,
}

/// The points of one series.
#[derive(Default)]
struct Points {
    timestamps: Vec<TimestampMs>,
    values: Vec<f64>,
    histograms: Vec<HistogramSample>,
}

/// One series.
struct Inner {
    key: Arc<[u8]>,
    /// Index, presence, and where the lanes start in the values of all.
    tiles: Vec<(u32, u128, usize)>,
    /// By step of the inner grid.
    histograms: Vec<(usize, Arc<FloatHistogram>)>,
}

impl InnerSeries {
    fn new(lanes: usize) -> Self {
        Self { lanes, ids: HashMap::new(), series: Vec::new(), values: Vec::new(), bytes: 0 }
    }

    /// Takes a batch; returns the number of points in it.
    fn add(&mut self, batch: &TileColumns<'_>) -> usize {
        let mut points = 0;
        for row in 0..batch.len() {
            let (lanes, mask) = batch.row(row);
            let id = self.id(batch.key(row));
            self.series[id].tiles.push((batch.tile(row), mask, self.values.len()));
            self.values.extend_from_slice(lanes);
            self.bytes += size_of_val(lanes) + size_of::<(u32, u128, usize)>();
            points += mask.count_ones() as usize;
            let histograms = batch.histograms(row);
            if !histograms.is_empty() {
                points += histograms.weight();
                self.bytes += 16 * histograms.weight();
                let first = batch.tile(row) as usize * self.lanes;
                self.series[id].histograms.extend(histograms.iter().map(|(lane, h)| (first + lane, h)));
            }
        }
        points
    }

    fn id(&mut self, key: &[u8]) -> usize {
        if let Some(id) = self.ids.get(key) {
            return *id;
        }
        let key: Arc<[u8]> = Arc::from(key);
        let id = self.series.len();
        self.bytes += key.len() + size_of::<Inner>() + 64;
        self.series.push(Inner { key: Arc::clone(&key), tiles: Vec::new(), histograms: Vec::new() });
        self.ids.insert(key, id);
        id
    }

    /// Lines up the points of series `id`.
    fn points(&mut self, id: usize, grid: &Grid, points: &mut Points) {
        let Points { timestamps, values, histograms } = points;
        timestamps.clear();
        values.clear();
        histograms.clear();
        let found = &mut self.series[id].histograms;
        found.sort_unstable_by_key(|(step, _)| *step);
        histograms.extend(found.iter().map(|(step, h)| HistogramSample {
            series: 0,
            timestamp: grid.at(*step),
            start_timestamp: 0,
            histogram: without_reset_hint(h),
        }));
        let tiles = &mut self.series[id].tiles;
        tiles.sort_unstable_by_key(|(tile, ..)| *tile);
        for &(tile, mask, at) in tiles.iter() {
            let first = tile as usize * self.lanes;
            for j in (0..self.lanes).filter(|j| mask >> j & 1 == 1) {
                timestamps.push(grid.at(first + j));
                values.push(self.values[at + j]);
            }
        }
    }
}

/// A hint is about the sample that was stored before, which may be another one here.
fn without_reset_hint(h: &Arc<FloatHistogram>) -> Arc<FloatHistogram> {
    match h.counter_reset_hint {
        CounterResetHint::Unknown | CounterResetHint::Gauge => Arc::clone(h),
        CounterResetHint::Reset | CounterResetHint::NotReset => {
            let counter_reset_hint = CounterResetHint::Unknown;
            Arc::new(FloatHistogram { counter_reset_hint, ..h.as_ref().clone() })
        }
    }
}

/// Evaluation of what was collected.
struct Run {
    spec: Arc<SubquerySpec>,
    query: Arc<QueryContext>,
    scalars: Arc<[StepScalar]>,
    collected: InnerSeries,
    next: usize,
    /// Points that the query holds for us: the collected ones, then also those of the result.
    held: usize,
    bytes: HeldBytes<Arc<QueryContext>>,
}

impl Run {
    fn hold(&mut self, points: usize) -> Result<(), QueryError> {
        self.held += points;
        self.query.hold_samples(points)
    }

    async fn collect(&mut self, mut input: SendableRecordBatchStream) -> Result<()> {
        while let Some(batch) = input.try_next().await? {
            self.query.check()?;
            let points = self.collected.add(&TileColumns::of(&batch)?);
            self.hold(points)?;
            self.bytes.grow_to(self.collected.bytes)?;
        }
        Ok(())
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        self.query.check()?;
        let spec = Arc::clone(&self.spec);
        let windows = Windows { grid: spec.grid, view: spec.view, width_ms: spec.range_ms };
        let mut tiles = TileBuilder::new(spec.grid);
        let mut row = StepRow::default();
        let mut scratch = range::Scratch::watching(Arc::clone(&self.query));
        let mut work = 0;
        let (mut points, mut key) = (Points::default(), Vec::new());
        while self.next < self.collected.series.len() && !tiles.is_full() {
            self.collected.points(self.next, &spec.inner, &mut points);
            let samples = Samples::new(&points.timestamps, &points.values);
            work += points.timestamps.len() + spec.grid.steps;
            if work >= range::WORK_PER_CHECK {
                work = 0;
                self.query.check()?;
            }
            if let Some(counts) = self.query.counts() {
                // Read they were by the leaves within.
                let all = SampleCounts::default();
                count::floats(&all, spec.counted, &windows, samples.timestamps);
                count::histograms(&all, spec.counted, &windows, &points.histograms);
                counts.add_total(&all);
            }
            range::evaluate(spec.function, &windows, samples, &self.scalars, &mut scratch, &mut row)?;
            if !points.histograms.is_empty() {
                let key = &self.collected.series[self.next].key;
                let name = get(key, METRIC_NAME).and_then(|n| std::str::from_utf8(n).ok());
                let notes =
                    Notes { context: &self.query, position: &spec.position, name: name.unwrap_or_default() };
                let histograms = &points.histograms;
                range::histogram::check_scalars(spec.function, &windows, histograms, &self.scalars)?;
                range::histogram::overlay(spec.function, &windows, samples, histograms, &notes, &mut row);
                self.query.check()?;
            }
            if let (RangeFunction::QuantileOverTime, Some(phi)) = (spec.function, self.scalars.first()) {
                tell_bad_quantiles(&self.query, phi, &row, &spec.position);
            }
            self.hold(row.count())?;
            let labels = Labels::from_bytes(&self.collected.series[self.next].key)
                .ok_or_else(|| internal_datafusion_err!("a labels_key is not in canonical form"))?;
            spec.output.write_key(&labels, &mut key);
            tiles.push_row(&key, &row);
            self.next += 1;
        }
        if tiles.is_empty() { Ok(None) } else { tiles.finish().map(Some) }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.query.release_samples(self.held);
    }
}
