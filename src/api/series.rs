//! `/series`: label sets of matching series, sorted.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::executor::block_on;
use promontory_tsdb::{Labels, Matcher, Queryable, SelectHints, TimestampMs};

use super::ApiState;
use super::envelope::{Answer, ApiResult, HEAD, TRUNCATED, put_tail};
use super::error::ApiError;
use super::json::put_labels;
use super::params::{MAX_TIME_MS, MIN_TIME_MS, Params};

/// Label sets are written in pieces of about this many bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// The endpoint.
pub(crate) async fn series(State(state): State<Arc<ApiState>>, params: Params) -> ApiResult {
    if params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let limit = params.limit()?;
    let start = params.time_or("start", MIN_TIME_MS)?;
    let end = params.time_or("end", MAX_TIME_MS)?;
    let sets = params.matcher_sets().map_err(|e| ApiError::parameter("match[]", e))?;
    let source = Arc::clone(&state.storage);
    let mut found = state.blocking(move || find(source.as_ref(), &sets, start, end, limit)).await?;
    let mut warnings = Vec::new();
    if limit > 0 && found.len() > limit {
        found.truncate(limit);
        warnings.push(TRUNCATED.to_owned());
    }
    Ok(Answer::pieces(pieces(found, warnings)))
}

/// Series that any set matches; with a limit, one more than that at least, if there are.
fn find(
    source: &dyn Queryable,
    sets: &[Vec<Matcher>],
    start: TimestampMs,
    end: TimestampMs,
    limit: usize,
) -> promontory_tsdb::Result<Vec<Labels>> {
    let series_limit = if limit == 0 { 0 } else { limit.saturating_add(1) };
    let hints = SelectHints { labels_only: true, series_limit, ..SelectHints::default() };
    let mut found = Vec::new();
    for matchers in sets {
        for mut stream in source.select(matchers, start, end, &hints)?.partitions {
            while let Some(batch) = block_on(stream.next()) {
                found.append(&mut batch?.labels);
            }
        }
    }
    // One partition of one source is sorted and without duplicates already.
    if sets.len() > 1 {
        found = found.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    }
    Ok(found)
}

fn pieces(found: Vec<Labels>, warnings: Vec<String>) -> impl Iterator<Item = Bytes> + Send {
    let mut left = found.into_iter().peekable();
    let mut opened = false;
    let mut closed = false;
    std::iter::from_fn(move || {
        if closed {
            return None;
        }
        let mut out = Vec::new();
        if !opened {
            out.extend_from_slice(HEAD);
            out.push(b'[');
            opened = true;
        }
        while out.len() < PIECE_BYTES {
            let Some(labels) = left.next() else {
                out.push(b']');
                put_tail(&mut out, &warnings, &[]);
                closed = true;
                break;
            };
            put_labels(&mut out, &labels);
            if left.peek().is_some() {
                out.push(b',');
            }
        }
        Some(Bytes::from(out))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_series_leave_in_pieces_that_join_to_one_text() {
        let found: Vec<_> = (0..5_000).map(|i| Labels::from_pairs([("i", format!("{i:05}"))])).collect();
        let parts: Vec<_> = pieces(found, vec!["w".into()]).collect();
        assert!(parts.len() > 1);
        let json: serde_json::Value = serde_json::from_slice(&parts.concat()).unwrap();
        assert_eq!(json["data"].as_array().unwrap().len(), 5_000);
        assert_eq!(json["data"][4_999]["i"], "04999");
        assert_eq!(json["warnings"][0], "w");
        assert_eq!(pieces(vec![], vec![]).collect::<Vec<_>>().concat(), br#"{"status":"success","data":[]}"#);
    }
}
