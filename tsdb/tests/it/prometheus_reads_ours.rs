//! A real Prometheus and promtool read what we wrote, and we read what Prometheus makes of it.
//!
//! The peers are those of `peer.rs`. For a directory with all there is to write: `prometheus_reads_everything.rs`.

use promontory_tsdb::{Db, Labels, Queryable as _, SeriesRef};

use crate::peer::{
    Prometheus, assert_same, count, everything, exemplars, installed, peer, promtool, promtool_agrees,
    without_stale,
};
use crate::prometheus_fixtures::{fixtures, unpack};
use crate::support::{HOUR, START, fill, options, read_all, small_segments};

#[test]
fn promtool_dumps_a_log_and_then_blocks() {
    if !installed(&promtool()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(small_segments(dir.path())).unwrap();
    fill(&db, START, START + HOUR);
    // As after a crash: nothing is closed.
    promtool_agrees(dir.path(), &everything(&*db));
    fill(&db, START + HOUR, START + 7 * HOUR);
    let before = everything(&*db);
    let done = db.maintain().unwrap();
    assert!(done.blocks_cut.len() >= 2 && done.checkpoint.is_some(), "{done:?}");
    assert_same(&everything(&*db), &before);
    promtool_agrees(dir.path(), &before);
    db.close().unwrap();
    promtool_agrees(dir.path(), &before);
}

#[test]
fn prometheus_serves_our_directory_and_we_go_on_after_it() {
    if !installed(&peer()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut end = START;
    // First a log alone, then blocks, checkpoint and log; each time Prometheus runs in between.
    for hours in [1, 6] {
        let db = Db::open(small_segments(dir.path())).unwrap();
        fill(&db, end, end + hours * HOUR);
        end += hours * HOUR;
        db.maintain().unwrap();
        let ours = everything(&*db);
        db.close().unwrap();
        drop(db);
        let server = Prometheus::start(dir.path(), "2h");
        assert_same(&server.everything(end), &without_stale(&ours));
        server.stop();
        let db = Db::open(small_segments(dir.path())).unwrap();
        assert_same(&everything(&*db), &ours);
        assert_eq!(db.metrics().wal_corruptions, 0);
        println!("the same {} samples before, in and after Prometheus", count(&ours));
        db.close().unwrap();
    }
}

#[test]
fn prometheus_takes_its_directory_back() {
    let Some(fixtures) = fixtures().filter(|_| installed(&peer())) else { return };
    for name in ["clean", "crashed"] {
        let (_dir, data) = unpack(&fixtures, name);
        let mut options = options(&data);
        options.block_range_ms = 120_000;
        options.retention_ms = None;
        options.exemplars_max = 10_000;
        let db = Db::open(options.clone()).unwrap();
        // A new series, which must not get the reference of a chunk in `chunks_head`.
        let (_, end) = db.time_bounds().unwrap();
        let fresh = Labels::from_pairs([("__name__", "fresh")]);
        for i in 0..3 {
            let mut appender = db.appender();
            appender.append(SeriesRef(0), &fresh, end + i, i as f64).unwrap();
            appender.commit().unwrap();
        }
        let (ours, of_ours) = (everything(&*db), exemplars(&db));
        db.close().unwrap();
        drop(db);
        let flags = ["--enable-feature=exemplar-storage"];
        let config = "storage: {exemplars: {max_exemplars: 10000}}\n";
        let server = Prometheus::start_as(&data, "2m", &flags, |_| config.to_owned());
        assert_same(&server.everything(end + 1000), &without_stale(&ours));
        assert_eq!(server.exemplars(0, end + 1000), of_ours);
        server.stop();
        // Now with the head moved on, so that it is cut and files of `chunks_head` go.
        let db = Db::open(options.clone()).unwrap();
        let mut appender = db.appender();
        appender.append(SeriesRef(0), &fresh, end + 300_000, 9.0).unwrap();
        appender.commit().unwrap();
        let done = db.maintain().unwrap();
        assert!(!done.blocks_cut.is_empty());
        let ours = everything(&*db);
        db.close().unwrap();
        drop(db);
        let server = Prometheus::start(&data, "2m");
        assert_same(&server.everything(end + 301_000), &without_stale(&ours));
        println!("{name}: Prometheus serves the same after us; {} series with exemplars", of_ours.len());
    }
}

/// What a Prometheus that is scraping has answered, a read-only open of its directory has too.
#[test]
fn a_running_prometheus_is_read_beside_it() {
    if !installed(&peer()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Prometheus::start_with(dir.path(), "2h", |port| {
        format!(
            "scrape_configs:\n- job_name: self\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n  static_configs:\n  - targets: [\"127.0.0.1:{port}\"]\n"
        )
    });
    let mut options = options(dir.path());
    options.read_only = true;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut most = 0;
    while most < 10 {
        assert!(std::time::Instant::now() < deadline, "{most} scrapes");
        let served = server.everything(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64);
        let beside = Db::open(options.clone()).unwrap();
        assert_eq!(beside.replay_stats().unknown_series, 0);
        let found = without_stale(&everything(&*beside));
        for (labels, samples) in served {
            let found = found.get(&labels).map_or(&[][..], Vec::as_slice);
            assert!(found.starts_with(&samples), "{labels}: {} of {}", found.len(), samples.len());
            most = most.max(samples.len());
        }
    }
    // It goes on and ends as if nobody had been there.
    assert!(server.get("/-/healthy").is_some());
    server.stop();
    assert!(!read_all(&*Db::open(options).unwrap()).is_empty());
}
