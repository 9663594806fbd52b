//! A process that is killed loses nothing that it had committed, and starts again.

use super::support::{Process, Target, eventually, get_json, query_value, write};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_scraped_before_a_kill_is_there_after_the_restart() {
    let target = Target::start("work_total 1\n").await;
    let dir = tempfile::tempdir().unwrap();
    let config = write(&dir.path().join("prometheus.yml"), &target.config());
    let data = dir.path().join("data");

    let server = Process::start(&config, &data);
    eventually("a first sample", || query_value(&server.base, "work_total")).await;
    target.set(Some("work_total 2\nlate_total 3\n"));
    eventually("the last sample before the kill", || query_value(&server.base, "late_total")).await;
    // The page changes no more, so that every scrape after this point repeats known values.
    let (_, before) = get_json(&format!("{}/api/v1/query?query=late_total[10m]", server.base)).await;
    let before = before["data"]["result"][0]["values"].as_array().unwrap().clone();
    server.kill();

    let server = Process::start(&config, &data);
    let (_, after) = get_json(&format!("{}/api/v1/query?query=late_total[10m]", server.base)).await;
    let after = after["data"]["result"][0]["values"].as_array().unwrap().clone();
    assert_eq!(after[..before.len()], before[..], "every sample that was readable is still there");
    target.set(Some("work_total 4\n"));
    eventually("scrapes go on", || async {
        query_value(&server.base, "work_total").await.filter(|v| v == "4")
    })
    .await;
    assert_eq!(server.terminate(), Some(0), "SIGTERM ends in order");
}
