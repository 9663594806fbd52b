//! The pages about SQL show what psql and Python print, and `docs/sql-functions.md` is made of the functions' own entries.
//!
//! `PROMONTORY_WRITE_DOCS=1 cargo test --test it sql_docs` writes both pages anew.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use promontory::config::Config;
use promontory::flight::{FlightOptions, FlightServer};
use promontory::sql_functions;
use promontory_promql::{Engine, EngineOptions};
use promontory_sql::functions::doc::{Family, FunctionDoc};
use promontory_sql::{ExternalOptions, SqlCatalog, SqlOptions, SqlQueries, SqlServer};
use promontory_tsdb::{Clock, ManualClock, Queryable};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::data;

fn page(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

/// Printed between the answers to two scripts.
const BETWEEN: &str = "-- next script --";

/// What psql prints for each of `scripts`, errors among it.
fn psql(address: SocketAddr, scripts: &[String]) -> Vec<String> {
    let port = address.port();
    let command = format!(
        "psql -X -q -w -v VERBOSITY=verbose -h 127.0.0.1 -p {port} -U reader -d promontory 2>&1 \
         | sed -e '/^LOCATION:/d'"
    );
    let mut child = Command::new("sh")
        .args(["-c", &command])
        .env_remove("PGPASSWORD")
        .env("PGOPTIONS", "")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // What one script sets is no matter to the next.
    let script = scripts.join(&format!("\nDISCARD ALL;\n\\echo {BETWEEN}\n"));
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let answers = output.split(BETWEEN).map(|answer| {
        let lines: Vec<_> = answer.trim_matches('\n').lines().map(str::trim_end).collect();
        lines.join("\n").trim_end().to_owned()
    });
    answers.collect()
}

/// `page` with what its Python scripts print, asked of `flight`; as it is where they cannot run.
fn with_python_answers(page: &str, flight: SocketAddr) -> String {
    let python = |script: &str| Command::new("python3").args(["-c", script]).output();
    if !python("import adbc_driver_flightsql.dbapi, pyarrow").is_ok_and(|output| output.status.success()) {
        println!("skipped in part: python3 has no adbc_driver_flightsql");
        return page.to_owned();
    }
    let mut parts = page.split("```python\n");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (script, rest) = part.split_once("```\n```text\n").unwrap();
        let (_, rest) = rest.split_once("```\n").unwrap();
        let output = python(&script.replace("127.0.0.1:32010", &flight.to_string())).unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        let answer = String::from_utf8(output.stdout).unwrap();
        let _ = write!(out, "```python\n{script}```\n```text\n{answer}```\n{rest}");
    }
    out
}

/// Where files are on the pages.
const DATA: &str = "/data/";

/// Files as `page` speaks of them, in `folder`, and what its configuration says of them.
fn files(page: &str, folder: &Path) -> ExternalOptions {
    std::fs::create_dir_all(folder.join("exports")).unwrap();
    std::fs::write(folder.join("owners.csv"), "job,team\napi,shop\nnode,core\n").unwrap();
    std::fs::write(folder.join("exports/prices.csv"), "job;price\napi;2.5\nnode;1\n").unwrap();
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let yaml = blocks.into_iter().find(|yaml| yaml.contains("external:")).unwrap();
    let file = folder.join("prometheus.yml");
    std::fs::write(&file, yaml.replace(DATA, &format!("{}/", folder.display()))).unwrap();
    let (config, warnings) = Config::load(&file).unwrap();
    assert_eq!(warnings, []);
    config.sql.external
}

/// `page` with what psql prints below each statement. Its files are in `folder`.
fn with_answers(page: &str, address: SocketAddr, folder: &Path) -> String {
    let (mut parts, mut scripts) = (vec![String::new()], Vec::new());
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let out = parts.last_mut().unwrap();
        let _ = writeln!(out, "{line}");
        if line != "```sql" && line != "```psql" {
            continue;
        }
        let mut script = String::new();
        for line in lines.by_ref() {
            let _ = writeln!(out, "{line}");
            if line == "```" {
                break;
            }
            let _ = writeln!(script, "{line}");
        }
        if lines.next_if_eq(&"```text").is_some() {
            lines.by_ref().find(|line| *line == "```");
        }
        scripts.push(script.replace(DATA, &format!("{}/", folder.display())));
        parts.push(String::new());
    }
    let answers = psql(address, &scripts);
    assert_eq!(answers.len(), scripts.len(), "psql stopped: {answers:?}");
    let mut out = parts.remove(0);
    for (answer, part) in answers.iter().zip(&parts) {
        let _ = write!(out, "```text\n{answer}\n```\n{part}");
    }
    out
}

fn entry(doc: &FunctionDoc) -> String {
    let mut out = String::new();
    let _ = write!(out, "### {}\n\n", doc.name);
    let syntax: Vec<_> = doc.syntax.iter().map(|syntax| format!("`{syntax}`")).collect();
    let _ = write!(out, "{}\n\n{}\n\n", syntax.join("<br>\n"), doc.gives);
    out.push_str("| argument | is |\n|---|---|\n");
    for (name, is) in doc.arguments {
        let _ = writeln!(out, "| `{name}` | {is} |");
    }
    out.push('\n');
    for (title, text) in
        [("NULL, NaN and nothing", doc.odd_input), ("Errors", doc.errors), ("Compared", doc.differs)]
    {
        if !text.is_empty() {
            let _ = write!(out, "{title}: {text}\n\n");
        }
    }
    let _ = write!(out, "```sql\n{}\n```\n\n", doc.example);
    out
}

fn functions_page() -> String {
    let docs = [promontory_sql::functions::docs(), sql_functions::docs()].concat();
    let mut out = String::from(
        "# SQL functions\n\n\
         Functions that PostgreSQL and DataFusion do not have. This page is made from the code: \
         `PROMONTORY_WRITE_DOCS=1 cargo test --test it sql_docs`.\n\
         The examples are over the data of `cargo run --example sql_demo`; how to ask is on the page about [SQL](sql.md).\n\n",
    );
    for family in Family::ALL {
        let _ = write!(out, "## {}\n\n{}\n\n", family.heading(), family.introduction());
        docs.iter().filter(|doc| doc.family == family).for_each(|doc| out.push_str(&entry(doc)));
    }
    format!("{}\n", out.trim_end())
}

/// Says where `got` differs from the page, or writes it.
fn check(name: &str, got: &str) {
    let path = page(name);
    if std::env::var_os("PROMONTORY_WRITE_DOCS").is_some() {
        std::fs::write(path, got).unwrap();
        return;
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    let mut lines = page.lines();
    for (number, line) in got.lines().enumerate() {
        assert_eq!(
            lines.next(),
            Some(line),
            "docs/{name}:{} is stale: write it with PROMONTORY_WRITE_DOCS=1",
            number + 1
        );
    }
    assert_eq!(lines.next(), None, "docs/{name} ends later");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_what_psql_prints() {
    if Command::new("psql").arg("--version").output().is_err() {
        println!("skipped: psql cannot be run");
        return;
    }
    let source: Arc<dyn Queryable> = Arc::new(data::storage());
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(data::NOW_MS));
    let engine = Arc::new(Engine::new(EngineOptions::default()));
    let functions = sql_functions::all(&engine, &source, &clock);
    let catalog = SqlCatalog::with_functions(source, clock, functions);
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let folder = tempfile::tempdir().unwrap();
    catalog.mount(files(&std::fs::read_to_string(page("sql.md")).unwrap(), folder.path()));
    let queries = SqlQueries::new(Arc::clone(&catalog), Handle::current(), Vec::new(), None);
    let flight =
        FlightServer::bind(Arc::new(queries), FlightOptions::local(Handle::current())).await.unwrap();
    let server =
        SqlServer::bind(catalog, SqlOptions { listen, ..SqlOptions::default() }).await.expect("binds");
    let (address, shutdown) = (server.local_addr(), CancellationToken::new());
    let flight_address = flight.local_addr();
    let serving = tokio::spawn(server.serve(shutdown.clone()));
    let serving_flight = tokio::spawn(flight.serve(shutdown.clone()));
    let pages = tokio::task::spawn_blocking(move || {
        let tour = std::fs::read_to_string(page("sql.md")).unwrap();
        [
            ("sql.md", with_python_answers(&with_answers(&tour, address, folder.path()), flight_address)),
            ("sql-functions.md", with_answers(&functions_page(), address, folder.path())),
        ]
    });
    for (name, got) in pages.await.unwrap() {
        check(name, &got);
        // An example that fails is none; `sql.md` shows errors where it speaks of them.
        if name == "sql-functions.md" {
            assert!(!got.contains("\nERROR"), "an example of docs/{name} fails");
        }
    }
    shutdown.cancel();
    serving.await.unwrap();
    serving_flight.await.unwrap();
}

#[test]
fn every_function_has_an_entry() {
    let docs = [promontory_sql::functions::docs(), sql_functions::docs()].concat();
    let named: Vec<_> = docs.iter().flat_map(|doc| doc.name.split(", ")).collect();
    let source: Arc<dyn Queryable> = Arc::new(data::storage());
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(data::NOW_MS));
    let functions = sql_functions::all(&Arc::new(Engine::new(EngineOptions::default())), &source, &clock);
    let scalars = functions.scalars.iter().map(|f| f.name().to_owned());
    let aggregates = functions.aggregates.iter().map(|f| f.name().to_owned());
    let tables = functions.tables.iter().map(|(name, _)| name.clone());
    for name in scalars.chain(aggregates).chain(tables) {
        assert!(named.contains(&name.as_str()), "{name} has no entry");
    }
}
