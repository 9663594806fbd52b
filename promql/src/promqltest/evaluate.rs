//! What a script tests.

use std::sync::Arc;
use std::time::Duration;

use promontory_tsdb::Queryable;
use promontory_tsdb::memory::MemoryStorage;
use tokio_util::sync::CancellationToken;

use super::split::{self, Split};
use crate::engine::Engine;
use crate::params::{EngineOptions, QueryParams};
use crate::parser::ParserOptions;
use crate::value::QueryResult;

/// Answers queries over a storage.
pub trait Evaluate {
    /// Runs `expr`; an instant query if `params.step` is 0.
    ///
    /// # Errors
    /// The text that a user would see.
    fn evaluate(
        &self,
        storage: &Arc<MemoryStorage>,
        expr: &str,
        params: QueryParams,
    ) -> Result<QueryResult, String>;
}

/// The options with which upstream runs its scripts.
pub fn script_engine_options() -> EngineOptions {
    EngineOptions {
        lookback_ms: 5 * 60 * 1000,
        max_samples: 10_000,
        timeout: Duration::from_secs(100),
        default_subquery_step_ms: 60 * 1000,
        delayed_name_removal: true,
        use_start_timestamps: true,
        parser: ParserOptions::all(),
        ..EngineOptions::default()
    }
}

/// Runs queries on an [`Engine`], in a runtime of its own.
#[derive(Debug)]
pub struct EngineEvaluator {
    engine: Engine,
    runtime: tokio::runtime::Runtime,
    /// How data is spread over sources, and the seed of chance.
    split: Option<(Split, u64)>,
}

impl EngineEvaluator {
    /// An evaluator with an engine of these options.
    ///
    /// # Errors
    /// If the operating system gives no threads.
    pub fn new(options: EngineOptions) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Self { engine: Engine::new(options), runtime, split: None })
    }

    /// The same, over data that is spread over several sources.
    pub fn spread(self, split: Split, seed: u64) -> Self {
        Self { split: Some((split, seed)), ..self }
    }
}

impl Evaluate for EngineEvaluator {
    fn evaluate(
        &self,
        storage: &Arc<MemoryStorage>,
        expr: &str,
        params: QueryParams,
    ) -> Result<QueryResult, String> {
        let source: Arc<dyn Queryable> = match self.split {
            None => Arc::<MemoryStorage>::clone(storage),
            Some((split, seed)) => split::spread(storage, split, seed)?,
        };
        let query = self.engine.query(source, expr, params, CancellationToken::new());
        self.runtime.block_on(query).map_err(|e| e.to_string())
    }
}
