//! Logs on standard error, in Prometheus' two formats.
//!
//! ```text
//! time=2026-11-21T20:55:00.000Z level=INFO msg="server is ready" url=http://localhost:9090
//! {"time":"2026-11-21T20:55:00.000Z","level":"INFO","msg":"server is ready","url":"http://localhost:9090"}
//! ```
//!
//! Our own crates log from the chosen level on, libraries from `warn` on.

use std::fmt::{self, Write as _};

use promontory_tsdb::{Clock as _, SystemClock};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::units::format_time_ms;

/// `--log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// `key=value`, quoted where needed.
    #[default]
    Logfmt,
    /// One JSON object per line.
    Json,
}

/// `--log.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What an operator wants to know.
    #[default]
    Info,
    /// What may need a hand.
    Warn,
    /// What failed.
    Error,
}

/// Starts logging for the process. A second call changes nothing.
pub fn init(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    };
    let libraries = if level == "error" { "error" } else { "warn" };
    let filter = EnvFilter::new(format!("{libraries},promontory={level}"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .event_format(Lines(format))
        .finish();
    // Fails only if logging has been started before, which is what the caller wants anyway.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct Lines(LogFormat);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut pairs = vec![
            ("time", format_time_ms(SystemClock.now_ms())),
            ("level", level_name(*event.metadata().level()).to_owned()),
            ("msg", fields.message),
        ];
        pairs.append(&mut fields.others);
        out.write_str(&line(self.0, &pairs))
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            name => self.others.push((name, value.to_owned())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

fn line(format: LogFormat, pairs: &[(&str, String)]) -> String {
    let mut out = String::new();
    match format {
        LogFormat::Logfmt => {
            for (i, (key, value)) in pairs.iter().enumerate() {
                let space = if i > 0 { " " } else { "" };
                let plain = !value.is_empty()
                    && value.chars().all(|c| c > ' ' && !matches!(c, '"' | '=' | '\\' | '\u{7f}'));
                let _ = if plain {
                    write!(out, "{space}{key}={value}")
                } else {
                    write!(out, "{space}{key}={}", promontory_tsdb::labels::go_quote(value))
                };
            }
        }
        LogFormat::Json => {
            let object = pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_str().into()));
            // `Map` sorts by key or keeps the order, as the features of the build have it; readers of
            // JSON do not care.
            out = serde_json::Value::Object(object.collect()).to_string();
        }
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logfmt_quotes_what_needs_quotes() {
        let pairs = [
            ("level", "INFO".into()),
            ("msg", "two words".into()),
            ("q", "a=\"b\"\n".into()),
            ("e", String::new()),
        ];
        assert_eq!(
            line(LogFormat::Logfmt, &pairs),
            "level=INFO msg=\"two words\" q=\"a=\\\"b\\\"\\n\" e=\"\"\n"
        );
    }

    #[test]
    fn json_is_one_object_per_line() {
        let text = line(LogFormat::Json, &[("level", "INFO".into()), ("msg", "a \"b\"".into())]);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((value["level"].as_str(), value["msg"].as_str()), (Some("INFO"), Some("a \"b\"")));
        assert_eq!(text.matches('\n').count(), 1);
    }
}
