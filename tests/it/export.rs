//! `promontory export`, read back by the parquet crate and by DuckDB.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use arrow::array::AsArray as _;
use arrow::datatypes::{Float64Type, Int32Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::support::{TestServer, binary, has};

const T0: i64 = 1_795_219_200_000;

#[tokio::test(flavor = "multi_thread")]
async fn exported_rows_are_the_stored_samples_of_a_running_server() {
    let server = TestServer::idle().await;
    for (job, factor) in [("a", 1.0), ("b", 0.5)] {
        let samples: Vec<_> = (0..1_000).map(|i| (T0 + i * 1_000, i as f64 * factor)).collect();
        server.append(&[("__name__", "work_total"), ("job", job)], &samples);
    }
    server.append(&[("__name__", "other")], &[(T0, 1.0)]);
    let data = server.dir.path().join("data");
    let out = server.dir.path().join("out");
    let export = || {
        let mut command = binary();
        command
            .args(["export", "--match=work_total", "--start=2026-11-21T00:00:00Z"])
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--out={}", out.display()));
        command.output().unwrap()
    };
    let expected = BTreeMap::from([("a".to_owned(), (1_000, 499.5)), ("b".to_owned(), (1_000, 249.75))]);
    let beside = export();
    assert!(beside.status.success(), "{beside:?}");
    assert_eq!(averages(&out.join("work_total.parquet")), expected);

    let _dir = server.stop().await;
    let done = export();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(averages(&out.join("work_total.parquet")), expected);
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1, "only what matches");

    if has("python3", &["-c", "import duckdb"]) {
        let query = format!(
            "import duckdb; print(duckdb.sql(\"SELECT job, avg(value), min(\\\"timestamp\\\")::VARCHAR FROM '{}/*.parquet' GROUP BY 1 ORDER BY 1\").fetchall())",
            out.display()
        );
        let output = Command::new("python3").args(["-c", &query]).env("TZ", "UTC").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("('a', 499.5, '2026-11-21 00:00:00+00'), ('b', 249.75"), "{text} {output:?}");
    }
}

/// Rows and average value by job.
fn averages(path: &Path) -> BTreeMap<String, (usize, f64)> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap();
    let mut sums = BTreeMap::<String, (usize, f64)>::new();
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        let values = batch.column_by_name("value").unwrap().as_primitive::<Float64Type>().clone();
        let jobs = batch.column_by_name("job").unwrap().as_dictionary::<Int32Type>();
        for row in 0..batch.num_rows() {
            let job = jobs.values().as_string::<i32>().value(jobs.key(row).unwrap()).to_owned();
            let (count, sum) = sums.entry(job).or_default();
            *count += 1;
            *sum += values.value(row);
        }
    }
    sums.into_iter().map(|(job, (count, sum))| (job, (count, sum / count as f64))).collect()
}
