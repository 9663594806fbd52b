//! A query's result as JSON, written in parts of bounded size.
//!
//! The whole text is never in memory: a result of a million points leaves as it is written, and stops
//! being written when the client goes away.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use promontory_promql::value::{InstantSample, QueryResult, QueryValue, RangeSeries, SampleValue};

use promontory_tsdb::TimestampMs;
use tokio::runtime::Handle;

use super::envelope::{Answer, HEAD, TRUNCATED, put_tail};
use super::histogram::put_histogram;
use super::json::{put_decimal, put_float, put_integer_point, put_labels, put_string, put_timestamp};

/// How many points are written as one part: about 200 KiB of text. Each part costs a thread's waking up and, for the
/// client, a chunk to be put together.
const PART_POINTS: usize = 8192;
/// How many points a histogram counts for, and an element of a vector with its labels.
const HISTOGRAM_POINTS: usize = 16;
const ELEMENT_POINTS: usize = 6;
/// How many parts may be written, or wait for the client, at a time.
const PARTS_AHEAD: usize = 8;

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

/// The envelope with a query's result in it. `stats` is ready JSON for the field `stats`.
///
/// A small result is written at once. The parts of a large one are written on `runtime`, side by side, a few
/// ahead of what the client took.
pub(crate) fn answer(result: QueryResult, stats: Option<String>, runtime: &Handle) -> Answer {
    let text = Text { places: places(&result.value), result, stats };
    if text.parts() == 1 {
        return Answer::whole(text.part(0));
    }
    let (text, runtime) = (Arc::new(text), runtime.clone());
    let parts = stream::iter(0..text.parts()).map(move |i| {
        let text = Arc::clone(&text);
        runtime.spawn(async move { text.part(i) })
    });
    Answer::stream(parts.buffered(PARTS_AHEAD))
}

/// A result as text that is written part by part.
struct Text {
    result: QueryResult,
    stats: Option<String>,
    /// Where parts begin and end: one place more than there are parts.
    places: Vec<Place>,
}

/// In front of a point of an element of the result. Histograms count on after the floats; elements of a vector
/// have one point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    element: usize,
    point: usize,
}

fn places(value: &QueryValue) -> Vec<Place> {
    let mut places = vec![Place { element: 0, point: 0 }];
    let mut room = PART_POINTS;
    let mut put = |element: usize, points: usize, weight: usize| {
        let mut point = 0;
        while (points - point) * weight > room {
            point += room / weight;
            places.push(Place { element, point });
            room = PART_POINTS;
        }
        room -= (points - point) * weight;
    };
    let elements = match value {
        QueryValue::Scalar(..) | QueryValue::String(..) => 0,
        QueryValue::Vector(samples) => {
            (0..samples.len()).for_each(|i| put(i, 1, ELEMENT_POINTS));
            samples.len()
        }
        QueryValue::Matrix(all) => {
            for (i, series) in all.iter().enumerate() {
                let points = series.floats.len() + series.histograms.len();
                put(i, points, if series.histograms.is_empty() { 1 } else { HISTOGRAM_POINTS });
            }
            all.len()
        }
    };
    places.push(Place { element: elements, point: 0 });
    places
}

impl Text {
    fn parts(&self) -> usize {
        self.places.len() - 1
    }

    /// Part `i`; all of them in order are the text.
    fn part(&self, i: usize) -> Bytes {
        let (from, until) = (self.places[i], self.places[i + 1]);
        let mut out = Vec::with_capacity(if self.parts() == 1 { 4 << 10 } else { 256 << 10 });
        if i == 0 {
            put_head(&mut out, &self.result.value);
        }
        let mut times = Times::default();
        for element in from.element..=until.element {
            let first = if element == from.element { from.point } else { 0 };
            let last = if element == until.element { until.point } else { usize::MAX };
            match &self.result.value {
                QueryValue::Vector(samples) => {
                    if let Some(sample) = samples.get(element).filter(|_| first == 0 && last > 0) {
                        put_separator(&mut out, element);
                        put_sample(&mut out, sample, &mut times);
                    }
                }
                QueryValue::Matrix(all) => {
                    if let Some(series) = all.get(element).filter(|_| first < last) {
                        if first == 0 {
                            put_separator(&mut out, element);
                        }
                        put_points(&mut out, series, first, last, &mut times);
                    }
                }
                QueryValue::Scalar(..) | QueryValue::String(..) => {}
            }
        }
        if i + 1 == self.parts() {
            self.put_end(&mut out);
        }
        Bytes::from(out)
    }

    fn put_end(&self, out: &mut Vec<u8>) {
        if matches!(self.result.value, QueryValue::Vector(_) | QueryValue::Matrix(_)) {
            out.push(b']');
        }
        if let Some(stats) = &self.stats {
            out.extend_from_slice(b",\"stats\":");
            out.extend_from_slice(stats.as_bytes());
        }
        out.push(b'}');
        put_tail(out, &self.result.warnings, &self.result.infos);
    }
}

/// `[<seconds>,` of the timestamps of a series. The next series mostly has the same ones.
#[derive(Debug, Default)]
struct Times {
    known: Vec<(TimestampMs, TimeText)>,
    next: usize,
}

#[derive(Debug, Clone, Copy)]
struct TimeText {
    bytes: [u8; 32],
    len: u8,
}

impl Times {
    /// Begins a series.
    fn rewind(&mut self) {
        self.next = 0;
    }

    /// Timestamps of a series come in ascending order.
    #[inline]
    fn put(&mut self, out: &mut Vec<u8>, t: TimestampMs) {
        while self.known.get(self.next).is_some_and(|(known, _)| *known < t) {
            self.next += 1;
        }
        match self.known.get(self.next) {
            Some((known, text)) if *known == t => {
                // All bytes of it, because a copy of fixed length is one or two moves.
                let end = out.len() + usize::from(text.len);
                out.extend_from_slice(&text.bytes);
                out.truncate(end);
            }
            _ => self.put_new(out, t),
        }
        self.next += 1;
    }

    fn put_new(&mut self, out: &mut Vec<u8>, t: TimestampMs) {
        let start = out.len();
        out.push(b'[');
        put_timestamp(out, t);
        out.push(b',');
        let text = &out[start..];
        let mut bytes = [0; 32];
        if let Some(slot) = bytes.get_mut(..text.len()) {
            slot.copy_from_slice(text);
            self.known.truncate(self.next);
            self.known.push((t, TimeText { bytes, len: text.len() as u8 }));
        }
    }
}

fn put_head(out: &mut Vec<u8>, value: &QueryValue) {
    out.extend_from_slice(HEAD);
    let result_type = match value {
        QueryValue::Scalar(..) => "scalar",
        QueryValue::String(..) => "string",
        QueryValue::Vector(_) => "vector",
        QueryValue::Matrix(_) => "matrix",
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
}

fn put_separator(out: &mut Vec<u8>, i: usize) {
    if i > 0 {
        out.push(b',');
    }
}

fn put_sample(out: &mut Vec<u8>, sample: &InstantSample, times: &mut Times) {
    out.extend_from_slice(b"{\"metric\":");
    put_labels(out, &sample.labels);
    out.extend_from_slice(match sample.value {
        SampleValue::Float(_) => b",\"value\":",
        SampleValue::Histogram(_) => b",\"histogram\":",
    });
    times.rewind();
    times.put(out, sample.timestamp);
    match &sample.value {
        SampleValue::Float(v) => put_float(out, *v),
        SampleValue::Histogram(h) => put_histogram(out, h),
    }
    out.extend_from_slice(b"]}");
}

/// Writes points `from..until` of one series, its labels if `from` is 0, and what closes it if `until` is not
/// before its end.
fn put_points(out: &mut Vec<u8>, series: &RangeSeries, from: usize, until: usize, times: &mut Times) {
    let floats = series.floats.len();
    let total = floats + series.histograms.len();
    if from == 0 {
        out.extend_from_slice(b"{\"metric\":");
        put_labels(out, &series.labels);
    }
    let until_float = until.min(floats);
    if from < until_float {
        out.extend_from_slice(if from == 0 { b",\"values\":[" } else { b"," });
        times.rewind();
        for (t, v) in &series.floats[from..until_float] {
            times.put(out, *t);
            if !put_integer_point(out, *v) {
                put_float(out, *v);
                out.extend_from_slice(b"],");
            }
        }
        close_list(out, until_float == floats);
    }
    let histograms = from.saturating_sub(floats)..until.min(total).saturating_sub(floats);
    if !histograms.is_empty() {
        out.extend_from_slice(if histograms.start == 0 { b",\"histograms\":[" } else { b"," });
        for (t, histogram) in &series.histograms[histograms] {
            out.push(b'[');
            put_timestamp(out, *t);
            out.push(b',');
            put_histogram(out, histogram);
            out.extend_from_slice(b"],");
        }
        close_list(out, until >= total);
    }
    if until >= total {
        out.push(b'}');
    }
}

/// Takes back the comma behind the last element, and closes the list if it is complete.
fn close_list(out: &mut Vec<u8>, complete: bool) {
    out.pop();
    if complete {
        out.push(b']');
    }
}

#[cfg(test)]
mod tests {
    use promontory_tsdb::Labels;
    use promontory_tsdb::histogram::{FloatHistogram, Span};

    use super::*;

    fn parts(result: QueryResult) -> Vec<Bytes> {
        let text = Text { places: places(&result.value), result, stats: None };
        (0..text.parts()).map(|i| text.part(i)).collect()
    }

    fn check(value: QueryValue, want: &str) {
        let result = QueryResult { value, warnings: vec![], infos: vec![] };
        check_result(result, &format!("{{\"status\":\"success\",\"data\":{want}}}"));
    }

    fn check_result(result: QueryResult, want: &str) {
        assert_eq!(String::from_utf8(parts(result).concat()).unwrap(), want);
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
    fn a_large_result_leaves_in_parts_that_join_to_the_same_text() {
        let floats = |n: i64| (0..n).map(|i| (i * 1_000 + i % 7, i as f64 / 3.0)).collect::<Vec<_>>();
        let series = |name: &str, n: i64, histograms: i64| RangeSeries {
            labels: Labels::from_pairs([("a", name)]),
            floats: floats(n),
            histograms: (0..histograms).map(|t| (t, histogram())).collect(),
        };
        let step = PART_POINTS as i64;
        let all = vec![
            series("exactly", step, 0),
            series("x", 11_000, 0),
            series("y", 1, 0),
            series("both", 3_000, 700),
            series("only histograms", 0, 300),
            series("z", 2 * step - 1, 0),
        ];
        let texts =
            parts(QueryResult { value: QueryValue::Matrix(all.clone()), warnings: vec![], infos: vec![] });
        assert!(texts.len() > 8 && texts.iter().all(|p| p.len() < 256 << 10), "{}", texts.len());
        let json: serde_json::Value = serde_json::from_slice(&texts.concat()).unwrap();
        for (got, want) in json["data"]["result"].as_array().unwrap().iter().zip(&all) {
            let empty = vec![];
            let points = got["values"].as_array().unwrap_or(&empty);
            let read = points.iter().map(|p| {
                let t = (p[0].as_f64().unwrap() * 1000.0).round() as i64;
                (t, p[1].as_str().unwrap().parse::<f64>().unwrap())
            });
            assert_eq!(read.collect::<Vec<_>>(), want.floats);
            assert_eq!(got["histograms"].as_array().map_or(0, Vec::len), want.histograms.len());
        }
    }

    #[test]
    fn a_large_vector_leaves_in_parts() {
        let labels = |i: usize| Labels::from_pairs([("i", format!("{i:05}"))]);
        let sample =
            |i| InstantSample { labels: labels(i), timestamp: 1, value: SampleValue::Float(i as f64) };
        let value = QueryValue::Vector((0..5_000).map(sample).collect());
        let texts = parts(QueryResult { value, warnings: vec![], infos: vec![] });
        assert!(texts.len() > 3);
        let json: serde_json::Value = serde_json::from_slice(&texts.concat()).unwrap();
        let values = json["data"]["result"].as_array().unwrap().iter();
        let values = values.map(|s| s["value"][1].as_str().unwrap().parse::<usize>().unwrap());
        assert!(values.eq(0..5_000));
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
