//! Functions in SQL, in process over storage in memory: that they say what PromQL says.

use std::sync::Arc;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::SessionContext;
use promontory::sql_functions;
use promontory_promql::{Engine, EngineOptions};
use promontory_sql::SqlCatalog;
use promontory_tsdb::histogram::{FloatHistogram, Span};
use promontory_tsdb::memory::MemoryStorage;
use promontory_tsdb::{Clock, Labels, ManualClock, Queryable, stale_nan};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const NOW_MS: i64 = 1_767_268_800_000;

fn session(storage: MemoryStorage) -> SessionContext {
    let source: Arc<dyn Queryable> = Arc::new(storage);
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(NOW_MS));
    let engine = Arc::new(Engine::new(EngineOptions::default()));
    let functions = sql_functions::all(&engine, &source, &clock);
    SqlCatalog::with_functions(source, clock, functions).session()
}

/// Rows of a query, columns joined by `|`, NULL as `-`.
async fn rows(session: &SessionContext, query: &str) -> Vec<String> {
    let batches = match session.sql(query).await {
        Ok(frame) => frame.collect().await.unwrap_or_else(|e| panic!("{query}: {e}")),
        Err(e) => panic!("{query}: {e}"),
    };
    let options = FormatOptions::default().with_null("-");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|"));
        }
    }
    rows
}

async fn error(session: &SessionContext, query: &str) -> String {
    match session.sql(query).await {
        Ok(frame) => match frame.collect().await {
            Ok(_) => panic!("no error: {query}"),
            Err(e) => e.to_string(),
        },
        Err(e) => e.to_string(),
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied())
}

/// Two requests counters a sample a minute, and a native histogram.
fn requests() -> MemoryStorage {
    let storage = MemoryStorage::new();
    for minute in -30..=0i64 {
        let t = NOW_MS + minute * 60_000;
        for (code, each) in [("200", 60.0), ("500", 6.0)] {
            let series = labels(&[("__name__", "requests"), ("code", code), ("job", "api")]);
            storage.append(&series, t, (minute + 30) as f64 * each).unwrap();
        }
        let count = (minute + 30) as f64;
        let histogram = FloatHistogram {
            schema: 0,
            count: 3.0 * count,
            sum: 4.5 * count,
            zero_threshold: 0.001,
            positive_spans: vec![Span { offset: 1, length: 2 }],
            positive_buckets: vec![count, 2.0 * count],
            ..FloatHistogram::default()
        };
        let series = labels(&[("__name__", "latency"), ("histogram", "h"), ("metric", "m")]);
        storage.append_histogram(&series, t, 0, &histogram).unwrap();
    }
    storage
}

#[tokio::test]
async fn a_promql_range_is_a_table_with_a_column_per_label() {
    let session = session(requests());
    let rows = rows(
        &session,
        "SELECT * FROM promql('sum by (code) (rate(requests[5m]))', \
         now() - interval '2 minutes', now(), interval '1 minute') ORDER BY code DESC, timestamp",
    )
    .await;
    assert_eq!(
        rows,
        [
            "2026-01-01T11:58:00Z|0.1|-|500|{\"code\":\"500\"}",
            "2026-01-01T11:59:00Z|0.1|-|500|{\"code\":\"500\"}",
            "2026-01-01T12:00:00Z|0.1|-|500|{\"code\":\"500\"}",
            "2026-01-01T11:58:00Z|1.0|-|200|{\"code\":\"200\"}",
            "2026-01-01T11:59:00Z|1.0|-|200|{\"code\":\"200\"}",
            "2026-01-01T12:00:00Z|1.0|-|200|{\"code\":\"200\"}",
        ]
    );
}

#[tokio::test]
async fn times_and_steps_are_said_as_sql_users_say_them() {
    let session = session(requests());
    for arguments in [
        "now() - interval '10 minutes', now(), interval '5 minutes'",
        "now() - interval '10 minutes', now(), '5m'",
        "now() - interval '10 minutes', now(), 300",
        "'2026-01-01T11:50:00Z', '2026-01-01 12:00:00', '5 minutes'",
        "timestamp '2026-01-01 11:50:00', to_timestamp(1767268800), 300.0",
        "1767268200, 1767268800, 300",
        "date_trunc('hour', now()) - interval '10 minutes', date_trunc('hour', now()), '5m'",
    ] {
        let query = format!("SELECT count(*), min(timestamp) FROM promql('requests', {arguments})");
        assert_eq!(rows(&session, &query).await, ["6|2026-01-01T11:50:00Z"], "{arguments}");
    }
    for at in ["now()", "'2026-01-01T12:00:00Z'", "1767268800"] {
        let query = format!("SELECT value FROM promql_instant('sum(requests)', {at})");
        assert_eq!(rows(&session, &query).await, ["1980.0"], "{at}");
    }
    assert_eq!(rows(&session, "SELECT value FROM promql_instant('1 + 1')").await, ["2.0"]);
}

#[tokio::test]
async fn names_and_histograms_and_labels_that_collide_have_columns_of_their_own() {
    let session = session(requests());
    assert_eq!(
        rows(&session, "SELECT * FROM promql_instant('latency', now())").await,
        [concat!(
            "2026-01-01T12:00:00Z|-|{count: 90.0, sum: 135.0, buckets: [{lower: 1.0, upper: 2.0, count: 30.0}, ",
            "{lower: 2.0, upper: 4.0, count: 60.0}], schema: 0, zero_threshold: 0.001, zero_count: 0.0, ",
            "bounds: -, reset_hint: not_reset}|latency|h|m|{\"histogram\":\"h\",\"metric\":\"m\"}"
        )]
    );
    assert_eq!(
        rows(
            &session,
            "SELECT label_histogram, label_metric, histogram['count'] FROM promql_instant('latency', now())"
        )
        .await,
        ["h|m|90.0"]
    );
    assert_eq!(
        rows(
            &session,
            "SELECT round(value, 9) FROM promql_instant('histogram_quantile(0.5, latency)', now())"
        )
        .await,
        ["2.37841423"]
    );
}

#[tokio::test]
async fn a_promql_result_joins_and_orders_as_any_table_and_keeps_its_order_without() {
    let session = session(requests());
    assert_eq!(
        rows(
            &session,
            "SELECT p.code, p.value, r.value FROM promql_instant('requests', now()) AS p \
             JOIN requests AS r ON p.code = r.code AND p.timestamp = r.timestamp ORDER BY 1"
        )
        .await,
        ["200|1800.0|1800.0", "500|180.0|180.0"]
    );
    let sorted = "SELECT code FROM promql_instant('sort_desc(requests)', now())";
    assert_eq!(rows(&session, sorted).await, ["200", "500"]);
    let limited = "SELECT code FROM promql('requests', now() - interval '1 hour', now(), '1m') LIMIT 3";
    assert_eq!(rows(&session, limited).await.len(), 3);
}

#[tokio::test]
async fn explain_shows_the_promql_plan_within() {
    let session = session(requests());
    let query =
        "SELECT code FROM promql('sum by (code) (rate(requests[5m]))', now() - interval '1h', now(), '1m')";
    let plan = rows(&session, &format!("EXPLAIN {query}")).await.concat();
    for part in [
        "PromqlExec: expr=\"sum by (code) (rate(requests[5m]))\"",
        "time=[2026-01-01T11:00:00.000Z, 2026-01-01T12:00:00.000Z], step=60000ms",
        "columns=[code]",
        "AggregateExec",
        "SelectorExec",
    ] {
        assert!(plan.contains(part), "{part:?} is not in\n{plan}");
    }
    let figures = rows(&session, &format!("EXPLAIN ANALYZE {query}")).await.concat();
    assert!(figures.contains("output_rows=62") || figures.contains("output_rows=60"), "{figures}");
    assert!(figures.matches("metrics=[").count() > 2, "{figures}");
}

#[tokio::test]
async fn what_is_wrong_with_a_promql_call_is_said() {
    let session = session(requests());
    for (query, expected) in [
        ("SELECT * FROM promql('rate(', now(), now(), '1m')", "PromQL: 1:6: parse error"),
        ("SELECT * FROM promql('up', now(), now(), 0)", "at least a millisecond"),
        ("SELECT * FROM promql('up', now(), now())", "takes an expression, start, end and step"),
        ("SELECT * FROM promql('up', 'noon', now(), 1)", "is not a time"),
        ("SELECT * FROM promql('up', now(), now(), 'soon')", "is not a length of time"),
        ("SELECT * FROM promql(1, now(), now(), 1)", "as text"),
        ("SELECT * FROM promql('up', now(), now() - interval '1h', 1)", "before start"),
        ("SELECT * FROM promql('up[5m]', now(), now(), 1)", "must be Scalar or instant Vector"),
        ("SELECT * FROM promql_instant('\"text\"', now())", "a PromQL string has no rows"),
        ("SELECT * FROM promql_instant('requests + on () requests', now())", "found duplicate series"),
        ("SELECT rate(value) FROM requests", "rate(timestamp, value, start, end)"),
        ("SELECT irate(timestamp, value, 1) FROM requests", "irate(timestamp, value)"),
        ("SELECT deriv(code, value) FROM requests", "deriv(timestamp, value)"),
        (
            "SELECT predict_linear(timestamp, value, interval '1 month') FROM requests",
            "months differ in length",
        ),
    ] {
        let said = error(&session, query).await;
        assert!(said.contains(expected), "{query}: {said}");
    }
}

#[tokio::test]
async fn series_functions_take_groups_frames_and_whole_tables() {
    let session = session(requests());
    for (query, expected) in [
        (
            "SELECT code, increase(timestamp, value), rate(timestamp, value) FROM requests GROUP BY 1 ORDER BY 1",
            &["200|1800.0|1.0", "500|180.0|0.1"][..],
        ),
        ("SELECT increase(timestamp, value) FROM requests WHERE code = '200'", &["1800.0"]),
        ("SELECT increase(timestamp, value) FROM requests WHERE code = '404'", &["-"]),
        (
            "SELECT date_bin(interval '10 minutes', timestamp) AS b, \
             round(sum(rate) * 10) FROM (SELECT timestamp, code, rate(timestamp, value) OVER \
             (PARTITION BY code ORDER BY timestamp RANGE BETWEEN interval '5 minutes' PRECEDING AND CURRENT ROW) \
             AS rate FROM requests) AS r GROUP BY 1 ORDER BY 1",
            &[
                "2026-01-01T11:30:00Z|99.0",
                "2026-01-01T11:40:00Z|110.0",
                "2026-01-01T11:50:00Z|110.0",
                "2026-01-01T12:00:00Z|11.0",
            ],
        ),
        (
            "SELECT code, first(timestamp, value), last(timestamp, value), last(timestamp, code) \
             FROM requests GROUP BY 1 ORDER BY 1",
            &["200|0.0|1800.0|200", "500|0.0|180.0|500"],
        ),
        ("SELECT first(timestamp, value) FROM requests WHERE code = '404'", &["-"]),
        (
            "SELECT predict_linear(timestamp, value, 60), predict_linear(timestamp, value, interval '1 minute', now()) \
             FROM requests WHERE code = '200'",
            &["1860.0|1860.0"],
        ),
        (
            "SELECT last(timestamp, value) FILTER (WHERE value < 100) FROM requests WHERE code = '200'",
            &["60.0"],
        ),
    ] {
        assert_eq!(rows(&session, query).await, expected, "{query}");
    }
}

/// A series of a random walk: steps of time and value, some of which are stale markers or odd values.
fn series() -> impl Strategy<Value = Vec<(i64, f64)>> {
    let value = prop_oneof![
        8 => (0..50i32).prop_map(|v| Some(f64::from(v) / 4.0)),
        2 => (-100..100i32).prop_map(|v| Some(f64::from(v))),
        1 => Just(Some(f64::NAN)),
        1 => Just(Some(f64::INFINITY)),
        1 => Just(None),
    ];
    let step = prop_oneof![6 => Just(15_000i64), 2 => 1..40_000i64, 1 => Just(180_000)];
    prop::collection::vec((step, value), 0..40).prop_map(|steps| {
        let (mut t, mut counter) = (NOW_MS - 600_000, 0.0);
        let sample = |(step, value): (i64, Option<f64>)| {
            t += step;
            let Some(v) = value else { return (t, stale_nan()) };
            // Most go up like a counter, negative ones are where it starts over.
            counter = if v < 0.0 || !v.is_finite() || !f64::is_finite(counter) { v } else { counter + v };
            (t, counter)
        };
        steps.into_iter().map(sample).collect()
    })
}

#[test]
fn aggregates_give_what_promql_gives_to_the_bit() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
    let inputs = (prop::collection::vec(series(), 1..4), -20_000..400_000i64, 1_000..600_000i64);
    let compared = TestRunner::new(config).run(&inputs, |(series, end, width)| {
        let storage = MemoryStorage::new();
        for (i, samples) in series.iter().enumerate() {
            for (t, v) in samples {
                let labels = labels(&[("__name__", "m"), ("s", &i.to_string())]);
                storage.append(&labels, *t, *v).unwrap();
            }
        }
        if series.iter().all(Vec::is_empty) {
            return Ok(());
        }
        let session = session(storage);
        let (end, start) = (NOW_MS - 600_000 + end, NOW_MS - 600_000 + end - width);
        let at = |ms: i64| format!("to_timestamp_millis({ms})");
        for (sql, promql) in [
            ("rate(timestamp, value, START, END)", "rate(W)"),
            ("increase(timestamp, value, START, END)", "increase(W)"),
            ("delta(timestamp, value, START, END)", "delta(W)"),
            ("irate(timestamp, value)", "irate(W)"),
            ("idelta(timestamp, value)", "idelta(W)"),
            ("changes(timestamp, value)", "changes(W)"),
            ("resets(timestamp, value)", "resets(W)"),
            ("deriv(timestamp, value)", "deriv(W)"),
            ("predict_linear(timestamp, value, 90.5, END)", "predict_linear(W, 90.5)"),
            ("first(timestamp, value)", "first_over_time(W)"),
            ("last(timestamp, value)", "last_over_time(W)"),
        ] {
            let sql = sql.replace("START", &at(start)).replace("END", &at(end));
            let promql = promql.replace('W', &format!("m[{width}ms]"));
            // Total order tells zeros by their sign and takes NaN for equal to NaN.
            let query = format!(
                "SELECT a.s, a.v, p.value FROM \
                 (SELECT s, {sql} AS v FROM m WHERE timestamp > {} AND timestamp <= {} GROUP BY s) AS a \
                 FULL JOIN promql_instant('{promql}', {}) AS p ON a.s = p.s \
                 WHERE a.v IS DISTINCT FROM p.value",
                at(start),
                at(end),
                at(end),
            );
            let different = runtime.block_on(rows(&session, &query));
            prop_assert!(different.is_empty(), "{sql} and {promql}: {different:?}");
        }
        Ok(())
    });
    compared.unwrap();
}

/// Where both have a value and these differ by more than rounding, or only one has.
fn different(sql: &str, promql: &str, at_ms: i64, keys: &str) -> String {
    format!(
        "SELECT {keys}, a.v, p.value FROM ({sql}) AS a \
         FULL JOIN promql_instant('{promql}', to_timestamp_millis({at_ms})) AS p USING ({keys}) \
         WHERE (a.v IS DISTINCT FROM p.value) \
         AND NOT coalesce(abs(a.v - p.value) <= 1e-9 * (abs(a.v) + abs(p.value)), false)"
    )
}

/// What people write in SQL for what they write in PromQL: of groups of series, over the samples of a window.
#[test]
fn questions_about_groups_get_one_answer_in_both_languages() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    let finite = prop_oneof![8 => (0..50i32).prop_map(f64::from), 1 => (-40..0i32).prop_map(f64::from)];
    let series = prop::collection::vec((1_000..40_000i64, finite), 1..40);
    let inputs = (prop::collection::vec(series, 1..7), 0..400_000i64, 1_000..600_000i64);
    let compared = TestRunner::new(config).run(&inputs, |(all, end, width)| {
        let (storage, les) = (MemoryStorage::new(), ["0.1", "0.5", "1", "+Inf"]);
        for (i, samples) in all.iter().enumerate() {
            let (job, s) = (if i % 2 == 0 { "even" } else { "odd" }, i.to_string());
            let (mut t, mut gauge, mut counts) = (NOW_MS - 600_000, 0.0, [0.0; 4]);
            for (step, change) in samples {
                t += step;
                gauge += change;
                let pairs = [("__name__", "m"), ("job", job), ("s", s.as_str())];
                storage.append(&labels(&pairs), t, gauge).unwrap();
                for (bucket, le) in les.iter().enumerate() {
                    counts[bucket] += change.abs() * (bucket + 1) as f64;
                    let pairs = [("__name__", "b"), ("job", job), ("le", le), ("s", s.as_str())];
                    storage.append(&labels(&pairs), t, counts[bucket]).unwrap();
                }
            }
        }
        let session = session(storage);
        let (end, start) = (NOW_MS - 600_000 + end, NOW_MS - 600_000 + end - width);
        let window = format!(
            "timestamp > to_timestamp_millis({start}) AND timestamp <= to_timestamp_millis({end})"
        );
        let bounds = format!("to_timestamp_millis({start}), to_timestamp_millis({end})");
        let of_each = |call: &str| format!("SELECT s, {call} AS v FROM m WHERE {window} GROUP BY s");
        let mut questions = vec![
            (
                format!(
                    "SELECT job, sum(r) AS v FROM (SELECT job, s, rate(timestamp, value, {bounds}) AS r FROM m \
                     WHERE {window} GROUP BY job, s) AS t WHERE r IS NOT NULL GROUP BY job"
                ),
                "sum by (job) (rate(m[W]))",
                "job",
            ),
            (
                format!(
                    "SELECT job, max(i) AS v FROM (SELECT job, s, increase(timestamp, value, {bounds}) AS i FROM m \
                     WHERE {window} GROUP BY job, s) AS t WHERE i IS NOT NULL GROUP BY job"
                ),
                "max by (job) (increase(m[W]))",
                "job",
            ),
            (
                format!(
                    "SELECT job, percentile_cont(0.9) WITHIN GROUP (ORDER BY l) AS v FROM \
                     (SELECT job, s, last(timestamp, value) AS l FROM m WHERE {window} GROUP BY job, s) AS t GROUP BY job"
                ),
                "quantile by (job) (0.9, last_over_time(m[W]))",
                "job",
            ),
            (
                format!(
                    "SELECT job, count(*)::double AS v FROM (SELECT DISTINCT ON (s) s, job, value FROM m WHERE {window} \
                     ORDER BY s, timestamp DESC) AS t WHERE value > 10 GROUP BY job"
                ),
                "count by (job) (last_over_time(m[W]) > 10)",
                "job",
            ),
            (
                format!(
                    "SELECT job, histogram_quantile(0.9, le, r) AS v FROM (SELECT job, le, sum(r) AS r FROM (SELECT job, le, s, \
                     rate(timestamp, value, {bounds}) AS r FROM b WHERE {window} GROUP BY job, le, s) AS t \
                     WHERE r IS NOT NULL GROUP BY job, le) AS t GROUP BY job"
                ),
                "histogram_quantile(0.9, sum by (job, le) (rate(b[W])))",
                "job",
            ),
        ];
        for (call, promql) in [
            ("avg(value)", "avg_over_time(m[W])"),
            ("sum(value)", "sum_over_time(m[W])"),
            ("min(value)", "min_over_time(m[W])"),
            ("max(value)", "max_over_time(m[W])"),
            ("count(*)::double", "count_over_time(m[W])"),
            ("stddev_pop(value)", "stddev_over_time(m[W])"),
            ("percentile_cont(0.25) WITHIN GROUP (ORDER BY value)", "quantile_over_time(0.25, m[W])"),
        ] {
            questions.push((of_each(call), promql, "s"));
        }
        for (sql, promql, keys) in questions {
            let promql = promql.replace('W', &format!("{width}ms"));
            let wrong = runtime.block_on(rows(&session, &different(&sql, &promql, end, keys)));
            prop_assert!(wrong.is_empty(), "{sql} and {promql}: {wrong:?}");
        }
        Ok(())
    });
    compared.unwrap();
}

#[tokio::test]
async fn buckets_of_time_group_and_gaps_are_filled() {
    let storage = MemoryStorage::new();
    for (minute, v) in [(0, 1.0), (1, 3.0), (10, 10.0), (25, 25.0)] {
        for room in ["a", "b"] {
            if room == "b" && minute == 10 {
                continue;
            }
            let series = labels(&[("__name__", "t"), ("room", room)]);
            storage.append(&series, NOW_MS + minute * 60_000, v).unwrap();
        }
    }
    let session = session(storage);
    for (query, expected) in [
        (
            "SELECT time_bucket('10m', timestamp) AS b, sum(value) FROM t GROUP BY b ORDER BY b",
            &["2026-01-01T12:00:00Z|8.0", "2026-01-01T12:10:00Z|10.0", "2026-01-01T12:20:00Z|50.0"][..],
        ),
        (
            "SELECT DISTINCT time_bucket(interval '1 hour', timestamp, interval '20 minutes') FROM t ORDER BY 1",
            &["2026-01-01T11:20:00Z", "2026-01-01T12:20:00Z"],
        ),
        (
            "SELECT DISTINCT time_bucket('1 week', timestamp, timestamp '2026-01-01 12:05:00') FROM t ORDER BY 1",
            &["2025-12-25T12:05:00Z", "2026-01-01T12:05:00Z"],
        ),
        ("SELECT time_bucket('1 month', NULL)", &["-"]),
        // Each group gets all buckets from the first to the last of all.
        (
            "SELECT time_bucket_gapfill('10 minutes', timestamp) AS b, room, max(value), locf(max(value)), \
             interpolate(max(value)) FROM t GROUP BY b, room ORDER BY room, b",
            &[
                "2026-01-01T12:00:00Z|a|3.0|3.0|3.0",
                "2026-01-01T12:10:00Z|a|10.0|10.0|10.0",
                "2026-01-01T12:20:00Z|a|25.0|25.0|25.0",
                "2026-01-01T12:00:00Z|b|3.0|3.0|3.0",
                "2026-01-01T12:10:00Z|b|-|3.0|14.0",
                "2026-01-01T12:20:00Z|b|25.0|25.0|25.0",
            ],
        ),
        // WHERE says from when to when; expressions stand around what is filled.
        (
            "SELECT time_bucket_gapfill('10 minutes', timestamp) AS b, count(*), coalesce(max(value), -1), \
             locf(max(value)) + 1, round(interpolate(avg(value) * 2)) \
             FROM t WHERE room = 'a' AND timestamp >= '2026-01-01T11:55:00Z' AND timestamp < '2026-01-01T12:40:00Z' \
             GROUP BY b ORDER BY b",
            &[
                "2026-01-01T11:50:00Z|-|-1.0|-|-",
                "2026-01-01T12:00:00Z|2|3.0|4.0|4.0",
                "2026-01-01T12:10:00Z|1|10.0|11.0|20.0",
                "2026-01-01T12:20:00Z|1|25.0|26.0|50.0",
                "2026-01-01T12:30:00Z|-|-1.0|26.0|-",
            ],
        ),
        (
            "SELECT time_bucket_gapfill('1 month', timestamp, '2025-11-15T00:00:00Z', '2026-02-01T00:00:00Z') AS b, \
             locf(count(*)) FROM t GROUP BY 1 ORDER BY 1 DESC",
            &["2026-01-01T00:00:00Z|7", "2025-12-01T00:00:00Z|-", "2025-11-01T00:00:00Z|-"],
        ),
        (
            "WITH g AS (SELECT time_bucket_gapfill('5 minutes', timestamp) AS b, sum(value) AS s FROM t GROUP BY 1) \
             SELECT count(*), count(s) FROM g WHERE b > '2026-01-01T12:00:00Z'",
            &["5|2"],
        ),
        (
            "SELECT time_bucket_gapfill('5m', timestamp) AS b, sum(value) FROM t WHERE value > 99 GROUP BY b",
            &[],
        ),
    ] {
        assert_eq!(rows(&session, query).await, expected, "{query}");
    }
    for (query, expected) in [
        ("SELECT time_bucket('0 seconds', timestamp) FROM t", "must be positive"),
        ("SELECT time_bucket('1 month 1 day', timestamp) FROM t", "either months"),
        ("SELECT time_bucket(1, timestamp) FROM t", "time_bucket(width, timestamp"),
        ("SELECT time_bucket_gapfill('1m', timestamp) FROM t", "must be an expression of GROUP BY"),
        ("SELECT locf(value) FROM t", "must stand in the SELECT list"),
        (
            "SELECT time_bucket_gapfill('1m', timestamp, '1970-01-01T00:00:00Z', now()) AS b, sum(value) FROM t GROUP BY b",
            "more than 10000000 rows",
        ),
    ] {
        let said = error(&session, query).await;
        assert!(said.contains(expected), "{query}: {said}");
    }
}

#[tokio::test]
async fn histograms_are_measured_merged_and_rated_in_sql() {
    let session = session(requests());
    for (query, expected) in [
        (
            "SELECT histogram_count(histogram), histogram_sum(histogram), histogram_avg(histogram), \
             histogram_fraction(0, 2, histogram), histogram_quantile(1, histogram) \
             FROM promql_instant('latency', now())",
            &["90.0|135.0|1.5|0.3333333333333333|4.0"][..],
        ),
        (
            "SELECT histogram_count(NULL), histogram_quantile(NULL, histogram) FROM promql_instant('latency', now())",
            &["-|-"],
        ),
        (
            "SELECT histogram_count(increase(timestamp, histogram)), histogram_count(rate(timestamp, histogram)) * 60 \
             FROM promql_instant('latency[10m]', now())",
            &["27.0|3.0"],
        ),
        (
            "SELECT label_metric, histogram_count(delta(timestamp, histogram, now() - interval '10 minutes', now())), \
             changes(timestamp, histogram), resets(timestamp, histogram) \
             FROM promql_instant('latency[30m]', now()) GROUP BY 1",
            &["m|30.0|29.0|0.0"],
        ),
        (
            "SELECT histogram_count(histogram_merge(histogram)) FROM promql_instant('latency[3m]', now())",
            &["261.0"],
        ),
        (
            "SELECT code, histogram_quantile(0.5, le, v) FROM (VALUES ('a', '1', 1.0), ('a', '2', 3.0), ('a', '+Inf', 4.0), \
             ('b', '1', 0.0), ('b', '+Inf', 0.0), ('c', '1', 2.0)) AS t (code, le, v) GROUP BY code ORDER BY code",
            &["a|1.5", "b|NaN", "c|NaN"],
        ),
    ] {
        assert_eq!(rows(&session, query).await, expected, "{query}");
    }
    for (query, expected) in [
        ("SELECT histogram_quantile(0.5, 'x', 1.0)", "is not the upper bound of a bucket"),
        ("SELECT histogram_sum(1)", "histogram_sum(histogram)"),
        (
            "SELECT deriv(timestamp, histogram) FROM promql_instant('latency[3m]', now())",
            "deriv(timestamp, value)",
        ),
    ] {
        let said = error(&session, query).await;
        assert!(said.contains(expected), "{query}: {said}");
    }
}
