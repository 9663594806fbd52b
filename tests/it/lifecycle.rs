//! Start, readiness, reload, quit, shutdown.

use std::sync::Arc;
use std::time::Duration;

use promontory::server::{Server, ServerOptions, StartError};
use promontory_tsdb::fs::{self, Op, Refusal, Watch};

use super::support::{TestServer, write};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_says_that_it_lives_and_that_it_is_ready() {
    let server = TestServer::idle().await;
    assert_eq!(server.text("/-/healthy").await, (200, "Prometheus Server is Healthy.\n".to_owned()));
    assert_eq!(server.text("/-/ready").await, (200, "Prometheus Server is Ready.\n".to_owned()));
    let (status, page) = server.text("/").await;
    assert!(status == 200 && page.contains("psql -h 127.0.0.1"), "{page}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_configuration_is_reloaded_and_a_bad_one_changes_nothing() {
    let server = TestServer::with_config("global: {scrape_interval: 7s}\n").await;
    let path = server.dir.path().join("prometheus.yml");
    let reload = || async { reqwest::Client::new().post(server.url("/-/reload")).send().await.unwrap() };
    let yaml = || async { server.get("/api/v1/status/config").await.1["data"]["yaml"].to_string() };
    write(&path, "global: {scrape_interval: 8s}\nstorage: {tsdb: {retention: {time: 90d}}}\n");
    assert_eq!(reload().await.status(), 200);
    assert_eq!(server.get("/api/v1/status/runtimeinfo").await.1["data"]["storageRetention"], "90d");
    assert!(yaml().await.contains("scrape_interval: 8s"), "{}", yaml().await);
    write(&path, "globall: {}\n");
    let response = reload().await;
    assert_eq!(response.status(), 500);
    let text = response.text().await.unwrap();
    assert!(text.starts_with("failed to reload config: ") && text.contains("globall"), "{text}");
    assert!(yaml().await.contains("scrape_interval: 8s"));
    assert_eq!(server.get("/api/v1/status/runtimeinfo").await.1["data"]["reloadConfigSuccess"], false);
    assert_eq!(reqwest::get(server.url("/-/reload")).await.unwrap().status(), 405);
    server.stop().await;
}

/// A disk that takes writes to the log and then cannot make them durable.
#[derive(Debug)]
struct NoSync;

impl Watch for NoSync {
    fn before(&self, op: &Op<'_>) -> Result<(), Refusal> {
        match op {
            Op::SyncFile { path } if path.parent().is_some_and(|dir| dir.ends_with("wal")) => {
                Err(Refusal { error: std::io::Error::from_raw_os_error(5), written: 0 })
            }
            _ => Ok(()),
        }
    }

    fn after(&self, _: &Op<'_>) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_write_its_log_is_not_ready() {
    let mut watching = None;
    let server = TestServer::with_options("scrape_configs: []\n", |options| {
        watching = Some(fs::watch(&options.storage.path, Arc::new(NoSync)));
    })
    .await;
    let poisoned = || async {
        let page = server.text("/metrics").await.1;
        page.lines().find_map(|l| l.strip_prefix("prometheus_tsdb_wal_poisoned ").map(str::to_owned))
    };
    assert_eq!(poisoned().await.as_deref(), Some("0"));
    server.append(&[("__name__", "m")], &[(1, 1.0)]);
    assert!(server.running.db().sync().is_err());
    assert_eq!(poisoned().await.as_deref(), Some("1"));
    let (status, text) = server.text("/-/ready").await;
    assert!(status == 503 && text.contains("no more samples are stored"), "{status} {text}");
    assert_eq!(server.text("/-/healthy").await.0, 200);
    drop(server.running.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn quit_is_a_request_that_the_owner_hears() {
    let server = TestServer::idle().await;
    let answer = reqwest::Client::new().post(server.url("/-/quit")).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "Requesting termination... Goodbye!");
    tokio::time::timeout(Duration::from_secs(10), server.running.quit_requested()).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lifecycle_endpoints_are_closed_unless_enabled() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = ServerOptions::local(dir.path().join("data"));
    options.enable_lifecycle = false;
    options.config_file = Some(write(&dir.path().join("p.yml"), "scrape_configs: []\n"));
    let running = Server::start(options).await.unwrap();
    for path in ["reload", "quit"] {
        let url = format!("http://{}/-/{path}", running.http_addr());
        let answer = reqwest::Client::new().post(url).send().await.unwrap();
        assert_eq!(answer.status(), 403);
        assert_eq!(answer.text().await.unwrap(), "Lifecycle API is not enabled.");
    }
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_is_refused_and_free_again_after_shutdown() {
    let server = TestServer::idle().await;
    let mut options = ServerOptions::local(server.dir.path().join("data"));
    options.config_file = Some(server.dir.path().join("prometheus.yml"));
    let refused = Server::start(options.clone()).await.unwrap_err();
    assert!(matches!(refused, StartError::Storage(promontory_tsdb::Error::Locked { .. })), "{refused:?}");
    let _dir = server.stop().await;
    Server::start(options).await.unwrap().shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_survive_a_restart() {
    let server = TestServer::idle().await;
    server.append(&[("__name__", "kept")], &[(1_795_219_200_000, 42.0)]);
    let dir = server.stop().await;
    let mut options = ServerOptions::local(dir.path().join("data"));
    options.config_file = Some(dir.path().join("prometheus.yml"));
    let running = Server::start(options).await.unwrap();
    let url = format!("http://{}/api/v1/query?query=kept&time=1795219200", running.http_addr());
    let (_, json) = super::support::get_json(&url).await;
    assert_eq!(json["data"]["result"][0]["value"][1], "42", "{json}");
    running.shutdown().await.unwrap();
}
