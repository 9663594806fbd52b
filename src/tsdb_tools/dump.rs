//! `promontory tsdb dump` and `dump-openmetrics`: samples as lines.

use std::io::{self, Write};
use std::sync::Arc;

use promontory_tsdb::histogram::{FloatHistogram, Histogram};
use promontory_tsdb::labels::go_quote;
use promontory_tsdb::query::HistogramSample;
use promontory_tsdb::{Db, DbOptions, Labels, METRIC_NAME, Queryable};

use super::text::{go_float, go_io_error};
use super::{DumpArgs, DumpFormat, DumpOpenMetricsArgs, DumpRange, ToolError, open_blocks, selector};
use crate::api::json;
use crate::export::series::{Series, SeriesCursor};

pub(super) fn dump(args: &DumpArgs, out: &mut dyn Write) -> Result<(), ToolError> {
    match args.format {
        DumpFormat::Prom => for_each(&args.range, |series| put_samples(out, series)),
        DumpFormat::SeriesJson => for_each(&args.range, |series| put_series_json(out, &series.labels)),
    }
}

pub(super) fn dump_open_metrics(args: &DumpOpenMetricsArgs, out: &mut dyn Write) -> Result<(), ToolError> {
    for_each(&args.range, |series| put_open_metrics(out, series))?;
    writeln!(out, "# EOF")?;
    Ok(())
}

/// Visits every series in label order.
fn for_each(range: &DumpRange, mut visit: impl FnMut(&Series) -> io::Result<()>) -> Result<(), ToolError> {
    let selectors = range.selectors.iter().map(|s| selector(s)).collect::<Result<Vec<_>, _>>()?;
    let path = &range.db_path;
    if let Err(e) = std::fs::metadata(path) {
        let reason = go_io_error(&e);
        return Err(ToolError::Message(format!("opening the db dir: stat {}: {reason}", path.display())));
    }
    // Nobody who asks for a dump wants one that leaves a damaged block out.
    drop(open_blocks(path)?);
    let mut options = DbOptions::new(path);
    options.read_only = true;
    let db = Db::open(options)?;
    let source: Arc<dyn Queryable> = db;
    let mut cursor = SeriesCursor::open(&source, &selectors, range.min_time, range.max_time)?;
    while let Some(series) = cursor.next()? {
        visit(&series)?;
    }
    Ok(())
}

/// `{labels} value timestamp`, floats and histograms in order of time.
fn put_samples(out: &mut dyn Write, series: &Series) -> io::Result<()> {
    let labels = series.labels.to_string();
    let mut histograms = series.histograms.iter().peekable();
    for (t, v) in series.timestamps.iter().zip(&series.values) {
        while let Some(sample) = histograms.next_if(|h| h.timestamp < *t) {
            put_histogram(out, &labels, sample)?;
        }
        writeln!(out, "{labels} {} {t}", go_float(*v))?;
    }
    for sample in histograms {
        put_histogram(out, &labels, sample)?;
    }
    Ok(())
}

/// Compat: upstream knows whether counts are integers, and prints those without an exponent. A read gives
/// floats only; where all of them are whole, they were integers in all but contrived cases.
fn put_histogram(out: &mut dyn Write, labels: &str, sample: &HistogramSample) -> io::Result<()> {
    let t = sample.timestamp;
    match whole(&sample.histogram) {
        Some(histogram) => writeln!(out, "{labels} {histogram} {t}"),
        None => writeln!(out, "{labels} {} {t}", sample.histogram),
    }
}

/// The histogram with integer counts, if that is what its counts are.
fn whole(h: &FloatHistogram) -> Option<Histogram> {
    /// Below this every integer is exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let count = |v: f64| ((0.0..EXACT).contains(&v) && v.fract() == 0.0).then_some(v as u64);
    let deltas = |counts: &[f64]| -> Option<Vec<i64>> {
        let mut last = 0i64;
        let mut delta = |v: f64| {
            let n = count(v)? as i64;
            Some(n - std::mem::replace(&mut last, n))
        };
        counts.iter().map(|v| delta(*v)).collect()
    };
    Some(Histogram {
        counter_reset_hint: h.counter_reset_hint,
        schema: h.schema,
        zero_threshold: h.zero_threshold,
        zero_count: count(h.zero_count)?,
        count: count(h.count)?,
        sum: h.sum,
        positive_spans: h.positive_spans.clone(),
        negative_spans: h.negative_spans.clone(),
        positive_buckets: deltas(&h.positive_buckets)?,
        negative_buckets: deltas(&h.negative_buckets)?,
        custom_values: h.custom_values.clone(),
    })
}

fn put_series_json(out: &mut dyn Write, labels: &Labels) -> io::Result<()> {
    let mut line = vec![b'{'];
    for (i, (name, value)) in labels.iter().enumerate() {
        if i > 0 {
            line.push(b',');
        }
        json::put_string(&mut line, name);
        line.push(b':');
        json::put_string(&mut line, value);
    }
    line.extend_from_slice(b"}\n");
    out.write_all(&line)
}

/// `name{labels} value seconds`.
fn put_open_metrics(out: &mut dyn Write, series: &Series) -> io::Result<()> {
    let mut text = series.labels.metric_name().to_owned();
    text.push('{');
    for (i, (name, value)) in series.labels.iter().filter(|(name, _)| *name != METRIC_NAME).enumerate() {
        if i > 0 {
            text.push(',');
        }
        text.push_str(name);
        text.push('=');
        text.push_str(&go_quote(value));
    }
    text.push('}');
    for (t, v) in series.timestamps.iter().zip(&series.values) {
        writeln!(out, "{text} {} {:.3}", go_float(*v), *t as f64 / 1000.0)?;
    }
    Ok(())
}
