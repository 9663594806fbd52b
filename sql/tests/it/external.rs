//! Files as tables.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use promontory_sql::{
    Access, ExternalFormat, ExternalOptions, ExternalTable, ScramVerifier, SqlCatalog, SqlOptions, SqlUser,
};
use promontory_tsdb::ManualClock;

use crate::{Server, data, sqlstate};

async fn rows(client: &tokio_postgres::Client, query: &str) -> Vec<String> {
    let messages = client.simple_query(query).await.expect(query);
    let rows = messages.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|i| row.get(i).unwrap_or("-")).collect::<Vec<_>>().join("|"))
        }
        _ => None,
    });
    rows.collect()
}

fn catalog() -> Arc<SqlCatalog> {
    SqlCatalog::new(Arc::new(data::storage()), Arc::new(ManualClock::new(data::NOW_MS)))
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("makes folders");
    std::fs::write(path, text).expect("writes");
}

const OWNERS: &str = "job,team,since\napi,shop,2025-01-01T00:00:00Z\nnode,core,2025-06-01T00:00:00Z\n";

#[tokio::test(flavor = "multi_thread")]
async fn mounted_files_are_tables_that_join_with_metrics() {
    let dir = tempfile::tempdir().expect("a directory");
    let csv = |header, delimiter| ExternalFormat::Csv { header, delimiter };
    write(&dir.path().join("own ers*?.csv"), OWNERS);
    write(&dir.path().join("semi.txt"), "api;1\nnode;2\n");
    write(&dir.path().join("many/a.json"), "{\"job\":\"api\",\"cost\":1.5}\n");
    write(&dir.path().join("many/deep/b.json"), "{\"job\":\"node\",\"cost\":2}\n");
    write(&dir.path().join("many/readme.txt"), "not data");
    let table = |name: &str, path: &str, format| ExternalTable {
        name: name.to_owned(),
        location: dir.path().join(path).into(),
        format,
    };
    let catalog = catalog();
    catalog.mount(ExternalOptions {
        tables: vec![
            table("owners", "own ers*?.csv", csv(true, b',')),
            table("semi", "semi.txt", csv(false, b';')),
            table("costs", "many", ExternalFormat::Json),
            table("gone", "gone.parquet", ExternalFormat::Parquet),
        ],
        ..ExternalOptions::default()
    });
    let server = Server::over(catalog, SqlOptions::default()).await;
    let client = server.connect().await;
    let query =
        "SELECT o.team, count(*) FROM up JOIN external.owners AS o ON o.job = up.job GROUP BY 1 ORDER BY 1";
    assert_eq!(rows(&client, query).await, ["core|242", "shop|121"]);
    let query = "SELECT o.team, sum(c.cost) FROM external.owners AS o JOIN external.costs AS c USING (job) \
                 WHERE o.since < now() GROUP BY 1 ORDER BY 1";
    assert_eq!(rows(&client, query).await, ["core|2", "shop|1.5"]);
    assert_eq!(rows(&client, "SELECT * FROM external.semi ORDER BY 1").await, ["api|1", "node|2"]);
    // What comes later is seen.
    write(&dir.path().join("many/c.json"), "{\"job\":\"db\",\"cost\":4}\n");
    assert_eq!(rows(&client, "SELECT count(*) FROM external.costs").await, ["3"]);
    let error = client.simple_query("SELECT * FROM external.gone").await.expect_err("no such file");
    assert!(format!("{error:?}").contains("gone.parquet"), "{error:?}");
    assert_eq!(sqlstate(client.simple_query("SELECT * FROM external.other").await), "42P01");
    let listed =
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'external' ORDER BY 1";
    assert_eq!(rows(&client, listed).await, ["costs", "gone", "owners", "semi"]);
    let columns = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'owners'";
    assert_eq!(rows(&client, columns).await.len(), 3);
    assert_eq!(sqlstate(client.simple_query("DROP TABLE external.owners").await), "42809");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_created_beneath_allowed_folders_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let (inside, outside) = (dir.path().join("open"), dir.path().join("secret"));
    write(&inside.join("owners.csv"), OWNERS);
    write(&inside.join("folder/part.csv"), OWNERS);
    write(&outside.join("owners.csv"), OWNERS);
    std::os::unix::fs::symlink(&outside, inside.join("way-out")).expect("links");
    std::fs::create_dir_all(inside.join("linked")).expect("makes a folder");
    std::os::unix::fs::symlink(outside.join("owners.csv"), inside.join("linked/out.csv")).expect("links");
    let (inside, outside) = (inside.display(), outside.display());
    let data = tempfile::tempdir().expect("a directory");
    let options = ExternalOptions {
        folders: vec![PathBuf::from(inside.to_string()).into()],
        ..ExternalOptions::default()
    };
    {
        let catalog = catalog();
        catalog.keep_in(data.path());
        catalog.mount(options.clone());
        let server = Server::over(catalog, SqlOptions::default()).await;
        let client = server.connect().await;
        let create = |name: &str, path: String| {
            format!("CREATE EXTERNAL TABLE {name} STORED AS CSV LOCATION '{path}'")
        };
        for (path, code) in [
            (format!("{outside}/owners.csv"), "42501"),
            (format!("{outside}/no-such-file.csv"), "42501"),
            (format!("{inside}/../secret/owners.csv"), "42501"),
            (format!("{inside}/way-out/owners.csv"), "42501"),
            (format!("{inside}/way-out"), "42501"),
            (format!("{inside}/linked"), "42501"),
            (format!("{inside}/linked/out.csv"), "42501"),
            (format!("{inside}x/owners.csv"), "42501"),
            ("owners.csv".to_owned(), "42501"),
            (String::new(), "42501"),
            ("/".to_owned(), "42501"),
            ("/../../etc/passwd".to_owned(), "42501"),
            (format!("{inside}/none.csv"), "58P01"),
            ("s3://bucket/owners.csv".to_owned(), "42501"),
            (format!("file://{inside}/owners.csv"), "22023"),
            ("s3:///owners.csv".to_owned(), "22023"),
        ] {
            assert_eq!(sqlstate(client.simple_query(&create("t", path.clone())).await), code, "{path}");
        }
        rows(&client, &create("owners", format!("{inside}/folder/../owners.csv"))).await;
        rows(&client, &create("external.parts", format!("{inside}/folder"))).await;
        assert_eq!(
            sqlstate(client.simple_query(&create("owners", format!("{inside}/owners.csv"))).await),
            "42P07"
        );
        assert_eq!(
            rows(&client, "SELECT count(*) FROM external.owners JOIN external.parts USING (job)").await,
            ["2"]
        );
        for (statement, code) in [
            (format!("CREATE EXTERNAL TABLE t STORED AS AVRO LOCATION '{inside}/owners.csv'"), "0A000"),
            (
                format!("CREATE EXTERNAL TABLE t (x int) STORED AS CSV LOCATION '{inside}/owners.csv'"),
                "0A000",
            ),
            (format!("CREATE EXTERNAL TABLE up.t STORED AS CSV LOCATION '{inside}/owners.csv'"), "3F000"),
            ("CREATE EXTERNAL TABLE t STORED AS CSV".to_owned(), "42601"),
            (
                format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{inside}/owners.csv'; SELECT 1"),
                "42601",
            ),
            (
                format!(
                    "CREATE EXTERNAL TABLE t STORED AS CSV OPTIONS ('format.delimiter' 'ab') LOCATION '{inside}/owners.csv'"
                ),
                "22023",
            ),
        ] {
            assert_eq!(sqlstate(client.simple_query(&statement).await), code, "{statement}");
        }
    }
    // They outlive a restart, as long as their folder is allowed.
    for (options, expected) in [(options, "2"), (ExternalOptions::default(), "42501")] {
        let catalog = catalog();
        catalog.keep_in(data.path());
        catalog.mount(options);
        let server = Server::over(catalog, SqlOptions::default()).await;
        let client = server.connect().await;
        let counted = client.simple_query("SELECT count(*) FROM external.owners").await;
        match counted {
            Ok(_) => assert_eq!(rows(&client, "SELECT count(*) FROM external.owners").await, [expected]),
            refused => assert_eq!(sqlstate(refused), expected),
        }
        assert_eq!(rows(&client, "SELECT count(*) FROM up").await, ["363"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_create_creates_tables() {
    let reader = SqlUser {
        name: "reader".to_owned(),
        verifier: ScramVerifier::from_password("secret"),
        access: Access::reading(),
    };
    let server = Server::start(SqlOptions { users: vec![reader], ..SqlOptions::default() }).await;
    let client = server.try_connect("reader", Some("secret")).await.expect("connects");
    for statement in ["CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'", "DROP TABLE external.t"]
    {
        assert_eq!(sqlstate(client.simple_query(statement).await), "42501", "{statement}");
    }
}
