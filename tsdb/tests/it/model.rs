//! Whatever is done to a database, in whatever order, it answers as a map from series to samples does.
//!
//! `MODEL_SEEDS` says how many runs there are (25), each of `MODEL_STEPS` steps (150); `MODEL_SEED` is the first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use promontory_tsdb::{
    Db, DbOptions, Labels, ManualClock, MatchOp, Matcher, Queryable, SeriesRef, stale_nan, wal,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::support::{Contents, append, read, read_all};

const RANGE_MS: i64 = 60_000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn options(dir: &Path) -> DbOptions {
    let mut options = DbOptions::new(dir);
    options.clock = Arc::new(ManualClock::new(4_000_000_000_000));
    options.block_range_ms = RANGE_MS;
    options.max_block_range_ms = Some(9 * RANGE_MS);
    options.wal_segment_bytes = wal::PAGE_BYTES;
    options.retention_ms = None;
    options
}

fn series(i: i64) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("m{}", i % 3)),
        ("i", i.to_string()),
        ("odd", if i % 2 == 1 { "yes".to_owned() } else { String::new() }),
    ])
}

/// A database, and what it should hold.
struct Pair {
    dir: tempfile::TempDir,
    db: Option<Arc<Db>>,
    samples: BTreeMap<Labels, BTreeMap<i64, u64>>,
    /// Every series that there ever was an attempt to append to: the head knows those without samples too.
    ever: BTreeSet<Labels>,
    rng: StdRng,
    now: i64,
    refs: BTreeMap<Labels, SeriesRef>,
}

fn matches(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|m| m.matches(labels.get(m.name()).unwrap_or("")))
}

impl Pair {
    fn new(seed: u64) -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let db = Db::open(options(dir.path())).unwrap();
        Self {
            dir,
            db: Some(db),
            samples: BTreeMap::new(),
            ever: BTreeSet::new(),
            rng: StdRng::seed_from_u64(seed),
            now: 1_000_000,
            refs: BTreeMap::new(),
        }
    }

    fn db(&self) -> &Arc<Db> {
        self.db.as_ref().unwrap()
    }

    fn step(&mut self) -> String {
        match self.rng.random_range(0..100) {
            0..50 => self.append(),
            50..58 => self.delete(),
            58..66 => format!("maintain: {:?}", self.db().maintain().unwrap()),
            66..69 => format!("clean: {:?}", self.db().clean_tombstones().unwrap()),
            69..71 => self.snapshot(),
            71..75 => self.restart(),
            75..88 => self.select(),
            88..94 => self.label_values(),
            _ => self.series_stats(),
        }
    }

    fn append(&mut self) -> String {
        self.now += self.rng.random_range(1..15_000);
        let rollback = self.rng.random_ratio(1, 15);
        let mut appender = self.db.as_ref().unwrap().appender();
        let (mut taken, mut refused) = (Vec::new(), 0);
        let first = self.rng.random_range(0..20);
        for i in first..first + self.rng.random_range(1..8) {
            let labels = series(i);
            let t = match self.rng.random_range(0..10) {
                0 => self.now - self.rng.random_range(0..2 * RANGE_MS),
                _ => self.now,
            };
            let v = if self.rng.random_ratio(1, 30) { stale_nan() } else { self.rng.random() };
            let known = self.refs.get(&labels).copied().unwrap_or_default();
            self.ever.insert(labels.clone());
            match appender.append(known, &labels, t, v) {
                Ok(reference) => {
                    self.refs.insert(labels.clone(), reference);
                    taken.push((labels, t, v.to_bits()));
                }
                Err(_) => {
                    // Only what is late is refused.
                    let newest = self.samples.get(&labels).and_then(|s| s.keys().next_back()).copied();
                    assert!(t < self.now || newest.is_some_and(|n| n >= t), "{labels} at {t} was refused");
                    refused += 1;
                }
            }
        }
        let said =
            format!("append at {}: {} taken, {refused} refused, rollback {rollback}", self.now, taken.len());
        if rollback {
            appender.rollback();
            return said;
        }
        appender.commit().unwrap();
        for (labels, t, v) in taken {
            self.samples.entry(labels).or_default().insert(t, v);
        }
        said
    }

    fn matchers(&mut self) -> Vec<Matcher> {
        let i = self.rng.random_range(0..24);
        match self.rng.random_range(0..7) {
            0 => vec![],
            1 => vec![Matcher::eq("i", i.to_string())],
            2 => vec![Matcher::eq("__name__", format!("m{}", i % 4))],
            3 => vec![Matcher::eq("odd", "")],
            4 => vec![Matcher::new(MatchOp::Re, "i", "1.*|2").unwrap(), Matcher::eq("__name__", "m1")],
            5 => vec![Matcher::new(MatchOp::Nre, "i", "[0-9]").unwrap()],
            _ => vec![Matcher::new(MatchOp::Ne, "odd", "yes").unwrap(), Matcher::eq("__name__", "m2")],
        }
    }

    fn range(&mut self) -> (i64, i64) {
        if self.rng.random_ratio(1, 4) {
            return (i64::MIN, i64::MAX);
        }
        let mint = self.rng.random_range(900_000..self.now + 1000);
        let length = self.rng.random_range(0..5 * RANGE_MS);
        (mint, mint + length)
    }

    /// What the model answers.
    fn expected(&self, matchers: &[Matcher], mint: i64, maxt: i64) -> Contents {
        let of = |(labels, samples): (&Labels, &BTreeMap<i64, u64>)| {
            (labels.clone(), samples.range(mint..=maxt).map(|(t, v)| (*t, *v)).collect::<Vec<_>>())
        };
        let matching = self.samples.iter().filter(|(labels, _)| matches(matchers, labels));
        matching.map(of).filter(|(_, samples)| !samples.is_empty()).collect()
    }

    fn delete(&mut self) -> String {
        let matchers = loop {
            let matchers = self.matchers();
            // Everything at once would leave little to look at.
            if !matchers.is_empty() {
                break matchers;
            }
        };
        let (mint, maxt) = self.range();
        let touched = self.db().delete(&matchers, mint, maxt).unwrap();
        let expected = self.expected(&matchers, mint, maxt).len() as u64;
        assert!(touched >= expected, "{touched} of at least {expected} series were touched");
        for (_, samples) in self.samples.iter_mut().filter(|(labels, _)| matches(&matchers, labels)) {
            samples.retain(|t, _| !(mint..=maxt).contains(t));
        }
        format!("delete {matchers:?} [{mint}, {maxt}]: {touched} series")
    }

    fn snapshot(&mut self) -> String {
        let target = tempfile::tempdir().unwrap();
        let dir = target.path().join("copy");
        self.db().snapshot(&dir, true).unwrap();
        let copy = Db::open(options(&dir)).unwrap();
        assert!(read_all(&*copy) == self.expected(&[], i64::MIN, i64::MAX), "the snapshot differs");
        "snapshot".to_owned()
    }

    fn restart(&mut self) -> String {
        let close = self.rng.random();
        let db = self.db.take().unwrap();
        if close {
            db.close().unwrap();
        }
        drop(db);
        self.db = Some(Db::open(options(self.dir.path())).unwrap());
        // References are good for one run only.
        self.refs.clear();
        format!("restart, closed {close}: {:?}", self.db().replay_stats())
    }

    fn select(&mut self) -> String {
        let (matchers, (mint, maxt)) = (self.matchers(), self.range());
        let found = read(&**self.db(), &matchers, mint, maxt);
        assert!(found == self.expected(&matchers, mint, maxt), "{matchers:?} [{mint}, {maxt}] differs");
        format!("select {matchers:?} [{mint}, {maxt}]")
    }

    fn label_values(&mut self) -> String {
        let (matchers, (mint, maxt)) = (self.matchers(), self.range());
        let name = ["i", "__name__", "odd", "none"][self.rng.random_range(0..4)];
        let found = self.db().label_values(name, &matchers, mint, maxt).unwrap();
        assert!(found.windows(2).all(|w| w[0] < w[1]), "{found:?} is not sorted");
        let found: BTreeSet<_> = found.into_iter().collect();
        let values = |labels: &mut dyn Iterator<Item = &Labels>| -> BTreeSet<String> {
            labels.filter_map(|l| l.get(name)).filter(|v| !v.is_empty()).map(ToOwned::to_owned).collect()
        };
        let expected = self.expected(&matchers, mint, maxt);
        // Whole blocks are asked, and series that were deleted are in them until they are cleaned.
        assert!(
            found.is_superset(&values(&mut expected.keys())),
            "{name} {matchers:?} [{mint}, {maxt}] lacks some"
        );
        let ever = values(&mut self.ever.iter().filter(|l| matches(&matchers, l)));
        assert!(found.is_subset(&ever), "{name} {matchers:?} [{mint}, {maxt}] has others");
        format!("values of {name} {matchers:?} [{mint}, {maxt}]")
    }

    fn series_stats(&mut self) -> String {
        let (matchers, (mint, maxt)) = (self.matchers(), self.range());
        let found = self.db().series_stats(&matchers, mint, maxt).unwrap();
        let expected = self.expected(&matchers, mint, maxt);
        let samples = expected.values().map(Vec::len).sum::<usize>() as u64;
        let series = expected.len() as u64;
        if found.exact {
            assert_eq!((found.series, found.samples), (series, samples), "{matchers:?} [{mint}, {maxt}]");
            let times = || expected.values().flatten().map(|s| s.0);
            if samples > 0 {
                assert_eq!((Some(found.min_time), Some(found.max_time)), (times().min(), times().max()));
            }
        } else {
            assert!(
                found.series >= series && found.samples >= samples,
                "{found:?}, {series} series, {samples} samples"
            );
        }
        assert!(self.db().series_estimate(&matchers, mint, maxt).unwrap() >= series);
        format!("stats {matchers:?} [{mint}, {maxt}]: {found:?}")
    }

    fn check(&self) {
        let (found, expected) = (read_all(&**self.db()), self.expected(&[], i64::MIN, i64::MAX));
        for labels in found.keys().chain(expected.keys()).collect::<BTreeSet<_>>() {
            let (found, expected) = (found.get(labels), expected.get(labels));
            assert_eq!(found, expected, "{labels}: found is left, expected is right");
        }
    }
}

#[test]
fn a_database_answers_as_a_map_does() {
    let first = setting("MODEL_SEED", 1);
    let (seeds, steps) = (setting("MODEL_SEEDS", 25), setting("MODEL_STEPS", 150));
    let mut bad = Vec::new();
    let mut compared = 0;
    for seed in first..first + seeds {
        let mut log = Vec::new();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut pair = Pair::new(seed);
            for _ in 0..steps {
                log.push(pair.step());
                pair.check();
            }
            pair.restart();
            pair.check();
            pair.samples.values().map(BTreeMap::len).sum::<usize>()
        }));
        match result {
            Ok(samples) => compared += samples,
            Err(_) => {
                println!("seed {seed}, after {} steps; the last were:", log.len());
                log.iter()
                    .rev()
                    .take(setting("MODEL_LOG", 12) as usize)
                    .rev()
                    .for_each(|line| println!("  {line}"));
                bad.push(seed);
            }
        }
    }
    println!("{seeds} runs of {steps} steps, {compared} samples at their ends");
    assert!(bad.is_empty(), "MODEL_SEEDS=1, MODEL_SEED: {bad:?}");
}

#[test]
fn what_was_deleted_from_the_newest_block_stays_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(options(dir.path())).unwrap();
    for t in (0..100_000).step_by(5_000) {
        append(&db, &[(&series(1), t, 1.0)]);
    }
    assert_eq!(db.maintain().unwrap().blocks_cut.len(), 1);
    db.delete(&[], 0, RANGE_MS).unwrap();
    assert!(db.clean_tombstones().unwrap().is_empty(), "nothing is left of the block");
    let before = read_all(&*db);
    assert_eq!(before[&series(1)].len(), 7);
    // As after a crash: the log still has what the block had.
    drop(db);
    assert_eq!(read_all(&*Db::open(options(dir.path())).unwrap()), before);
}
