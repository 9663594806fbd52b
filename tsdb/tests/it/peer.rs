//! The Prometheus and promtool that tests run beside us, and contents in a form in which all can be compared.
//!
//! `PROMONTORY_PEER_PROMETHEUS` and `PROMONTORY_PEER_PROMTOOL` name them; otherwise those in the path are taken
//! (2.42 or later). Without them the tests that need them say so and pass.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use promontory_tsdb::block::Block;
use promontory_tsdb::{Db, Labels, Queryable, SelectHints, is_stale};

/// Samples by series, floats and histograms, as text in which equal values are equal.
pub(crate) type Everything = BTreeMap<Labels, Vec<(i64, String)>>;

/// Exemplars by series: time, value and labels.
pub(crate) type Exemplars = BTreeMap<Labels, Vec<(i64, String, Labels)>>;

/// What a stale marker is in [`Everything`], be it a float or a histogram.
const STALE: &str = "stale";

pub(crate) fn installed(binary: &str) -> bool {
    let found =
        Command::new(binary).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("SKIP: {binary} is not installed");
    }
    found
}

/// The server to test against.
pub(crate) fn peer() -> String {
    std::env::var("PROMONTORY_PEER_PROMETHEUS").unwrap_or_else(|_| "prometheus".to_owned())
}

/// The promtool to test against.
pub(crate) fn promtool() -> String {
    std::env::var("PROMONTORY_PEER_PROMTOOL").unwrap_or_else(|_| "promtool".to_owned())
}

/// Whether a Prometheus or promtool is of version 3 or later: it knows custom buckets and late histograms, and
/// its promtool shows histograms, and late samples of the head. (A build from a checkout may have no version.)
pub(crate) fn is_3(binary: &str) -> bool {
    let output = Command::new(binary).arg("--version").output().unwrap();
    let text = [output.stdout, output.stderr].map(|t| String::from_utf8_lossy(&t).into_owned()).concat();
    !text.contains("version 2.")
}

/// Text of a float.
fn float(v: f64) -> String {
    if is_stale(v) { STALE.to_owned() } else { format!("{v:?}") }
}

/// Text of a histogram, with numbers as we write them: of equal numbers there are several spellings.
fn histogram(text: &str) -> String {
    if text.contains("sum:NaN") {
        return STALE.to_owned();
    }
    let mut out = String::new();
    for token in text.split_inclusive(['{', '}', '[', ']', '(', ')', ',', ':', ' ']) {
        let (word, end) = token.split_at(token.len() - 1);
        match word.parse::<f64>() {
            Ok(number) => out += &format!("{number:?}{end}"),
            Err(_) => out += token,
        }
    }
    out
}

/// All samples that `source` has.
pub(crate) fn everything(source: &dyn Queryable) -> Everything {
    let selection = source.select(&[], i64::MIN, i64::MAX, &SelectHints::default()).unwrap();
    let mut out = Everything::new();
    for mut stream in selection.partitions {
        while let Some(batch) = futures::executor::block_on(stream.next()) {
            let batch = batch.unwrap();
            for i in 0..batch.len() {
                let (labels, times, values) = batch.series(i);
                let samples = times.iter().zip(values).map(|(t, v)| (*t, float(*v)));
                out.entry(labels.clone()).or_default().extend(samples);
            }
            for h in &batch.histograms {
                let samples = out.entry(batch.labels[h.series as usize].clone()).or_default();
                samples.push((h.timestamp, histogram(&h.histogram.to_string())));
            }
        }
    }
    out.values_mut().for_each(|samples| samples.sort());
    out
}

/// All exemplars that `db` has.
pub(crate) fn exemplars(db: &Db) -> Exemplars {
    let mut out = Exemplars::new();
    db.exemplars().for_each(|series, e| {
        out.entry(series.clone()).or_default().push((e.timestamp, float(e.value), e.labels.clone()));
    });
    out
}

/// Of `all`, what the API gives: no stale markers.
pub(crate) fn without_stale(all: &Everything) -> Everything {
    let kept = all.iter().map(|(labels, samples)| {
        (labels.clone(), samples.iter().filter(|s| s.1 != STALE).cloned().collect::<Vec<_>>())
    });
    kept.filter(|(_, samples)| !samples.is_empty()).collect()
}

/// What `promtool tsdb dump` printed. It prints any NaN alike, so stale markers are [`STALE`] only where `ours` has
/// one too.
pub(crate) fn parse_dump(text: &str, ours: &Everything) -> Everything {
    let mut out = Everything::new();
    for line in text.lines() {
        let (labels, rest) = split_labels(line);
        let Some((value, t)) = rest.rsplit_once(' ') else { panic!("{line}") };
        let t = t.parse().unwrap();
        let value = match value {
            _ if value.contains('{') => histogram(value),
            "NaN" => {
                let mine = ours.get(&labels).and_then(|s| s.iter().find(|s| s.0 == t));
                mine.filter(|s| s.1 == STALE).map_or_else(|| float(f64::NAN), |s| s.1.clone())
            }
            _ => float(value.parse().unwrap()),
        };
        out.entry(labels).or_default().push((t, value));
    }
    out
}

/// Labels in Go's quoted form, and what follows them.
fn split_labels(line: &str) -> (Labels, &str) {
    let mut rest = line.strip_prefix('{').unwrap();
    let mut pairs = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(tail) = rest.strip_prefix('}') {
            return (Labels::from_pairs(pairs), tail.trim_start());
        }
        let (name, tail) = rest.split_once('=').unwrap();
        let mut value = String::new();
        let mut chars = tail.char_indices().skip(1);
        loop {
            match chars.next().unwrap() {
                (end, '"') => {
                    rest = &tail[end + 1..];
                    break;
                }
                (_, '\\') => match chars.next().unwrap().1 {
                    'n' => value.push('\n'),
                    't' => value.push('\t'),
                    c => value.push(c),
                },
                (_, c) => value.push(c),
            }
        }
        pairs.push((name.to_owned(), value));
    }
}

/// Fails where two contents differ first.
pub(crate) fn assert_same(found: &Everything, expected: &Everything) {
    let missing = expected.keys().filter(|l| !found.contains_key(*l)).collect::<Vec<_>>();
    let surplus = found.keys().filter(|l| !expected.contains_key(*l)).collect::<Vec<_>>();
    assert!(missing.is_empty() && surplus.is_empty(), "missing {missing:?}, surplus {surplus:?}");
    for (labels, expected) in expected {
        let samples = &found[labels];
        for (i, (expected, found)) in expected.iter().zip(samples).enumerate() {
            assert!(expected == found, "{labels} sample {i}: expected {expected:?}, found {found:?}");
        }
        assert_eq!(expected.len(), samples.len(), "{labels}");
    }
}

pub(crate) fn count(all: &Everything) -> usize {
    all.values().map(Vec::len).sum()
}

/// What a promtool command prints.
pub(crate) fn run_promtool(args: &[&str], dir: &Path, more: &[&str]) -> String {
    let output = Command::new(promtool()).args(args).arg(dir).args(more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What `promtool tsdb dump` says about `dir` is `expected`.
pub(crate) fn promtool_agrees(dir: &Path, expected: &Everything) {
    promtool_agrees_on(dir, expected, |_| true);
}

/// As [`promtool_agrees`], about some of the series.
pub(crate) fn promtool_agrees_on(dir: &Path, expected: &Everything, on: impl Fn(&Labels) -> bool) {
    let mut dump = parse_dump(&run_promtool(&["tsdb", "dump"], dir, &[]), expected);
    dump.retain(|labels, _| on(labels));
    let mut expected = expected.clone();
    expected.retain(|labels, _| on(labels));
    assert_same(&dump, &expected);
    println!("promtool agrees on {} samples", count(&dump));
}

/// What `promtool tsdb analyze` counts in each block of `db` is what its index has.
pub(crate) fn analyze_agrees(db: &Db) {
    for block in db.blocks() {
        let index = Block::open(&db.options().path.join(&block.ulid)).unwrap();
        let index = index.index();
        let names = index.label_names().filter(|n| !n.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let (mut pairs, mut entries) = (0, 0);
        for name in &names {
            index
                .for_each_value(name, "", |_, offset| {
                    pairs += 1;
                    entries += index.postings_at(offset)?.len();
                    Ok(ControlFlow::Continue(()))
                })
                .unwrap();
        }
        let text = run_promtool(&["tsdb", "analyze"], &db.options().path, &[&block.ulid]);
        for line in [
            format!("Block ID: {}", block.ulid),
            format!("Series: {}", block.series),
            format!("Label names: {}", names.len()),
            format!("Postings (unique label pairs): {pairs}"),
            format!("Postings entries (total label pairs): {entries}"),
        ] {
            assert!(text.lines().any(|l| l.trim_start_matches("Total ") == line), "no {line} in {text}");
        }
    }
}

/// A server on a data directory; killed when dropped.
pub(crate) struct Prometheus {
    child: Child,
    port: u16,
    config: tempfile::TempDir,
}

impl Prometheus {
    pub(crate) fn start(data: &Path, block_duration: &str) -> Self {
        Self::start_with(data, block_duration, |_| "scrape_configs: []\n".to_owned())
    }

    /// `config` is told the port that the server will listen on.
    pub(crate) fn start_with(
        data: &Path,
        block_duration: &str,
        config_for: impl FnOnce(u16) -> String,
    ) -> Self {
        Self::start_as(data, block_duration, &[], config_for)
    }

    pub(crate) fn start_as(
        data: &Path,
        block_duration: &str,
        flags: &[&str],
        config_for: impl FnOnce(u16) -> String,
    ) -> Self {
        let server = Self::start_on_anything(data, block_duration, flags, config_for);
        let log = server.log();
        // After a kill there is a lock that nobody holds.
        for line in log.lines().filter(|l| !l.contains("A lockfile from a previous execution")) {
            let line = line.to_lowercase();
            let complaint = ["level=error", "level=warn", "corrupt", "unknown series"];
            assert!(!complaint.iter().any(|c| line.contains(c)), "{log}");
        }
        server
    }

    /// As [`Self::start_as`], where it may find something to complain about.
    pub(crate) fn start_on_anything(
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
        let mut server = Self { child, port, config };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !server.get("/-/ready").is_some_and(|body| body.contains("Ready")) {
            assert!(server.child.try_wait().unwrap().is_none(), "{}", server.log());
            assert!(Instant::now() < deadline, "{}", server.log());
            std::thread::yield_now();
        }
        server
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.config.path().join("log")).unwrap()
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

    /// Value of a metric of the server.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let metrics = self.get("/metrics").unwrap();
        metrics.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// `data` of an answer of the API.
    fn data(&self, path: &str) -> serde_json::Value {
        let answer = self.get(path).unwrap();
        let mut body: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(body["status"], "success", "{body}");
        body["data"].take()
    }

    /// All samples in the 20 hours up to `end`, without stale markers.
    pub(crate) fn everything(&self, end: i64) -> Everything {
        self.everything_but(&[], end)
    }

    /// As [`Self::everything`], without the metrics of these names.
    pub(crate) fn everything_but(&self, names: &[&str], end: i64) -> Everything {
        let but = names.join("%7C");
        let selector = format!("%7B__name__%3D~%22.%2B%22%2C__name__!~%22{but}%22%7D");
        let url = format!("/api/v1/query?query={selector}%5B20h%5D&time={}", end / 1000 + 1);
        let mut out = Everything::new();
        for series in self.data(&url)["result"].as_array().unwrap() {
            let mut samples = floats(series).collect::<Vec<_>>();
            samples.extend(histograms(series));
            samples.sort();
            out.insert(labels(&series["metric"]), samples);
        }
        out
    }

    /// The histograms of a metric at each step of `[start, end]`.
    pub(crate) fn histograms_by_step(&self, metric: &str, start: i64, end: i64, step: i64) -> Everything {
        let [start, end, step] = [start, end, step].map(|ms| ms as f64 / 1e3);
        let url = format!("/api/v1/query_range?query={metric}&start={start}&end={end}&step={step}");
        let data = self.data(&url);
        let series = data["result"].as_array().unwrap().iter();
        series.map(|s| (labels(&s["metric"]), histograms(s).collect())).collect()
    }

    /// Exemplars of all series in `[start, end]`.
    pub(crate) fn exemplars(&self, start: i64, end: i64) -> Exemplars {
        let query = "%7B__name__%3D~%22.%2B%22%7D";
        let url = format!(
            "/api/v1/query_exemplars?query={query}&start={}&end={}",
            start as f64 / 1e3,
            end as f64 / 1e3
        );
        let data = self.data(&url);
        let one =
            |e: &serde_json::Value| (ms(&e["timestamp"]), float(number(&e["value"])), labels(&e["labels"]));
        let found = data.as_array().unwrap().iter().map(|series| {
            let list = series["exemplars"].as_array().unwrap().iter().map(one);
            (labels(&series["seriesLabels"]), list.collect())
        });
        found.collect()
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

/// Float samples of a series of the API.
fn floats(series: &serde_json::Value) -> impl Iterator<Item = (i64, String)> {
    series["values"].as_array().into_iter().flatten().map(|s| (ms(&s[0]), float(number(&s[1]))))
}

/// Histograms of a series of the API.
fn histograms(series: &serde_json::Value) -> impl Iterator<Item = (i64, String)> {
    let list = series["histograms"].as_array().into_iter().flatten();
    list.map(|s| (ms(&s[0]), histogram(&histogram_text(&s[1]))))
}

fn ms(seconds: &serde_json::Value) -> i64 {
    (seconds.as_f64().unwrap() * 1000.0).round() as i64
}

fn number(text: &serde_json::Value) -> f64 {
    text.as_str().unwrap().parse().unwrap()
}

fn labels(object: &serde_json::Value) -> Labels {
    let pairs = object.as_object().unwrap();
    Labels::from_pairs(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str().unwrap())))
}

/// A histogram of the API as [`promontory_tsdb::histogram::FloatHistogram`] prints it.
fn histogram_text(h: &serde_json::Value) -> String {
    let mut out = format!("{{count:{}, sum:{}", h["count"].as_str().unwrap(), h["sum"].as_str().unwrap());
    for bucket in h["buckets"].as_array().into_iter().flatten() {
        let (open, close) = match bucket[0].as_i64().unwrap() {
            0 => ('(', ']'),
            1 => ('[', ')'),
            2 => ('(', ')'),
            _ => ('[', ']'),
        };
        let [lower, upper, count] = [1, 2, 3].map(|i| bucket[i].as_str().unwrap());
        out += &format!(", {open}{lower},{upper}{close}:{count}");
    }
    out + "}"
}
