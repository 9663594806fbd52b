//! A query's result as JSON, written in pieces of bounded size.
//!
//! The whole text is never in memory: a result of a million points leaves as it is written, and stops
//! being written when the client goes away.

use bytes::Bytes;
use promontory_promql::value::{InstantSample, QueryResult, QueryValue, RangeSeries, SampleValue};

use super::envelope::{HEAD, TRUNCATED, put_tail};
use super::histogram::put_histogram;
use super::json::{put_decimal, put_float, put_labels, put_string, put_timestamp};

/// A piece is sent once it holds this much.
const PIECE_BYTES: usize = 64 * 1024;

/// Cuts a result down to `limit` series (0 is no limit) and notes it as a warning.
pub(crate) fn truncate(result: &mut QueryResult, limit: usize) {
    let cut = |len: usize| limit > 0 && len > limit;
    let was_cut = match &mut result.value {
        QueryValue::Vector(samples) if cut(samples.len()) => {
            samples.truncate(limit);
            true
        }
        QueryValue::Matrix(series) if cut(series.len()) => {
            series.truncate(limit);
            true
        }
        _ => false,
    };
    if was_cut {
        result.warnings.push(TRUNCATED.to_owned());
    }
}

/// The pieces of the envelope with a query's result in it.
///
/// `stats` is ready JSON for the field `stats`.
pub(crate) fn pieces(result: QueryResult, stats: Option<String>) -> impl Iterator<Item = Bytes> + Send {
    Pieces { result, stats, state: State::Head }
}

struct Pieces {
    result: QueryResult,
    stats: Option<String>,
    state: State,
}

/// What is written next.
enum State {
    Head,
    /// Element `i` of a vector.
    Sample(usize),
    /// Points from `point` on of series `series`; histograms count on after the floats.
    Point {
        series: usize,
        point: usize,
    },
    Tail,
    Done,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::with_capacity(PIECE_BYTES.min(4096));
        while out.len() < PIECE_BYTES && !matches!(self.state, State::Done) {
            self.state = self.step(&mut out);
        }
        (!out.is_empty()).then(|| Bytes::from(out))
    }
}

impl Pieces {
    fn step(&self, out: &mut Vec<u8>) -> State {
        match (&self.state, &self.result.value) {
            (State::Head, value) => put_head(out, value),
            (State::Sample(i), QueryValue::Vector(samples)) => match samples.get(*i) {
                Some(sample) => {
                    put_separator(out, *i);
                    put_sample(out, sample);
                    State::Sample(i + 1)
                }
                None => State::Tail,
            },
            (State::Point { series: i, point }, QueryValue::Matrix(matrix)) => match matrix.get(*i) {
                Some(series) => {
                    if *point == 0 {
                        put_separator(out, *i);
                    }
                    match put_points(out, series, *point) {
                        Some(point) => State::Point { series: *i, point },
                        None => State::Point { series: i + 1, point: 0 },
                    }
                }
                None => State::Tail,
            },
            (State::Tail, value) => {
                if matches!(value, QueryValue::Vector(_) | QueryValue::Matrix(_)) {
                    out.push(b']');
                }
                if let Some(stats) = &self.stats {
                    out.extend_from_slice(b",\"stats\":");
                    out.extend_from_slice(stats.as_bytes());
                }
                out.push(b'}');
                put_tail(out, &self.result.warnings, &self.result.infos);
                State::Done
            }
            (State::Sample(_) | State::Point { .. } | State::Done, _) => State::Done,
        }
    }
}

fn put_head(out: &mut Vec<u8>, value: &QueryValue) -> State {
    out.extend_from_slice(HEAD);
    let (result_type, next) = match value {
        QueryValue::Scalar(..) => ("scalar", State::Tail),
        QueryValue::String(..) => ("string", State::Tail),
        QueryValue::Vector(_) => ("vector", State::Sample(0)),
        QueryValue::Matrix(_) => ("matrix", State::Point { series: 0, point: 0 }),
    };
    out.extend_from_slice(format!("{{\"resultType\":\"{result_type}\",\"result\":[").as_bytes());
    // Compat: upstream writes these two through Go's default encoder, which puts the timestamp as a
    // plain float (`1.1`, not `1.100`) and never gives a scalar an exponent.
    match value {
        QueryValue::Scalar(t, v) => {
            put_decimal(out, *t as f64 / 1000.0);
            out.extend_from_slice(b",\"");
            put_decimal(out, *v);
            out.extend_from_slice(b"\"]");
        }
        QueryValue::String(t, s) => {
            put_decimal(out, *t as f64 / 1000.0);
            out.push(b',');
            put_string(out, s);
            out.push(b']');
        }
        QueryValue::Vector(_) | QueryValue::Matrix(_) => {}
    }
    next
}

fn put_separator(out: &mut Vec<u8>, i: usize) {
    if i > 0 {
        out.push(b',');
    }
}

fn put_sample(out: &mut Vec<u8>, sample: &InstantSample) {
    out.extend_from_slice(b"{\"metric\":");
    put_labels(out, &sample.labels);
    out.extend_from_slice(match sample.value {
        SampleValue::Float(_) => b",\"value\":[",
        SampleValue::Histogram(_) => b",\"histogram\":[",
    });
    put_timestamp(out, sample.timestamp);
    out.push(b',');
    match &sample.value {
        SampleValue::Float(v) => put_float(out, *v),
        SampleValue::Histogram(h) => put_histogram(out, h),
    }
    out.extend_from_slice(b"]}");
}

/// Writes points of one series from index `from` until the piece is full; returns where to go on, or
/// `None` once the series is complete.
fn put_points(out: &mut Vec<u8>, series: &RangeSeries, from: usize) -> Option<usize> {
    let floats = series.floats.len();
    let total = floats + series.histograms.len();
    if from == 0 {
        out.extend_from_slice(b"{\"metric\":");
        put_labels(out, &series.labels);
    }
    for i in from..total {
        if i > from && out.len() >= PIECE_BYTES {
            return Some(i);
        }
        match (i, i.checked_sub(floats)) {
            (0, None) => out.extend_from_slice(b",\"values\":[["),
            (_, Some(0)) => out.extend_from_slice(b",\"histograms\":[["),
            _ => out.extend_from_slice(b",["),
        }
        if let Some(h) = i.checked_sub(floats) {
            let (t, histogram) = &series.histograms[h];
            put_timestamp(out, *t);
            out.push(b',');
            put_histogram(out, histogram);
        } else {
            let (t, v) = series.floats[i];
            put_timestamp(out, t);
            out.push(b',');
            put_float(out, v);
        }
        out.push(b']');
        if i + 1 == floats || i + 1 == total {
            out.push(b']');
        }
    }
    out.push(b'}');
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use promontory_tsdb::Labels;
    use promontory_tsdb::histogram::{FloatHistogram, Span};

    use super::*;

    fn check(value: QueryValue, want: &str) {
        let result = QueryResult { value, warnings: vec![], infos: vec![] };
        check_result(result, &format!("{{\"status\":\"success\",\"data\":{want}}}"));
    }

    fn check_result(result: QueryResult, want: &str) {
        let text = pieces(result, None).flat_map(|b| b.to_vec()).collect::<Vec<_>>();
        assert_eq!(String::from_utf8(text).unwrap(), want);
    }

    fn histogram() -> Arc<FloatHistogram> {
        Arc::new(FloatHistogram {
            schema: 0,
            zero_threshold: 0.25,
            zero_count: 3.0,
            count: 42.0,
            sum: 34593.34,
            positive_spans: vec![Span { offset: 0, length: 2 }, Span { offset: 1, length: 1 }],
            positive_buckets: vec![12.0, 21.0, 6.0],
            ..FloatHistogram::default()
        })
    }

    #[test]
    fn a_scalar_is_a_pair() {
        check(QueryValue::Scalar(1_500, 3e-9), r#"{"resultType":"scalar","result":[1.5,"0.000000003"]}"#);
    }

    #[test]
    fn a_string_is_a_pair() {
        check(
            QueryValue::String(1_000, "a<b\"".into()),
            r#"{"resultType":"string","result":[1,"a\u003cb\""]}"#,
        );
    }

    #[test]
    fn an_empty_vector_is_an_empty_list() {
        check(QueryValue::Vector(vec![]), r#"{"resultType":"vector","result":[]}"#);
        check(QueryValue::Matrix(vec![]), r#"{"resultType":"matrix","result":[]}"#);
    }

    #[test]
    fn a_vector_holds_floats_and_histograms() {
        check(
            QueryValue::Vector(vec![
                InstantSample {
                    labels: Labels::from_pairs([("__name__", "up"), ("job", "a<b")]),
                    timestamp: 1_435_781_451_781,
                    value: SampleValue::Float(1.0),
                },
                InstantSample {
                    labels: Labels::default(),
                    timestamp: 1_000,
                    value: SampleValue::Histogram(histogram()),
                },
            ]),
            concat!(
                r#"{"resultType":"vector","result":["#,
                r#"{"metric":{"__name__":"up","job":"a<b"},"value":[1435781451.781,"1"]},"#,
                r#"{"metric":{},"histogram":[1,{"count":"42","sum":"34593.34","buckets":["#,
                r#"[3,"-0.25","0.25","3"],[0,"0.5","1","12"],[0,"1","2","21"],[0,"4","8","6"]]}]}]}"#,
            ),
        );
    }

    #[test]
    fn a_matrix_holds_values_then_histograms() {
        check(
            QueryValue::Matrix(vec![
                RangeSeries {
                    labels: Labels::from_pairs([("a", "1")]),
                    floats: vec![(1_000, 1.5), (2_000, f64::NAN)],
                    histograms: vec![(3_000, Arc::new(FloatHistogram::default()))],
                },
                RangeSeries {
                    labels: Labels::from_pairs([("a", "2")]),
                    floats: vec![],
                    histograms: vec![(1_100, Arc::new(FloatHistogram::default()))],
                },
            ]),
            concat!(
                r#"{"resultType":"matrix","result":[{"metric":{"a":"1"},"values":[[1,"1.5"],[2,"NaN"]],"#,
                r#""histograms":[[3,{"count":"0","sum":"0"}]]},"#,
                r#"{"metric":{"a":"2"},"histograms":[[1.100,{"count":"0","sum":"0"}]]}]}"#,
            ),
        );
    }

    #[test]
    fn warnings_and_infos_follow_the_data_and_are_capped() {
        check_result(
            QueryResult {
                value: QueryValue::Vector(vec![]),
                warnings: (0..12).map(|i| format!("w{i}")).collect(),
                infos: vec!["PromQL info: <i>".into()],
            },
            concat!(
                r#"{"status":"success","data":{"resultType":"vector","result":[]},"#,
                r#""warnings":["w0","w1","w2","w3","w4","w5","w6","w7","w8","w9","2 more warning annotations omitted"],"#,
                r#""infos":["PromQL info: \u003ci\u003e"]}"#,
            ),
        );
    }

    #[test]
    fn a_large_result_leaves_in_pieces_that_join_to_the_same_text() {
        let series = |name: &str, n: i64| RangeSeries {
            labels: Labels::from_pairs([("a", name)]),
            floats: (0..n).map(|i| (i * 1_000, i as f64)).collect(),
            histograms: vec![],
        };
        let result = QueryResult {
            value: QueryValue::Matrix(vec![series("x", 11_000), series("y", 1), series("z", 11_000)]),
            warnings: vec![],
            infos: vec![],
        };
        let parts = pieces(result, None).collect::<Vec<_>>();
        assert!(parts.len() > 4 && parts.iter().all(|p| p.len() < 2 * PIECE_BYTES));
        let text = parts.concat();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let points = |i: usize| json["data"]["result"][i]["values"].as_array().unwrap().len();
        assert_eq!((points(0), points(1), points(2)), (11_000, 1, 11_000));
    }

    #[test]
    fn a_limit_cuts_series_and_warns() {
        let sample =
            |v| InstantSample { labels: Labels::default(), timestamp: 0, value: SampleValue::Float(v) };
        let mut result = QueryResult {
            value: QueryValue::Vector(vec![sample(1.0), sample(2.0)]),
            warnings: vec![],
            infos: vec![],
        };
        truncate(&mut result, 0);
        truncate(&mut result, 2);
        assert!(result.warnings.is_empty());
        truncate(&mut result, 1);
        assert_eq!(result.value, QueryValue::Vector(vec![sample(1.0)]));
        assert_eq!(result.warnings, ["results truncated due to limit"]);
    }
}
