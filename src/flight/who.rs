//! [`Door`]: who asks, told by a password once and by a token from then on.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use promontory_sql::{Access, SqlQueries};
use ring::hmac;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

use crate::sql_login::Login;

/// Passwords that are checked at the same time; it takes computing, on purpose.
const LOGINS_AT_ONCE: usize = 4;

const AUTHORIZATION: &str = "authorization";
const BEARER: &str = "Bearer ";

/// Somebody who is known.
#[derive(Debug, Clone)]
pub(super) struct Who {
    /// Empty where nobody needs to say who they are.
    pub(super) name: String,
    pub(super) access: Access,
}

/// Lets in whom the configuration names.
#[derive(Clone)]
pub(super) struct Door {
    queries: Arc<SqlQueries>,
    runtime: Handle,
    logins: Arc<Semaphore>,
    /// Of this process only: a token does not outlive it.
    key: Arc<hmac::Key>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

impl Door {
    pub(super) fn new(queries: Arc<SqlQueries>, runtime: Handle) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>());
        Self { queries, runtime, logins: Arc::new(Semaphore::new(LOGINS_AT_ONCE)), key: Arc::new(key) }
    }

    /// The `authorization` header for the calls of whoever `headers`, those of a handshake, say.
    pub(super) async fn greet(&self, headers: &MetadataMap) -> Result<MetadataValue<Ascii>, Status> {
        let login = header(headers).and_then(Login::from_basic);
        let name = if self.queries.is_open() {
            login.map(|login| login.user).unwrap_or_default()
        } else {
            let login = login.ok_or_else(|| refused("a user and a password are needed"))?;
            let user = login.user.clone();
            let _turn =
                self.logins.acquire().await.map_err(|_| Status::unavailable("the server is going down"))?;
            let known = login.check(&self.queries, &self.runtime).await;
            known.ok_or_else(|| refused(&format!("password authentication failed for user {user:?}")))?.1
        };
        let header = format!("{BEARER}{}", self.token(&name));
        MetadataValue::try_from(header).map_err(|_| Status::internal("a token is base64"))
    }

    /// Who makes a call with `headers`.
    ///
    /// # Errors
    /// Without a token that this server gave out, unless nobody needs one.
    pub(super) fn who(&self, headers: &MetadataMap) -> Result<Who, Status> {
        let token = header(headers).and_then(|value| value.strip_prefix(BEARER));
        let name = token.and_then(|token| self.name(token));
        let name = match name {
            Some(name) => name,
            None if self.queries.is_open() => String::new(),
            None => return Err(refused("log in first: the token is missing, or not of this server")),
        };
        let access = self.queries.access_of(&name).ok_or_else(|| refused("there is no such user"))?;
        Ok(Who { name, access })
    }

    /// The name, and its signature.
    fn token(&self, name: &str) -> String {
        let signature = hmac::sign(&self.key, name.as_bytes());
        format!("{}.{}", BASE64.encode(name), BASE64.encode(signature))
    }

    fn name(&self, token: &str) -> Option<String> {
        let (name, signature) = token.split_once('.')?;
        let (name, signature) = (BASE64.decode(name).ok()?, BASE64.decode(signature).ok()?);
        hmac::verify(&self.key, &name, &signature).ok()?;
        String::from_utf8(name).ok()
    }
}

fn header(headers: &MetadataMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()
}

fn refused(why: &str) -> Status {
    Status::unauthenticated(format!("{why} (SQLSTATE 28P01)"))
}

#[cfg(test)]
mod tests {
    use promontory_sql::{ScramVerifier, SqlCatalog, SqlUser};
    use promontory_tsdb::ManualClock;
    use promontory_tsdb::memory::MemoryStorage;

    use super::*;

    fn door() -> Door {
        let source = Arc::new(MemoryStorage::new());
        let catalog = SqlCatalog::new(source, Arc::new(ManualClock::new(0)));
        let user = SqlUser {
            name: "ann".to_owned(),
            verifier: ScramVerifier::from_password("pencil"),
            access: Access::reading(),
        };
        let queries = SqlQueries::new(catalog, Handle::current(), vec![user], None);
        Door::new(Arc::new(queries), Handle::current())
    }

    fn with(value: &str) -> MetadataMap {
        let mut headers = MetadataMap::new();
        headers.insert(AUTHORIZATION, value.parse().expect(value));
        headers
    }

    #[tokio::test]
    async fn a_token_is_worth_what_it_says_only_under_the_signature_of_this_process() {
        let (here, elsewhere) = (door(), door());
        let basic =
            |login: &str| with(&format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login)));
        let token = here.greet(&basic("ann:pencil")).await.expect("knows her");
        let token = token.to_str().expect("base64").to_owned();
        assert_eq!(here.who(&with(&token)).expect("knows her").name, "ann");
        assert!(elsewhere.who(&with(&token)).is_err());
        let (name, signature) =
            token.strip_prefix(BEARER).and_then(|t| t.split_once('.')).expect("two parts");
        for forged in [
            format!("{BEARER}{}.{signature}", BASE64.encode("bob")),
            format!("{BEARER}{name}."),
            format!("{BEARER}{name}"),
            format!("{BEARER}.{signature}"),
            format!("{BEARER}%%%.%%%"),
            BEARER.to_owned(),
            "Basic YW5uOnBlbmNpbA==".to_owned(),
        ] {
            assert!(here.who(&with(forged.trim_end())).is_err(), "{forged}");
        }
        assert!(here.who(&MetadataMap::new()).is_err());
        for wrong in ["ann:pen", "bob:pencil", "ann", ":"] {
            assert!(here.greet(&basic(wrong)).await.is_err(), "{wrong}");
        }
        assert!(here.greet(&MetadataMap::new()).await.is_err());
    }
}
