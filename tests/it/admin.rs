//! The admin API: deletion, its clean-up, snapshots; and that it is off unless asked for.

use promontory_tsdb::{Db, DbOptions, Queryable as _};
use serde_json::Value;

use super::support::TestServer;

async fn call(server: &TestServer, method: reqwest::Method, path: &str) -> (u16, Value) {
    let url = server.url(&format!("/api/v1/admin/tsdb/{path}"));
    let response = reqwest::Client::new().request(method, url).send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null))
}

async fn admin() -> TestServer {
    let server = TestServer::with_options("scrape_configs: []\n", |o| o.enable_admin_api = true).await;
    for job in ["a", "b"] {
        let samples: Vec<(i64, f64)> = (0..10).map(|i| (1_000_000 + i * 1000, i as f64)).collect();
        server.append(&[("__name__", "m"), ("job", job)], &samples);
    }
    server
}

/// Samples of metric `m` by job.
async fn samples(server: &TestServer) -> Vec<(String, usize)> {
    let (_, json) = server.get("/api/v1/query?query=m[1h]&time=2000").await;
    let series = json["data"]["result"].as_array().unwrap().iter();
    series
        .map(|s| (s["metric"]["job"].as_str().unwrap().to_owned(), s["values"].as_array().unwrap().len()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_is_off_unless_asked_for() {
    let server = TestServer::idle().await;
    for path in ["delete_series?match[]=up", "clean_tombstones", "snapshot"] {
        let (status, json) = call(&server, reqwest::Method::POST, path).await;
        assert_eq!((status, json["errorType"].as_str()), (503, Some("unavailable")), "{path}: {json}");
        assert_eq!(json["error"], "admin APIs disabled");
    }
    let (status, _) = call(&server, reqwest::Method::GET, "snapshot").await;
    assert_eq!(status, 405);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_samples_are_gone_for_good() {
    let server = admin().await;
    let (status, json) = call(&server, reqwest::Method::POST, "delete_series").await;
    assert_eq!((status, json["error"].as_str()), (400, Some("no match[] parameter provided")));
    let (status, json) = call(&server, reqwest::Method::POST, "delete_series?match[]=m%7B").await;
    assert_eq!(status, 400);
    assert!(json["error"].as_str().unwrap().starts_with("invalid parameter \"match[]\": "), "{json}");

    let path = "delete_series?match[]=m%7Bjob=%22a%22%7D&start=1003&end=1005";
    assert_eq!(call(&server, reqwest::Method::PUT, path).await, (204, Value::Null));
    assert_eq!(samples(&server).await, [("a".to_owned(), 7), ("b".to_owned(), 10)]);
    assert_eq!(call(&server, reqwest::Method::POST, "clean_tombstones").await.0, 204);
    assert_eq!(samples(&server).await, [("a".to_owned(), 7), ("b".to_owned(), 10)]);
    let form = reqwest::Client::new()
        .post(server.url("/api/v1/admin/tsdb/delete_series"))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body("match[]=m");
    assert_eq!(form.send().await.unwrap().status().as_u16(), 204);
    assert_eq!(samples(&server).await, []);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_a_data_directory() {
    let server = admin().await;
    let (status, json) = call(&server, reqwest::Method::POST, "snapshot?skip_head=maybe").await;
    assert_eq!(status, 400);
    assert!(json["error"].as_str().unwrap().contains("unable to parse boolean"), "{json}");
    let (status, json) = call(&server, reqwest::Method::POST, "snapshot").await;
    assert_eq!(status, 200, "{json}");
    let name = json["data"]["name"].as_str().unwrap();
    let mut options = DbOptions::new(server.dir.path().join("data/snapshots").join(name));
    options.read_only = true;
    let copy = Db::open(options).unwrap();
    let stats = copy.series_stats(&[], i64::MIN, i64::MAX).unwrap();
    assert_eq!((stats.series, stats.samples), (2, 20));
    assert_eq!(copy.blocks().len(), 1);
    server.stop().await;
}
