//! COPY, cursors, PREPARE, who is connected, who may read what, encryption.

use futures::TryStreamExt;
use promontory_sql::{Access, ScramVerifier, SqlOptions, SqlTls, SqlUser};
use tokio_postgres::SimpleQueryMessage;

use crate::psql::{psql_command, run};
use crate::{ENDLESS, Server, sqlstate};

async fn copied(client: &tokio_postgres::Client, copy: &str) -> Vec<u8> {
    let chunks = client.copy_out(copy).await.expect(copy);
    let chunks: Vec<_> = chunks.try_collect().await.expect(copy);
    chunks.concat()
}

fn texts(messages: &[SimpleQueryMessage]) -> Vec<Vec<Option<&str>>> {
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i)).collect()),
        _ => None,
    });
    rows.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_gives_the_rows_of_a_query_in_each_format() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    let query = "SELECT timestamp, instance, value, env FROM up WHERE timestamp = now() ORDER BY instance";
    let text = copied(&client, &format!("COPY ({query}) TO STDOUT")).await;
    let expected = "2026-01-01 12:00:00+00\ta:9100\t1\t\\N\n2026-01-01 12:00:00+00\tapi:8080\t1\tprod\n\
                    2026-01-01 12:00:00+00\tb:9100\t1\t\\N\n";
    assert_eq!(String::from_utf8(text).expect("UTF-8"), expected);
    let csv = copied(&client, &format!("COPY ({query} LIMIT 1) TO STDOUT WITH (FORMAT csv, HEADER)")).await;
    let expected = "timestamp,instance,value,env\n2026-01-01 12:00:00+00,a:9100,1,\n";
    assert_eq!(String::from_utf8(csv).expect("UTF-8"), expected);
    let binary = copied(&client, "COPY (SELECT 1::int4, NULL::text) TO STDOUT WITH (FORMAT binary)").await;
    let expected = [
        &b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"[..],
        b"\0\x02\0\0\0\x04\0\0\0\x01\xff\xff\xff\xff",
        b"\xff\xff",
    ];
    assert_eq!(binary, expected.concat());
    let table = copied(&client, "COPY metrics.up (instance, job) TO STDOUT").await;
    assert_eq!(table.iter().filter(|b| **b == b'\n').count(), 363);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_cannot_be_is_an_error_and_the_connection_goes_on() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    for (copy, expected) in [
        ("COPY up FROM STDIN", "0A000"),
        ("COPY up TO '/tmp/file'", "0A000"),
        ("COPY up TO STDOUT (FORMAT parquet)", "22023"),
        ("COPY nothing TO STDOUT", "42P01"),
    ] {
        assert_eq!(sqlstate(client.simple_query(copy).await), expected, "{copy}");
    }
    // Among its rows, long after it began.
    let copy = "COPY (SELECT 1 / (value - value)::int FROM up) TO STDOUT";
    let rows = client.copy_out(copy).await.expect("begins");
    assert_eq!(sqlstate(rows.try_collect::<Vec<_>>().await), "22012");
    client.simple_query("SELECT 1").await.expect("goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_copies_to_a_file() {
    let server = Server::start(SqlOptions::default()).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("up.csv");
    let mut command = psql_command(&server, "tester");
    let copy = format!("\\copy (SELECT DISTINCT job FROM up ORDER BY 1) TO '{}' CSV HEADER", file.display());
    command.args(["-c", &copy]);
    let Some(said) = run(command).await else { return };
    assert_eq!(said, "COPY 2\n");
    assert_eq!(std::fs::read_to_string(file).expect("written"), "job\napi\nnode\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_goes_forward_through_its_rows() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    assert_eq!(sqlstate(client.simple_query("DECLARE c CURSOR FOR SELECT 1").await), "25P01");
    client.simple_query("BEGIN").await.expect("begins");
    let declare =
        "DECLARE c NO SCROLL CURSOR FOR SELECT value FROM \"Odd:Metric\" WHERE value > 5 ORDER BY 1";
    client.simple_query(declare).await.expect("declares");
    let mut got = Vec::new();
    for fetch in
        ["FETCH c", "FETCH FORWARD 2 FROM c", "FETCH 0 IN c", "FETCH ALL FROM c", "FETCH NEXT FROM c"]
    {
        let messages = client.simple_query(fetch).await.expect(fetch);
        got.push(texts(&messages).len());
    }
    // 6 to 120, 1e100, infinity, and NaN, which is above all in Postgres.
    assert_eq!(got, [1, 2, 0, 115, 0]);
    assert_eq!(sqlstate(client.simple_query("FETCH PRIOR FROM c").await), "55000");
    client.simple_query("ROLLBACK; BEGIN").await.expect("another one");
    assert_eq!(sqlstate(client.simple_query("FETCH c").await), "34000");
    client.simple_query("ROLLBACK").await.expect("ends");
    client.simple_query("DECLARE h CURSOR WITH HOLD FOR SELECT 1").await.expect("needs no transaction");
    let held = client.simple_query("BEGIN; COMMIT; FETCH ALL FROM h").await.expect("outlives transactions");
    assert_eq!(texts(&held), [[Some("1")]]);
    client.simple_query("CLOSE h").await.expect("closes");
    assert_eq!(sqlstate(client.simple_query("CLOSE h").await), "34000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_fetch_takes_the_cursor_that_is_there_when_it_runs() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    let declare = "DECLARE c CURSOR FOR SELECT value FROM (VALUES (1), (2), (3)) AS t (value) ORDER BY 1";
    client.batch_execute(&format!("BEGIN; {declare}")).await.expect("declares");
    let fetch = client.prepare("FETCH 2 FROM c").await.expect("prepares");
    let fetched = async || {
        let rows = client.query(&fetch, &[]).await?;
        Ok::<_, tokio_postgres::Error>(rows.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>())
    };
    assert_eq!(fetched().await.expect("fetches"), [1, 2]);
    client.batch_execute(&format!("CLOSE c; {declare}")).await.expect("declares again");
    assert_eq!(fetched().await.expect("fetches"), [1, 2]);
    client.batch_execute("CLOSE c; DECLARE c CURSOR FOR SELECT 'x'").await.expect("another one");
    assert_eq!(sqlstate(fetched().await), "0A000");
    client.batch_execute(&format!("ROLLBACK; BEGIN; {declare}")).await.expect("declares");
    let messages = client.simple_query("FETCH 1 FROM c; FETCH NEXT FROM c;").await.expect("both");
    assert_eq!(texts(&messages), [[Some("1")], [Some("2")]]);
    client.batch_execute("ROLLBACK").await.expect("ends");
    assert_eq!(sqlstate(fetched().await), "34000");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_closes_is_gone_and_nothing_runs_after_a_failure() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    let one = client.prepare("SELECT 1").await.expect("prepares");
    client.batch_execute("BEGIN").await.expect("begins");
    assert_eq!(sqlstate(client.query("SELECT nothing", &[]).await), "42703");
    assert_eq!(sqlstate(client.query(&one, &[]).await), "25P02");
    client.batch_execute("ROLLBACK").await.expect("ends");
    client.query(&one, &[]).await.expect("runs again");
    // Clients of this kind give the names s0, s1 and so on, counted for all of them together.
    let known = async |n: usize| sqlstate(client.simple_query(&format!("EXECUTE s{n}")).await) != "26000";
    let mut number = 0;
    while !known(number).await {
        number += 1;
        assert!(number < 1_000, "names are given in another way");
    }
    drop(one);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while known(number).await {
        assert!(std::time::Instant::now() < deadline, "a closed statement stays");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn portals_end_with_their_transaction() {
    let server = Server::start(SqlOptions::default()).await;
    let mut client = server.connect().await;
    let transaction = client.transaction().await.expect("begins");
    let portal = transaction.bind("SELECT value FROM up", &[]).await.expect("binds");
    assert_eq!(transaction.query_portal(&portal, 2).await.expect("two rows").len(), 2);
    transaction.batch_execute("COMMIT; BEGIN").await.expect("another transaction");
    assert_eq!(sqlstate(transaction.query_portal(&portal, 2).await), "34000");
}

#[tokio::test(flavor = "multi_thread")]
async fn prepare_keeps_a_statement_that_execute_runs() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    client
        .simple_query("PREPARE p (text) AS SELECT count(*) FROM up WHERE job = $1")
        .await
        .expect("prepares");
    for (execute, expected) in [("EXECUTE p('node')", "242"), ("EXECUTE p('a' || 'pi')", "121")] {
        let messages = client.simple_query(execute).await.expect(execute);
        assert_eq!(texts(&messages), [[Some(expected)]], "{execute}");
    }
    for (statement, expected) in [
        ("PREPARE p AS SELECT 1", "42P05"),
        ("EXECUTE p", "42601"),
        ("EXECUTE q", "26000"),
        ("PREPARE w AS DELETE FROM up", "0A000"),
    ] {
        assert_eq!(sqlstate(client.simple_query(statement).await), expected, "{statement}");
    }
    client.simple_query("DEALLOCATE p").await.expect("forgets");
    assert_eq!(sqlstate(client.simple_query("EXECUTE p('node')").await), "26000");
}

/// Expected answers are those of PostgreSQL 15.
#[tokio::test(flavor = "multi_thread")]
async fn like_takes_any_escape_character() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    for (expression, expected) in [
        ("'a/b' LIKE 'a//b' ESCAPE '/'", "t"),
        ("'a_b' LIKE 'a/_b' ESCAPE '/'", "t"),
        ("'axb' LIKE 'a/_b' ESCAPE '/'", "f"),
        ("'axb' LIKE 'a_b' ESCAPE '/'", "t"),
        ("'a\\b' LIKE 'a\\b' ESCAPE '/'", "t"),
        ("'100%' LIKE '%!%' ESCAPE '!'", "t"),
        ("'a_' LIKE 'a__' ESCAPE '_'", "t"),
        ("'ax' LIKE 'a__' ESCAPE '_'", "f"),
    ] {
        let messages = client.simple_query(&format!("SELECT {expression}")).await.expect(expression);
        assert_eq!(texts(&messages), [[Some(expected)]], "{expression}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn current_setting_is_that_of_the_session() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    client.simple_query("SET statement_timeout = '7s'").await.expect("sets");
    let query = "SELECT current_setting('Statement_Timeout'), current_setting('no.such', true)";
    let messages = client.simple_query(query).await.expect("asks");
    assert_eq!(texts(&messages), [[Some("7s"), None]]);
    assert_eq!(sqlstate(client.simple_query("SELECT current_setting('no_such')").await), "42704");
}

#[tokio::test(flavor = "multi_thread")]
async fn pg_stat_activity_shows_who_does_what() {
    let server = Server::start(SqlOptions::default()).await;
    let (busy, watcher) = (server.connect().await, server.connect().await);
    busy.simple_query("SET application_name = 'report'").await.expect("sets");
    let running = tokio::spawn(async move { sqlstate(busy.simple_query(ENDLESS).await) });
    let ask = "SELECT usename, state, query FROM pg_stat_activity WHERE application_name = 'report'";
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let messages = watcher.simple_query(ask).await.expect("asks");
        if texts(&messages) == [[Some("tester"), Some("active"), Some(ENDLESS)]] {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{messages:?}");
        tokio::task::yield_now().await;
    }
    let myself = "SELECT state FROM pg_catalog.pg_stat_activity WHERE query LIKE '%myself%'";
    let messages = watcher.simple_query(&format!("{myself} -- myself")).await.expect("asks");
    assert_eq!(texts(&messages), [[Some("active")]]);
    server.shutdown.cancel();
    running.await.expect("ends");
}

pub(crate) fn user(name: &str, access: Access) -> SqlUser {
    SqlUser { name: name.to_owned(), verifier: ScramVerifier::from_password("s3cret"), access }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_reads_the_schemas_that_are_theirs() {
    let only = Access::only(["metrics".to_owned()]);
    let users = vec![user("all", Access::default()), user("viewer", only)];
    let server = Server::start(SqlOptions { users, ..SqlOptions::default() }).await;
    let all = server.try_connect("all", Some("s3cret")).await.expect("gets in");
    let viewer = server.try_connect("viewer", Some("s3cret")).await.expect("gets in");
    for query in [
        "SELECT * FROM tsdb.blocks",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM tsdb.series)",
        "COPY tsdb.series TO STDOUT",
        "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM tsdb.series",
        "EXPLAIN SELECT * FROM tsdb.series",
        "PREPARE p AS SELECT * FROM tsdb.series",
        "WITH s AS (SELECT * FROM tsdb.series) SELECT * FROM s",
    ] {
        assert_eq!(sqlstate(viewer.simple_query(query).await), "42501", "{query}");
        if query.starts_with("COPY") {
            copied(&all, query).await;
        } else {
            all.simple_query(query).await.expect(query);
        }
    }
    for query in ["SELECT * FROM up", "SELECT * FROM pg_catalog.pg_class", "SELECT 1", "SELECT version()"] {
        viewer.simple_query(query).await.expect(query);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_ask_is_for_those_who_may_read_everything() {
    let only = Access::only(["metrics".to_owned(), "tsdb".to_owned()]);
    let users = vec![user("all", Access::reading()), user("viewer", only)];
    let server = Server::start(SqlOptions { users, ..SqlOptions::default() }).await;
    let all = server.try_connect("all", Some("s3cret")).await.expect("gets in");
    let viewer = server.try_connect("viewer", Some("s3cret")).await.expect("gets in");
    all.simple_query("SELECT 'secret' FROM nowhere").await.expect_err("there is no such table");
    viewer.simple_query("SELECT 'known'").await.expect("runs");
    let failed =
        "SELECT query, error LIKE '%nowhere%' FROM tsdb.queries WHERE user_name = 'all' AND state = 'failed'";
    let messages = viewer.simple_query(failed).await.expect("shows");
    assert_eq!(texts(&messages), [[Some("<insufficient privilege>"), None]]);
    let messages = all.simple_query(failed).await.expect("shows");
    assert_eq!(texts(&messages), [[Some("SELECT 'secret' FROM nowhere"), Some("t")]]);
    let own = "SELECT count(*) FROM tsdb.queries WHERE user_name = 'viewer' AND query = 'SELECT ''known'''";
    let messages = viewer.simple_query(own).await.expect("shows");
    assert_eq!(texts(&messages), [[Some("1")]]);
    let activity = "SELECT usename, query LIKE 'SELECT %', query = '<insufficient privilege>', client_addr, \
                    backend_start IS NULL FROM pg_stat_activity ORDER BY usename";
    let (hidden, shown) =
        ([Some("f"), Some("t"), None, Some("t")], [Some("t"), Some("f"), Some("127.0.0.1"), Some("f")]);
    for (client, of_all) in [(&viewer, hidden), (&all, shown)] {
        let messages = client.simple_query(activity).await.expect("shows");
        let expected = [[&[Some("all")], &of_all[..]].concat(), [&[Some("viewer")], &shown[..]].concat()];
        assert_eq!(texts(&messages), expected);
    }
}

/// A certificate for 127.0.0.1 by itself, and its key.
pub(crate) fn certificate(dir: &std::path::Path) -> (Vec<u8>, Vec<u8>, std::path::PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]);
    let made = made.expect("a certificate");
    let path = dir.join("root.crt");
    std::fs::write(&path, made.cert.pem()).expect("writes");
    (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes(), path)
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_encrypts_and_binds_its_login_to_the_certificate() {
    let dir = tempfile::tempdir().expect("a directory");
    let (chain, key, root) = certificate(dir.path());
    let tls = Some(SqlTls::from_pem(&chain, &key, true).expect("belongs together"));
    let users = vec![user("grafana", Access::default())];
    let server = Server::start(SqlOptions { users, tls, ..SqlOptions::default() }).await;
    let refused = "this server takes encrypted connections only";
    for (mode, binding, expected) in
        [("verify-full", "require", "1\n"), ("require", "disable", "1\n"), ("disable", "disable", refused)]
    {
        let mut command = psql_command(&server, "grafana");
        command.args(["-At", "-c", "SELECT 1"]).env("PGPASSWORD", "s3cret");
        command.env("PGSSLMODE", mode).env("PGSSLROOTCERT", &root).env("PGCHANNELBINDING", binding);
        let Some(got) = run(command).await else { return };
        assert!(got.contains(expected), "{mode} {binding}: {got}");
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_refused_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (chain, key, _) = certificate(dir.path());
    let (_, other_key, _) = certificate(dir.path());
    for (chain, key) in [(&b""[..], &key[..]), (&chain, b""), (&chain, &other_key), (b"garbage", b"garbage")]
    {
        let error = SqlTls::from_pem(chain, key, false).expect_err("unusable").to_string();
        assert!(error.starts_with("encryption for Postgres clients: "), "{error}");
    }
}
