//! Blocks with histograms: what is read, and what a merge makes of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt as _;
use proptest::prelude::*;
use ulid::Ulid;

use super::*;
use crate::chunkenc::histogram::{Appended, ChunkAppender, Coder, FloatCoder, IntegerCoder};
use crate::chunkenc::{Encoding, xor, xor2};
use crate::chunks::ChunkData;
use crate::histogram::{CounterResetHint, FloatHistogram, Histogram, HistogramValue, Span};
use crate::labels::Labels;

/// A sample in a model: a float, or a counter histogram made of a number.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    Float(u32),
    Integer(u32),
    FloatHistogram(u32),
}

/// Samples of a series: value and start timestamp by time.
type Samples = BTreeMap<TimestampMs, (Value, TimestampMs)>;
type Model = BTreeMap<Labels, Samples>;

/// A histogram whose buckets follow from `n`; some share a layout, some have more buckets.
fn histogram(n: u32) -> Histogram {
    let buckets = 1 + n % 3;
    Histogram {
        schema: 1,
        zero_threshold: 0.001,
        zero_count: 1,
        count: u64::from(1 + buckets * n),
        sum: f64::from(n),
        positive_spans: vec![Span { offset: 0, length: buckets }],
        positive_buckets: (0..buckets).map(|i| if i == 0 { i64::from(n) } else { 0 }).collect(),
        ..Histogram::default()
    }
}

fn appended(value: Value) -> HistogramValue {
    match value {
        Value::FloatHistogram(n) => HistogramValue::Float(Arc::new(histogram(n).to_float())),
        Value::Integer(n) | Value::Float(n) => HistogramValue::Integer(Arc::new(histogram(n))),
    }
}

fn kind(value: Value) -> u8 {
    match value {
        Value::Float(_) => 0,
        Value::Integer(_) => 1,
        Value::FloatHistogram(_) => 2,
    }
}

/// Chunks as a head would cut them: a new one when the kind changes or after `most` samples.
fn chunks(samples: &Samples, most: usize, starts: bool) -> Vec<ChunkData> {
    let all: Vec<_> = samples.iter().map(|(t, (v, s))| (*t, *v, *s)).collect();
    let mut out = Vec::new();
    for run in all.chunk_by(|a, b| kind(a.1) == kind(b.1)) {
        for run in run.chunks(most) {
            match run[0].1 {
                Value::Float(_) => out.push(float_chunk(run, starts)),
                Value::Integer(_) => {
                    let of = |v| match appended(v) {
                        HistogramValue::Integer(h) => Arc::unwrap_or_clone(h),
                        HistogramValue::Float(_) => unreachable!("integers only"),
                    };
                    histogram_chunks::<IntegerCoder>(run, starts, of, &mut out);
                }
                Value::FloatHistogram(_) => {
                    let of = |v| Arc::unwrap_or_clone(appended(v).to_float());
                    histogram_chunks::<FloatCoder>(run, starts, of, &mut out);
                }
            }
        }
    }
    out
}

fn float_chunk(run: &[(TimestampMs, Value, TimestampMs)], starts: bool) -> ChunkData {
    let number = |v| match v {
        Value::Float(n) | Value::Integer(n) | Value::FloatHistogram(n) => f64::from(n),
    };
    let (mint, maxt) = (run[0].0, run[run.len() - 1].0);
    if starts {
        let mut appender = xor2::Appender::new();
        run.iter().for_each(|&(t, v, start)| appender.append(start, t, number(v)));
        return ChunkData { mint, maxt, encoding: Encoding::Xor2, bytes: appender.into_bytes() };
    }
    let mut appender = xor::Appender::new();
    run.iter().for_each(|&(t, v, _)| appender.append(t, number(v)));
    ChunkData { mint, maxt, encoding: Encoding::Xor, bytes: appender.into_bytes() }
}

fn histogram_chunks<C: Coder>(
    run: &[(TimestampMs, Value, TimestampMs)],
    starts: bool,
    of: impl Fn(Value) -> C::Value,
    out: &mut Vec<ChunkData>,
) {
    let mut close = |appender: ChunkAppender<C>, mint, maxt| {
        let encoding = appender.encoding();
        out.push(ChunkData { mint, maxt, encoding, bytes: appender.into_bytes() });
    };
    let mut appender = ChunkAppender::<C>::new(starts);
    let (mut mint, mut maxt) = (run[0].0, run[0].0);
    for &(t, v, start) in run {
        if let Appended::NewChunk(next) = appender.append(None, t, start, &of(v)).unwrap() {
            close(std::mem::replace(&mut appender, *next), mint, maxt);
            mint = t;
        }
        maxt = t;
    }
    close(appender, mint, maxt);
}

fn write_model(dir: &Path, model: &Model, most: usize, starts: bool) -> Arc<Block> {
    std::fs::create_dir_all(dir).unwrap();
    let series = model.iter().map(|(labels, samples)| Ok((labels.clone(), chunks(samples, most, starts))));
    let meta = write(dir, BlockSpec::new(Ulid(7), 0, 1000), series).unwrap().unwrap();
    let histograms = model.values().flatten().filter(|(_, (v, _))| kind(*v) > 0).count();
    assert_eq!(meta.stats.num_histogram_samples, histograms as u64);
    Arc::new(Block::open(&dir.join(Ulid(7).to_string())).unwrap())
}

/// What a query sees at one time: a float or a histogram without its hint, and the start timestamp.
type Seen = (Result<f64, FloatHistogram>, TimestampMs);

/// Without hint, and without empty buckets, which a chunk adds when another of its samples has them.
fn compacted(histogram: &FloatHistogram) -> FloatHistogram {
    let mut out = FloatHistogram { counter_reset_hint: CounterResetHint::Unknown, ..histogram.clone() };
    out.compact(0);
    out
}

fn seen(value: Value, start: TimestampMs) -> Seen {
    match value {
        Value::Float(n) => (Ok(f64::from(n)), start),
        other => (Err(compacted(&appended(other).to_float())), start),
    }
}

/// Everything in `[mint, maxt]`, where hints must not hide a reset.
fn read(source: &dyn Queryable, mint: i64, maxt: i64) -> BTreeMap<Labels, BTreeMap<TimestampMs, Seen>> {
    let hints = SelectHints { batch_samples: 40, ..SelectHints::default() };
    let mut out = BTreeMap::<Labels, BTreeMap<TimestampMs, Seen>>::new();
    for mut partition in source.select(&[], mint, maxt, &hints).unwrap().partitions {
        while let Some(batch) = futures::executor::block_on(partition.next()) {
            let batch = batch.unwrap();
            assert!(batch.start_timestamps.is_empty() || batch.start_timestamps.len() == batch.values.len());
            for i in 0..batch.len() {
                let range = batch.offsets[i] as usize..batch.offsets[i + 1] as usize;
                let starts = |at: usize| batch.start_timestamps.get(at).copied().unwrap_or_default();
                let samples = out.entry(batch.labels[i].clone()).or_default();
                let before = samples.len();
                samples.extend(range.map(|at| (batch.timestamps[at], (Ok(batch.values[at]), starts(at)))));
                let histograms = batch.histograms.iter().filter(|h| h.series as usize == i);
                let mut last: Option<&FloatHistogram> = None;
                for h in histograms {
                    assert!(
                        h.histogram.counter_reset_hint != CounterResetHint::NotReset
                            || last.is_some_and(|last| !h.histogram.detect_reset(last))
                            || mint > 0,
                        "a reset is hidden at {}",
                        h.timestamp
                    );
                    last = Some(&h.histogram);
                    let value = Err(compacted(&h.histogram));
                    let twice = samples.insert(h.timestamp, (value, h.start_timestamp));
                    assert_eq!(twice, None, "two samples at {}", h.timestamp);
                }
                assert!(samples.len() > before, "no empty series");
            }
        }
    }
    out
}

fn labels() -> impl Strategy<Value = Labels> {
    (0..4u8).prop_map(|i| Labels::from_pairs([("__name__", "m".to_owned()), ("i", i.to_string())]))
}

fn models() -> impl Strategy<Value = Model> {
    let value = (0u8..3, 0u32..30).prop_map(|(kind, n)| match kind {
        0 => Value::Float(n),
        1 => Value::Integer(n),
        _ => Value::FloatHistogram(n),
    });
    let samples = prop::collection::btree_map(0i64..1000, (value, 0i64..5), 1..40);
    prop::collection::btree_map(labels(), samples, 1..5)
}

/// The model as it can be stored: without start timestamps if chunks have no room for them.
fn stored(mut model: Model, starts: bool) -> Model {
    if !starts {
        model.values_mut().flat_map(BTreeMap::values_mut).for_each(|(_, start)| *start = 0);
    }
    model
}

fn expected(model: &Model) -> BTreeMap<Labels, BTreeMap<TimestampMs, Seen>> {
    let of = |samples: &Samples| samples.iter().map(|(t, (v, s))| (*t, seen(*v, *s))).collect();
    model.iter().map(|(labels, samples)| (labels.clone(), of(samples))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn samples_of_all_kinds_are_read_in_range_and_without_what_is_deleted(
        model in models(), starts in any::<bool>(), most in 1usize..20,
        range in (0i64..1000, 0i64..1000), deleted in (0u8..4, 0i64..1000, 0i64..300),
    ) {
        let model = stored(model, starts);
        let dir = tempfile::tempdir().unwrap();
        let block = write_model(dir.path(), &model, most, starts);
        prop_assert_eq!(read(&*block, 0, 1000), expected(&model));
        let (i, from, len) = deleted;
        block.delete(&[Matcher::eq("i", i.to_string())], from, from + len).unwrap();
        let (mint, maxt) = (range.0, range.0 + range.1);
        let mut left = model;
        for (labels, samples) in &mut left {
            let hit = labels.get("i") == Some(&i.to_string());
            samples.retain(|t, _| mint <= *t && *t <= maxt && !(hit && from <= *t && *t <= from + len));
        }
        left.retain(|_, samples| !samples.is_empty());
        prop_assert_eq!(read(&*block, mint, maxt), expected(&left));
    }

    #[test]
    fn a_merge_keeps_samples_of_all_kinds(
        models in prop::collection::vec((models(), any::<bool>(), 1usize..20), 1..4),
        deletions in prop::collection::vec((0usize..3, 0u8..4, 0i64..1000, 0i64..300), 0..3),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut blocks = Vec::new();
        for (n, (model, starts, most)) in models.into_iter().enumerate() {
            let path = dir.path().join(n.to_string());
            blocks.push(write_model(&path, &stored(model, starts), most, starts));
        }
        for (n, i, mint, len) in deletions {
            if let Some(block) = blocks.get(n) {
                block.delete(&[Matcher::eq("i", i.to_string())], mint, mint + len).unwrap();
            }
        }
        let sources = blocks.iter().map(|b| Arc::clone(b) as Arc<dyn Queryable>).collect();
        // What is read through all of them is what the merged block must have.
        let expected = read(&crate::merge::Fanout::new(sources), 0, 1000);
        let meta = compact(dir.path(), Ulid(8), &blocks).unwrap();
        prop_assert_eq!(meta.is_none(), expected.is_empty());
        if let Some(meta) = meta {
            let merged = Block::open(&dir.path().join(Ulid(8).to_string())).unwrap();
            prop_assert_eq!(&read(&merged, 0, 1000), &expected);
            let histograms = expected.values().flatten().filter(|(_, (v, _))| v.is_err()).count() as u64;
            prop_assert_eq!(meta.stats.num_histogram_samples, histograms);
            prop_assert_eq!(merged.series_stats(&[], 0, 1000).unwrap().samples, meta.stats.num_samples);
        }
    }
}
