//! What goes over the network.

use std::io::Write as _;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::scrape::client::{FetchError, PageClient};

/// Answers every request on a free port with `respond(request)`; returns the address.
pub(super) async fn serve(respond: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let respond = Arc::new(respond);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let respond = Arc::clone(&respond);
            tokio::spawn(async move {
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                loop {
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(n) => request.extend_from_slice(&buffer[..n]),
                    }
                    if request.ends_with(b"\r\n\r\n") {
                        let response = respond(&String::from_utf8_lossy(&request));
                        request.clear();
                        if response.is_empty() {
                            // Says nothing, and keeps the line open.
                            std::future::pending::<()>().await;
                        }
                        if stream.write_all(&response).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

pub(super) fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut out =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len()).into_bytes();
    out.extend_from_slice(body);
    out
}

pub(super) fn page(body: &str) -> Vec<u8> {
    response("200 OK", "Content-Type: text/plain; version=0.0.4\r\n", body.as_bytes())
}

async fn fetch(
    keys: &str,
    respond: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
) -> std::result::Result<(String, Vec<u8>), FetchError> {
    let address = serve(respond).await;
    let config = job(keys);
    let target = target(&config, &address);
    let mut body = Vec::new();
    let content_type = PageClient::try_new(&config).unwrap().fetch(&target, &mut body).await?;
    Ok((content_type, body))
}

#[tokio::test]
async fn a_request_says_what_it_wants() {
    let request = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&request);
    let keys = "  scrape_timeout: 2s\n  params: {a: ['b c']}\n  metrics_path: /x\n  basic_auth: {username: u, password: p}\n";
    let (content_type, body) = fetch(keys, move |request| {
        request.clone_into(&mut seen.lock());
        page("a 1\n")
    })
    .await
    .unwrap();
    assert_eq!((content_type.as_str(), body.as_slice()), ("text/plain; version=0.0.4", &b"a 1\n"[..]));
    let request = request.lock().to_lowercase();
    assert!(request.starts_with("get /x?a=b+c http/1.1\r\n"), "{request}");
    for header in [
        "accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,",
        "accept-encoding: gzip\r\n",
        concat!("user-agent: promontory/", env!("CARGO_PKG_VERSION"), "\r\n"),
        "x-prometheus-scrape-timeout-seconds: 2\r\n",
        "authorization: basic dtpw\r\n",
    ] {
        assert!(request.contains(header), "{header} in {request}");
    }
}

#[tokio::test]
async fn a_compressed_page_is_unpacked() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(b"a 1\n").unwrap();
    let packed = encoder.finish().unwrap();
    let (_, body) =
        fetch("", move |_| response("200 OK", "Content-Encoding: gzip\r\n", &packed)).await.unwrap();
    assert_eq!(body, b"a 1\n");
    let error =
        fetch("", |_| response("200 OK", "Content-Encoding: gzip\r\n", b"not gzip")).await.unwrap_err();
    assert!(matches!(error, FetchError::Other(reason) if reason.starts_with("gzip: ")));
}

#[tokio::test]
async fn failures_say_what_happened() {
    let error = fetch("", |_| response("404 Not Found", "", b"")).await.unwrap_err();
    assert_eq!(error, FetchError::Other("server returned HTTP status 404 Not Found".to_owned()));
    let error = fetch("  body_size_limit: 4B\n", |_| page("a 1\n")).await.unwrap_err();
    assert_eq!(error, FetchError::OverBodyLimit);
    let error = fetch("  scrape_timeout: 20ms\n", |_| Vec::new()).await.unwrap_err();
    assert!(
        matches!(&error, FetchError::Other(e) if e.ends_with("/metrics\": context deadline exceeded")),
        "{error:?}"
    );
    let error =
        fetch("  follow_redirects: false\n", |_| response("302 Found", "Location: /y\r\n", b"")).await;
    assert_eq!(error.unwrap_err(), FetchError::Other("server returned HTTP status 302 Found".to_owned()));

    let config = job("");
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let target = target(&config, &closed.to_string());
    let error = PageClient::try_new(&config).unwrap().fetch(&target, &mut Vec::new()).await.unwrap_err();
    assert!(matches!(&error, FetchError::Other(e) if e.contains("refused")), "{error:?}");
}

#[tokio::test]
async fn passwords_in_files_are_read_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "one\n").unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let address = serve(move |request| {
        let line = request.lines().find(|l| l.to_lowercase().starts_with("authorization")).unwrap();
        log.lock().push(line.split_once(' ').unwrap().1.to_owned());
        page("a 1\n")
    })
    .await;
    let config = job(&format!("  authorization: {{credentials_file: '{}'}}\n", path.display()));
    let target = target(&config, &address);
    let client = PageClient::try_new(&config).unwrap();
    client.fetch(&target, &mut Vec::new()).await.unwrap();
    std::fs::write(&path, "two").unwrap();
    client.fetch(&target, &mut Vec::new()).await.unwrap();
    assert_eq!(*seen.lock(), ["Bearer one", "Bearer two"]);
}
