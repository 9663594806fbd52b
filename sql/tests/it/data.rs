//! The series that live tests, `docs/sql.md` and `docs/sql-functions.md` talk about: two hours of two jobs, a sample a
//! minute.

use promontory_tsdb::histogram::{FloatHistogram, Span};
use promontory_tsdb::memory::MemoryStorage;
use promontory_tsdb::{Labels, stale_nan};

/// 2026-01-01T12:00:00Z, the time that the clock shows.
pub(crate) const NOW_MS: i64 = 1_767_268_800_000;
const MINUTE_MS: i64 = 60_000;
const MINUTES: i64 = 120;

/// Everything.
pub(crate) fn storage() -> MemoryStorage {
    let storage = MemoryStorage::new();
    let series = |pairs: &[(&str, &str)], value: &dyn Fn(i64) -> f64| {
        let labels = Labels::from_pairs(pairs.iter().copied());
        for minute in 0..=MINUTES {
            let t = NOW_MS - (MINUTES - minute) * MINUTE_MS;
            storage.append(&labels, t, value(minute)).expect("samples come in order");
        }
    };
    for (instance, down_at) in [("a:9100", -1), ("b:9100", 90)] {
        let up = move |minute: i64| f64::from(u8::from(minute != down_at));
        series(&[("__name__", "up"), ("instance", instance), ("job", "node")], &up);
    }
    series(&[("__name__", "up"), ("instance", "api:8080"), ("job", "api"), ("env", "prod")], &|_| 1.0);
    for (code, per_minute) in [("200", 60.0), ("500", 0.5)] {
        series(
            &[("__name__", "http_requests_total"), ("code", code), ("instance", "api:8080"), ("job", "api")],
            &|minute| minute as f64 * per_minute,
        );
    }
    // The names and values that are hard to get right.
    series(
        &[
            ("__name__", "Odd:Metric"),
            ("timestamp", "monday"),
            ("value", "x"),
            ("Job", "upper"),
            ("a.b", "dot"),
        ],
        &|minute| match minute {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            3 => 1e100,
            4 => stale_nan(),
            5 => -0.1,
            _ => minute as f64,
        },
    );
    for (job, mebibytes) in [("api", 400.0), ("node", 60.0)] {
        series(&[("__name__", "memory_bytes"), ("job", job)], &|minute| {
            (mebibytes + (minute % 17) as f64) * 1024.0 * 1024.0
        });
    }
    histograms(&storage);
    sensor(&storage);
    storage
}

/// The same requests as classic buckets and as native histograms: each minute `api` answers six, `node` three.
fn histograms(storage: &MemoryStorage) {
    for (job, counts) in [("api", [3.0, 2.0, 1.0]), ("node", [1.0, 1.0, 1.0])] {
        for minute in 0..=MINUTES {
            let (t, minutes) = (NOW_MS - (MINUTES - minute) * MINUTE_MS, minute as f64);
            let mut cumulative = 0.0;
            for (le, count) in [("0.25", counts[0]), ("0.5", counts[1]), ("1", counts[2]), ("+Inf", 0.0)] {
                cumulative += count;
                let labels = [("__name__", "request_seconds_bucket"), ("job", job), ("le", le)];
                let labels = Labels::from_pairs(labels);
                storage.append(&labels, t, minutes * cumulative).expect("samples come in order");
            }
            let histogram = FloatHistogram {
                count: minutes * cumulative,
                sum: minutes * (counts[0] * 0.2 + counts[1] * 0.4 + counts[2] * 0.8),
                zero_threshold: 0.001,
                positive_spans: vec![Span { offset: -2, length: 3 }],
                positive_buckets: counts.map(|count| minutes * count).to_vec(),
                ..FloatHistogram::default()
            };
            let labels = Labels::from_pairs([("__name__", "rpc_seconds"), ("job", job)]);
            storage.append_histogram(&labels, t, 0, &histogram).expect("samples come in order");
        }
    }
}

/// A sensor that was silent for half an hour.
fn sensor(storage: &MemoryStorage) {
    let labels = Labels::from_pairs([("__name__", "sensor_celsius"), ("room", "attic")]);
    for minute in (0..=MINUTES).filter(|minute| !(71..=100).contains(minute)) {
        let t = NOW_MS - (MINUTES - minute) * MINUTE_MS;
        storage.append(&labels, t, 20.0 + (minute / 10) as f64 / 4.0).expect("samples come in order");
    }
}
