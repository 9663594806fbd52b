//! Fetches pages.

use std::io::{self, Write};
use std::sync::Arc;

use flate2::write::MultiGzDecoder;
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, Identity, RequestBuilder, redirect};

use super::target::Target;
use crate::config::{AuthConfig, HttpClientConfig, PasswordSource, ScrapeConfig, ScrapeProtocol, TlsConfig};

const USER_AGENT: &str = concat!("Promontory/", env!("CARGO_PKG_VERSION"));

/// How long an idle connection is kept; longer than any usual interval.
const IDLE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(300);

/// Highest weight in an `Accept` header: one more than there are formats, as upstream counts.
const FIRST_WEIGHT: usize = 6;

/// Makes the requests of a job; keeps connections to its targets open.
#[derive(Debug)]
pub(super) struct PageClient {
    client: Client,
    auth: Option<AuthConfig>,
    body_limit_bytes: u64,
}

/// Why there is no page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FetchError {
    /// The uncompressed page is too long.
    OverBodyLimit,
    /// Anything else, in words.
    Other(String),
}

impl PageClient {
    /// A client for `config`.
    ///
    /// # Errors
    /// If certificates cannot be read.
    pub(super) fn try_new(config: &ScrapeConfig) -> Result<Self, String> {
        let redirects = match config.http.follow_redirects {
            true => redirect::Policy::limited(10),
            false => redirect::Policy::none(),
        };
        let builder = Client::builder()
            .user_agent(USER_AGENT)
            .default_headers(headers(config)?)
            .redirect(redirects)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .http1_only()
            .no_proxy();
        let client = with_tls(builder, &config.http)?
            .build()
            .map_err(|e| format!("error creating HTTP client: {}", innermost(&e)))?;
        Ok(Self { client, auth: config.http.auth.clone(), body_limit_bytes: config.limits.body_size_bytes })
    }

    /// Fetches the page of `target` into `body`, within the target's timeout; returns its
    /// `Content-Type`.
    pub(super) async fn fetch(&self, target: &Target, body: &mut Vec<u8>) -> Result<String, FetchError> {
        match tokio::time::timeout(target.timeout, self.fetch_unhurried(target, body)).await {
            Ok(result) => result,
            Err(_) => Err(failed(target, "context deadline exceeded")),
        }
    }

    async fn fetch_unhurried(&self, target: &Target, body: &mut Vec<u8>) -> Result<String, FetchError> {
        let request = self
            .client
            .get(target.url.clone())
            .header("X-Prometheus-Scrape-Timeout-Seconds", target.timeout.as_secs_f64().to_string());
        let request = authorize(request, self.auth.as_ref()).await.map_err(|e| failed(target, &e))?;
        let mut response = request.send().await.map_err(|e| failed(target, &innermost(&e)))?;
        let status = response.status();
        if status != reqwest::StatusCode::OK {
            let reason = status.canonical_reason().unwrap_or_default();
            return Err(FetchError::Other(format!(
                "server returned HTTP status {} {reason}",
                status.as_u16()
            )));
        }
        let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let content_type = header(CONTENT_TYPE).to_owned();
        let is_gzip = header(CONTENT_ENCODING) == "gzip";
        body.clear();
        let page = Limited { body: std::mem::take(body), limit_bytes: self.body_limit_bytes };
        let mut sink =
            if is_gzip { Sink::Gzip(Box::new(MultiGzDecoder::new(page))) } else { Sink::Plain(page) };
        while let Some(chunk) = response.chunk().await.map_err(|e| failed(target, &innermost(&e)))? {
            sink.write(&chunk)?;
        }
        *body = sink.finish()?;
        Ok(content_type)
    }
}

fn failed(target: &Target, reason: &str) -> FetchError {
    FetchError::Other(format!("Get {:?}: {reason}", target.key.shown_url))
}

/// The last cause in the chain, which says what happened rather than what was tried.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// A page that ends in an error once it reaches the limit. Zero is no limit.
#[derive(Debug)]
struct Limited {
    body: Vec<u8>,
    limit_bytes: u64,
}

/// Marks the error of [`Limited`] among other I/O errors.
#[derive(Debug, thiserror::Error)]
#[error("body size limit exceeded")]
struct OverLimit;

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.limit_bytes > 0 && (self.body.len() + bytes.len()) as u64 >= self.limit_bytes {
            return Err(io::Error::other(OverLimit));
        }
        self.body.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Sink {
    Plain(Limited),
    Gzip(Box<MultiGzDecoder<Limited>>),
}

impl Sink {
    fn write(&mut self, chunk: &[u8]) -> Result<(), FetchError> {
        match self {
            Self::Plain(page) => page.write_all(chunk),
            Self::Gzip(decoder) => decoder.write_all(chunk),
        }
        .map_err(io_error)
    }

    fn finish(self) -> Result<Vec<u8>, FetchError> {
        match self {
            Self::Plain(page) => Ok(page.body),
            Self::Gzip(decoder) => decoder.finish().map(|page| page.body).map_err(io_error),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is the argument of `map_err`")]
fn io_error(error: io::Error) -> FetchError {
    match error.get_ref() {
        Some(inner) if inner.is::<OverLimit>() => FetchError::OverBodyLimit,
        _ => FetchError::Other(format!("gzip: {error}")),
    }
}

fn headers(config: &ScrapeConfig) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let accept = accept(&config.scrape_protocols, config.name_escaping.as_str());
    headers.insert(ACCEPT, HeaderValue::from_str(&accept).map_err(|e| e.to_string())?);
    let encoding = if config.enable_compression { "gzip" } else { "identity" };
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(encoding));
    Ok(headers)
}

/// The formats by weight; only the newer versions know what escaping is.
fn accept(protocols: &[ScrapeProtocol], escaping: &str) -> String {
    let mut weight = FIRST_WEIGHT;
    let mut out = String::new();
    for protocol in protocols {
        out.push_str(protocol.media_type());
        if matches!(protocol, ScrapeProtocol::PrometheusText1_0_0 | ScrapeProtocol::OpenMetricsText1_0_0) {
            out.push_str(&format!(";escaping={escaping}"));
        }
        out.push_str(&format!(";q=0.{weight},"));
        weight -= 1;
    }
    out.push_str(&format!("*/*;q=0.{weight}"));
    out
}

fn with_tls(
    mut builder: reqwest::ClientBuilder,
    http: &HttpClientConfig,
) -> Result<reqwest::ClientBuilder, String> {
    let TlsConfig { ca, cert, key, insecure_skip_verify } = &http.tls;
    if let Some(ca) = ca {
        let pem = read_now(ca)?;
        let certificates = Certificate::from_pem_bundle(pem.as_bytes())
            .map_err(|e| format!("unable to use specified CA cert: {}", innermost(&e)))?;
        builder = builder.tls_built_in_root_certs(false);
        for certificate in certificates {
            builder = builder.add_root_certificate(certificate);
        }
    }
    if let (Some(cert), Some(key)) = (cert, key) {
        let pem = format!("{}\n{}", read_now(cert)?, read_now(key)?);
        let identity = Identity::from_pem(pem.as_bytes())
            .map_err(|e| format!("unable to use specified client cert and key: {}", innermost(&e)))?;
        builder = builder.identity(identity);
    }
    Ok(builder.danger_accept_invalid_certs(*insecure_skip_verify))
}

fn read_now(source: &PasswordSource) -> Result<String, String> {
    match source {
        PasswordSource::Inline(text) => Ok(text.reveal().to_owned()),
        PasswordSource::File(path) => {
            std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
        }
    }
}

/// Files are read at every request, so that a rotated password is used at once.
async fn read(source: &PasswordSource) -> Result<String, String> {
    match source {
        PasswordSource::Inline(text) => Ok(text.reveal().to_owned()),
        PasswordSource::File(path) => tokio::fs::read_to_string(path)
            .await
            .map(|text| text.trim().to_owned())
            .map_err(|e| format!("cannot read {}: {e}", path.display())),
    }
}

async fn authorize(request: RequestBuilder, auth: Option<&AuthConfig>) -> Result<RequestBuilder, String> {
    match auth {
        None => Ok(request),
        Some(AuthConfig::Basic { username, password }) => {
            Ok(request.basic_auth(read(username).await?, Some(read(password).await?)))
        }
        Some(AuthConfig::Header { kind, credentials }) => {
            let value = format!("{kind} {}", read(credentials).await?);
            let mut value = HeaderValue::from_str(&value)
                .map_err(|_| "credentials hold a character that a header may not".to_owned())?;
            value.set_sensitive(true);
            Ok(request.header(reqwest::header::AUTHORIZATION, value))
        }
    }
}

/// Buffers for pages, shared by all loops: a page lives for milliseconds, a loop for days.
#[derive(Debug, Default, Clone)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// How many to keep for the next scrapes.
    const KEPT: usize = 8;
    /// What is bigger than this goes back to the allocator.
    const KEPT_BYTES: usize = 4 << 20;

    pub(super) fn take(&self) -> Vec<u8> {
        self.0.lock().pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = self.0.lock();
        if kept.len() < Self::KEPT && buffer.capacity() <= Self::KEPT_BYTES {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_lists_formats_by_weight() {
        assert_eq!(
            accept(&ScrapeProtocol::DEFAULT, "allow-utf-8"),
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        );
    }

    #[test]
    fn the_body_limit_counts_uncompressed_bytes() {
        use flate2::write::GzEncoder;
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&[b'a'; 100_000]).unwrap();
        let packed = encoder.finish().unwrap();
        assert!(packed.len() < 1000);
        let unpack = |limit_bytes| {
            let page = Limited { body: Vec::new(), limit_bytes };
            let mut sink = Sink::Gzip(Box::new(MultiGzDecoder::new(page)));
            packed.chunks(10).try_for_each(|chunk| sink.write(chunk))?;
            sink.finish().map(|body| body.len())
        };
        assert_eq!(unpack(0), Ok(100_000));
        assert_eq!(unpack(100_001), Ok(100_000));
        assert_eq!(unpack(100_000), Err(FetchError::OverBodyLimit));
    }
}
