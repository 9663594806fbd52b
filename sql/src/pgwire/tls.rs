//! Encrypted connections.

use std::sync::Arc;

use pgwire::tokio::TlsAcceptor;
use ring::digest;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::SqlError;

/// The server's certificate and key, ready to encrypt.
#[derive(Clone)]
pub struct SqlTls {
    pub(super) acceptor: TlsAcceptor,
    /// Whether clients that do not encrypt are sent away.
    pub(super) required: bool,
    /// The certificate's hash that logins are bound to; `None` where its kind has none.
    pub(super) end_point: Option<Vec<u8>>,
}

impl std::fmt::Debug for SqlTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlTls").field("required", &self.required).finish_non_exhaustive()
    }
}

impl SqlTls {
    /// Reads a certificate chain, the server's own first, and its private key, all PEM. `required` sends
    /// clients away that do not encrypt.
    ///
    /// # Errors
    /// [`SqlError::Tls`] if they cannot be read or do not belong together.
    pub fn from_pem(certificates: &[u8], key: &[u8], required: bool) -> Result<Self, SqlError> {
        let unusable =
            |what: &str, error: &dyn std::fmt::Display| SqlError::Tls { reason: format!("{what}: {error}") };
        let chain = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| unusable("the certificate", &error))?;
        let own = chain.first().ok_or_else(|| unusable("the certificate", &"there is none in the file"))?;
        let end_point = end_point(own);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| unusable("the private key", &error))?;
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("protocol versions", &error))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| unusable("certificate and key", &error))?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), required, end_point })
    }

    /// The same certificate and key for a server that speaks nothing but HTTP/2.
    pub fn for_http2(&self) -> Arc<ServerConfig> {
        let mut config = self.acceptor.config().as_ref().clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}

/// DER of the object identifiers of signatures with SHA-384 and SHA-512, by RSA and by ECDSA. MD5 and SHA-1
/// count as SHA-256.
///
/// Source: <https://www.rfc-editor.org/rfc/rfc5929#section-4.1>
const SHA384: [&[u8]; 2] =
    [b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03"];
const SHA512: [&[u8]; 2] =
    [b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d", b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04"];
const SHA256: [&[u8]; 4] = [
    b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b",
    b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02",
    b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05",
    b"\x06\x07\x2a\x86\x48\xce\x3d\x04\x01",
];

/// `tls-server-end-point` of a certificate; `None` if its signature names no hash, as Ed25519 does.
fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    // The algorithm stands after the signed part, before the signature.
    let algorithm = after_signed_part(certificate)?;
    let is = |ids: &[&[u8]]| ids.iter().any(|id| algorithm.starts_with(id));
    let hash = if is(&SHA384) {
        &digest::SHA384
    } else if is(&SHA512) {
        &digest::SHA512
    } else if is(&SHA256) {
        &digest::SHA256
    } else {
        return None;
    };
    Some(digest::digest(hash, certificate).as_ref().to_vec())
}

/// The bytes from the signature's object identifier on.
fn after_signed_part(certificate: &[u8]) -> Option<&[u8]> {
    let (inside, _) = der_value(certificate)?;
    let (_signed, rest) = der_value(inside)?;
    let (algorithm, _) = der_value(rest)?;
    Some(algorithm)
}

/// The value that `der` begins with, and what follows it.
fn der_value(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = der.get(1..)?.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (bytes.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}
