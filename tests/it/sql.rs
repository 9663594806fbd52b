//! SQL over the wire answers from the same samples.

use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::support::{Target, TestServer, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn targets_are_a_table() {
    let target = Target::start("x 1\n").await;
    let server = TestServer::with_config(&target.config()).await;
    let sql = server.running.sql_addr().unwrap();
    let config = format!("host={} port={} user=me dbname=promontory", sql.ip(), sql.port());
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let query =
        "SELECT scrape_pool, url, labels FROM tsdb.targets WHERE health = 'up' AND last_scrape IS NOT NULL";
    let row = eventually("a scraped target", || async {
        let messages = client.simple_query(query).await.unwrap();
        messages.into_iter().find_map(|m| match m {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
    })
    .await;
    assert_eq!(row.get(0), Some("fake"));
    assert_eq!(row.get(1), Some(format!("http://{}/metrics", target.addr).as_str()));
    assert_eq!(row.get(2), Some(format!("{{\"instance\":\"{}\",\"job\":\"fake\"}}", target.addr).as_str()));
    drop(client);
    let _ = connection.await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_clients_read_what_was_appended() {
    let server = TestServer::idle().await;
    server.append(&[("__name__", "up"), ("job", "a")], &[(1_795_219_200_000, 1.0), (1_795_219_215_000, 3.0)]);
    let sql = server.running.sql_addr().unwrap();
    let config = format!("host={} port={} user=me dbname=promontory", sql.ip(), sql.port());
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let rows = client.simple_query("SELECT job, avg(value) FROM up GROUP BY 1").await.unwrap();
    let rows: Vec<_> = rows
        .iter()
        .filter_map(|m| match m {
            SimpleQueryMessage::Row(row) => {
                Some((row.get(0).unwrap().to_owned(), row.get(1).unwrap().parse::<f64>().unwrap()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(rows, [("a".to_owned(), 2.0)]);
    drop(client);
    let _ = connection.await;
    server.stop().await;
}
