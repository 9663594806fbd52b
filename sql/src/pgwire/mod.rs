//! The Postgres wire: a server that psql, drivers and BI tools can talk to.
//!
//! `pgwire` reads and writes the protocol, `arrow-pg` encodes values, `datafusion-pg-catalog`
//! rewrites the questions that tools ask; what a connection *does* is here.
//!
//! # Concurrency
//! A task per connection, with a session of its own. Statements are planned and run on the runtime
//! for queries, so that one that computes for long holds up neither sockets nor its own cancellation.
//! Rows are encoded as they come and wait for the socket to take them, so a slow client holds back its
//! query and costs no memory.
//!
//! # Who may connect
//! On a loopback address without users: everyone, under any name. Otherwise the users named in
//! [`SqlOptions`], by SCRAM-SHA-256, bound to the server's certificate where the connection is
//! encrypted. Each may read the schemas that their [`Access`] names.

mod access;
mod auth;
mod clients;
mod connection;
mod conversation;
pub(crate) mod copy;
mod current_setting;
mod cursor;
mod depth;
mod dialect;
mod explain;
mod extended;
mod external;
mod names;
pub(crate) mod parameters;
mod parser;
mod postgres;
mod regclass;
mod roles;
mod rows;
mod run;
mod settings;
mod simple;
pub(crate) mod sqlstate;
pub(crate) mod statement;
mod stop;
mod tls;
mod views;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use datafusion::sql::sqlparser::ast::Statement;
use pgwire::error::PgWireResult;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use access::Access;
pub use auth::ScramVerifier;
use clients::Clients;
use connection::Connection;
pub use depth::STACK_BYTES;
pub(crate) use parser::SqlParser;
pub(crate) use statement::Prepared;
pub(crate) use stop::stoppable;
pub use tls::SqlTls;

use crate::{SqlCatalog, SqlError};

/// Clients beyond the limit that are told so at the same time; more are cut off without a word.
const REFUSALS_AT_ONCE: usize = 32;
/// How long a connection may take to tell its client that the server is going down.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long to wait before accepting again after the system had no socket to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The statements of `text`, rewritten to what DataFusion understands.
///
/// # Errors
/// 42601 if it cannot be parsed, 54001 if it is too complex.
pub(crate) fn parse(parser: &SqlParser, text: &str) -> PgWireResult<Vec<Statement>> {
    depth::check(text)?;
    if let Some(statement) = external::parse(text)? {
        return Ok(vec![statement]);
    }
    let whole = cursor::spelled_out(text);
    parser
        .parse(whole.as_deref().unwrap_or(text))
        .map_err(|error| sqlstate::error("42601", sqlstate::parser_message(&error.to_string())))
}

/// How to serve Postgres clients.
#[derive(Debug, Clone)]
pub struct SqlOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who may connect. Empty: anyone, which needs a loopback address.
    pub users: Vec<SqlUser>,
    /// How to encrypt connections; `None` encrypts none.
    pub tls: Option<SqlTls>,
    /// Connections at once; the next one is refused with SQLSTATE 53300.
    pub max_connections: usize,
    /// How long a statement may run unless its session says otherwise.
    pub statement_timeout: Option<Duration>,
    /// Where statements are planned and run. On the runtime that serves the sockets, which is the
    /// default, a heavy statement delays everything else there, its own timeout included.
    pub query_runtime: Option<Handle>,
}

impl Default for SqlOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 5432)),
            users: Vec::new(),
            tls: None,
            max_connections: 100,
            statement_timeout: None,
            query_runtime: None,
        }
    }
}

/// Someone who may connect.
#[derive(Debug, Clone)]
pub struct SqlUser {
    /// The user name that the client gives.
    pub name: String,
    /// What the server keeps instead of the password.
    pub verifier: ScramVerifier,
    /// What they may read.
    pub access: Access,
}

impl SqlOptions {
    /// What `user` may read; on an open server everything.
    fn access_of(&self, user: &str) -> Access {
        self.users
            .iter()
            .find(|known| known.name == user)
            .map(|known| known.access.clone())
            .unwrap_or_default()
    }
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    catalog: Arc<SqlCatalog>,
    options: SqlOptions,
    queries: Handle,
    parser: SqlParser,
    clients: Arc<Clients>,
    /// Makes up a salt for users that there are not, the same one each time.
    mock_key: [u8; 32],
}

/// A bound listener, ready to serve.
#[derive(Debug)]
pub struct SqlServer {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl SqlServer {
    /// Listens; nobody is served before [`serve`](Self::serve).
    ///
    /// # Errors
    /// [`SqlError::Open`] for an address that others can reach without any user, [`SqlError::Listen`]
    /// if the address cannot be had.
    pub async fn bind(catalog: Arc<SqlCatalog>, options: SqlOptions) -> Result<Self, SqlError> {
        let wanted = options.listen;
        if options.users.is_empty() && !wanted.ip().is_loopback() {
            return Err(SqlError::Open { address: wanted });
        }
        let listen_error = |source| SqlError::Listen { address: wanted, source };
        let listener = TcpListener::bind(wanted).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let clients = Arc::<Clients>::default();
        catalog.show_to_tools(clients::ACTIVITY, clients::activity_table(Arc::clone(&clients)));
        roles::show(&catalog, &clients, &options.users);
        let shared = Shared {
            catalog,
            queries: options.query_runtime.clone().unwrap_or_else(Handle::current),
            options,
            parser: SqlParser::new(),
            clients,
            mock_key: rand::random(),
        };
        Ok(Self { listener, address, shared: Arc::new(shared) })
    }

    /// Where it listens, with the port it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then tells clients with a running statement (SQLSTATE 57P01) and
    /// closes all connections.
    pub async fn serve(self, shutdown: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.shared.options.max_connections));
        let refusals = Arc::new(Semaphore::new(REFUSALS_AT_ONCE));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.listener.accept() => accepted,
            };
            let socket = match accepted {
                Ok((socket, _)) => socket,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a Postgres client");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let place = Arc::clone(&places).try_acquire_owned().ok();
            let refusal = match place {
                Some(_) => None,
                None => match Arc::clone(&refusals).try_acquire_owned() {
                    Ok(refusal) => Some(refusal),
                    Err(_) => continue,
                },
            };
            let connection = Connection::new(Arc::clone(&self.shared), shutdown.clone(), place.is_some());
            connections.spawn(converse(socket, Arc::new(connection), shutdown.clone(), (place, refusal)));
        }
        drop(self.listener);
        while connections.join_next().await.is_some() {}
    }
}

/// Another handle of `socket`, to watch it while others read and write.
fn second_handle(socket: &TcpStream) -> Option<TcpStream> {
    let handle = socket.as_fd().try_clone_to_owned().ok()?;
    TcpStream::from_std(std::net::TcpStream::from(handle)).ok()
}

/// Ends once the client has closed the connection. What it sends is left to whoever reads.
async fn hung_up(watched: Option<TcpStream>) {
    let Some(watched) = watched else { return std::future::pending().await };
    while let Ok(ready) = watched.ready(Interest::READABLE).await {
        if ready.is_read_closed() {
            return;
        }
        // Forgets what was seen, so that the next look waits for news.
        let _ = watched.try_io(Interest::READABLE, || Err::<(), _>(ErrorKind::WouldBlock.into()));
    }
}

/// One connection from its first byte to its last.
async fn converse(
    socket: TcpStream,
    connection: Arc<Connection>,
    shutdown: CancellationToken,
    _held: (Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>),
) {
    let hung_up = hung_up(second_handle(&socket));
    let tls = connection.shared.options.tls.as_ref().map(|tls| tls.acceptor.clone());
    let conversation = conversation::converse(socket, tls, &connection);
    tokio::pin!(conversation);
    let ended = tokio::select! {
        ended = &mut conversation => Some(ended),
        // A statement reads nothing from its client; one without rows would never notice.
        () = hung_up => Some(Ok(())),
        () = shutdown.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        // The statement is being stopped; let its client hear why.
        None if connection.is_busy() => tokio::time::timeout(GOODBYE, conversation).await.unwrap_or(Ok(())),
        None => Ok(()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "Postgres connection ended");
    }
}
