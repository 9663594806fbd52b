//! Times of queries without a server: `query_times BLOCKS QUERIES [ONLY] [ROUNDS]`.
//!
//! Opens the blocks in a directory, runs each query of a file as in `benches/queries.txt` (`name | range or instant |
//! expression`) whose name contains ONLY, and prints the least and the median time, ms, after two rounds to warm up.
//! Good for profilers, which then see nothing but queries.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use promontory_promql::{Engine, EngineOptions, QueryParams};
use promontory_tsdb::Queryable;
use promontory_tsdb::block::Block;
use promontory_tsdb::merge::Fanout;
use tokio_util::sync::CancellationToken;

const START_MS: i64 = 1_789_986_000_950;
const END_MS: i64 = 1_790_000_370_950;
const STEP_MS: i64 = 60_000;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [blocks, queries, rest @ ..] = args.as_slice() else {
        anyhow::bail!("usage: query_times BLOCKS QUERIES [ONLY] [ROUNDS]");
    };
    let only = rest.first().map_or("", String::as_str);
    let rounds: usize = rest.get(1).map_or(Ok(15), |n| n.parse()).context("ROUNDS is a number")?;
    let source = open(Path::new(blocks))?;
    let engine = Engine::new(EngineOptions::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut out = io::stdout().lock();
    let text = std::fs::read_to_string(queries).with_context(|| queries.clone())?;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut parts = line.splitn(3, '|').map(str::trim);
        let (Some(name), Some(kind), Some(query)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if !name.contains(only) {
            continue;
        }
        let params = match kind {
            "range" => QueryParams::range(START_MS, END_MS, STEP_MS),
            _ => QueryParams::instant(END_MS),
        };
        let mut times = Vec::with_capacity(rounds);
        for round in 0..rounds + 2 {
            let began = Instant::now();
            let run =
                async { engine.query(Arc::clone(&source), query, params, CancellationToken::new()).await };
            runtime.block_on(run)?;
            if round >= 2 {
                times.push(began.elapsed().as_secs_f64() * 1000.0);
            }
        }
        times.sort_by(f64::total_cmp);
        writeln!(out, "{name:18} {:8.2} {:8.2}", times[0], times[times.len() / 2])?;
    }
    Ok(())
}

fn open(blocks: &Path) -> anyhow::Result<Arc<dyn Queryable>> {
    let mut sources: Vec<Arc<dyn Queryable>> = Vec::new();
    for entry in std::fs::read_dir(blocks)? {
        let path = entry?.path();
        if path.join("meta.json").is_file() {
            sources.push(Arc::new(Block::open(&path)?));
        }
    }
    Ok(Arc::new(Fanout::new(sources)))
}
