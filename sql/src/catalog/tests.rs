//! The catalog through DataFusion, without a wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::MemTable;
use promontory_tsdb::memory::MemoryStorage;
use promontory_tsdb::{
    Labels, ManualClock, Matcher, SelectHints, Selection, SeriesStats, TimestampMs, stale_nan,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// Rows of a query, columns joined by `|`, NULL as `-`.
async fn rows(session: &SessionContext, query: &str) -> Vec<String> {
    let batches = session.sql(query).await.expect(query).collect().await.expect(query);
    let options = FormatOptions::default().with_null("-");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options).expect("a printable column"))
            .collect();
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|"));
        }
    }
    rows
}

async fn sorted_rows(session: &SessionContext, query: &str) -> Vec<String> {
    let mut rows = rows(session, query).await;
    rows.sort();
    rows
}

type SeriesOf<'a> = (&'a [(&'a str, &'a str)], &'a [(i64, f64)]);

fn storage(series: &[SeriesOf<'_>]) -> Arc<MemoryStorage> {
    let storage = MemoryStorage::new();
    for (labels, samples) in series {
        let labels = Labels::from_pairs(labels.iter().copied());
        for &(t, v) in *samples {
            storage.append(&labels, t, v).expect("samples in order");
        }
    }
    Arc::new(storage)
}

fn session(source: Arc<dyn Queryable>) -> SessionContext {
    SqlCatalog::new(source, Arc::new(ManualClock::new(10_000))).session()
}

fn two_jobs() -> Arc<MemoryStorage> {
    storage(&[
        (&[("__name__", "up"), ("job", "a"), ("zone", "x")], &[(1_000, 1.0), (2_000, stale_nan())]),
        (&[("__name__", "up"), ("job", "b")], &[(1_000, 0.0), (9_000, 1.0)]),
        (&[("__name__", "Other:name"), ("value", "v"), ("label_value", "w")], &[(1_000, 5.0)]),
    ])
}

#[tokio::test]
async fn a_metric_is_a_table_with_a_column_per_label() {
    let session = session(two_jobs());
    assert_eq!(
        rows(&session, "SELECT * FROM up ORDER BY timestamp, job").await,
        ["1970-01-01T00:00:01Z|1.0|a|x", "1970-01-01T00:00:01Z|0.0|b|-", "1970-01-01T00:00:09Z|1.0|b|-"]
    );
    assert_eq!(
        rows(&session, "SELECT value, label_label_value, label_value FROM metrics.\"Other:name\"").await,
        ["5.0|w|v"]
    );
    assert!(session.sql("SELECT * FROM metrics.down").await.is_err());
}

#[tokio::test]
async fn counting_counts_samples_and_not_series_or_stale_markers() {
    let session = session(two_jobs());
    assert_eq!(rows(&session, "SELECT count(*) FROM up").await, ["3"]);
    assert_eq!(
        rows(&session, "SELECT job, count(*) FROM up GROUP BY job ORDER BY job").await,
        ["a|1", "b|2"]
    );
    assert_eq!(rows(&session, "SELECT count(*) FROM (SELECT value FROM up LIMIT 2)").await, ["2"]);
    assert_eq!(rows(&session, "SELECT count(*) FROM tsdb.series").await, ["3"]);
    assert_eq!(rows(&session, "SELECT count(*) FROM tsdb.samples").await, ["4"]);
}

#[tokio::test]
async fn now_is_the_clocks() {
    let session = session(two_jobs());
    let query = "SELECT job FROM up WHERE timestamp > now() - interval '5 seconds'";
    assert_eq!(rows(&session, query).await, ["b"]);
    let plan = rows(&session, &format!("EXPLAIN {query}")).await.concat();
    assert!(plan.contains("time=[1970-01-01T00:00:05.001Z, +inf]"), "{plan}");
    assert!(!plan.contains("FilterExec"), "{plan}");
}

#[tokio::test]
async fn common_functions_take_label_columns() {
    let session = session(two_jobs());
    for (query, expected) in [
        ("SELECT max(job) FROM up", "b"),
        ("SELECT string_agg(job, ',' ORDER BY job) FROM up WHERE timestamp = to_timestamp(1)", "a,b"),
        ("SELECT upper(job) || '!' FROM up WHERE zone = 'x'", "A!"),
        ("SELECT count(DISTINCT job) FROM up", "2"),
        ("SELECT coalesce(zone, 'none') FROM up WHERE timestamp = to_timestamp(9)", "none"),
        ("SELECT CASE WHEN job = 'a' THEN 'first' ELSE job END FROM up WHERE zone = 'x'", "first"),
        ("SELECT job FROM up EXCEPT SELECT 'b'", "a"),
    ] {
        assert_eq!(rows(&session, query).await, [expected], "{query}");
    }
}

#[tokio::test]
async fn registered_tables_stand_beside_the_built_in_ones() {
    let catalog = SqlCatalog::new(two_jobs(), Arc::new(ManualClock::new(0)));
    let session = catalog.session();
    let copy = session.sql("SELECT job FROM up").await.expect("plans").collect().await.expect("runs");
    let table = Arc::new(MemTable::try_new(copy[0].schema(), vec![copy]).expect("a table"));
    catalog.register_table("tsdb", "targets", table.clone()).expect("registers");
    catalog.register_table("business", "orders", table.clone()).expect("registers");
    assert!(catalog.register_table("pg_catalog", "pg_class", table).is_err());
    assert_eq!(sorted_rows(&session, "SELECT job FROM tsdb.targets").await, ["a", "b", "b"]);
    assert_eq!(rows(&session, "SELECT count(*) FROM business.orders").await, ["3"]);
}

/// Counts what is asked of the storage.
#[derive(Debug)]
struct Counting {
    inner: Arc<MemoryStorage>,
    opened: AtomicUsize,
}

impl Queryable for Counting {
    fn select(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        hints: &SelectHints,
    ) -> promontory_tsdb::Result<Selection> {
        self.inner.select(matchers, mint, maxt, hints)
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> promontory_tsdb::Result<Vec<String>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.inner.label_names(matchers, mint, maxt)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> promontory_tsdb::Result<Vec<String>> {
        self.inner.label_values(name, matchers, mint, maxt)
    }

    fn series_stats(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> promontory_tsdb::Result<SeriesStats> {
        self.inner.series_stats(matchers, mint, maxt)
    }

    fn time_bounds(&self) -> Option<(TimestampMs, TimestampMs)> {
        self.inner.time_bounds()
    }
}

#[tokio::test]
async fn a_query_opens_the_tables_that_it_names_and_no_other() {
    let storage = MemoryStorage::new();
    for i in 0..50 {
        let labels = Labels::from_pairs([("__name__", format!("metric_{i}"))]);
        storage.append(&labels, 0, 1.0).expect("appends");
    }
    let source = Arc::new(Counting { inner: Arc::new(storage), opened: AtomicUsize::new(0) });
    let session = session(Arc::clone(&source) as Arc<dyn Queryable>);
    assert_eq!(rows(&session, "SELECT value FROM metric_7").await, ["1.0"]);
    assert!(source.opened.load(Ordering::Relaxed) <= 2, "{source:?}");
}

/// Series that differ in which labels they have, and in values that patterns tell apart.
fn varied() -> Arc<MemoryStorage> {
    let values = ["", "x", "y", "xy", "x.1", "a|b", "x%", "x_y", "line\nx"];
    let storage = MemoryStorage::new();
    for (i, a) in values.iter().enumerate() {
        for (j, b) in ["", "x", "z"].iter().enumerate() {
            let labels = Labels::from_pairs([("__name__", "m"), ("a", a), ("b", b)]);
            for t in 0..3_i64 {
                let v = if t == 1 && i % 3 == 0 { stale_nan() } else { (i * 10 + j) as f64 };
                storage.append(&labels, t * 1_000, v).expect("appends");
            }
        }
    }
    Arc::new(storage)
}

fn condition() -> impl Strategy<Value = String> {
    let label = prop_oneof![Just("a"), Just("b")];
    let text = prop_oneof![
        Just("'x'"),
        Just("'y'"),
        Just("''"),
        Just("'a|b'"),
        Just("'x.1'"),
        Just("NULL"),
        Just("'nowhere'")
    ];
    let like = prop_oneof![Just("x%"), Just("%y"), Just("%"), Just("_"), Just("x\\%"), Just(""), Just("%i%")];
    let regex =
        prop_oneof![Just("x|z"), Just("^x"), Just("y$"), Just(".*"), Just("x.1"), Just("(?i)X"), Just("e.x")];
    let comparison = prop_oneof![Just("="), Just("<>"), Just("<"), Just("<="), Just(">"), Just(">=")];
    let time = prop_oneof![
        Just("to_timestamp_millis(1000)"),
        Just("to_timestamp_millis(999)"),
        Just("to_timestamp_micros(1000001)"),
        Just("timestamp '1970-01-01 00:00:01'")
    ];
    let leaf = prop_oneof![
        (label.clone(), prop_oneof![Just("="), Just("<>")], text.clone())
            .prop_map(|(l, op, t)| format!("{l} {op} {t}")),
        (label.clone(), prop_oneof![Just(""), Just("NOT ")], proptest::collection::vec(text.clone(), 1..6))
            .prop_map(|(l, not, list)| format!("{l} {not}IN ({})", list.join(", "))),
        (label.clone(), prop_oneof![Just(""), Just("NOT ")], like)
            .prop_map(|(l, not, p)| format!("{l} {not}LIKE '{p}'")),
        (label.clone(), prop_oneof![Just("~"), Just("!~")], regex)
            .prop_map(|(l, op, p)| format!("{l} {op} '{p}'")),
        (label.clone(), prop_oneof![Just(""), Just("NOT ")]).prop_map(|(l, not)| format!("{l} IS {not}NULL")),
        (comparison.clone(), time.clone()).prop_map(|(op, t)| format!("timestamp {op} {t}")),
        (time.clone(), time).prop_map(|(from, to)| format!("timestamp BETWEEN {from} AND {to}")),
        comparison.prop_map(|op| format!("value {op} 20")),
        Just("a = b".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(l, r)| format!("({l} AND {r})")),
            (inner.clone(), inner.clone()).prop_map(|(l, r)| format!("({l} OR {r})")),
            inner.prop_map(|c| format!("NOT ({c})")),
        ]
    })
}

#[test]
fn push_down_never_changes_the_answer() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let session = runtime.block_on(async {
        let catalog = SqlCatalog::new(varied(), Arc::new(ManualClock::new(0)));
        let session = catalog.session();
        let all = session.sql("SELECT * FROM m").await.expect("plans").collect().await.expect("runs");
        let copy = MemTable::try_new(all[0].schema(), vec![all]).expect("a copy");
        catalog.register_table("test", "copy", Arc::new(copy)).expect("registers");
        session
    });
    let config = Config { failure_persistence: None, ..Config::default() };
    let compared = TestRunner::new(config).run(&condition(), |condition| {
        let query = |table: &str| format!("SELECT a, b, timestamp, value FROM {table} WHERE {condition}");
        let (pushed, filtered) = runtime.block_on(async {
            (sorted_rows(&session, &query("m")).await, sorted_rows(&session, &query("test.copy")).await)
        });
        prop_assert_eq!(pushed, filtered);
        Ok(())
    });
    compared.expect("the same rows either way");
}

/// Series of which some lack a label, with gaps, stale markers and values that are not numbers.
fn gappy() -> impl Strategy<Value = Arc<MemoryStorage>> {
    let value = prop_oneof![6 => (-3..9i32).prop_map(f64::from), 1 => Just(f64::NAN), 1 => Just(stale_nan())];
    let series = (0..3usize, 0..3usize, prop::collection::vec((5..40i64, value), 0..40));
    prop::collection::vec(series, 1..8).prop_map(|all| {
        let storage = MemoryStorage::new();
        for (i, (a, b, samples)) in all.iter().enumerate() {
            let (a, b, number) = (["", "x", "y"][*a], ["", "y", "z"][*b], i.to_string());
            let labels = Labels::from_pairs([("__name__", "m"), ("a", a), ("b", b), ("i", number.as_str())]);
            let mut t = 3_500_000;
            for (step, v) in samples {
                t += step * 1_000 + i as i64;
                storage.append(&labels, t, *v).expect("appends");
            }
        }
        // Of a single series rows are sorted, which DataFusion makes use of itself.
        for i in ["last", "very last"] {
            let labels = Labels::from_pairs([("__name__", "m"), ("a", "x"), ("b", "z"), ("i", i)]);
            storage.append(&labels, 3_500_000, 1.0).expect("appends");
        }
        Arc::new(storage)
    })
}

#[test]
fn aggregates_over_runs_of_rows_are_those_over_rows() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let keys = [
        "a",
        "b",
        "a || coalesce(b, '-')",
        "i",
        "time_bucket('1 minute', timestamp)",
        "time_bucket('10 minutes', timestamp)",
        "date_trunc('hour', timestamp)",
        "date_bin(interval '2 minutes', timestamp, timestamp '1970-01-01 00:00:30')",
    ];
    let aggregates = [
        "count(*)",
        "sum(value)",
        "min(value)",
        "max(value + 1)",
        "avg(value)",
        "count(DISTINCT value)",
        "max(value) FILTER (WHERE value < 3)",
        "count(*) FILTER (WHERE b = 'y')",
        "percentile_cont(0.5) WITHIN GROUP (ORDER BY value)",
        "approx_percentile(value, 0.5)",
        "max(timestamp)",
        "count(b)",
        "max(i)",
        "bool_or(value > 7)",
    ];
    let some = |of: &'static [&'static str], most| prop::sample::subsequence(of, 1..=most);
    let keys = some(Vec::leak(keys.to_vec()), 3);
    let aggregates = some(Vec::leak(aggregates.to_vec()), 4);
    let begun_in_leaf = std::cell::Cell::new(0);
    let config = Config { failure_persistence: None, cases: 128, ..Config::default() };
    let compared =
        TestRunner::new(config).run(&(gappy(), keys, aggregates), |(storage, keys, aggregates)| {
            let (runs, plan, copied) = runtime.block_on(async {
                let catalog = SqlCatalog::new(storage, Arc::new(ManualClock::new(0)));
                let session = catalog.session();
                let all = session.sql("SELECT * FROM m").await.expect("plans").collect().await.expect("runs");
                let copy = MemTable::try_new(all[0].schema(), vec![all]).expect("a copy");
                catalog.register_table("test", "copy", Arc::new(copy)).expect("registers");
                let query = |table: &str| {
                    let (keys, aggregates) = (keys.join(", "), aggregates.join(", "));
                    format!("SELECT {keys}, {aggregates} FROM {table} GROUP BY {keys}")
                };
                let plan = rows(&session, &format!("EXPLAIN {}", query("m"))).await.concat();
                (
                    sorted_rows(&session, &query("m")).await,
                    plan,
                    sorted_rows(&session, &query("test.copy")).await,
                )
            });
            let in_leaf = ["SeriesAggregateExec", "SeriesTotalsExec", " of each series"];
            // What has an order of its own, or is rewritten to group by values, is left to DataFusion.
            begun_in_leaf
                .set(begun_in_leaf.get() + u32::from(in_leaf.iter().any(|name| plan.contains(name))));
            prop_assert_eq!(runs, copied);
            Ok(())
        });
    compared.expect("the same groups either way");
    assert!(begun_in_leaf.get() > 64, "{begun_in_leaf:?} of 128");
}

#[test]
fn grouping_before_a_join_changes_no_answer() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let keys = ["o.team", "m.a", "o.team || m.a", "time_bucket('10 minutes', timestamp)", "timestamp", "m.i"];
    let aggregates = [
        "count(*)",
        "sum(value)",
        "min(value + 1)",
        "max(value)",
        "avg(value)",
        "count(DISTINCT value)",
        "avg(value) FILTER (WHERE value < 3)",
        "count(*) FILTER (WHERE m.a = 'x')",
        "max(timestamp)",
        "count(m.a)",
        "max(o.team)",
        "sum(o.weight)",
    ];
    let joins = [
        "JOIN o ON o.b = m.b",
        "LEFT JOIN o ON o.b = m.b",
        "RIGHT JOIN o ON o.b = m.b",
        "JOIN o ON o.b = m.b AND o.team <> m.a",
        "JOIN o ON upper(o.b) = upper(m.b)",
        "JOIN o ON o.b = m.b AND o.weight < m.value",
        "JOIN o ON o.b IS NOT DISTINCT FROM m.b",
        "CROSS JOIN o",
    ];
    let some = |of: &[&'static str], range| prop::sample::subsequence(of.to_vec(), range);
    let question = (some(&keys, 0..=2), some(&aggregates, 1..=3), prop::sample::select(joins.to_vec()));
    let before_join = std::cell::Cell::new(0);
    let config = Config { failure_persistence: None, cases: 64, ..Config::default() };
    let compared = TestRunner::new(config).run(&(gappy(), question), |(storage, question)| {
        let (keys, aggregates, join) = question;
        let (early, plan, copied) = runtime.block_on(async {
            let catalog = SqlCatalog::new(storage, Arc::new(ManualClock::new(0)));
            let session = catalog.session();
            let all = session.sql("SELECT * FROM m").await.expect("plans").collect().await.expect("runs");
            let copy = MemTable::try_new(all[0].schema(), vec![all]).expect("a copy");
            catalog.register_table("test", "copy", Arc::new(copy)).expect("registers");
            let query = |table: &str| {
                let of_groups = if keys.is_empty() { String::new() } else { format!("GROUP BY {}", keys.join(", ")) };
                let columns = [&keys[..], &aggregates[..]].concat().join(", ");
                format!(
                    "WITH o (b, team, weight) AS (VALUES ('y', 't', 1), ('y', 'u', 2), ('z', 't', 3), (NULL, 'v', 4), ('q', 'w', 5)) \
                     SELECT {columns} FROM {table} m {join} {of_groups}"
                )
            };
            let plan = rows(&session, &format!("EXPLAIN {}", query("m"))).await.concat();
            (sorted_rows(&session, &query("m")).await, plan, sorted_rows(&session, &query("test.copy")).await)
        });
        before_join.set(before_join.get() + u32::from(plan.contains("grouped left") || plan.contains("grouped right")));
        prop_assert_eq!(early, copied, "{}", plan);
        Ok(())
    });
    compared.expect("the same groups either way");
    assert!(before_join.get() > 10, "{before_join:?} of 64");
}
