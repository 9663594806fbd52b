//! Queries over a memory storage: load, query, expected.

use promontory_tsdb::{Labels, MemoryStorage};

use super::*;
use crate::parser::ParserOptions;
use crate::parser::series::{SequenceValue, parse_series_description};
use crate::value::SampleValue;

/// Series descriptions of promqltest, one sample a minute from 0.
fn storage(load: &str) -> Arc<dyn Queryable> {
    let storage = MemoryStorage::new();
    for line in load.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let series = parse_series_description(line).unwrap();
        for (i, value) in series.values.into_iter().enumerate() {
            if let SequenceValue::Float(v) = value {
                storage.append(&series.labels, i as i64 * 60_000, v).unwrap();
            }
        }
    }
    Arc::new(storage)
}

fn engine(delayed: bool) -> Engine {
    let parser = ParserOptions::all();
    let delayed_name_removal = delayed;
    Engine::new(EngineOptions {
        delayed_name_removal,
        parser,
        partitions: 3,
        tile_steps: 4,
        ..EngineOptions::default()
    })
}

async fn run(engine: &Engine, load: &str, query: &str, params: QueryParams) -> String {
    match engine.query(storage(load), query, params, CancellationToken::new()).await {
        Err(e) => format!("error: {e}"),
        Ok(result) => {
            let mut out = print(&result.value);
            for note in result.warnings.iter().chain(&result.infos) {
                out.push_str(&format!("# {note}\n"));
            }
            out
        }
    }
}

fn print(value: &QueryValue) -> String {
    let float = |v: &SampleValue| match v {
        SampleValue::Float(v) => v.to_string(),
        SampleValue::Histogram(h) => format!("{h:?}"),
    };
    match value {
        QueryValue::Scalar(_, v) => format!("{v}\n"),
        QueryValue::String(_, text) => format!("{text:?}\n"),
        QueryValue::Vector(samples) => {
            samples.iter().map(|s| format!("{} {}\n", s.labels, float(&s.value))).collect()
        }
        QueryValue::Matrix(series) => series
            .iter()
            .map(|s| {
                let points: Vec<_> = s.floats.iter().map(|(t, v)| format!("{v}@{}", t / 1000)).collect();
                format!("{} {}\n", s.labels, points.join(" "))
            })
            .collect(),
    }
}

/// Runs `query` at minute `minute` and compares; `expected` has a line per element, indentation ignored.
#[track_caller]
fn check(load: &str, query: &str, minute: i64, expected: &str) {
    check_with(&engine(false), load, query, QueryParams::instant(minute * 60_000), expected);
}

/// As `check`, over minutes `0..=last`, a step a minute.
#[track_caller]
fn check_range(load: &str, query: &str, last: i64, expected: &str) {
    check_with(&engine(false), load, query, QueryParams::range(0, last * 60_000, 60_000), expected);
}

#[track_caller]
fn check_with(engine: &Engine, load: &str, query: &str, params: QueryParams, expected: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let got = runtime.block_on(run(engine, load, query, params));
    let expected: String =
        expected.lines().map(str::trim).filter(|l| !l.is_empty()).map(|l| format!("{l}\n")).collect();
    assert_eq!(got.trim_end(), expected.trim_end(), "{query}");
}

const REQUESTS: &str = r#"
    requests_total{job="api", instance="0"} 0+60x20
    requests_total{job="api", instance="1"} 0+120x20
    requests_total{job="web", instance="0"} 0+180x20
"#;

#[test]
fn selectors_and_rates() {
    check(
        REQUESTS,
        "requests_total{job='web'}",
        2,
        r#"{__name__="requests_total", instance="0", job="web"} 360"#,
    );
    check(
        REQUESTS,
        "sum by (job) (rate(requests_total[5m]))",
        10,
        r#"{job="api"} 3
           {job="web"} 3"#,
    );
    check(REQUESTS, "sum(rate(requests_total[5m])) * 2 + 1", 10, "{} 13");
    check_range(REQUESTS, "sum(requests_total)", 5, "{} 0@0 360@60 720@120 1080@180 1440@240 1800@300");
}
