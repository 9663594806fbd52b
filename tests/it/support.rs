//! Servers, targets and processes for tests.

use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use promontory::server::{Running, Server, ServerOptions};
use promontory_tsdb::{Labels, SeriesRef};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// How long anything may take; the machines that run tests may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// A server in this process, with a data directory of its own.
pub(crate) struct TestServer {
    pub(crate) dir: TempDir,
    pub(crate) running: Running,
}

impl TestServer {
    /// Scrapes nothing.
    pub(crate) async fn idle() -> Self {
        Self::with_config("scrape_configs: []\n").await
    }

    pub(crate) async fn with_config(yaml: &str) -> Self {
        Self::with_options(yaml, |_| {}).await
    }

    /// As [`TestServer::with_config`], after `change` has had its way with the options.
    pub(crate) async fn with_options(yaml: &str, change: impl FnOnce(&mut ServerOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("prometheus.yml"), yaml).unwrap();
        let mut options = ServerOptions::local(dir.path().join("data"));
        options.config_file = Some(dir.path().join("prometheus.yml"));
        change(&mut options);
        let running = Server::start(options).await.unwrap();
        Self { dir, running }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.http_addr())
    }

    /// Status and JSON of a GET.
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        get_json(&self.url(path)).await
    }

    pub(crate) async fn text(&self, path: &str) -> (u16, String) {
        let response = reqwest::get(self.url(path)).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Appends samples behind the API: `(labels, [(ms, value)])`.
    pub(crate) fn append(&self, labels: &[(&str, &str)], samples: &[(i64, f64)]) {
        let labels = Labels::from_pairs(labels.iter().copied());
        let mut appender = self.running.db().appender();
        let mut known = SeriesRef::default();
        for (t, v) in samples {
            known = appender.append(known, &labels, *t, *v).unwrap();
        }
        appender.commit().unwrap();
    }

    pub(crate) async fn stop(self) -> TempDir {
        self.running.shutdown().await.unwrap();
        self.dir
    }
}

pub(crate) async fn get_json(url: &str) -> (u16, Value) {
    let response = reqwest::get(url).await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null))
}

/// First value of an instant query, as the API writes it.
pub(crate) async fn query_value(base: &str, query: &str) -> Option<String> {
    let response = reqwest::Client::new()
        .get(format!("{base}/api/v1/query"))
        .query(&[("query", query)])
        .send()
        .await
        .ok()?;
    let json: Value = serde_json::from_slice(&response.bytes().await.ok()?).ok()?;
    json["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
}

/// Asks again and again until there is an answer.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// A scrape target whose page the test sets; `None` answers 500.
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    page: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Target {
    pub(crate) async fn start(page: &str) -> Self {
        Self::start_as("text/plain; version=0.0.4", page.as_bytes()).await
    }

    /// A target whose pages are of `content_type`.
    pub(crate) async fn start_as(content_type: &'static str, page: &[u8]) -> Self {
        let page = Arc::new(Mutex::new(Some(page.to_owned())));
        let shown = Arc::clone(&page);
        let handler = move || {
            let page = shown.lock().unwrap().clone();
            async move {
                let status = if page.is_some() { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
                (status, [(CONTENT_TYPE, content_type)], page.unwrap_or_default())
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let app = Router::new().route("/metrics", get(handler));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { addr, page }
    }

    pub(crate) fn set(&self, page: Option<&str>) {
        *self.page.lock().unwrap() = page.map(|page| page.as_bytes().to_vec());
    }

    /// A configuration that scrapes this target ten times a second.
    pub(crate) fn config(&self) -> String {
        format!(
            "global: {{scrape_interval: 100ms, scrape_timeout: 100ms}}\n\
             scrape_configs:\n- job_name: fake\n  static_configs:\n  - targets: ['{}']\n",
            self.addr
        )
    }
}

/// The binary as a process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) base: String,
}

impl Process {
    /// Starts a server and waits until it says where it is.
    pub(crate) fn start(config: &Path, data: &Path) -> Self {
        let mut child = binary()
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .args(["--web.listen-address=127.0.0.1:0", "--sql.listen-address="])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = String::new();
        let base = loop {
            let Some(Ok(line)) = lines.next() else { panic!("the server ended:\n{seen}") };
            seen += &line;
            seen.push('\n');
            if let Some((_, rest)) = line.split_once("url=http://") {
                break format!("http://{}", rest.split('/').next().unwrap());
            }
        };
        // Keeps the pipe empty, so that the server never waits to log.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, base }
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the exit status.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_promontory"))
}

/// Whether a program answers `--version`; says so where a test is skipped for its lack.
pub(crate) fn has(program: &str, args: &[&str]) -> bool {
    let found = Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        println!("SKIPPED in part: `{program} {}` does not run here", args.join(" "));
    }
    found
}

pub(crate) fn write(path: &Path, text: &str) -> PathBuf {
    std::fs::write(path, text).unwrap();
    path.to_path_buf()
}
