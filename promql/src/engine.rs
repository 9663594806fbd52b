//! [`Engine`]: text in, [`QueryResult`] out.
//!
//! One engine serves any number of queries at a time and holds no data: each query names its source.
//! Queries run on the tokio runtime of the caller; dropping the future or cancelling the token ends
//! a query at the next batch of any of its operators.

use std::sync::Arc;

use promontory_tsdb::Queryable;
use tokio_util::sync::CancellationToken;

use crate::error::QueryError;
use crate::params::{EngineOptions, QueryParams};
use crate::value::QueryResult;

/// Plans and runs PromQL.
#[derive(Debug)]
pub struct Engine {
    options: EngineOptions,
}

impl Engine {
    /// An engine with these limits and defaults.
    pub fn new(options: EngineOptions) -> Self {
        Self { options }
    }

    /// What the engine was made with.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Parses, plans and runs `expr` over `source`. An instant query when `params.step` is 0.
    ///
    /// # Errors
    /// Whatever [`QueryError`] lists; texts are upstream's where it would fail too.
    pub async fn query(
        &self,
        source: Arc<dyn Queryable>,
        expr: &str,
        params: QueryParams,
        cancel: CancellationToken,
    ) -> Result<QueryResult, QueryError> {
        let _ = (source, params, cancel);
        Err(QueryError::Unsupported(expr.to_owned()))
    }

    /// The logical and the physical plan of `expr` as text; nothing runs.
    ///
    /// # Errors
    /// As [`Engine::query`], up to planning.
    pub fn explain(
        &self,
        source: Arc<dyn Queryable>,
        expr: &str,
        params: QueryParams,
    ) -> Result<String, QueryError> {
        let _ = (source, params);
        Err(QueryError::Unsupported(expr.to_owned()))
    }
}
