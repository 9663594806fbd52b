//! What `tsdb.*` shows of chunks, labels and queries.

use std::sync::Arc;
use std::time::{Duration, Instant};

use promontory_sql::{SqlCatalog, SqlOptions};
use promontory_tsdb::{Db, DbOptions, Labels, ManualClock, Queryable, SeriesRef};
use tokio_postgres::SimpleQueryMessage;

use crate::{ENDLESS, Server, end_of};

async fn rows(client: &tokio_postgres::Client, query: &str) -> Vec<String> {
    let messages = client.simple_query(query).await.expect(query);
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|i| row.get(i).unwrap_or("-")).collect::<Vec<_>>().join("|"))
        }
        _ => None,
    });
    rows.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_head_and_blocks_are_rows() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = DbOptions::new(dir.path());
    options.clock = Arc::new(ManualClock::new(4_000_000_000));
    options.block_range_ms = 600_000;
    options.retention_ms = None;
    let db = Db::open(options).expect("opens");
    for t in 0..200i64 {
        let mut appender = db.appender();
        for job in ["a", "b"] {
            let labels = Labels::from_pairs([("__name__", "up"), ("job", job)]);
            appender.append(SeriesRef(0), &labels, t * 10_000, t as f64).expect("appends");
        }
        appender.commit().expect("commits");
    }
    db.maintain().expect("maintains");
    let blocks = db.blocks().len();
    assert!(blocks >= 1);
    let catalog = SqlCatalog::new(Arc::clone(&db) as Arc<dyn Queryable>, Arc::new(ManualClock::new(0)));
    let server = Server::over(catalog, SqlOptions::default()).await;
    let client = server.connect().await;
    let query = "SELECT job, sum(samples) FROM (SELECT labels::json ->> 'job' AS job, samples, bytes FROM tsdb.chunks \
                 WHERE metric = 'up' AND encoding = 'XOR' AND NOT out_of_order AND bytes > 0) AS t GROUP BY 1 ORDER BY 1";
    assert_eq!(rows(&client, query).await, ["a|200", "b|200"]);
    let query =
        "SELECT count(DISTINCT block), count(DISTINCT block) FILTER (WHERE block = 'head') FROM tsdb.chunks";
    assert_eq!(rows(&client, query).await, [format!("{}|1", blocks + 1)]);
    let query = "SELECT count(*) FROM tsdb.chunks AS c JOIN tsdb.blocks AS b ON b.ulid = c.block \
                 WHERE c.min_time < b.min_time OR c.max_time >= b.max_time";
    assert_eq!(rows(&client, query).await, ["0"]);
    let query = "SELECT min(min_time), max(max_time) FROM tsdb.chunks";
    assert_eq!(rows(&client, query).await, ["1970-01-01 00:00:00+00|1970-01-01 00:33:10+00"]);
    assert_eq!(rows(&client, "SELECT count(*) FROM tsdb.chunks WHERE metric = 'down'").await, ["0"]);
    assert_eq!(rows(&client, "SELECT series_ref > 0 FROM tsdb.chunks LIMIT 1").await, ["t"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_labels_are_counted_by_series() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    let query = "SELECT * FROM tsdb.label_values WHERE name = 'job' ORDER BY value";
    assert_eq!(
        rows(&client, query).await,
        ["job|api|9|", "job|node|8|"].map(|row| row.trim_end_matches('|'))
    );
    let query = "SELECT * FROM tsdb.label_values WHERE name = '__name__' AND value = 'up'";
    assert_eq!(rows(&client, query).await, ["__name__|up|3"]);
    let query = "SELECT count(*) FROM tsdb.label_values AS v JOIN tsdb.labels AS l USING (name, value)";
    assert_eq!(rows(&client, query).await, rows(&client, "SELECT count(*) FROM tsdb.labels").await);
    assert_eq!(rows(&client, "SELECT * FROM tsdb.label_values WHERE name = ''").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn running_and_recent_queries_are_rows() {
    let server = Server::start(SqlOptions::default()).await;
    let (client, other) = (server.connect().await, server.connect().await);
    let running = "SELECT user_name, pid > 0, query LIKE 'SELECT a.value%' FROM tsdb.queries \
                   WHERE state = 'running' AND query NOT LIKE '%tsdb.queries%'";
    let token = other.cancel_token();
    // Nobody reads its rows yet, so that it takes no time away from who looks at it.
    let endless = other.simple_query_raw(ENDLESS).await.expect("begins");
    let deadline = Instant::now() + Duration::from_secs(60);
    while rows(&client, running).await != ["tester|t|t"] {
        assert!(Instant::now() < deadline, "the statement is not shown");
    }
    token.cancel_query(tokio_postgres::NoTls).await.expect("cancels");
    assert_eq!(end_of(endless).await, "57014");
    client.simple_query("SELECT nothing FROM up").await.expect_err("no such column");
    client.query("SELECT count(*) FROM up WHERE job = $1", &[&"api"]).await.expect("runs");
    let ended = "SELECT state, query, error LIKE '%does not exist%' FROM tsdb.queries WHERE language = 'sql' \
                 AND query NOT LIKE '%tsdb.queries%' AND seconds >= 0 AND query NOT LIKE 'SELECT a.value%' ORDER BY state";
    let expected = ["done|SELECT count(*) FROM up WHERE job = $1|-", "failed|SELECT nothing FROM up|t"];
    assert_eq!(rows(&client, ended).await, expected);
    let stopped =
        "SELECT state, error LIKE '%user request%' FROM tsdb.queries WHERE query LIKE 'SELECT a.value%'";
    assert_eq!(rows(&client, stopped).await, ["failed|t"]);
    let first = "SELECT query LIKE '%LIMIT 1' AND state = 'running' FROM tsdb.queries LIMIT 1";
    assert_eq!(rows(&client, first).await, ["t"]);
}
