//! Answers with the cache are those without it, whatever becomes of the data in between.

use std::sync::Arc;

use promontory_tsdb::histogram::HistogramValue;
use promontory_tsdb::{Db, DbOptions, Labels, MatchOp, Matcher, Queryable, SeriesRef};
use proptest::prelude::*;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::engine::Engine;
use crate::params::EngineOptions;
use crate::parser::{ParserOptions, parse};
use crate::value::{QueryResult, QueryValue};

const SCRAPE_MS: i64 = 30_000;
const SERIES: usize = 5;

const QUERIES: [&str; 20] = [
    "m_total",
    "sum by (a) (rate(m_total[2m]))",
    "max_over_time(m_total[3m])",
    "sum(rate(m_total[2m])) / count(m_total)",
    "avg_over_time(sum(m_total)[4m:30s])",
    "max_over_time(rate(m_total[2m])[3m:45s])",
    "m_total offset 2m",
    "m_total offset -1m",
    "increase(m_total[1m] offset -90s)",
    "topk(1, m_total)",
    "absent(m_total{a=\"1\"})",
    "rate(m_total[90s]) or vector(1)",
    "count_values(\"v\", m_total > 20)",
    "m_total smoothed",
    "increase(m_total[2m] anchored)",
    "timestamp(m_total) - time()",
    "quantile(0.5, m_total) unless on () vector(scalar(m_total{a=\"0\"}) > 30)",
    // Not kept; the answers are right all the same.
    "sum(m_total @ end())",
    "rate({__name__=~\"m_total|n_total\"}[2m])",
    "histogram_count(m_total)",
];

#[derive(Debug, Clone)]
enum Event {
    /// Some scrapes go by.
    Scrapes(usize),
    /// A sample comes late, so many scrapes back.
    Late {
        series: usize,
        back: i64,
        histogram: bool,
    },
    Delete {
        series: usize,
        back: i64,
        length: i64,
    },
    Maintain,
    CleanTombstones,
    /// The cache forgets.
    Forget,
    Query {
        query: usize,
        back: i64,
        length: i64,
        step: usize,
    },
    /// The last query again, with the present end.
    Refresh,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1usize..12).prop_map(Event::Scrapes),
        2 => (0..SERIES, 0i64..30, prop::bool::weighted(0.05))
            .prop_map(|(series, back, histogram)| Event::Late { series, back, histogram }),
        1 => (0..SERIES, 0i64..60, 0i64..10)
            .prop_map(|(series, back, length)| Event::Delete { series, back, length }),
        1 => Just(Event::Maintain),
        1 => Just(Event::CleanTombstones),
        1 => Just(Event::Forget),
        3 => (0..QUERIES.len(), -3i64..40, 8i64..80, 0usize..3)
            .prop_map(|(query, back, length, step)| Event::Query { query, back, length, step }),
        8 => Just(Event::Refresh),
    ]
}

struct World {
    db: Arc<Db>,
    kept: Engine,
    plain: Engine,
    runtime: Runtime,
    now: i64,
    values: [f64; SERIES],
    last: Option<(usize, i64, i64)>,
}

impl World {
    fn new(dir: &std::path::Path) -> Self {
        let mut options = DbOptions::new(dir);
        options.block_range_ms = 600_000;
        options.out_of_order_window_ms = 1_200_000;
        options.retention_ms = Some(3_600_000);
        // One partition: the last digits of a sum depend on the order of addition.
        let options_of = |cache_bytes| EngineOptions {
            cache_bytes,
            partitions: 1,
            tile_steps: 8,
            parser: ParserOptions::all(),
            ..EngineOptions::default()
        };
        Self {
            db: Db::open(options).unwrap(),
            kept: Engine::new(options_of(1 << 20)),
            plain: Engine::new(options_of(0)),
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap(),
            now: 1_000_000_000_000,
            values: [0.0; SERIES],
            last: None,
        }
    }

    fn labels(series: usize) -> Labels {
        Labels::from_pairs([
            ("__name__", "m_total"),
            ("a", &(series % 2).to_string()),
            ("b", &series.to_string()),
        ])
    }

    fn append(&self, series: usize, t: i64, v: f64) {
        let mut appender = self.db.appender();
        // Refused where it comes too late.
        let _ = appender.append(SeriesRef(0), &Self::labels(series), t, v);
        appender.commit().unwrap();
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Scrapes(n) => {
                for _ in 0..n {
                    self.now += SCRAPE_MS;
                    for series in 0..SERIES {
                        let v = &mut self.values[series];
                        *v = if *v > 90.0 {
                            0.0
                        } else {
                            *v + (self.now / SCRAPE_MS % 7) as f64 + series as f64
                        };
                        // Each at its own time; one misses scrapes.
                        if series != 3 || self.now / SCRAPE_MS % 5 > 1 {
                            self.append(series, self.now + series as i64 * 1_300, self.values[series]);
                        }
                    }
                }
            }
            Event::Late { series, back, histogram } => {
                let t = self.now - back * SCRAPE_MS - 7;
                if histogram {
                    let mut appender = self.db.appender();
                    let value = HistogramValue::Float(Arc::default());
                    let _ = appender.append_histogram(SeriesRef(0), &Self::labels(series), t, 0, value);
                    appender.commit().unwrap();
                } else {
                    self.append(series, t, -5.0);
                }
            }
            Event::Delete { series, back, length } => {
                let matcher = Matcher::new(MatchOp::Eq, "b", series.to_string()).unwrap();
                let mint = self.now - back * SCRAPE_MS;
                self.db.delete(&[matcher], mint, mint + length * SCRAPE_MS).unwrap();
            }
            Event::Maintain => drop(self.db.maintain().unwrap()),
            Event::CleanTombstones => drop(self.db.clean_tombstones().unwrap()),
            Event::Forget => self.kept.cache().unwrap().clear(),
            Event::Query { query, back, length, step } => {
                let step = [30_000, 60_000, 45_000][step];
                self.last = Some((query, length, step));
                self.query(query, back, length, step);
            }
            Event::Refresh => {
                if let Some((query, length, step)) = self.last {
                    self.query(query, 0, length, step);
                }
            }
        }
    }

    fn query(&self, query: usize, back: i64, length: i64, step: i64) {
        let end = (self.now - back * SCRAPE_MS).div_euclid(step) * step;
        let params = QueryParams::range(end - length * step, end, step);
        let ask = |engine: &Engine| {
            let source = Arc::clone(&self.db) as Arc<dyn Queryable>;
            let answer = engine.query(source, QUERIES[query], params, CancellationToken::new());
            // Bits, so that NaN is as good as any other value.
            let show = |result: QueryResult| {
                let QueryValue::Matrix(series) = result.value else { panic!("{:?}", result.value) };
                let bits =
                    |s: &RangeSeries| s.floats.iter().map(|(t, v)| (*t, v.to_bits())).collect::<Vec<_>>();
                let series: Vec<_> =
                    series.iter().map(|s| (s.labels.clone(), bits(s), s.histograms.clone())).collect();
                format!("{series:?} {:?} {:?}", result.warnings, result.infos)
            };
            self.runtime.block_on(answer).map(show).map_err(|e| e.to_string())
        };
        assert_eq!(ask(&self.kept), ask(&self.plain), "{} {params:?}", QUERIES[query]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn answers_are_those_without_a_cache(events in prop::collection::vec(event(), 10..80)) {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::new(dir.path());
        world.happen(&Event::Scrapes(20));
        events.iter().for_each(|event| world.happen(event));
    }
}

#[test]
fn a_refresh_computes_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path());
    world.happen(&Event::Scrapes(100));
    world.query(1, 0, 60, 60_000);
    let first = world.kept.cache().unwrap().stats();
    assert_eq!((first.misses, first.hits, first.steps_taken, first.entries), (1, 0, 0, 1));
    assert!(first.bytes > 60 * 8 * 2);
    world.happen(&Event::Scrapes(4));
    world.query(1, 0, 60, 60_000);
    let second = world.kept.cache().unwrap().stats();
    assert_eq!((second.misses, second.hits), (1, 1));
    // Two steps are new, and at one the samples of a scrape were not all there.
    assert!((57..=59).contains(&second.steps_taken), "{second:?}");
    world.happen(&Event::Maintain);
    world.query(1, 0, 60, 60_000);
    let third = world.kept.cache().unwrap().stats();
    assert_eq!(
        third.steps_taken - second.steps_taken,
        61,
        "moving samples to a block changes nothing: {third:?}"
    );
}

#[test]
fn results_go_when_there_is_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path());
    world.kept = Engine::new(EngineOptions { cache_bytes: 9_000, partitions: 1, ..EngineOptions::default() });
    world.happen(&Event::Scrapes(100));
    for length in [50, 60, 70] {
        world.query(1, 0, length, 60_000);
        world.query(2, 0, length, 60_000);
        world.query(0, 0, length, 60_000);
        world.query(6, 0, length, 60_000);
    }
    let stats = world.kept.cache().unwrap().stats();
    assert!(stats.evictions > 0 && stats.bytes <= 9_000, "{stats:?}");
}

#[track_caller]
fn check_reach(query: &str, expected: Option<(i64, i64)>) {
    let expr = parse(query, &ParserOptions::all()).unwrap();
    let got = reach(&expr, 300_000).map(|r| (r.before_ms, r.after_ms));
    // Durations are rounded up.
    let near =
        |(a, b): (i64, i64), (c, d): (i64, i64)| (0..8).contains(&(a - c)) && (0..8).contains(&(b - d));
    assert!(
        match (got, expected) {
            (Some(got), Some(expected)) => near(got, expected),
            (got, expected) => got == expected,
        },
        "{query}: {got:?}"
    );
}

#[test]
fn reach_is_as_far_as_a_step_looks() {
    let minute = 60_000;
    check_reach("m", Some((5 * minute, 0)));
    check_reach("rate(m[5m])", Some((10 * minute, 0)));
    check_reach("m offset 10m", Some((15 * minute, 0)));
    check_reach("m offset -10m", Some((5 * minute, 10 * minute)));
    check_reach("m smoothed", Some((5 * minute, 5 * minute)));
    check_reach("max_over_time(sum(rate(m[5m]))[30m:1m] offset 5m)", Some((45 * minute, 0)));
    check_reach("a / on (x) b offset 1h", Some((65 * minute, 0)));
    for not_kept in [
        "1",
        "time()",
        "m @ 5",
        "sum(m @ start())",
        "sort(m)",
        "m * start()",
        "limitk(2, m)",
        "info(m)",
        "rate({a=\"b\"}[5m])",
        "max_over_time((m > 1)[5m:])",
        "rate(m[range()])",
    ] {
        check_reach(not_kept, None);
    }
}
