//! Native histograms, start timestamps, exemplars and metadata on their way in and back.

use std::path::Path;
use std::sync::Arc;

use futures::StreamExt as _;
use promontory_tsdb::chunkenc::Encoding;
use promontory_tsdb::exemplar::Exemplar;
use promontory_tsdb::histogram::{FloatHistogram, Histogram, HistogramValue, Span};
use promontory_tsdb::metadata::{Metadata, MetricKind};
use promontory_tsdb::{
    AppendError, Db, DbOptions, Labels, Queryable, SelectHints, SeriesRef, is_stale, stale_nan,
};

use crate::support::options;

const HOUR: i64 = 3_600_000;

fn unlocked(dir: &Path) -> DbOptions {
    let mut options = options(dir);
    options.lockfile = false;
    options.retention_ms = None;
    options
}

fn name(name: &str) -> Labels {
    Labels::from_pairs([("__name__", name)])
}

/// A counter that grows with `step`, and gets a bucket more now and then.
pub(crate) fn integer(step: u64) -> Histogram {
    let width = 2 + (step / 50 % 3) as u32;
    let counts = (0..u64::from(width)).map(|i| step + i).collect::<Vec<_>>();
    let deltas = counts.iter().scan(0i64, |before, c| {
        let delta = *c as i64 - *before;
        *before = *c as i64;
        Some(delta)
    });
    Histogram {
        schema: 3,
        zero_threshold: 0.001,
        zero_count: step,
        count: step + counts.iter().sum::<u64>(),
        sum: step as f64 * 1.5,
        positive_spans: vec![Span { offset: -1, length: width }],
        positive_buckets: deltas.collect(),
        ..Histogram::default()
    }
}

pub(crate) fn custom(step: u64) -> FloatHistogram {
    FloatHistogram {
        schema: -53,
        count: step as f64 * 3.0,
        sum: step as f64,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![step as f64, step as f64 * 2.0],
        custom_values: vec![0.5, 2.0],
        ..FloatHistogram::default()
    }
}

/// All samples of a series as text: time, start timestamp, value.
fn samples(db: &dyn Queryable, labels: &Labels) -> Vec<(i64, i64, String)> {
    let selection = db.select(&[], i64::MIN, i64::MAX, &SelectHints::default()).unwrap();
    let mut out = Vec::new();
    for mut stream in selection.partitions {
        while let Some(batch) = futures::executor::block_on(stream.next()) {
            let batch = batch.unwrap();
            for i in (0..batch.len()).filter(|i| batch.labels[*i] == *labels) {
                let (_, times, values) = batch.series(i);
                let from = batch.offsets[i] as usize;
                for (k, (t, v)) in times.iter().zip(values).enumerate() {
                    let start = batch.start_timestamps.get(from + k).copied().unwrap_or_default();
                    out.push((*t, start, format!("{v}")));
                }
                for h in batch.histograms.iter().filter(|h| h.series as usize == i) {
                    let value =
                        if is_stale(h.histogram.sum) { "stale".into() } else { h.histogram.to_string() };
                    out.push((h.timestamp, h.start_timestamp, value));
                }
            }
        }
    }
    out.sort();
    out
}

pub(crate) fn fill(db: &Arc<Db>, from: u64, to: u64) {
    for step in from..to {
        let t = step as i64 * 15_000;
        let mut appender = db.appender();
        let h = HistogramValue::Integer(Arc::new(integer(step)));
        appender.append_histogram(SeriesRef(0), &name("integer"), t, 0, h).unwrap();
        let h = HistogramValue::Float(Arc::new(custom(step)));
        appender.append_histogram(SeriesRef(0), &name("custom"), t, 0, h).unwrap();
        // From float to histograms and back.
        if step % 20 < 10 {
            appender.append(SeriesRef(0), &name("mixed"), t, step as f64).unwrap();
        } else {
            let h = HistogramValue::Integer(Arc::new(integer(step)));
            appender.append_histogram(SeriesRef(0), &name("mixed"), t, 0, h).unwrap();
        }
        appender.commit().unwrap();
    }
}

pub(crate) fn all(db: &dyn Queryable) -> Vec<Vec<(i64, i64, String)>> {
    ["integer", "custom", "mixed"].map(|n| samples(db, &name(n))).to_vec()
}

#[test]
fn histograms_are_the_same_in_memory_on_disk_after_a_crash_and_in_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(unlocked(dir.path())).unwrap();
    fill(&db, 0, 480);
    let first = all(&*db);
    assert_eq!(first.iter().map(Vec::len).collect::<Vec<_>>(), [480; 3]);
    for (i, sample) in first[0].iter().enumerate() {
        assert_eq!(*sample, (i as i64 * 15_000, 0, integer(i as u64).to_float().to_string()));
    }
    db.maintain().unwrap();
    assert_eq!(all(&*db), first);
    std::mem::forget(db);
    let db = Db::open(unlocked(dir.path())).unwrap();
    assert_eq!(all(&*db), first);
    fill(&db, 480, 1200);
    let second = all(&*db);
    let done = db.maintain().unwrap();
    assert!(!done.blocks_cut.is_empty());
    assert_eq!(all(&*db), second);
    std::mem::forget(db);
    let db = Db::open(unlocked(dir.path())).unwrap();
    assert_eq!(all(&*db), second);
    assert_eq!(second[2].len(), 1200);
}

#[test]
fn histograms_are_refused_by_the_rules_of_prometheus() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(unlocked(dir.path())).unwrap();
    let put = |t: i64, h: HistogramValue| {
        let mut appender = db.appender();
        let result = appender.append_histogram(SeriesRef(0), &name("h"), t, 0, h).map(drop);
        appender.commit().unwrap();
        result
    };
    let value = |step| HistogramValue::Integer(Arc::new(integer(step)));
    put(1000, value(1)).unwrap();
    put(1000, value(1)).unwrap();
    assert_eq!(put(1000, value(2)), Err(AppendError::DuplicateHistogram));
    assert_eq!(put(999, value(1)), Err(AppendError::OutOfOrder));
    let broken = Histogram { count: 0, ..integer(3) };
    let broken = put(2000, HistogramValue::Integer(Arc::new(broken)));
    assert!(matches!(broken, Err(AppendError::InvalidHistogram(_))), "{broken:?}");
    let mut appender = db.appender();
    let float = appender.append(SeriesRef(0), &name("h"), 1000, 1.0).unwrap_err();
    assert_eq!(
        float.to_string(),
        "duplicate sample for timestamp 1000; overrides not allowed: existing is a histogram, new value 1"
    );
    assert_eq!(samples(&*db, &name("h")).len(), 1);
}

#[test]
fn a_stale_marker_takes_the_kind_of_its_series() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(unlocked(dir.path())).unwrap();
    let value = HistogramValue::Integer(Arc::new(integer(1)));
    let mut appender = db.appender();
    appender.append_histogram(SeriesRef(0), &name("h"), 1000, 0, value.clone()).unwrap();
    appender.append_histogram(SeriesRef(0), &name("g"), 1000, 0, value).unwrap();
    appender.append(SeriesRef(0), &name("g"), 2000, stale_nan()).unwrap();
    appender.commit().unwrap();
    let mut appender = db.appender();
    appender.append(SeriesRef(0), &name("h"), 2000, stale_nan()).unwrap();
    appender.commit().unwrap();
    for round in 0..2 {
        let db = Db::open(unlocked(dir.path())).unwrap();
        for n in ["h", "g"] {
            let found = samples(&*db, &name(n));
            assert_eq!(found[1], (2000, 0, "stale".to_owned()), "{n} {round}");
        }
    }
}

#[test]
fn late_histograms_are_merged_compacted_and_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = unlocked(dir.path());
    options.out_of_order_window_ms = 5 * HOUR;
    let db = Db::open(options.clone()).unwrap();
    let put = |db: &Arc<Db>, step: u64| {
        let mut appender = db.appender();
        let h = HistogramValue::Integer(Arc::new(integer(step)));
        appender.append_histogram(SeriesRef(0), &name("h"), step as i64 * 15_000, 0, h).unwrap();
        appender.append(SeriesRef(0), &name("f"), step as i64 * 15_000 + 1, step as f64).unwrap();
        appender.commit().unwrap();
    };
    put(&db, 700);
    for i in 0..700 {
        put(&db, i * 37 % 700);
    }
    let expected = samples(&*db, &name("h"));
    assert_eq!(expected.len(), 701);
    for (i, sample) in expected.iter().enumerate() {
        assert_eq!(*sample, (i as i64 * 15_000, 0, integer(i as u64).to_float().to_string()));
    }
    std::mem::forget(db);
    let db = Db::open(options.clone()).unwrap();
    assert_eq!(samples(&*db, &name("h")), expected);
    assert_eq!(samples(&*db, &name("f")).len(), 701);
    put(&db, 1500);
    let expected = samples(&*db, &name("h"));
    let done = db.maintain().unwrap();
    assert!(done.blocks_cut.len() >= 2, "{done:?}");
    assert_eq!(samples(&*db, &name("h")), expected);
    std::mem::forget(db);
    assert_eq!(samples(&*Db::open(options).unwrap(), &name("h")), expected);
}

#[test]
fn start_timestamps_are_kept_when_asked_for() {
    for kept in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut options = unlocked(dir.path());
        options.start_timestamps = kept;
        options.float_encoding = Encoding::Xor2;
        let db = Db::open(options.clone()).unwrap();
        for step in 0..300i64 {
            let mut appender = db.appender();
            let start = if step > 10 { 5000 + step / 100 } else { 0 };
            appender.append_with_start(SeriesRef(0), &name("f"), step * 15_000, start, step as f64).unwrap();
            let h = HistogramValue::Integer(Arc::new(integer(step as u64)));
            appender.append_histogram(SeriesRef(0), &name("h"), step * 15_000, start, h).unwrap();
            appender.commit().unwrap();
        }
        let expected = [samples(&*db, &name("f")), samples(&*db, &name("h"))];
        if kept {
            for list in &expected {
                assert_eq!((list[10].1, list[11].1, list[299].1), (0, 5000, 5002));
            }
        } else {
            assert!(expected[1].iter().all(|s| s.1 == 0));
        }
        db.maintain().unwrap();
        std::mem::forget(db);
        let db = Db::open(options).unwrap();
        let found = [samples(&*db, &name("f")), samples(&*db, &name("h"))];
        if kept {
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn exemplars_and_metadata_come_with_samples_and_survive() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = unlocked(dir.path());
    options.exemplars_max = 10;
    let db = Db::open(options.clone()).unwrap();
    let metadata = Metadata { kind: MetricKind::Counter, unit: "seconds".into(), help: "how long".into() };
    let exemplar = Exemplar {
        labels: Labels::from_pairs([("trace_id", "abc")]),
        value: 3.0,
        timestamp: 900,
        has_timestamp: true,
    };
    let mut appender = db.appender();
    let series = appender.append(SeriesRef(0), &name("m"), 1000, 1.0).unwrap();
    appender.append_exemplar(series, exemplar.clone()).unwrap();
    appender.append_exemplar(series, exemplar).unwrap();
    appender.set_metadata(series, metadata.clone()).unwrap();
    assert_eq!(
        appender.set_metadata(SeriesRef(99), metadata.clone()),
        Err(AppendError::UnknownSeries(SeriesRef(99)))
    );
    assert_eq!(db.exemplars().stats().exemplars, 0, "not before the commit");
    appender.commit().unwrap();
    for _ in 0..2 {
        assert_eq!(db.exemplars().stats().exemplars, 1);
        assert_eq!(db.metadata_of(series).as_deref(), Some(&metadata));
    }
    std::mem::forget(db);
    let db = Db::open(options).unwrap();
    // As upstream, the log has both; the storage sees that they are one.
    assert_eq!((db.replay_stats().exemplars, db.replay_stats().metadata), (2, 1));
    assert_eq!(db.exemplars().stats().exemplars, 1);
    assert_eq!(db.metadata_of(series).as_deref(), Some(&metadata));
}
