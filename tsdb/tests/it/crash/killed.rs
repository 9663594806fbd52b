//! A process that is killed with `kill -9` while it appends and maintains has lost nothing that it acknowledged.
//!
//! The child is this test binary again; it prints a line for each batch that was acknowledged. `KILL_ROUNDS`
//! says how often it is killed (15).

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use promontory_tsdb::{Db, Labels, Queryable as _, SeriesRef};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::script::options;
use crate::support::{read_everything, setting, temporary};

const DIR: &str = "PROMONTORY_KILL_DIR";
const SERIES: i64 = 5;
const SCRAPE_MS: i64 = 15_000;

fn labels(i: i64) -> Labels {
    Labels::from_pairs([("__name__", "m".to_owned()), ("i", i.to_string())])
}

fn value(round: i64, i: i64) -> f64 {
    (round * 31 + i) as f64
}

/// The child: appends until it is killed.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let db = Db::open(options(&dir)).unwrap();
    let mut out = std::io::stdout();
    let mut round = db.time_bounds().map_or(0, |(_, maxt)| maxt / SCRAPE_MS);
    loop {
        round += 1;
        let mut appender = db.appender();
        for i in 0..SERIES {
            appender.append(SeriesRef(0), &labels(i), round * SCRAPE_MS, value(round, i)).unwrap();
        }
        appender.commit().unwrap();
        writeln!(out, "\nack {round}").unwrap();
        out.flush().unwrap();
        if round % 25 == 0 {
            db.maintain().unwrap();
        }
    }
}

/// Lets a child append until it has acknowledged about `acks` batches, and gives the last that it did.
fn run_child(dir: &Path, acks: usize, spin: u32) -> i64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "crash::killed::child"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut last = 0;
    let mut seen = 0;
    let mut note = |line: String| {
        let Some(round) = line.strip_prefix("ack ") else { return false };
        // A line that was torn by the end of the process acknowledges nothing.
        last = last.max(round.parse().unwrap_or(last));
        true
    };
    while seen < acks {
        seen += usize::from(note(lines.next().expect("the child goes on").unwrap()));
    }
    for _ in 0..spin {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    for line in lines {
        note(line.unwrap());
    }
    child.wait().unwrap();
    last
}

#[test]
fn a_process_killed_at_any_time_keeps_what_it_acknowledged() {
    let rounds = setting("KILL_ROUNDS", 15);
    let mut rng = StdRng::seed_from_u64(setting("CRASH_SEED", 1));
    let dir = temporary();
    let (mut acknowledged, mut unanswered, mut blocks) = (0, 0, 0);
    for kill in 0..rounds {
        acknowledged =
            run_child(dir.path(), rng.random_range(1..120), rng.random_range(0..200_000)).max(acknowledged);
        let db = Db::open(options(dir.path())).unwrap();
        let found = read_everything(&*db);
        let last = db.time_bounds().map_or(0, |(_, maxt)| maxt / SCRAPE_MS);
        assert!(
            (acknowledged..=acknowledged + 1).contains(&last),
            "kill {kill}: {acknowledged} acknowledged, {last} found"
        );
        unanswered += last - acknowledged;
        for i in 0..SERIES {
            let expected = (1..=last).map(|r| (r * SCRAPE_MS, value(r, i).to_bits())).collect::<Vec<_>>();
            assert!(found[&labels(i)] == expected, "kill {kill}: series {i} differs");
        }
        acknowledged = last;
        blocks = db.blocks().len();
    }
    println!(
        "killed {rounds} times over {acknowledged} batches and {blocks} blocks; {unanswered} were there without an answer; no losses"
    );
}
