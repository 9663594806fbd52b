//! What people connect with from Python: `tests/clients/*.py` against a server, each if it can be imported.

use std::process::Command;

use promontory::server::{ServerOptions, reachable};
use promontory_sql::ScramVerifier;

use super::support::TestServer;

const T0: i64 = 1_795_219_200_000;

/// Whether all of `modules` are installed; says so where not.
pub(super) fn python_has(modules: &[&str]) -> bool {
    let imports = format!("import {}", modules.join(", "));
    let installed = Command::new("python3").args(["-c", &imports]).output();
    let installed = installed.is_ok_and(|output| output.status.success());
    if !installed {
        eprintln!("skipped: python3 cannot import {}", modules.join(", "));
    }
    installed
}

/// Runs `script`, which fails with a message; skipped where one of `modules` is not installed.
async fn run(script: &str, modules: &[&str]) {
    if python_has(modules) {
        run_against(TestServer::idle().await, script, &[]).await;
    }
}

async fn run_against(server: TestServer, script: &str, environment: &[(&str, &str)]) {
    for job in ["api", "node"] {
        let samples: Vec<_> = (0..10).map(|i| (T0 + i * 15_000, 1.0)).collect();
        server.append(&[("__name__", "up"), ("job", job)], &samples);
    }
    let sql = server.running.sql_addr().unwrap();
    let mut python = Command::new("python3");
    python
        .arg(format!("{}/tests/clients/{script}.py", env!("CARGO_MANIFEST_DIR")))
        .env("PROMONTORY_URL", format!("postgresql://me@{}:{}/promontory", sql.ip(), sql.port()))
        .env("PROMONTORY_DSN", format!("host={} port={} user=me dbname=promontory", sql.ip(), sql.port()))
        .envs(environment.iter().copied());
    if let Some(flight) = server.running.flight_addr().map(reachable) {
        let scheme = if environment.is_empty() { "grpc" } else { "grpc+tls" };
        python.env("PROMONTORY_FLIGHT", format!("{scheme}://{}:{}", flight.ip(), flight.port()));
    }
    let output = tokio::task::spawn_blocking(move || python.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{script}: {said}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn psycopg_works() {
    run("psycopg_client", &["psycopg"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asyncpg_works() {
    run("asyncpg_client", &["asyncpg"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlalchemy_reflects_and_queries() {
    run("sqlalchemy_client", &["sqlalchemy", "psycopg"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn adbc_reads_rows_as_arrow() {
    run("adbc_client", &["adbc_driver_postgresql", "pyarrow"]).await;
}

const FLIGHT_MODULES: [&str; 2] = ["adbc_driver_flightsql.dbapi", "pyarrow"];

#[tokio::test(flavor = "multi_thread")]
async fn adbc_reads_rows_over_flight_sql() {
    if python_has(&FLIGHT_MODULES) {
        let flight = |options: &mut ServerOptions| options.flight_listen = Some("127.0.0.1:0".to_owned());
        let server = TestServer::with_options("scrape_configs: []\n", flight).await;
        run_against(server, "adbc_flight_client", &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn adbc_logs_in_over_an_encrypted_connection() {
    if !python_has(&FLIGHT_MODULES) {
        return;
    }
    let files = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let certificate = super::support::write(&files.path().join("server.crt"), &made.cert.pem());
    let key = super::support::write(&files.path().join("server.key"), &made.signing_key.serialize_pem());
    let yaml = format!(
        "sql:\n  users:\n    - name: viewer\n      verifier: {}\n      schemas: [metrics]\n\
         \x20 tls: {{cert_file: {}, key_file: {}}}\n",
        ScramVerifier::from_password("s3cret"),
        certificate.display(),
        key.display()
    );
    // Users and encryption: then any address may be listened on.
    let flight = |options: &mut ServerOptions| options.flight_listen = Some("0.0.0.0:0".to_owned());
    let server = TestServer::with_options(&yaml, flight).await;
    let port = server.running.flight_addr().unwrap().port();
    let plain = tonic::transport::Endpoint::new(format!("http://127.0.0.1:{port}")).unwrap().connect_lazy();
    let mut plain = arrow_flight::sql::client::FlightSqlServiceClient::new(plain);
    assert!(plain.handshake("viewer", "s3cret").await.is_err(), "nothing is served in the clear");
    let ca = certificate.display().to_string();
    run_against(server, "adbc_flight_client", &[("PROMONTORY_CA", &ca)]).await;
}

/// Plays back what `tool` asks: each statement answers, with the text that stands behind `-- expect:` above it.
async fn replay(tool: &str) {
    let path = format!("{}/tests/clients/recorded/{tool}.sql", env!("CARGO_MANIFEST_DIR"));
    let recorded = std::fs::read_to_string(path).unwrap();
    let server = TestServer::idle().await;
    for job in ["api", "node"] {
        let series = [("__name__", "up"), ("instance", "here:9100"), ("job", job)];
        server.append(&series, &[(T0, 1.0), (T0 + 15_000, 0.0)]);
    }
    let sql = server.running.sql_addr().unwrap();
    let config = format!("host={} port={} user=me dbname=promontory", sql.ip(), sql.port());
    let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut failed = Vec::new();
    for part in recorded.split("-- expect:").skip(1) {
        let (expected, statement) = part.split_once('\n').unwrap();
        let expected = expected.trim();
        match client.simple_query(statement).await {
            Err(error) => {
                let message = error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string);
                failed.push(format!("{message}: {statement}"));
            }
            Ok(messages) => {
                let rows = messages.iter().filter_map(|message| match message {
                    tokio_postgres::SimpleQueryMessage::Row(row) => {
                        let values = (0..row.len()).map(|i| row.get(i).unwrap_or("-").to_owned());
                        Some(values.collect::<Vec<_>>().join("|"))
                    }
                    _ => None,
                });
                let rows = rows.collect::<Vec<_>>().join("\n");
                if !rows.contains(expected) {
                    failed.push(format!("{expected:?} is not among the rows of {statement}\n{rows}"));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{tool}:\n{}", failed.join("\n"));
    drop(client);
    let _ = connection.await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dbeaver_finds_its_way() {
    replay("dbeaver").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metabase_finds_its_way() {
    replay("metabase").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grafana_finds_its_way() {
    replay("grafana").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn power_bi_finds_its_way() {
    replay("power_bi").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn superset_finds_its_way() {
    replay("superset").await;
}
