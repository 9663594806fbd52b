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
