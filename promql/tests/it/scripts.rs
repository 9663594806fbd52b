//! Test scripts: ours must pass, and of upstream's at least as many as did before.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use promontory_promql::promqltest::{EngineEvaluator, Split, run_script, script_engine_options};

pub(crate) fn scripts(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder can be read")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|e| e == "test"))
        .collect();
    files.sort();
    files
}

/// How data and work are cut into pieces.
#[derive(Debug, Clone, Copy)]
struct Cut {
    tile_steps: usize,
    partitions: usize,
    split: Option<Split>,
}

const USUAL: Cut = Cut { tile_steps: 128, partitions: 2, split: None };

/// Chance that comes out the same each time.
const SEED: u64 = 0x5eed;

/// Every width of tiles with one and several partitions, on data in one piece and in several.
fn cuts() -> Vec<Cut> {
    let mut all = Vec::new();
    for tile_steps in [1, 8, 64, 128] {
        for partitions in [1, 3] {
            for split in [None, Some(Split::Disjoint), Some(Split::Overlapping)] {
                all.push(Cut { tile_steps, partitions, split });
            }
        }
    }
    all
}

fn evaluator(cut: Cut) -> EngineEvaluator {
    let mut options = script_engine_options();
    options.tile_steps = cut.tile_steps;
    options.partitions = cut.partitions;
    // Else there would be one partition for so few samples.
    options.parallel_samples = 0;
    let evaluator = EngineEvaluator::new(options).expect("a runtime");
    match cut.split {
        None => evaluator,
        Some(split) => evaluator.spread(split, SEED),
    }
}

/// Runs all scripts of a folder; gives the number of cases that passed, and the failures as text.
fn run(folder: &Path, cut: Cut, wanted: impl Fn(&str) -> bool) -> (usize, Vec<String>) {
    let evaluator = evaluator(cut);
    let mut passed = 0;
    let mut failures = Vec::new();
    for path in scripts(folder) {
        let text = std::fs::read_to_string(&path).expect("a script is text");
        let report = run_script(&text, &evaluator, &wanted);
        passed += report.passed();
        for case in report.cases {
            if let Some(failure) = case.failure {
                failures.push(format!("{}:{}: {}: {failure}", path.display(), case.line, case.expr));
            }
        }
    }
    (passed, failures)
}

#[test]
fn own_scripts_pass_however_data_is_cut() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promql");
    assert!(!scripts(&folder).is_empty());
    for cut in cuts() {
        let (passed, failures) = run(&folder, cut, |_| true);
        assert!(failures.is_empty(), "{cut:?}:\n{}", failures.join("\n"));
        assert!(passed > 0);
    }
}

/// Cases of upstream's scripts that pass today. Raise it when more do.
const UPSTREAM_FLOOR: usize = 2214;

/// The scripts are not part of this repository: `PROMQLTEST_DIR`, or `../shared/promqltest`.
pub(crate) fn upstream_folder() -> Option<PathBuf> {
    let folder = std::env::var_os("PROMQLTEST_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/promqltest"), PathBuf::from);
    if !folder.is_dir() {
        eprintln!("no upstream scripts at {}", folder.display());
        return None;
    }
    Some(folder)
}

/// Whether a query belongs to share `i` of `of`, by a hash of its text.
pub(crate) fn in_share(expr: &str, i: usize, of: usize) -> bool {
    let hash = expr.bytes().fold(SEED, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (hash >> 32) as usize % of == i
}

/// How often each query runs in the matrix of ways to cut data: each way has a share of the queries.
const RUNS_PER_QUERY: usize = 2;

#[test]
fn upstream_scripts_pass_as_far_as_they_did_however_data_is_cut() {
    let Some(folder) = upstream_folder() else { return };
    let (passed, known) = run(&folder, USUAL, |_| true);
    eprintln!("{passed} passed, {} failed", known.len());
    assert!(passed >= UPSTREAM_FLOOR, "{passed} passed, {UPSTREAM_FLOOR} did before");
    let known: HashSet<&str> = known.iter().map(|failure| place(failure)).collect();
    let cuts = cuts();
    let shares = cuts.len() / RUNS_PER_QUERY;
    for (i, cut) in cuts.into_iter().enumerate() {
        let (_, failures) = run(&folder, cut, |expr| in_share(expr, i % shares, shares));
        let new: Vec<_> = failures.into_iter().filter(|failure| !known.contains(place(failure))).collect();
        assert!(new.is_empty(), "{cut:?}:\n{}", new.join("\n"));
    }
}

/// `file:line` of a failure.
fn place(failure: &str) -> &str {
    failure.split(": ").next().unwrap_or_default()
}
