//! What the catalog shows of many metrics and of native histograms, and what scans need not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use promontory_sql::{SqlCatalog, SqlOptions};
use promontory_tsdb::histogram::FloatHistogram;
use promontory_tsdb::memory::MemoryStorage;
use promontory_tsdb::{
    Db, DbOptions, Labels, ManualClock, Matcher, Queryable, SelectHints, Selection, SeriesRef, SeriesStats,
    TimestampMs, stale_nan,
};
use proptest::prelude::*;
use tokio_postgres::SimpleQueryMessage;

use crate::{Server, data};

/// Rows of `query`, columns joined by `|`, NULL as `-`.
async fn rows(client: &tokio_postgres::Client, query: &str) -> Vec<String> {
    let messages = match client.simple_query(query).await {
        Ok(messages) => messages,
        Err(error) => panic!("{query}: {error:?}"),
    };
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            let values = (0..row.len()).map(|i| row.get(i).unwrap_or("-"));
            Some(values.collect::<Vec<_>>().join("|"))
        }
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

/// Counts what is asked about single metrics.
#[derive(Debug)]
struct Counting {
    storage: MemoryStorage,
    asked: AtomicUsize,
}

impl Counting {
    fn note(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }
}

impl Queryable for Counting {
    fn select(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        hints: &SelectHints,
    ) -> promontory_tsdb::Result<Selection> {
        self.note();
        self.storage.select(matchers, mint, maxt, hints)
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> promontory_tsdb::Result<Vec<String>> {
        self.note();
        self.storage.label_names(matchers, mint, maxt)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> promontory_tsdb::Result<Vec<String>> {
        self.storage.label_values(name, matchers, mint, maxt)
    }

    fn series_stats(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> promontory_tsdb::Result<SeriesStats> {
        self.note();
        self.storage.series_stats(matchers, mint, maxt)
    }

    fn time_bounds(&self) -> Option<(TimestampMs, TimestampMs)> {
        self.storage.time_bounds()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_metrics_are_listed_without_a_look_at_any() {
    let storage = MemoryStorage::new();
    for i in 0..5_000 {
        let name = format!("metric_{i:04}");
        let labels = Labels::from_pairs([("__name__", name.as_str()), ("job", "a"), ("instance", "b")]);
        storage.append(&labels, data::NOW_MS, 1.0).expect("appends");
    }
    let source = Arc::new(Counting { storage, asked: AtomicUsize::new(0) });
    let catalog = SqlCatalog::new(Arc::clone(&source) as Arc<dyn Queryable>, clock());
    let server = Server::over(catalog, SqlOptions::default()).await;
    let client = server.connect().await;
    for query in [
        "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'metrics'",
        "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'metrics'",
        "SELECT count(*) FROM pg_tables WHERE schemaname = 'metrics'",
        "SELECT count(*) FROM pg_class c WHERE c.relname LIKE 'metric%' AND pg_table_is_visible(c.oid)",
    ] {
        let began = std::time::Instant::now();
        assert_eq!(rows(&client, query).await, ["5000"], "{query}");
        println!("{:?} {query}", began.elapsed());
        assert_eq!(source.asked.load(Ordering::Relaxed), 0, "{query}");
    }
    // The columns of one table are looked up for that table alone.
    for query in [
        "SELECT a.attname FROM pg_attribute a WHERE a.attrelid = 'metric_0042'::regclass::oid AND false",
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'metrics' AND table_name = 'metric_0042'",
    ] {
        rows(&client, query).await;
        assert!(source.asked.load(Ordering::Relaxed) < 20, "{query}");
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(data::NOW_MS))
}

#[tokio::test(flavor = "multi_thread")]
async fn native_histograms_are_rows_with_a_column_of_their_own() {
    let storage = MemoryStorage::new();
    let labels = |metric: &str| Labels::from_pairs([("__name__", metric), ("histogram", "h"), ("job", "a")]);
    let histogram = FloatHistogram { count: 3.0, sum: 4.5, ..FloatHistogram::default() };
    storage.append(&labels("mixed"), data::NOW_MS - 2_000, 7.0).expect("appends");
    storage.append_histogram(&labels("mixed"), data::NOW_MS - 1_000, 0, &histogram).expect("appends");
    storage.append(&labels("plain"), data::NOW_MS, 1.0).expect("appends");
    let server = Server::over(SqlCatalog::new(Arc::new(storage), clock()), SqlOptions::default()).await;
    let client = server.connect().await;
    let query = "SELECT value, histogram['count'], histogram['sum'], label_histogram, job FROM mixed ORDER BY timestamp";
    assert_eq!(rows(&client, query).await, ["7|-|-|h|a", "-|3|4.5|h|a"]);
    assert_eq!(rows(&client, "SELECT count(*), count(value), count(histogram) FROM mixed").await, ["2|1|1"]);
    assert_eq!(rows(&client, "SELECT count(*) FROM mixed WHERE value IS NULL").await, ["1"]);
    assert_eq!(rows(&client, "SELECT value, histogram FROM plain").await, ["1|h"]);
    let query = "SELECT metric, value, histogram IS NOT NULL FROM tsdb.samples ORDER BY metric, timestamp";
    assert_eq!(rows(&client, query).await, ["mixed|7|f", "mixed|-|t", "plain|1|f"]);
    let query = "SELECT column_name, is_nullable FROM information_schema.columns WHERE table_name = 'mixed' \
                 AND table_schema = 'metrics' ORDER BY ordinal_position";
    let columns = ["timestamp|NO", "value|YES", "histogram|YES", "label_histogram|YES", "job|YES"];
    assert_eq!(rows(&client, query).await, columns);
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_give_one_row_of_a_series_where_that_is_enough() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    for (query, part) in [
        ("SELECT DISTINCT job FROM up", "rows=any of each series"),
        ("SELECT job, instance FROM up GROUP BY 1, 2", "rows=any of each series"),
        (
            "SELECT DISTINCT ON (job) job, value FROM up ORDER BY job, timestamp DESC",
            "rows=last of each series",
        ),
        ("SELECT job, max(timestamp) FROM up GROUP BY 1", "rows=last of each series"),
        ("SELECT job, min(timestamp) FROM up GROUP BY 1", "rows=first of each series"),
        ("SELECT max(timestamp) FROM up", "rows=last of each series"),
        ("SELECT min(timestamp), max(timestamp) FROM up", "rows=first and last of each series"),
        ("SELECT job, count(*) FROM up GROUP BY 1", "totals=[rows]"),
        ("SELECT count(*) FROM up WHERE instance = 'a:9100'", "totals=[rows]"),
        ("SELECT upper(job), count(value), max(timestamp) FROM up GROUP BY 1", "totals=[rows, newest]"),
        ("SELECT DISTINCT instance, job FROM up", "rows=any of each series"),
        (
            "SELECT job, max(value) FROM up GROUP BY 1",
            "SeriesAggregateExec: by series=[job@1], by time=[], aggr=[max(up.value)]",
        ),
        (
            "SELECT time_bucket('5 minutes', timestamp) AS t, avg(value) FROM up GROUP BY t",
            "SeriesAggregateExec: by series=[], by time=[time_bucket(",
        ),
        (
            "SELECT date_trunc('hour', timestamp) AS t, job, count(*) FROM up GROUP BY t, job",
            "SeriesAggregateExec: by series=[job@1], by time=[date_trunc(hour, timestamp@0)]",
        ),
    ] {
        let plan = rows(&client, &format!("EXPLAIN {query}")).await.concat();
        assert!(plan.contains(part), "{query}\n{plan}");
    }
    for query in [
        "SELECT DISTINCT job, value FROM up",
        "SELECT job, max(value) FROM up GROUP BY 1",
        "SELECT job, max(timestamp) FILTER (WHERE value = 0) FROM up GROUP BY 1",
        "SELECT DISTINCT job FROM up WHERE value = 0",
        "SELECT job, count(*), max(value) FROM up GROUP BY 1",
        "SELECT job, count(DISTINCT timestamp) FROM up GROUP BY 1",
        "SELECT job, count(env) FROM up GROUP BY 1",
        "SELECT count(histogram) FROM rpc_seconds",
        "SELECT timestamp, count(*) FROM up GROUP BY 1",
        "SELECT job, count(*) FROM up WHERE value = 0 GROUP BY 1",
        "SELECT count(*) FILTER (WHERE job = 'api') FROM up",
        "SELECT job, instance, count(*) FROM up GROUP BY ROLLUP (job, instance)",
        "SELECT DISTINCT ON (job) job, value FROM up ORDER BY job, value DESC",
        "SELECT last_value(nullif(value, 0) ORDER BY timestamp) IGNORE NULLS FROM up",
        "SELECT random() AS r, count(*) FROM up GROUP BY r",
    ] {
        let plan = rows(&client, &format!("EXPLAIN {query}")).await.concat();
        assert!(!plan.contains("of each series") && !plan.contains("totals="), "{query}\n{plan}");
    }
    for query in [
        "SELECT timestamp, max(value) FROM up GROUP BY 1",
        "SELECT time_bucket('15 seconds', timestamp) AS t, max(value) FROM up GROUP BY t",
        "SELECT extract(hour FROM timestamp) AS h, max(value) FROM up GROUP BY h",
        "SELECT value, max(timestamp) FROM up GROUP BY 1",
        "SELECT job, first_value(value ORDER BY value) FROM up GROUP BY 1",
    ] {
        let plan = rows(&client, &format!("EXPLAIN {query}")).await.concat();
        assert!(!plan.contains("SeriesAggregateExec"), "{query}\n{plan}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_one_series_need_no_sort() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    for (query, sorts) in [
        ("SELECT value FROM up WHERE instance = 'a:9100' ORDER BY timestamp", false),
        ("SELECT value FROM up WHERE instance = 'a:9100' ORDER BY job, timestamp LIMIT 3", false),
        (
            "SELECT value, lag(value) OVER (PARTITION BY job ORDER BY timestamp) FROM up WHERE instance = 'a:9100'",
            false,
        ),
        ("SELECT value FROM up WHERE instance = 'a:9100' ORDER BY timestamp DESC", true),
        ("SELECT value FROM up ORDER BY timestamp", true),
    ] {
        let plan = rows(&client, &format!("EXPLAIN {query}")).await.concat();
        assert_eq!(plan.contains("SortExec"), sorts, "{query}\n{plan}");
    }
    let query = "SELECT count(*) FROM (SELECT timestamp, lag(timestamp) OVER (ORDER BY timestamp) AS before FROM up \
                 WHERE instance = 'a:9100') AS t WHERE timestamp <= before";
    assert_eq!(rows(&client, query).await, ["0"]);
}

#[test]
fn one_row_per_series_changes_no_answer() {
    let runtime = tokio::runtime::Runtime::new().expect("starts");
    let value = prop_oneof![4 => (-3..3i32).prop_map(f64::from), 1 => Just(f64::NAN), 2 => Just(stale_nan())];
    let series = prop::collection::vec((1..5i64, value), 0..12);
    let config = ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(all in prop::collection::vec(series, 1..5))| {
        if all.iter().all(Vec::is_empty) {
            return Ok(());
        }
        let dir = tempfile::tempdir().expect("a directory");
        let mut options = DbOptions::new(dir.path());
        options.clock = Arc::new(ManualClock::new(data::NOW_MS));
        let db = Db::open(options).expect("opens");
        let mut appender = db.appender();
        for (i, samples) in all.iter().enumerate() {
            let mut t = data::NOW_MS;
            let (s, job) = (i.to_string(), if i % 2 == 0 { "even" } else { "odd" });
            for (step, v) in samples {
                t += step * 1_000 + i as i64;
                let labels = Labels::from_pairs([("__name__", "m"), ("job", job), ("s", s.as_str())]);
                appender.append(SeriesRef(0), &labels, t, *v).expect("appends");
            }
        }
        appender.commit().expect("commits");
        let session = SqlCatalog::new(db as Arc<dyn Queryable>, clock()).session();
        // A filter on the value, which always holds, keeps the rule away.
        let always = "value <> 123456";
        for (short, long) in [
            ("SELECT DISTINCT job, s FROM m ORDER BY 1, 2", "SELECT DISTINCT job, s FROM m WHERE ALWAYS ORDER BY 1, 2"),
            (
                "SELECT DISTINCT ON (job) job, s, value, timestamp FROM m ORDER BY job, timestamp DESC, s",
                "SELECT job, s, value, timestamp FROM (SELECT *, row_number() OVER (PARTITION BY job ORDER BY timestamp DESC, s) \
                 AS n FROM m WHERE ALWAYS) AS t WHERE n = 1 ORDER BY job",
            ),
            (
                "SELECT s, min(timestamp) FROM m GROUP BY s ORDER BY s",
                "SELECT s, min(timestamp) FROM m WHERE ALWAYS GROUP BY s ORDER BY s",
            ),
            (
                "SELECT job, count(*), count(value), min(timestamp), max(timestamp) FROM m GROUP BY job ORDER BY job",
                "SELECT job, count(*), count(value), min(timestamp), max(timestamp) FROM m WHERE ALWAYS GROUP BY job ORDER BY job",
            ),
            (
                "SELECT count(*), max(timestamp) FROM m WHERE timestamp > to_timestamp(1767268803)",
                "SELECT count(*), max(timestamp) FROM m WHERE ALWAYS AND timestamp > to_timestamp(1767268803)",
            ),
            (
                "SELECT min(timestamp), max(timestamp) FROM m WHERE timestamp > to_timestamp(1767268803)",
                "SELECT min(timestamp), max(timestamp) FROM m WHERE ALWAYS AND timestamp > to_timestamp(1767268803)",
            ),
            (
                "SELECT s, count(*) FROM m GROUP BY s ORDER BY s",
                "SELECT s, count(*) FROM m WHERE ALWAYS GROUP BY s ORDER BY s",
            ),
            (
                "SELECT job, last_value(value ORDER BY timestamp, s) FROM m GROUP BY job ORDER BY job",
                "SELECT job, last_value(value ORDER BY timestamp, s) FROM m WHERE ALWAYS GROUP BY job ORDER BY job",
            ),
        ] {
            let answer = |query: String| {
                let session = &session;
                runtime.block_on(async move {
                    let batches = session.sql(&query).await.expect("plans").collect().await.expect("runs");
                    arrow::util::pretty::pretty_format_batches(&batches).expect("prints").to_string()
                })
            };
            prop_assert_eq!(answer(short.to_owned()), answer(long.replace("ALWAYS", always)), "{}", short);
        }
    });
}
