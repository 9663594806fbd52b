//! Exemplars from a page to the API, and pages in protobuf.

use serde_json::json;

use super::support::{Target, TestServer, eventually, query_value};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0";

#[tokio::test(flavor = "multi_thread")]
async fn exemplars_of_a_page_are_answered_with_their_series() {
    let page = "# TYPE req counter\nreq_total{path=\"/\"} 5 # {trace_id=\"abc\"} 0.25 1700000000.5\n\
                req_total{path=\"/b\"} 6\n# EOF\n";
    let target = Target::start_as(OPEN_METRICS, page.as_bytes()).await;
    let server = TestServer::with_options(&target.config(), |o| o.exemplars = true).await;
    let ask = "/api/v1/query_exemplars?query=rate(req_total[5m])%2Bup&start=1699999999&end=1700000001";
    let found = eventually("an exemplar", || async {
        let (_, json) = server.get(ask).await;
        json["data"].as_array().filter(|found| !found.is_empty()).cloned()
    })
    .await;
    let instance = target.addr.to_string();
    assert_eq!(
        found,
        [json!({
            "seriesLabels": {"__name__": "req_total", "instance": instance, "job": "fake", "path": "/"},
            "exemplars": [{"labels": {"trace_id": "abc"}, "value": "0.25", "timestamp": 1_700_000_000.5}],
        })]
    );
    let (_, json) = server.get("/api/v1/query_exemplars?query=other&start=1&end=1700000001").await;
    assert_eq!(json["data"], json!([]));
    let (status, _) = server.get("/api/v1/query_exemplars?query=1").await;
    assert_eq!(status, 204, "an expression without a selector has no data");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exemplars_are_not_kept_unless_asked_for() {
    let page = "# TYPE req counter\nreq_total 5 # {trace_id=\"abc\"} 0.25\n# EOF\n";
    let target = Target::start_as(OPEN_METRICS, page.as_bytes()).await;
    let server = TestServer::with_config(&target.config()).await;
    let base = server.url("");
    eventually("a sample", || query_value(&base, "req_total")).await;
    let (_, json) = server.get("/api/v1/query_exemplars?query=req_total").await;
    assert_eq!(json["data"], json!([]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_protobuf_is_stored() {
    // A family `g` of type gauge with one metric {a="b"} 1.5.
    let metric = b"\x0a\x06\x0a\x01a\x12\x01b\x12\x09\x09\0\0\0\0\0\0\xf8\x3f";
    let mut family = b"\x0a\x01g\x12\x01H\x18\x01\x22".to_vec();
    family.push(metric.len() as u8);
    family.extend(metric);
    let page = [&[family.len() as u8], family.as_slice()].concat();
    let content_type =
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    let target = Target::start_as(content_type, &page).await;
    let server = TestServer::with_config(&target.config()).await;
    let base = server.url("");
    assert_eq!(eventually("a sample", || query_value(&base, "g{a=\"b\"}")).await, "1.5");
    let (_, json) = server.get("/api/v1/targets/metadata?metric=g").await;
    assert_eq!(
        (&json["data"][0]["type"], &json["data"][0]["help"]),
        (&"gauge".into(), &"H".into()),
        "{json}"
    );
    server.stop().await;
}
