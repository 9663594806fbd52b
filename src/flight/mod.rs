//! Flight SQL: a port where ADBC and JDBC clients get their rows as Arrow batches.
//!
//! `arrow-flight` and `tonic` speak the protocol; queries go through [`SqlQueries`], as those of
//! `POST /api/v1/sql` do, so they mean the same here as on the Postgres wire. Rows are sent as they are computed
//! and wait for the client to take them; a client that goes away stops its query.
//!
//! # State
//! The server keeps none between calls. A ticket and a prepared statement are their own text and the values of their
//! parameters, a bearer token is the user's name, each under a signature that only this process can make. Statements
//! are planned anew and checked with the rights of whoever shows them.
//!
//! # Who may connect
//! As on the Postgres wire: users of the configuration, or everyone on a loopback address if there are none.
//! Here a password travels as it is, and not as a proof, so that an address that others can reach needs
//! encryption as well; and where there is a certificate, nothing is served without.

mod guard;
mod incoming;
mod info;
mod service;
mod statement;
mod status;
mod tables;
mod who;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use promontory_sql::{SqlQueries, SqlTls};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use guard::Guard;
use service::Service;
use who::Door;

/// Most that one message of a client may be, bytes: a statement's text and the values of its parameters.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Calls that one connection may have under way.
const MAX_CALLS: u32 = 64;
/// Most that the headers of a call may be, bytes.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// How often a silent connection is asked whether it is still there, and how long it may think.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// How to serve Flight SQL clients.
#[derive(Debug, Clone)]
pub struct FlightOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How to encrypt connections. If there is a certificate, every connection is encrypted.
    pub tls: Option<SqlTls>,
    /// Connections at once, and statements that send rows at once; more of either are refused.
    pub max_connections: usize,
    /// Where passwords are checked.
    pub query_runtime: Handle,
}

impl FlightOptions {
    /// On a free port of the loopback interface.
    pub fn local(query_runtime: Handle) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: None,
            max_connections: 100,
            query_runtime,
        }
    }
}

/// Why Flight SQL is not served.
#[derive(Debug, thiserror::Error)]
pub enum FlightError {
    /// Clients from elsewhere could connect without a password.
    #[error(
        "refusing to listen for Flight SQL clients on {0} without users: anyone who reaches it could read every metric; \
         name SQL users, or listen on a loopback address"
    )]
    Open(SocketAddr),
    /// Passwords would be sent in the clear.
    #[error(
        "refusing to listen for Flight SQL clients on {0} without encryption: their passwords could be read on the way; \
         set sql.tls, or listen on a loopback address"
    )]
    Clear(SocketAddr),
    /// The address cannot be had.
    #[error(transparent)]
    Listen(#[from] std::io::Error),
}

/// A bound listener, ready to serve.
#[derive(Debug)]
pub struct FlightServer {
    listener: TcpListener,
    address: SocketAddr,
    queries: Arc<SqlQueries>,
    options: FlightOptions,
}

impl FlightServer {
    /// Listens; nobody is served before [`serve`](Self::serve).
    ///
    /// # Errors
    /// If it would be dangerous, or the address cannot be had.
    pub async fn bind(queries: Arc<SqlQueries>, options: FlightOptions) -> Result<Self, FlightError> {
        let wanted = options.listen;
        if !wanted.ip().is_loopback() {
            if queries.is_open() {
                return Err(FlightError::Open(wanted));
            }
            if options.tls.is_none() {
                return Err(FlightError::Clear(wanted));
            }
        }
        let listener = TcpListener::bind(wanted).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, queries, options })
    }

    /// Where it listens, with the port it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then tells clients whose rows are under way.
    pub async fn serve(self, shutdown: CancellationToken) {
        let Self { listener, queries, options, .. } = self;
        let places = Arc::new(Semaphore::new(options.max_connections));
        let sockets = incoming::accepted(
            listener,
            options.tls.as_ref().map(SqlTls::for_http2),
            places,
            shutdown.clone(),
        );
        let door = Door::new(Arc::clone(&queries), options.query_runtime);
        let service = Service::new(queries, door.clone(), options.max_connections, shutdown.clone());
        let guarded = FlightServiceServer::new(Guard::new(service, door))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(usize::MAX);
        let served = Server::builder()
            .max_concurrent_streams(MAX_CALLS)
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .add_service(guarded)
            .serve_with_incoming_shutdown(sockets, shutdown.cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "serving Flight SQL ended");
        }
    }
}
