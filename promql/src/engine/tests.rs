//! Queries over a memory storage: load, query, expected.

use promontory_tsdb::memory::MemoryStorage;

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
    // Small tiles and many partitions: the seams are where mistakes are.
    let options =
        EngineOptions { partitions: 3, parallel_samples: 0, tile_steps: 4, ..EngineOptions::default() };
    Engine::new(EngineOptions { delayed_name_removal, parser, ..options })
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

#[test]
fn scalars_are_folded_and_follow_ieee() {
    for (query, expected) in [
        ("1 + 2 * 3", "7"),
        ("1 / 0", "inf"),
        ("0 / 0", "NaN"),
        ("-1 ^ 2", "-1"),
        ("5 % -3", "2"),
        ("2 > bool 1", "1"),
        ("time()", "60"),
        ("time() + 1", "61"),
        ("10 - time()", "-50"),
        ("-time()", "-60"),
        ("pi()", "3.141592653589793"),
        ("scalar(vector(3)) * 2", "6"),
        ("max_of(1, time())", "60"),
        ("\"text\"", "\"text\""),
    ] {
        check("", query, 1, expected);
    }
}

#[test]
fn vector_and_scalar() {
    let load = r#"m{a="1"} 1
                  m{a="2"} 2
                  m{a="3"} NaN"#;
    check(load, "m > 1", 0, r#"{__name__="m", a="2"} 2"#);
    check(load, "1 < m", 0, r#"{__name__="m", a="2"} 2"#);
    check(load, "m >= bool 2", 0, "{a=\"1\"} 0\n{a=\"2\"} 1\n{a=\"3\"} 0");
    check(load, "m != m", 0, r#"{__name__="m", a="3"} NaN"#);
    check(load, "2 - m", 0, "{a=\"1\"} 1\n{a=\"2\"} 0\n{a=\"3\"} NaN");
    check(load, "-m{a='1'}", 0, r#"{a="1"} -1"#);
    check(load, "clamp(m, 1.5, 1.75)", 0, "{a=\"1\"} 1.5\n{a=\"2\"} 1.75\n{a=\"3\"} NaN");
    check(load, "clamp(m, 2, 1)", 0, "");
    check(load, "round(m{a='1'} * 0.5)", 0, r#"{a="1"} 1"#);
}

const LEFT_RIGHT: &str = r#"
    left{job="a", instance="0"} 1 2 3
    left{job="a", instance="1"} 10 20 30
    left{job="b", instance="0"} 100 200 300
    right{job="a"} 2 2 2
    right{job="b"} 4 4 4
"#;

#[test]
fn vectors_are_matched_one_to_one() {
    check(
        LEFT_RIGHT,
        r#"left{instance="0"} * ignoring(instance) right"#,
        1,
        r#"{job="a"} 4
           {job="b"} 800"#,
    );
    check(LEFT_RIGHT, r#"left{instance="0"} > on(job) right"#, 0, r#"{job="b"} 100"#);
    check(
        LEFT_RIGHT,
        r#"left{instance="0"} > ignoring(instance) right"#,
        0,
        r#"{__name__="left", job="b"} 100"#,
    );
}

#[test]
fn vectors_are_matched_many_to_one() {
    let expected = r#"{instance="0", job="a"} 2
                      {instance="0", job="b"} 25
                      {instance="1", job="a"} 10"#
        .replace(" 2\n", " 0.5\n")
        .replace(" 10", " 5");
    check(LEFT_RIGHT, "left / on(job) group_left right", 0, &expected);
    check(
        LEFT_RIGHT,
        "(2 * right) / on(job) group_right left",
        0,
        r#"
        {instance="0", job="a"} 4
        {instance="0", job="b"} 0.08
        {instance="1", job="a"} 0.4"#,
    );
    let load = r#"
        m{id="1"} 1
        info{id="1", version="v2"} 1"#;
    check(load, "m * on(id) group_left(version) info", 0, r#"{id="1", version="v2"} 1"#);
}

#[test]
fn matching_errors_have_upstreams_texts() {
    check(
        LEFT_RIGHT,
        "right + on(job) left",
        0,
        r#"error: found duplicate series for the match group {job="a"} on the right hand-side of the operation: [{__name__="left", instance="0", job="a"}, {__name__="left", instance="1", job="a"}];many-to-many matching not allowed: matching labels must be unique on one side"#,
    );
    check(
        LEFT_RIGHT,
        "left + on(job) right",
        0,
        "error: multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
    );
    check(
        r#"m{id="1", x="a"} 1
           m{id="1", x="b"} 1
           n{id="1", x="c"} 1"#,
        "m * on(id) group_left(x) n",
        0,
        "error: multiple matches for labels: grouping labels must ensure unique matches",
    );
}

#[test]
fn series_that_never_meet_may_share_a_signature() {
    let load = r#"
        one{x="a"} 1 stale _ _ _ _ _
        one{x="b"} _ _ 3 3 3 3 3
        many       1 1 1 1 1 1 1"#;
    check_range(load, "many + ignoring(x) one", 6, "{} 2@0 4@120 4@180 4@240 4@300 4@360");
}

#[test]
fn duplicates_do_not_matter_where_the_other_side_is_empty() {
    check(LEFT_RIGHT, "nothing + on(job) left", 0, "");
}

#[test]
fn missing_sides_are_filled() {
    check(
        r#"l{x="1"} 1
           l{x="2"} 2
           r{x="2"} 20
           r{x="3"} 30"#,
        "l + fill(5) r",
        0,
        "{x=\"1\"} 6\n{x=\"2\"} 22\n{x=\"3\"} 35",
    );
}

#[test]
fn set_operators_work_step_by_step() {
    let load = r#"
        a{x="1"} 1 1 1 1 1 1 1 1
        a{x="2"} 2 2 2 2 2 2 2 2
        b{x="1"} 7 stale _ _ _ 7 7 7"#;
    check_range(load, "a and b", 6, r#"{__name__="a", x="1"} 1@0 1@300 1@360"#);
    check_range(load, "a{x='1'} unless b", 6, r#"{__name__="a", x="1"} 1@60 1@120 1@180 1@240"#);
    check_range(
        load,
        "b or a{x='1'}",
        6,
        r#"
        {__name__="a", x="1"} 1@60 1@120 1@180 1@240
        {__name__="b", x="1"} 7@0 7@300 7@360"#,
    );
}

#[test]
fn ranks() {
    let load = r#"m{a="1", g="x"} 1
                  m{a="2", g="x"} NaN
                  m{a="3", g="x"} 3
                  m{a="4", g="y"} 2"#;
    check(
        load,
        "topk(2, m)",
        0,
        "{__name__=\"m\", a=\"3\", g=\"x\"} 3\n{__name__=\"m\", a=\"4\", g=\"y\"} 2",
    );
    check(
        load,
        "bottomk by (g) (1, m)",
        0,
        "{__name__=\"m\", a=\"1\", g=\"x\"} 1\n{__name__=\"m\", a=\"4\", g=\"y\"} 2",
    );
    check(load, "limitk(1, m)", 0, "{__name__=\"m\", a=\"1\", g=\"x\"} 1");
    check(load, "topk(0, m)", 0, "");
    check(load, "topk(NaN, m)", 0, "error: Parameter value is NaN");
    check(load, "topk(1e30, m)", 0, "error: Scalar value 1e+30 overflows int64");
    check(load, "topk(scalar(m{a='4'}) - 1, m)", 0, r#"{__name__="m", a="3", g="x"} 3"#);
    check(load, "count(limit_ratio(1, m))", 0, "{} 4");
}

#[test]
fn sorting_orders_instant_vectors() {
    let load = r#"m{a="1"} 2
                  m{a="10"} NaN
                  m{a="9"} 1"#;
    let line = |a: &str, v: &str| format!("{{__name__=\"m\", a=\"{a}\"}} {v}\n");
    check(load, "sort(m)", 0, &[line("9", "1"), line("1", "2"), line("10", "NaN")].concat());
    check(load, "sort_desc(m)", 0, &[line("1", "2"), line("9", "1"), line("10", "NaN")].concat());
    check(load, "sort_by_label(m, 'a')", 0, &[line("1", "2"), line("9", "1"), line("10", "NaN")].concat());
}

#[test]
fn values_are_counted() {
    check(
        r#"m{a="1"} 1
           m{a="2"} 1
           m{a="3"} 0.5"#,
        r#"count_values("v", m)"#,
        0,
        r#"{v="0.5"} 1
           {v="1"} 2"#,
    );
}

#[test]
fn labels_are_rewritten() {
    let load = r#"m{a="x-1"} 1"#;
    check(load, r#"label_replace(m, "b", "$1!", "a", "x-(.*)")"#, 0, r#"{__name__="m", a="x-1", b="1!"} 1"#);
    check(load, r#"label_replace(m, "b", "$1!", "a", "y(.*)")"#, 0, r#"{__name__="m", a="x-1"} 1"#);
    check(load, r#"label_join(m, "b", ",", "a", "a")"#, 0, r#"{__name__="m", a="x-1", b="x-1,x-1"} 1"#);
    check(
        "m{a=\"1\"} 1\nm{a=\"2\"} 1",
        r#"label_replace(m, "a", "", "a", ".*")"#,
        0,
        "error: vector cannot contain metrics with the same labelset",
    );
}

#[test]
fn absence() {
    check("m 1", r#"absent(x{a="1", b=~"y"})"#, 0, r#"{a="1"} 1"#);
    check("m 1", "absent(m)", 0, "");
    check_range("m 1 stale _ 1", "absent(m)", 3, "{} 1@60 1@120");
    check("m 1", r#"absent_over_time(x{a="1"}[5m])"#, 0, r#"{a="1"} 1"#);
}

#[test]
fn classic_histograms() {
    let load = r#"h_bucket{le="1"} 1
                  h_bucket{le="2"} 3
                  h_bucket{le="+Inf"} 4
                  h_bucket{le="x"} 4"#;
    check(
        load,
        "histogram_quantile(0.5, h_bucket)",
        0,
        "{} 1.5\n# PromQL warning: bucket label \"le\" is missing or has a malformed value of \"x\" (1:25)",
    );
    check(load, "histogram_fraction(0, 2, h_bucket{le!='x'})", 0, "{} 0.75");
}

#[test]
fn subqueries_and_at() {
    let load = "m 0+1x20";
    check(load, "sum_over_time(m[4m:2m])", 10, "{} 18");
    check(load, "m @ 300", 10, r#"{__name__="m"} 5"#);
    check_range(load, "m @ end()", 3, r#"{__name__="m"} 3@0 3@60 3@120 3@180"#);
    check_range(load, "m - m @ start()", 2, "{} 0@0 1@60 2@120");
    check_range(load, "sum(m @ 120) + 1", 2, "{} 3@0 3@60 3@120");
    check(load, "m[2m]", 10, r#"{__name__="m"} 9@540 10@600"#);
    check(load, "m[4m:2m]", 10, r#"{__name__="m"} 8@480 10@600"#);
    check(load, "m offset 2m", 10, r#"{__name__="m"} 8"#);
}

#[test]
fn names_that_are_no_counters_are_told() {
    check(
        "m 0+60x10",
        "sum(rate(m[5m]))",
        5,
        "{} 1\n# PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"m\" (1:10)",
    );
    check(
        "m 0+60x10",
        "rate({__name__=~\"m\"}[5m])",
        5,
        "{} 1\n# PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"m\" (1:6)",
    );
}

#[test]
fn quantiles_out_of_range_are_told() {
    check(
        "m 1",
        "quantile(2, m)",
        0,
        "{} inf\n# PromQL warning: quantile value should be between 0 and 1, got 2 (1:10)",
    );
}

#[test]
fn series_that_only_differ_in_name_must_not_meet() {
    let load = "a{x=\"1\"} 0 1 2\nb{x=\"1\"} 0 1 2";
    check(load, "rate({x=\"1\"}[5m])", 2, "error: vector cannot contain metrics with the same labelset");
    check(load, "abs({x=\"1\"})", 2, "error: vector cannot contain metrics with the same labelset");
}

#[test]
fn delayed_name_removal_keeps_names_for_grouping() {
    let load = "a_total{x=\"1\"} 0+60x10\nb_total{x=\"1\"} 0+120x10";
    let instant = QueryParams::instant(300_000);
    let engine = engine(true);
    let same = "error: vector cannot contain metrics with the same labelset";
    check_with(&engine, load, "sum by (__name__) (rate({x=\"1\"}[5m]))", instant, same);
    check_with(
        &engine,
        load,
        "label_replace(sum by (__name__) (rate({x=\"1\"}[5m])), \"name\", \"$1\", \"__name__\", \"(.+)\")",
        instant,
        r#"
        {name="a_total"} 1
        {name="b_total"} 2"#,
    );
    check_with(&engine, load, "rate(a_total[5m])", instant, r#"{x="1"} 1"#);
    check_with(&engine, load, "sum without (y) (rate(a_total[5m]))", instant, r#"{x="1"} 1"#);
    check_with(
        &engine,
        load,
        "abs({x=\"1\"})",
        instant,
        "error: vector cannot contain metrics with the same labelset",
    );
}

#[test]
fn cancelled_queries_end_with_an_error() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let query = engine(false);
    let result = query.query(storage("m 1"), "m", QueryParams::instant(0), cancel);
    assert_eq!(runtime.block_on(result).unwrap_err().to_string(), "query was canceled in query execution");
}

#[test]
fn queries_hold_no_more_samples_than_they_may() {
    let engine = Engine::new(EngineOptions { max_samples: 5, ..EngineOptions::default() });
    let params = QueryParams::range(0, 600_000, 60_000);
    let error = "error: query processing would load too many samples into memory in query execution";
    check_with(&engine, "m 0+1x20", "m", params, error);
}

#[test]
fn samples_are_counted_as_upstream_counts_them() {
    let (engine, runtime) = (engine(false), tokio::runtime::Runtime::new().unwrap());
    for (query, total, read) in [
        ("m", 5, 5),
        ("rate(m[2m])", 9, 5),
        ("sum(rate(m[2m]))", 9, 5),
        ("sum(m @ 120)", 5, 1),
        ("rate(m[2m] @ 120)", 10, 2),
        ("max_over_time(m[2m:1m])", 9, 5),
        ("1 + 1", 0, 0),
    ] {
        let params = QueryParams::range(0, 240_000, 60_000);
        let run = engine.query_counted(storage("m 0+1x9"), query, params, CancellationToken::new());
        let (_, stats) = runtime.block_on(run).unwrap();
        assert_eq!((stats.total_queryable, stats.read), (total, read), "{query}");
        assert_eq!(stats.peak > 0, total > 0, "{query}");
    }
}

#[test]
fn plans_can_be_explained() {
    let engine = engine(false);
    let params = QueryParams::range(0, 600_000, 60_000);
    let explain = |query| engine.explain(storage(""), query, params).unwrap().to_string();
    insta::assert_snapshot!(explain("sum by (job) (rate(requests_total[5m])) * 2"), @r"
    Map: v * 2
      Totals: sums
        Aggregate: groupBy=[[labels_key, tile]], aggr=[[prom_sum(floats) AS floats, prom_sum_histograms(histograms) AS histograms]]
          PromSelector: rate(requests_total[300000ms]) key=by (job) grid=[0..600000 step 60000ms, 11 steps in tiles of 4]

    MapExec: v * 2
      TotalsExec: sums
        AggregateExec: mode=FinalPartitioned, gby=[labels_key@0 as labels_key, tile@1 as tile], aggr=[prom_sum(floats) as floats, prom_sum_histograms(histograms) as histograms]
          RepartitionExec: partitioning=Hash([labels_key@0, tile@1], 3), input_partitions=3
            SelectorExec: rate(requests_total[300000ms]) key=by (job) grid=[0..600000 step 60000ms, 11 steps in tiles of 4] partitions=3 sum
    ");
}
#[test]
fn long_chains_do_not_overflow_the_stack() {
    let chain = vec!["1"; 20_000].join(" + ");
    check("", &chain, 0, "20000");
    let chain = vec!["m"; 200].join(" + ");
    check("m 1", &chain, 0, "{} 200");
    let chain = vec!["m"; 2_000].join(" + ");
    check("m 1", &chain, 0, "{} 2000");
}

const TOO_MANY_SAMPLES: &str =
    "error: query processing would load too many samples into memory in query execution";

#[test]
fn subqueries_with_more_steps_than_samples_allowed_are_refused() {
    for query in [
        "count_over_time(up[200y:1ms])",
        "count_over_time(vector(1)[100y:1s])",
        "vector(1)[100y:1s]",
        "absent_over_time(up[100y:1s])",
        "max_over_time(max_over_time(vector(1)[400d:1s])[400d:1s])",
        // Each of them would fit.
        "sum_over_time(vector(1)[400d:1s]) + sum_over_time(vector(1)[400d:1s])",
    ] {
        check("up 1", query, 0, TOO_MANY_SAMPLES);
    }
    check("up 1", "count_over_time(vector(1)[1h:1s])", 0, "{} 3600");
}

#[test]
fn ranges_with_more_steps_than_samples_allowed_are_refused() {
    let params = QueryParams::range(0, i64::MAX / 2, 1);
    check_with(&engine(false), "", "1", params, TOO_MANY_SAMPLES);
}

#[test]
fn repeated_values_count_as_samples() {
    let engine = Engine::new(EngineOptions { max_samples: 700, ..EngineOptions::default() });
    let load: String = (0..8).map(|i| format!("m{{i=\"{i}\"}} 1\n")).collect();
    let query = "count(m @ 0 * on() group_left() vector(time()))";
    let range = |minutes: i64| QueryParams::range(0, minutes * 60_000, 60_000);
    check_with(&engine, &load, query, range(1), "{} 8@0 8@60");
    check_with(&engine, &load, query, range(99), TOO_MANY_SAMPLES);
}

#[test]
fn queries_with_thousands_of_selectors_are_refused() {
    let chain = vec!["m"; 2_001].join(" + ");
    check("m 1", &chain, 0, "error: query has more than 2000 selectors");
}

#[test]
fn queries_that_never_wait_time_out() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let engine =
        Engine::new(EngineOptions { timeout: std::time::Duration::ZERO, ..EngineOptions::default() });
    let result = engine.query(storage("m 1"), "m", QueryParams::instant(0), CancellationToken::new());
    assert_eq!(runtime.block_on(result).unwrap_err().to_string(), "query timed out in query execution");
}

#[test]
fn groups_of_many_rows_are_matched() {
    let mut load = String::from("one{job=\"a\"} 2\n");
    let mut expected = String::new();
    for i in 10..40 {
        load.push_str(&format!("many{{job=\"a\", i=\"{i}\"}} {i}\n"));
        expected.push_str(&format!("{{i=\"{i}\", job=\"a\"}} {}\n", i * 2));
    }
    check(&load, "many * on(job) group_left one", 0, &expected);
    // Twelve keys come first, then each a second time.
    let twice: String = (10..22)
        .flat_map(|i| ["x", "y"].map(|z| format!("many{{job=\"a\", i=\"{i}\", z=\"{z}\"}} 1\n")))
        .collect();
    check(
        &format!("{twice}one{{job=\"a\", z=\"w\"}} 2"),
        "many * on(job) group_left(z) one",
        0,
        "error: multiple matches for labels: grouping labels must ensure unique matches",
    );
}

#[test]
fn classic_histograms_over_a_range() {
    let load = r#"h_bucket{le="1"} 1 1 1 stale 4 4 4
                  h_bucket{le="2"} 3 3 3 stale 4 4 4
                  h_bucket{le="+Inf"} 4 4 4 stale 4 4 4"#;
    check_range(
        load,
        "histogram_quantile(0.5, h_bucket)",
        6,
        "{} 1.5@0 1.5@60 1.5@120 0.5@240 0.5@300 0.5@360",
    );
    check_range(
        load,
        "histogram_fraction(0, 2, h_bucket)",
        6,
        "{} 0.75@0 0.75@60 0.75@120 1@240 1@300 1@360",
    );
    check_range(
        load,
        "histogram_quantiles(h_bucket, 'q', 0.5, 1)",
        2,
        "{q=\"0.5\"} 1.5@0 1.5@60 1.5@120\n{q=\"1.0\"} 2@0 2@60 2@120",
    );
}

/// A source that knows how many series match and will not count samples.
#[derive(Debug)]
struct PostingsOnly(u64);

impl Queryable for PostingsOnly {
    fn select(
        &self,
        _: &[promontory_tsdb::Matcher],
        _: i64,
        _: i64,
        _: &promontory_tsdb::SelectHints,
    ) -> promontory_tsdb::Result<promontory_tsdb::Selection> {
        panic!("a plan does not read")
    }

    fn label_names(
        &self,
        _: &[promontory_tsdb::Matcher],
        _: i64,
        _: i64,
    ) -> promontory_tsdb::Result<Vec<String>> {
        panic!("a plan does not read")
    }

    fn label_values(
        &self,
        _: &str,
        _: &[promontory_tsdb::Matcher],
        _: i64,
        _: i64,
    ) -> promontory_tsdb::Result<Vec<String>> {
        panic!("a plan does not read")
    }

    fn series_stats(
        &self,
        _: &[promontory_tsdb::Matcher],
        _: i64,
        _: i64,
    ) -> promontory_tsdb::Result<promontory_tsdb::SeriesStats> {
        panic!("too costly")
    }

    fn series_estimate(
        &self,
        _: &[promontory_tsdb::Matcher],
        _: i64,
        _: i64,
    ) -> promontory_tsdb::Result<u64> {
        Ok(self.0)
    }

    fn time_bounds(&self) -> Option<(i64, i64)> {
        None
    }
}

#[test]
fn size_is_guessed_from_postings() {
    let engine = Engine::new(EngineOptions { partitions: 3, ..EngineOptions::default() });
    let partitions = |series, params| {
        let text = engine
            .explain(Arc::new(PostingsOnly(series)), "sum(rate(m_total[5m]))", params)
            .unwrap()
            .physical;
        if text.contains("partitions=3") { 3 } else { 1 }
    };
    let hour = QueryParams::range(0, 3_600_000, 60_000);
    assert_eq!(partitions(10, hour), 1);
    assert_eq!(partitions(10_000, hour), 3);
    assert_eq!(partitions(10, QueryParams::instant(0)), 1);
}

#[test]
fn the_step_of_subqueries_can_be_changed_and_kept_results_know() {
    let options = EngineOptions { cache_bytes: 1 << 20, ..EngineOptions::default() };
    let engine = Engine::new(options);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    // Tells what changes, unlike the memory storage.
    let source = promontory_tsdb::Db::open(promontory_tsdb::DbOptions::new(dir.path())).unwrap();
    let counted = |expected: &str| {
        let query = "count_over_time(absent(m)[10m:])";
        let params = QueryParams::range(0, 600_000, 60_000);
        let result = engine.query(Arc::clone(&source) as _, query, params, CancellationToken::new());
        let text = print(&runtime.block_on(result).unwrap().value);
        assert!(text.starts_with(expected), "{text}");
    };
    counted("{} 10@0 10@60");
    engine.set_default_subquery_step_ms(20_000);
    counted("{} 30@0 30@60");
    counted("{} 30@0 30@60");
    engine.set_default_subquery_step_ms(60_000);
    counted("{} 10@0 10@60");
    assert_eq!(engine.cache().unwrap().stats().hits, 2);
}

#[test]
fn a_subquery_without_a_step_in_its_window_is_a_matrix() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let engine = engine(false);
    let params = QueryParams::instant(101_500);
    let result = engine.query(storage("m 1"), "m[1s:]", params, CancellationToken::new());
    assert_eq!(runtime.block_on(result).unwrap().value, QueryValue::Matrix(Vec::new()));
}

#[test]
fn planning_ends_with_the_query() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let chain = vec!["1"; 1_000].join(" + ");
    let late = Engine::new(EngineOptions { timeout: std::time::Duration::ZERO, ..EngineOptions::default() });
    let params = QueryParams::instant(0);
    let result = late.query(storage(""), &chain, params, CancellationToken::new());
    assert_eq!(runtime.block_on(result).unwrap_err().to_string(), "query timed out in query execution");
    assert!(late.explain(storage(""), &chain, params).is_err());
    let chain = vec!["time()"; 3_000].join(" + ");
    let error = engine(false).explain(storage(""), &chain, params).unwrap_err().to_string();
    assert_eq!(error, "a plan that nests more than 2000 operators is not shown");
}

#[test]
fn expressions_of_very_many_parts_are_refused() {
    // Flat, so that it is not the depth.
    let call = format!("label_join(m, \"l\", \"\"{})", ", \"a\"".repeat(200_000));
    check("m 1", &call, 0, "error: query has more than 200000 parts");
}

#[test]
fn rows_of_quantiles_and_buffers_of_long_grids_count() {
    let options = EngineOptions { partitions: 1, parallel_samples: u64::MAX, ..EngineOptions::default() };
    let limited = |max_samples| Engine::new(EngineOptions { max_samples, ..options.clone() });
    let load: String = (0..10).map(|i| format!("m{{i=\"{i}\"}} 0+1x10\n")).collect();
    let params = QueryParams::range(0, 600_000, 60_000);
    // 110 samples in the leaf, and 110 that are kept.
    check_with(&limited(150), &load, "quantile(0.5, m)", params, TOO_MANY_SAMPLES);
    check_with(&limited(300), &load, "count(quantile(0.5, m)) > 1", params, "");
    // Rows of 40,001 steps, all of them empty.
    let params = QueryParams::range(0, 40_000, 1);
    check_with(&limited(50_000), "m 1", "none + nobody", params, "");
    check_with(&limited(50_000), "m 1", "none + nobody + nothing", params, TOO_MANY_SAMPLES);
}

#[test]
fn a_long_window_function_ends_with_the_query() {
    let context = QueryContext::with_limits(
        Limits { deadline: Some(Instant::now()), ..Limits::default() },
        CancellationToken::new(),
    );
    let n = 100_000;
    let timestamps: Vec<i64> = (0..n).collect();
    let values = vec![1.0; n as usize];
    let windows = crate::kernels::Windows {
        grid: crate::params::Grid::new(0, n, 1, 128),
        view: crate::logical::spec::TimeView::default(),
        width_ms: n,
    };
    let mut scratch = crate::kernels::range::Scratch::watching(context);
    let outcome = crate::kernels::range::evaluate(
        crate::logical::spec::RangeFunction::SumOverTime,
        &windows,
        crate::kernels::Samples::new(&timestamps, &values),
        &[],
        &mut scratch,
        &mut crate::kernels::StepRow::default(),
    );
    assert!(matches!(outcome, Err(QueryError::Timeout(_))), "{outcome:?}");
}

#[test]
fn a_subexpression_with_two_places_is_read_once() {
    let engine = engine(false);
    let load = r#"s{job="a"} 1 2 3 4
                  s{job="b"} 5 6 7 8"#;
    let (query, params) =
        ("sum by (job) (s) / on() group_left sum(sum by (job) (s))", QueryParams::instant(0));
    check(load, query, 1, "{job=\"a\"} 0.25\n{job=\"b\"} 0.75");
    let explained = engine.explain(storage(load), query, params).unwrap();
    let count = |plan: &str, what: &str| plan.matches(what).count();
    assert_eq!(count(&explained.logical, "Shared: #1 of 2 places"), 2, "{explained}");
    assert_eq!(count(&explained.logical, "PromSelector"), 1, "{explained}");
    assert_eq!(count(&explained.physical, "SharedExec: #1 of 2 places"), 2, "{explained}");
    assert_eq!(count(&explained.physical, "SelectorExec"), 1, "{explained}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run = engine.analyze(storage(load), query, params, CancellationToken::new());
    let ran = runtime.block_on(run).unwrap().0.physical;
    let leaf = ran.lines().find(|line| line.contains("SelectorExec")).unwrap();
    assert!(leaf.contains("output_rows=2"), "{leaf}");
}

#[test]
fn shared_subexpressions_hold_no_more_than_they_may_and_give_it_back() {
    let load: String = (0..100).map(|i| format!("m{{i=\"{i}\"}} 1+1x9\n")).collect();
    let query = "sum(abs(m)) + sum(-abs(m)) + on() count(abs(m))";
    let params = QueryParams::range(0, 540_000, 60_000);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run = |max_samples, partitions| {
        let options =
            EngineOptions { max_samples, partitions, parallel_samples: 0, ..EngineOptions::default() };
        let engine = Engine::new(options);
        let context = engine.context(&CancellationToken::new());
        let parsed = engine.parse(query, params).unwrap();
        let source = storage(&load);
        let plan = Planner::plan_query(&context, &source, engine.options(), query, &parsed, params).unwrap();
        let running = (Arc::clone(&context), CancellationToken::new());
        let mut ran = None;
        let result = runtime.block_on(engine.run_plan(&source, plan, params, running, &mut ran));
        let held = context.samples_held();
        (result.map(|r| print(&r.value)).map_err(|e| (e.kind(), e.to_string())), held, ran)
    };
    for partitions in [1, 3] {
        let (result, held, _ran) = run(10_000, partitions);
        assert_eq!(result.unwrap().lines().count(), 1);
        assert_eq!(held, 0, "what was kept is given back although the plan is still there");
        let (result, ..) = run(900, partitions);
        let text = "query processing would load too many samples into memory in query execution".to_owned();
        assert_eq!(result.unwrap_err(), (promontory_tsdb::ErrorKind::Limit, text));
    }
}

#[test]
fn shared_scalars_and_nested_shares_do_not_wait_for_each_other() {
    let load = "m{i=\"1\"} 1 2 3 4 5 6 7 8 9 10\nm{i=\"2\"} 1 2 3 4 5 6 7 8 9 10";
    let a = "scalar(sum(abs(m)))";
    let b = format!("clamp(abs(m), {a} - 30, {a})");
    let c = format!("({b} + {b} * {a} + {b} % scalar({b} > 100 or on() vector(3)))");
    let d = format!("sum({c}) + on() group_right() ({c}) * {a} + {c}");
    let shared = engine(false);
    let apart = Engine::new(EngineOptions { share_common: false, ..shared.options().clone() });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for params in [QueryParams::instant(540_000), QueryParams::range(0, 540_000, 60_000)] {
        let with = runtime.block_on(run(&shared, load, &d, params));
        assert_eq!(with, runtime.block_on(run(&apart, load, &d, params)));
        assert!(!with.starts_with("error"), "{with}");
    }
}

#[test]
fn failures_of_shared_subexpressions_say_what_they_say_alone() {
    let load = "m{i=\"1\", j=\"1\"} 1\nm{i=\"1\", j=\"2\"} 1";
    let alone = "abs(m) + on(i) abs(m)";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = |query: &str| runtime.block_on(run(&engine(false), load, query, QueryParams::instant(0)));
    assert!(error(alone).starts_with("error: found duplicate series"), "{}", error(alone));
    assert_eq!(error(&format!("({alone}) or ({alone})")), error(alone));
    assert_eq!(error(&format!("sum({alone}) + sum({alone}) + count({alone})")), error(alone));
}

#[test]
fn long_chains_of_what_is_shared_do_not_overflow_the_stack() {
    let chain = vec!["abs(m)"; 1_000].join(" + ");
    check("m 1", &chain, 0, "{} 1000");
    // Each level has two places.
    let mut nested = "m".to_owned();
    let mut levels = vec![nested.clone()];
    for _ in 0..60 {
        nested = format!("abs({nested})");
        levels.push(nested.clone());
    }
    check("m 1", &levels.join(" + "), 0, "{} 61");
}

/// Runs `query` within `max_bytes`; gives the result, what was held at most, and what is held in the end.
fn run_within(
    max_bytes: usize,
    partitions: usize,
    source: &Arc<dyn Queryable>,
    query: &str,
    params: QueryParams,
) -> (Result<QueryResult, QueryError>, usize, usize) {
    let options = EngineOptions {
        max_bytes,
        partitions,
        parallel_samples: 0,
        parser: ParserOptions::all(),
        ..EngineOptions::default()
    };
    let engine = Engine::new(options);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let context = engine.context(&CancellationToken::new());
    let parsed = engine.parse(query, params).unwrap();
    let plan = Planner::plan_query(&context, source, engine.options(), query, &parsed, params).unwrap();
    let running = (Arc::clone(&context), CancellationToken::new());
    let result = runtime.block_on(engine.run_plan(source, plan, params, running, &mut None));
    // Tasks of other partitions may still be ending.
    drop(runtime);
    (result, context.peak_bytes(), context.bytes_held())
}

#[test]
fn queries_hold_no_more_memory_than_they_may_and_give_it_back() {
    let long = "x".repeat(1_000);
    let load: String = (0..500).map(|i| format!("m{{i=\"{i}\", j=\"{long}\"}} {i}x9 _x3 1\n")).collect();
    let source = storage(&load);
    let (instant, range) = (QueryParams::instant(300_000), QueryParams::range(0, 540_000, 60_000));
    for query in [
        "m",
        "m[5m]",
        "sort(m)",
        "topk(1000, m)",
        "m and m",
        "m or -m",
        "m + m",
        "m * on (i) group_left (j) abs(m)",
        "sum without () (m)",
        "avg by (i, j) (rate(m[5m]))",
        "sum by (j, i) (abs(m))",
        "quantile by (i, j) (0.5, m)",
        "count_values without () (\"v\", m)",
        "label_replace(m, \"k\", \"$1\", \"j\", \"(.*)\")",
        "max_over_time(m[5m:1m])",
        "info(m)",
        "{i!=\"\"} + on (i, j) {i!=\"\"} + on (i, j) abs(m) ",
    ] {
        for params in [instant, range] {
            if params.step > 0 && query.ends_with("[5m]") {
                continue;
            }
            for partitions in [1, 3] {
                let (result, peak, held) = run_within(0, partitions, &source, query, params);
                result.unwrap_or_else(|e| panic!("{query}: {e}"));
                assert_eq!(held, 0, "{query}");
                assert!(peak > 500_000, "{query} held {peak} bytes");
                let (result, _, held) = run_within(2 * peak, partitions, &source, query, params);
                result.unwrap_or_else(|e| panic!("{query} within {}: {e}", 2 * peak));
                assert_eq!(held, 0, "{query}");
                let (result, _, held) = run_within(100_000, partitions, &source, query, params);
                let e = result.expect_err(query);
                assert_eq!(e.kind(), promontory_tsdb::ErrorKind::Limit, "{query}: {e}");
                let text =
                    "query processing would use too much memory in query execution: more than 100000 bytes";
                assert_eq!(e.to_string(), text, "{query}");
                assert_eq!(held, 0, "{query}");
            }
        }
    }
}

#[test]
fn physical_planning_ends_with_the_query() {
    let engine = engine(false);
    let query = vec!["abs(m)"; 300].join(" + ");
    let source = storage("m 1");
    let params = QueryParams::instant(0);
    let parsed = engine.parse(&query, params).unwrap();
    let planned = engine.context(&CancellationToken::new());
    let plan = Planner::plan_query(&planned, &source, engine.options(), &query, &parsed, params).unwrap();
    let logical = plan.root.logical().unwrap();
    let past = Limits { deadline: Some(Instant::now()), ..Limits::default() };
    let context = QueryContext::with_limits(past, CancellationToken::new());
    let physical = engine.planners.physical(logical, Size::Small, plan.depth, &context);
    assert_eq!(physical.unwrap_err().to_string(), "query timed out in query execution");
}
