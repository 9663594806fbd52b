//! What happens to a database before it crashes, drawn from a seed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use promontory_tsdb::exemplar::Exemplar;
use promontory_tsdb::fs::{Journal, Recording};
use promontory_tsdb::metadata::Metadata;
use promontory_tsdb::{Db, DbOptions, Labels, ManualClock, Matcher, Result, SeriesRef, stale_nan, wal};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::history::{Entry, Found, History, Moment, Span};
use crate::support::{HISTOGRAM_KINDS, Value, differences, histogram};

pub(crate) const BLOCK_MS: i64 = 5 * 60_000;
const SCRAPE_MS: i64 = 15_000;
/// How late samples may be.
pub(crate) const WINDOW_MS: i64 = 4 * BLOCK_MS;
const STEADY: i64 = 6;

pub(crate) fn options(dir: &Path) -> DbOptions {
    let mut options = DbOptions::new(dir);
    options.clock = Arc::new(ManualClock::new(4_000_000_000_000));
    options.block_range_ms = BLOCK_MS;
    options.wal_segment_bytes = wal::PAGE_BYTES;
    options.retention_ms = None;
    options.max_block_range_ms = Some(9 * BLOCK_MS);
    options.out_of_order_window_ms = WINDOW_MS;
    // More than there will be, so that none goes for another.
    options.exemplars_max = 100_000;
    options
}

/// The same, with a snapshot of the head where there is one, and at a close.
pub(crate) fn options_with(dir: &Path, memory_snapshot: bool) -> DbOptions {
    let mut options = options(dir);
    options.memory_snapshot = memory_snapshot;
    options
}

/// A database that is used, with everything that happens to its directory.
pub(crate) struct World {
    pub(crate) dir: PathBuf,
    pub(crate) journal: Recording,
    pub(crate) history: History,
    db: Option<Arc<Db>>,
    rng: StdRng,
    round: i64,
    /// Whether calls may fail: what failed is not acknowledged.
    pub(crate) tolerant: bool,
    /// What happened how often.
    pub(crate) done: Done,
}

#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) batches: usize,
    pub(crate) cuts: usize,
    pub(crate) merges: usize,
    pub(crate) deletes: usize,
    pub(crate) cleanings: usize,
    pub(crate) checkpoints: usize,
    pub(crate) syncs: usize,
    pub(crate) restarts: usize,
    pub(crate) late: usize,
    /// Calls that gave an error.
    pub(crate) failed: usize,
}

fn labels(name: &str, i: i64) -> Labels {
    Labels::from_pairs([("__name__", name.to_owned()), ("i", i.to_string())])
}

/// One that is the only one of its time.
fn exemplar(t: i64) -> Exemplar {
    let labels = Labels::from_pairs([("id", t.to_string())]);
    Exemplar { labels, value: 0.5, timestamp: t, has_timestamp: true }
}

impl Entry {
    fn new(labels: Labels, t: i64, value: Value) -> Self {
        Self { labels, t, value, late: false, exemplar: None, metadata: None }
    }

    fn float(labels: Labels, t: i64, v: f64) -> Self {
        Self::new(labels, t, Value::Float(v))
    }
}

impl World {
    pub(crate) fn new(dir: &Path, seed: u64) -> Self {
        let journal = Journal::record(dir).unwrap();
        let db = Db::open(options(dir)).unwrap();
        Self {
            dir: dir.to_path_buf(),
            journal,
            history: History::default(),
            db: Some(db),
            rng: StdRng::seed_from_u64(seed),
            round: 0,
            tolerant: false,
            done: Done::default(),
        }
    }

    fn db(&self) -> &Arc<Db> {
        self.db.as_ref().unwrap()
    }

    pub(crate) fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.round += 1;
            let mut writers = [0, 1, 2, 3];
            let first = self.rng.random_range(0..writers.len());
            writers.rotate_left(first);
            for writer in writers {
                let batch = self.batch(writer);
                self.commit(batch);
            }
            self.upkeep();
        }
    }

    /// What a writer appends in this round.
    fn batch(&mut self, writer: i64) -> Vec<Entry> {
        let t = self.round * SCRAPE_MS + writer;
        match writer {
            0 => self.scrape(t),
            1 => self.churn(t),
            2 => self.now_and_then(t),
            _ => self.late(t),
        }
    }

    /// A target that is always there: floats with exemplars and metadata, and histograms of all kinds.
    fn scrape(&mut self, t: i64) -> Vec<Entry> {
        let mut out: Vec<_> =
            (0..STEADY).map(|i| Entry::float(labels("steady", i), t, (self.round * i) as f64)).collect();
        for entry in out.iter_mut().take(2) {
            entry.exemplar = self.rng.random_ratio(1, 3).then(|| exemplar(t));
        }
        if self.round % 10 == 3 {
            out[(self.round / 10 % STEADY) as usize].metadata = Some(self.round as u64 / 20);
        }
        for i in 0..HISTOGRAM_KINDS {
            let gone = self.round % 45 == 0 && self.round / 45 % 5 == i as i64;
            let value = if gone { Value::Float(stale_nan()) } else { self.histogram(i) };
            out.push(Entry::new(labels("histogram", i as i64), t, value));
        }
        // From floats to histograms and back.
        let mixed = match self.round / 20 % 2 {
            0 => Value::Float(self.round as f64),
            _ => self.histogram(0),
        };
        out.push(Entry::new(labels("mixed", 0), t, mixed));
        out
    }

    /// A histogram of now: counters are reset now and then, and get other buckets.
    fn histogram(&mut self, kind: u64) -> Value {
        let n = if self.rng.random_ratio(1, 40) { 0 } else { self.round as u64 % 70 };
        Value::Histogram(histogram(kind, n + 1, self.round as u64 / 30))
    }

    /// Series come and go, the old ones with a stale marker.
    fn churn(&mut self, t: i64) -> Vec<Entry> {
        let mut out: Vec<_> = (0..6)
            .map(|i| Entry::float(labels("churn", self.round / 25 + i), t, self.rng.random::<f64>()))
            .collect();
        if self.round % 25 == 0 {
            out.push(Entry::float(labels("churn", self.round / 25 - 1), t, stale_nan()));
        }
        out
    }

    /// Many series now and then, of long names, which fill more than a page.
    fn now_and_then(&mut self, t: i64) -> Vec<Entry> {
        if self.round % 60 == 7 {
            let name = "long_".repeat(40);
            (0..60).map(|i| Entry::float(labels(&name, i + self.round), t, i as f64)).collect()
        } else {
            vec![Entry::float(labels("lone", 0), t, self.round as f64)]
        }
    }

    /// Samples that come late, a few or many, with one among them that does not.
    fn late(&mut self, now: i64) -> Vec<Entry> {
        let mut out = vec![Entry::float(labels("prompt", 0), now, self.round as f64)];
        let count = match self.rng.random_range(0..10) {
            0..5 => 0,
            5..9 => self.rng.random_range(1..6),
            _ => self.rng.random_range(20..80),
        };
        // Mostly of one series, so that chunks fill.
        let favourite = self.late_series();
        for _ in 0..count {
            let labels = if self.rng.random_ratio(2, 3) { favourite.clone() } else { self.late_series() };
            let oldest = (now - WINDOW_MS + SCRAPE_MS).max(1);
            let t = self.rng.random_range(oldest..now);
            let is_new = self.history.newest(&labels).is_none_or(|newest| t < newest);
            if !is_new || self.history.has(&labels, t) || out.iter().any(|e| e.t == t && e.labels == labels) {
                continue;
            }
            let kind = self.rng.random_range(0..2 * HISTOGRAM_KINDS);
            let value = match labels.get("__name__") {
                Some("histogram") => self.histogram(kind),
                Some("mixed") if kind < HISTOGRAM_KINDS => self.histogram(kind),
                _ => Value::Float(self.rng.random()),
            };
            out.push(Entry { late: true, ..Entry::new(labels, t, value) });
        }
        self.done.late += out.len() - 1;
        out
    }

    fn late_series(&mut self) -> Labels {
        match self.rng.random_range(0..6) {
            0 => labels("lone", 0),
            1 => labels("mixed", 0),
            2 => labels("churn", (self.round / 25 - self.rng.random_range(0..4)).max(0)),
            3 => labels("histogram", self.rng.random_range(0..HISTOGRAM_KINDS as i64)),
            4 => labels("only_late", self.rng.random_range(0..3)),
            _ => labels("steady", self.rng.random_range(0..STEADY)),
        }
    }

    fn commit(&mut self, mut entries: Vec<Entry>) {
        let mut appender = self.db().appender();
        entries.retain(|entry| {
            let Entry { labels, t, value, exemplar, metadata, .. } = entry;
            let appended = value.append(&mut appender, SeriesRef(0), labels, *t);
            // After a batch was refused, one that comes late may be too late.
            let Some(series) = (if self.tolerant { appended.ok() } else { Some(appended.unwrap()) }) else {
                return false;
            };
            if let Some(exemplar) = exemplar {
                appender.append_exemplar(series, exemplar.clone()).unwrap();
            }
            if let Some(number) = metadata {
                let help = number.to_string();
                appender.set_metadata(series, Metadata { help, ..Metadata::default() }).unwrap();
            }
            true
        });
        let batch = self.history.begin(self.journal.len(), &entries);
        let result = appender.commit();
        if self.ok(result).is_some() {
            self.history.acknowledge(batch, self.journal.len());
            self.done.batches += 1;
        }
    }

    fn upkeep(&mut self) {
        if self.rng.random_ratio(1, 12) {
            let done = self.db().maintain();
            if let Some(done) = self.ok(done) {
                self.done.cuts += done.blocks_cut.len();
                self.done.merges += done.blocks_merged.len();
                self.done.checkpoints += usize::from(done.checkpoint.is_some());
            }
        }
        if self.rng.random_ratio(1, 30) {
            let begin = self.journal.len();
            let result = self.db().sync();
            if self.ok(result).is_some() {
                self.history.sync(Span { begin, end: Some(self.journal.len()) });
                self.done.syncs += 1;
            }
        }
        if self.rng.random_ratio(1, 20) {
            self.delete();
        }
        if self.rng.random_ratio(1, 100) {
            let cleaned = self.db().clean_tombstones();
            self.done.cleanings += self.ok(cleaned).map_or(0, |blocks| blocks.len());
        }
        if self.rng.random_ratio(1, 90) {
            self.restart();
        }
    }

    /// Deletes a stretch of one series, in blocks or the head or both.
    fn delete(&mut self) {
        let labels = match self.rng.random_range(0..3) {
            0 => labels("churn", self.rng.random_range(0..=self.round / 25 + 5)),
            _ => self.late_series(),
        };
        let now = self.round * SCRAPE_MS;
        let mint = self.rng.random_range(0..=now);
        let maxt = if self.rng.random_ratio(1, 4) {
            i64::MAX
        } else {
            mint + self.rng.random_range(0..2 * BLOCK_MS)
        };
        let matchers: Vec<_> = labels.iter().map(|(name, value)| Matcher::eq(name, value)).collect();
        let begin = self.journal.len();
        let result = self.db().delete(&matchers, mint, maxt);
        let end = self.ok(result).map(|_| self.journal.len());
        self.history.delete(Span { begin, end }, labels, mint, maxt);
        self.done.deletes += 1;
    }

    /// Stops, with or without a close, and starts again.
    pub(crate) fn restart(&mut self) {
        let (close, snapshot) = (self.rng.random(), self.rng.random());
        let db = self.db.take().unwrap();
        if close {
            let result = db.close();
            self.ok(result);
        }
        drop(db);
        let mut opened = Db::open(options_with(&self.dir, snapshot));
        if self.tolerant && opened.is_err() {
            self.done.failed += 1;
            // Whoever looks after the machine puts it right.
            self.journal.heal();
            opened = Db::open(options_with(&self.dir, snapshot));
        }
        self.db = Some(opened.unwrap());
        self.done.restarts += 1;
    }

    fn ok<T>(&mut self, result: Result<T>) -> Option<T> {
        if self.tolerant && result.is_err() {
            self.done.failed += 1;
            return None;
        }
        Some(result.unwrap())
    }

    /// Whether the database takes nothing more until a restart.
    pub(crate) fn is_stopped(&self) -> bool {
        self.db().is_log_poisoned()
    }

    pub(crate) fn found(&self) -> Found {
        Found::in_db(self.db())
    }

    /// The database has what was acknowledged.
    pub(crate) fn verify(&self) {
        let verdict = self.history.check(Moment::killed(self.journal.len()), &self.found());
        assert!(verdict.is_good(), "wrong before any crash: {verdict:?}");
        let (found, expected) = (self.found().samples, self.history.contents());
        assert!(found == expected, "wrong before any crash: {}", differences(&expected, &found));
    }
}
