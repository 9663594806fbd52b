//! Directories that a real Prometheus 2.42 wrote are read to the last sample.
//!
//! The fixtures are not in the repository: `PROMONTORY_FIXTURES` names their directory, otherwise
//! `../shared/fixtures` next to the repository is tried. Without them the tests say so and pass.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use promontory_tsdb::sample::NORMAL_NAN_BITS;
use promontory_tsdb::{Db, Labels, Queryable};

use crate::support::{Contents, options, read_all};

pub(crate) fn fixtures() -> Option<PathBuf> {
    let dir = std::env::var_os("PROMONTORY_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures"), PathBuf::from);
    let dir = dir.join("prometheus-2.42");
    if !dir.is_dir() {
        println!("SKIP: no fixtures at {}", dir.display());
        return None;
    }
    Some(dir)
}

/// Unpacks `name` and gives the temporary directory and the data directory in it.
pub(crate) fn unpack(fixtures: &Path, name: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let archive = fixtures.join(format!("{name}.tar.gz"));
    let status = Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(dir.path()).status().unwrap();
    assert!(status.success(), "tar {}", archive.display());
    let data = dir.path().join("data");
    (dir, data)
}

/// What `promtool tsdb dump` printed: series → (timestamp, value as text). Lines whose value is not
/// a float (histograms) are counted.
pub(crate) fn parse_dump(text: &str) -> (BTreeMap<Labels, Vec<(i64, String)>>, usize) {
    let mut out: BTreeMap<Labels, Vec<(i64, String)>> = BTreeMap::new();
    let mut skipped = 0;
    for line in text.lines() {
        let (labels, rest) = split_labels(line);
        let Some((value, t)) = rest.rsplit_once(' ') else { panic!("{line}") };
        if value.contains('{') {
            skipped += 1;
            continue;
        }
        out.entry(labels).or_default().push((t.parse().unwrap(), value.to_owned()));
    }
    (out, skipped)
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

/// Go prints `NaN` for every NaN; everything else parses back to the same bits.
pub(crate) fn same_value(text: &str, bits: u64) -> bool {
    match text {
        "NaN" => f64::from_bits(bits).is_nan(),
        "+Inf" => bits == f64::INFINITY.to_bits(),
        _ => text.parse::<f64>().unwrap().to_bits() == bits,
    }
}

pub(crate) fn assert_same(found: &Contents, dump: &BTreeMap<Labels, Vec<(i64, String)>>) {
    let only_in_dump = dump.keys().filter(|l| !found.contains_key(*l)).collect::<Vec<_>>();
    let only_found = found.keys().filter(|l| !dump.contains_key(*l)).collect::<Vec<_>>();
    assert!(
        only_in_dump.is_empty() && only_found.is_empty(),
        "missing {only_in_dump:?}, surplus {only_found:?}"
    );
    for (labels, expected) in dump {
        let samples = &found[labels];
        for (i, ((t, text), (found_t, bits))) in expected.iter().zip(samples).enumerate() {
            assert!(
                t == found_t && same_value(text, *bits),
                "{labels} sample {i}: expected {text} at {t}, found {} at {found_t}",
                f64::from_bits(*bits)
            );
        }
        assert_eq!(expected.len(), samples.len(), "{labels}");
    }
}

fn check(name: &str) {
    let Some(fixtures) = fixtures() else { return };
    let (_dir, data) = unpack(&fixtures, name);
    let dump = Command::new("zcat").arg(fixtures.join(format!("{name}.dump.txt.gz"))).output().unwrap();
    let (expected, histograms) = parse_dump(&String::from_utf8(dump.stdout).unwrap());
    let samples = expected.values().map(Vec::len).sum::<usize>();
    let mut options = options(&data);
    options.block_range_ms = 120_000;
    options.retention_ms = None;
    let db = Db::open(options.clone()).unwrap();
    assert_eq!(db.metrics().blocks_quarantined, 0);
    println!("{name}: {:?}", db.replay_stats());
    let found = read_all(&*db);
    assert_same(&found, &expected);
    println!(
        "{name}: {samples} float samples of {} series are the same; {histograms} histogram samples skipped",
        found.len()
    );
    assert!(samples > 100_000);
    assert!(found.values().flatten().any(|s| s.1 == NORMAL_NAN_BITS), "a NaN that is no stale marker");
    // Nothing is lost when the head goes to blocks, nor at a restart after that.
    let done = db.maintain().unwrap();
    println!("{name}: {done:?}, {} blocks", db.blocks().len());
    assert_eq!(read_all(&*db), found);
    db.close().unwrap();
    assert_eq!(read_all(&*Db::open(options).unwrap()), found);
}

#[test]
fn a_directory_of_a_stopped_prometheus() {
    check("clean");
}

#[test]
fn a_directory_of_a_prometheus_that_lost_power() {
    check("crashed");
}
