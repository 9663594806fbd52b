//! Statements that would take more than their share: each is refused, and the server goes on.

use promontory_sql::{Access, STACK_BYTES, SqlOptions};

use crate::wire::user;
use crate::{Server, sqlstate};

/// On threads as the server has them.
#[test]
fn what_would_take_more_than_there_is_is_refused_with_its_code() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().thread_stack_size(STACK_BYTES).enable_all().build();
    runtime.expect("starts").block_on(refused());
}

async fn refused() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    let doubling = (1..40).map(|i| format!(", a{i} AS (SELECT a.x FROM a{0} a, a{0} b)", i - 1));
    let doubling = format!("WITH a0 AS (SELECT 1 AS x){} SELECT * FROM a39", doubling.collect::<String>());
    let tables = (0..1_000).map(|i| format!("pg_namespace a{i}")).collect::<Vec<_>>().join(", ");
    for (query, code) in [
        (format!("SELECT 'a'{}", " ILIKE 'a'".repeat(100_000)), "54001"),
        (format!("SELECT 'a'{}", " AT TIME ZONE 'UTC'".repeat(100_000)), "54001"),
        (doubling, "54001"),
        (format!("SELECT 1 FROM {tables}"), "54001"),
        ("SELECT approx_percentile(value, 0.5, 1000000000000) FROM up".to_owned(), "42601"),
        (
            "SELECT approx_percentile_cont(0.5, 1000000 * 1000000) WITHIN GROUP (ORDER BY value) FROM up"
                .to_owned(),
            "42601",
        ),
        (format!("SELECT '{}'", "x".repeat(5 << 20)), "54001"),
    ] {
        let beginning = &query[..query.len().min(60)];
        assert_eq!(sqlstate(client.simple_query(&query).await), code, "{beginning}");
        client.simple_query("SELECT 1").await.expect(beginning);
    }
    let digest = "SELECT approx_percentile(value, 0.5, 10000) FROM up";
    client.simple_query(digest).await.expect("as many are allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_search_path_leads_into_a_schema_that_is_not_ones_own() {
    let only = Access::only(["metrics".to_owned()]);
    let server =
        Server::start(SqlOptions { users: vec![user("viewer", only)], ..SqlOptions::default() }).await;
    let viewer = server.try_connect("viewer", Some("s3cret")).await.expect("gets in");
    for set in ["SET search_path = tsdb", "SELECT set_config('search_path', 'tsdb', false)"] {
        viewer.simple_query(set).await.expect(set);
        for query in [
            "SELECT metric FROM series",
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM queries)",
            "COPY series TO STDOUT",
            "EXPLAIN SELECT * FROM series",
            "WITH s AS (SELECT * FROM series) SELECT * FROM s",
        ] {
            assert_eq!(sqlstate(viewer.simple_query(query).await), "42501", "{query}");
        }
        viewer.simple_query("SELECT * FROM metrics.up").await.expect("is theirs");
        viewer.simple_query("RESET search_path").await.expect("resets");
        viewer.simple_query("WITH s AS (SELECT * FROM up) SELECT * FROM s").await.expect("is theirs");
    }
}
