//! What can go wrong in storage, precise inside, with a small prescriptive [`ErrorKind`] at the edge.

use std::io;
use std::path::{Path, PathBuf};

use crate::exemplar::ExemplarError;
use crate::histogram::InvalidHistogram;
use crate::sample::{SeriesRef, TimestampMs};

/// Result of a storage call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an error. Messages may change; kinds are API.
///
/// Every crate of the workspace maps its errors to these. `src/api` maps them to HTTP status and
/// `errorType`, `sql` maps them to SQLSTATE.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong; fix it.
    Invalid,
    /// The request is fine, but this build does not do it.
    Unsupported,
    /// There is no such thing.
    NotFound,
    /// Evaluation failed on this data.
    Execution,
    /// A limit was hit; narrow the request.
    Limit,
    /// The deadline passed.
    Timeout,
    /// The caller went away.
    Cancelled,
    /// Not now; retry later.
    Unavailable,
    /// Data on disk is damaged; an operator must act.
    Data,
    /// A bug, or the machine failed us.
    Internal,
}

/// A storage error.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bytes on disk are not what the format says. `offset` is the byte offset in `file`.
    #[error("corrupt {}: at byte {offset}: {reason}", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Byte offset of the damage.
        offset: u64,
        /// Expected and found.
        reason: String,
    },
    /// The operating system refused.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried, as a verb: "open", "sync", …
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another process holds the data directory.
    #[error("{} is locked by another process", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// An earlier sync failed, so nothing more is accepted until a restart.
    #[error("an earlier sync of the write-ahead log failed; no more writes are accepted")]
    Poisoned,
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
    /// The database was opened for reading only.
    #[error("the data directory is open for reading only")]
    ReadOnly,
    /// A server kept changing the data directory while it was being read.
    #[error("{} kept changing while it was read; try again", path.display())]
    Busy {
        /// The data directory.
        path: PathBuf,
    },
    /// A sample was refused.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The caller asked for something that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The data uses a part of the format that this build does not read.
    #[error("not supported yet: {0}")]
    Unsupported(String),
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Corrupt { .. } => ErrorKind::Data,
            Self::Io { .. } | Self::Poisoned => ErrorKind::Internal,
            Self::Locked { .. } | Self::Closed | Self::Busy { .. } => ErrorKind::Unavailable,
            Self::Append(_) | Self::Invalid(_) | Self::ReadOnly => ErrorKind::Invalid,
            Self::Unsupported(_) => ErrorKind::Unsupported,
        }
    }

    /// A corruption at `offset` of `file`.
    pub fn corrupt(file: impl Into<PathBuf>, offset: u64, reason: impl Into<String>) -> Self {
        Self::Corrupt { file: file.into(), offset, reason: reason.into() }
    }

    /// Wraps an I/O error with what was tried on which path; for `map_err`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

/// Why a sample was refused. Texts are Prometheus' own.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AppendError {
    /// Older than the newest sample of its series.
    #[error("out of order sample")]
    OutOfOrder,
    /// Below the head's floor, or too far ahead of the clock.
    #[error("out of bounds")]
    OutOfBounds,
    /// Older than the out-of-order window.
    #[error("too old sample")]
    TooOld,
    /// Same timestamp as the newest sample, another value.
    #[error(
        "duplicate sample for timestamp {timestamp}; overrides not allowed: existing {existing}, new value {new}"
    )]
    Duplicate {
        /// Timestamp of both, ms.
        timestamp: TimestampMs,
        /// The stored value.
        existing: f64,
        /// The refused value.
        new: f64,
    },
    /// A histogram with the timestamp of the newest sample, another value.
    #[error("duplicate sample for timestamp")]
    DuplicateHistogram,
    /// A float with the timestamp of a histogram.
    #[error(
        "duplicate sample for timestamp {timestamp}; overrides not allowed: existing is a histogram, new value {new}"
    )]
    DuplicateOfHistogram {
        /// Timestamp of both, ms.
        timestamp: TimestampMs,
        /// The refused value.
        new: f64,
    },
    /// A histogram that contradicts itself.
    #[error(transparent)]
    InvalidHistogram(#[from] InvalidHistogram),
    /// An exemplar was refused.
    #[error(transparent)]
    Exemplar(#[from] ExemplarError),
    /// No series has this reference.
    #[error("unknown series reference {}", .0.0)]
    UnknownSeries(SeriesRef),
    /// The database was opened for reading only.
    #[error("the data directory is open for reading only")]
    ReadOnly,
    /// A series without labels, or with a duplicate label name.
    #[error("invalid labels: {0}")]
    InvalidLabels(String),
}
