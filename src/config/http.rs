//! The keys of an HTTP client, which stand inline wherever there is one.

use std::fmt;
use std::path::{Path, PathBuf};

use super::join_directory;
use super::reader::{Notes, Result, Section};

/// Text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// A text that is written out, or in a file that is read at every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordSource {
    /// Written out.
    Inline(Secret),
    /// The content of a file, without surrounding blanks.
    File(PathBuf),
}

/// How to say who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthConfig {
    /// `basic_auth`
    Basic {
        /// The user; a name in a file is allowed, so it is the same type as the password.
        username: PasswordSource,
        /// The password.
        password: PasswordSource,
    },
    /// `authorization`, or `bearer_token`.
    Header {
        /// Scheme, `Bearer` by default.
        kind: String,
        /// What follows the scheme.
        credentials: PasswordSource,
    },
}

/// `tls_config`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsConfig {
    /// Certificates to trust, PEM.
    pub ca: Option<PasswordSource>,
    /// Certificate to show, PEM.
    pub cert: Option<PasswordSource>,
    /// Its key, PEM.
    pub key: Option<PasswordSource>,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
}

/// How to make requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpClientConfig {
    /// How to say who asks.
    pub auth: Option<AuthConfig>,
    /// TLS settings.
    pub tls: TlsConfig,
    /// Whether to follow redirects.
    pub follow_redirects: bool,
    /// Whether HTTP/2 may be used where a target offers it.
    pub enable_http2: bool,
}

impl Default for HttpClientConfig {
    fn default() -> Self {
        Self { auth: None, tls: TlsConfig::default(), follow_redirects: true, enable_http2: true }
    }
}

impl HttpClientConfig {
    pub(super) fn read(section: &mut Section, directory: &Path, notes: &mut Notes) -> Result<Self> {
        let default = Self::default();
        let at = section.at.clone();
        let oauth2 = section.take("oauth2");
        if let Some(item) = &oauth2 {
            notes.warn(&item.at, "not supported yet; ignored");
        }
        let basic = match section.section(notes, "basic_auth")? {
            Some(basic) => Some(read_basic(basic, directory, notes)?),
            None => None,
        };
        let authorization = match section.section(notes, "authorization")? {
            Some(authorization) => Some(read_authorization(authorization, directory, notes)?),
            None => None,
        };
        let has_bearer = source(section, notes, directory, "bearer_token", "bearer_token_file", "")?;
        if authorization.is_some() && has_bearer.is_some() {
            return Err(
                notes.error(&at, "authorization is not compatible with bearer_token & bearer_token_file")
            );
        }
        if has_bearer.is_some() && (basic.is_some() || oauth2.is_some()) {
            return Err(notes.error(
                &at,
                "at most one of basic_auth, oauth2, bearer_token & bearer_token_file must be configured",
            ));
        }
        let schemes = [basic.is_some(), authorization.is_some(), oauth2.is_some()];
        if schemes.iter().filter(|set| **set).count() > 1 {
            return Err(
                notes.error(&at, "at most one of basic_auth, oauth2 & authorization must be configured")
            );
        }
        let bearer =
            has_bearer.map(|credentials| AuthConfig::Header { kind: "Bearer".to_owned(), credentials });
        let tls = match section.section(notes, "tls_config")? {
            Some(tls) => read_tls(tls, directory, notes)?,
            None => TlsConfig::default(),
        };
        for key in ["proxy_url", "no_proxy", "proxy_connect_header", "http_headers"] {
            section.unserved(notes, key);
        }
        section.unserved_flag(notes, "proxy_from_environment")?;
        Ok(Self {
            auth: basic.or(authorization).or(bearer),
            tls,
            follow_redirects: section.bool(notes, "follow_redirects")?.unwrap_or(default.follow_redirects),
            enable_http2: section.bool(notes, "enable_http2")?.unwrap_or(default.enable_http2),
        })
    }
}

/// A text under `key`, or in the file under `file_key`; `of` names the section in the error.
fn source(
    section: &mut Section,
    notes: &Notes,
    directory: &Path,
    key: &str,
    file_key: &str,
    of: &str,
) -> Result<Option<PasswordSource>> {
    let inline = section.string(notes, key)?.filter(|s| !s.is_empty());
    let file = section.string(notes, file_key)?.filter(|s| !s.is_empty());
    match (inline, file) {
        (Some(_), Some(_)) => {
            let reason = format!("at most one of {of}{key} & {file_key} must be configured");
            Err(notes.error(&section.at, reason))
        }
        (Some(text), None) => Ok(Some(PasswordSource::Inline(Secret(text)))),
        (None, Some(file)) => Ok(Some(PasswordSource::File(PathBuf::from(join_directory(directory, &file))))),
        (None, None) => Ok(None),
    }
}

fn read_basic(mut section: Section, directory: &Path, notes: &mut Notes) -> Result<AuthConfig> {
    let empty = || PasswordSource::Inline(Secret(String::new()));
    let of = "basic_auth ";
    let username = source(&mut section, notes, directory, "username", "username_file", of)?;
    let password = source(&mut section, notes, directory, "password", "password_file", of)?;
    section.unserved(notes, "username_ref");
    section.unserved(notes, "password_ref");
    section.finish(notes)?;
    Ok(AuthConfig::Basic {
        username: username.unwrap_or_else(empty),
        password: password.unwrap_or_else(empty),
    })
}

fn read_authorization(mut section: Section, directory: &Path, notes: &mut Notes) -> Result<AuthConfig> {
    let at = section.at.clone();
    let kind = section.string(notes, "type")?.map(|k| k.trim().to_owned()).filter(|k| !k.is_empty());
    let kind = kind.unwrap_or_else(|| "Bearer".to_owned());
    if kind.eq_ignore_ascii_case("basic") {
        let reason = "authorization type cannot be set to \"basic\", use \"basic_auth\" instead";
        return Err(notes.error(&at, reason));
    }
    let credentials =
        source(&mut section, notes, directory, "credentials", "credentials_file", "authorization ")?;
    section.unserved(notes, "credentials_ref");
    section.finish(notes)?;
    let credentials = credentials.unwrap_or_else(|| PasswordSource::Inline(Secret(String::new())));
    Ok(AuthConfig::Header { kind, credentials })
}

fn read_tls(mut section: Section, directory: &Path, notes: &mut Notes) -> Result<TlsConfig> {
    let at = section.at.clone();
    let tls = TlsConfig {
        ca: source(&mut section, notes, directory, "ca", "ca_file", "")?,
        cert: source(&mut section, notes, directory, "cert", "cert_file", "")?,
        key: source(&mut section, notes, directory, "key", "key_file", "")?,
        insecure_skip_verify: section.bool(notes, "insecure_skip_verify")?.unwrap_or_default(),
    };
    if tls.cert.is_some() != tls.key.is_some() {
        return Err(notes.error(&at, "exactly one of key or key_file must be configured when a client certificate is configured, and vice versa"));
    }
    for key in ["server_name", "min_version", "max_version", "ca_ref", "cert_ref", "key_ref"] {
        section.unserved(notes, key);
    }
    section.finish(notes)?;
    Ok(tls)
}
