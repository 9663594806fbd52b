//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's half, against verifiers in Postgres' format.
//!
//! Ours and not pgwire's, because that one keeps the salted password, which is as good as the
//! password to whoever steals it; a verifier only lets the server check. On an encrypted channel the
//! login can be bound to the server's certificate (`tls-server-end-point`, RFC 5929), so that nobody in
//! between can pass it on.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::startup::PasswordMessageFamily;
use ring::{digest, hmac, pbkdf2};

use super::sqlstate;
use crate::SqlError;

const PLAIN: &str = "SCRAM-SHA-256";
const BOUND: &str = "SCRAM-SHA-256-PLUS";

/// The mechanisms on offer, best first, on a channel identified by `binding`.
pub(super) fn mechanisms(binding: Option<&[u8]>) -> Vec<String> {
    let bound = binding.map(|_| BOUND.to_owned());
    bound.into_iter().chain([PLAIN.to_owned()]).collect()
}

/// What the client says first: a mechanism, and that mechanism's first message.
#[derive(Debug)]
pub(super) struct First {
    bound: bool,
    message: String,
}

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

    /// Whether it was made from `password`. Takes some milliseconds of computing.
    pub fn fits(&self, password: &str) -> bool {
        let derived = Self::derive(password, self.salt.clone(), self.iterations);
        same(&derived.stored_key, &self.stored_key)
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
    /// What the client must repeat: how it said that it binds, and to which channel.
    binding: Vec<u8>,
    nonce: String,
    /// The two messages so far, as both sides sign them.
    said: String,
}

impl Exchange {
    /// Answers the client's first message with a challenge, on a channel identified by `binding`.
    ///
    /// # Errors
    /// If the message is malformed, binds to what this channel is not, or believes that the server
    /// cannot bind although it offered to: then somebody in between took the offer away.
    pub(super) fn begin(
        user: &str,
        verifier: Option<&ScramVerifier>,
        mock_key: &[u8],
        first: &First,
        binding: Option<&[u8]>,
    ) -> PgWireResult<(Self, String)> {
        let nonce = BASE64.encode(rand::random::<[u8; 18]>());
        Self::begin_with(user, verifier, mock_key, first, binding, &nonce)
    }

    fn begin_with(
        user: &str,
        verifier: Option<&ScramVerifier>,
        mock_key: &[u8],
        first: &First,
        binding: Option<&[u8]>,
        own_nonce: &str,
    ) -> PgWireResult<(Self, String)> {
        // How it binds, no authorization identity, then `n=<user>,r=<nonce>`. Postgres clients leave
        // the user empty: the startup message has said it.
        let (header, channel) = match (first.bound, binding) {
            (true, Some(channel)) => ("p=tls-server-end-point,,", channel),
            (true, None) => return Err(malformed("there is nothing to bind to")),
            (false, Some(_)) => ("n,,", &[][..]),
            (false, None) if first.message.starts_with('y') => ("y,,", &[][..]),
            (false, None) => ("n,,", &[][..]),
        };
        let bare = first.message.strip_prefix(header).ok_or_else(|| {
            malformed("this kind of channel binding, or an authorization identity, is not supported")
        })?;
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
            binding: [header.as_bytes(), channel].concat(),
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
        if binding != Some(BASE64.encode(&self.binding).as_str()) {
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
pub(super) fn initial_response(message: PasswordMessageFamily) -> PgWireResult<First> {
    let body = body(message)?;
    let end = body.iter().position(|&b| b == 0).ok_or_else(|| malformed("the mechanism has no end"))?;
    let (mechanism, rest) = body.split_at(end);
    let bound = mechanism == BOUND.as_bytes();
    if !bound && mechanism != PLAIN.as_bytes() {
        return Err(malformed("SCRAM-SHA-256 is the only mechanism"));
    }
    let data = rest.get(5..).ok_or_else(|| malformed("the message is cut short"))?;
    Ok(First { bound, message: text(data)? })
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

    fn unbound(message: &str) -> First {
        First { bound: false, message: message.to_owned() }
    }

    #[test]
    fn a_login_is_bound_to_its_channel_and_to_no_other() {
        let verifier = ScramVerifier::from_password("pencil");
        let begin = |bound, message: &str, channel: Option<&[u8]>| {
            let first = First { bound, message: message.to_owned() };
            Exchange::begin("u", Some(&verifier), b"", &first, channel).map(|(exchange, _)| exchange)
        };
        let exchange = begin(true, "p=tls-server-end-point,,n=,r=abc", Some(b"here")).expect("binds");
        let elsewhere = BASE64.encode(b"p=tls-server-end-point,,there");
        let last = format!("c={elsewhere},r={},p={}", exchange.nonce, BASE64.encode([0; 32]));
        let refused = exchange.finish(&last).expect_err("another channel").to_string();
        assert!(refused.contains("channel binding"), "{refused}");
        assert!(begin(false, "n,,n=,r=abc", Some(b"here")).is_ok());
        // It could bind, and was told that the server cannot.
        assert!(begin(false, "y,,n=,r=abc", Some(b"here")).is_err());
        assert!(begin(false, "y,,n=,r=abc", None).is_ok());
        assert!(begin(true, "p=tls-server-end-point,,n=,r=abc", None).is_err());
        assert!(begin(true, "p=tls-unique,,n=,r=abc", Some(b"here")).is_err());
    }

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_exchange_of_rfc_7677_succeeds() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let verifier = ScramVerifier::derive("pencil", salt, ITERATIONS);
        let (exchange, challenge) = Exchange::begin_with(
            "user",
            Some(&verifier),
            b"",
            &unbound("n,,n=user,r=rOprNGfwEbeRWgbNEkqO"),
            None,
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
        let first = Exchange::begin("u", None, b"", &unbound("n,,n=,r=abc"), None).expect("begins").0;
        for last in ["", "c=biws", "c=biws,r=abc,p=", "p=AAAA", ",p=,p="] {
            assert!(first.finish(last).is_err(), "{last:?}");
        }
    }
}
