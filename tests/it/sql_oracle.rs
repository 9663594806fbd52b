//! Random queries over random samples, asked of our server and of PostgreSQL with the same rows: the answers are the same.
//!
//! `PROMONTORY_SEED` replays a run; a failure names its seed. `PROMONTORY_QUERIES` asks more of them.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use promontory_sql::{SqlCatalog, SqlOptions, SqlServer};
use promontory_tsdb::{Clock, Db, DbOptions, Labels, ManualClock, Matcher, Queryable, SeriesRef, stale_nan};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use tokio_util::sync::CancellationToken;

use super::postgres::Postgres;

/// 2026-01-01T10:00:00Z
const START_MS: i64 = 1_767_261_600_000;
const BLOCK_MS: i64 = 600_000;
const SPAN_MS: i64 = 45 * 60_000;
const QUERIES: usize = 250;

/// Random draws, and the words that queries are made of.
struct Dice(StdRng);

impl Dice {
    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of.choose(&mut self.0).expect("something to choose from")
    }

    fn percent(&mut self, chance: u32) -> bool {
        self.0.random_range(0..100) < chance
    }

    fn below(&mut self, n: i64) -> i64 {
        self.0.random_range(0..n)
    }

    /// Some of `of`, in order, at least one.
    fn some<'a>(&mut self, of: &[&'a str]) -> Vec<&'a str> {
        let mut some: Vec<_> = of.iter().copied().filter(|_| self.percent(50)).collect();
        if some.is_empty() {
            some.push(self.one(of));
        }
        some
    }
}

const LABELS: [&str; 3] = ["instance", "job", "zone"];
/// With them, `ORDER BY` leaves nothing open.
const ALL_KEYS: &str = "timestamp, instance, job, zone";

/// Series that lack labels, with gaps, stale markers and odd values; in blocks, the head, and deleted here and there.
fn storage(dice: &mut Dice, dir: &std::path::Path) -> Arc<Db> {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(START_MS + SPAN_MS));
    let mut options = DbOptions::new(dir);
    options.block_range_ms = BLOCK_MS;
    options.clock = clock;
    let db = Db::open(options).unwrap();
    let mut series = Vec::new();
    for i in 0..24 {
        let mut pairs = vec![("__name__", "m".to_owned()), ("instance", format!("i{i}"))];
        if dice.percent(75) {
            pairs.push(("job", dice.one(&["a", "b", "ab"]).to_owned()));
        }
        if dice.percent(75) {
            pairs.push(("zone", dice.one(&["x_y", "xzy", "x%y", "ü", "A b", "x\ny", "it's"]).to_owned()));
        }
        series.push((Labels::from_pairs(pairs), SeriesRef::default()));
    }
    let mut t = START_MS;
    while t < START_MS + SPAN_MS {
        let mut appender = db.appender();
        for (i, (labels, known)) in series.iter_mut().enumerate() {
            // Some begin late, some end early, and all have gaps.
            let is_there =
                t >= START_MS + (i as i64 % 5) * 300_000 && (i % 7 != 0 || t < START_MS + SPAN_MS / 2);
            if !is_there || dice.percent(5) {
                continue;
            }
            let value = match dice.below(40) {
                0 => f64::NAN,
                1 => f64::INFINITY,
                2 => f64::NEG_INFINITY,
                3 => stale_nan(),
                n => (n - 20) as f64 / 2.0,
            };
            *known = appender.append(*known, labels, t + i as i64 % 3, value).unwrap();
        }
        appender.commit().unwrap();
        if dice.percent(3) {
            db.maintain().unwrap();
        }
        t += 10_000 + dice.below(5_000);
    }
    db.maintain().unwrap();
    for _ in 0..3 {
        let instance = format!("i{}", dice.below(24));
        let from = START_MS + dice.below(SPAN_MS);
        db.delete(&[Matcher::eq("instance", instance)], from, from + dice.below(400_000)).unwrap();
    }
    db
}

fn time(dice: &mut Dice) -> String {
    let ms = START_MS + dice.below(SPAN_MS);
    let text = chrono::DateTime::from_timestamp_millis(ms).unwrap().format("%Y-%m-%dT%H:%M:%S%.3fZ");
    if dice.percent(30) { format!("timestamptz '{text}'") } else { format!("'{text}'") }
}

fn about_a_label(dice: &mut Dice) -> String {
    let label = dice.one(&LABELS);
    let text = dice.one(&["a", "b", "i1", "i11", "x_y", "ü", "", "it''s", "none"]);
    let other = dice.one(&["ab", "i2", "xzy", "A b", "x%y"]);
    let not = dice.one(&["", "NOT "]);
    match dice.below(11) {
        0 | 1 => format!("{label} = '{text}'"),
        2 => format!("{label} <> '{text}'"),
        3 => {
            let null = dice.one(&["", "", ", NULL"]);
            format!("{label} {not}IN ('{text}', '{other}'{null})")
        }
        4 => {
            let pattern = dice.one(&["x%", "%y", "x_y", "x\\_y", "%", "", "i1_", "%\\%%", "_", "a%"]);
            format!("{label} {not}LIKE '{pattern}'")
        }
        5 => {
            let op = dice.one(&["~", "!~"]);
            let pattern = dice.one(&["^x", "y$", "a|b", "^(a|ab)$", "[zü]", "1", "^i1.$", "x[_%]y", "^$"]);
            format!("{label} {op} '{pattern}'")
        }
        6 => format!("{label} IS {not}NULL"),
        7 => format!("{label} IS {not}DISTINCT FROM '{text}'"),
        8 => {
            let op = dice.one(&["<", "<=", ">", ">="]);
            format!("{label} {op} '{other}'")
        }
        9 => format!("coalesce({label}, '') {} '{text}'", dice.one(&["=", "<>"])),
        _ => format!("{label} = '{text}' OR {label} = '{other}'"),
    }
}

fn about_time(dice: &mut Dice) -> String {
    let (a, b) = (time(dice), time(dice));
    match dice.below(8) {
        0 => format!("timestamp > {a}"),
        1 => format!("timestamp <= {a}"),
        2 => format!("timestamp >= {a} AND timestamp < {b}"),
        3 => format!("timestamp > {a} AND timestamp <= {b}"),
        4 => format!("timestamp BETWEEN {a} AND {b}"),
        5 => format!("timestamp NOT BETWEEN {a} AND {b}"),
        6 => format!("{a} {} timestamp", dice.one(&["<", "<=", ">", ">=", "=", "<>"])),
        _ => format!("timestamp IN ({a}, {b})"),
    }
}

fn about_the_value(dice: &mut Dice) -> String {
    let number = dice.one(&["0", "1.5", "-3", "7", "'NaN'", "'Infinity'", "'-Infinity'"]);
    match dice.below(4) {
        0 => format!("value BETWEEN -2 AND {number}"),
        1 => format!("value IN (1, 2.5, {number})"),
        _ => format!("value {} {number}", dice.one(&["=", "<>", "<", "<=", ">", ">="])),
    }
}

fn predicate(dice: &mut Dice, depth: u32) -> String {
    if depth > 0 && dice.percent(55) {
        let (left, right) = (predicate(dice, depth - 1), predicate(dice, depth - 1));
        return match dice.below(5) {
            0 => format!("NOT ({left})"),
            1 => format!("(({left}) OR ({right}))"),
            _ => format!("({left}) AND ({right})"),
        };
    }
    match dice.below(5) {
        0 | 1 => about_a_label(dice),
        2 | 3 => about_time(dice),
        _ => about_the_value(dice),
    }
}

fn condition(dice: &mut Dice) -> String {
    if dice.percent(15) { String::new() } else { format!(" WHERE {}", predicate(dice, 2)) }
}

fn aggregate(dice: &mut Dice) -> String {
    let call = dice.one(&[
        "count(*)",
        "count(*)",
        "count(job)",
        "count(DISTINCT zone)",
        "count(DISTINCT value)",
        "sum(value)",
        "avg(value)",
        "min(value)",
        "max(value)",
        "min(timestamp)",
        "max(timestamp)",
        "max(job)",
        "min(zone)",
        "bool_or(value > 3)",
    ]);
    if dice.percent(15) { format!("{call} FILTER (WHERE {})", predicate(dice, 1)) } else { call.to_owned() }
}

fn aggregates(dice: &mut Dice) -> String {
    (0..=dice.below(3)).map(|_| aggregate(dice)).collect::<Vec<_>>().join(", ")
}

/// A query, and whether the order of its rows is part of the answer.
fn query(dice: &mut Dice) -> (String, bool) {
    let keys = dice.some(&LABELS).join(", ");
    let filter = condition(dice);
    let direction = dice.one(&["", " DESC"]);
    match dice.below(12) {
        0 => (format!("SELECT timestamp, value, instance, job, zone FROM m{filter}"), false),
        1 | 2 => {
            let first = dice.one(&["timestamp", "value", "job", "zone", "instance"]);
            let nulls = dice.one(&["", " NULLS FIRST", " NULLS LAST"]);
            let mut text = format!(
                "SELECT {first}, value, instance FROM m{filter} ORDER BY {first}{direction}{nulls}, {ALL_KEYS}"
            );
            if dice.percent(70) {
                let _ = write!(text, " LIMIT {} OFFSET {}", dice.below(30), dice.below(5));
            }
            (text, true)
        }
        3 => (format!("SELECT {} FROM m{filter}", aggregates(dice)), true),
        4 | 5 => {
            let having = dice.one(&["", "", " HAVING count(*) > 20", " HAVING max(value) > 5"]);
            (
                format!(
                    "SELECT {keys}, {} FROM m{filter} GROUP BY {keys}{having} ORDER BY {keys}",
                    aggregates(dice)
                ),
                true,
            )
        }
        6 => {
            let width = dice.one(&["1 minute", "5 minutes", "1 hour", "7 seconds"]);
            let bucket = format!("date_bin('{width}', timestamp, timestamptz '2026-01-01T00:00:00Z')");
            let also = if dice.percent(50) { ", job" } else { "" };
            let text = format!(
                "SELECT {bucket} AS t{also}, {} FROM m{filter} GROUP BY t{also} ORDER BY t{also}",
                aggregates(dice)
            );
            (text, true)
        }
        7 => (format!("SELECT DISTINCT {keys} FROM m{filter} ORDER BY {keys}"), true),
        8 => {
            let text = format!(
                "SELECT DISTINCT ON ({keys}) {keys}, timestamp, value FROM m{filter} \
                 ORDER BY {keys}, timestamp{direction}, instance, job, zone"
            );
            (text, true)
        }
        9 => {
            let by = if dice.percent(50) { "instance, job, zone" } else { &keys };
            let text = format!(
                "SELECT {by}, min(timestamp), max(timestamp), count(*) FROM m{filter} GROUP BY {by} ORDER BY {by}"
            );
            (text, true)
        }
        10 => {
            let text = format!(
                "SELECT instance, timestamp, value, lag(value) OVER w, row_number() OVER w FROM m{filter} \
                 WINDOW w AS (PARTITION BY instance, job, zone ORDER BY timestamp{direction})"
            );
            (text, false)
        }
        _ => {
            let inner = condition(dice);
            let text =
                format!("SELECT count(*) FROM m{filter}{} job IN (SELECT job FROM m{inner})", and(&filter));
            (text, true)
        }
    }
}

fn and(filter: &str) -> &'static str {
    if filter.is_empty() { " WHERE" } else { " AND" }
}

type Rows = Vec<Vec<Option<String>>>;

async fn ask(client: &Client, query: &str) -> Result<Rows, String> {
    let messages = client.simple_query(query).await.map_err(|error| match error.as_db_error() {
        Some(error) => format!("{}: {}", error.code().code(), error.message()),
        None => error.to_string(),
    })?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()),
        _ => None,
    });
    Ok(rows.collect())
}

/// Sums are the same to nine digits, for nobody says in which order to add; all else is the same text.
fn is_same(a: &Rows, b: &Rows) -> bool {
    let close = |a: &str, b: &str| match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
        _ => false,
    };
    let value = |a: &Option<String>, b: &Option<String>| match (a, b) {
        (Some(a), Some(b)) => a == b || close(a, b),
        (a, b) => a == b,
    };
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| value(a, b)))
}

fn shown(rows: &Rows) -> String {
    let mut text = format!("{} rows\n", rows.len());
    for row in rows.iter().take(20) {
        let cells: Vec<_> = row.iter().map(|cell| cell.as_deref().unwrap_or("NULL")).collect();
        let _ = writeln!(text, "  {}", cells.join(" | "));
    }
    text
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[tokio::test(flavor = "multi_thread")]
async fn random_queries_get_the_answers_of_postgresql() {
    let Some(postgres) = Postgres::start().await else { return };
    let seed = number("PROMONTORY_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("PROMONTORY_SEED={seed}");
    let mut dice = Dice(StdRng::seed_from_u64(seed));
    let dir = tempfile::tempdir().unwrap();
    let db = storage(&mut dice, dir.path());
    postgres.load(db.as_ref()).await;
    let theirs = postgres.connect().await;
    let source: Arc<dyn Queryable> = Arc::clone(&db) as _;
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(START_MS + SPAN_MS));
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let options = SqlOptions { listen, ..SqlOptions::default() };
    let server = SqlServer::bind(SqlCatalog::new(source, clock), options).await.unwrap();
    let (address, shutdown) = (server.local_addr(), CancellationToken::new());
    let serving = tokio::spawn(server.serve(shutdown.clone()));
    let config = format!("host={} port={} user=me dbname=promontory", address.ip(), address.port());
    let (ours, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tokio::spawn(connection);
    let blocks = ask(&ours, "SELECT count(*) > 2 FROM tsdb.blocks").await.unwrap();
    assert_eq!(blocks, [[Some("t".to_owned())]], "there are blocks beside the head");

    let count = number("PROMONTORY_QUERIES").map_or(QUERIES, |n| usize::try_from(n).unwrap());
    let mut wrong = Vec::new();
    for _ in 0..count {
        let (query, is_ordered) = query(&mut dice);
        let (a, b) = (ask(&ours, &query).await, ask(&theirs, &query).await);
        let same = match (a.clone(), b.clone()) {
            (Ok(mut a), Ok(mut b)) => {
                if !is_ordered {
                    a.sort();
                    b.sort();
                }
                is_same(&a, &b)
            }
            // What is refused is refused by both.
            (a, b) => a.is_err() && b.is_err(),
        };
        if !same {
            let told = |answer: &Result<Rows, String>| answer.as_ref().map_or_else(Clone::clone, shown);
            wrong.push(format!("{query}\nours: {}\nPostgreSQL: {}", told(&a), told(&b)));
        }
    }
    shutdown.cancel();
    serving.await.unwrap();
    let first = wrong.iter().take(8).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "PROMONTORY_SEED={seed}: {} of {count} answers differ\n{first}", wrong.len());
}
