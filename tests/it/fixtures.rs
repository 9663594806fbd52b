//! A data directory of a real Prometheus, served whole through both query languages.
//!
//! The fixtures are not in the repository: `PROMONTORY_FIXTURES` names their directory, otherwise
//! `../shared/fixtures` next to the repository is tried. Without them the tests say so and pass.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use promontory::server::{Server, ServerOptions};
use promontory_promql::parser::parse_metric_selector;
use serde_json::Value;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::support::TestServer;

/// Samples by series and time, ms.
type Samples = BTreeMap<(BTreeMap<String, String>, i64), f64>;

fn fixtures() -> Option<PathBuf> {
    let dir = std::env::var_os("PROMONTORY_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures"), PathBuf::from)
        .join("prometheus-2.42");
    if !dir.is_dir() {
        println!("SKIP: no fixtures at {}", dir.display());
        return None;
    }
    Some(dir)
}

async fn serve(archive: &Path) -> TestServer {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let untar = Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(&data).status().unwrap();
    assert!(untar.success());
    // The archive may hold the directory itself.
    let inner = std::fs::read_dir(&data).unwrap().map(|e| e.unwrap().path()).find(|p| p.join("wal").is_dir());
    std::fs::write(dir.path().join("prometheus.yml"), "scrape_configs: []\n").unwrap();
    let mut options = ServerOptions::local(inner.unwrap_or(data));
    options.config_file = Some(dir.path().join("prometheus.yml"));
    let running = Server::start(options).await.unwrap();
    TestServer { dir, running }
}

/// What `promtool tsdb dump` printed: `{labels} value ms`, a line each.
fn read_dump(path: &Path) -> Samples {
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let mut series = BTreeMap::new();
    text.lines()
        .map(|line| {
            let (labels, rest) = line.rsplit_once("} ").unwrap();
            let (value, at) = rest.split_once(' ').unwrap();
            let labels = series.entry(labels.to_owned()).or_insert_with(|| {
                let matchers = parse_metric_selector(&format!("{labels}}}")).unwrap();
                matchers.iter().map(|m| (m.name().to_owned(), m.value().to_owned())).collect()
            });
            let labels: &BTreeMap<String, String> = labels;
            ((labels.clone(), at.parse().unwrap()), value.parse().unwrap())
        })
        .collect()
}

async fn through_promql(server: &TestServer, end_ms: i64) -> Samples {
    let query = "%7B__name__%3D~%22.%2B%22%7D%5B1h%5D";
    let seconds = end_ms as f64 / 1000.0;
    let (status, answer) = server.get(&format!("/api/v1/query?query={query}&time={seconds}")).await;
    assert_eq!(status, 200, "{answer}");
    let mut samples = Samples::new();
    for series in answer["data"]["result"].as_array().unwrap() {
        let labels: BTreeMap<_, _> = serde_json::from_value(series["metric"].clone()).unwrap();
        for point in series["values"].as_array().unwrap() {
            let at = (point[0].as_f64().unwrap() * 1000.0).round() as i64;
            samples.insert((labels.clone(), at), point[1].as_str().unwrap().parse().unwrap());
        }
    }
    samples
}

async fn through_sql(server: &TestServer) -> Samples {
    let sql = server.running.sql_addr().unwrap();
    let config = format!("host={} port={} user=me dbname=promontory", sql.ip(), sql.port());
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let query = "SELECT metric, labels, CAST(timestamp AS BIGINT), value FROM tsdb.samples";
    let mut samples = Samples::new();
    for message in client.simple_query(query).await.unwrap() {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let mut labels: BTreeMap<String, String> = match serde_json::from_str(row.get(1).unwrap()).unwrap() {
            Value::Object(labels) => {
                labels.into_iter().map(|(n, v)| (n, v.as_str().unwrap().to_owned())).collect()
            }
            other => panic!("labels are {other}"),
        };
        labels.insert("__name__".to_owned(), row.get(0).unwrap().to_owned());
        samples.insert((labels, row.get(2).unwrap().parse().unwrap()), row.get(3).unwrap().parse().unwrap());
    }
    drop(client);
    let _ = connection.await;
    samples
}

/// Every sample of the dump, and no other. The dump prints stale markers as `NaN`; they end series and
/// are not samples to a reader.
fn compare(what: &str, got: &Samples, want: &Samples) {
    let mut markers = 0;
    for (key, want) in want {
        match got.get(key) {
            Some(got) => assert!(
                got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()),
                "{what}: {key:?} is {got}, not {want}"
            ),
            None if want.is_nan() => markers += 1,
            None => panic!("{what}: {key:?} is missing"),
        }
    }
    assert_eq!(got.len() + markers, want.len(), "{what} has samples that the dump does not have");
    println!("{what}: {} samples equal the dump, {markers} stale markers", got.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_directory_reads_equal_through_promql_and_sql() {
    let Some(fixtures) = fixtures() else { return };
    for name in ["clean", "crashed"] {
        let want = read_dump(&fixtures.join(format!("{name}.dump.txt.gz")));
        let end = want.keys().map(|(_, at)| *at).max().unwrap();
        let server = serve(&fixtures.join(format!("{name}.tar.gz"))).await;
        compare(&format!("{name}, PromQL"), &through_promql(&server, end).await, &want);
        compare(&format!("{name}, SQL"), &through_sql(&server).await, &want);
        server.stop().await;
    }
}
