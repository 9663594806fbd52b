//! Managers that run, without a network or against a target in this process.

use std::time::Duration;

use promontory_tsdb::{Clock, SystemClock};
use tokio::time::Instant;

use super::requests::{page, serve};
use super::*;
use crate::scrape::{Health, ScrapeManager};

/// Shows the runtime's time, so that it moves when a test moves it.
#[derive(Debug)]
struct RuntimeClock(Instant);

impl Clock for RuntimeClock {
    fn now_ms(&self) -> i64 {
        i64::try_from(self.0.elapsed().as_millis()).unwrap()
    }
}

fn config(text: &str) -> Config {
    Config::parse(text, Path::new("c.yml")).unwrap().0
}

/// A job whose targets all fail at once without a request, because there are too many.
fn offline(interval: &str, targets: &[&str], more: &str) -> Config {
    config(&format!(
        "scrape_configs:\n- job_name: j\n  scrape_interval: {interval}\n  target_limit: 1\n{more}\
         \x20 static_configs:\n  - targets: {targets:?}\n"
    ))
}

fn manager(samples: &Arc<Samples>) -> ScrapeManager {
    ScrapeManager::new(Arc::clone(samples) as _, Arc::new(RuntimeClock(Instant::now())))
}

fn times(shown: &str) -> Vec<i64> {
    shown.split(' ').map(|s| s.split_once('=').unwrap().0.parse().unwrap()).collect()
}

/// Waits until `done` says so; asked after every commit.
async fn until(samples: &Samples, mut done: impl FnMut() -> bool) {
    let wait = async {
        loop {
            let committed = samples.committed.notified();
            if done() {
                return;
            }
            committed.await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("it happens in the end");
}

#[tokio::test]
async fn scrapes_come_once_per_interval_at_each_targets_own_place() {
    let samples = Arc::new(Samples::default());
    let manager = manager(&samples);
    manager.apply(&offline("200ms", &["a:1", "b:1", "c:1"], "")).await.unwrap();
    let up = || samples.show("__name__=\"up\"");
    until(&samples, || up().len() == 3 && up().values().all(|s| times(s).len() >= 4)).await;
    for shown in up().values() {
        let times = times(shown);
        assert!(times.windows(2).all(|w| w[1] - w[0] > 100), "{shown}");
        assert!(shown.split(' ').all(|s| s.ends_with("=0")));
    }
    let snapshot = manager.targets();
    assert_eq!(snapshot.active.len(), 3);
    assert_eq!(snapshot.active[0].last_error, "target_limit exceeded (number of targets: 3, limit: 1)");
    assert_eq!(snapshot.active[0].health, Health::Down);
    let metrics = manager.metrics();
    assert_eq!((metrics.jobs[0].targets, metrics.exceeded_target_limit), (3, 1));
    manager.shutdown().await;
}

#[tokio::test]
async fn a_removed_target_is_marked_stale_after_two_intervals() {
    let samples = Arc::new(Samples::default());
    let manager = manager(&samples);
    manager.apply(&offline("100ms", &["a:1", "b:1", "c:1"], "")).await.unwrap();
    let up = |instance: &str| {
        let found = samples.show(&format!("__name__=\"up\", instance=\"{instance}\""));
        found.into_values().next().unwrap_or_default()
    };
    until(&samples, || up("c:1").contains(' ')).await;
    manager.apply(&offline("100ms", &["a:1", "b:1"], "")).await.unwrap();
    assert_eq!(manager.targets().active.len(), 2);
    let removed = Instant::now();
    until(&samples, || up("c:1").ends_with("=stale")).await;
    assert!(removed.elapsed() >= Duration::from_millis(110));
    let c = times(&up("c:1"));
    let [.., last, marked] = c[..] else { panic!("{c:?}") };
    assert!(marked > last, "{c:?}");
    // Who stays is not disturbed.
    assert_eq!(manager.metrics().pool_reloads, 0);
    assert!(!up("a:1").contains("stale"));
    manager.shutdown().await;
}

#[tokio::test]
async fn an_unchanged_job_is_left_alone_and_shutdown_marks_nothing() {
    let samples = Arc::new(Samples::default());
    let manager = manager(&samples);
    let config = offline("50ms", &["a:1", "b:1"], "");
    manager.apply(&config).await.unwrap();
    until(&samples, || samples.show("instance=\"a:1\"").len() == 5).await;
    manager.apply(&config).await.unwrap();
    assert_eq!(manager.metrics().pool_reloads, 0);
    manager.shutdown().await;
    assert!(!samples.show("").values().any(|s| s.contains("stale")));
    assert!(manager.targets().active.is_empty());
}

#[tokio::test]
async fn a_removed_job_ends_its_series() {
    let samples = Arc::new(Samples::default());
    let manager = manager(&samples);
    manager.apply(&offline("50ms", &["a:1", "b:1"], "")).await.unwrap();
    until(&samples, || samples.show("__name__=\"up\"").len() == 2).await;
    manager.apply(&config("")).await.unwrap();
    assert!(manager.targets().scrape_pools.is_empty());
    until(&samples, || samples.show("__name__=\"up\"").values().all(|s| s.ends_with("=stale"))).await;
    manager.shutdown().await;
}

#[tokio::test]
async fn a_target_is_scraped_and_a_reload_keeps_its_cache() {
    let address = serve(|_| page("a 1\nb 2\n")).await;
    let samples = Arc::new(Samples::default());
    let manager = ScrapeManager::new(Arc::clone(&samples) as _, Arc::new(SystemClock));
    let with = |interval: &str, extra: &str| {
        config(&format!(
            "scrape_configs:\n- job_name: j\n  scrape_interval: {interval}\n{extra}  static_configs:\n  - targets: ['{address}']\n"
        ))
    };
    // Real time is far from 1970, which is where this storage ends.
    let scraped = || async {
        loop {
            let committed = samples.committed.notified();
            if manager.targets().active.iter().all(|t| t.health == Health::Up) {
                return;
            }
            let _ = tokio::time::timeout(Duration::from_millis(50), committed).await;
        }
    };
    manager.apply(&with("50ms", "")).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), scraped()).await.unwrap();
    manager.apply(&with("60ms", "  sample_limit: 5\n")).await.unwrap();
    assert_eq!(manager.targets().active[0].scrape_interval, Duration::from_millis(60));
    tokio::time::timeout(Duration::from_secs(20), scraped()).await.unwrap();
    let snapshot = manager.targets();
    let target = &snapshot.active[0];
    assert_eq!(target.scrape_url, format!("http://{address}/metrics"));
    assert_eq!(target.last_error, "");
    assert_eq!(manager.metrics().pool_reloads, 1);
    manager.shutdown().await;
}

#[tokio::test]
async fn targets_in_files_are_found() {
    let address = serve(|_| page("a 1\n")).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("t.json"),
        format!(r#"[{{"targets":["{address}"],"labels":{{"k":"v"}}}}]"#),
    )
    .unwrap();
    let path = dir.path().join("prometheus.yml");
    std::fs::write(&path, "scrape_configs:\n- job_name: j\n  scrape_interval: 50ms\n  file_sd_configs:\n  - files: ['*.json']\n  relabel_configs:\n  - {action: drop, source_labels: [k], regex: x}\n").unwrap();
    let (config, _) = Config::load(&path).unwrap();
    let samples = Arc::new(Samples::default());
    let manager = ScrapeManager::new(Arc::clone(&samples) as _, Arc::new(SystemClock));
    manager.apply(&config).await.unwrap();
    let up = async {
        loop {
            let committed = samples.committed.notified();
            let active = manager.targets().active;
            if active.first().is_some_and(|t| t.health == Health::Up) {
                return active;
            }
            let _ = tokio::time::timeout(Duration::from_millis(50), committed).await;
        }
    };
    let active = tokio::time::timeout(Duration::from_secs(20), up).await.unwrap();
    assert_eq!(active[0].labels.get("k"), Some("v"));
    assert!(active[0].discovered_labels.get("__meta_filepath").unwrap().ends_with("/t.json"));
    manager.shutdown().await;
}

#[tokio::test]
async fn dropped_targets_are_remembered() {
    let samples = Arc::new(Samples::default());
    let manager = manager(&samples);
    let keys = "scrape_configs:\n- job_name: j\n  keep_dropped_targets: 1\n  static_configs:\n  - targets: ['a:1', 'b:1', 'c:1']\n  relabel_configs:\n  - {action: keep, source_labels: [__address__], regex: 'c:1'}\n";
    manager.apply(&config(keys)).await.unwrap();
    let snapshot = manager.targets();
    assert_eq!((snapshot.active.len(), snapshot.dropped.len(), snapshot.dropped_counts["j"]), (1, 1, 2));
    assert_eq!(snapshot.dropped[0].discovered_labels.get("__address__"), Some("a:1"));
    manager.shutdown().await;
}
