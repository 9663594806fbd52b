//! [`Server`]: everything in one process, started and stopped in one place.
//!
//! # Start
//! Configuration, sockets, storage (which replays its log), engine, scraping, then "ready". While storage
//! replays, the web address answers 503, so that probes see a server that is starting and not a dead one.
//!
//! # Shutdown
//! 1. not ready any more; 2. scrapes stop, and what they appended is committed; 3. the log is synced and
//!    the data directory released; 4. HTTP and SQL finish the requests they have, for a few seconds.
//!
//! # Threads
//! Sockets and scrapes run on the runtime that calls [`Server::start`]. Queries and index reads run on a
//! second one, as many threads as cores, so that a heavy query delays no scrape and no health check.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use promontory_promql::{Engine, EngineOptions};
use promontory_sql::catalog::TSDB;
use promontory_sql::{SqlCatalog, SqlError, SqlOptions, SqlQueries, SqlServer, SqlTls};
use promontory_tsdb::chunkenc::Encoding;
use promontory_tsdb::{Clock, Db, DbOptions, Queryable, Retention, SystemClock, wal};
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::api::active_queries::ActiveQueries;
use crate::api::lifecycle::{Lifecycle, ReloadReply};
use crate::api::{self, ApiState, CorsOrigin};
use crate::cli::features::Features;
use crate::cli::memory::max_memory_bytes;
use crate::cli::{ServerFlags, WalCompression, flags};
use crate::config::{ConfigError, SqlConfig, SqlTlsConfig};
use crate::exemplars_table::exemplars_table;
use crate::flight::{FlightOptions, FlightServer};
use crate::lenient_url::LenientListener;
use crate::metric_descriptions::FromTargets;
use crate::reload::{ConfigFile, ConfigState, Reloader, StorageFlags};
use crate::scrape::{ApplyError, ScrapeManager, Storage, WithMetadata};
use crate::sql_functions;
use crate::targets_table::targets_table;
use crate::tasks::Tasks;
use crate::units::PromDuration;

/// How often storage is given time for its upkeep.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(60);
/// How long open requests may go on after everything else has stopped.
const DRAIN: Duration = Duration::from_secs(5);

/// How to run a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Must exist; `None` reads `prometheus.yml` if there is one, and else scrapes only the server itself.
    pub config_file: Option<PathBuf>,
    /// Addresses for HTTP, `host:port`; an empty host means all. Port 0 takes a free one.
    pub web_listen: Vec<String>,
    /// Address for Postgres clients.
    pub sql_listen: Option<String>,
    /// Address for Flight SQL clients.
    pub flight_listen: Option<String>,
    /// The data directory, and how it is kept.
    pub storage: DbOptions,
    /// Whether exemplars are kept; how many, says the configuration.
    pub exemplars: bool,
    /// Whether type, unit and help of series go to the log.
    pub metadata_records: bool,
    /// What queries may use.
    pub engine: EngineOptions,
    /// Queries that run at the same time.
    pub max_concurrency: usize,
    /// Whether `/-/reload` and `/-/quit` are served.
    pub enable_lifecycle: bool,
    /// Whether `/api/v1/admin` is served.
    pub enable_admin_api: bool,
    /// Origins that may read the API from a browser.
    pub cors_origin: String,
    /// For `/api/v1/status/flags`.
    pub flags: BTreeMap<String, String>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl ServerOptions {
    /// Defaults for a data directory, on free ports of the loopback interface; for tests.
    pub fn local(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            config_file: None,
            web_listen: vec!["127.0.0.1:0".to_owned()],
            sql_listen: Some("127.0.0.1:0".to_owned()),
            flight_listen: None,
            storage: DbOptions::new(data_dir),
            exemplars: false,
            metadata_records: false,
            engine: EngineOptions::default(),
            max_concurrency: 20,
            enable_lifecycle: true,
            enable_admin_api: false,
            cors_origin: ".*".to_owned(),
            flags: BTreeMap::new(),
            clock: Arc::new(SystemClock),
        }
    }

    /// What the command line asks for. Features that we do not know are logged, as upstream does.
    pub fn from_flags(flags: &ServerFlags, values: BTreeMap<String, String>) -> Self {
        let mut storage = DbOptions::new(&flags.storage_tsdb_path);
        let retention = flags::retention(flags);
        storage.retention_ms = retention.time_ms;
        storage.retention_bytes = retention.bytes;
        storage.max_block_range_ms = flags.storage_tsdb_max_block_duration.map(PromDuration::as_ms);
        storage.wal_compression =
            match (flags.no_storage_tsdb_wal_compression, flags.storage_tsdb_wal_compression_type) {
                (true, _) => wal::Compression::None,
                (false, WalCompression::Snappy) => wal::Compression::Snappy,
                (false, WalCompression::Zstd) => wal::Compression::Zstd,
            };
        storage.block_range_ms = flags.storage_tsdb_min_block_duration.as_ms().max(1);
        storage.lockfile = !flags.storage_tsdb_no_lockfile;
        let features = Features::read(&flags.enable_feature);
        tell(&features);
        storage.memory_snapshot = features.memory_snapshot;
        if features.xor2 {
            storage.float_encoding = Encoding::Xor2;
        }
        let engine = EngineOptions {
            parser: features.parser,
            delayed_name_removal: features.delayed_name_removal,
            use_start_timestamps: features.start_timestamps,
            lookback_ms: flags.query_lookback_delta.as_ms(),
            max_samples: flags.query_max_samples,
            max_bytes: usize::try_from(max_memory_bytes(flags)).unwrap_or(usize::MAX),
            cache_bytes: usize::try_from(flags.query_cache_size).unwrap_or(usize::MAX),
            timeout: flags.query_timeout.into(),
            ..EngineOptions::default()
        };
        Self {
            config_file: flags.config_file.clone(),
            web_listen: flags.web_listen_address.clone(),
            sql_listen: Some(flags.sql_listen_address.clone()).filter(|a| !a.is_empty()),
            flight_listen: Some(flags.sql_flight_listen_address.clone()).filter(|a| !a.is_empty()),
            storage,
            exemplars: features.exemplar_storage,
            metadata_records: features.metadata_records,
            engine,
            max_concurrency: flags.query_max_concurrency.max(1),
            enable_lifecycle: flags.web_enable_lifecycle,
            enable_admin_api: flags.web_enable_admin_api,
            cors_origin: flags.web_cors_origin.clone(),
            flags: values,
            clock: Arc::new(SystemClock),
        }
    }
}

/// Says in the log what each feature does.
fn tell(features: &Features) {
    for note in &features.notes {
        match note.is_warning {
            true => tracing::warn!(feature = note.feature, "{}", note.text),
            false => tracing::info!(feature = note.feature, "{}", note.text),
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration file.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// A job that the configuration describes.
    #[error(transparent)]
    Scrape(#[from] ApplyError),
    /// A flag's value.
    #[error("--{flag}: {reason}")]
    Flag {
        /// Which, without dashes.
        flag: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A socket.
    #[error("listen on {address}")]
    Listen {
        /// As given.
        address: String,
        /// The cause.
        source: std::io::Error,
    },
    /// SQL over the wire.
    #[error("listen on {address} for SQL: {reason}")]
    SqlListen {
        /// As given.
        address: String,
        /// The cause.
        reason: String,
    },
    /// Flight SQL.
    #[error("listen on {address} for Flight SQL: {reason}")]
    FlightListen {
        /// As given.
        address: String,
        /// The cause.
        reason: String,
    },
    /// What SQL sees.
    #[error("make the SQL catalog")]
    Catalog(#[from] SqlError),
    /// The data directory.
    #[error("open the data directory")]
    Storage(#[from] promontory_tsdb::Error),
    /// Threads.
    #[error("start threads")]
    Threads(#[source] std::io::Error),
}

impl StartError {
    /// Whether the user's flags or configuration are wrong, and not the machine.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Scrape(_) | Self::Flag { .. })
    }
}

/// Starts servers.
#[derive(Debug)]
pub struct Server;

/// A server that runs. Dropped without [`Running::shutdown`], it stops without order, as in a crash.
#[derive(Debug)]
pub struct Running {
    http_addr: SocketAddr,
    sql_addr: Option<SocketAddr>,
    flight_addr: Option<SocketAddr>,
    state: Arc<ApiState>,
    scrapes: Arc<ScrapeManager>,
    quit: CancellationToken,
    upkeep: Tasks,
    serving: Tasks,
    /// Held for its drop.
    _query_runtime: QueryRuntime,
}

impl Server {
    /// Starts a server and returns once it is ready.
    ///
    /// # Errors
    /// The first thing that prevents it; nothing is left running then.
    pub async fn start(options: ServerOptions) -> Result<Running, StartError> {
        let started_ms = options.clock.now_ms();
        let cors = CorsOrigin::new(&options.cors_origin)
            .map_err(|reason| StartError::Flag { flag: "web.cors.origin", reason })?;
        let (listeners, http_addr) = listen_all(&options.web_listen).await?;
        let file = ConfigFile::find(options.config_file.clone());
        let config = file.load(http_addr)?;
        let Front { quit, reloads, lifecycle, serving, door } =
            Front::open(listeners, options.enable_lifecycle);

        let mut storage_options = options.storage.clone();
        let storage_flags = StorageFlags {
            retention: Retention {
                time_ms: storage_options.retention_ms,
                bytes: storage_options.retention_bytes,
                percentage: storage_options.retention_percentage,
            },
            exemplars: options.exemplars,
        };
        storage_options.out_of_order_window_ms = config.storage.out_of_order_window_ms;
        if let Some(encoding) = config.storage.float_encoding {
            storage_options.float_encoding = encoding;
        }
        storage_options.exemplars_max = storage_flags.exemplars_max(&config);
        let replayed_segments = segments(&storage_options.path.join("wal"));
        let db = open_storage(storage_options).await?;
        db.set_retention(storage_flags.retention(&config));
        let storage: Arc<dyn Queryable> = Arc::clone(&db) as Arc<dyn Queryable>;
        let scrape_storage: Arc<dyn Storage> = match options.metadata_records {
            true => Arc::new(WithMetadata(Arc::clone(&db))),
            false => Arc::clone(&db) as Arc<dyn Storage>,
        };
        let scrapes = Arc::new(ScrapeManager::new(scrape_storage, Arc::clone(&options.clock)));
        let mut engine = options.engine;
        engine.default_subquery_step_ms = config.global.evaluation_interval.as_millis() as i64;
        let engine = Arc::new(Engine::new(engine));
        let catalog = sql_catalog(&db, &scrapes, &engine, &options.clock)?;
        catalog.keep_in(&options.storage.path);
        catalog.mount(config.sql.external.clone());
        let query_log = Arc::clone(catalog.query_log());
        let query_runtime = QueryRuntime::new().map_err(StartError::Threads)?;
        let sql = Arc::new(SqlQueries::new(
            Arc::clone(&catalog),
            query_runtime.handle(),
            config.sql.users.clone(),
            config.sql.statement_timeout,
        ));
        let sql_addr = match &options.sql_listen {
            Some(address) => {
                Some(serve_sql(&serving, address, &config.sql, catalog, query_runtime.handle()).await?)
            }
            None => None,
        };
        let flight_addr = match &options.flight_listen {
            Some(address) => {
                Some(serve_flight(&serving, address, &config.sql, &sql, query_runtime.handle()).await?)
            }
            None => None,
        };
        let active_queries = ActiveQueries::open(&options.storage.path, options.max_concurrency)
            .inspect_err(|error| tracing::error!(%error, "active queries are not logged"))
            .ok();
        let config_state = Arc::new(ConfigState::default());
        let state = Arc::new(ApiState {
            storage,
            db: Arc::clone(&db),
            engine,
            sql,
            scrapes: Arc::clone(&scrapes),
            config: Arc::clone(&config_state),
            clock: Arc::clone(&options.clock),
            lifecycle: Arc::clone(&lifecycle),
            query_runtime: query_runtime.handle(),
            query_places: Arc::new(Semaphore::new(options.max_concurrency)),
            query_places_total: options.max_concurrency,
            queries: api::QueryMetrics::default(),
            query_log,
            active_queries,
            http: Default::default(),
            cors,
            flags: options.flags,
            enable_admin_api: options.enable_admin_api,
            replayed_segments,
            started_ms,
            sql_addr,
        });
        // The door opens only once; this is the one place that does it.
        let _ = door.set(api::router(Arc::clone(&state)));

        scrapes.apply(&config).await?;
        config_state.applied(&config, options.clock.now_ms());
        let upkeep = Tasks::new();
        let reloader = Reloader {
            file,
            http_addr,
            scrapes: Arc::clone(&scrapes),
            engine: Arc::clone(&state.engine),
            db: Arc::clone(&db),
            storage_flags,
            config_state,
            clock: options.clock,
        };
        upkeep.spawn("reload", |token| reloader.run(reloads, token));
        upkeep.spawn("maintenance", |token| maintain(db, token));
        lifecycle.set_ready();
        Ok(Running {
            http_addr,
            sql_addr,
            flight_addr,
            state,
            scrapes,
            quit,
            upkeep,
            serving,
            _query_runtime: query_runtime,
        })
    }
}

impl Running {
    /// Where HTTP is served (the first address, if there are several).
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Where Postgres clients are served.
    pub fn sql_addr(&self) -> Option<SocketAddr> {
        self.sql_addr
    }

    /// Where Flight SQL clients are served.
    pub fn flight_addr(&self) -> Option<SocketAddr> {
        self.flight_addr
    }

    /// The storage, for tests that write or look behind the API.
    pub fn db(&self) -> &Arc<Db> {
        &self.state.db
    }

    /// Reads the configuration again and applies it; a bad one changes nothing.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn reload(&self) -> Result<(), String> {
        self.state.lifecycle.reload().await
    }

    /// Returns once `/-/quit` was called.
    pub async fn quit_requested(&self) {
        self.quit.cancelled().await;
    }

    /// Stops in order; see the module.
    ///
    /// # Errors
    /// If the log cannot be synced. Everything is stopped all the same.
    pub async fn shutdown(self) -> Result<(), promontory_tsdb::Error> {
        self.state.lifecycle.set_stopping();
        self.scrapes.shutdown().await;
        self.upkeep.shutdown(DRAIN).await;
        let db = Arc::clone(&self.state.db);
        let closed = blocking(move || db.close()).await;
        self.serving.shutdown(DRAIN).await;
        closed
    }
}

/// The threads that queries run on.
#[derive(Debug)]
struct QueryRuntime(Option<Runtime>);

impl QueryRuntime {
    fn new() -> std::io::Result<Self> {
        tokio::runtime::Builder::new_multi_thread()
            .thread_name("query")
            .thread_stack_size(promontory_sql::STACK_BYTES)
            .enable_all()
            .build()
            .map(|r| Self(Some(r)))
    }

    fn handle(&self) -> Handle {
        self.0.as_ref().expect("the runtime is taken by drop only").handle().clone()
    }
}

impl Drop for QueryRuntime {
    /// A runtime must not be dropped where async code runs, because it waits; this does not wait.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// An address that a program on this machine can connect to: "all interfaces" becomes loopback.
pub fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// What clients meet first: it answers from the start on, and lets them through once the door is set.
struct Front {
    quit: CancellationToken,
    reloads: mpsc::Receiver<ReloadReply>,
    lifecycle: Arc<Lifecycle>,
    serving: Tasks,
    door: Arc<OnceLock<Router>>,
}

impl Front {
    fn open(listeners: Vec<TcpListener>, enable_lifecycle: bool) -> Self {
        let quit = CancellationToken::new();
        let (reload_requests, reloads) = mpsc::channel(1);
        let lifecycle = Arc::new(Lifecycle::new(enable_lifecycle, quit.clone(), reload_requests));
        let serving = Tasks::new();
        let door = Arc::new(OnceLock::new());
        for listener in listeners {
            serve_http(&serving, listener, Arc::clone(&door), Arc::clone(&lifecycle));
        }
        Self { quit, reloads, lifecycle, serving, door }
    }
}

/// Listens on all addresses, and says which is the first.
async fn listen_all(addresses: &[String]) -> Result<(Vec<TcpListener>, SocketAddr), StartError> {
    let mut listeners = Vec::new();
    for address in addresses {
        listeners.push(listen(address).await?);
    }
    match listeners.first().map(TcpListener::local_addr) {
        Some(Ok(addr)) => Ok((listeners, addr)),
        _ => Err(StartError::Flag { flag: "web.listen-address", reason: "no address".to_owned() }),
    }
}

async fn listen(address: &str) -> Result<TcpListener, StartError> {
    // Compat: `:9090` means all interfaces.
    let full = if address.starts_with(':') { format!("0.0.0.0{address}") } else { address.to_owned() };
    TcpListener::bind(&full)
        .await
        .map_err(|source| StartError::Listen { address: address.to_owned(), source })
}

/// Serves what is behind `door`; while nothing is, says that the server is starting.
fn serve_http(tasks: &Tasks, listener: TcpListener, door: Arc<OnceLock<Router>>, lifecycle: Arc<Lifecycle>) {
    let app = Router::new().fallback(move |request: Request| {
        let (door, lifecycle) = (Arc::clone(&door), Arc::clone(&lifecycle));
        async move { through(&door, &lifecycle, request).await }
    });
    let listener = LenientListener(listener);
    tasks.spawn("http", |token| async move {
        let outcome = axum::serve(listener, app).with_graceful_shutdown(token.cancelled_owned()).await;
        if let Err(e) = outcome {
            tracing::error!(error = %e, "serving HTTP ended");
        }
    });
}

async fn through(door: &OnceLock<Router>, lifecycle: &Lifecycle, request: Request) -> Response {
    match door.get() {
        Some(router) => {
            let answer: Result<Response, Infallible> = router.clone().oneshot(request).await;
            match answer {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
        None if request.uri().path() == "/-/healthy" => {
            axum::response::IntoResponse::into_response("Prometheus Server is Healthy.\n")
        }
        None => lifecycle.unavailable(),
    }
}

/// What SQL sees: metrics and storage, what is scraped, and PromQL as functions.
fn sql_catalog(
    db: &Arc<Db>,
    scrapes: &Arc<ScrapeManager>,
    engine: &Arc<Engine>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<SqlCatalog>, StartError> {
    let storage = Arc::clone(db) as Arc<dyn Queryable>;
    let functions = sql_functions::all(engine, &storage, clock);
    let catalog = SqlCatalog::with_functions(storage, Arc::clone(clock), functions);
    catalog.register_table(TSDB, "exemplars", exemplars_table(Arc::clone(db)))?;
    catalog.register_table(TSDB, "targets", targets_table(Arc::clone(scrapes)))?;
    catalog.describe(Arc::new(FromTargets(Arc::clone(scrapes))))?;
    Ok(catalog)
}

async fn serve_sql(
    tasks: &Tasks,
    address: &str,
    config: &SqlConfig,
    catalog: Arc<SqlCatalog>,
    query_runtime: Handle,
) -> Result<SocketAddr, StartError> {
    let failed = |reason: String| StartError::SqlListen { address: address.to_owned(), reason };
    let listen = address_of(address).await.map_err(failed)?;
    let default = SqlOptions::default();
    let sql_options = SqlOptions {
        listen,
        users: config.users.clone(),
        tls: config.tls.as_ref().map(sql_tls).transpose().map_err(failed)?,
        max_connections: config.max_connections.unwrap_or(default.max_connections),
        statement_timeout: config.statement_timeout,
        query_runtime: Some(query_runtime),
    };
    let server =
        SqlServer::bind(catalog, sql_options).await.map_err(|e| failed(api::error::with_causes(&e)))?;
    let addr = server.local_addr();
    tasks.spawn("sql", |token| server.serve(token));
    Ok(addr)
}

async fn serve_flight(
    tasks: &Tasks,
    address: &str,
    config: &SqlConfig,
    queries: &Arc<SqlQueries>,
    query_runtime: Handle,
) -> Result<SocketAddr, StartError> {
    let failed = |reason: String| StartError::FlightListen { address: address.to_owned(), reason };
    let mut options = FlightOptions::local(query_runtime);
    options.listen = address_of(address).await.map_err(failed)?;
    options.tls = config.tls.as_ref().map(sql_tls).transpose().map_err(failed)?;
    options.max_connections = config.max_connections.unwrap_or(options.max_connections);
    let server = FlightServer::bind(Arc::clone(queries), options).await;
    let server = server.map_err(|e| failed(api::error::with_causes(&e)))?;
    let addr = server.local_addr();
    tracing::info!(address = %reachable(addr), "listening for Flight SQL");
    tasks.spawn("flight sql", |token| server.serve(token));
    Ok(addr)
}

/// # Errors
/// Why `address`, a host and a port, is none.
async fn address_of(address: &str) -> Result<SocketAddr, String> {
    let mut found = tokio::net::lookup_host(address).await.map_err(|error| error.to_string())?;
    found.next().ok_or_else(|| "the name has no address".to_owned())
}

/// # Errors
/// What cannot be read or used; the server then does not start, rather than serve in the clear.
fn sql_tls(config: &SqlTlsConfig) -> Result<SqlTls, String> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    SqlTls::from_pem(&read(&config.cert_file)?, &read(&config.key_file)?, config.required)
        .map_err(|error| error.to_string())
}

/// First and last of the log segments in `dir`; zeros without any.
fn segments(dir: &std::path::Path) -> (u32, u32) {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    numbers.map(|n| (n, n)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or_default()
}

async fn open_storage(options: DbOptions) -> Result<Arc<Db>, promontory_tsdb::Error> {
    blocking(move || Db::open(options)).await
}

/// Runs storage work on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> promontory_tsdb::Result<T> + Send + 'static,
) -> promontory_tsdb::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}

/// Gives storage time for its upkeep, now and then, until told to stop.
async fn maintain(db: Arc<Db>, token: CancellationToken) {
    let mut ticks = tokio::time::interval(MAINTENANCE_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let db = Arc::clone(&db);
        match blocking(move || db.maintain()).await {
            Ok(done) => {
                if !done.blocks_cut.is_empty() || !done.blocks_deleted.is_empty() {
                    tracing::info!(
                        cut = done.blocks_cut.join(","),
                        deleted = done.blocks_deleted.join(","),
                        series_removed = done.series_removed,
                        "storage maintained"
                    );
                }
            }
            Err(e) => tracing::error!(error = api::error::with_causes(&e), "storage maintenance failed"),
        }
    }
}
