//! Serves a few made-up series to Postgres clients, the data of `docs/sql.md`.
//!
//! `cargo run --example sql_demo [address]`, then `psql -h 127.0.0.1 -p 5433 promontory`.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use promontory::sql_functions;
use promontory_promql::{Engine, EngineOptions};
use promontory_sql::{SqlCatalog, SqlOptions, SqlServer};
use promontory_tsdb::{Clock, ManualClock, Queryable};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

#[path = "../sql/tests/it/data.rs"]
mod data;

fn main() -> Result<(), Box<dyn Error>> {
    let listen: SocketAddr =
        std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:5433".to_owned()).parse()?;
    let (sockets, queries) = (Runtime::new()?, Runtime::new()?);
    let query_runtime = Some(queries.handle().clone());
    let storage: Arc<dyn Queryable> = Arc::new(data::storage());
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(data::NOW_MS));
    let engine = Arc::new(Engine::new(EngineOptions::default()));
    let functions = sql_functions::all(&engine, &storage, &clock);
    let catalog = SqlCatalog::with_functions(storage, clock, functions);
    sockets.block_on(async {
        let options = SqlOptions { listen, query_runtime, ..SqlOptions::default() };
        SqlServer::bind(catalog, options).await?.serve(CancellationToken::new()).await;
        Ok(())
    })
}
