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
use rand::seq::IteratorRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::support::{
    Contents, Value, append, differences, histogram, read_everything, read_whole, setting, temporary,
};

const RANGE_MS: i64 = 60_000;
/// How late samples may be, where they may.
const WINDOW_MS: i64 = 3 * RANGE_MS;

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

/// A sample, with the number that [`Contents`] have for it.
type Sample = (u64, Value);

/// A database, and what it should hold.
struct Pair {
    dir: tempfile::TempDir,
    db: Option<Arc<Db>>,
    samples: BTreeMap<Labels, BTreeMap<i64, Sample>>,
    /// Times at which there were samples that were deleted.
    deleted: BTreeMap<Labels, BTreeSet<i64>>,
    /// How late samples may be now.
    window_ms: i64,
    /// Names of blocks follow it; it moves with each step.
    clock: ManualClock,
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
        let dir = temporary();
        let mut rng = StdRng::seed_from_u64(seed);
        let window_ms = if rng.random_ratio(3, 4) { WINDOW_MS } else { 0 };
        let mut options = options(dir.path());
        options.out_of_order_window_ms = window_ms;
        let clock = ManualClock::new(options.clock.now_ms());
        options.clock = Arc::new(clock.clone());
        Self {
            db: Some(Db::open(options).unwrap()),
            dir,
            clock,
            samples: BTreeMap::new(),
            deleted: BTreeMap::new(),
            window_ms,
            ever: BTreeSet::new(),
            rng,
            now: 1_000_000,
            refs: BTreeMap::new(),
        }
    }

    fn db(&self) -> &Arc<Db> {
        self.db.as_ref().unwrap()
    }

    fn step(&mut self) -> String {
        self.clock.advance_ms(1);
        match self.rng.random_range(0..100) {
            0..50 => self.append(),
            50..58 => self.delete(),
            58..66 => format!("maintain: {:?}", self.db().maintain().unwrap()),
            66..69 => format!("clean: {:?}", self.db().clean_tombstones().unwrap()),
            69..71 => self.snapshot(),
            71..75 => self.restart(),
            75..76 => self.change_window(),
            76..88 => self.select(),
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
            for t in self.times(&labels) {
                let value = self.value(i, &labels, t);
                let known = self.refs.get(&labels).copied().unwrap_or_default();
                self.ever.insert(labels.clone());
                match value.append(&mut appender, known, &labels, t) {
                    Ok(reference) => {
                        self.refs.insert(labels.clone(), reference);
                        taken.push((labels.clone(), t, value));
                    }
                    Err(error) => {
                        let newest = self.samples.get(&labels).and_then(|s| s.keys().next_back()).copied();
                        let is_late = t < self.now || newest.is_some_and(|n| n >= t);
                        assert!(is_late, "{labels} at {t} was refused: {error}");
                        refused += 1;
                    }
                }
            }
        }
        let count = taken.len();
        let said = format!("append at {}: {count} taken, {refused} refused, rollback {rollback}", self.now);
        if rollback {
            appender.rollback();
            return said;
        }
        appender.commit().unwrap();
        for (labels, t, value) in taken {
            // The first one at a time counts.
            self.samples.entry(labels).or_default().entry(t).or_insert_with(|| (value.bits(), value));
        }
        said
    }

    /// Times of the samples of a series in one batch: now, or earlier, also where there is a sample or was one.
    fn times(&mut self, labels: &Labels) -> BTreeSet<i64> {
        let mut out = BTreeSet::new();
        // Without a window, the later staged must be the newer.
        let count = if self.window_ms > 0 && self.rng.random_ratio(1, 8) { 12 } else { 1 };
        for _ in 0..count {
            let there = self.samples.get(labels).into_iter().flat_map(BTreeMap::keys);
            let gone = self.deleted.get(labels).into_iter().flatten();
            let t = match self.rng.random_range(0..12) {
                0..3 => Some(self.now - self.rng.random_range(0..2 * RANGE_MS)),
                3 => there.copied().choose(&mut self.rng),
                4 => gone.copied().choose(&mut self.rng),
                _ => None,
            };
            out.insert(t.unwrap_or(self.now));
        }
        out
    }

    /// A sample of series `i` at `t`; the same one, if there is one.
    fn value(&mut self, i: i64, labels: &Labels, t: i64) -> Value {
        if let Some((_, value)) = self.samples.get(labels).and_then(|samples| samples.get(&t)) {
            return value.clone();
        }
        if self.rng.random_ratio(1, 30) {
            return Value::Float(stale_nan());
        }
        let n = self.rng.random_range(1..60);
        match i % 6 {
            // From floats to histograms and back.
            3 if self.now / 50_000 % 2 == 0 => Value::Histogram(histogram(0, n, 1)),
            // Counters that grow, with resets.
            4 => Value::Histogram(histogram(i as u64 % 2, (t / 1000) as u64 % 200, (t / 300_000) as u64)),
            5 => Value::Histogram(histogram(n, n, n)),
            _ => Value::Float(self.rng.random()),
        }
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
        let of = |(labels, samples): (&Labels, &BTreeMap<i64, Sample>)| {
            (labels.clone(), samples.range(mint..=maxt).map(|(t, v)| (*t, v.0)).collect::<Vec<_>>())
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
        for (labels, samples) in self.samples.iter_mut().filter(|(labels, _)| matches(&matchers, labels)) {
            self.deleted.entry(labels.clone()).or_default().extend(samples.range(mint..=maxt).map(|s| s.0));
            samples.retain(|t, _| !(mint..=maxt).contains(t));
        }
        format!("delete {matchers:?} [{mint}, {maxt}]: {touched} series")
    }

    fn snapshot(&mut self) -> String {
        let target = tempfile::tempdir().unwrap();
        let dir = target.path().join("copy");
        self.db().snapshot(&dir, true).unwrap();
        let copy = Db::open(options(&dir)).unwrap();
        let (found, expected) = (read_everything(&*copy), self.expected(&[], i64::MIN, i64::MAX));
        assert!(found == expected, "the snapshot is left, expected right:{}", differences(&found, &expected));
        "snapshot".to_owned()
    }

    fn restart(&mut self) -> String {
        let close = self.rng.random();
        let db = self.db.take().unwrap();
        if close {
            db.close().unwrap();
        }
        drop(db);
        self.window_ms = if self.rng.random_ratio(4, 5) { WINDOW_MS } else { 0 };
        let mut options = options(self.dir.path());
        options.out_of_order_window_ms = self.window_ms;
        options.clock = Arc::new(self.clock.clone());
        options.memory_snapshot = self.rng.random();
        let snapshot = options.memory_snapshot;
        self.db = Some(Db::open(options).unwrap());
        // References are good for one run only.
        self.refs.clear();
        let stats = self.db().replay_stats();
        format!("restart, closed {close}, snapshots {snapshot}, window {}: {stats:?}", self.window_ms)
    }

    fn change_window(&mut self) -> String {
        self.window_ms = if self.rng.random() { WINDOW_MS } else { 0 };
        self.db().set_out_of_order_window_ms(self.window_ms).unwrap();
        format!("window {}", self.window_ms)
    }

    fn select(&mut self) -> String {
        let (matchers, (mint, maxt)) = (self.matchers(), self.range());
        let found = read_whole(&**self.db(), &matchers, mint, maxt);
        let expected = self.expected(&matchers, mint, maxt);
        let differ = || differences(&found, &expected);
        assert!(found == expected, "{matchers:?} [{mint}, {maxt}]; found is left:{}", differ());
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
        let (found, expected) = (read_everything(&**self.db()), self.expected(&[], i64::MIN, i64::MAX));
        assert!(found == expected, "found is left, expected right:{}", differences(&found, &expected));
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
    let before = read_everything(&*db);
    assert_eq!(before[&series(1)].len(), 7);
    // As after a crash: the log still has what the block had.
    drop(db);
    assert_eq!(read_everything(&*Db::open(options(dir.path())).unwrap()), before);
}
