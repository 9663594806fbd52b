//! Prometheus-format storage: labels, chunks, blocks, write-ahead log, head.
//!
//! Knows bytes, labels and chunks. Has no Arrow, no DataFusion and no async runtime: reads are
//! plain [`futures_core::Stream`]s that any executor can poll, and everything else is a blocking
//! call on the caller's thread.
//!
//! [`Queryable`] is the one door to data for the layers above. [`Db`] is the storage that a server
//! opens; its [`Appender`] is the one door in.

mod appender;
pub mod block;
pub mod changes;
pub mod chunkenc;
pub mod chunks;
pub mod clock;
pub mod db;
pub mod encoding;
mod error;
pub mod exemplar;
pub mod fs;
pub mod head;
pub mod head_chunks;
pub mod histogram;
pub mod index;
pub mod labels;
pub mod matcher;
pub mod memory;
pub mod merge;
pub mod meta;
pub mod metadata;
mod needed;
pub mod postings;
mod prefetch;
pub mod query;
pub mod sample;
pub mod tombstones;
pub mod wal;

pub use appender::Appender;
pub use clock::{Clock, ManualClock, SystemClock};
pub use db::{Cardinality, Db, DbMetrics, DbOptions, Maintenance, Retention};
pub use error::{AppendError, Error, ErrorKind, Result};
pub use head::{Head, HeadMemory, HeadStats, ReplayStats};
pub use labels::{Labels, LabelsBuilder, METRIC_NAME};
pub use matcher::{MatchOp, Matcher};
pub use needed::Needed;
pub use query::{
    BlockSummary, ChunkSummary, Queryable, SelectHints, Selection, SeriesBatch, SeriesStats, SeriesStream,
};
pub use sample::{STALE_NAN_BITS, Sample, SeriesRef, TimestampMs, is_stale, stale_nan};
