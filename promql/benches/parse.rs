//! Parsing and printing: a dashboard's query, a long chain, a deep nest.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use promontory_promql::parser::{ParserOptions, parse};

const DASHBOARD: &str = r#"histogram_quantile(0.99, sum by (le, job) (rate(http_request_duration_seconds_bucket{job=~"api|web", code!~"5..", instance="a:9090"}[5m] offset 1h))) / on (job) group_left (team) max by (job, team) (job_info{env="prod"}) > 0.5"#;

fn benches(c: &mut Criterion) {
    let options = ParserOptions::all();
    let chain = vec!["a"; 20_000].join("+");
    let nest = format!("{}a{}", "sum(".repeat(100), ")".repeat(100));
    let mut group = c.benchmark_group("parse");
    for (name, text) in
        [("dashboard", DASHBOARD), ("chain of 20000 terms", &chain), ("nest of 100 sums", &nest)]
    {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| b.iter(|| parse(black_box(text), &options).map(|e| e.span)));
    }
    group.finish();
    let expr = parse(DASHBOARD, &options).expect("valid");
    c.bench_function("print dashboard", |b| b.iter(|| black_box(&expr).to_string()));
}

criterion_group!(parse_benches, benches);
criterion_main!(parse_benches);
