//! Cost of one sample on its way in: check, log record, write, head.
//!
//! `cargo bench -p promontory-tsdb --bench append`
#![expect(missing_docs, reason = "made by the macro")]

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use promontory_tsdb::{Db, DbOptions, Labels, SeriesRef};

const SERIES: usize = 1000;

fn labels(i: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", "http_requests_total".to_owned()),
        ("code", [200, 404, 500][i % 3].to_string()),
        ("handler", format!("/api/v1/handler/{}", i % 97)),
        ("instance", format!("10.0.{}.{}:9090", i / 256 % 256, i % 256)),
        ("job", "api".to_owned()),
        ("method", ["get", "post"][i % 2].to_owned()),
    ])
}

fn scrape(db: &Arc<Db>, sets: &[Labels], refs: &mut [SeriesRef], t: i64) {
    let mut appender = db.appender();
    for (i, (set, known)) in sets.iter().zip(refs).enumerate() {
        let value = (t / 15_000 * (i as i64 % 50 + 1)) as f64;
        *known = appender.append(*known, set, t, value).expect("in order");
    }
    appender.commit().expect("the disk takes it");
}

fn append(c: &mut Criterion) {
    let sets = (0..SERIES).map(labels).collect::<Vec<_>>();
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(SERIES as u64)).sample_size(20);
    for (name, keep_refs) in [("known refs", true), ("by labels", false)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let db = Db::open(DbOptions::new(dir.path())).expect("an empty directory opens");
        let mut refs = vec![SeriesRef(0); SERIES];
        let mut t = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                t += 15_000;
                if !keep_refs {
                    refs.fill(SeriesRef(0));
                }
                scrape(&db, &sets, &mut refs, t);
            });
        });
        db.close().expect("closes");
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
