//! Runs `sql/tests/slt`: scripts of statements with the answers that a Postgres client gets.
//!
//! Scripts under `postgres/` are asked of a real PostgreSQL with the same rows as well, and both have to give what is
//! written there. A record that only one of them is asked has `onlyif promontory` or `onlyif postgresql` in front.
//! Column types are those of the extended protocol: `B` boolean, `I` integer, `R` floating point, `N` numeric, `P` time,
//! `D` date, `V` interval, `T` text, `A` array, `?` any other. Rows are those of the simple protocol, an empty text is `(empty)`.
//!
//! `PROMONTORY_WRITE_SLT=promontory` (or `postgresql`) writes the answers of that server into the scripts named by
//! `PROMONTORY_SLT`; read them before you believe them.

mod rows;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use promontory::sql_functions;
use promontory_promql::{Engine, EngineOptions};
use promontory_sql::{SqlCatalog, SqlOptions, SqlServer};
use promontory_tsdb::{Clock, ManualClock, Queryable};
use sqllogictest::{AsyncDB, DBOutput, MakeConnection, Runner};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};
use tokio_util::sync::CancellationToken;

use super::data;
use super::postgres::Postgres;

/// What a column is, see the head of this file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Letter(char);

impl sqllogictest::ColumnType for Letter {
    fn from_char(letter: char) -> Option<Self> {
        Some(Self(letter))
    }

    fn to_char(&self) -> char {
        self.0
    }
}

impl Letter {
    fn of(r#type: &tokio_postgres::types::Type) -> Self {
        Self(match r#type.name() {
            "bool" => 'B',
            "int2" | "int4" | "int8" => 'I',
            "float4" | "float8" => 'R',
            "numeric" => 'N',
            "timestamp" | "timestamptz" => 'P',
            "date" => 'D',
            "interval" => 'V',
            "text" | "varchar" | "name" | "bpchar" => 'T',
            name if name.starts_with('_') => 'A',
            _ => '?',
        })
    }
}

/// `SQLSTATE: message`.
struct Refused(tokio_postgres::Error);

impl Refused {
    fn state(&self) -> Option<String> {
        self.0.code().map(|code| code.code().to_owned())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_db_error() {
            Some(error) => write!(f, "{}: {}", error.code().code(), error.message()),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Refused {}

/// A connection to either server.
struct Wire {
    client: Client,
    engine: &'static str,
}

#[async_trait]
impl AsyncDB for Wire {
    type Error = Refused;
    type ColumnType = Letter;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<Letter>, Refused> {
        let mut rows = None;
        for message in self.client.simple_query(sql).await.map_err(Refused)? {
            match message {
                SimpleQueryMessage::RowDescription(columns) => rows = Some((columns.len(), Vec::new())),
                SimpleQueryMessage::Row(row) => {
                    let texts = (0..row.len()).map(|i| match row.get(i) {
                        None => "NULL".to_owned(),
                        Some("") => "(empty)".to_owned(),
                        Some(text) => text.replace('\n', "\\n"),
                    });
                    rows.get_or_insert_with(|| (row.len(), Vec::new())).1.push(texts.collect());
                }
                _ => {}
            }
        }
        let Some((columns, rows)) = rows else { return Ok(DBOutput::StatementComplete(0)) };
        // What has no description (FETCH, EXECUTE, scripts of several statements) has columns of any type.
        let types = match self.client.prepare(sql).await {
            Ok(prepared) if prepared.columns().len() == columns => {
                prepared.columns().iter().map(|column| Letter::of(column.type_())).collect()
            }
            _ => vec![Letter('?'); columns],
        };
        Ok(DBOutput::Rows { types, rows })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        self.engine
    }

    fn error_sql_state(error: &Refused) -> Option<String> {
        error.state()
    }
}

async fn connect(config: Config, engine: &'static str) -> Result<Wire, Refused> {
    let (client, connection) = config.connect(NoTls).await.map_err(Refused)?;
    tokio::spawn(connection);
    Ok(Wire { client, engine })
}

/// Scripts of `folder`, or those whose path has `PROMONTORY_SLT` in it.
fn scripts(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/tests/slt").join(folder);
    let only = std::env::var("PROMONTORY_SLT").unwrap_or_default();
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|path| {
            path.extension().is_some_and(|ext| ext == "slt") && path.to_string_lossy().contains(&only)
        })
        .collect();
    files.sort();
    files
}

/// Runs each script on connections of its own; all that is wrong is told at the end.
async fn run_all(config: &Config, engine: &'static str, scripts: &[PathBuf]) {
    let mut wrong = Vec::new();
    for script in scripts {
        let mut runner = Runner::new(|| connect(config.clone(), engine));
        runner.with_column_validator(sqllogictest::strict_column_validator);
        if std::env::var("PROMONTORY_WRITE_SLT").is_ok_and(|wanted| wanted == engine) {
            write(&mut runner, script).await;
        } else {
            for record in sqllogictest::parse_file(script).unwrap() {
                if let Err(error) = runner.run_async(record).await {
                    wrong.push(format!("{engine}: {}", error.display(false)));
                }
            }
        }
        runner.shutdown_async().await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn write<M: MakeConnection<Conn = Wire>>(runner: &mut Runner<Wire, M>, script: &Path) {
    let (validator, columns) = (sqllogictest::default_validator, sqllogictest::strict_column_validator);
    let written = runner.update_test_file(script, " ", validator, sqllogictest::default_normalizer, columns);
    written.await.unwrap_or_else(|error| panic!("{}: {error}", script.display()));
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_get_the_answers_that_they_expect() {
    let source: Arc<dyn Queryable> = Arc::new(rows::storage());
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(data::NOW_MS));
    let engine = Arc::new(Engine::new(EngineOptions::default()));
    let functions = sql_functions::all(&engine, &source, &clock);
    let catalog = SqlCatalog::with_functions(source, clock, functions);
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server =
        SqlServer::bind(catalog, SqlOptions { listen, ..SqlOptions::default() }).await.expect("binds");
    let (address, shutdown) = (server.local_addr(), CancellationToken::new());
    let serving = tokio::spawn(server.serve(shutdown.clone()));
    let mut config = Config::new();
    config.host("127.0.0.1").port(address.port()).user("tester").dbname("promontory");
    let all = [scripts("."), scripts("postgres")].concat();
    assert!(!all.is_empty());
    run_all(&config, "promontory", &all).await;
    shutdown.cancel();
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_gives_the_answers_that_scripts_expect() {
    let Some(postgres) = Postgres::start().await else { return };
    postgres.load(&rows::storage()).await;
    let mut config = Config::new();
    config.host_path(postgres.socket_dir()).user("tester").dbname("postgres");
    run_all(&config, "postgresql", &scripts("postgres")).await;
}
