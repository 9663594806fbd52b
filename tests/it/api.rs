//! Endpoints, envelope, parameters, errors.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::TestServer;

/// 2026-11-21T00:00:00Z; block ranges do not matter to the head.
const T0: i64 = 1_795_219_200_000;

async fn server_with_data() -> TestServer {
    let server = TestServer::idle().await;
    let now = T0;
    server
        .append(&[("__name__", "up"), ("job", "a"), ("instance", "x:1")], &[(now, 1.0), (now + 15_000, 0.0)]);
    server
        .append(&[("__name__", "up"), ("job", "b"), ("instance", "<y>")], &[(now, 1.0), (now + 15_000, 1.5)]);
    server.append(&[("__name__", "http.requests"), ("code", "200")], &[(now, 7.0)]);
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instant_query_gives_a_vector() {
    let server = server_with_data().await;
    let (status, text) = server.text("/api/v1/query?query=up&time=1795219215.25").await;
    let want = concat!(
        r#"{"status":"success","data":{"resultType":"vector","result":["#,
        r#"{"metric":{"__name__":"up","instance":"<y>","job":"b"},"value":[1795219215.250,"1.5"]},"#,
        r#"{"metric":{"__name__":"up","instance":"x:1","job":"a"},"value":[1795219215.250,"0"]}]}}"#
    );
    assert_eq!((status, text.as_str()), (200, want));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_query_gives_a_matrix_by_get_and_by_form() {
    let server = server_with_data().await;
    let parameters = [
        ("query", "up{job=\"a\"}"),
        ("start", "2026-11-21T00:00:00Z"),
        ("end", "1795219230"),
        ("step", "15s"),
    ];
    let want = json!({"status": "success", "data": {"resultType": "matrix", "result": [
        {"metric": {"__name__": "up", "instance": "x:1", "job": "a"},
         "values": [[1_795_219_200, "1"], [1_795_219_215, "0"], [1_795_219_230, "0"]]}]}});
    let client = reqwest::Client::new();
    let url = server.url("/api/v1/query_range");
    for request in [client.get(&url).query(&parameters), client.post(&url).form(&parameters)] {
        let bytes = request.send().await.unwrap().bytes().await.unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), want);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scalars_and_strings_have_their_own_types() {
    let server = server_with_data().await;
    for (query, want) in [
        ("1e-7", r#"{"resultType":"scalar","result":[1795219200.5,"0.0000001"]}"#),
        ("%22a%3Cb%22", r#"{"resultType":"string","result":[1795219200.5,"a\u003cb"]}"#),
        (
            "vector(1e21)",
            r#"{"resultType":"vector","result":[{"metric":{},"value":[1795219200.500,"1e+21"]}]}"#,
        ),
        ("absent(up)", r#"{"resultType":"vector","result":[]}"#),
    ] {
        let (status, text) = server.text(&format!("/api/v1/query?query={query}&time=1795219200.5")).await;
        assert_eq!((status, text), (200, format!("{{\"status\":\"success\",\"data\":{want}}}")));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_read_as_upstream_words_them() {
    let server = TestServer::idle().await;
    for (path, status, error_type, error) in [
        (
            "query?query=up&time=x",
            400,
            "bad_data",
            "invalid parameter \"time\": invalid time value for 'time': cannot parse \"x\" to a valid timestamp",
        ),
        (
            "query?query=up{",
            400,
            "bad_data",
            "invalid parameter \"query\": 1:4: parse error: unexpected end of input inside braces",
        ),
        (
            "query?query=up&limit=-1",
            400,
            "bad_data",
            "invalid parameter \"limit\": limit must be non-negative",
        ),
        (
            "query?query=up&timeout=x",
            400,
            "bad_data",
            "invalid parameter \"timeout\": cannot parse \"x\" to a valid duration",
        ),
        (
            "query?query=up&lookback_delta=x",
            400,
            "bad_data",
            "error parsing lookback delta duration: cannot parse \"x\" to a valid duration",
        ),
        (
            "query_range?query=up&start=x&end=1&step=1",
            400,
            "bad_data",
            "invalid parameter \"start\": cannot parse \"x\" to a valid timestamp",
        ),
        (
            "query_range?query=up&start=2&end=1&step=1",
            400,
            "bad_data",
            "invalid parameter \"end\": end timestamp must not be before start time",
        ),
        (
            "query_range?query=up&start=1&end=2&step=0",
            400,
            "bad_data",
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer",
        ),
        (
            "query_range?query=up&start=0&end=11001&step=1",
            400,
            "bad_data",
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ),
        ("series", 400, "bad_data", "no match[] parameter provided"),
        (
            "series?match[]={}",
            400,
            "bad_data",
            "invalid parameter \"match[]\": match[] must contain at least one non-empty matcher",
        ),
        (
            "labels?start=x",
            400,
            "bad_data",
            "invalid parameter \"start\": invalid time value for 'start': cannot parse \"x\" to a valid timestamp",
        ),
        ("status/tsdb?limit=0", 400, "bad_data", "limit must be a positive number"),
        ("status/tsdb?limit=10001", 400, "bad_data", "limit must not exceed 10000"),
        ("metadata?limit=x", 400, "bad_data", "limit must be a number"),
        ("rules?type=x", 400, "bad_data", "invalid parameter \"type\": not supported value \"x\""),
    ] {
        let (got_status, json) = server.get(&format!("/api/v1/{path}")).await;
        assert_eq!(json, json!({"status": "error", "errorType": error_type, "error": error}), "{path}");
        assert_eq!(got_status, status, "{path}");
    }
    assert_eq!(server.get("/api/v1/query_range?query=up&start=0&end=11000&step=1").await.0, 200);
    assert_eq!(server.get("/api/v1/nothing").await.0, 404);
    assert_eq!(server.get("/federate").await.0, 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_ends_with_its_timeout_and_the_server_goes_on() {
    let server = TestServer::idle().await;
    let slow = "query_range?query=sum_over_time(vector(1)[1h:1s])&start=0&end=11000&step=1&timeout=1ms";
    let (status, json) = server.get(&format!("/api/v1/{slow}")).await;
    assert_eq!(status, 503, "{json}");
    assert_eq!(json["errorType"], "timeout", "{json}");
    assert!(json["error"].as_str().unwrap().starts_with("query timed out in "), "{json}");
    assert_eq!(server.get("/api/v1/query?query=1").await.0, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_values_and_series_are_listed_and_limited() {
    let server = server_with_data().await;
    for (path, want) in [
        ("labels", json!(["__name__", "code", "instance", "job"])),
        ("labels?match[]=up", json!(["__name__", "instance", "job"])),
        ("labels?match[]=up&match[]=http.requests&match[]={code=\"200\"}", Value::Null),
        ("label/job/values", json!(["a", "b"])),
        ("label/job/values?match[]=up{instance=\"x:1\"}", json!(["a"])),
        ("label/__name__/values", json!(["http.requests", "up"])),
        ("label/nothing/values", json!([])),
        ("label/U__job/values", json!(["a", "b"])),
        ("series?match[]=up{job=\"a\"}", json!([{"__name__": "up", "instance": "x:1", "job": "a"}])),
        (
            "series?match[]=up{job=\"a\"}&match[]={job=~\"a|b\"}",
            json!([{"__name__": "up", "instance": "<y>", "job": "b"}, {"__name__": "up", "instance": "x:1", "job": "a"}]),
        ),
        ("series?match[]=up&start=1&end=2", json!([])),
    ] {
        let (status, json) = server.get(&format!("/api/v1/{path}")).await;
        if want.is_null() {
            assert_eq!(status, 400, "a name that needs quotes is not a selector: {path}");
        } else {
            assert_eq!((status, &json["data"], &json["status"]), (200, &want, &json!("success")), "{path}");
        }
    }
    for path in [
        "labels?limit=1",
        "label/job/values?limit=1",
        "series?match[]=up&limit=1",
        "query?query=up&time=1795219200&limit=1",
    ] {
        let (_, json) = server.get(&format!("/api/v1/{path}")).await;
        assert_eq!(json["warnings"], json!(["results truncated due to limit"]), "{path}");
        let data = if path.starts_with("query") { &json["data"]["result"] } else { &json["data"] };
        assert_eq!(data.as_array().unwrap().len(), 1, "{path}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_grafana_asks_for_is_there() {
    let server = server_with_data().await;
    let (_, build) = server.get("/api/v1/status/buildinfo").await;
    assert!(build["data"]["version"].as_str().unwrap().starts_with("3."), "{build}");
    for (path, data) in [
        ("rules", json!({"groups": []})),
        ("alerts", json!({"alerts": []})),
        ("alertmanagers", json!({"activeAlertmanagers": [], "droppedAlertmanagers": []})),
        ("metadata", json!({})),
        ("query_exemplars?query=up", json!([])),
        ("scrape_pools", json!({"scrapePools": []})),
        ("targets", json!({"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {}})),
        ("format_query?query=up%2bup", json!("  up\n+\n  up")),
    ] {
        let (status, json) = server.get(&format!("/api/v1/{path}")).await;
        if path.starts_with("format_query") {
            assert_eq!(json["data"].as_str().unwrap().split_whitespace().collect::<String>(), "up+up");
        } else {
            assert_eq!((status, &json["data"]), (200, &data), "{path}");
        }
    }
    let (_, tsdb) = server.get("/api/v1/status/tsdb").await;
    assert_eq!(tsdb["data"]["headStats"]["numSeries"], 3, "{tsdb}");
    assert_eq!(tsdb["data"]["seriesCountByMetricName"][0], json!({"name": "up", "value": 2}));
    let (_, config) = server.get("/api/v1/status/config").await;
    assert!(config["data"]["yaml"].as_str().unwrap().contains("scrape_interval"), "{config}");
    assert_eq!(server.get("/api/v1/status/runtimeinfo").await.1["data"]["storageRetention"], "15d");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compressed_when_asked_and_browsers_are_let_in() {
    let server = server_with_data().await;
    let client = reqwest::Client::new();
    let request = client.get(server.url("/api/v1/status/flags"));
    let request = request.header("Accept-Encoding", "gzip").header("Origin", "https://grafana.example");
    let response = request.send().await.unwrap();
    let header = |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
    assert_eq!(header("access-control-allow-origin").as_deref(), Some("*"));
    assert_eq!(header("content-type").as_deref(), Some("application/json"));
    let response = client.get(server.url("/api/v1/series?match[]=up")).header("Accept-Encoding", "gzip");
    let response = response.send().await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert!(response.headers().get("access-control-allow-origin").is_none(), "only for browsers");
    let bytes = response.bytes().await.unwrap();
    assert_eq!(bytes[..2], [0x1f, 0x8b]);
    let preflight = client.request(reqwest::Method::OPTIONS, server.url("/api/v1/query"));
    assert_eq!(preflight.send().await.unwrap().status(), 204);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn own_metrics_are_served_in_both_formats() {
    let server = server_with_data().await;
    server.get("/api/v1/labels").await;
    server.get("/api/v1/label/job/values").await;
    let (_, text) = server.text("/metrics").await;
    for line in [
        "prometheus_tsdb_head_series 3",
        "prometheus_tsdb_head_samples_appended_total{type=\"float\"} 5",
        "prometheus_http_requests_total{code=\"200\",handler=\"/api/v1/label/:name/values\"} 1",
        "prometheus_config_last_reload_successful 1",
        "prometheus_ready 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    let request =
        reqwest::Client::new().get(server.url("/metrics")).header("Accept", "application/openmetrics-text");
    let response = request.send().await.unwrap();
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    assert!(response.text().await.unwrap().ends_with("# EOF\n"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_may_stand_in_a_url_as_it_is() {
    let server = server_with_data().await;
    let mut stream = TcpStream::connect(server.running.http_addr()).await.unwrap();
    // What `curl -g` sends; HTTP libraries for tests encode it first.
    let request = "GET /api/v1/query?query=up{job=\"a\"}<1&time=1795219215 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains(r#""value":[1795219215,"0"]"#), "{answer}");
    server.stop().await;
}
