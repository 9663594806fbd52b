//! Finding series: one of a million, and those whose label matches a regular expression, of 100,000 values.
//!
//! Each in a head and in a block with the same series. `one_of_a_million` opens the selection and decodes its sample;
//! `regex` resolves postings alone, divide by 100,000 for time per value.

#![expect(missing_docs, reason = "made by the macro")]

use std::cell::LazyCell;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use futures::StreamExt as _;
use promontory_tsdb::block::Block;
use promontory_tsdb::{Db, DbOptions, Labels, MatchOp, Matcher, Queryable, SelectHints, SeriesRef};

const SERIES: usize = 1_000_000;
const VALUES: usize = 100_000;

/// As an instrumented service in Kubernetes: 500 metrics of 20 handlers on 100 pods.
fn of_a_million(i: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("http_server_request_duration_{:03}_seconds_bucket", i % 500)),
        ("cluster", "production-eu-west-1".to_owned()),
        ("handler", format!("/api/v1/projects/:id/handler-{:02}", i / 500 % 20)),
        ("instance", format!("10.{}.{}.{}:9090", i / 10_000 / 256, i / 10_000 % 256, 17)),
        ("job", format!("kubernetes-pods-{}", i % 20)),
        ("pod", format!("checkout-service-7d9c5b6f4-{:05x}", i / 10_000 * 7919)),
    ])
}

/// One series for each of 100,000 pods of 50 services.
fn of_a_pod(i: usize) -> Labels {
    const SERVICES: [&str; 5] = ["checkout", "frontend", "inventory", "payments", "search"];
    let service = format!("{}-{}", SERVICES[i % 5], ["blue", "canary", "green"][i / 5 % 10 % 3]);
    let spread = (i as u32).wrapping_mul(2_654_435_761);
    Labels::from_pairs([
        ("__name__", "up".to_owned()),
        ("job", service.clone()),
        ("pod", format!("{service}-{spread:08x}-{i:05}")),
    ])
}

/// A head, and a block of the same series. They are made when the first bench that needs them runs.
struct Sources {
    head: Arc<Db>,
    block: Block,
    _dir: tempfile::TempDir,
}

impl Sources {
    fn get(&self, head: bool) -> &dyn Queryable {
        if head { &*self.head } else { &self.block }
    }
}

fn sources(labels: fn(usize) -> Labels, series: usize) -> Sources {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(DbOptions::new(dir.path().join("head"))).expect("an empty directory opens");
    for from in (0..series).step_by(10_000) {
        let mut appender = db.appender();
        for i in from..(from + 10_000).min(series) {
            appender.append(SeriesRef(0), &labels(i), 1_700_000_000_000, i as f64).expect("in order");
        }
        appender.commit().expect("the disk takes it");
    }
    db.snapshot(&dir.path().join("blocks"), true).expect("the disk takes it");
    let block = std::fs::read_dir(dir.path().join("blocks")).expect("the snapshot").next();
    let block = Block::open(&block.expect("one block").expect("a name").path()).expect("a sound block");
    Sources { head: db, block, _dir: dir }
}

fn read(source: &dyn Queryable, matchers: &[Matcher]) -> usize {
    let selection = source.select(matchers, 0, i64::MAX, &SelectHints::default()).expect("selects");
    let mut samples = 0;
    for mut partition in selection.partitions {
        while let Some(batch) = futures::executor::block_on(partition.next()) {
            samples += batch.expect("decodes").values.len();
        }
    }
    samples
}

fn one_of_a_million(c: &mut Criterion) {
    let sources = LazyCell::new(|| sources(of_a_million, SERIES));
    let wanted = of_a_million(637_409);
    let all = wanted.iter().map(|(name, value)| Matcher::eq(name, value)).collect::<Vec<_>>();
    let few = all
        .iter()
        .filter(|m| ["__name__", "handler", "pod"].contains(&m.name()))
        .cloned()
        .collect::<Vec<_>>();
    let mut group = c.benchmark_group("one_of_a_million");
    for in_head in [true, false] {
        for (kind, matchers) in [("all labels", &all), ("three labels", &few)] {
            let name = if in_head { "head" } else { "block" };
            group.bench_function(format!("{name}/{kind}"), |b| {
                let source = sources.get(in_head);
                assert_eq!(read(source, matchers), 1);
                b.iter(|| read(source, black_box(matchers)));
            });
        }
    }
    group.finish();
}

/// Name, operator, expression.
const EXPRESSIONS: [(&str, MatchOp, &str); 11] = [
    ("equal", MatchOp::Eq, "checkout-blue-00000000-00000"),
    ("set", MatchOp::Re, "checkout-blue-00000000-00000|search-green-x|up"),
    ("prefix", MatchOp::Re, "checkout-canary-00.*"),
    ("prefixes", MatchOp::Re, "checkout-canary-00.*|search-blue-ff.+"),
    ("prefix then class", MatchOp::Re, "payments-blue-[0-9a-f]{6}00-.*"),
    ("literal inside", MatchOp::Re, ".*-canary-00.*"),
    ("literals inside", MatchOp::Re, ".*canary-.*00-.*6"),
    ("suffix", MatchOp::Re, ".*-00123"),
    ("alternation inside", MatchOp::Re, ".*-(00123|00456)"),
    ("any case", MatchOp::Re, "(?i)CHECKOUT-canary-00.*"),
    ("not literal inside", MatchOp::Nre, ".*(e|a)-.*"),
];

fn regex(c: &mut Criterion) {
    let sources = LazyCell::new(|| sources(of_a_pod, VALUES));
    let mut group = c.benchmark_group("regex");
    for (kind, op, expression) in EXPRESSIONS {
        let matchers = [Matcher::new(op, "pod", expression).expect("a sound expression")];
        let plain = regex::Regex::new(&format!("^(?s:{expression})$")).expect("a sound expression");
        let matching = LazyCell::new(|| {
            let all = (0..VALUES).map(|i| plain.is_match(of_a_pod(i).get("pod").expect("each has one")));
            all.filter(|is_match| *is_match == (op != MatchOp::Nre)).count()
        });
        for in_head in [true, false] {
            let name = if in_head { "head" } else { "block" };
            group.bench_function(format!("{name}/{kind}"), |b| {
                let source = sources.get(in_head);
                let find = || source.series_estimate(&matchers, 0, i64::MAX).expect("selects");
                assert_eq!(find(), *matching as u64, "{expression}");
                b.iter(find);
            });
        }
    }
    group.finish();
}

criterion_group!(benches, one_of_a_million, regex);
criterion_main!(benches);
