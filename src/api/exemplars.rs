//! `/query_exemplars`: exemplars of the series that an expression selects.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use promontory_promql::parser::{Expr, ExprKind};
use promontory_tsdb::exemplar::Exemplar;
use promontory_tsdb::{Labels, Matcher};

use super::ApiState;
use super::envelope::{Answer, HEAD, put_tail};
use super::error::ApiError;
use super::json::{put_float, put_labels, put_timestamp};
use super::params::{MAX_TIME_MS, MIN_TIME_MS, Params};

pub(crate) async fn query_exemplars(
    State(state): State<Arc<ApiState>>,
    params: Params,
) -> Result<Response, ApiError> {
    let start = params.time_or("start", MIN_TIME_MS)?;
    let end = params.time_or("end", MAX_TIME_MS)?;
    if end < start {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    let expr = promontory_promql::parser::parse(params.get("query"), &state.engine.options().parser)
        .map_err(|e| ApiError::bad_data(e.to_string()))?;
    let selectors = selectors(&expr);
    if selectors.is_empty() {
        // Compat: no data at all rather than an empty list.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let db = Arc::clone(&state.db);
    let found = state
        .blocking(move || {
            let sets: Vec<&[Matcher]> = selectors.iter().map(Vec::as_slice).collect();
            Ok(db.exemplars().select(start, end, &sets))
        })
        .await?;
    Ok(Answer::pieces(std::iter::once(encode(&found))).into_response())
}

/// The matchers of every selector in an expression.
fn selectors(expr: &Expr) -> Vec<Vec<Matcher>> {
    let mut found = Vec::new();
    // Expressions may be deep, so no recursion.
    let mut rest = vec![expr];
    while let Some(expr) = rest.pop() {
        match &expr.kind {
            ExprKind::VectorSelector(selector) => found.push(selector.matchers.clone()),
            ExprKind::MatrixSelector(matrix) => found.push(matrix.selector.matchers.clone()),
            ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => rest.push(inner),
            ExprKind::Binary(binary) => rest.extend([&*binary.lhs, &*binary.rhs]),
            ExprKind::Aggregate(aggregate) => {
                rest.push(&aggregate.expr);
                rest.extend(aggregate.param.as_deref());
            }
            ExprKind::Call(call) => rest.extend(&call.args),
            ExprKind::Subquery(subquery) => rest.push(&subquery.expr),
            ExprKind::Number(_) | ExprKind::String(_) => {}
        }
    }
    found
}

fn encode(found: &[(Labels, Vec<Exemplar>)]) -> Bytes {
    let mut out = HEAD.to_vec();
    out.push(b'[');
    for (i, (labels, exemplars)) in found.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"seriesLabels\":");
        put_labels(&mut out, labels);
        out.extend_from_slice(b",\"exemplars\":[");
        for (i, exemplar) in exemplars.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"labels\":");
            put_labels(&mut out, &exemplar.labels);
            out.extend_from_slice(b",\"value\":");
            put_float(&mut out, exemplar.value);
            out.extend_from_slice(b",\"timestamp\":");
            put_timestamp(&mut out, exemplar.timestamp);
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
    }
    out.push(b']');
    put_tail(&mut out, &[], &[]);
    Bytes::from(out)
}
