//! What can go wrong outside of a query: setting the catalog up, and starting the server.
//!
//! Errors inside a query are DataFusion's; `pgwire::sqlstate` gives them their SQLSTATE.

use std::io;
use std::net::SocketAddr;

use promontory_tsdb::ErrorKind;

/// An error of the SQL side.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// The listen address could not be bound.
    #[error("listen for Postgres clients on {address}")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// Clients from elsewhere could connect without a password.
    #[error(
        "refusing to listen for Postgres clients on {address} without users: \
         anyone who reaches it could read every metric; name SQL users, or listen on a loopback address"
    )]
    Open {
        /// What was asked for.
        address: SocketAddr,
    },
    /// A stored password verifier is not in Postgres' format.
    #[error("SQL user {user:?}: {reason}")]
    User {
        /// Whose verifier.
        user: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A certificate or its key cannot be used.
    #[error("encryption for Postgres clients: {reason}")]
    Tls {
        /// What is wrong with it.
        reason: String,
    },
    /// A table could not be registered.
    #[error("register SQL table {schema}.{table}: {reason}")]
    Register {
        /// Its schema.
        schema: String,
        /// Its name.
        table: String,
        /// Why not.
        reason: &'static str,
    },
}

impl SqlError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Listen { .. } => ErrorKind::Unavailable,
            Self::Open { .. } | Self::User { .. } | Self::Tls { .. } | Self::Register { .. } => {
                ErrorKind::Invalid
            }
        }
    }
}

/// What a function of the server says when it cannot compute; travels through DataFusion as an external
/// error, and gets its SQLSTATE by its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FunctionError {
    /// What the caller can do about it.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
}
