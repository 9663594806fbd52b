//! A disk that fails at any operation, once or for a while, costs nothing that was acknowledged.
//!
//! `FAULT_SEED` and `FAULT_RUNS` (40) draw other faults and more of them.

use promontory_tsdb::fs::{Fault, FaultKind};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::history::Moment;
use super::script::World;
use crate::support::{setting, temporary};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const EROFS: i32 = 30;
const EACCES: i32 = 13;

fn draw(rng: &mut StdRng) -> Fault {
    use FaultKind::{Any, Create, Remove, Rename, Sync, Write};
    let pick = |rng: &mut StdRng, of: &[&'static str]| of[rng.random_range(0..of.len())];
    let kind = [Any, Write, Write, Sync, Rename, Create, Remove][rng.random_range(0..7)];
    let path = pick(rng, &["", "", "wal/0", "checkpoint", "chunks_head", "tmp-for", "index", "meta.json"]);
    // Some operations are rare, and others make up most of the journal.
    let common =
        path.is_empty() && matches!(kind, Any | Write) || path == "wal/0" && matches!(kind, Any | Write);
    Fault {
        kind,
        path: path.to_owned(),
        after: rng.random_range(0..if common { 150 } else { 4 }),
        times: [1, 2, 30, usize::MAX][rng.random_range(0..4)],
        errno: [ENOSPC, EIO, EROFS, EACCES][rng.random_range(0..4)],
        written: if rng.random() { 0 } else { rng.random_range(0..200) },
    }
}

/// One disk that fails, and what is there when it works again.
fn run(seed: u64) -> (usize, usize) {
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = temporary();
    let mut world = World::new(dir.path(), seed);
    world.run(rng.random_range(0..60));
    world.tolerant = true;
    let fault = draw(&mut rng);
    println!("FAULT_SEED={seed}: {fault:?}");
    world.journal.fail(fault);
    world.run(80);
    let failed = world.journal.heal();
    let there = world.found();
    let at = Moment::killed(world.journal.len());
    let verdict = world.history.check(at, &there);
    assert!(verdict.is_good(), "while it runs: {verdict:?}");
    if world.is_stopped() || rng.random() {
        world.restart();
        let verdict = world.history.check(at, &world.found());
        assert!(verdict.is_good(), "after a restart: {verdict:?}");
    }
    world.tolerant = false;
    world.run(40);
    world.restart();
    let verdict = world.history.check(Moment::killed(world.journal.len()), &world.found());
    assert!(verdict.is_good(), "at the end: {verdict:?}");
    (failed, world.done.failed)
}

#[test]
fn a_disk_that_fails_costs_nothing_that_was_acknowledged() {
    let seed = setting("FAULT_SEED", 1000);
    let runs = setting("FAULT_RUNS", 40);
    let mut bad = Vec::new();
    let mut totals = (0, 0);
    // One found before: a block that a merge replaced cannot be removed.
    for seed in std::iter::once(1106).chain(seed..seed + runs) {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok((operations, calls)) => totals = (totals.0 + operations, totals.1 + calls),
            Err(_) => bad.push(seed),
        }
    }
    println!(
        "{runs} disks, {} operations and {} calls failed, {} with losses",
        totals.0,
        totals.1,
        bad.len()
    );
    assert!(bad.is_empty(), "FAULT_RUNS=1, FAULT_SEED: {bad:?}");
    assert!(totals.0 > 0 && totals.1 > 0);
}
