//! `promontory sql …`: what the operator of a SQL server needs.

use std::io::{self, BufRead as _, Write};

use clap::{Args, Subcommand};
use promontory_sql::ScramVerifier;

/// Arguments of `promontory sql`.
#[derive(Debug, Args)]
pub struct SqlArgs {
    #[command(subcommand)]
    command: SqlCommand,
}

#[derive(Debug, Subcommand)]
enum SqlCommand {
    /// Make what the configuration keeps of a password, which is read from standard input
    Verifier,
}

/// Runs the subcommand and writes its result to `out`.
///
/// # Errors
/// If there is no password to read, or `out` takes nothing.
pub fn run(args: &SqlArgs, out: &mut impl Write) -> io::Result<()> {
    match args.command {
        SqlCommand::Verifier => {
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line)?;
            let password = line.trim_end_matches(['\r', '\n']);
            if password.is_empty() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "no password on standard input"));
            }
            writeln!(out, "{}", ScramVerifier::from_password(password))
        }
    }
}
