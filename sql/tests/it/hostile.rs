//! Statements that would take more than their share: each is refused, and the server goes on.

use std::sync::Arc;

use pgwire::tokio::TlsConnector;
use promontory_sql::{Access, STACK_BYTES, SqlOptions, SqlTls};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::wire::{certificate, user};
use crate::{Server, sqlstate};

/// On threads as the server has them.
#[test]
fn what_would_take_more_than_there_is_is_refused_with_its_code() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().thread_stack_size(STACK_BYTES).enable_all().build();
    runtime.expect("starts").block_on(refused());
}

async fn refused() {
    let server = Server::start(SqlOptions::default()).await;
    let client = server.connect().await;
    let doubling = (1..40).map(|i| format!(", a{i} AS (SELECT a.x FROM a{0} a, a{0} b)", i - 1));
    let doubling = format!("WITH a0 AS (SELECT 1 AS x){} SELECT * FROM a39", doubling.collect::<String>());
    let tables = (0..1_000).map(|i| format!("pg_namespace a{i}")).collect::<Vec<_>>().join(", ");
    for (query, code) in [
        (format!("SELECT 'a'{}", " ILIKE 'a'".repeat(100_000)), "54001"),
        (format!("SELECT 'a'{}", " AT TIME ZONE 'UTC'".repeat(100_000)), "54001"),
        (doubling, "54001"),
        (format!("SELECT 1 FROM {tables}"), "54001"),
        ("SELECT approx_percentile(value, 0.5, 1000000000000) FROM up".to_owned(), "42601"),
        (
            "SELECT approx_percentile_cont(0.5, 1000000 * 1000000) WITHIN GROUP (ORDER BY value) FROM up"
                .to_owned(),
            "42601",
        ),
        (format!("SELECT '{}'", "x".repeat(5 << 20)), "54001"),
        ("SELECT count(*) FROM up WHERE job ~ '(a{1000}){1000}'".to_owned(), "2201B"),
        ("SELECT count(*) FROM up WHERE job || 'x' ~ ('(a{1000}){1000}' || job)".to_owned(), "2201B"),
        ("SELECT count(*) FROM up WHERE job || 'x' ~ ('(' || job)".to_owned(), "2201B"),
        ("SELECT regexp_replace(job, '(a{1000}){1000}', 'b') FROM up".to_owned(), "2201B"),
        ("SELECT regexp_like(job, '(a{1000}){1000}') FROM up".to_owned(), "2201B"),
        ("SELECT regexp_match(job, '(') FROM up".to_owned(), "2201B"),
    ] {
        let beginning = &query[..query.len().min(60)];
        assert_eq!(sqlstate(client.simple_query(&query).await), code, "{beginning}");
        client.simple_query("SELECT 1").await.expect(beginning);
    }
    let digest = "SELECT approx_percentile(value, 0.5, 10000) FROM up";
    client.simple_query(digest).await.expect("as many are allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_search_path_leads_into_a_schema_that_is_not_ones_own() {
    let only = Access::only(["metrics".to_owned()]);
    let server =
        Server::start(SqlOptions { users: vec![user("viewer", only)], ..SqlOptions::default() }).await;
    let viewer = server.try_connect("viewer", Some("s3cret")).await.expect("gets in");
    for set in ["SET search_path = tsdb", "SELECT set_config('search_path', 'tsdb', false)"] {
        viewer.simple_query(set).await.expect(set);
        for query in [
            "SELECT metric FROM series",
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM queries)",
            "COPY series TO STDOUT",
            "EXPLAIN SELECT * FROM series",
            "WITH s AS (SELECT * FROM series) SELECT * FROM s",
        ] {
            assert_eq!(sqlstate(viewer.simple_query(query).await), "42501", "{query}");
        }
        viewer.simple_query("SELECT * FROM metrics.up").await.expect("is theirs");
        viewer.simple_query("RESET search_path").await.expect("resets");
        viewer.simple_query("WITH s AS (SELECT * FROM up) SELECT * FROM s").await.expect("is theirs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bare_names_are_of_the_schema_that_is_ones_own() {
    let users = vec![user("keeper", Access::only(["tsdb".to_owned()]))];
    let server = Server::start(SqlOptions { users, ..SqlOptions::default() }).await;
    let keeper = server.try_connect("keeper", Some("s3cret")).await.expect("gets in");
    assert_eq!(sqlstate(keeper.simple_query("SELECT * FROM up").await), "42501");
    keeper.simple_query("SET search_path = tsdb").await.expect("sets");
    for query in [
        "SELECT metric FROM series",
        "SELECT s.metric FROM series AS s JOIN labels AS l ON l.value = s.metric",
        "WITH up AS (SELECT * FROM blocks) SELECT * FROM up",
    ] {
        keeper.simple_query(query).await.expect(query);
    }
    for query in [
        "SELECT * FROM metrics.up",
        "SELECT * FROM series, metrics.up",
        "SELECT * FROM range(1, 2) AS series",
    ] {
        assert_eq!(sqlstate(keeper.simple_query(query).await), "42501", "{query}");
    }
}

/// A connection that says what it likes.
async fn raw(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.expect("connects")
}

/// A message that says of itself that it is so long, with nothing in it.
fn beginning(kind: &[u8], length: u32) -> Vec<u8> {
    [kind, &length.to_be_bytes()].concat()
}

fn startup(user: &str) -> Vec<u8> {
    let body = [&196_608_u32.to_be_bytes()[..], b"user\0", user.as_bytes(), b"\0\0"].concat();
    [beginning(b"", u32::try_from(body.len() + 4).expect("fits")), body].concat()
}

/// All that comes until the end.
async fn rest(mut socket: impl AsyncRead + Unpin) -> String {
    let mut all = Vec::new();
    let _ = socket.read_to_end(&mut all).await;
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_too_long_are_refused_by_their_length() {
    let server = Server::start(SqlOptions::default()).await;
    let mut early = raw(&server).await;
    early.write_all(&beginning(b"", 1 << 20)).await.expect("sends");
    // What tells a startup from a request to encrypt.
    early.write_all(&196_608_u32.to_be_bytes()).await.expect("sends");
    let said = rest(early).await;
    assert!(said.contains("FATAL") && said.contains("C08P01\0"), "{said}");
    let mut known = raw(&server).await;
    let query = [beginning(b"Q", 13), b"SELECT 7\0".to_vec()].concat();
    known.write_all(&[startup("tester"), query].concat()).await.expect("sends");
    // Longer messages are for those who are known.
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("SELECT 1\0") {
        assert!(known.read_buf(&mut said).await.expect("answers") > 0);
    }
    known.write_all(&beginning(b"Q", 0x3fff_fff0)).await.expect("sends");
    let said = rest(known).await;
    assert!(said.contains("FATAL") && said.contains("C54000\0"), "{said}");
    let users = vec![user("viewer", Access::default())];
    let server = Server::start(SqlOptions { users, ..SqlOptions::default() }).await;
    let mut stranger = raw(&server).await;
    stranger.write_all(&startup("viewer")).await.expect("sends");
    stranger.write_all(&beginning(b"p", 100_000)).await.expect("sends");
    let said = rest(stranger).await;
    assert!(said.contains("FATAL") && said.contains("C08P01\0"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_in_the_clear_is_not_taken_as_encrypted() {
    let dir = tempfile::tempdir().expect("a directory");
    let (chain, key, _) = certificate(dir.path());
    let tls = Some(SqlTls::from_pem(&chain, &key, true).expect("belongs together"));
    let server = Server::start(SqlOptions { tls, ..SqlOptions::default() }).await;
    let mut roots = rustls::RootCertStore::empty();
    let own = CertificateDer::from_pem_slice(&chain).expect("a certificate");
    roots.add(own).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let request = [8_u32.to_be_bytes(), 80_877_103_u32.to_be_bytes()].concat();
    for (smuggled, expected) in
        [(startup("mallory"), "received unencrypted data after SSL request"), (Vec::new(), "server_version")]
    {
        let mut socket = raw(&server).await;
        socket.write_all(&[request.clone(), smuggled].concat()).await.expect("sends");
        let mut answer = [0];
        socket.read_exact(&mut answer).await.expect("answers");
        assert_eq!(&answer, b"S");
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let mut encrypted = connector.connect(name, socket).await.expect("encrypts");
        // A client that is sent away before may not get to say it.
        let _ = encrypted.write_all(&[startup("alice"), beginning(b"X", 4)].concat()).await;
        let said = rest(encrypted).await;
        assert!(said.contains(expected), "{expected}: {said}");
    }
}
