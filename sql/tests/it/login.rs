//! Who gets in, and how clients are sent away.

use std::net::SocketAddr;
use std::sync::Arc;

use promontory_sql::{Access, ScramVerifier, SqlCatalog, SqlError, SqlOptions, SqlServer, SqlUser};
use promontory_tsdb::SystemClock;

use crate::psql::{psql_command, run};
use crate::{Server, data, endless, sqlstate};

fn with_user(name: &str, password: &str) -> SqlOptions {
    let verifier = ScramVerifier::from_password(password);
    SqlOptions {
        users: vec![SqlUser { name: name.to_owned(), verifier, access: Access::default() }],
        ..SqlOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_gets_in_with_the_right_password_only() {
    let server = Server::start(with_user("grafana", "s3cret")).await;
    let client = server.try_connect("grafana", Some("s3cret")).await.expect("gets in");
    client.simple_query("SELECT 1").await.expect("runs");
    for (user, password) in [("grafana", "wrong"), ("nobody", "s3cret")] {
        assert_eq!(sqlstate(server.try_connect(user, Some(password)).await), "28P01", "{user}");
    }
    assert!(server.try_connect("grafana", None).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_logs_in_with_a_password() {
    let server = Server::start(with_user("grafana", "s3cret")).await;
    for (user, password, expected) in [
        ("grafana", Some("s3cret"), "1\n"),
        ("grafana", Some("wrong"), "password authentication failed for user \"grafana\""),
        ("nobody", Some("s3cret"), "password authentication failed for user \"nobody\""),
        ("grafana", None, "no password supplied"),
    ] {
        let mut command = psql_command(&server, user);
        command.args(["-At", "-c", "SELECT 1"]);
        if let Some(password) = password {
            command.env("PGPASSWORD", password);
        }
        let Some(got) = run(command).await else { return };
        assert!(got.contains(expected), "{user} {password:?}: {got}");
    }
}

#[tokio::test]
async fn an_open_server_listens_to_this_machine_only() {
    let catalog = SqlCatalog::new(Arc::new(data::storage()), Arc::new(SystemClock));
    let everywhere: SocketAddr = "0.0.0.0:0".parse().expect("an address");
    let options = SqlOptions { listen: everywhere, ..SqlOptions::default() };
    let refused = SqlServer::bind(Arc::clone(&catalog), options).await.expect_err("refuses");
    assert!(matches!(refused, SqlError::Open { .. }), "{refused}");
    let options = SqlOptions { listen: everywhere, ..with_user("u", "p") };
    SqlServer::bind(catalog, options).await.expect("with users it may");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_too_many_is_told_so() {
    let server = Server::start(SqlOptions { max_connections: 1, ..SqlOptions::default() }).await;
    let client = server.connect().await;
    assert_eq!(sqlstate(server.try_connect("second", None).await), "53300");
    client.simple_query("SELECT 1").await.expect("the first is not disturbed");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_running_statements_and_returns() {
    let server = Server::start(SqlOptions::default()).await;
    let (busy, _idle) = (server.connect().await, server.connect().await);
    let running = tokio::spawn(async move { endless(&busy).await });
    tokio::task::yield_now().await;
    server.shutdown.cancel();
    server.serving.await.expect("returns");
    let code = running.await.expect("ends");
    assert!(code == "57P01" || code.contains("closed"), "{code}");
}
