//! Session settings: what SET, SHOW and RESET talk about.
//!
//! Settings that change something here do so (`search_path`, `TimeZone`, `statement_timeout`, the
//! text formats); those that only promise what is so anyway are accepted with that value; others
//! that drivers set out of habit are remembered and shown. An unknown name is an error, 42704.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use datafusion::prelude::SessionContext;
use pgwire::error::PgWireResult;

use super::sqlstate;
use crate::catalog::{METRICS, POSTGRES_VERSION};

/// Whether and how a client may change a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Kept and shown, nothing more.
    Remember,
    /// Kept; the client library is told as well.
    Report,
    /// Has an effect in the session.
    Effect,
    /// Only to the value that it has.
    Fixed,
}

use Change::{Effect, Fixed, Remember, Report};

/// Name as Postgres shows it, value at the start, how it changes.
const SETTINGS: &[(&str, &str, Change)] = &[
    ("application_name", "", Report),
    ("bytea_output", "hex", Effect),
    ("client_encoding", "UTF8", Fixed),
    ("client_min_messages", "notice", Remember),
    ("DateStyle", "ISO, MDY", Effect),
    ("default_table_access_method", "heap", Remember),
    ("default_transaction_isolation", "read committed", Remember),
    ("default_transaction_read_only", "on", Remember),
    ("extra_float_digits", "1", Effect),
    ("idle_in_transaction_session_timeout", "0", Remember),
    ("in_hot_standby", "off", Fixed),
    ("integer_datetimes", "on", Fixed),
    ("IntervalStyle", "postgres", Effect),
    ("is_superuser", "off", Fixed),
    ("jit", "off", Remember),
    ("lock_timeout", "0", Remember),
    ("max_identifier_length", "63", Fixed),
    ("row_security", "on", Remember),
    ("search_path", METRICS, Effect),
    ("server_encoding", "UTF8", Fixed),
    ("server_version", "", Fixed),
    ("server_version_num", "150000", Fixed),
    ("session_authorization", "", Fixed),
    ("standard_conforming_strings", "on", Fixed),
    ("statement_timeout", "0", Effect),
    ("synchronize_seqscans", "on", Remember),
    ("TimeZone", "UTC", Effect),
    ("transaction_isolation", "read committed", Remember),
    ("transaction_read_only", "on", Remember),
];

/// What a server tells of itself at the start, and again when it changes.
const REPORTED: &[&str] = &[
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
];

/// The settings of one session.
#[derive(Debug)]
pub(super) struct Settings {
    /// By lower-case name.
    values: BTreeMap<String, Setting>,
    transaction: Option<Transaction>,
}

/// What a transaction goes back to.
#[derive(Debug)]
struct Transaction {
    /// Values when it began, for ROLLBACK.
    before: BTreeMap<String, String>,
    /// What SET LOCAL changed, with the values that COMMIT goes back to.
    local: BTreeMap<String, String>,
}

/// How long a SET holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Session,
    /// Until the transaction ends; outside of one, not at all.
    Transaction,
}

#[derive(Debug, Clone)]
struct Setting {
    name: &'static str,
    value: String,
    /// What RESET goes back to.
    start: String,
    change: Change,
}

impl Setting {
    /// The value as SHOW gives it: milliseconds in the largest unit that they are a multiple of.
    fn shown(&self) -> String {
        let ms = if self.name == "statement_timeout" { self.value.parse::<u64>().unwrap_or(0) } else { 0 };
        let units = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];
        match units.iter().find(|(_, unit)| ms > 0 && ms % unit == 0) {
            Some((name, unit)) => format!("{}{name}", ms / unit),
            None => self.value.clone(),
        }
    }
}

impl Settings {
    /// The settings that a session starts with.
    pub(super) fn new(statement_timeout: Option<Duration>) -> Self {
        let values = SETTINGS
            .iter()
            .map(|&(name, value, change)| {
                let value = match name {
                    "server_version" => {
                        format!("{POSTGRES_VERSION} (Promontory {})", env!("CARGO_PKG_VERSION"))
                    }
                    "statement_timeout" => statement_timeout.unwrap_or_default().as_millis().to_string(),
                    _ => value.to_owned(),
                };
                (name.to_lowercase(), Setting { name, start: value.clone(), value, change })
            })
            .collect();
        Self { values, transaction: None }
    }

    /// Takes over what the client asked for when it connected; gives what it is to be told.
    pub(super) fn adopt(
        &mut self,
        startup: &mut HashMap<String, String>,
        session: &SessionContext,
    ) -> PgWireResult<HashMap<String, String>> {
        for (name, value) in startup.clone() {
            let name = name.to_lowercase();
            if name == "user" {
                self.put("session_authorization", value);
            } else if self.values.contains_key(&name) {
                self.set(&name, &value, Scope::Session, session, startup)?;
            }
        }
        for setting in self.values.values_mut() {
            setting.start.clone_from(&setting.value);
        }
        Ok(REPORTED.iter().filter_map(|name| Some(((*name).to_owned(), self.show(name)?.1))).collect())
    }

    fn put(&mut self, name: &str, value: String) {
        if let Some(setting) = self.values.get_mut(name) {
            setting.value = value;
        }
    }

    /// Name as it should be shown, and value.
    pub(super) fn show(&self, name: &str) -> Option<(&'static str, String)> {
        self.values.get(&name.to_lowercase()).map(|s| (s.name, s.shown()))
    }

    /// All settings by name.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.values.values().map(|s| (s.name, s.shown()))
    }

    /// How long a statement may run.
    pub(super) fn statement_timeout(&self) -> Option<Duration> {
        let ms = self.values.get("statement_timeout").and_then(|s| s.value.parse().ok()).unwrap_or(0);
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    /// SET; gives what the client library is to be told.
    ///
    /// # Errors
    /// 42704 for a name that there is not, 55P02 for one that cannot change, 22023 for a value that
    /// cannot be.
    pub(super) fn set(
        &mut self,
        name: &str,
        value: &str,
        scope: Scope,
        session: &SessionContext,
        metadata: &mut HashMap<String, String>,
    ) -> PgWireResult<Option<(String, String)>> {
        let key = name.to_lowercase();
        let Some(setting) = self.values.get_mut(&key) else {
            // Postgres lets extensions, and anyone, keep settings under a dotted name.
            if key.contains('.') && !key.starts_with("datafusion.") {
                return Ok(None);
            }
            let message = format!("unrecognized configuration parameter {name:?}");
            return Err(sqlstate::error("42704", message));
        };
        let value = match setting.change {
            Remember | Report => value.to_owned(),
            Fixed => return fixed(setting, value).map(|()| None),
            Effect => apply(&key, value, session)?,
        };
        match (&mut self.transaction, scope) {
            (None, Scope::Transaction) => return Ok(None),
            (None, Scope::Session) => {}
            (Some(transaction), Scope::Transaction) => {
                transaction.local.entry(key.clone()).or_insert_with(|| setting.value.clone());
            }
            (Some(transaction), Scope::Session) => drop(transaction.local.remove(&key)),
        }
        metadata.insert(key, value.clone());
        setting.value = value;
        let told = REPORTED.contains(&setting.name);
        Ok(told.then(|| (setting.name.to_owned(), setting.value.clone())))
    }

    /// RESET; a name of `None` resets all. Gives what the client library is to be told.
    ///
    /// # Errors
    /// 42704 for a name that there is not.
    pub(super) fn reset(
        &mut self,
        name: Option<&str>,
        session: &SessionContext,
        metadata: &mut HashMap<String, String>,
    ) -> PgWireResult<Vec<(String, String)>> {
        let starts: Vec<_> = match name {
            Some(name) => {
                let start = self.values.get(&name.to_lowercase()).map(|s| s.start.clone());
                vec![(name.to_owned(), start.unwrap_or_default())]
            }
            None => self
                .values
                .iter()
                .filter(|(_, setting)| setting.change != Fixed && setting.value != setting.start)
                .map(|(name, setting)| (name.clone(), setting.start.clone()))
                .collect(),
        };
        let mut told = Vec::new();
        for (name, start) in starts {
            told.extend(self.set(&name, &start, Scope::Session, session, metadata)?);
        }
        Ok(told)
    }

    /// A transaction begins, unless there is one.
    pub(super) fn begin(&mut self) {
        if self.transaction.is_none() {
            let before = self.values.iter().map(|(name, setting)| (name.clone(), setting.value.clone()));
            self.transaction = Some(Transaction { before: before.collect(), local: BTreeMap::new() });
        }
    }

    /// The transaction ends: with `commit`, what SET LOCAL changed goes back, without, all that it changed. Gives what
    /// the client library is to be told.
    ///
    /// # Errors
    /// None, for these values were there before.
    pub(super) fn end(
        &mut self,
        commit: bool,
        session: &SessionContext,
        metadata: &mut HashMap<String, String>,
    ) -> PgWireResult<Vec<(String, String)>> {
        let Some(transaction) = self.transaction.take() else { return Ok(Vec::new()) };
        let back = if commit { transaction.local } else { transaction.before };
        let mut told = Vec::new();
        for (name, value) in back {
            let changed = self.values.get(&name).is_some_and(|s| s.change != Fixed && s.value != value);
            if changed {
                told.extend(self.set(&name, &value, Scope::Session, session, metadata)?);
            }
        }
        Ok(told)
    }
}

fn fixed(setting: &Setting, value: &str) -> PgWireResult<()> {
    let same = |a: &str, b: &str| {
        let plain =
            |s: &str| s.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
        plain(a) == plain(b)
    };
    let unicode = setting.name == "client_encoding" && same(value, "unicode");
    let yes = setting.value == "on" && (same(value, "true") || same(value, "1") || same(value, "yes"));
    if unicode || yes || same(value, &setting.value) {
        return Ok(());
    }
    Err(sqlstate::error("55P02", format!("parameter {:?} can only be {:?}", setting.name, setting.value)))
}

/// Makes the change in the session; gives the value to show.
fn apply(name: &str, value: &str, session: &SessionContext) -> PgWireResult<String> {
    let invalid = || sqlstate::error("22023", format!("invalid value for parameter {name:?}: {value:?}"));
    match name {
        "statement_timeout" => Ok(parse_ms(value).ok_or_else(invalid)?.to_string()),
        "extra_float_digits" => {
            let digits: i8 = value.parse().map_err(|_| invalid())?;
            (-15..=3).contains(&digits).then(|| digits.to_string()).ok_or_else(invalid)
        }
        "bytea_output" => {
            let known = ["hex", "escape"].contains(&value.to_lowercase().as_str());
            known.then(|| value.to_lowercase()).ok_or_else(invalid)
        }
        "datestyle" => {
            // Timestamps are always written the ISO way; the order only matters for other ways.
            let iso = value.split(',').all(|part| {
                ["iso", "ymd", "mdy", "dmy", "us", "european", "default"]
                    .contains(&part.trim().to_lowercase().as_str())
            });
            let order =
                value.split(',').map(|p| p.trim().to_uppercase()).find(|p| p.len() == 3 && p != "ISO");
            iso.then(|| format!("ISO, {}", order.unwrap_or_else(|| "MDY".to_owned()))).ok_or_else(invalid)
        }
        "search_path" => {
            let state = session.state_ref();
            let schemas =
                session.catalog(crate::catalog::DATABASE).map(|c| c.schema_names()).unwrap_or_default();
            let first = value
                .split(',')
                .map(|part| part.trim().trim_matches('"').to_owned())
                .find(|part| schemas.contains(part))
                .unwrap_or_else(|| METRICS.to_owned());
            state.write().config_mut().options_mut().catalog.default_schema = first;
            Ok(value.to_owned())
        }
        "timezone" => {
            let zone = match value.to_lowercase().as_str() {
                "utc" | "gmt" | "etc/utc" | "z" | "default" | "local" => "UTC".to_owned(),
                _ => crate::text::zone(value).ok_or_else(invalid)?.1,
            };
            session.state_ref().write().config_mut().options_mut().execution.time_zone = Some(zone.clone());
            Ok(zone)
        }
        _ => Ok(value.to_owned()),
    }
}

/// `250`, `250ms`, `5s`, `2min`, `1h`: without a unit, milliseconds.
fn parse_ms(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    // Postgres keeps it in an i32; far beyond that a timer overflows.
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|ms| i32::try_from(*ms).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_milliseconds_unless_they_say_otherwise() {
        assert_eq!(parse_ms("250"), Some(250));
        assert_eq!(parse_ms("5s"), Some(5_000));
        assert_eq!(parse_ms("2 min"), Some(120_000));
        assert_eq!(parse_ms("1 fortnight"), None);
        assert_eq!(parse_ms("-1"), None);
        assert_eq!(parse_ms("99999999999"), None);
    }

    #[test]
    fn reset_goes_back_to_what_the_session_started_with() {
        let (session, mut metadata) = (SessionContext::new(), HashMap::new());
        let mut settings = Settings::new(Some(Duration::from_secs(7)));
        settings.set("statement_timeout", "1s", Scope::Session, &session, &mut metadata).expect("sets");
        assert_eq!(settings.statement_timeout(), Some(Duration::from_secs(1)));
        settings.reset(None, &session, &mut metadata).expect("resets");
        assert_eq!(settings.statement_timeout(), Some(Duration::from_secs(7)));
        assert!(settings.set("no_such_thing", "1", Scope::Session, &session, &mut metadata).is_err());
        assert!(settings.set("server_version", "16", Scope::Session, &session, &mut metadata).is_err());
        assert!(settings.set("client_encoding", "utf-8", Scope::Session, &session, &mut metadata).is_ok());
    }
}
