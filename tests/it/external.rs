//! Files that the configuration mounts, and tables that its users create.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, Float64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::Int32Type;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use promontory_sql::ScramVerifier;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::clients::python_has;
use super::support::TestServer;

const T0: i64 = 1_795_219_200_000;

/// A file of `(job, cost)`, with the types that a metric has.
fn write_parquet(path: &Path, rows: &[(&str, f64)], compression: Compression) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let jobs: DictionaryArray<Int32Type> = rows.iter().map(|(job, _)| *job).collect();
    let times = TimestampMillisecondArray::from(vec![T0; rows.len()]).with_timezone("UTC");
    let costs: Float64Array = rows.iter().map(|(_, cost)| Some(*cost)).collect();
    let columns: [(&str, ArrayRef); 3] =
        [("job", Arc::new(jobs)), ("timestamp", Arc::new(times)), ("cost", Arc::new(costs))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder().set_compression(compression).build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

async fn connect(server: &TestServer, user: &str) -> Client {
    let sql = server.running.sql_addr().unwrap();
    let config =
        format!("host={} port={} user={user} password=s3cret dbname=promontory", sql.ip(), sql.port());
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn rows(client: &Client, query: &str) -> Vec<String> {
    let messages = client.simple_query(query).await.unwrap();
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|i| row.get(i).unwrap_or("-")).collect::<Vec<_>>().join("|"))
        }
        _ => None,
    });
    rows.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_files_of_the_configuration_join_with_metrics() {
    let files = tempfile::tempdir().unwrap();
    let at = |name: &str| files.path().join(name);
    write_parquet(&at("one.parquet"), &[("api", 1.5), ("node", 2.0)], Compression::SNAPPY);
    write_parquet(&at("many/a.parquet"), &[("api", 1.0)], Compression::UNCOMPRESSED);
    write_parquet(&at("many/deep/b.parquet"), &[("node", 2.0)], Compression::ZSTD(Default::default()));
    std::fs::write(at("many/readme.txt"), "not data").unwrap();
    std::fs::write(at("bad.parquet"), "PAR1 is not enough").unwrap();
    let yaml = format!(
        "sql:\n  external:\n    - {{name: one, path: {0}/one.parquet}}\n    - {{name: many, path: {0}/many, format: parquet}}\n\
         \x20   - {{name: bad, path: {0}/bad.parquet}}\n",
        files.path().display()
    );
    let server = TestServer::with_config(&yaml).await;
    for job in ["api", "node"] {
        server.append(&[("__name__", "up"), ("job", job)], &[(T0, 1.0), (T0 + 15_000, 1.0)]);
    }
    let client = connect(&server, "me").await;
    let query = "SELECT u.job, sum(u.value * o.cost) FROM up AS u JOIN external.one AS o USING (job) GROUP BY 1 ORDER BY 1";
    assert_eq!(rows(&client, query).await, ["api|3", "node|4"]);
    let query = "SELECT o.job, o.cost FROM external.many AS o JOIN up AS u \
                 ON o.job = u.job AND o.timestamp = u.timestamp WHERE o.cost > 1";
    assert_eq!(rows(&client, query).await, ["node|2"]);
    let query =
        "SELECT timestamp, job FROM external.many WHERE timestamp = '2026-11-21T00:00:00Z' ORDER BY job";
    assert_eq!(rows(&client, query).await, ["2026-11-21 00:00:00+00|api", "2026-11-21 00:00:00+00|node"]);
    write_parquet(&at("many/c.parquet"), &[("db", 4.0)], Compression::SNAPPY);
    assert_eq!(rows(&client, "SELECT count(*), sum(cost) FROM external.many").await, ["3|7"]);
    let columns = "SELECT column_name, data_type FROM information_schema.columns \
                   WHERE table_schema = 'external' AND table_name = 'one' ORDER BY ordinal_position";
    let expected = ["job|text", "timestamp|timestamp with time zone", "cost|double precision"];
    assert_eq!(rows(&client, columns).await, expected);
    let error = client.simple_query("SELECT * FROM external.bad").await.unwrap_err();
    assert!(error.as_db_error().is_some_and(|error| !error.message().is_empty()), "{error:?}");
    drop(client);
    server.stop().await;
}

/// An object store with a bucket `lake`; ends with its input.
struct ObjectStore {
    process: Child,
    port: String,
}

impl ObjectStore {
    /// One with files under keys; `None`, and says so, where there is no moto.
    fn with(objects: &[(&str, &Path)]) -> Option<Self> {
        if !python_has(&["moto.server", "boto3"]) {
            return None;
        }
        let mut process = Command::new("python3")
            .arg(format!("{}/tests/clients/s3_server.py", env!("CARGO_MANIFEST_DIR")))
            .args(objects.iter().flat_map(|(key, file)| [OsStr::new(*key), file.as_os_str()]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut port).unwrap();
        Some(Self { process, port: port.trim().to_owned() })
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_a_store_are_tables() {
    let files = tempfile::tempdir().unwrap();
    let at = |name: &str| files.path().join(name);
    write_parquet(&at("a.parquet"), &[("api", 1.5)], Compression::SNAPPY);
    write_parquet(&at("b.parquet"), &[("node", 2.0)], Compression::ZSTD(Default::default()));
    std::fs::write(at("owners.csv"), "job,team\napi,shop\nnode,core\n").unwrap();
    let (a, b, owners) = (at("a.parquet"), at("b.parquet"), at("owners.csv"));
    let Some(store) = ObjectStore::with(&[
        ("costs/a.parquet", &a),
        ("costs/deep/b.parquet", &b),
        ("costs/readme.txt", &owners),
        ("open/owners.csv", &owners),
        ("secret/owners.csv", &owners),
    ]) else {
        return;
    };
    let yaml = format!(
        "sql:\n  external:\n    - {{name: costs, path: 's3://lake/costs/', format: parquet}}\n\
         \x20   - {{name: gone, path: 's3://lake/nothing/', format: parquet}}\n\
         \x20   - {{name: elsewhere, path: 's3://pond/a.csv'}}\n\
         \x20 external_folders: ['s3://lake/open/']\n  object_stores:\n    - url: s3://lake\n      options:\n\
         \x20       aws_endpoint: http://127.0.0.1:{0}\n        aws_allow_http: 'true'\n        aws_region: us-east-1\n\
         \x20       aws_access_key_id: key\n        aws_secret_access_key: secret\n\
         \x20   - url: s3://pond\n      options: {{aws_endpoint: 'http://127.0.0.1:{0}', aws_allow_http: 'true', \
         aws_region: us-east-1, aws_access_key_id: key, aws_secret_access_key: secret}}\n",
        store.port
    );
    let server = TestServer::with_config(&yaml).await;
    for job in ["api", "node"] {
        server.append(&[("__name__", "up"), ("job", job)], &[(T0, 1.0), (T0 + 15_000, 1.0)]);
    }
    let client = connect(&server, "me").await;
    let query = "SELECT u.job, sum(u.value * o.cost) FROM up AS u JOIN external.costs AS o USING (job) GROUP BY 1 ORDER BY 1";
    assert_eq!(rows(&client, query).await, ["api|3", "node|4"]);
    rows(&client, "CREATE EXTERNAL TABLE owners STORED AS CSV LOCATION 's3://lake/open/owners.csv'").await;
    let query =
        "SELECT team, sum(cost) FROM external.owners JOIN external.costs USING (job) GROUP BY 1 ORDER BY 1";
    assert_eq!(rows(&client, query).await, ["core|2", "shop|1.5"]);
    for (statement, code) in [
        ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://lake/secret/owners.csv'", "42501"),
        ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://lake/open/../secret/owners.csv'", "42501"),
        ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://lake/open/no.csv'", "58P01"),
        ("SELECT * FROM external.gone", "58P01"),
        ("SELECT * FROM external.elsewhere", "58030"),
    ] {
        let error = client.simple_query(statement).await.unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some(code), "{statement}: {error:?}");
    }
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_users_who_may_create_do_and_others_read_it() {
    let files = tempfile::tempdir().unwrap();
    write_parquet(&files.path().join("one.parquet"), &[("api", 1.5)], Compression::SNAPPY);
    let user = |name: &str, more: &str| {
        format!("    - name: {name}\n      verifier: {}\n{more}", ScramVerifier::from_password("s3cret"))
    };
    let yaml = format!(
        "sql:\n  users:\n{}{}  external_folders: [{}]\n",
        user("maker", "      create: true\n"),
        user("reader", "      schemas: [external]\n"),
        files.path().display()
    );
    let server = TestServer::with_config(&yaml).await;
    let (maker, reader) = (connect(&server, "maker").await, connect(&server, "reader").await);
    let create = format!(
        "CREATE EXTERNAL TABLE prices STORED AS PARQUET LOCATION '{}/one.parquet'",
        files.path().display()
    );
    let code = |error: tokio_postgres::Error| error.code().unwrap().code().to_owned();
    assert_eq!(code(reader.simple_query(&create).await.unwrap_err()), "42501");
    assert_eq!(code(reader.simple_query("CREATE VIEW v AS SELECT 1 AS x").await.unwrap_err()), "42501");
    maker.simple_query(&create).await.unwrap();
    assert_eq!(rows(&reader, "SELECT job, cost FROM external.prices").await, ["api|1.5"]);
    assert_eq!(code(reader.simple_query("DROP TABLE external.prices").await.unwrap_err()), "42501");
    maker.simple_query("DROP TABLE external.prices").await.unwrap();
    assert_eq!(code(reader.simple_query("SELECT * FROM external.prices").await.unwrap_err()), "42P01");
    drop((maker, reader));
    server.stop().await;
}
