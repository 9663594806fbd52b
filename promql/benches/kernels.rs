//! Speed of the leaf kernels and of the vector aggregate.
//!
//! `rate`: one series of 960 samples (4 h at 15 s) over 240 steps of 60 s; throughput is samples.
//! `aggregate`: 24,000 tiles of 128 steps into 10 groups through DataFusion, planning included.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use datafusion::prelude::{SessionConfig, SessionContext};
use promontory_promql::Grid;
use promontory_promql::context::QueryContext;
use promontory_promql::kernels::range::{Scratch, evaluate};
use promontory_promql::kernels::{Samples, StepRow, Windows, instant};
use promontory_promql::logical::spec::{Grouping, RangeFunction, SampleRead, TimeView};
use promontory_promql::logical::{Subject, aggregate_plan};
use promontory_promql::parser::ast::AggregateOp;
use promontory_promql::physical::tiles::TileBuilder;
use promontory_tsdb::Labels;
use tokio_util::sync::CancellationToken;

fn ranges(c: &mut Criterion) {
    let timestamps = (0..960).map(|i| i * 15_000 + i % 7).collect::<Vec<i64>>();
    let values = (0..960).map(|i| f64::from(i * i % 1000 + i * 40)).collect::<Vec<f64>>();
    let samples = Samples::new(&timestamps, &values);
    let grid = Grid::new(5 * 60_000, 5 * 60_000 + 239 * 60_000, 60_000, 128);
    let windows = Windows { grid, view: TimeView::default(), width_ms: 5 * 60_000 };
    let (mut scratch, mut row) = (Scratch::default(), StepRow::default());
    let mut group = c.benchmark_group("range");
    group.throughput(Throughput::Elements(960));
    for function in [
        RangeFunction::Rate,
        RangeFunction::SumOverTime,
        RangeFunction::AvgOverTime,
        RangeFunction::MaxOverTime,
        RangeFunction::Changes,
        RangeFunction::Deriv,
    ] {
        group.bench_function(function.to_string(), |b| {
            b.iter(|| {
                let mut live = Default::default();
                let samples = black_box(samples).without_stale(&mut live);
                evaluate(function, &windows, samples, &[], &mut scratch, &mut row).expect("no arguments");
                black_box(row.values());
            });
        });
    }
    let regular = (0..960).map(|i| i * 15_000 + 400).collect::<Vec<i64>>();
    let counter = (0..960).map(|i| f64::from(1000 + i * 40)).collect::<Vec<f64>>();
    let samples_of_counter = Samples::new(&regular, &counter);
    group.bench_function("rate of a counter", |b| {
        b.iter(|| {
            let mut live = Default::default();
            let samples = black_box(samples_of_counter).without_stale_rising(&mut live);
            evaluate(RangeFunction::Rate, &windows, samples, &[], &mut scratch, &mut row)
                .expect("no arguments");
            black_box(row.values());
        });
    });
    group.bench_function("instant", |b| {
        b.iter(|| instant::evaluate(&windows, black_box(samples), SampleRead::Value, &mut row));
    });
    group.finish();
}

/// 24,000 tiles: 12,000 series of two tiles, 10 groups.
fn tiles(grid: Grid) -> Vec<RecordBatch> {
    let keys = (0..10).map(|g| Labels::from_pairs([("job", format!("job-{g}"))])).collect::<Vec<_>>();
    let lanes = (0..128).map(f64::from).collect::<Vec<_>>();
    let mut builder = TileBuilder::new(grid);
    let mut batches = Vec::new();
    for series in 0..12_000 {
        for tile in 0..2 {
            builder.push(keys[series % 10].as_bytes(), tile, &lanes, u128::MAX);
        }
        if builder.is_full() {
            batches.push(builder.finish().expect("tiles"));
        }
    }
    batches.push(builder.finish().expect("tiles"));
    batches
}

fn aggregates(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let grid = Grid::new(0, 255 * 60_000, 60_000, 128);
    let batches = tiles(grid);
    let schema = batches[0].schema();
    let halves = batches.chunks(batches.len().div_ceil(2)).map(<[_]>::to_vec).collect::<Vec<_>>();
    let table = datafusion::datasource::MemTable::try_new(schema, halves).expect("one schema");
    let table = Arc::new(table);
    let mut group = c.benchmark_group("aggregate");
    group.throughput(Throughput::Elements(24_000 * 128));
    for op in [AggregateOp::Sum, AggregateOp::Avg, AggregateOp::Max, AggregateOp::Stddev] {
        group.bench_function(format!("{} 24000 tiles", op.name()), |b| {
            b.iter(|| {
                runtime.block_on(async {
                    let query = QueryContext::new(usize::MAX, CancellationToken::new());
                    let config = SessionConfig::new().with_target_partitions(2).with_extension(query);
                    let context = SessionContext::new_with_config(config);
                    let input = context.read_table(Arc::clone(&table) as _).expect("a table");
                    let by = Grouping { without: false, labels: vec!["job".into()] };
                    let input = input.into_unoptimized_plan();
                    let plan =
                        aggregate_plan(input, grid, op, by, None, &Subject::default()).expect("a plan");
                    let state = context.state();
                    let exec = state.query_planner().create_physical_plan(&plan, &state).await;
                    let exec = exec.expect("an operator");
                    let out =
                        datafusion::physical_plan::collect(exec, context.task_ctx()).await.expect("tiles");
                    assert_eq!(out.iter().map(RecordBatch::num_rows).sum::<usize>(), 20);
                });
            });
        });
    }
    group.finish();
}

criterion_group!(benches, ranges, aggregates);
criterion_main!(benches);
