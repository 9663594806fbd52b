//! [`Login`]: user and password of whoever asks for SQL elsewhere than on the Postgres wire.

use std::sync::Arc;

use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, Engine as _, GeneralPurpose, GeneralPurposeConfig};
use promontory_sql::{Access, SqlQueries};
use tokio::runtime::Handle;

/// With padding, or without as Go's Flight client leaves it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What somebody says of themselves.
pub(crate) struct Login {
    pub(crate) user: String,
    password: String,
}

impl Login {
    /// Reads the value of an `Authorization` header; `None` if it is no basic authentication.
    pub(crate) fn from_basic(value: &str) -> Option<Self> {
        let (scheme, encoded) = value.split_once(' ')?;
        let decoded = BASE64.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        let text = String::from_utf8(decoded).ok()?;
        text.split_once(':')
            .map(|(user, password)| Self { user: user.to_owned(), password: password.to_owned() })
    }

    /// What they may read, and their name; `None` if they are not who they say. Computes on a thread of
    /// `runtime` that may block.
    pub(crate) async fn check(self, queries: &Arc<SqlQueries>, runtime: &Handle) -> Option<(Access, String)> {
        let queries = Arc::clone(queries);
        let checked = runtime
            .spawn_blocking(move || queries.log_in(&self.user, &self.password).map(|a| (a, self.user)));
        checked.await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_read_with_padding_and_without() {
        for header in ["Basic YW5uOnBlbmNpbA==", "basic YW5uOnBlbmNpbA"] {
            let login = Login::from_basic(header).expect(header);
            assert_eq!((login.user.as_str(), login.password.as_str()), ("ann", "pencil"));
        }
        for header in ["", "Basic", "Basic YW5u", "Bearer YW5uOnBlbmNpbA==", "Basic %%%"] {
            assert!(Login::from_basic(header).is_none(), "{header}");
        }
    }
}
