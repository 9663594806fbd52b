//! [`QueryContext`]: what all operators of one running query share.
//!
//! It travels as an extension of DataFusion's session configuration, so that any operator reaches
//! it through its `TaskContext` and no plan node has to carry it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::error::QueryError;

/// Shared by all operators of one query.
#[derive(Debug)]
pub struct QueryContext {
    annotations: Mutex<Annotations>,
    samples: AtomicUsize,
    max_samples: usize,
    cancel: CancellationToken,
}

/// Texts for the user, each once.
#[derive(Debug, Default, Clone)]
pub struct Annotations {
    /// Complete texts, `PromQL warning: …`.
    pub warnings: BTreeSet<String>,
    /// Complete texts, `PromQL info: …`.
    pub infos: BTreeSet<String>,
}

impl QueryContext {
    /// A context for one run. `cancel` ends it early, at the next batch of any operator.
    pub fn new(max_samples: usize, cancel: CancellationToken) -> Arc<Self> {
        Arc::new(Self { annotations: Mutex::default(), samples: AtomicUsize::new(0), max_samples, cancel })
    }

    /// The context of the query that `task` belongs to.
    ///
    /// # Errors
    /// If the plan was not started by the engine: a bug.
    pub fn of(task: &TaskContext) -> Result<Arc<Self>, DataFusionError> {
        task.session_config()
            .get_extension::<Self>()
            .ok_or_else(|| DataFusionError::Internal("a PromQL operator runs without a query context".into()))
    }

    /// Notes a warning. `text` is upstream's, without the prefix, with the position behind it.
    pub fn warn(&self, text: &str) {
        self.annotations.lock().warnings.insert(format!("PromQL warning: {text}"));
    }

    /// Notes an info. `text` is upstream's, without the prefix, with the position behind it.
    pub fn info(&self, text: &str) {
        self.annotations.lock().infos.insert(format!("PromQL info: {text}"));
    }

    /// What was noted so far.
    pub fn annotations(&self) -> Annotations {
        self.annotations.lock().clone()
    }

    /// Accounts for `n` more samples held in memory.
    ///
    /// # Errors
    /// [`QueryError::Limit`] with upstream's text once the query holds more than it may.
    pub fn hold_samples(&self, n: usize) -> Result<(), QueryError> {
        if self.samples.fetch_add(n, Ordering::Relaxed) + n > self.max_samples {
            return Err(QueryError::Limit(
                "query processing would load too many samples into memory in query execution".into(),
            ));
        }
        Ok(())
    }

    /// Gives `n` samples back.
    pub fn release_samples(&self, n: usize) {
        self.samples.fetch_sub(n, Ordering::Relaxed);
    }

    /// Whether to go on; every operator asks once per batch.
    ///
    /// # Errors
    /// [`QueryError::Cancelled`] once the query is cancelled (the engine turns it into
    /// [`QueryError::Timeout`] if the deadline was the reason).
    pub fn check(&self) -> Result<(), QueryError> {
        if self.cancel.is_cancelled() { Err(QueryError::Cancelled("query execution")) } else { Ok(()) }
    }
}

/// Errors cross DataFusion boxed, and come out as they went in; see [`QueryError::from_datafusion`].
impl From<QueryError> for DataFusionError {
    fn from(e: QueryError) -> Self {
        Self::External(Box::new(e))
    }
}

impl QueryError {
    /// Takes our error back out of DataFusion's wrapping; anything else is an internal error.
    pub fn from_datafusion(e: DataFusionError) -> Self {
        match e {
            DataFusionError::External(inner) => match inner.downcast::<Self>() {
                Ok(ours) => *ours,
                Err(other) => match other.downcast::<DataFusionError>() {
                    Ok(df) => Self::from_datafusion(*df),
                    Err(other) => Self::Internal(other.to_string()),
                },
            },
            DataFusionError::Context(_, inner) => Self::from_datafusion(*inner),
            DataFusionError::ResourcesExhausted(text) => Self::Limit(text),
            DataFusionError::Shared(shared) => match Arc::try_unwrap(shared) {
                Ok(inner) => Self::from_datafusion(inner),
                Err(shared) => Self::Internal(shared.to_string()),
            },
            other => Self::Internal(other.to_string()),
        }
    }
}
