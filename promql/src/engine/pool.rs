//! [`QueryPool`]: memory of DataFusion's operators (groups of aggregates, batches between partitions) counts as memory of
//! the query.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::Result;
use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation};

use crate::context::QueryContext;

/// The pool of one query.
#[derive(Debug)]
pub(super) struct QueryPool {
    context: Arc<QueryContext>,
    reserved: AtomicUsize,
}

impl QueryPool {
    pub(super) fn new(context: Arc<QueryContext>) -> Self {
        Self { context, reserved: AtomicUsize::new(0) }
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} bytes", self.name(), self.reserved())
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "promql"
    }

    fn grow(&self, _: &MemoryReservation, additional: usize) {
        self.reserved.fetch_add(additional, Ordering::Relaxed);
        // Whoever asks next hears of it.
        drop(self.context.hold_bytes(additional));
    }

    fn shrink(&self, _: &MemoryReservation, shrink: usize) {
        self.reserved.fetch_sub(shrink, Ordering::Relaxed);
        self.context.release_bytes(shrink);
    }

    fn try_grow(&self, _: &MemoryReservation, additional: usize) -> Result<()> {
        if let Err(e) = self.context.hold_bytes(additional) {
            self.context.release_bytes(additional);
            return Err(e.into());
        }
        self.reserved.fetch_add(additional, Ordering::Relaxed);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }
}
