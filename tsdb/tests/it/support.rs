//! What several modules need.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use promontory_tsdb::histogram::{CounterResetHint, FloatHistogram, Histogram, HistogramValue, Span};
use promontory_tsdb::query::HistogramSample;
use promontory_tsdb::{
    AppendError, Appender, Db, DbOptions, Labels, ManualClock, Matcher, Queryable, STALE_NAN_BITS,
    SelectHints, SeriesRef, stale_nan,
};

/// Samples by series; values as bits, so that NaNs compare. For histograms see [`digest`].
pub(crate) type Contents = BTreeMap<Labels, Vec<(i64, u64)>>;

/// What [`options`]'s clock shows: later than any sample of a test.
pub(crate) const NOW_MS: i64 = 4_000_000_000_000;

/// Options with a clock that stands still.
pub(crate) fn options(path: &Path) -> DbOptions {
    let mut options = DbOptions::new(path);
    options.clock = Arc::new(ManualClock::new(NOW_MS));
    options
}

/// What a sample may be.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Float(f64),
    Histogram(HistogramValue),
}

impl Value {
    /// As [`Contents`] have it.
    pub(crate) fn bits(&self) -> u64 {
        match self {
            Self::Float(v) => v.to_bits(),
            Self::Histogram(h) => digest(&h.to_float()),
        }
    }

    /// Stages it.
    pub(crate) fn append(
        &self,
        appender: &mut Appender,
        known: SeriesRef,
        labels: &Labels,
        t: i64,
    ) -> Result<SeriesRef, AppendError> {
        match self {
            Self::Float(v) => appender.append(known, labels, t, *v),
            Self::Histogram(h) => appender.append_histogram(known, labels, t, 0, h.clone()),
        }
    }
}

/// Kinds of native histograms that [`histogram`] makes.
pub(crate) const HISTOGRAM_KINDS: u64 = 5;

/// A native histogram: an integer counter, a float counter, an integer gauge, a float gauge, or one with
/// custom buckets. All counts grow with `n`; `shape` decides which buckets there are.
pub(crate) fn histogram(kind: u64, n: u64, shape: u64) -> HistogramValue {
    let count = |i: u64| n * (i + 1);
    let width = 1 + shape % 3;
    let gauge = matches!(kind % HISTOGRAM_KINDS, 2 | 3);
    let counts: Vec<u64> = (0..width).map(count).collect();
    let below: Vec<u64> = (0..shape % 2).map(count).collect();
    let deltas = |of: &[u64]| {
        let before = std::iter::once(0).chain(of.iter().copied());
        of.iter().zip(before).map(|(now, before)| *now as i64 - before as i64).collect::<Vec<_>>()
    };
    let plain = Histogram {
        counter_reset_hint: if gauge { CounterResetHint::Gauge } else { CounterResetHint::Unknown },
        schema: 2,
        zero_threshold: 0.001,
        zero_count: n,
        count: n + counts.iter().chain(&below).sum::<u64>(),
        sum: n as f64 * 1.5,
        positive_spans: vec![Span { offset: (shape % 4) as i32, length: width as u32 }],
        positive_buckets: deltas(&counts),
        negative_spans: vec![Span { offset: 1, length: below.len() as u32 }],
        negative_buckets: deltas(&below),
        ..Histogram::default()
    };
    match kind % HISTOGRAM_KINDS {
        0 | 2 => HistogramValue::Integer(Arc::new(plain)),
        1 | 3 => HistogramValue::Float(Arc::new(plain.to_float())),
        _ => HistogramValue::Float(Arc::new(FloatHistogram {
            schema: -53,
            count: counts.iter().sum::<u64>() as f64,
            sum: n as f64,
            positive_spans: vec![Span { offset: 0, length: width as u32 }],
            positive_buckets: counts.iter().map(|c| *c as f64).collect(),
            custom_values: (0..width).map(|i| i as f64 + 0.5).collect(),
            ..FloatHistogram::default()
        })),
    }
}

/// A temporary directory in memory where there is one: what a sync costs is not the question here.
pub(crate) fn temporary() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// A number from the environment.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Appends and commits in one batch.
pub(crate) fn append(db: &Arc<Db>, samples: &[(&Labels, i64, f64)]) {
    let mut appender = db.appender();
    for (labels, t, v) in samples {
        appender.append(SeriesRef(0), labels, *t, *v).unwrap();
    }
    appender.commit().unwrap();
}

/// Floats that match in `[mint, maxt]`, checking the promises of `Queryable` on the way.
pub(crate) fn read(source: &dyn Queryable, matchers: &[Matcher], mint: i64, maxt: i64) -> Contents {
    read_as(source, matchers, mint, maxt, false)
}

/// As [`read`], with histograms as their [`digest`].
pub(crate) fn read_whole(source: &dyn Queryable, matchers: &[Matcher], mint: i64, maxt: i64) -> Contents {
    read_as(source, matchers, mint, maxt, true)
}

fn read_as(
    source: &dyn Queryable,
    matchers: &[Matcher],
    mint: i64,
    maxt: i64,
    with_histograms: bool,
) -> Contents {
    let hints = SelectHints { partitions: 3, batch_samples: 100, ..SelectHints::default() };
    let selection = source.select(matchers, mint, maxt, &hints).unwrap();
    assert_eq!(selection.partitions.len(), 3);
    let mut out = Contents::new();
    let mut previous: Option<Labels> = None;
    for mut stream in selection.partitions {
        while let Some(batch) = futures::executor::block_on(stream.next()) {
            let batch = batch.unwrap();
            for i in 0..batch.len() {
                let (labels, timestamps, values) = batch.series(i);
                assert!(previous.as_ref().is_none_or(|before| before < labels), "{labels} is out of order");
                previous = Some(labels.clone());
                let histograms: Vec<_> = batch.histograms.iter().filter(|h| h.series as usize == i).collect();
                check_histograms(labels, timestamps, &histograms);
                let mut samples: Vec<_> =
                    timestamps.iter().copied().zip(values.iter().map(|v| v.to_bits())).collect();
                if with_histograms {
                    samples.extend(histograms.iter().map(|h| (h.timestamp, digest(&h.histogram))));
                    samples.sort_unstable();
                }
                assert!(!samples.is_empty() || !histograms.is_empty(), "{labels} is empty");
                assert!(samples.windows(2).all(|w| w[0].0 < w[1].0), "{labels} is not ascending");
                assert!(samples.iter().all(|s| (mint..=maxt).contains(&s.0)));
                if !samples.is_empty() {
                    out.insert(labels.clone(), samples);
                }
            }
        }
    }
    out
}

/// Histograms ascend, and what they say about resets is true of the sample before them.
fn check_histograms(labels: &Labels, floats: &[i64], histograms: &[&HistogramSample]) {
    for pair in histograms.windows(2) {
        let (before, this) = (pair[0], pair[1]);
        assert!(before.timestamp < this.timestamp, "{labels} has histograms out of order");
        let between = floats.partition_point(|t| *t < before.timestamp)
            != floats.partition_point(|t| *t < this.timestamp);
        let mut plain = (*this.histogram).clone();
        plain.counter_reset_hint = CounterResetHint::Unknown;
        let stale = before.histogram.is_stale() || plain.is_stale();
        if this.histogram.counter_reset_hint == CounterResetHint::NotReset && !stale {
            assert!(!between, "{labels} at {}: no reset, it says, after a float", this.timestamp);
            assert!(
                !plain.detect_reset(&before.histogram),
                "{labels} at {}: no reset, it says: {plain} after {}",
                this.timestamp,
                before.histogram
            );
        }
    }
}

/// A histogram as a number, whatever it says about resets: those follow from the samples around it.
pub(crate) fn digest(histogram: &FloatHistogram) -> u64 {
    let mut plain = histogram.clone();
    if plain.counter_reset_hint != CounterResetHint::Gauge {
        plain.counter_reset_hint = CounterResetHint::Unknown;
    }
    if plain.is_stale() {
        // A stale marker is one, whatever series it is in.
        return STALE_NAN_BITS;
    }
    // How buckets are laid out is not told apart.
    plain.compact(0);
    let mut hasher = DefaultHasher::new();
    format!("{plain:?}").hash(&mut hasher);
    hasher.finish()
}

/// All floats there are.
pub(crate) fn read_all(source: &dyn Queryable) -> Contents {
    read(source, &[], i64::MIN, i64::MAX)
}

/// Everything there is.
pub(crate) fn read_everything(source: &dyn Queryable) -> Contents {
    read_whole(source, &[], i64::MIN, i64::MAX)
}

/// Where two differ, shortened, for messages.
pub(crate) fn differences(left: &Contents, right: &Contents) -> String {
    let mut out = String::new();
    let all: BTreeSet<&Labels> = left.keys().chain(right.keys()).collect();
    for labels in all {
        let of = |contents: &Contents| -> BTreeSet<(i64, u64)> {
            contents.get(labels).into_iter().flatten().copied().collect()
        };
        let (a, b) = (of(left), of(right));
        if a != b {
            let first = |of: BTreeSet<&(i64, u64)>| {
                format!("{} {:?}", of.len(), of.iter().take(3).collect::<Vec<_>>())
            };
            let (left, right) = (a.difference(&b).collect(), b.difference(&a).collect());
            out += &format!("\n  {labels}: only left {}, only right {}", first(left), first(right));
        }
        if out.len() > 4000 {
            break;
        }
    }
    out
}

/// Where [`fill`] begins, ms.
pub(crate) const START: i64 = 1_700_000_000_000;
/// ms.
pub(crate) const HOUR: i64 = 3_600_000;

/// [`options`] with segments of a page, and without retention.
pub(crate) fn small_segments(dir: &Path) -> DbOptions {
    let mut options = options(dir);
    options.wal_segment_bytes = 32 * 1024;
    options.retention_ms = None;
    options
}

/// Samples of 40 series every 15 s in `[from, to)`: counters with gaps, stale markers, odd values and names.
pub(crate) fn fill(db: &Arc<Db>, from: i64, to: i64) {
    let sets = (0..40)
        .map(|i| {
            Labels::from_pairs([
                ("__name__", format!("m{}", i % 4)),
                ("i", i.to_string()),
                ("q", "a\"b\\c\nd é".into()),
            ])
        })
        .collect::<Vec<_>>();
    let mut refs = vec![SeriesRef(0); sets.len()];
    for t in (from..to).step_by(15_000) {
        let mut appender = db.appender();
        for (i, (set, known)) in sets.iter().zip(&mut refs).enumerate() {
            let step = (t - START) / 15_000;
            let v = match i {
                0 => f64::INFINITY,
                1 if step % 50 == 49 => stale_nan(),
                2 => -0.0,
                3 => (step as f64).sin(),
                _ => (step * i as i64) as f64,
            };
            // Every series misses some scrapes.
            if (step + i as i64) % 31 != 0 {
                *known = appender.append(*known, set, t + i as i64, v).unwrap();
            }
        }
        appender.commit().unwrap();
    }
}

/// Copies a directory with all that is in it.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
