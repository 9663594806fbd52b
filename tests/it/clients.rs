//! What people connect with from Python: `tests/clients/*.py` against a server, each if it can be imported.

use std::process::Command;

use super::support::TestServer;

const T0: i64 = 1_795_219_200_000;

/// Runs `script`, which fails with a message; skipped where `module` is not installed.
async fn run(script: &str, modules: &[&str]) {
    let imports = format!("import {}", modules.join(", "));
    let installed = Command::new("python3").args(["-c", &imports]).output();
    if !installed.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: python3 cannot import {}", modules.join(", "));
        return;
    }
    let server = TestServer::idle().await;
    for job in ["api", "node"] {
        let samples: Vec<_> = (0..10).map(|i| (T0 + i * 15_000, 1.0)).collect();
        server.append(&[("__name__", "up"), ("job", job)], &samples);
    }
    let sql = server.running.sql_addr().unwrap();
    let mut python = Command::new("python3");
    python
        .arg(format!("{}/tests/clients/{script}.py", env!("CARGO_MANIFEST_DIR")))
        .env("PROMONTORY_URL", format!("postgresql://me@{}:{}/promontory", sql.ip(), sql.port()))
        .env("PROMONTORY_DSN", format!("host={} port={} user=me dbname=promontory", sql.ip(), sql.port()));
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
