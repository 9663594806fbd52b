//! [`Engine`]: text in, [`QueryResult`] out.
//!
//! One engine serves any number of queries at a time and holds no data: each query names its source.
//! Queries run on the tokio runtime of the caller; dropping the future or cancelling the token ends
//! a query at the next batch of any of its operators.
//!
//! DataFusion's optimizer passes are left out: plans are made right in the first place. What remains
//! is what a physical plan with vector aggregates needs to be correct ([`Planners`]).

mod kept;
mod planning;
mod pool;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, displayable};
use planning::Planners;
use promontory_tsdb::Queryable;
use tokio_util::sync::CancellationToken;

use crate::cache::StepCache;
use crate::context::{Annotations, Limits, QueryContext, SampleStats};
use crate::error::QueryError;
use crate::logical::selector::SelectorNode;
use crate::operators::rows::Held;
use crate::params::{EngineOptions, QueryParams};
use crate::parser::{self, Expr, ValueType};
use crate::planner::{Planner, QueryPlan, Root};
use crate::result;
use crate::result_labels::{LabelNames, LabelSource};
use crate::stack::as_deep_as;
use crate::value::{QueryResult, QueryValue};

/// Plans and runs PromQL.
#[derive(Debug)]
pub struct Engine {
    options: EngineOptions,
    /// In force for queries that begin now, ms.
    subquery_step_ms: AtomicI64,
    planners: Planners,
    /// Results of range queries, if they are kept.
    cache: Option<StepCache>,
}

impl Engine {
    /// An engine with these limits and defaults.
    pub fn new(options: EngineOptions) -> Self {
        let planners = Planners::new(options.partitions);
        let cache = (options.cache_bytes > 0).then(|| StepCache::new(options.cache_bytes));
        let subquery_step_ms = AtomicI64::new(options.default_subquery_step_ms);
        Self { options, subquery_step_ms, planners, cache }
    }

    /// The results that are kept, if any are.
    pub fn cache(&self) -> Option<&StepCache> {
        self.cache.as_ref()
    }

    /// Sets the step, ms, of subqueries that name none, for queries that begin from now on.
    pub fn set_default_subquery_step_ms(&self, step_ms: i64) {
        self.subquery_step_ms.store(step_ms, Ordering::Relaxed);
    }

    /// The parameters with what they take from the engine, fixed for the whole query.
    fn with_defaults(&self, params: QueryParams) -> QueryParams {
        let step_ms = || self.subquery_step_ms.load(Ordering::Relaxed);
        QueryParams { subquery_step: Some(params.subquery_step.unwrap_or_else(step_ms)), ..params }
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
        let parsed = self.parse(expr, params)?;
        self.query_parsed(source, expr, &parsed, params, cancel).await
    }

    /// Runs `parsed`, which came from `expr`. For callers that evaluate one expression often.
    ///
    /// # Errors
    /// As [`Engine::query`].
    pub async fn query_parsed(
        &self,
        source: Arc<dyn Queryable>,
        expr: &str,
        parsed: &Expr,
        params: QueryParams,
        cancel: CancellationToken,
    ) -> Result<QueryResult, QueryError> {
        check_range_type(parsed, params)?;
        let params = self.with_defaults(params);
        match self.kept(&source, expr, parsed, params) {
            Some(kept) => kept.query(source, expr, parsed, params, cancel).await,
            None => self.compute(&source, expr, parsed, params, cancel).await,
        }
    }

    /// As [`Engine::query`], and counts samples. Results that are kept are not used: they were counted when they were
    /// computed.
    ///
    /// # Errors
    /// As [`Engine::query`].
    pub async fn query_counted(
        &self,
        source: Arc<dyn Queryable>,
        expr: &str,
        params: QueryParams,
        cancel: CancellationToken,
    ) -> Result<(QueryResult, SampleStats), QueryError> {
        let parsed = self.parse(expr, params)?;
        check_range_type(&parsed, params)?;
        let params = self.with_defaults(params);
        let context = QueryContext::counting(self.limits(), cancel.child_token());
        let plan = Planner::plan_query(&context, &source, &self.options, expr, &parsed, params)?;
        let running = (Arc::clone(&context), cancel);
        let result = self.run_plan(&source, plan, params, running, &mut None).await?;
        Ok((result, context.sample_stats()))
    }

    /// Plans and runs; the cache is not looked at.
    async fn compute(
        &self,
        source: &Arc<dyn Queryable>,
        expr: &str,
        parsed: &Expr,
        params: QueryParams,
        cancel: CancellationToken,
    ) -> Result<QueryResult, QueryError> {
        let context = self.context(&cancel);
        let plan = Planner::plan_query(&context, source, &self.options, expr, parsed, params)?;
        self.run_plan(source, plan, params, (context, cancel), &mut None).await
    }

    /// The context of a query that begins now.
    fn context(&self, cancel: &CancellationToken) -> Arc<QueryContext> {
        QueryContext::with_limits(self.limits(), cancel.child_token())
    }

    /// Of a query that begins now.
    fn limits(&self) -> Limits {
        let options = &self.options;
        Limits {
            max_samples: options.max_samples,
            max_bytes: if options.max_bytes == 0 { usize::MAX } else { options.max_bytes },
            deadline: Instant::now().checked_add(options.timeout),
        }
    }

    /// Runs `plan`; what was run, with its figures, is left in `ran`.
    async fn run_plan(
        &self,
        source: &Arc<dyn Queryable>,
        plan: QueryPlan,
        params: QueryParams,
        (context, cancel): (Arc<QueryContext>, CancellationToken),
        ran: &mut Option<Arc<dyn ExecutionPlan>>,
    ) -> Result<QueryResult, QueryError> {
        for text in &plan.warnings {
            context.warn(text);
        }
        // Whatever is still running when this future ends is told to stop.
        let _stop = context.token().clone().drop_guard();
        let run = self.run(source, plan, params, &context, ran);
        let value = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(QueryError::Cancelled("query execution")),
            value = tokio::time::timeout(context.time_left(), run) => {
                value.unwrap_or(Err(QueryError::Timeout("query execution")))
            }
        }?;
        let Annotations { warnings, infos } = context.annotations();
        Ok(QueryResult {
            value,
            warnings: warnings.into_iter().collect(),
            infos: infos.into_iter().collect(),
        })
    }

    /// The logical and the physical plan of `expr` as text; nothing runs.
    ///
    /// # Errors
    /// As [`Engine::query`], up to planning.
    #[expect(clippy::needless_pass_by_value, reason = "a source is handed over as in `query`")]
    pub fn explain(
        &self,
        source: Arc<dyn Queryable>,
        expr: &str,
        params: QueryParams,
    ) -> Result<Explained, QueryError> {
        let parsed = self.parse(expr, params)?;
        check_range_type(&parsed, params)?;
        let params = self.with_defaults(params);
        let context = self.context(&CancellationToken::new());
        let plan = Planner::plan_query(&context, &source, &self.options, expr, &parsed, params)?;
        let Some(logical) = plan.root.logical() else { return Ok(Explained::without_plan(&plan)) };
        check_shown(&plan)?;
        let size = self.size(logical, plan.depth)?;
        let physical = self.planners.physical(logical, size, plan.depth, &context)?;
        Ok(as_deep_as(plan.depth, || Explained {
            peak_bytes: None,
            logical: logical.display_indent().to_string(),
            physical: displayable(physical.as_ref()).indent(false).to_string(),
        }))
    }

    /// As [`Engine::explain`], but runs the query: the physical plan comes with rows, time and memory of
    /// each operator.
    ///
    /// # Errors
    /// As [`Engine::query`].
    pub async fn analyze(
        &self,
        source: Arc<dyn Queryable>,
        expr: &str,
        params: QueryParams,
        cancel: CancellationToken,
    ) -> Result<(Explained, QueryResult), QueryError> {
        let parsed = self.parse(expr, params)?;
        check_range_type(&parsed, params)?;
        let params = self.with_defaults(params);
        let context = self.context(&cancel);
        let plan = Planner::plan_query(&context, &source, &self.options, expr, &parsed, params)?;
        let (depth, mut explained) = (plan.depth, Explained::without_plan(&plan));
        if let Some(logical) = plan.root.logical() {
            check_shown(&plan)?;
            explained.logical = as_deep_as(depth, || logical.display_indent().to_string());
        }
        let mut ran = None;
        let running = (Arc::clone(&context), cancel);
        let result = self.run_plan(&source, plan, params, running, &mut ran).await?;
        explained.peak_bytes = Some(context.peak_bytes());
        if let Some(physical) = ran {
            explained.physical = as_deep_as(depth, || {
                DisplayableExecutionPlan::with_metrics(physical.as_ref()).indent(false).to_string()
            });
        }
        Ok((explained, result))
    }

    /// Names of all labels that series of the result of `expr` may have, from the index alone: an upper
    /// bound, for callers that need a schema before they have rows. Data of any time counts, so that the
    /// same query has the same names whether or not there is data in its range.
    ///
    /// # Errors
    /// As [`Engine::query`], up to planning.
    pub fn result_labels(
        &self,
        source: &dyn Queryable,
        expr: &str,
        params: QueryParams,
    ) -> Result<LabelNames, QueryError> {
        let parsed = self.parse(expr, params)?;
        check_range_type(&parsed, params)?;
        let delayed_names = self.options.delayed_name_removal;
        LabelSource { source, delayed_names }.of(&parsed)
    }

    fn parse(&self, expr: &str, params: QueryParams) -> Result<Expr, QueryError> {
        if params.end < params.start {
            return Err(QueryError::Invalid("end timestamp must not be before start time".into()));
        }
        if params.step < 0 {
            return Err(QueryError::Invalid(
                "zero or negative query resolution step widths are not accepted".into(),
            ));
        }
        Ok(parser::parse(expr, &self.options.parser)?)
    }

    async fn run(
        &self,
        source: &Arc<dyn Queryable>,
        plan: QueryPlan,
        params: QueryParams,
        context: &Arc<QueryContext>,
        ran: &mut Option<Arc<dyn ExecutionPlan>>,
    ) -> Result<QueryValue, QueryError> {
        let instant = params.step == 0;
        Ok(match plan.root {
            Root::Text(text) => QueryValue::String(params.start, text),
            Root::Constant(v, grid) if instant => QueryValue::Scalar(grid.start, v),
            Root::Constant(v, grid) => result::constant_matrix(v, &grid),
            Root::Raw(raw) => result::raw(source.as_ref(), &raw, context).await?,
            Root::Scalar(logical, grid) if instant => {
                result::scalar(&self.execute(&logical, plan.depth, context, ran).await?, &grid)?
            }
            Root::Vector(logical, grid) if instant => {
                result::vector(&self.execute(&logical, plan.depth, context, ran).await?, &grid, plan.ordered)?
            }
            Root::Scalar(logical, grid) | Root::Vector(logical, grid) | Root::Matrix(logical, grid) => {
                result::matrix(&self.execute(&logical, plan.depth, context, ran).await?, &grid)?
            }
        })
    }

    async fn execute(
        &self,
        logical: &LogicalPlan,
        depth: usize,
        context: &Arc<QueryContext>,
        ran: &mut Option<Arc<dyn ExecutionPlan>>,
    ) -> Result<Held, QueryError> {
        let size = self.size(logical, depth)?;
        let mut physical = self.planners.physical(logical, size, depth, context)?;
        if physical.output_partitioning().partition_count() > 1 {
            physical = Arc::new(CoalescePartitionsExec::new(physical));
        }
        let task = self.planners.task(size, context);
        *ran = Some(Arc::clone(&physical));
        let stream = physical.execute(0, task).map_err(QueryError::from_datafusion)?;
        result::collect(stream, context).await
    }
}

/// How a query is carried out, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The plan as it was made from the expression: what leaves read, and what was pushed into them.
    pub logical: String,
    /// The operators that run, with their partitions.
    pub physical: String,
    /// The most bytes that the query held at a time, if it ran.
    pub peak_bytes: Option<usize>,
}

/// Both, the logical plan first.
impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n\n{}", self.logical, self.physical)
    }
}

impl Explained {
    /// For queries that need no operators: literals, and samples as they are stored.
    fn without_plan(plan: &QueryPlan) -> Self {
        let logical = match &plan.root {
            Root::Text(text) => format!("string {text:?}"),
            Root::Constant(v, _) => format!("scalar {v}"),
            Root::Raw(raw) => format!("{raw:?}"),
            Root::Scalar(..) | Root::Vector(..) | Root::Matrix(..) => String::new(),
        };
        Self { logical, physical: String::new(), peak_bytes: None }
    }
}

/// The interval at which samples are taken to come, where a guess will do.
const SCRAPE_MS: u64 = 15_000;

/// Samples that are decoded where one is wanted: a chunk.
const CHUNK_SAMPLES: u64 = 120;

/// How deep a plan may be that is made for several partitions: the time that `EnsureRequirements`
/// takes grows with the square of it.
const MAX_PARALLEL_DEPTH: usize = 256;

/// How much a query reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Small,
    Large,
}

impl Engine {
    /// Looks at postings, leaf by leaf, until the query is known to be large.
    ///
    /// Samples are not counted: that would read a header of each chunk, which costs as much as a
    /// small query. They are taken to come every [`SCRAPE_MS`].
    fn size(&self, logical: &LogicalPlan, depth: usize) -> Result<Size, QueryError> {
        let (mut samples, large) = (0u64, self.options.parallel_samples);
        if self.options.partitions <= 1 || depth > MAX_PARALLEL_DEPTH {
            return Ok(Size::Small);
        }
        let walked = logical.apply(|node| {
            let LogicalPlan::Extension(extension) = node else { return Ok(TreeNodeRecursion::Continue) };
            let Some(leaf) = extension.node.as_any().downcast_ref::<SelectorNode>() else {
                return Ok(TreeNodeRecursion::Continue);
            };
            let spec = leaf.spec();
            let (mint, maxt) = spec.bounds();
            let series =
                leaf.source().series_estimate(&spec.matchers, mint, maxt).map_err(QueryError::from)?;
            let each = (maxt.saturating_sub(mint).unsigned_abs() / SCRAPE_MS).max(CHUNK_SAMPLES);
            samples = samples.saturating_add(series.saturating_mul(each));
            Ok(if samples < large { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
        });
        walked.map_err(QueryError::from_datafusion)?;
        Ok(if samples < large { Size::Small } else { Size::Large })
    }
}

/// How deep a plan may be to be shown: each line is indented by its depth, so that text grows with the square.
const MAX_SHOWN_DEPTH: usize = 2_000;

fn check_shown(plan: &QueryPlan) -> Result<(), QueryError> {
    if plan.depth > MAX_SHOWN_DEPTH {
        let text = format!("a plan that nests more than {MAX_SHOWN_DEPTH} operators is not shown");
        return Err(QueryError::Limit(text));
    }
    Ok(())
}

/// A range query needs a value at each step.
fn check_range_type(expr: &Expr, params: QueryParams) -> Result<(), QueryError> {
    let documented = match expr.value_type() {
        ValueType::Scalar | ValueType::Vector => return Ok(()),
        _ if params.step == 0 => return Ok(()),
        ValueType::Matrix => "range vector",
        ValueType::String => "string",
    };
    Err(QueryError::Invalid(format!(
        "invalid expression type \"{documented}\" for range query, must be Scalar or instant Vector"
    )))
}

#[cfg(test)]
mod tests;
