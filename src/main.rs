//! The `promontory` binary: flags in, server or subcommand run, exit status out.
//!
//! Exit status: 0 done; 1 it failed while running; 2 wrong flags or configuration.

use std::io::{BufWriter, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use promontory::cli::{self, Command, Parsed};
use promontory::export::{self, ExportArgs};
use promontory::server::{Running, Server, ServerOptions, StartError, reachable};
use promontory::tsdb_tools::{self, TsdbArgs};
use promontory::{sql_tools, telemetry};
use promontory_tsdb::{Db, DbOptions, Queryable};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    keep_freed_memory();
    let parsed = match cli::parse(std::env::args()) {
        Ok(parsed) => parsed,
        Err(e) => {
            // Help goes to standard output, errors to standard error; a closed pipe is nobody's fault.
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    telemetry::init(parsed.cli.server.log_level, parsed.cli.server.log_format);
    let outcome = match &parsed.cli.command {
        Some(Command::Export(args)) => run_export(args),
        Some(Command::Tsdb(args)) => return run_tool(args),
        Some(Command::Sql(args)) => sql_tools::run(args, &mut std::io::stdout()).map_err(Into::into),
        None => run_server(&parsed),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!(error = format!("{e:#}"), "promontory stopped");
            let usage = e.downcast_ref::<StartError>().is_some_and(StartError::is_usage);
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

/// Has the allocator keep a few MiB of what is freed. Results and batches are large and short-lived; given back to the
/// kernel each time, their pages are cleared and mapped anew for each query.
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// At the end of each of the allocator's arenas.
        const KEPT_BYTES: i32 = 16 << 20;
        /// From here on each piece is mapped alone; glibc takes no more than this.
        const MAPPED_ALONE_BYTES: i32 = 32 << 20;
        // SAFETY: no other thread runs yet; values that glibc does not like change nothing.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_ALONE_BYTES);
        }
    }
}

fn run_server(parsed: &Parsed) -> anyhow::Result<()> {
    // Statements are parsed where they arrive, and dropped there.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_stack_size(promontory_sql::STACK_BYTES)
        .enable_all()
        .build()
        .context("start the server's threads")?;
    runtime.block_on(serve(parsed))
}

async fn serve(parsed: &Parsed) -> anyhow::Result<()> {
    for warning in &parsed.warnings {
        tracing::warn!("{warning}");
    }
    let options = ServerOptions::from_flags(&parsed.cli.server, parsed.flags.clone());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), data = %options.storage.path.display(), "starting promontory");
    let running = Server::start(options).await?;
    say_where(&running);
    wait_for_the_end(&running).await?;
    running.shutdown().await.context("close the data directory")?;
    tracing::info!("see you next time");
    Ok(())
}

fn say_where(running: &Running) {
    let web = reachable(running.http_addr());
    tracing::info!(url = format!("http://{web}/"), "ready; point a browser or Grafana here");
    if let Some(sql) = running.sql_addr().map(reachable) {
        let command = format!("psql -h {} -p {}", sql.ip(), sql.port());
        tracing::info!(command, "ready for SQL");
    }
}

/// Serves signals until one of them, or `/-/quit`, asks for the end.
async fn wait_for_the_end(running: &Running) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut hang_up = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    loop {
        tokio::select! {
            _ = terminate.recv() => {
                tracing::info!("received SIGTERM, shutting down");
                return Ok(());
            }
            _ = interrupt.recv() => {
                tracing::info!("received SIGINT, shutting down");
                return Ok(());
            }
            () = running.quit_requested() => {
                tracing::info!("asked to quit, shutting down");
                return Ok(());
            }
            // Failures are logged where they happen.
            _ = hang_up.recv() => drop(running.reload().await),
        }
    }
}

/// Compat: the text of an error stands alone on standard error, as promtool's does.
fn run_tool(args: &TsdbArgs) -> ExitCode {
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    match tsdb_tools::run(args, &mut out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.is_closed_pipe() => ExitCode::SUCCESS,
        Err(e) => {
            // Lines before the failure are worth having.
            let _ = out.flush();
            let _ = writeln!(std::io::stderr(), "{:#}", anyhow::Error::from(e));
            ExitCode::from(1)
        }
    }
}

fn run_export(args: &ExportArgs) -> anyhow::Result<()> {
    let mut options = DbOptions::new(&args.data_dir);
    // A server may be using the directory.
    options.read_only = true;
    anyhow::ensure!(args.data_dir.is_dir(), "no data directory at {}", args.data_dir.display());
    let db = Db::open(options).context("open the data directory")?;
    let source: Arc<dyn Queryable> = Arc::clone(&db) as Arc<dyn Queryable>;
    let summary = export::export(&source, args)?;
    for file in &summary.files {
        tracing::info!(file = %file.path.display(), series = file.series, rows = file.rows, bytes = file.bytes, "written");
    }
    if summary.histograms_skipped > 0 {
        tracing::warn!(
            samples = summary.histograms_skipped,
            "histogram samples were left out; they have no row yet"
        );
    }
    tracing::info!(
        files = summary.files.len(),
        rows = summary.rows(),
        bytes = summary.bytes(),
        "export complete"
    );
    db.close().context("close the data directory")
}
