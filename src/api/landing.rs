//! `/`: what is served here, for people who point a browser at it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Html;

use super::ApiState;

pub(crate) async fn landing(State(state): State<Arc<ApiState>>) -> Html<String> {
    let sql = match state.sql_addr {
        Some(addr) => {
            let addr = crate::server::reachable(addr);
            format!("<code>psql -h {} -p {}</code>", addr.ip(), addr.port())
        }
        None => "not listening".to_owned(),
    };
    Html(PAGE.replace("{version}", env!("CARGO_PKG_VERSION")).replace("{sql}", &sql))
}

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Promontory</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:44em;margin:3em auto;padding:0 1em}td{padding-right:1.5em;vertical-align:top}</style>
</head>
<body>
<h1>Promontory {version}</h1>
<p>A Prometheus server that is also an analytical SQL database. There are no pages to click through yet;
point Grafana's Prometheus data source at this address.</p>
<table>
<tr><td><a href="/api/v1/query?query=up">/api/v1/query?query=up</a></td><td>PromQL at one time</td></tr>
<tr><td>/api/v1/query_range</td><td>PromQL over a range</td></tr>
<tr><td><a href="/api/v1/labels">/api/v1/labels</a>, <a href="/api/v1/label/__name__/values">/api/v1/label/…/values</a></td><td>Names and values of labels</td></tr>
<tr><td>/api/v1/series?match[]=up</td><td>Series</td></tr>
<tr><td><a href="/api/v1/targets">/api/v1/targets</a></td><td>What is scraped, and how it goes</td></tr>
<tr><td><a href="/api/v1/status/tsdb">/api/v1/status/tsdb</a>, <a href="/api/v1/status/config">config</a>, <a href="/api/v1/status/flags">flags</a>, <a href="/api/v1/status/runtimeinfo">runtimeinfo</a>, <a href="/api/v1/status/buildinfo">buildinfo</a></td><td>Status</td></tr>
<tr><td><a href="/metrics">/metrics</a></td><td>Metrics of this server</td></tr>
<tr><td><a href="/-/healthy">/-/healthy</a>, <a href="/-/ready">/-/ready</a></td><td>For probes</td></tr>
<tr><td>SQL</td><td>{sql}</td></tr>
</table>
</body>
</html>
"#;
