//! What pages leave in the storage.

use super::*;

fn counts(scraped: u64, kept: u64, series_added: u64) -> std::result::Result<Counts, String> {
    Ok(Counts { scraped, kept, series_added })
}

#[test]
fn a_page_becomes_samples_and_report_series() {
    let mut pages = Pages::new("");
    assert_eq!(pages.scrape("# TYPE a counter\na{x=\"1\"} 5\nb 7\n"), counts(2, 2, 2));
    assert_eq!(pages.scrape("a{x=\"1\"} 6\nb 7\n"), counts(2, 2, 0));
    let all: Vec<(String, String)> = pages.samples.show("").into_iter().collect();
    let want = [
        (r#"{__name__="a", instance="host:80", job="j", x="1"}"#, "1000=5 2000=6"),
        (r#"{__name__="b", instance="host:80", job="j"}"#, "1000=7 2000=7"),
        (r#"{__name__="scrape_duration_seconds", instance="host:80", job="j"}"#, "1000=0.25 2000=0.25"),
        (
            r#"{__name__="scrape_samples_post_metric_relabeling", instance="host:80", job="j"}"#,
            "1000=2 2000=2",
        ),
        (r#"{__name__="scrape_samples_scraped", instance="host:80", job="j"}"#, "1000=2 2000=2"),
        (r#"{__name__="scrape_series_added", instance="host:80", job="j"}"#, "1000=2 2000=0"),
        (r#"{__name__="up", instance="host:80", job="j"}"#, "1000=1 2000=1"),
    ];
    assert_eq!(all, want.map(|(l, s)| (l.to_owned(), s.to_owned())));
    assert_eq!(pages.ingest.cached(), 2);
}

#[test]
fn extra_report_series_come_on_demand() {
    let mut pages = Pages::new("  extra_scrape_metrics: true\n  sample_limit: 9\n  scrape_timeout: 5s\n");
    pages.scrape("a 1\n").unwrap();
    let over = Fetched::Failed { reason: "x".to_owned(), over_body_limit: true };
    pages.store(over).unwrap_err();
    pages.fail();
    assert_eq!(pages.report("scrape_timeout_seconds"), "1000=5 2000=5 3000=5");
    assert_eq!(pages.report("scrape_sample_limit"), "1000=9 2000=9 3000=9");
    assert_eq!(pages.report("scrape_body_size_bytes"), "1000=4 2000=-1 3000=0");
}

#[test]
fn a_vanished_series_gets_one_stale_marker() {
    let mut pages = Pages::new("");
    pages.scrape("a 1\nb 1\n").unwrap();
    pages.scrape("a 2\n").unwrap();
    pages.scrape("a 3\n").unwrap();
    pages.scrape("b 4\na 4\n").unwrap();
    assert_eq!(pages.samples.one("\"a\""), "1000=1 2000=2 3000=3 4000=4");
    assert_eq!(pages.samples.one("\"b\""), "1000=1 2000=stale 4000=4");
    assert_eq!(pages.report("scrape_series_added"), "1000=2 2000=0 3000=0 4000=1");
}

#[test]
fn a_failed_scrape_ends_every_series() {
    let mut pages = Pages::new("");
    pages.scrape("a 1\nb 1\n").unwrap();
    pages.fail();
    pages.fail();
    pages.scrape("a 4\n").unwrap();
    assert_eq!(pages.samples.one("\"a\""), "1000=1 2000=stale 4000=4");
    assert_eq!(pages.samples.one("\"b\""), "1000=1 2000=stale");
    assert_eq!(pages.report("up"), "1000=1 2000=0 3000=0 4000=1");
    assert_eq!(pages.report("scrape_samples_scraped"), "1000=2 2000=0 3000=0 4000=1");
}

#[test]
fn a_page_that_cannot_be_read_leaves_nothing_but_stale_markers() {
    let mut pages = Pages::new("");
    pages.scrape("a 1\nb 1\n").unwrap();
    let error = pages.scrape("a 2\nb 2\nc 2\n7&-\n").unwrap_err();
    assert!(error.starts_with("line 4: expected a valid start token"), "{error}");
    assert_eq!(pages.samples.one("\"a\""), "1000=1 2000=stale");
    assert_eq!(pages.samples.one("\"b\""), "1000=1 2000=stale");
    assert!(pages.samples.show("\"c\"").is_empty());
    pages.scrape("a 3\n").unwrap();
    assert_eq!(pages.samples.one("\"a\""), "1000=1 2000=stale 3000=3");
    assert_eq!(pages.report("up"), "1000=1 2000=0 3000=1");
    let error = pages.scrape("x{a=} 1\n").unwrap_err();
    assert!(error.starts_with("line 1: expected label value"), "{error}");
}

#[test]
fn an_empty_page_is_a_good_scrape_without_series() {
    let mut pages = Pages::new("");
    pages.scrape("a 1\n").unwrap();
    assert_eq!(pages.scrape(""), counts(0, 0, 0));
    assert_eq!(pages.samples.one("\"a\""), "1000=1 2000=stale");
    assert_eq!(pages.report("up"), "1000=1 2000=1");
}

#[test]
fn unknown_content_types_fail_without_a_fallback() {
    let page = |content_type| Fetched::Page { body: b"a 1\n", content_type };
    let mut pages = Pages::new("");
    let error = pages.store(page("text/html")).unwrap_err();
    assert!(error.starts_with("received unsupported Content-Type \"text/html\""), "{error}");
    assert_eq!(pages.report("up"), "1000=0");
    let mut pages = Pages::new("  fallback_scrape_protocol: PrometheusText0.0.4\n");
    pages.store(page("text/html")).unwrap();
    pages.store(page("")).unwrap();
    assert_eq!(pages.samples.one("\"a\""), "1000=1 2000=1");
    // OpenMetrics must end with its marker.
    pages.store(page("application/openmetrics-text")).unwrap_err();
}

#[test]
fn target_labels_win_unless_honored() {
    let page = "a{job=\"x\",instance=\"i\",exported_job=\"y\"} 1\n";
    let mut pages = Pages::new("");
    pages.scrape(page).unwrap();
    assert_eq!(
        pages.samples.show("\"a\"").into_keys().next().unwrap(),
        r#"{__name__="a", exported_exported_job="x", exported_instance="i", exported_job="y", instance="host:80", job="j"}"#
    );
    let mut pages = Pages::new("  honor_labels: true\n");
    pages.scrape(page).unwrap();
    pages.scrape("b{job=\"\"} 1\n").unwrap();
    assert_eq!(
        pages.samples.show("\"a\"").into_keys().next().unwrap(),
        r#"{__name__="a", exported_job="y", instance="i", job="x"}"#
    );
    assert_eq!(
        pages.samples.show("\"b\"").into_keys().next().unwrap(),
        r#"{__name__="b", instance="host:80", job="j"}"#
    );
}

#[test]
fn own_timestamps_are_honored_and_not_tracked() {
    let mut pages = Pages::new("");
    pages.scrape("a 1 500\nb 1\n").unwrap();
    pages.scrape("").unwrap();
    assert_eq!(pages.samples.one("\"a\""), "500=1");
    assert_eq!(pages.samples.one("\"b\""), "1000=1 2000=stale");

    let mut pages = Pages::new("  honor_timestamps: false\n");
    pages.scrape("a 1 500\n").unwrap();
    pages.scrape("").unwrap();
    assert_eq!(pages.samples.one("\"a\""), "1000=1 2000=stale");

    let mut pages = Pages::new("  track_timestamps_staleness: true\n");
    pages.scrape("a 1 500\n").unwrap();
    pages.scrape("").unwrap();
    assert_eq!(pages.samples.one("\"a\""), "500=1 2000=stale");
}

#[test]
fn refused_samples_are_dropped_one_by_one() {
    let mut pages = Pages::new("");
    pages.scrape("a 1 900\nb 1\nc 1 1\n").unwrap();
    assert_eq!(pages.scrape("a 2 800\nb 2\nc 9 1\nd 1 2000000000\n"), counts(4, 4, 0));
    assert_eq!(pages.samples.one("\"a\""), "900=1");
    assert_eq!(pages.samples.one("\"b\""), "1000=1 2000=2");
    assert_eq!(pages.report("up"), "1000=1 2000=1");
    let metrics = pages.counters.snapshot();
    assert_eq!(
        (metrics.samples_out_of_order, metrics.samples_duplicate, metrics.samples_out_of_bounds),
        (1, 1, 1)
    );
}

#[test]
fn a_series_twice_on_a_page_counts_once() {
    let mut pages = Pages::new("");
    assert_eq!(pages.scrape("a 1\na 2\n"), counts(2, 2, 1));
    assert_eq!(pages.samples.one("\"a\""), "1000=1");
    assert_eq!(pages.counters.snapshot().samples_duplicate, 1);
    // With timestamps of their own they are different samples.
    assert_eq!(pages.scrape("b 1 1\nb 2 2\n"), counts(2, 2, 1));
    assert_eq!(pages.samples.one("\"b\""), "1=1 2=2");
}

#[test]
fn metric_relabelling_drops_and_renames() {
    let mut pages = Pages::new(
        "  metric_relabel_configs:\n  - {action: drop, source_labels: [__name__], regex: 'drop_.*'}\n\
         \x20 - {action: labeldrop, regex: tmp}\n  - {source_labels: [__name__], regex: 'old', target_label: __name__, replacement: new}\n",
    );
    for _ in 0..2 {
        pages.scrape("drop_a 1\nold{tmp=\"x\"} 2\nkeep 3\n").unwrap();
    }
    assert!(pages.samples.show("drop_a").is_empty());
    assert_eq!(pages.samples.one("\"new\""), "1000=2 2000=2");
    assert_eq!(pages.report("scrape_samples_scraped"), "1000=3 2000=3");
    assert_eq!(pages.report("scrape_samples_post_metric_relabeling"), "1000=2 2000=2");
    assert_eq!(pages.ingest.cached(), 3);
}

#[test]
fn relabelling_may_not_take_the_name_away() {
    let mut pages = Pages::new("  metric_relabel_configs:\n  - {action: labeldrop, regex: __name__}\n");
    assert_eq!(pages.scrape("a 1\n").unwrap_err(), "missing metric name (__name__ label)");
    let mut pages = Pages::new("  metric_name_validation_scheme: legacy\n");
    assert!(pages.scrape("{\"a.b\"} 1\n").unwrap_err().starts_with("invalid metric name or label names: "));
}

#[test]
fn limits_fail_the_whole_scrape() {
    for (keys, want) in [
        ("  sample_limit: 2\n", "sample limit exceeded"),
        ("  label_limit: 3\n", "label_limit exceeded (metric: c, number of labels: 4, limit: 3)"),
        (
            "  label_name_length_limit: 8\n",
            "label_name_length_limit exceeded (metric: c, label name: long_name, length: 9, limit: 8)",
        ),
        (
            "  label_value_length_limit: 9\n",
            "label_value_length_limit exceeded (metric: c, label name: long_name, value: \"long value\", length: 10, limit: 9)",
        ),
    ] {
        let mut pages = Pages::new(keys);
        pages.scrape("a 1\nb 1\n").unwrap();
        assert_eq!(pages.scrape("a 2\nb 2\nc{long_name=\"long value\"} 2\n").unwrap_err(), want);
        assert_eq!(pages.samples.one("\"a\""), "1000=1 2000=stale", "{keys}");
        assert_eq!(pages.samples.one("\"b\""), "1000=1 2000=stale", "{keys}");
        assert_eq!(pages.report("up"), "1000=1 2000=0");
        assert_eq!(pages.report("scrape_samples_scraped"), "1000=2 2000=3");
    }
}

#[test]
fn metadata_is_kept_per_target() {
    let config = Arc::new(job(""));
    let target = target(&config, "host:80");
    let mut ingest = Ingest::new(config, Arc::clone(&target), Arc::default());
    let storage: Arc<dyn Storage> = Arc::new(Samples::default());
    let body = b"# HELP a_seconds Some \\\"help\\\".\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total 1\n# EOF\n";
    let page = Fetched::Page { body, content_type: "application/openmetrics-text; version=1.0.0" };
    ingest.store(&storage, page, 1, || std::time::Duration::ZERO).unwrap();
    let list = target.metadata.list();
    assert_eq!(list.len(), 1);
    let (name, metadata) = &list[0];
    assert_eq!(
        (name.as_str(), metadata.metric_type.as_str(), metadata.help.as_str(), metadata.unit.as_str()),
        ("a_seconds", "counter", "Some \"help\".", "seconds")
    );
}

#[test]
fn a_removed_target_ends_with_its_report_series() {
    let mut pages = Pages::new("");
    pages.scrape("a 1\n").unwrap();
    let storage: Arc<dyn Storage> = Arc::clone(&pages.samples) as _;
    pages.ingest.end_target(&storage, 1500);
    assert_eq!(pages.samples.one("\"a\""), "1000=1 1500=stale");
    assert_eq!(pages.report("up"), "1000=1 1500=stale");
    // A target that is back has newer samples; the markers are refused.
    pages.ingest.end_target(&storage, 1200);
    assert_eq!(pages.report("up"), "1000=1 1500=stale");
}
