//! `/query`, `/query_range`, `/format_query`, `/parse_query`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::extract::State;
use promontory_promql::value::QueryResult;
use promontory_promql::{QueryError, QueryParams, SampleStats};
use promontory_sql::NewQuery;
use promontory_tsdb::ErrorKind;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;

use super::envelope::{Answer, ApiResult};
use super::error::ApiError;
use super::params::Params;
use super::result;
use super::{ApiState, ast};

/// Points that a range query may ask for per series, less one.
const MAX_STEPS: i64 = 11_000;

/// An expression at one time.
pub(crate) async fn instant(State(state): State<Arc<ApiState>>, params: Params) -> ApiResult {
    let limit = params.limit()?;
    let t = params.time_or("time", state.clock.now_ms())?;
    let timeout = params.timeout()?;
    let lookback = lookback(&params)?;
    run(&state, &params, QueryParams { lookback, ..QueryParams::instant(t) }, timeout, limit).await
}

/// The grid of a range query, checked.
pub(super) fn range_params(params: &Params) -> Result<QueryParams, ApiError> {
    let start = params.time("start")?;
    let end = params.time("end")?;
    if end < start {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    let step = params.duration_ms("step")?;
    if step <= 0 {
        return Err(ApiError::parameter(
            "step",
            "zero or negative query resolution step widths are not accepted. Try a positive integer",
        ));
    }
    if end.saturating_sub(start) / step > MAX_STEPS {
        return Err(ApiError::bad_data(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ));
    }
    Ok(QueryParams::range(start, end, step))
}

/// An expression at each step of a range.
pub(crate) async fn range(State(state): State<Arc<ApiState>>, params: Params) -> ApiResult {
    let limit = params.limit()?;
    let grid = range_params(&params)?;
    let timeout = params.timeout()?;
    let lookback = lookback(&params)?;
    run(&state, &params, QueryParams { lookback, ..grid }, timeout, limit).await
}

/// The expression, printed over several lines where it is long.
pub(crate) async fn format(State(state): State<Arc<ApiState>>, params: Params) -> ApiResult {
    let options = &state.engine.options().parser;
    let expr = promontory_promql::parser::parse(params.get("query"), options)
        .map_err(|e| ApiError::parameter("query", e))?;
    Ok(Answer::json(&promontory_promql::parser::format(&expr)))
}

/// The expression as a tree.
pub(crate) async fn parse(State(state): State<Arc<ApiState>>, params: Params) -> ApiResult {
    let expr = promontory_promql::parser::parse(params.get("query"), &state.engine.options().parser)
        .map_err(|e| ApiError::parameter("query", e))?;
    match ast::tree(&expr) {
        Some(tree) => Ok(Answer::json(&tree)),
        None => Err(ApiError::new(ErrorKind::Limit, "the expression nests too deep to be shown as a tree")),
    }
}

pub(super) fn lookback(params: &Params) -> Result<Option<i64>, ApiError> {
    if params.get("lookback_delta").is_empty() {
        return Ok(None);
    }
    let ms = params
        .raw_duration_ms("lookback_delta")
        .map_err(|e| ApiError::bad_data(format!("error parsing lookback delta duration: {e}")))?;
    // Compat: zero takes the default, as upstream does.
    Ok((ms > 0).then_some(ms))
}

async fn run(
    state: &Arc<ApiState>,
    params: &Params,
    query: QueryParams,
    timeout: Option<Duration>,
    limit: usize,
) -> ApiResult {
    let started = Instant::now();
    let counted = params.get("stats") == "all";
    let ((mut result, samples), queued) =
        execute(state, params.get("query"), query, timeout, counted).await?;
    result::truncate(&mut result, limit);
    let stats = match params.get("stats") {
        "" => None,
        kind => {
            if !matches!(kind, "true" | "all") {
                result.warnings.push(format!(
                    "value \"{kind}\" for parameter \"stats\" is deprecated and will be rejected in the next major release, use \"true\" or \"all\""
                ));
            }
            Some(stats(queued, started.elapsed(), samples))
        }
    };
    Ok(result::answer(result, stats, &state.query_runtime))
}

/// What we measure of upstream's six times, and samples if they were counted.
fn stats(queued: Duration, total: Duration, samples: Option<SampleStats>) -> String {
    let (queued, total) = (queued.as_secs_f64(), total.as_secs_f64());
    let evaluation = total - queued;
    let samples = samples.map_or_else(String::new, |SampleStats { total_queryable, read, peak }| {
        format!(
            ",\"samples\":{{\"totalQueryableSamples\":{total_queryable},\"samplesRead\":{read},\"peakSamples\":{peak}}}"
        )
    });
    format!(
        "{{\"timings\":{{\"evalTotalTime\":{evaluation},\"resultSortTime\":0,\"queryPreparationTime\":0,\
         \"innerEvalTime\":{evaluation},\"execQueueTime\":{queued},\"execTotalTime\":{total}}}{samples}}}"
    )
}

/// Runs the query, counts samples if they are to be `counted`, and returns how long it waited for its place.
async fn execute(
    state: &Arc<ApiState>,
    expr: &str,
    query: QueryParams,
    timeout: Option<Duration>,
    counted: bool,
) -> Result<((QueryResult, Option<SampleStats>), Duration), ApiError> {
    let (engine, source) = (Arc::clone(&state.engine), Arc::clone(&state.storage));
    let text = expr.to_owned();
    in_turn(state, expr, timeout, move |cancel| async move {
        if counted {
            let counted = engine.query_counted(source, &text, query, cancel).await;
            return counted.map(|(result, samples)| (result, Some(samples)));
        }
        engine.query(source, &text, query, cancel).await.map(|result| (result, None))
    })
    .await
}

/// Waits for a place, then runs `work` on the query runtime, and returns how long it waited.
///
/// When the future is dropped, because the client went away, the token that `work` got is cancelled.
pub(super) async fn in_turn<T, F>(
    state: &Arc<ApiState>,
    expr: &str,
    timeout: Option<Duration>,
    work: impl FnOnce(CancellationToken) -> F + Send + 'static,
) -> Result<(T, Duration), ApiError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, QueryError>> + Send + 'static,
{
    let longest = state.engine.options().timeout;
    let started = Instant::now();
    let deadline = tokio::time::Instant::now() + timeout.map_or(longest, |t| t.min(longest));
    let timed_out = |place: &str| ApiError::new(ErrorKind::Timeout, format!("query timed out in {place}"));
    let cancel = CancellationToken::new();
    let _cancelled_with_us = cancel.clone().drop_guard();

    let place = timeout_at(deadline, Arc::clone(&state.query_places).acquire_owned())
        .await
        .map_err(|_| timed_out("query queue"))?
        .map_err(|_| ApiError::new(ErrorKind::Unavailable, "the server is shutting down"))?;
    let queued = started.elapsed();
    let running = Running::new(state);
    let now_s = state.clock.now_ms() / 1000;
    let logged = state.query_log.begin(&NewQuery { language: "promql", query: expr, ..NewQuery::default() });
    let named = state.active_queries.as_ref().and_then(|queries| queries.insert(expr, now_s));

    // Place, gauge and name go with the work: it may outlive this future by the time that it takes to notice.
    let work = state.query_runtime.spawn(async move {
        let _until_done = (place, running, named);
        work(cancel).await
    });
    let outcome = timeout_at(deadline, work).await;
    state.queries.inner_eval.lock().observe(started.elapsed().saturating_sub(queued));
    let outcome = match outcome {
        Err(_) => Err(timed_out("expression evaluation")),
        Ok(Err(panicked)) => {
            tracing::error!(query = expr, error = %panicked, "a query ended abnormally");
            Err(ApiError::new(ErrorKind::Internal, "unexpected error: the query ended abnormally"))
        }
        Ok(Ok(answer)) => answer.map(|result| (result, queued)).map_err(|e| ApiError::query(&e)),
    };
    match &outcome {
        Ok(_) => logged.done(),
        Err(error) => logged.failed(error.to_string()),
    }
    outcome
}

/// A query that is counted as running.
struct Running(Arc<ApiState>);

impl Running {
    fn new(state: &Arc<ApiState>) -> Self {
        state.queries.running.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(state))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.queries.running.fetch_sub(1, Ordering::Relaxed);
    }
}
