//! Merges the blocks of a directory as the planner has it, and says how fast that went and what it took.
//!
//! ```text
//! cargo run --release -p promontory-tsdb --example merge_blocks -- DIR [LONGEST_HOURS]
//! ```
//!
//! Nothing is deleted: the new block stands beside its parents. `benches/storage.py` runs it beside
//! Prometheus.
#![expect(clippy::print_stdout, reason = "a tool at the desk")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use promontory_tsdb::block::{self, Block, new_ulid};
use promontory_tsdb::{Clock, SystemClock};
use rand::SeedableRng;
use rand::rngs::SmallRng;

const HOUR_MS: i64 = 3_600_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("usage: merge_blocks DIR [LONGEST_HOURS]")?);
    let longest: i64 = args.next().map_or(Ok(6), |a| a.parse())?;
    let mut blocks = Vec::new();
    for entry in std::fs::read_dir(&dir)? {
        let path = entry?.path();
        if path.join("meta.json").exists() {
            blocks.push(Arc::new(Block::open(&path)?));
        }
    }
    let metas: Vec<_> = blocks.iter().map(|b| b.meta()).collect();
    let chosen = block::plan(&metas, &block::ranges(2 * HOUR_MS, longest * HOUR_MS));
    let parents: Vec<_> = chosen.iter().map(|&i| Arc::clone(&blocks[i])).collect();
    let ulid = new_ulid(SystemClock.now_ms(), &mut SmallRng::seed_from_u64(1));
    let started = Instant::now();
    let meta = block::compact(&dir, ulid, &parents)?.ok_or("there is nothing to merge")?;
    let seconds = started.elapsed().as_secs_f64();
    let samples = meta.stats.num_samples as f64;
    println!(
        "{} blocks, {} series, {samples} samples in {seconds:.2} s: {:.1} million samples/s; {}",
        parents.len(),
        meta.stats.num_series,
        samples / seconds / 1e6,
        memory()
    );
    Ok(())
}

/// Peak memory of the process, of which mapped files are a part, and what is its own.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = |l: &&str| ["VmHWM", "RssAnon"].iter().any(|key| l.starts_with(key));
    status
        .lines()
        .filter(wanted)
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join(", ")
}
