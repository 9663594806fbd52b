//! The series that scripts ask about: those of `docs/sql.md`, and names and values that are hard to get right.

use promontory_tsdb::histogram::{FloatHistogram, Span};
use promontory_tsdb::memory::MemoryStorage;
use promontory_tsdb::{Labels, stale_nan};

use crate::data::{self, NOW_MS};

/// Samples of one series, all of them in one go.
fn put(storage: &MemoryStorage, pairs: &[(&str, &str)], samples: impl IntoIterator<Item = (i64, f64)>) {
    let labels = Labels::from_pairs(pairs.iter().copied());
    for (t, value) in samples {
        storage.append(&labels, t, value).expect("samples come in order");
    }
}

/// Everything.
pub(super) fn storage() -> MemoryStorage {
    let storage = data::storage();
    names(&storage);
    values(&storage);
    counters(&storage);
    histograms(&storage);
    storage
}

fn names(storage: &MemoryStorage) {
    for (ville, etage, value) in
        [("Genève", Some("2"), 19.5), ("Zürich", None, 18.0), ("東京", Some("1"), 25.0)]
    {
        let mut pairs = vec![("__name__", "température"), ("ville", ville)];
        pairs.extend(etage.map(|etage| ("étage", etage)));
        put(storage, &pairs, [(NOW_MS, value)]);
    }
    let odd = [
        ("__name__", "http.server.duration"),
        ("service.name", "shop"),
        ("a b", "x  y"),
        ("quote\"d", "it's \"quoted\" \\ back\nline"),
        ("emoji", "🦀"),
    ];
    put(storage, &odd, [(NOW_MS, 1.0)]);
    let twins = [("__name__", "collisions"), ("timestamp", "t"), ("label_timestamp", "lt"), ("value", "v")];
    let more = [("label_label_value", "llv"), ("metric", "m"), ("labels", "l"), ("histogram", "h")];
    put(storage, &[&twins[..], &more].concat(), [(NOW_MS, 1.0)]);
    let cases = [("__name__", "Up"), ("job", "lower"), ("Job", "Upper"), ("JOB", "UPPER")];
    put(storage, &cases, [(NOW_MS, 2.0)]);
    let words = [("__name__", "select"), ("from", "x"), ("order", "y"), ("group", "z"), ("user", "me")];
    put(storage, &words, [(NOW_MS, 1.0)]);
}

fn values(storage: &MemoryStorage) {
    for (i, (kind, value)) in [
        ("nan", f64::NAN),
        ("plus", f64::INFINITY),
        ("minus", f64::NEG_INFINITY),
        ("zero", 0.0),
        ("negative zero", -0.0),
        ("tiny", 5e-324),
        ("huge", f64::MAX),
        ("tenth", 0.1),
        ("third", 1.0 / 3.0),
        ("exact", 9_007_199_254_740_992.0),
        ("half", 2.5),
    ]
    .into_iter()
    .enumerate()
    {
        put(storage, &[("__name__", "odd_values"), ("kind", kind)], [(NOW_MS + i as i64, value)]);
    }
    // Labels that some series lack; one that ended, and one that came back.
    for (i, pairs) in [
        &[("a", "1"), ("b", "1")][..],
        &[("a", "1")],
        &[("b", "1")],
        &[("a", "2"), ("b", "x_y")],
        &[("a", "10%"), ("b", "xzy")],
        &[],
    ]
    .into_iter()
    .enumerate()
    {
        let pairs = [&[("__name__", "sparse")], pairs].concat();
        put(storage, &pairs, (0..3).map(|t| (NOW_MS + t * 1000 + i as i64, (i * 10) as f64 + t as f64)));
    }
    let gone =
        [(NOW_MS, 1.0), (NOW_MS + 1000, stale_nan()), (NOW_MS + 2000, 3.0), (NOW_MS + 3000, stale_nan())];
    put(storage, &[("__name__", "comes_and_goes")], gone);
    put(storage, &[("__name__", "old")], [(-1, 1.0), (0, 2.0), (1, 3.0), (951_782_400_000, 4.0)]);
}

/// Ten minutes, a sample every 15 s; cpu 1 restarts after five.
fn counters(storage: &MemoryStorage) {
    for (cpu, mode, per_second) in
        [("0", "idle", 0.75), ("0", "user", 0.25), ("1", "idle", 0.5), ("1", "user", 0.5)]
    {
        let pairs = [("__name__", "cpu_seconds_total"), ("cpu", cpu), ("mode", mode)];
        let sample = |i: i64| {
            let since = if cpu == "1" && i >= 20 { i - 20 } else { i };
            (NOW_MS - 600_000 + i * 15_000, since as f64 * 15.0 * per_second)
        };
        put(storage, &pairs, (0..=40).map(sample));
    }
}

/// A series that was a float and became a histogram; histograms with custom buckets.
fn histograms(storage: &MemoryStorage) {
    let labels = Labels::from_pairs([("__name__", "mixed"), ("histogram", "h"), ("job", "a")]);
    storage.append(&labels, NOW_MS - 120_000, 7.0).expect("in order");
    for (minute, count) in [(1, 4.0), (0, 8.0)] {
        let histogram = FloatHistogram {
            count,
            sum: count * 1.5,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![count / 4.0, count * 3.0 / 4.0],
            ..FloatHistogram::default()
        };
        storage.append_histogram(&labels, NOW_MS - minute * 60_000, 0, &histogram).expect("in order");
    }
}
