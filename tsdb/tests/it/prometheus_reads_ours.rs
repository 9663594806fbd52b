//! A real Prometheus and promtool read what we wrote, and we read what Prometheus makes of it.
//!
//! Needs `prometheus` and `promtool` (2.42 or later) in the path; without them the tests say so and pass.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use promontory_tsdb::{Db, DbOptions, Labels, SeriesRef, is_stale, stale_nan};

use crate::prometheus_fixtures::{assert_same, fixtures, parse_dump, unpack};
use crate::support::{Contents, options, read_all};

pub(crate) const START: i64 = 1_700_000_000_000;
pub(crate) const HOUR: i64 = 3_600_000;

pub(crate) fn installed(binary: &str) -> bool {
    let found =
        Command::new(binary).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("SKIP: {binary} is not installed");
    }
    found
}

/// The server to test against: `PROMONTORY_PEER_PROMETHEUS`, or what is in the path.
pub(crate) fn peer() -> String {
    std::env::var("PROMONTORY_PEER_PROMETHEUS").unwrap_or_else(|_| "prometheus".to_owned())
}

pub(crate) fn small_segments(dir: &Path) -> DbOptions {
    let mut options = options(dir);
    options.wal_segment_bytes = 32 * 1024;
    options.retention_ms = None;
    options
}

pub(crate) fn fill(db: &Arc<Db>, from: i64, to: i64) {
    let sets = (0..40)
        .map(|i| {
            Labels::from_pairs([
                ("__name__", format!("m{}", i % 4)),
                ("i", i.to_string()),
                ("q", "a\"b\\c\nd é".into()),
            ])
        })
        .collect::<Vec<_>>();
    let mut refs = vec![SeriesRef(0); sets.len()];
    for t in (from..to).step_by(15_000) {
        let mut appender = db.appender();
        for (i, (set, known)) in sets.iter().zip(&mut refs).enumerate() {
            let step = (t - START) / 15_000;
            let v = match i {
                0 => f64::INFINITY,
                1 if step % 50 == 49 => stale_nan(),
                2 => -0.0,
                3 => (step as f64).sin(),
                _ => (step * i as i64) as f64,
            };
            // Every series misses some scrapes.
            if (step + i as i64) % 31 != 0 {
                *known = appender.append(*known, set, t + i as i64, v).unwrap();
            }
        }
        appender.commit().unwrap();
    }
}

/// What `promtool tsdb dump` says about `dir` is what we say.
pub(crate) fn promtool_agrees(dir: &Path, expected: &Contents) {
    let dump = Command::new("promtool").args(["tsdb", "dump"]).arg(dir).output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let (dump, _) = parse_dump(&String::from_utf8(dump.stdout).unwrap());
    assert_same(expected, &dump);
    println!("promtool agrees on {} samples", dump.values().map(Vec::len).sum::<usize>());
}

#[test]
fn promtool_dumps_a_log_and_then_blocks() {
    if !installed("promtool") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(small_segments(dir.path())).unwrap();
    fill(&db, START, START + HOUR);
    // As after a crash: nothing is closed.
    promtool_agrees(dir.path(), &read_all(&*db));
    fill(&db, START + HOUR, START + 7 * HOUR);
    let before = read_all(&*db);
    let done = db.maintain().unwrap();
    assert!(done.blocks_cut.len() >= 2 && done.checkpoint.is_some(), "{done:?}");
    assert_eq!(read_all(&*db), before);
    promtool_agrees(dir.path(), &before);
    db.close().unwrap();
    promtool_agrees(dir.path(), &before);
}

/// A server on a data directory; killed when dropped.
pub(crate) struct Prometheus {
    child: Child,
    port: u16,
    _config: tempfile::TempDir,
}

impl Prometheus {
    fn start(data: &Path, block_duration: &str) -> Self {
        Self::start_with(data, block_duration, |_| "scrape_configs: []\n".to_owned())
    }

    /// `config` is told the port that the server will listen on.
    fn start_with(data: &Path, block_duration: &str, config_for: impl FnOnce(u16) -> String) -> Self {
        Self::start_as(data, block_duration, &[], config_for)
    }

    pub(crate) fn start_as(
        data: &Path,
        block_duration: &str,
        flags: &[&str],
        config_for: impl FnOnce(u16) -> String,
    ) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = tempfile::tempdir().unwrap();
        let file = config.path().join("prometheus.yml");
        std::fs::write(&file, config_for(port)).unwrap();
        let child = Command::new(peer())
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg("--storage.tsdb.retention.time=50y")
            .arg(format!("--storage.tsdb.min-block-duration={block_duration}"))
            .arg(format!("--storage.tsdb.max-block-duration={block_duration}"))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(flags)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(config.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut server = Self { child, port, _config: config };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !server.get("/-/ready").is_some_and(|body| body.contains("Ready")) {
            let log = || std::fs::read_to_string(server._config.path().join("log")).unwrap();
            assert!(server.child.try_wait().unwrap().is_none(), "{}", log());
            assert!(std::time::Instant::now() < deadline, "{}", log());
            std::thread::yield_now();
        }
        let log = std::fs::read_to_string(server._config.path().join("log")).unwrap();
        for complaint in ["level=error", "level=warn", "orrupt", "Unknown series"] {
            assert!(!log.contains(complaint), "{log}");
        }
        server
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self._config.path().join("log")).unwrap()
    }

    /// Body of the answer.
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8(answer).ok()?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    }

    /// All samples in the 10 hours up to `end`.
    pub(crate) fn read(&self, end: i64) -> Contents {
        self.query(&format!("%7B__name__%3D~%22.%2B%22%7D%5B10h%5D&time={}", end / 1000 + 1))
    }

    /// The range vector of a query.
    fn query(&self, query: &str) -> Contents {
        let answer = self.get(&format!("/api/v1/query?query={query}")).unwrap();
        let body: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(body["status"], "success", "{body}");
        let mut out = Contents::new();
        for series in body["data"]["result"].as_array().unwrap() {
            let labels = series["metric"].as_object().unwrap();
            let labels = Labels::from_pairs(labels.iter().map(|(n, v)| (n.as_str(), v.as_str().unwrap())));
            let Some(values) = series["values"].as_array() else { continue };
            let samples = values.iter().map(|s| {
                let t = (s[0].as_f64().unwrap() * 1000.0).round() as i64;
                (t, s[1].as_str().unwrap().replace("+Inf", "inf").parse::<f64>().unwrap().to_bits())
            });
            out.insert(labels, samples.collect());
        }
        out
    }

    pub(crate) fn stop(mut self) {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
        self.child.wait().unwrap();
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the API gives of `contents`: without stale markers; any NaN is one NaN.
pub(crate) fn as_served(contents: &Contents) -> Contents {
    let served = contents.iter().map(|(labels, samples)| {
        let samples = samples.iter().filter(|s| !is_stale(f64::from_bits(s.1)));
        let plain = |bits: u64| if f64::from_bits(bits).is_nan() { f64::NAN.to_bits() } else { bits };
        (labels.clone(), samples.map(|s| (s.0, plain(s.1))).collect::<Vec<_>>())
    });
    served.filter(|(_, samples)| !samples.is_empty()).collect()
}

#[test]
fn prometheus_serves_our_directory_and_we_go_on_after_it() {
    if !installed(&peer()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut end = START;
    // First a log alone, then blocks, checkpoint and log; each time Prometheus runs in between.
    for hours in [1, 6] {
        let db = Db::open(small_segments(dir.path())).unwrap();
        fill(&db, end, end + hours * HOUR);
        end += hours * HOUR;
        db.maintain().unwrap();
        let ours = read_all(&*db);
        db.close().unwrap();
        drop(db);
        let server = Prometheus::start(dir.path(), "2h");
        assert_eq!(as_served(&server.read(end)), as_served(&ours));
        server.stop();
        let db = Db::open(small_segments(dir.path())).unwrap();
        assert_eq!(read_all(&*db), ours);
        assert_eq!(db.metrics().wal_corruptions, 0);
        println!(
            "the same {} samples before, in and after Prometheus",
            ours.values().map(Vec::len).sum::<usize>()
        );
        db.close().unwrap();
    }
}

/// Chunks that we moved to `chunks_head/` are what Prometheus starts with, after a crash of ours.
#[test]
fn prometheus_takes_over_our_head_chunks() {
    if !installed(&peer()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut options = small_segments(dir.path());
    options.lockfile = false;
    let db = Db::open(options.clone()).unwrap();
    fill(&db, START, START + 2 * HOUR);
    db.maintain().unwrap();
    fill(&db, START + 2 * HOUR, START + 2 * HOUR + HOUR / 4);
    assert!(dir.path().join("chunks_head/000001").exists());
    let ours = read_all(&*db);
    // As after a kill: nothing is closed.
    std::mem::forget(db);
    let server = Prometheus::start(dir.path(), "2h");
    assert_eq!(as_served(&server.read(START + 3 * HOUR)), as_served(&ours));
    let metrics = server.get("/metrics").unwrap();
    let metric = |name: &str| metrics.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<f64>().ok());
    assert_eq!(metric("prometheus_tsdb_mmap_chunk_corruptions_total "), Some(0.0));
    assert_eq!(metric("prometheus_tsdb_wal_corruptions_total "), Some(0.0));
    server.stop();
    let db = Db::open(options).unwrap();
    assert_eq!(read_all(&*db), ours);
    println!("{} samples through head chunks", ours.values().map(Vec::len).sum::<usize>());
}

/// Late samples that we logged, and moved to `chunks_head/`, are what Prometheus starts with.
#[test]
fn prometheus_takes_over_our_late_samples() {
    if !installed(&peer()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut options = small_segments(dir.path());
    options.lockfile = false;
    options.out_of_order_window_ms = 5 * HOUR;
    let db = Db::open(options.clone()).unwrap();
    fill(&db, START + HOUR, START + 3 * HOUR);
    fill(&db, START, START + HOUR);
    db.maintain().unwrap();
    fill(&db, START + HOUR / 2 + 7, START + 2 * HOUR);
    assert!(db.metrics().out_of_order_appended > 10_000);
    let ours = read_all(&*db);
    std::mem::forget(db);
    let late = |_| "storage: {tsdb: {out_of_order_time_window: 5h}}\nscrape_configs: []\n".to_owned();
    let server = Prometheus::start_with(dir.path(), "2h", late);
    assert_eq!(as_served(&server.read(START + 4 * HOUR)), as_served(&ours));
    server.stop();
    let db = Db::open(options).unwrap();
    assert_eq!(read_all(&*db), ours);
    println!("{} samples, late ones among them", ours.values().map(Vec::len).sum::<usize>());
}

/// Native histograms that we logged and moved to `chunks_head/` are served by a newer Prometheus.
#[test]
fn prometheus_serves_our_histograms() {
    if std::env::var_os("PROMONTORY_PEER_PROMETHEUS").is_none() || !installed(&peer()) {
        println!("SKIP: PROMONTORY_PEER_PROMETHEUS names no Prometheus of version 3 or later");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut options = small_segments(dir.path());
    options.lockfile = false;
    let db = Db::open(options.clone()).unwrap();
    crate::histograms::fill(&db, START as u64 / 15_000, START as u64 / 15_000 + 480);
    db.maintain().unwrap();
    std::mem::forget(db);
    let server = Prometheus::start(dir.path(), "2h");
    let mut counted = 0;
    for name in ["integer", "custom"] {
        let query = format!("{name}%5B10h%5D&time={}", (START + 3 * HOUR) / 1000);
        let answer = server.get(&format!("/api/v1/query?query={query}")).unwrap();
        let body: serde_json::Value = serde_json::from_str(&answer).unwrap();
        for sample in body["data"]["result"][0]["histograms"].as_array().unwrap() {
            let step = (sample[0].as_f64().unwrap() * 1000.0) as u64 / 15_000;
            let count = sample[1]["count"].as_str().unwrap().parse::<f64>().unwrap();
            let expected = match name {
                "integer" => crate::histograms::integer(step).to_float().count,
                _ => crate::histograms::custom(step).count,
            };
            assert!((count - expected).abs() < 1e-6 * expected, "{name} {step}");
            counted += 1;
        }
    }
    assert_eq!(counted, 960);
    server.stop();
    let db = Db::open(options).unwrap();
    assert_eq!(db.replay_stats().unknown_series, 0);
    assert!(crate::histograms::all(&*db).iter().all(|samples| samples.len() == 480));
}

#[test]
fn prometheus_takes_its_directory_back() {
    let Some(fixtures) = fixtures().filter(|_| installed(&peer())) else { return };
    for name in ["clean", "crashed"] {
        let (_dir, data) = unpack(&fixtures, name);
        let mut options = options(&data);
        options.block_range_ms = 120_000;
        options.retention_ms = None;
        let db = Db::open(options.clone()).unwrap();
        // A new series, which must not get the reference of a chunk in `chunks_head`.
        let (_, end) = promontory_tsdb::Queryable::time_bounds(&*db).unwrap();
        let fresh = Labels::from_pairs([("__name__", "fresh")]);
        for i in 0..3 {
            let mut appender = db.appender();
            appender.append(SeriesRef(0), &fresh, end + i, i as f64).unwrap();
            appender.commit().unwrap();
        }
        let ours = read_all(&*db);
        db.close().unwrap();
        drop(db);
        let server = Prometheus::start(&data, "2m");
        assert_eq!(as_served(&server.read(end + 1000)), as_served(&ours), "{name}");
        server.stop();
        // Now with the head moved on, so that it is cut and files of `chunks_head` go.
        let db = Db::open(options.clone()).unwrap();
        let mut appender = db.appender();
        appender.append(SeriesRef(0), &fresh, end + 300_000, 9.0).unwrap();
        appender.commit().unwrap();
        let done = db.maintain().unwrap();
        assert!(!done.blocks_cut.is_empty());
        let ours = read_all(&*db);
        db.close().unwrap();
        drop(db);
        let server = Prometheus::start(&data, "2m");
        assert_eq!(as_served(&server.read(end + 301_000)), as_served(&ours), "{name} after a cut");
        println!("{name}: Prometheus serves the same after us");
    }
}

/// What a Prometheus that is scraping has answered, a read-only open of its directory has too.
#[test]
fn a_running_prometheus_is_read_beside_it() {
    if !installed(&peer()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Prometheus::start_with(dir.path(), "2h", |port| {
        format!(
            "scrape_configs:\n- job_name: self\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n  static_configs:\n  - targets: [\"127.0.0.1:{port}\"]\n"
        )
    });
    let mut options = options(dir.path());
    options.read_only = true;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut most = 0;
    while most < 10 {
        assert!(std::time::Instant::now() < deadline, "{most} scrapes");
        let served = server.query("%7Bjob%3D%22self%22%7D%5B10h%5D");
        let beside = Db::open(options.clone()).unwrap();
        assert_eq!(beside.replay_stats().unknown_series, 0);
        let found = as_served(&read_all(&*beside));
        for (labels, samples) in as_served(&served) {
            let found = found.get(&labels).map_or(&[][..], Vec::as_slice);
            assert!(found.starts_with(&samples), "{labels}: {} of {}", found.len(), samples.len());
            most = most.max(samples.len());
        }
    }
    // It goes on and ends as if nobody had been there.
    assert!(server.get("/-/healthy").is_some());
    server.stop();
    assert!(!as_served(&read_all(&*Db::open(options).unwrap())).is_empty());
}
