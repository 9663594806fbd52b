//! Statements that are stopped: by their client, by the clock, by the end of the server.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use promontory_sql::{Access, SqlCatalog, SqlOptions, SqlQueries};
use promontory_tsdb::ManualClock;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::NoTls;

use crate::psql::psql_command;
use crate::{ENDLESS, Server, data, endless, sqlstate};

/// Statements that give no row for hours, each for another reason.
const FRUITLESS: [&str; 3] = [
    "SELECT count(*) FROM tsdb.samples a, tsdb.samples b, tsdb.samples c, tsdb.samples d \
     WHERE a.value + b.value + c.value + d.value < -1e300",
    "SELECT count(*), max(a.value) FROM tsdb.samples a, tsdb.samples b, tsdb.samples c, tsdb.samples d",
    "SELECT count(*) FROM tsdb.samples a JOIN tsdb.samples b USING (metric) JOIN tsdb.samples c USING (metric) \
     JOIN tsdb.samples d ON d.metric = a.metric AND a.value + b.value + c.value + d.value < -1e300",
];

/// Threads of their own for the statements of one test. They are never joined.
fn query_threads() -> &'static Runtime {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    Box::leak(Box::new(runtime))
}

async fn until(condition: impl Fn() -> bool, what: &str) {
    let mut pause = tokio::time::interval(Duration::from_millis(5));
    let wait = async {
        while !condition() {
            pause.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gives_no_row_stops_at_its_timeout_and_leaves_its_threads() {
    let queries = query_threads();
    let query_runtime = Some(queries.handle().clone());
    let server = Server::start(SqlOptions { query_runtime, ..SqlOptions::default() }).await;
    let client = server.connect().await;
    client.simple_query("SET statement_timeout = '100ms'").await.expect("sets");
    for query in FRUITLESS {
        assert_eq!(sqlstate(client.simple_query(query).await), "57014", "{query}");
        until(|| queries.metrics().num_alive_tasks() == 0, "the statement's tasks end").await;
        assert_eq!(sqlstate(client.query(query, &[]).await), "57014", "{query}");
        until(|| queries.metrics().num_alive_tasks() == 0, "the portal's tasks end").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_of_psql_stops_what_gives_no_row() {
    let queries = query_threads();
    let query_runtime = Some(queries.handle().clone());
    let server = Server::start(SqlOptions { query_runtime, ..SqlOptions::default() }).await;
    let mut psql = psql_command(&server, "tester");
    psql.args(["-v", "VERBOSITY=verbose", "-c", FRUITLESS[0]]).stderr(std::process::Stdio::piped());
    let Ok(psql) = psql.spawn() else {
        eprintln!("skipped: psql cannot be run");
        return;
    };
    until(|| queries.metrics().num_alive_tasks() > 0, "the statement runs").await;
    let interrupted = Command::new("kill").args(["-INT", &psql.id().to_string()]).status();
    assert!(interrupted.expect("kill runs").success());
    let output = tokio::task::spawn_blocking(|| psql.wait_with_output()).await.expect("waits").expect("ends");
    let heard = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(heard.contains("57014: canceling statement due to user request"), "{heard}");
    until(|| queries.metrics().num_alive_tasks() == 0, "the statement's tasks end").await;
}

/// As when its process is killed: nothing is said, the socket closes.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_takes_its_query_with_it() {
    let queries = query_threads();
    let query_runtime = Some(queries.handle().clone());
    let server = Server::start(SqlOptions { query_runtime, ..SqlOptions::default() }).await;
    let config = format!("host=127.0.0.1 port={} user=tester dbname=promontory", server.address.port());
    // One that waits for the first row, and one that has had rows and reads no more of them.
    for query in [FRUITLESS[0], ENDLESS] {
        for extended in [false, true] {
            let (client, connection) = tokio_postgres::connect(&config, NoTls).await.expect("connects");
            let connection = tokio::spawn(connection);
            let asking = tokio::spawn(async move {
                if extended {
                    let no_parameters: [&str; 0] = [];
                    let _rows = client.query_raw(query, no_parameters).await.expect("begins");
                    std::future::pending::<()>().await;
                } else {
                    let _rows = client.simple_query_raw(query).await.expect("begins");
                    std::future::pending::<()>().await;
                }
            });
            until(|| queries.metrics().num_alive_tasks() > 0, "the statement runs").await;
            asking.abort();
            connection.abort();
            until(|| queries.metrics().num_alive_tasks() == 0, "the statement's tasks end").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_request_stops_a_running_query() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    let cancel = client.cancel_token();
    let running = tokio::spawn(async move { endless(&client).await });
    // A request that comes before the statement runs stops nothing: repeat until it hits.
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    while !running.is_finished() {
        pause.tick().await;
        cancel.cancel_query(NoTls).await.expect("sends the request");
    }
    assert_eq!(running.await.expect("ends"), "57014");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_stops_at_its_timeout() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    client.simple_query("SET statement_timeout = '50ms'").await.expect("sets");
    assert_eq!(endless(&client).await, "57014");
    assert_eq!(sqlstate(client.query(ENDLESS, &[]).await), "57014");
    client.simple_query("RESET statement_timeout").await.expect("resets");
    client.simple_query("SELECT 1").await.expect("the session goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_nobody_reads_end_at_the_timeout_all_the_same() {
    let runtime = query_threads();
    let clock = Arc::new(ManualClock::new(data::NOW_MS));
    let catalog = SqlCatalog::new(Arc::new(data::storage()), clock);
    let timeout = Some(Duration::from_millis(100));
    let queries = SqlQueries::new(catalog, runtime.handle().clone(), Vec::new(), timeout);
    for (query, rows) in [(ENDLESS, true), (FRUITLESS[0], false)] {
        let mut running = queries.run(query, &[], Access::default(), "").await.expect("begins");
        if rows {
            running.batches.next().await.expect("rows").expect("in time");
            until(|| runtime.metrics().num_alive_tasks() == 0, "the query's tasks end").await;
        }
        let last = running.batches.next().await.expect("a word at the end");
        assert!(last.expect_err("is late").to_string().contains("statement timeout"));
        assert!(running.batches.next().await.is_none());
        until(|| runtime.metrics().num_alive_tasks() == 0, "the query's tasks end").await;
    }
}
