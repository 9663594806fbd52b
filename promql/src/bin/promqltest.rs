//! `promqltest [PATH…]`: runs PromQL test scripts and counts what passes.
//!
//! Without paths, the folder in `PROMQLTEST_DIR` (`../shared/promqltest` if that is not set). The last
//! line of the output is `N passed, N failed`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use promontory_promql::promqltest::{EngineEvaluator, Report, run_script, script_engine_options};

/// Runs PromQL test scripts.
#[derive(Debug, Parser)]
struct Args {
    /// Scripts, or folders of scripts that end in `.test`.
    paths: Vec<PathBuf>,
    /// Print the first line of each failure.
    #[arg(long, short)]
    verbose: bool,
    /// Run only cases whose expression contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Steps per tile, a power of two.
    #[arg(long)]
    tile_steps: Option<usize>,
    /// Partitions per selector.
    #[arg(long)]
    partitions: Option<usize>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let mut options = script_engine_options();
    options.tile_steps = args.tile_steps.unwrap_or(options.tile_steps);
    options.partitions = args.partitions.unwrap_or(options.partitions);
    let evaluator = EngineEvaluator::new(options)?;
    // A panic is a failed case and its text is in the report; the default hook would print it too.
    std::panic::set_hook(Box::new(|_| {}));
    let mut out = io::stdout().lock();
    let (mut passed, mut failed) = (0, 0);
    for path in scripts(&args.paths)? {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let report = run_script(&text, &evaluator, |expr| expr.contains(&args.only));
        print_report(&mut out, &path, &report, args.verbose)?;
        passed += report.passed();
        failed += report.failed();
    }
    writeln!(out, "{passed} passed, {failed} failed")?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn scripts(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let default = || {
        std::env::var_os("PROMQLTEST_DIR")
            .map_or_else(|| PathBuf::from("../shared/promqltest"), PathBuf::from)
    };
    let roots = if paths.is_empty() { vec![default()] } else { paths.to_vec() };
    let mut found = Vec::new();
    for root in roots {
        if !root.is_dir() {
            found.push(root);
            continue;
        }
        let entries = std::fs::read_dir(&root).with_context(|| root.display().to_string())?;
        let mut files = entries.map(|e| Ok(e?.path())).collect::<io::Result<Vec<_>>>()?;
        files.retain(|p| p.extension().is_some_and(|e| e == "test"));
        files.sort();
        found.append(&mut files);
    }
    Ok(found)
}

fn print_report(out: &mut impl Write, path: &Path, report: &Report, verbose: bool) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (passed, failed) = (report.passed(), report.failed());
    write!(out, "{name}: {passed} passed, {failed} failed, {} total", passed + failed)?;
    let unsure = report.cases.iter().filter(|c| c.failure.is_none() && c.data_incomplete).count();
    if unsure > 0 {
        write!(out, " ({unsure} of the passed on data that is not loaded whole)")?;
    }
    writeln!(out)?;
    for case in report.cases.iter().filter(|_| verbose) {
        if let Some(failure) = &case.failure {
            let first = failure.lines().next().unwrap_or_default();
            writeln!(out, "  {name}:{}: {}: {first}", case.line, case.expr)?;
        }
    }
    Ok(())
}
