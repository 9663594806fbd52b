//! PostgreSQL as the one to ask: a cluster of its own in a temporary directory, with the tables that Promontory shows.
//!
//! Tables are made from [`Queryable`], not through our SQL, so that both sides stand on the same samples alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use futures::{SinkExt as _, TryStreamExt as _};
use promontory_tsdb::{Labels, METRIC_NAME, Matcher, Queryable, SelectHints, is_stale};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::support::eventually;

/// A running server. It dies with this.
pub(crate) struct Postgres {
    process: Child,
    dir: TempDir,
}

/// `program` of the newest PostgreSQL on this machine, as a user that it agrees to run as.
fn program(program: &str) -> Option<Command> {
    let mut bins: Vec<_> = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().collect();
    bins.sort_by_key(|version| version.file_name());
    let found =
        bins.last().map(|version| version.path().join("bin").join(program)).filter(|path| path.exists());
    let path = found.or_else(|| {
        Command::new(program).arg("--version").output().is_ok().then(|| PathBuf::from(program))
    })?;
    if !is_root() {
        return Some(Command::new(path));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(path);
    Some(command)
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

impl Postgres {
    /// `None` where there is none; says so.
    pub(crate) async fn start() -> Option<Self> {
        let started = Self::try_start().await;
        if started.is_none() {
            println!("skipped: PostgreSQL cannot be run");
        }
        started
    }

    async fn try_start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        if is_root() && !succeeds(Command::new("chown").arg("postgres").arg(dir.path())) {
            return None;
        }
        let data = dir.path().join("data");
        let mut init = program("initdb")?;
        init.args(["--no-sync", "--no-locale", "-E", "UTF8", "-A", "trust", "-U", "tester", "-D"]).arg(&data);
        if !succeeds(init.current_dir(dir.path())) {
            return None;
        }
        let mut server = program("postgres")?;
        server.arg("-D").arg(&data).arg("-k").arg(dir.path()).current_dir(dir.path());
        for setting in [
            "listen_addresses=",
            "fsync=off",
            "timezone=UTC",
            "search_path=metrics",
            "autovacuum=off",
            "jit=off",
        ] {
            server.args(["-c", setting]);
        }
        let process = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let started = Self { process, dir };
        eventually("PostgreSQL", || started.try_connect()).await;
        Some(started)
    }

    async fn try_connect(&self) -> Option<Client> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.socket_dir()).user("tester").dbname("postgres");
        let (client, connection) = config.connect(NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    pub(crate) fn socket_dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) async fn connect(&self) -> Client {
        self.try_connect().await.expect("PostgreSQL takes connections")
    }

    /// Makes schema `metrics` with a table per metric of `source`. Native histograms have no rows.
    pub(crate) async fn load(&self, source: &dyn Queryable) {
        let client = self.connect().await;
        client.batch_execute("CREATE SCHEMA IF NOT EXISTS metrics").await.unwrap();
        for metric in source.label_values(METRIC_NAME, &[], i64::MIN, i64::MAX).unwrap() {
            Table::read(source, &metric).await.load(&client).await;
        }
        client.batch_execute("ANALYZE").await.unwrap();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // At once: nothing of it is kept.
        let pid = self.process.id().to_string();
        let _ = Command::new("kill").args(["-QUIT", &pid]).status();
        let _ = self.process.wait();
    }
}

/// Series by their label sets, with samples in order of time.
struct Table {
    metric: String,
    series: Vec<(Labels, Vec<(i64, f64)>)>,
}

impl Table {
    async fn read(source: &dyn Queryable, metric: &str) -> Self {
        let matcher = Matcher::eq(METRIC_NAME, metric);
        let selection = source.select(&[matcher], i64::MIN, i64::MAX, &SelectHints::default()).unwrap();
        let mut series = Vec::new();
        for mut partition in selection.partitions {
            while let Some(batch) = partition.try_next().await.unwrap() {
                for i in 0..batch.len() {
                    let (labels, timestamps, values) = batch.series(i);
                    let samples = timestamps.iter().copied().zip(values.iter().copied());
                    let samples = samples.filter(|(_, value)| !is_stale(*value)).collect();
                    series.push((labels.clone(), samples));
                }
            }
        }
        Self { metric: metric.to_owned(), series }
    }

    /// Column per label, as docs/sql.md says.
    fn columns(&self) -> BTreeMap<String, String> {
        let labels = self.series.iter().flat_map(|(labels, _)| labels.iter());
        let names = labels.map(|(name, _)| name).filter(|name| *name != METRIC_NAME);
        let columns = names.map(|name| {
            let is_taken = ["timestamp", "value"].contains(&name.trim_start_matches("label_"));
            (name.to_owned(), if is_taken { format!("label_{name}") } else { name.to_owned() })
        });
        columns.collect()
    }

    async fn load(&self, client: &Client) {
        let columns = self.columns();
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let table = format!("metrics.{}", quoted(&self.metric));
        let mut create = format!(
            "CREATE TABLE {table} (\"timestamp\" timestamptz NOT NULL, value double precision NOT NULL"
        );
        for column in columns.values() {
            let _ = write!(create, ", {} text", quoted(column));
        }
        client.batch_execute(&format!("{create})")).await.unwrap();
        let mut rows = String::new();
        for (labels, samples) in &self.series {
            let mut texts = String::new();
            for label in columns.keys() {
                texts.push('\t');
                match labels.get(label) {
                    Some(value) => texts.push_str(&escaped(value)),
                    None => texts.push_str("\\N"),
                }
            }
            for (t, value) in samples {
                let _ = writeln!(rows, "{}\t{value:?}{texts}", time(*t));
            }
        }
        let sink = client.copy_in(&format!("COPY {table} FROM STDIN")).await.unwrap();
        let mut sink = std::pin::pin!(sink);
        sink.send(Bytes::from(rows)).await.unwrap();
        sink.finish().await.unwrap();
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

fn time(ms: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(ms).unwrap();
    time.format("%Y-%m-%d %H:%M:%S%.3f+00").to_string()
}
