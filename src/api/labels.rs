//! `/labels` and `/label/{name}/values`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, State};
use promontory_tsdb::{Matcher, Queryable, TimestampMs};

use super::ApiState;
use super::envelope::{Answer, ApiResult, TRUNCATED};
use super::error::ApiError;
use super::params::{MAX_TIME_MS, MIN_TIME_MS, Params};

/// Names of labels on matching series.
pub(crate) async fn names(State(state): State<Arc<ApiState>>, params: Params) -> ApiResult {
    answer(&state, &params, |source, matchers, start, end| source.label_names(matchers, start, end)).await
}

/// Values of one label on matching series.
pub(crate) async fn values(
    State(state): State<Arc<ApiState>>,
    Path(name): Path<String>,
    params: Params,
) -> ApiResult {
    let name = unescape(&name);
    if name.is_empty() {
        return Err(ApiError::bad_data("invalid label name: \"\""));
    }
    answer(&state, &params, move |source, matchers, start, end| {
        source.label_values(&name, matchers, start, end)
    })
    .await
}

/// Asks `ask` once per set of matchers and answers the union, sorted.
async fn answer<F>(state: &Arc<ApiState>, params: &Params, ask: F) -> ApiResult
where
    F: Fn(&dyn Queryable, &[Matcher], TimestampMs, TimestampMs) -> promontory_tsdb::Result<Vec<String>>
        + Send
        + 'static,
{
    let limit = params.limit()?;
    let start = params.time_or("start", MIN_TIME_MS)?;
    let end = params.time_or("end", MAX_TIME_MS)?;
    let mut sets = params.matcher_sets().map_err(ApiError::bad_data)?;
    if sets.is_empty() {
        sets.push(Vec::new());
    }
    let source = Arc::clone(&state.storage);
    let mut texts = state
        .blocking(move || {
            if let [only] = &sets[..] {
                return ask(source.as_ref(), only, start, end);
            }
            let mut all = BTreeSet::new();
            for matchers in &sets {
                all.extend(ask(source.as_ref(), matchers, start, end)?);
            }
            Ok(all.into_iter().collect())
        })
        .await?;
    let mut warnings = Vec::new();
    if limit > 0 && texts.len() > limit {
        texts.truncate(limit);
        warnings.push(TRUNCATED.to_owned());
    }
    Ok(Answer::with_warnings(&texts, &warnings))
}

/// Undoes the escaping of names that are not plain: `U__` in front, `__` for `_`, `_3a_` for U+003A.
/// A text that is not a proper escape is taken as it is.
///
/// Source: <https://github.com/prometheus/common/blob/v0.66.1/model/metric.go>
fn unescape(name: &str) -> String {
    name.strip_prefix("U__").and_then(unescape_rest).unwrap_or_else(|| name.to_owned())
}

fn unescape_rest(mut rest: &str) -> Option<String> {
    /// U+10FFFF has six digits.
    const MAX_DIGITS: usize = 6;
    let mut out = String::with_capacity(rest.len());
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        let (code, tail) = rest[at + 1..].split_once('_')?;
        rest = tail;
        if code.is_empty() {
            out.push('_');
        } else if code.len() <= MAX_DIGITS {
            out.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
        } else {
            return None;
        }
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_are_read_and_others_left_alone() {
        for (name, want) in [
            ("job", "job"),
            ("U__http_2e_status", "http.status"),
            ("U__a__b", "a_b"),
            ("U___1f600_x", "😀x"),
            ("U__open_2e", "U__open_2e"),
            ("U__bad_zz_", "U__bad_zz_"),
            ("U__long_0000041_", "U__long_0000041_"),
            ("U__surrogate_d800_", "U__surrogate_d800_"),
        ] {
            assert_eq!(unescape(name), want);
        }
    }
}
