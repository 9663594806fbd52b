//! Targets become series, and what the API says of them.

use super::support::{Target, TestServer, eventually, query_value};

#[tokio::test(flavor = "multi_thread")]
async fn the_server_scrapes_itself() {
    // The port is not known before the start, so the job comes with a reload.
    let server = TestServer::idle().await;
    let yaml = format!(
        "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\nscrape_configs:\n- job_name: self\n  static_configs: [{{targets: ['{}']}}]\n",
        server.running.http_addr()
    );
    std::fs::write(server.dir.path().join("prometheus.yml"), yaml).unwrap();
    server.running.reload().await.unwrap();
    let base = server.url("");
    eventually("up is 1", || async { query_value(&base, "up{job=\"self\"}").await.filter(|v| v == "1") })
        .await;
    eventually("own metrics are stored", || query_value(&base, "prometheus_tsdb_head_series")).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_stored_shown_and_marked_stale_when_it_fails() {
    let target =
        Target::start("# HELP req_total Requests.\n# TYPE req_total counter\nreq_total{path=\"/\"} 5\n")
            .await;
    let server = TestServer::with_config(&target.config()).await;
    let base = server.url("");
    let stored = eventually("a sample", || query_value(&base, "req_total{path=\"/\"}")).await;
    assert_eq!(stored, "5");
    let (_, json) = server.get("/api/v1/targets?state=active").await;
    let shown = &json["data"]["activeTargets"][0];
    assert_eq!((&shown["health"], &shown["scrapePool"]), (&"up".into(), &"fake".into()), "{json}");
    assert_eq!(shown["scrapeInterval"], "100ms");
    assert_eq!(shown["labels"]["instance"], target.addr.to_string());
    let metadata = eventually("metadata", || async {
        let (_, json) = server.get("/api/v1/metadata?metric=req_total").await;
        json["data"]["req_total"][0].as_object().cloned()
    });
    assert_eq!(metadata.await["type"], "counter");
    target.set(None);
    eventually("up is 0", || async { query_value(&base, "up").await.filter(|v| v == "0") }).await;
    assert_eq!(query_value(&base, "req_total").await, None, "a failed scrape ends its series");
    let (_, json) = server.get("/api/v1/targets").await;
    assert_eq!(json["data"]["activeTargets"][0]["health"], "down", "{json}");
    server.stop().await;
}
