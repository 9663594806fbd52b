//! The series that live tests and `docs/sql.md` talk about: two hours of two jobs, a sample a minute.

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
    storage
}
