//! Cancel requests: which statement of which connection a (process id, secret) pair may stop.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pgwire::messages::cancel::CancelRequest;
use pgwire::messages::startup::SecretKey;
use tokio_util::sync::CancellationToken;

/// The statement that a connection is running, if any.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<Option<CancellationToken>>);

impl Running {
    /// A statement begins. The token is cancelled when its client says so.
    pub(super) fn begin(&self) -> CancellationToken {
        let token = CancellationToken::new();
        *self.0.lock() = Some(token.clone());
        token
    }

    /// The statement is over.
    pub(super) fn end(&self) {
        *self.0.lock() = None;
    }

    /// Whether there is one.
    pub(super) fn is_busy(&self) -> bool {
        self.0.lock().is_some()
    }

    fn cancel(&self) {
        if let Some(token) = self.0.lock().as_ref() {
            token.cancel();
        }
    }
}

/// Open connections by process id.
#[derive(Debug, Default)]
pub(super) struct CancelRegistry(Mutex<HashMap<i32, (SecretKey, Arc<Running>)>>);

impl CancelRegistry {
    /// From now on a request with `pid` and `secret` stops what is running.
    pub(super) fn add(&self, pid: i32, secret: SecretKey, running: Arc<Running>) {
        self.0.lock().insert(pid, (secret, running));
    }

    /// The connection is gone.
    pub(super) fn remove(&self, pid: i32) {
        self.0.lock().remove(&pid);
    }

    /// Stops the statement that `request` may stop; a wrong secret stops nothing and gets no answer.
    pub(super) fn cancel(&self, request: &CancelRequest) {
        let connections = self.0.lock();
        let Some((secret, running)) = connections.get(&request.pid) else { return };
        if bytes_of(secret) == bytes_of(&request.secret_key) {
            running.cancel();
        }
    }
}

/// A four-byte secret may come back as bytes.
fn bytes_of(secret: &SecretKey) -> Vec<u8> {
    match secret {
        SecretKey::I32(number) => number.to_be_bytes().to_vec(),
        SecretKey::Bytes(bytes) => bytes.to_vec(),
    }
}
