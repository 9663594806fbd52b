//! How long it takes to open a data directory with many blocks, and to find one series in it.
//!
//! ```text
//! cargo run --release -p promontory-tsdb --example many_blocks -- DIR [BLOCKS] [SERIES]
//! ```
//!
//! Makes the blocks (two hours each, 1,000 of them with 1,000 series) if there are none.
#![expect(clippy::print_stdout, reason = "a tool at the desk")]

use std::path::PathBuf;
use std::time::Instant;

use promontory_tsdb::block::{BlockSpec, new_ulid, write};
use promontory_tsdb::chunkenc::{Encoding, xor};
use promontory_tsdb::chunks::ChunkData;
use promontory_tsdb::{Clock, Db, DbOptions, Labels, Matcher, Queryable, Sample, SelectHints, SystemClock};
use rand::SeedableRng;
use rand::rngs::SmallRng;

const RANGE_MS: i64 = 2 * 3_600_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("usage: many_blocks DIR [BLOCKS] [SERIES]")?);
    let blocks: i64 = args.next().map_or(Ok(1000), |a| a.parse())?;
    let series: usize = args.next().map_or(Ok(1000), |a| a.parse())?;
    if !dir.exists() {
        std::fs::create_dir_all(&dir)?;
        let mut rng = SmallRng::seed_from_u64(1);
        let mut labels: Vec<_> = (0..series).map(labels).collect();
        labels.sort_unstable();
        for n in 0..blocks {
            let (mint, maxt) = (n * RANGE_MS, (n + 1) * RANGE_MS);
            let spec = BlockSpec::new(new_ulid(SystemClock.now_ms(), &mut rng), mint, maxt);
            write(&dir, spec, labels.iter().map(|l| Ok((l.clone(), vec![chunk(mint)]))))?;
        }
    }
    for round in ["first", "again"] {
        let started = Instant::now();
        let mut options = DbOptions::new(&dir);
        options.read_only = true;
        let db = Db::open(options)?;
        println!("{round}: opened {} blocks in {:.0} ms", db.blocks().len(), millis(started));
        let matchers = [Matcher::eq("__name__", "m"), Matcher::eq("i", "7")];
        let started = Instant::now();
        let found = db.select(&matchers, 0, RANGE_MS - 1, &SelectHints::default())?.series;
        println!("  {found} series of one block found in {:.3} ms", millis(started));
        let started = Instant::now();
        let found = db.select(&matchers, 0, i64::MAX, &SelectHints::default())?.series;
        println!("  {found} series of all blocks found in {:.3} ms", millis(started));
    }
    Ok(())
}

fn millis(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}

fn labels(i: usize) -> Labels {
    Labels::from_pairs([("__name__", "m".to_owned()), ("i", i.to_string()), ("job", (i % 10).to_string())])
}

fn chunk(mint: i64) -> ChunkData {
    let bytes = xor::encode((0..120).map(|k| Sample { t: mint + k * 60_000, v: k as f64 }));
    ChunkData { mint, maxt: mint + 119 * 60_000, encoding: Encoding::Xor, bytes }
}
