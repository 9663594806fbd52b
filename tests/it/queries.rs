//! Queries beside their results: plans, trees, cancellation, the file of active queries.

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::support::{TestServer, eventually};

/// The number of queries that run, as the server says itself.
async fn running(server: &TestServer) -> Option<f64> {
    let (_, page) = server.text("/metrics").await;
    let line = page.lines().find(|line| line.starts_with("prometheus_engine_queries "))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_cancelled_when_its_client_disconnects() {
    let server = TestServer::idle().await;
    let active = server.dir.path().join("data/queries.active");
    let named = || std::fs::read_to_string(&active).is_ok_and(|text| text.contains("sum_over_time"));
    // Would run for long.
    let query = ["sum_over_time(vector(1)[1h:1s])"; 300].join("%2B");
    let mut client = TcpStream::connect(server.running.http_addr()).await.unwrap();
    let times = "start=0&end=11000&step=1";
    let request = format!("GET /api/v1/query_range?query={query}&{times} HTTP/1.1\r\nHost: x\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    eventually("the query runs", async || (running(&server).await == Some(1.0)).then_some(())).await;
    assert!(named());
    drop(client);
    eventually("the query is over", async || (running(&server).await == Some(0.0)).then_some(())).await;
    assert!(!named());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_is_shown_as_a_tree() {
    let server = TestServer::idle().await;
    let (status, answer) = server.get("/api/v1/parse_query?query=sum(up)").await;
    assert_eq!((status, &answer["data"]["type"]), (200, &json!("aggregation")));
    assert_eq!(answer["data"]["expr"]["matchers"][0]["value"], json!("up"));
    let (status, answer) = server.get("/api/v1/parse_query?query=sum(").await;
    assert_eq!((status, &answer["errorType"]), (400, &json!("bad_data")));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_are_explained_and_analyzed() {
    let server = TestServer::idle().await;
    server.append(&[("__name__", "up"), ("job", "a")], &[(1_795_219_200_000, 1.0)]);
    let path = "/api/v1/query_explain?query=sum+by+(job)(up)&time=1795219200";
    let (status, answer) = server.get(path).await;
    let text = |answer: &serde_json::Value, field: &str| answer["data"][field].as_str().unwrap().to_owned();
    assert_eq!(status, 200, "{answer}");
    assert!(
        text(&answer, "logicalPlan").contains("PromSelector: up lookback=300000ms key=by (job)"),
        "{answer}"
    );
    assert!(!text(&answer, "physicalPlan").contains("output_rows"), "{answer}");
    assert_eq!(answer["data"]["result"], json!(null));
    let (_, answer) = server.get(&format!("{path}&analyze=true")).await;
    assert!(text(&answer, "physicalPlan").contains("output_rows=1"), "{answer}");
    assert_eq!(answer["data"]["result"], json!({"series": 1, "points": 1}));
    server.stop().await;
}
