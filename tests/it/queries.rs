//! Queries beside their results: plans, trees, cancellation, the file of active queries.

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::support::{TestServer, eventually, write};

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

#[tokio::test(flavor = "multi_thread")]
async fn wrong_queries_name_their_parameter() {
    let server = TestServer::idle().await;
    for (path, error) in [
        (
            "query_range?query=%22a%22&start=0&end=10&step=1",
            "invalid parameter \"query\": invalid expression type \"string\" for range query, must be Scalar or instant Vector",
        ),
        (
            "query_range?query=%22a%22&start=9&end=1&step=1",
            "invalid parameter \"end\": end timestamp must not be before start time",
        ),
        (
            "query_range?query=1&start=0&end=10&step=0.0009",
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer",
        ),
    ] {
        let (status, answer) = server.get(&format!("/api/v1/{path}")).await;
        assert_eq!((status, answer["error"].as_str()), (400, Some(error)), "{path}");
    }
    let (_, answer) = server.get("/api/v1/query?query=up%5B1s%3A%5D&time=101.5").await;
    assert_eq!(answer["data"], json!({"resultType": "matrix", "result": []}));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_may_be_as_large_as_in_go() {
    let server = TestServer::idle().await;
    let post = async |spaces: usize| {
        let body = format!("query=1{}", "+".repeat(spaces));
        let request = reqwest::Client::new().post(server.url("/api/v1/query")).body(body);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(post(9 << 20).await, 200);
    assert_eq!(post(11 << 20).await, 400);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_the_step_of_subqueries() {
    let server = TestServer::with_config("global: {evaluation_interval: 10s}\n").await;
    let count = async || {
        let (_, answer) =
            server.get("/api/v1/query?query=count_over_time(vector(1)%5B1m%3A%5D)&time=60").await;
        answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
    };
    assert_eq!(count().await.as_deref(), Some("6"));
    write(&server.dir.path().join("prometheus.yml"), "global: {evaluation_interval: 30s}\n");
    server.running.reload().await.unwrap();
    assert_eq!(count().await.as_deref(), Some("2"));
    server.stop().await;
}
