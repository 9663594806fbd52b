//! Range queries through the cache: what is known is taken, what is not is computed.

use std::ops::Range;
use std::sync::Arc;

use promontory_tsdb::Queryable;
use promontory_tsdb::changes::Version;
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::cache::{self, Found, Reach, Shape, StepCache};
use crate::context::too_many_samples;
use crate::error::QueryError;
use crate::params::{Grid, QueryParams};
use crate::parser::Expr;
use crate::value::{QueryResult, QueryValue, RangeSeries};

/// A query whose result may be kept.
pub(super) struct KeptQuery<'e> {
    engine: &'e Engine,
    cache: &'e StepCache,
    shape: Shape,
    reach: Reach,
    /// Of the source, before anything was read.
    version: Version,
    grid: Grid,
}

impl Engine {
    /// `None` if the result of a query is not to be kept.
    pub(super) fn kept(
        &self,
        source: &Arc<dyn Queryable>,
        expr: &str,
        parsed: &Expr,
        params: QueryParams,
    ) -> Option<KeptQuery<'_>> {
        let cache = self.cache.as_ref()?;
        let shape = Shape::of(expr, params)?;
        let lookback_ms = params.lookback.filter(|ms| *ms > 0).unwrap_or(self.options.lookback_ms);
        let reach = cache::reach(parsed, lookback_ms)?;
        let version = source.version()?;
        let grid = Grid::new(params.start, params.end, params.step, self.options.tile_steps);
        Some(KeptQuery { engine: self, cache, shape, reach, version, grid })
    }
}

impl KeptQuery<'_> {
    /// Takes what is known, computes the rest, and keeps all of it.
    pub(super) async fn query(
        self,
        source: Arc<dyn Queryable>,
        expr: &str,
        parsed: &Expr,
        params: QueryParams,
        cancel: CancellationToken,
    ) -> Result<QueryResult, QueryError> {
        let found =
            self.cache.find(&self.shape, &self.grid, self.reach, |version| source.changed_since(version));
        let taken = found.as_ref().map_or(0, |found| found.steps.len());
        self.cache.count(taken, self.grid.steps);
        let result = match found {
            None => self.engine.compute(&source, expr, parsed, params, cancel).await?,
            Some(found) => {
                let part = async |steps: Range<usize>| {
                    if steps.is_empty() {
                        return Ok(QueryResult::default());
                    }
                    let (start, end) = (self.grid.at(steps.start), self.grid.at(steps.end - 1));
                    let params = QueryParams { start, end, ..params };
                    self.engine.compute(&source, expr, parsed, params, cancel.clone()).await
                };
                let before = part(0..found.steps.start).await?;
                let after = part(found.steps.end..self.grid.steps).await?;
                self.join(before, &found, after)?
            }
        };
        if let QueryValue::Matrix(series) = &result.value
            && result.warnings.is_empty()
            && result.infos.is_empty()
        {
            self.cache.keep(self.shape, self.version, &self.grid, series);
        }
        Ok(result)
    }

    fn join(
        &self,
        before: QueryResult,
        found: &Found,
        after: QueryResult,
    ) -> Result<QueryResult, QueryError> {
        let series = |value| match value {
            QueryValue::Matrix(series) => Ok(series),
            other => Err(QueryError::Internal(format!("a range query gave {other:?}"))),
        };
        let (mut warnings, mut infos) = (before.warnings, before.infos);
        for (all, more) in [(&mut warnings, after.warnings), (&mut infos, after.infos)] {
            all.extend(more);
            all.sort_unstable();
            all.dedup();
        }
        let joined =
            cache::join(&self.grid, series(before.value)?, &found.entry, &found.steps, series(after.value)?);
        let points: usize = joined.iter().map(RangeSeries::weight).sum();
        if points > self.engine.options.max_samples {
            return Err(too_many_samples());
        }
        Ok(QueryResult { value: QueryValue::Matrix(joined), warnings, infos })
    }
}
