//! SQL over the wire answers from the same samples.

use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::support::{Target, TestServer, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn targets_are_a_table() {
    let target = Target::start("x 1\n").await;
    let server = TestServer::with_config(&target.config()).await;
    let sql = server.running.sql_addr().unwrap();
    let config = format!("host={} port={} user=me dbname=promontory", sql.ip(), sql.port());
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let query =
        "SELECT scrape_pool, url, labels FROM tsdb.targets WHERE health = 'up' AND last_scrape IS NOT NULL";
    let row = eventually("a scraped target", || async {
        let messages = client.simple_query(query).await.unwrap();
        messages.into_iter().find_map(|m| match m {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
    })
    .await;
    assert_eq!(row.get(0), Some("fake"));
    assert_eq!(row.get(1), Some(format!("http://{}/metrics", target.addr).as_str()));
    assert_eq!(row.get(2), Some(format!("{{\"instance\":\"{}\",\"job\":\"fake\"}}", target.addr).as_str()));
    drop(client);
    let _ = connection.await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_clients_read_what_was_appended() {
    let server = TestServer::idle().await;
    server.append(&[("__name__", "up"), ("job", "a")], &[(1_795_219_200_000, 1.0), (1_795_219_215_000, 3.0)]);
    let sql = server.running.sql_addr().unwrap();
    let config = format!("host={} port={} user=me dbname=promontory", sql.ip(), sql.port());
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let rows = client.simple_query("SELECT job, avg(value) FROM up GROUP BY 1").await.unwrap();
    let rows: Vec<_> = rows
        .iter()
        .filter_map(|m| match m {
            SimpleQueryMessage::Row(row) => {
                Some((row.get(0).unwrap().to_owned(), row.get(1).unwrap().parse::<f64>().unwrap()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(rows, [("a".to_owned(), 2.0)]);
    drop(client);
    let _ = connection.await;
    server.stop().await;
}

const T0: i64 = 1_795_219_200_000;

async fn ask(server: &TestServer, kind: &str, accept: &str, body: &str) -> (u16, Vec<u8>) {
    let request = reqwest::Client::new().post(server.url("/api/v1/sql"));
    let request = request.header("content-type", kind).header("accept", accept).body(body.to_owned());
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.bytes().await.unwrap().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_over_http_gives_rows_in_each_form() {
    let server = TestServer::idle().await;
    server.append(&[("__name__", "up"), ("job", "a,\"b\"")], &[(T0, 1.0), (T0 + 15_000, f64::NAN)]);
    let query = "SELECT timestamp, job, value, NULL AS nothing FROM up ORDER BY timestamp";
    let (status, body) = ask(&server, "application/sql", "*/*", query).await;
    let got: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(status, 200, "{got}");
    let rows = serde_json::json!([
        ["2026-11-21T00:00:00Z", "a,\"b\"", 1.0, null],
        ["2026-11-21T00:00:15Z", "a,\"b\"", "NaN", null]
    ]);
    assert_eq!(got["data"]["rows"], rows);
    assert_eq!(
        got["data"]["columns"][0],
        serde_json::json!({"name": "timestamp", "type": "timestamp with time zone"})
    );
    let (status, csv) = ask(&server, "application/sql", "text/csv", query).await;
    let expected = "timestamp,job,value,nothing\n2026-11-21 00:00:00+00,\"a,\"\"b\"\"\",1,\n\
                    2026-11-21 00:00:15+00,\"a,\"\"b\"\"\",NaN,\n";
    assert_eq!((status, String::from_utf8(csv).unwrap().as_str()), (200, expected));
    let (status, arrow) = ask(&server, "application/sql", "application/vnd.apache.arrow.stream", query).await;
    assert_eq!(status, 200);
    let reader = arrow_ipc::reader::StreamReader::try_new(&arrow[..], None).unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 2);
    // The engine's own name of this column is another.
    let (status, got) = ask(
        &server,
        "application/sql",
        "text/csv",
        "SELECT relname::text FROM pg_class WHERE relname = 'up'",
    )
    .await;
    assert_eq!((status, String::from_utf8(got).unwrap().as_str()), (200, "relname\nup\n"));
    let (status, _) = ask(&server, "application/sql", "image/png", query).await;
    assert_eq!(status, 406);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_over_http_are_bound_and_not_pasted() {
    let server = TestServer::idle().await;
    server.append(&[("__name__", "up"), ("job", "it's")], &[(T0, 1.0)]);
    let body = serde_json::json!({
        "query": "SELECT count(*) AS n FROM up WHERE job = $1 AND value >= $2 AND timestamp >= $3::timestamptz",
        "params": ["it's", 1, "2026-11-21T00:00:00Z"]
    });
    let (status, got) = ask(&server, "application/json", "application/json", &body.to_string()).await;
    let got: serde_json::Value = serde_json::from_slice(&got).unwrap();
    assert_eq!((status, &got["data"]["rows"]), (200, &serde_json::json!([[1]])), "{got}");
    let (status, form) =
        ask(&server, "application/x-www-form-urlencoded", "*/*", "query=SELECT+1+AS+one").await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&form));
    for (body, status, expected) in [
        ("SELECT * FROM nothing", 400, "42P01"),
        ("SELEC 1", 400, "42601"),
        ("SELECT 1; SELECT 2", 400, "42601"),
        ("SELECT $1::int", 400, "42601"),
        ("DELETE FROM up", 400, "0A000"),
        ("SET TimeZone = 'UTC'", 400, "0A000"),
    ] {
        let (got_status, got) = ask(&server, "text/plain", "*/*", body).await;
        let got = String::from_utf8(got).unwrap();
        assert!(got_status == status && got.contains(expected), "{body}: {got_status} {got}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_the_configuration_log_in_and_read_what_is_theirs() {
    let mut verifier = super::support::binary();
    verifier.args(["sql", "verifier"]).stdin(std::process::Stdio::piped());
    let mut child = verifier.stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"s3cret\n").unwrap();
    let verifier = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let yaml = format!(
        "sql:\n  users:\n    - name: viewer\n      verifier: {}\n      schemas: [metrics]\n",
        verifier.trim()
    );
    let server = TestServer::with_config(&yaml).await;
    server.append(&[("__name__", "up")], &[(T0, 1.0)]);
    let sql = server.running.sql_addr().unwrap();
    let config = |password: &str| {
        format!("host={} port={} user=viewer password={password} dbname=promontory", sql.ip(), sql.port())
    };
    assert!(tokio_postgres::connect(&config("wrong"), NoTls).await.is_err());
    let (client, connection) = tokio_postgres::connect(&config("s3cret"), NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.simple_query("SELECT * FROM up").await.unwrap();
    let refused = client.simple_query("SELECT * FROM tsdb.blocks").await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "42501");
    drop(client);
    let _ = connection.await;
    let post = |query: &'static str, password: Option<&'static str>| {
        let request = reqwest::Client::new().post(server.url("/api/v1/sql")).body(query);
        let request = match password {
            Some(password) => request.basic_auth("viewer", Some(password)),
            None => request,
        };
        async move { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(post("SELECT * FROM up", Some("s3cret")).await, 200);
    assert_eq!(post("SELECT * FROM up", Some("wrong")).await, 401);
    assert_eq!(post("SELECT * FROM up", None).await, 401);
    assert_eq!(post("SELECT * FROM tsdb.blocks", Some("s3cret")).await, 403);
    let (_, shown) = server.get("/api/v1/status/config").await;
    let shown = shown["data"]["yaml"].as_str().unwrap();
    assert!(shown.contains("name: viewer") && !shown.contains("SCRAM"), "{shown}");
    server.stop().await;
}
