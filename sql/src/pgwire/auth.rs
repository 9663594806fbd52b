//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's half, against verifiers in Postgres' format.
//!
//! Ours and not pgwire's, because that one keeps the salted password, which is as good as the
//! password to whoever steals it; a verifier only lets the server check. There is no channel
//! binding, because there is no TLS.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::startup::PasswordMessageFamily;
use ring::{digest, hmac, pbkdf2};

use super::sqlstate;
use crate::SqlError;

/// The only mechanism on offer.
pub(super) const MECHANISM: &str = "SCRAM-SHA-256";

/// As many as Postgres 15 takes by default.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("not zero");
const HASH_BYTES: usize = digest::SHA256_OUTPUT_LEN;

/// What the server keeps instead of a password:
/// `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`, as in Postgres' `pg_authid`.
#[derive(Clone)]
pub struct ScramVerifier {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored_key: [u8; HASH_BYTES],
    server_key: [u8; HASH_BYTES],
}

impl ScramVerifier {
    /// The verifier of `password`, with a fresh salt.
    ///
    /// The password is taken as it is; for ASCII that is what SASLprep would make of it.
    pub fn from_password(password: &str) -> Self {
        let salt: [u8; 16] = rand::random();
        Self::derive(password, salt.to_vec(), ITERATIONS)
    }

    fn derive(password: &str, salt: Vec<u8>, iterations: NonZeroU32) -> Self {
        let mut salted = [0; HASH_BYTES];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
        let client_key = sign(&salted, b"Client Key");
        Self { iterations, salt, stored_key: hash(&client_key), server_key: sign(&salted, b"Server Key") }
    }

    /// Reads a verifier that belongs to `user` from text.
    ///
    /// # Errors
    /// [`SqlError::User`] if the text is not in Postgres' format.
    pub fn parse(user: &str, text: &str) -> Result<Self, SqlError> {
        Self::parse_text(text).map_err(|reason| SqlError::User { user: user.to_owned(), reason })
    }

    fn parse_text(text: &str) -> Result<Self, &'static str> {
        let rest = text.strip_prefix("SCRAM-SHA-256$").ok_or("a verifier begins with SCRAM-SHA-256$")?;
        let (salted, keys) = rest.split_once('$').ok_or("the keys are missing")?;
        let (iterations, salt) = salted.split_once(':').ok_or("the salt is missing")?;
        let (stored, server) = keys.split_once(':').ok_or("the server key is missing")?;
        Ok(Self {
            iterations: iterations.parse().map_err(|_| "the iteration count is not a positive number")?,
            salt: BASE64.decode(salt).map_err(|_| "the salt is not base64")?,
            stored_key: key(stored).ok_or("the stored key is not 32 bytes of base64")?,
            server_key: key(server).ok_or("the server key is not 32 bytes of base64")?,
        })
    }

    /// A verifier that no password fits, always the same one for a name, so that a client cannot
    /// tell whether there is such a user.
    fn mock(user: &str, mock_key: &[u8]) -> Self {
        let salt = sign(mock_key, user.as_bytes());
        let stored_key = rand::random();
        Self { iterations: ITERATIONS, salt: salt[..16].to_vec(), stored_key, server_key: rand::random() }
    }
}

/// The text that [`ScramVerifier::parse`] reads.
impl fmt::Display for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] =
            [&self.salt[..], &self.stored_key, &self.server_key].map(|bytes| BASE64.encode(bytes));
        write!(f, "SCRAM-SHA-256${}:{salt}${stored}:{server}", self.iterations)
    }
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramVerifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

fn key(text: &str) -> Option<[u8; HASH_BYTES]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

fn sign(key: &[u8], message: &[u8]) -> [u8; HASH_BYTES] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
}

fn hash(bytes: &[u8]) -> [u8; HASH_BYTES] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// A login that waits for the client's proof.
#[derive(Debug)]
pub(super) struct Exchange {
    user: String,
    verifier: ScramVerifier,
    /// Whether there is such a user at all.
    known: bool,
    gs2_header: String,
    nonce: String,
    /// The two messages so far, as both sides sign them.
    said: String,
}

impl Exchange {
    /// Answers the client's first message with a challenge.
    ///
    /// # Errors
    /// If the message is malformed, or insists on channel binding.
    pub(super) fn begin(
        user: &str,
        verifier: Option<&ScramVerifier>,
        mock_key: &[u8],
        first: &str,
    ) -> PgWireResult<(Self, String)> {
        let nonce = BASE64.encode(rand::random::<[u8; 18]>());
        Self::begin_with(user, verifier, mock_key, first, &nonce)
    }

    fn begin_with(
        user: &str,
        verifier: Option<&ScramVerifier>,
        mock_key: &[u8],
        first: &str,
        own_nonce: &str,
    ) -> PgWireResult<(Self, String)> {
        // `n` or `y`, no authorization identity, then `n=<user>,r=<nonce>`. Postgres clients leave
        // the user empty: the startup message has said it.
        let bare = first
            .strip_prefix("n,,")
            .or_else(|| first.strip_prefix("y,,"))
            .ok_or_else(|| malformed("channel binding and authorization identities are not supported"))?;
        let client_nonce = bare
            .split(',')
            .nth(1)
            .and_then(|part| part.strip_prefix("r="))
            .filter(|nonce| !nonce.is_empty())
            .ok_or_else(|| malformed("the client's nonce is missing"))?;
        let known = verifier.is_some();
        let verifier = verifier.cloned().unwrap_or_else(|| ScramVerifier::mock(user, mock_key));
        let nonce = format!("{client_nonce}{own_nonce}");
        let challenge = format!("r={nonce},s={},i={}", BASE64.encode(&verifier.salt), verifier.iterations);
        let exchange = Self {
            user: user.to_owned(),
            verifier,
            known,
            gs2_header: first[..3].to_owned(),
            nonce,
            said: format!("{bare},{challenge}"),
        };
        Ok((exchange, challenge))
    }

    /// Checks the client's proof; the answer proves that the server knows the verifier.
    ///
    /// # Errors
    /// SQLSTATE 28P01 if the password is wrong or there is no such user.
    pub(super) fn finish(&self, last: &str) -> PgWireResult<String> {
        let (unproved, proof) =
            last.rsplit_once(",p=").ok_or_else(|| malformed("the client's proof is missing"))?;
        let binding = unproved.split(',').find_map(|part| part.strip_prefix("c="));
        if binding != Some(BASE64.encode(&self.gs2_header).as_str()) {
            return Err(malformed("the channel binding changed during login"));
        }
        let nonce = unproved.split(',').find_map(|part| part.strip_prefix("r="));
        if nonce != Some(self.nonce.as_str()) {
            return Err(malformed("the nonce changed during login"));
        }
        let proof = key(proof).ok_or_else(|| malformed("the client's proof is not 32 bytes of base64"))?;
        let message = format!("{},{unproved}", self.said);
        let mut client_key = sign(&self.verifier.stored_key, message.as_bytes());
        client_key.iter_mut().zip(proof).for_each(|(byte, proof)| *byte ^= proof);
        let right = same(&hash(&client_key), &self.verifier.stored_key);
        if !(right && self.known) {
            let message = format!("password authentication failed for user {:?}", self.user);
            return Err(sqlstate::fatal("28P01", message));
        }
        Ok(format!("v={}", BASE64.encode(sign(&self.verifier.server_key, message.as_bytes()))))
    }
}

/// Equality in a time that does not depend on where the difference is.
fn same(a: &[u8; HASH_BYTES], b: &[u8; HASH_BYTES]) -> bool {
    a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

fn malformed(reason: &str) -> PgWireError {
    sqlstate::fatal("08P01", format!("malformed SCRAM message: {reason}"))
}

/// The data of a SASLInitialResponse: a C string with the mechanism, an i32 length, the data.
///
/// Read here, because pgwire's own decoder panics on a short message.
pub(super) fn initial_response(message: PasswordMessageFamily) -> PgWireResult<String> {
    let body = body(message)?;
    let end = body.iter().position(|&b| b == 0).ok_or_else(|| malformed("the mechanism has no end"))?;
    let (mechanism, rest) = body.split_at(end);
    if mechanism != MECHANISM.as_bytes() {
        return Err(malformed("SCRAM-SHA-256 is the only mechanism"));
    }
    let data = rest.get(5..).ok_or_else(|| malformed("the message is cut short"))?;
    text(data)
}

/// The data of a SASLResponse, which is all of it.
pub(super) fn response(message: PasswordMessageFamily) -> PgWireResult<String> {
    text(&body(message)?)
}

fn body(message: PasswordMessageFamily) -> PgWireResult<Vec<u8>> {
    match message {
        PasswordMessageFamily::Raw(body) => Ok(body.to_vec()),
        _ => Err(malformed("unexpected kind of message")),
    }
}

fn text(bytes: &[u8]) -> PgWireResult<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed("not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_exchange_of_rfc_7677_succeeds() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let verifier = ScramVerifier::derive("pencil", salt, ITERATIONS);
        let (exchange, challenge) = Exchange::begin_with(
            "user",
            Some(&verifier),
            b"",
            "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        )
        .expect("begins");
        assert_eq!(
            challenge,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(exchange.finish(last).expect("proved"), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        let wrong = last.replace("p=dH", "p=dI");
        assert!(exchange.finish(&wrong).is_err());
    }

    #[test]
    fn a_verifier_survives_its_text_form() {
        let text = ScramVerifier::from_password("s3cret").to_string();
        assert_eq!(ScramVerifier::parse("u", &text).expect("parses").to_string(), text);
        for broken in ["", "md5abc", "SCRAM-SHA-256$4096:AA==$AA==:AA==", "SCRAM-SHA-256$0:AA==$x:y"] {
            assert!(ScramVerifier::parse("u", broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn short_messages_are_errors_and_no_panics() {
        for body in
            [&b""[..], b"SCRAM-SHA-256", b"SCRAM-SHA-256\0", b"SCRAM-SHA-256\0\0\0", b"PLAIN\0\0\0\0\0"]
        {
            assert!(initial_response(PasswordMessageFamily::Raw(body.into())).is_err(), "{body:?}");
        }
        let first = Exchange::begin("u", None, b"", "n,,n=,r=abc").expect("begins").0;
        for last in ["", "c=biws", "c=biws,r=abc,p=", "p=AAAA", ",p=,p="] {
            assert!(first.finish(last).is_err(), "{last:?}");
        }
    }
}
