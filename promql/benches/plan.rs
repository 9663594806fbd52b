//! What a small query costs before it touches much data: parse alone, and parse, plan and run over
//! one series.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use promontory_promql::parser::{self, ParserOptions};
use promontory_promql::{Engine, EngineOptions, QueryParams};
use promontory_tsdb::memory::MemoryStorage;
use promontory_tsdb::{Labels, Queryable};
use tokio_util::sync::CancellationToken;

const QUERIES: [(&str, &str); 4] = [
    ("selector", "up"),
    ("sum_rate", "sum by (job) (rate(http_requests_total[5m]))"),
    ("ratio", "sum(rate(errors_total[5m])) / sum(rate(http_requests_total[5m]))"),
    ("compare", "up == 0"),
];

fn source() -> Arc<dyn Queryable> {
    let storage = MemoryStorage::new();
    for name in ["up", "http_requests_total", "errors_total"] {
        let labels = Labels::from_pairs([("__name__", name), ("job", "api")]);
        for i in 0..60 {
            storage.append(&labels, i * 15_000, i as f64).expect("samples are in order");
        }
    }
    Arc::new(storage)
}

fn small_queries(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let engine = Engine::new(EngineOptions::default());
    let source = source();
    let mut group = c.benchmark_group("small_query");
    for (name, query) in QUERIES {
        group.bench_function(format!("parse/{name}"), |b| {
            b.iter(|| parser::parse(black_box(query), &ParserOptions::default()));
        });
        for (kind, params) in
            [("instant", QueryParams::instant(600_000)), ("range", QueryParams::range(0, 600_000, 15_000))]
        {
            group.bench_function(format!("{kind}/{name}"), |b| {
                b.iter(|| {
                    let run = engine.query(Arc::clone(&source), query, params, CancellationToken::new());
                    runtime.block_on(run).expect("the query is valid")
                });
            });
        }
    }
    group.finish();
}

/// A hostile length: time must grow with it and not with its square.
fn long_queries(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let engine = Engine::new(EngineOptions::default());
    let source = source();
    let mut group = c.benchmark_group("long_query");
    group.sample_size(10);
    for terms in [2_000, 20_000] {
        let query = vec!["1"; terms].join(" + ");
        group.bench_function(format!("parse/{terms}"), |b| {
            b.iter(|| parser::parse(black_box(&query), &ParserOptions::default()));
        });
        group.bench_function(format!("run/{terms}"), |b| {
            b.iter(|| {
                let params = QueryParams::instant(0);
                let run = engine.query(Arc::clone(&source), &query, params, CancellationToken::new());
                runtime.block_on(run).expect("the query is valid")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, small_queries, long_queries);
criterion_main!(benches);
