//! How fast pages are read: `cargo bench --bench exposition`.
//!
//! The page is what an application with a few hundred handlers shows: counters, a histogram, a
//! summary. `first` makes the labels of every series, as the first scrape of a target does; `again`
//! only reads values, in an order that is not known; `expected` is told what comes next, as a
//! scraper is from the second scrape on.

#![expect(missing_docs, reason = "made by the macro")]

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use promontory::exposition::{Entry, Format, Parser};
use promontory_tsdb::LabelsBuilder;

/// About 4,000 series.
fn page() -> String {
    let mut page = String::new();
    page.push_str(
        "# HELP http_requests_total Requests by handler and code.\n# TYPE http_requests_total counter\n",
    );
    for i in 0..2000 {
        let (handler, code) = (i / 4, [200, 204, 404, 500][i % 4]);
        let _ = writeln!(
            page,
            "http_requests_total{{handler=\"/api/v1/resource/{handler}\",method=\"GET\",code=\"{code}\"}} {}",
            i * 7919
        );
    }
    page.push_str(
        "# HELP http_request_duration_seconds Latency.\n# TYPE http_request_duration_seconds histogram\n",
    );
    for handler in 0..150 {
        for (i, le) in
            ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "+Inf"].iter().enumerate()
        {
            let _ = writeln!(
                page,
                "http_request_duration_seconds_bucket{{handler=\"/api/v1/resource/{handler}\",le=\"{le}\"}} {}",
                i * handler
            );
        }
        let _ = writeln!(
            page,
            "http_request_duration_seconds_sum{{handler=\"/api/v1/resource/{handler}\"}} {}",
            f64::from(handler as u16) * 1.618_033_988
        );
        let _ = writeln!(
            page,
            "http_request_duration_seconds_count{{handler=\"/api/v1/resource/{handler}\"}} {handler}"
        );
    }
    page.push_str("# TYPE go_gc_duration_seconds summary\n");
    for q in ["0", "0.25", "0.5", "0.75", "1"] {
        let _ = writeln!(page, "go_gc_duration_seconds{{quantile=\"{q}\"}} 4.9351e-05");
    }
    page.push_str(
        "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 8.4697088e+07\n",
    );
    page
}

fn values(parser: Parser<'_>) -> f64 {
    parser
        .map(|entry| match entry.expect("the page is sound") {
            Entry::Series(series) => series.value,
            _ => 0.0,
        })
        .sum()
}

fn exposition(c: &mut Criterion) {
    let text = page();
    let open_metrics = format!("{text}# EOF\n");
    for (format, page) in [(Format::PrometheusText, &text), (Format::OpenMetrics, &open_metrics)] {
        let body = page.as_bytes();
        let mut group = c.benchmark_group(format!("exposition/{format:?}"));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function("first", |b| {
            b.iter(|| {
                for entry in Parser::new(format, body) {
                    if let Entry::Series(series) = entry.expect("the page is sound") {
                        let mut builder = LabelsBuilder::default();
                        series.labels_into(&mut builder).expect("the page is sound");
                        black_box(builder.build());
                    }
                }
            });
        });
        group.bench_function("again", |b| b.iter(|| values(Parser::new(format, body))));
        let texts: Vec<&[u8]> = Parser::new(format, body)
            .filter_map(|entry| match entry {
                Ok(Entry::Series(series)) => Some(series.text),
                _ => None,
            })
            .collect();
        group.bench_function("expected", |b| {
            b.iter(|| {
                let mut parser = Parser::new(format, body);
                let mut next = 0;
                let mut sum = 0.0;
                while let Some(entry) = parser.next_expecting(texts.get(next).copied().unwrap_or_default()) {
                    if let Entry::Series(series) = entry.expect("the page is sound") {
                        sum += series.value;
                        next += 1;
                    }
                }
                sum
            });
        });
        group.finish();
    }
}

criterion_group!(benches, exposition);
criterion_main!(benches);
