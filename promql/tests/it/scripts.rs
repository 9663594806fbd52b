//! Test scripts: ours must pass, and of upstream's at least as many as did before.

use std::path::{Path, PathBuf};

use promontory_promql::promqltest::{EngineEvaluator, run_script, script_engine_options};

fn scripts(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder can be read")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|e| e == "test"))
        .collect();
    files.sort();
    files
}

/// Runs all scripts of a folder; gives the number of cases that passed, and the failures as text.
fn run(folder: &Path, tile_steps: usize, partitions: usize) -> (usize, Vec<String>) {
    let mut options = script_engine_options();
    options.tile_steps = tile_steps;
    options.partitions = partitions;
    let evaluator = EngineEvaluator::new(options).expect("a runtime");
    let mut passed = 0;
    let mut failures = Vec::new();
    for path in scripts(folder) {
        let text = std::fs::read_to_string(&path).expect("a script is text");
        let report = run_script(&text, &evaluator, |_| true);
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
    for (tile_steps, partitions) in [(128, 2), (2, 3), (1, 1)] {
        let (passed, failures) = run(&folder, tile_steps, partitions);
        let failures = failures.join("\n");
        assert!(failures.is_empty(), "{tile_steps} steps per tile, {partitions} partitions:\n{failures}");
        assert!(passed > 0);
    }
}

/// Cases of upstream's scripts that pass today. Raise it when more do.
const UPSTREAM_FLOOR: usize = 1982;

/// The scripts are not part of this repository: `PROMQLTEST_DIR`, or `../shared/promqltest`.
#[test]
fn upstream_scripts_pass_as_far_as_they_did() {
    let folder = std::env::var_os("PROMQLTEST_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/promqltest"), PathBuf::from);
    if !folder.is_dir() {
        eprintln!("no upstream scripts at {}", folder.display());
        return;
    }
    let (passed, failures) = run(&folder, 128, 2);
    eprintln!("{passed} passed, {} failed", failures.len());
    assert!(passed >= UPSTREAM_FLOOR, "{passed} passed, {UPSTREAM_FLOOR} did before");
}
