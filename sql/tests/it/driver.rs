//! `tokio-postgres`: the extended protocol, settings, transactions.

use std::time::{Duration, SystemTime};

use promontory_sql::SqlOptions;
use tokio_postgres::SimpleQueryMessage;

use crate::{Server, data, sqlstate};

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_take_parameters() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    let statement = client
        .prepare("SELECT instance, timestamp, value FROM up WHERE job = $1 AND timestamp >= $2 ORDER BY 1")
        .await
        .expect("prepares");
    let now =
        SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(data::NOW_MS).expect("after 1970"));
    for (job, expected) in [("node", vec!["a:9100", "b:9100"]), ("api", vec!["api:8080"]), ("none", vec![])] {
        let rows = client.query(&statement, &[&job, &now]).await.expect("runs");
        let instances: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(instances, expected);
        for row in rows {
            assert_eq!(row.get::<_, SystemTime>(1), now);
            assert_eq!(row.get::<_, Option<f64>>(2), Some(1.0));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_gives_as_many_rows_as_asked_and_goes_on() {
    let server = Server::start(SqlOptions::default()).await;
    let mut client = server.connect().await;
    let transaction = client.transaction().await.expect("begins");
    let portal = transaction.bind("SELECT value FROM up WHERE job = 'api'", &[]).await.expect("binds");
    let mut sizes = Vec::new();
    loop {
        let rows = transaction.query_portal(&portal, 50).await.expect("fetches");
        sizes.push(rows.len());
        if rows.len() < 50 {
            break;
        }
    }
    assert_eq!(sizes, [50, 50, 21]);
    for _ in 0..2 {
        assert!(transaction.query_portal(&portal, 0).await.expect("has no more").is_empty());
    }
    let shown = transaction.bind("SHOW search_path", &[]).await.expect("binds");
    assert_eq!(transaction.query_portal(&shown, 0).await.expect("a row").len(), 1);
    assert!(transaction.query_portal(&shown, 0).await.expect("has no more").is_empty());
    let set = transaction.bind("SET search_path = tsdb", &[]).await.expect("binds");
    assert!(transaction.query_portal(&set, 0).await.expect("sets").is_empty());
    assert_eq!(sqlstate(transaction.query_portal(&set, 0).await), "55000");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_carry_their_sqlstate_in_the_extended_protocol_as_well() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    for (query, expected) in [
        ("SELECT * FROM nothing", "42P01"),
        ("SELECT nothing FROM up", "42703"),
        ("SELECT nothing(value) FROM up", "42883"),
        ("SELECT job up WHERE 1 1", "42601"),
        ("INSERT INTO up VALUES (1)", "0A000"),
        ("SELECT 1 / 0", "22012"),
        ("SELECT 'x'::int", "22P02"),
        ("SHOW nothing", "42704"),
        ("SELECT 1; SELECT 2", "42601"),
    ] {
        assert_eq!(sqlstate(client.query(query, &[]).await), expected, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_drivers_and_pools_send_is_accepted() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    for command in [
        "SET application_name = 'pool'",
        "SET client_encoding TO 'UTF8'",
        "SET extra_float_digits = 3",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "BEGIN READ ONLY",
        "COMMIT",
        "START TRANSACTION",
        "ROLLBACK",
        "SHOW TRANSACTION ISOLATION LEVEL",
        "SHOW ALL",
        "DEALLOCATE ALL",
        "DISCARD ALL",
        "RESET ALL",
        ";",
        "SELECT version()",
        "SELECT current_database(), current_schema()",
    ] {
        client.simple_query(command).await.unwrap_or_else(|error| panic!("{command}: {error:?}"));
    }
    let shown = client.simple_query("SET TimeZone = 'UTC'; SHOW TimeZone").await.expect("shows");
    let value = shown.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    assert_eq!(value, Some("UTC"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_transaction_takes_nothing_but_its_end() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    client.simple_query("BEGIN").await.expect("begins");
    assert_eq!(sqlstate(client.simple_query("SELECT * FROM nothing").await), "42P01");
    assert_eq!(sqlstate(client.simple_query("SELECT 1").await), "25P02");
    client.simple_query("ROLLBACK").await.expect("ends");
    client.simple_query("SELECT 1").await.expect("and all is well");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_do_not_see_each_others_settings() {
    let server = Server::start(SqlOptions::default()).await;
    let (one, other) = (server.connect().await, server.connect().await);
    one.simple_query("SET search_path = tsdb").await.expect("sets");
    one.simple_query("SELECT * FROM blocks").await.expect("finds tsdb.blocks");
    assert_eq!(sqlstate(other.simple_query("SELECT * FROM blocks").await), "42P01");
}
