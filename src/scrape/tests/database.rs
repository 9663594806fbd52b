//! Scrapes into a real database.

use promontory_tsdb::{Clock as _, Db, DbOptions, Matcher, Queryable, SystemClock};

use super::*;

#[test]
fn pages_are_in_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(DbOptions::new(dir.path())).unwrap();
    let config = Arc::new(job(""));
    let target = target(&config, "host:80");
    let mut ingest = Ingest::new(config, target, Arc::default());
    let storage: Arc<dyn Storage> = Arc::clone(&db) as _;
    let base = 1_700_000_000_000;
    for (i, body) in ["a 1\nb 1\n", "a 2\nb 2\n", "a 3\n", "a 4\nbroken\n"].iter().enumerate() {
        let page = Fetched::Page { body: body.as_bytes(), content_type: "text/plain" };
        let t = base + 1000 * i64::try_from(i).unwrap();
        let _ = ingest.store(&storage, page, t, || std::time::Duration::ZERO);
    }
    let samples = |name: &str| {
        let stats = db.series_stats(&[Matcher::eq("__name__", name)], base, base + 10_000).unwrap();
        (stats.series, stats.samples)
    };
    // Three values and a stale marker, two and one, and `up` each time.
    assert_eq!(samples("a"), (1, 4));
    assert_eq!(samples("b"), (1, 3));
    assert_eq!(samples("up"), (1, 4));
    assert_eq!(db.head_stats().series, 7);
    db.close().unwrap();
}

#[test]
fn one_timestamp_far_ahead_is_dropped_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(DbOptions::new(dir.path())).unwrap();
    let config = Arc::new(job(""));
    let target = target(&config, "host:80");
    let counters = Arc::<Counters>::default();
    let mut ingest = Ingest::new(config, target, Arc::clone(&counters));
    let storage: Arc<dyn Storage> = Arc::clone(&db) as _;
    let now = SystemClock.now_ms();
    for t in [now - 1000, now] {
        let body = format!("ahead 1 {}\nplain 1\n", now + 3_600_000);
        let page = Fetched::Page { body: body.as_bytes(), content_type: "text/plain" };
        ingest.store(&storage, page, t, || std::time::Duration::ZERO).unwrap();
    }
    let samples =
        |name: &str| db.series_stats(&[Matcher::eq("__name__", name)], i64::MIN, i64::MAX).unwrap().samples;
    assert_eq!((samples("ahead"), samples("plain"), samples("up")), (0, 2, 2));
    assert_eq!(counters.snapshot().samples_out_of_bounds, 2);
}
