//! What happens to a database before it crashes, drawn from a seed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use promontory_tsdb::fs::{Journal, Recording};
use promontory_tsdb::{Db, DbOptions, Labels, ManualClock, Matcher, Result, SeriesRef, stale_nan, wal};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::history::{History, Span, read};
use crate::support::Contents;

pub(crate) const BLOCK_MS: i64 = 5 * 60_000;
const SCRAPE_MS: i64 = 15_000;

pub(crate) fn options(dir: &Path) -> DbOptions {
    let mut options = DbOptions::new(dir);
    options.clock = Arc::new(ManualClock::new(4_000_000_000_000));
    options.block_range_ms = BLOCK_MS;
    options.wal_segment_bytes = wal::PAGE_BYTES;
    options.retention_ms = None;
    options.max_block_range_ms = Some(9 * BLOCK_MS);
    options
}

/// A temporary directory in memory where there is one: what a sync costs is not the question here.
pub(crate) fn temporary() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
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
    /// Calls that gave an error.
    pub(crate) failed: usize,
}

fn labels(name: &str, i: i64) -> Labels {
    Labels::from_pairs([("__name__", name.to_owned()), ("i", i.to_string())])
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
            let mut writers = [0, 1, 2];
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
    fn batch(&mut self, writer: i64) -> Vec<(Labels, i64, f64)> {
        let t = self.round * SCRAPE_MS + writer;
        match writer {
            // A target that is always there.
            0 => (0..8).map(|i| (labels("steady", i), t, (self.round * i) as f64)).collect(),
            // Series come and go, the old ones with a stale marker.
            1 => {
                let mut out: Vec<_> = (0..6)
                    .map(|i| (labels("churn", self.round / 25 + i), t, self.rng.random::<f64>()))
                    .collect();
                if self.round % 25 == 0 {
                    out.push((labels("churn", self.round / 25 - 1), t, stale_nan()));
                }
                out
            }
            // Many series now and then, of long names, which fill more than a page.
            _ if self.round % 60 == 7 => {
                let name = "long_".repeat(40);
                (0..60).map(|i| (labels(&name, i + self.round), t, i as f64)).collect()
            }
            _ => vec![(labels("lone", 0), t, self.round as f64)],
        }
    }

    fn commit(&mut self, samples: Vec<(Labels, i64, f64)>) {
        let mut appender = self.db().appender();
        for (labels, t, v) in &samples {
            appender.append(SeriesRef(0), labels, *t, *v).unwrap();
        }
        let samples = samples.into_iter().map(|(labels, t, v)| (labels, t, v.to_bits(), false));
        let batch = self.history.begin(self.journal.len(), samples);
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
            0 => labels("lone", 0),
            1 => labels("churn", self.rng.random_range(0..=self.round / 25 + 5)),
            _ => labels("steady", self.rng.random_range(0..8)),
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
        let close = self.rng.random();
        let db = self.db.take().unwrap();
        if close {
            let result = db.close();
            self.ok(result);
        }
        drop(db);
        let mut opened = Db::open(options(&self.dir));
        if self.tolerant && opened.is_err() {
            self.done.failed += 1;
            // Whoever looks after the machine puts it right.
            self.journal.heal();
            opened = Db::open(options(&self.dir));
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

    pub(crate) fn contents(&self) -> Contents {
        read(&**self.db())
    }

    /// The database has what was acknowledged.
    pub(crate) fn verify(&self) {
        assert!(self.contents() == self.history.contents(), "wrong before any crash");
    }
}
