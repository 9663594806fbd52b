//! Why a query failed.

use promontory_tsdb::ErrorKind;

use crate::parser::ParseError;

/// A failed query. The text is what Prometheus would say where it would fail too.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The text is not PromQL.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A parameter makes no sense (`end` before `start`, a step of zero).
    #[error("{0}")]
    Invalid(String),
    /// The language has it, this build does not evaluate it.
    #[error("not supported yet: {0}")]
    Unsupported(String),
    /// Evaluation failed on this data ("found duplicate series for the match group …").
    #[error("{0}")]
    Execution(String),
    /// More samples or memory than the query may use.
    #[error("{0}")]
    Limit(String),
    /// The deadline passed.
    #[error("query timed out in {0}")]
    Timeout(&'static str),
    /// The caller went away.
    #[error("query was canceled in {0}")]
    Cancelled(&'static str),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] promontory_tsdb::Error),
    /// A failure that has reached several parts of the query, where only one can have the original.
    #[error("{text}")]
    Copied {
        /// Of the original.
        kind: ErrorKind,
        /// The original's, with those of its causes.
        text: String,
    },
    /// A bug: DataFusion or our operators broke their own contract.
    #[error("internal error: {0}")]
    Internal(String),
}

impl QueryError {
    /// The same error once more; of one with a cause that there is only once, kind and text.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Invalid(text) => Self::Invalid(text.clone()),
            Self::Unsupported(text) => Self::Unsupported(text.clone()),
            Self::Execution(text) => Self::Execution(text.clone()),
            Self::Limit(text) => Self::Limit(text.clone()),
            Self::Timeout(place) => Self::Timeout(place),
            Self::Cancelled(place) => Self::Cancelled(place),
            Self::Internal(text) => Self::Internal(text.clone()),
            Self::Parse(_) | Self::Storage(_) | Self::Copied { .. } => {
                let causes = std::iter::successors(Some(self as &dyn std::error::Error), |e| e.source());
                let mut texts: Vec<_> = causes.map(ToString::to_string).collect();
                texts.dedup();
                Self::Copied { kind: self.kind(), text: texts.join(": ") }
            }
        }
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Parse(_) | Self::Invalid(_) => ErrorKind::Invalid,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Execution(_) => ErrorKind::Execution,
            Self::Limit(_) => ErrorKind::Limit,
            Self::Timeout(_) => ErrorKind::Timeout,
            Self::Cancelled(_) => ErrorKind::Cancelled,
            Self::Storage(e) => e.kind(),
            Self::Copied { kind, .. } => *kind,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }
}
