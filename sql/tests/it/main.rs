//! Live tests: real clients against a server on a free port.

mod catalog;
mod data;
mod driver;
mod external;
mod hostile;
mod login;
mod psql;
mod stopping;
mod storage;
mod views;
mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures::TryStreamExt;
use promontory_sql::{SqlCatalog, SqlOptions, SqlServer};
use promontory_tsdb::ManualClock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A statement that runs far longer than any test waits.
const ENDLESS: &str = "SELECT a.value FROM tsdb.samples a, tsdb.samples b, tsdb.samples c, tsdb.samples d";

/// A server over the data of [`data`].
struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start(options: SqlOptions) -> Self {
        let storage = Arc::new(data::storage());
        Self::over(SqlCatalog::new(storage, Arc::new(ManualClock::new(data::NOW_MS))), options).await
    }

    async fn over(catalog: Arc<SqlCatalog>, options: SqlOptions) -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = SqlServer::bind(catalog, SqlOptions { listen, ..options }).await.expect("binds");
        let (address, shutdown) = (server.local_addr(), CancellationToken::new());
        let serving = tokio::spawn(server.serve(shutdown.clone()));
        Self { address, shutdown, serving }
    }

    async fn connect(&self) -> tokio_postgres::Client {
        self.try_connect("tester", None).await.expect("connects")
    }

    async fn try_connect(
        &self,
        user: &str,
        password: Option<&str>,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.address.port()).user(user).dbname("promontory");
        if let Some(password) = password {
            config.password(password);
        }
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// Asks for [`ENDLESS`]; the SQLSTATE that it ends with.
async fn endless(client: &tokio_postgres::Client) -> String {
    match client.simple_query_raw(ENDLESS).await {
        Ok(rows) => end_of(rows).await,
        Err(error) => sqlstate::<()>(Err(error)),
    }
}

/// Forgets each row that comes; the SQLSTATE of the end.
///
/// `Client::simple_query` would keep the rows, which fills the memory if the end is late, and hold on to its
/// thread for as long as they come.
async fn end_of(rows: tokio_postgres::SimpleQueryStream) -> String {
    let mut rows = std::pin::pin!(rows);
    loop {
        match rows.try_next().await {
            Ok(Some(_)) => tokio::task::yield_now().await,
            end => return sqlstate(end),
        }
    }
}

/// The SQLSTATE that a failed call carries.
fn sqlstate<T>(result: Result<T, tokio_postgres::Error>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(error) => error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned()),
    }
}
