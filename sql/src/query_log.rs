//! [`QueryLog`]: which queries run, and how the last ones ended; `tsdb.queries` shows it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int32Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::catalog::TableProvider;
use parking_lot::Mutex;
use promontory_tsdb::{Clock, TimestampMs};

use crate::catalog::Listing;
use crate::viewer::HIDDEN;

/// Queries that are remembered after their end.
const RECENT: usize = 200;
/// As many bytes of a query are kept.
const KEPT_BYTES: usize = 4096;

/// A query that begins.
#[derive(Debug, Clone, Default)]
pub struct NewQuery<'a> {
    /// `sql` or `promql`.
    pub language: &'static str,
    /// What it says.
    pub query: &'a str,
    /// Who asks; empty if nobody said.
    pub user: &'a str,
    /// The number of the Postgres connection, as in `pg_stat_activity`.
    pub pid: Option<i32>,
}

/// Queries that run, and the last ones that did. Cheap: two short locks a query.
#[derive(Debug)]
pub struct QueryLog {
    clock: Arc<dyn Clock>,
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, Known>>,
    recent: Mutex<VecDeque<Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    language: &'static str,
    query: String,
    user: String,
    pid: Option<i32>,
    /// ms since the epoch, by the server's clock.
    started_ms: TimestampMs,
    since: Instant,
    took: Option<Duration>,
    state: &'static str,
    error: Option<String>,
}

impl QueryLog {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            next: AtomicU64::default(),
            running: Mutex::default(),
            recent: Mutex::default(),
        })
    }

    /// `query` runs until what this gives is dropped, which then means that it was given up.
    pub fn begin(self: &Arc<Self>, query: &NewQuery<'_>) -> RunningQuery {
        let end = (0..=KEPT_BYTES.min(query.query.len())).rev().find(|i| query.query.is_char_boundary(*i));
        let known = Known {
            language: query.language,
            query: query.query[..end.unwrap_or_default()].to_owned(),
            user: query.user.to_owned(),
            pid: query.pid,
            started_ms: self.clock.now_ms(),
            since: Instant::now(),
            took: None,
            state: "running",
            error: None,
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.running.lock().insert(number, known);
        RunningQuery { log: Arc::clone(self), number }
    }

    fn end(&self, number: u64, state: &'static str, error: Option<String>) {
        let Some(mut known) = self.running.lock().remove(&number) else { return };
        known.took = Some(known.since.elapsed());
        (known.state, known.error) = (state, error);
        let mut recent = self.recent.lock();
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(known);
    }

    fn all(&self) -> Vec<Known> {
        // Running ones first, so that one that ends in between is shown twice rather than never.
        let mut all: Vec<_> = self.running.lock().values().cloned().collect();
        all.extend(self.recent.lock().iter().rev().cloned());
        all
    }
}

/// A query on its way.
#[derive(Debug)]
pub struct RunningQuery {
    log: Arc<QueryLog>,
    number: u64,
}

impl RunningQuery {
    /// It is done.
    pub fn done(self) {
        self.log.end(self.number, "done", None);
    }

    /// It failed.
    pub fn failed(self, error: impl Into<String>) {
        self.log.end(self.number, "failed", Some(error.into()));
    }
}

impl Drop for RunningQuery {
    fn drop(&mut self) {
        // Nothing, if it was said before how it ended.
        self.log.end(self.number, "cancelled", None);
    }
}

/// `tsdb.queries`: running ones first, then the last ones, the newest first. What others ask, and what is told of it
/// in errors, is for those who may read everything.
pub(crate) fn table(log: Arc<QueryLog>) -> Arc<dyn TableProvider> {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let schema = Arc::new(Schema::new(vec![
        text("language"),
        text("state"),
        text("query"),
        text("user_name"),
        Field::new("pid", DataType::Int32, true),
        Field::new("started", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
        Field::new("seconds", DataType::Float64, true),
        text("error"),
    ]));
    Listing::for_viewer(Arc::clone(&schema), move |viewer| {
        let mut all = log.all();
        for hidden in all.iter_mut().filter(|known| !viewer.sees(&known.user)) {
            HIDDEN.clone_into(&mut hidden.query);
            hidden.error = None;
        }
        let texts = |of: fn(&Known) -> Option<&str>| -> ArrayRef {
            Arc::new(all.iter().map(of).collect::<StringArray>())
        };
        let started = TimestampMillisecondArray::from_iter_values(all.iter().map(|known| known.started_ms));
        let seconds =
            all.iter().map(|known| known.took.unwrap_or_else(|| known.since.elapsed()).as_secs_f64());
        let columns: Vec<ArrayRef> = vec![
            texts(|known| Some(known.language)),
            texts(|known| Some(known.state)),
            texts(|known| Some(&known.query)),
            texts(|known| Some(known.user.as_str()).filter(|user| !user.is_empty())),
            Arc::new(all.iter().map(|known| known.pid).collect::<Int32Array>()),
            Arc::new(started.with_timezone("UTC")),
            Arc::new(Float64Array::from_iter_values(seconds)),
            texts(|known| known.error.as_deref()),
        ];
        Ok(RecordBatch::try_new(Arc::clone(&schema), columns)?)
    })
}
