//! Views: made, used, shown, kept, refused.

use std::sync::Arc;

use promontory_sql::{Access, ScramVerifier, SqlCatalog, SqlOptions, SqlUser};
use promontory_tsdb::ManualClock;

use crate::psql::{psql_command, run};
use crate::{Server, data, sqlstate};

async fn rows(client: &tokio_postgres::Client, query: &str) -> Vec<String> {
    let messages = client.simple_query(query).await.expect(query);
    let rows = messages.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|i| row.get(i).unwrap_or("-")).collect::<Vec<_>>().join("|"))
        }
        _ => None,
    });
    rows.collect()
}

fn catalog() -> Arc<SqlCatalog> {
    SqlCatalog::new(Arc::new(data::storage()), Arc::new(ManualClock::new(data::NOW_MS)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_a_query_under_a_name() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    rows(&client, "CREATE VIEW busy AS SELECT job, max(value), count(*) AS n FROM up GROUP BY job").await;
    assert_eq!(rows(&client, "SELECT job, max, n FROM busy ORDER BY job").await, ["api|1|121", "node|1|242"]);
    rows(&client, "CREATE VIEW metrics.few (who, most) AS SELECT job, max FROM busy WHERE n < 200").await;
    assert_eq!(rows(&client, "SELECT * FROM metrics.few").await, ["api|1"]);
    assert_eq!(sqlstate(client.simple_query("CREATE VIEW busy AS SELECT 1 AS x").await), "42P07");
    rows(&client, "CREATE VIEW IF NOT EXISTS busy AS SELECT 1 AS x").await;
    rows(
        &client,
        "CREATE OR REPLACE VIEW busy AS SELECT job, 2 AS max, 1 AS n FROM up WHERE job = 'node' LIMIT 1",
    )
    .await;
    assert_eq!(rows(&client, "SELECT who, most FROM few").await, ["node|2"]);
    let joined =
        "SELECT count(*) FROM up JOIN few ON up.job = few.who WHERE timestamp > now() - interval '1 minute'";
    assert_eq!(rows(&client, joined).await, ["2"]);
    assert_eq!(sqlstate(client.simple_query("DROP VIEW busy").await), "2BP01");
    rows(&client, "DROP VIEW few, busy").await;
    assert_eq!(sqlstate(client.simple_query("SELECT * FROM busy").await), "42P01");
    assert_eq!(sqlstate(client.simple_query("DROP VIEW busy").await), "42P01");
    rows(&client, "DROP VIEW IF EXISTS busy").await;
    // Functions of tools in their text do not change what they show.
    rows(
        &client,
        "CREATE VIEW tools AS SELECT relname FROM pg_class WHERE relkind = 'v' AND relname = 'tools'",
    )
    .await;
    assert_eq!(rows(&client, "SELECT * FROM tools").await, ["tools"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_view_is_refused_with_its_code() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    for (statement, code) in [
        ("CREATE VIEW up AS SELECT 1 AS x", "42P07"),
        ("CREATE VIEW v AS SELECT * FROM no_such_metric", "42P01"),
        ("CREATE VIEW v AS SELECT jobb FROM up", "42703"),
        ("CREATE VIEW v AS SELECT job, job FROM up", "42701"),
        ("CREATE VIEW v AS SELECT * FROM v", "42P17"),
        ("CREATE VIEW v AS SELECT $1 AS x", "42P02"),
        ("CREATE VIEW tsdb.v AS SELECT 1 AS x", "3F000"),
        ("CREATE MATERIALIZED VIEW v AS SELECT 1 AS x", "0A000"),
        ("CREATE TABLE v (x int)", "0A000"),
        ("DROP TABLE up", "0A000"),
        ("DROP VIEW up", "42P01"),
    ] {
        assert_eq!(sqlstate(client.simple_query(statement).await), code, "{statement}");
    }
    rows(&client, "CREATE VIEW a AS SELECT 1 AS x").await;
    rows(&client, "CREATE VIEW b AS SELECT * FROM a").await;
    assert_eq!(sqlstate(client.simple_query("CREATE OR REPLACE VIEW a AS SELECT * FROM b").await), "42P17");
    let mut refused = None;
    for i in 0..30 {
        let below = if i == 0 { "b".to_owned() } else { format!("n{}", i - 1) };
        let made = client.simple_query(&format!("CREATE VIEW n{i} AS SELECT * FROM {below}")).await;
        if made.is_err() {
            refused = Some(sqlstate(made));
            break;
        }
    }
    assert_eq!(refused.as_deref(), Some("54001"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_create_creates_and_views_give_no_rights() {
    let user = |name: &str, access: Access| SqlUser {
        name: name.to_owned(),
        verifier: ScramVerifier::from_password("secret"),
        access,
    };
    let all = Access::reading().creating(true);
    let metrics = Access::only(["metrics".to_owned()]);
    let users = vec![
        user("maker", all),
        user("reader", Access::reading()),
        user("narrow", metrics.clone().creating(true)),
    ];
    let server = Server::start(SqlOptions { users, ..SqlOptions::default() }).await;
    let connect = async |name: &str| server.try_connect(name, Some("secret")).await.expect("connects");
    let (maker, reader, narrow) = (connect("maker").await, connect("reader").await, connect("narrow").await);
    rows(&maker, "CREATE VIEW names AS SELECT metric FROM tsdb.series").await;
    assert!(!rows(&reader, "SELECT * FROM names").await.is_empty());
    assert_eq!(sqlstate(reader.simple_query("CREATE VIEW v AS SELECT 1 AS x").await), "42501");
    assert_eq!(sqlstate(reader.simple_query("DROP VIEW names").await), "42501");
    // The view is in a schema that they may read, what it reads is not.
    assert_eq!(sqlstate(narrow.simple_query("SELECT * FROM names").await), "42501");
    assert_eq!(
        sqlstate(narrow.simple_query("SELECT count(*) FROM (SELECT 1 FROM names) AS t").await),
        "42501"
    );
    assert_eq!(sqlstate(narrow.simple_query("CREATE VIEW v AS SELECT * FROM tsdb.series").await), "42501");
}

#[tokio::test(flavor = "multi_thread")]
async fn views_outlive_a_restart_and_damage_is_said_and_not_written_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("sql").join("views.json");
    {
        let catalog = catalog();
        catalog.keep_in(dir.path());
        let server = Server::over(catalog, SqlOptions::default()).await;
        let client = server.connect().await;
        rows(&client, "CREATE VIEW \"Odd \"\"one\" AS SELECT job FROM up WHERE job <> 'it''s'").await;
    }
    let catalog_again = catalog();
    catalog_again.keep_in(dir.path());
    let server = Server::over(catalog_again, SqlOptions::default()).await;
    let client = server.connect().await;
    assert_eq!(rows(&client, "SELECT DISTINCT job FROM \"Odd \"\"one\" ORDER BY 1").await, ["api", "node"]);

    let whole = std::fs::read_to_string(&file).expect("reads");
    for damaged in [
        &whole[..whole.len() / 2],
        "{}",
        "{\"version\": 7, \"views\": []}",
        "",
        "{\"version\":1,\"views\":[{}]}",
    ] {
        std::fs::write(&file, damaged).expect("writes");
        let catalog = catalog();
        catalog.keep_in(dir.path());
        let server = Server::over(catalog, SqlOptions::default()).await;
        let client = server.connect().await;
        assert_eq!(rows(&client, "SELECT count(*) FROM up").await, ["363"]);
        for statement in ["SELECT * FROM \"Odd \"\"one\"", "CREATE VIEW v AS SELECT 1 AS x", "DROP VIEW v"] {
            let error = client.simple_query(statement).await.expect_err(statement);
            assert!(format!("{error:?}").contains("views.json"), "{statement}: {error:?}");
        }
        assert_eq!(std::fs::read_to_string(&file).expect("reads"), damaged);
    }
    // Written by hand, as nobody could create them.
    let circle = "{\"version\":1,\"views\":[{\"name\":\"a\",\"query\":\"SELECT * FROM b\"},\
                  {\"name\":\"b\",\"query\":\"SELECT * FROM a\"},{\"name\":\"c\",\"query\":\"SELECT gone FROM up\"},\
                  {\"name\":\"d\",\"query\":\"DROP VIEW a\"}]}";
    std::fs::write(&file, circle).expect("writes");
    let catalog = catalog();
    catalog.keep_in(dir.path());
    let server = Server::over(catalog, SqlOptions::default()).await;
    let client = server.connect().await;
    assert_eq!(sqlstate(client.simple_query("SELECT * FROM a").await), "42P17");
    let gone = client.simple_query("SELECT * FROM c").await.expect_err("gone");
    assert!(
        format!("{gone:?}").contains("view \\\"c\\\" cannot be used: column \\\"gone\\\" does not exist"),
        "{gone:?}"
    );
    assert_eq!(sqlstate(client.simple_query("SELECT * FROM d").await), "42601");
    // Broken ones keep nobody from looking around.
    assert!(rows(&client, "SELECT count(*) > 5 FROM information_schema.columns").await == ["t"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_shows_views() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    rows(&client, "CREATE VIEW busy AS SELECT job, max(value) FROM up GROUP BY job").await;
    let mut command = psql_command(&server, "tester");
    for script in [
        "\\dv",
        "\\d busy",
        "\\d+ busy",
        "\\sv busy",
        "SELECT view_definition FROM information_schema.views WHERE table_name = 'busy'",
        "SELECT viewname, definition FROM pg_views WHERE schemaname = 'metrics'",
    ] {
        command.args(["-c", script]);
    }
    let Some(shown) = run(command).await else { return };
    for part in [
        " metrics | busy | view | postgres",
        "View \"metrics.busy\"",
        " max    | double precision |",
        "View definition:\n SELECT job, max(value) FROM up GROUP BY job;",
        "CREATE OR REPLACE VIEW metrics.busy AS\n SELECT job, max(value) FROM up GROUP BY job",
        "  SELECT job, max(value) FROM up GROUP BY job;",
        " busy     |  SELECT job, max(value) FROM up GROUP BY job;",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    assert!(!shown.contains("ERROR"), "{shown}");
}
