//! The pages about SQL show what psql prints, and `docs/sql-functions.md` is made of the functions' own entries.
//!
//! `PROMONTORY_WRITE_DOCS=1 cargo test --test it sql_docs` writes both pages anew.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use promontory::sql_functions;
use promontory_promql::{Engine, EngineOptions};
use promontory_sql::functions::doc::{Family, FunctionDoc};
use promontory_sql::{SqlCatalog, SqlOptions, SqlServer};
use promontory_tsdb::{Clock, ManualClock, Queryable};
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

/// `page` with what psql prints below each statement.
fn with_answers(page: &str, address: SocketAddr) -> String {
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
        scripts.push(script);
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
    let server =
        SqlServer::bind(catalog, SqlOptions { listen, ..SqlOptions::default() }).await.expect("binds");
    let (address, shutdown) = (server.local_addr(), CancellationToken::new());
    let serving = tokio::spawn(server.serve(shutdown.clone()));
    let pages = tokio::task::spawn_blocking(move || {
        let tour = std::fs::read_to_string(page("sql.md")).unwrap();
        [
            ("sql.md", with_answers(&tour, address)),
            ("sql-functions.md", with_answers(&functions_page(), address)),
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
