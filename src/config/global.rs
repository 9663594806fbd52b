//! The `global` section.

use std::time::Duration;

use promontory_tsdb::Labels;

use super::reader::{Notes, Result, Section};
use super::scrape::{EscapingScheme, ScrapeLimits, ScrapeProtocol, read_protocols, read_validation};
use crate::relabel::NameValidation;

/// What holds for all jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct GlobalConfig {
    /// Time between scrapes.
    pub scrape_interval: Duration,
    /// How long a scrape may take.
    pub scrape_timeout: Duration,
    /// Formats to ask targets for, best first; `None` is the default list.
    pub scrape_protocols: Option<Vec<ScrapeProtocol>>,
    /// Time between evaluations of rules.
    pub evaluation_interval: Duration,
    /// Labels for what leaves this server.
    pub external_labels: Labels,
    /// Limits for jobs that set none.
    pub limits: ScrapeLimits,
    /// Which names are valid.
    pub name_validation: NameValidation,
    /// How targets are asked to escape names; `None` follows from the validation.
    pub name_escaping: Option<EscapingScheme>,
    /// Whether native histograms are stored as such.
    pub scrape_native_histograms: bool,
    /// Whether classic buckets are stored beside native ones.
    pub always_scrape_classic_histograms: bool,
    /// Whether to store `scrape_timeout_seconds`, `scrape_sample_limit`, `scrape_body_size_bytes`.
    pub extra_scrape_metrics: bool,
}

impl Default for GlobalConfig {
    fn default() -> Self {
        Self {
            scrape_interval: Duration::from_secs(60),
            scrape_timeout: Duration::from_secs(10),
            scrape_protocols: None,
            evaluation_interval: Duration::from_secs(60),
            external_labels: Labels::default(),
            limits: ScrapeLimits::default(),
            name_validation: NameValidation::Utf8,
            name_escaping: None,
            scrape_native_histograms: false,
            always_scrape_classic_histograms: false,
            extra_scrape_metrics: false,
        }
    }
}

impl GlobalConfig {
    pub(super) fn read(mut section: Section, notes: &mut Notes) -> Result<Self> {
        let default = Self::default();
        let name_validation = read_validation(&mut section, notes)?.unwrap_or_default();
        let mut external_labels = Vec::new();
        for (at, name, value) in section.string_map(notes, "external_labels")? {
            if !name_validation.is_valid_label_name(&name) {
                return Err(notes.error(&at, format!("{name:?} is not a valid label name")));
            }
            external_labels.push((name, expand(&value, |name| std::env::var(name).unwrap_or_default())));
        }
        let nonzero = |d: &Duration| !d.is_zero();
        let interval = section.duration(notes, "scrape_interval")?.filter(nonzero);
        let scrape_interval = interval.unwrap_or(default.scrape_interval);
        let timeout_at = section.at.clone();
        let timeout = section.duration(notes, "scrape_timeout")?.filter(nonzero);
        if timeout.is_some_and(|t| t > scrape_interval) {
            return Err(notes.error(&timeout_at, "global scrape timeout greater than scrape interval"));
        }
        let config = Self {
            scrape_interval,
            scrape_timeout: timeout.unwrap_or(default.scrape_timeout.min(scrape_interval)),
            scrape_protocols: read_protocols(&mut section, notes)?,
            evaluation_interval: section
                .duration(notes, "evaluation_interval")?
                .filter(nonzero)
                .unwrap_or(default.evaluation_interval),
            external_labels: Labels::from_pairs(external_labels),
            limits: ScrapeLimits::read(&mut section, notes)?,
            name_validation,
            name_escaping: EscapingScheme::read(&mut section, notes)?,
            scrape_native_histograms: section.bool(notes, "scrape_native_histograms")?.unwrap_or_default(),
            always_scrape_classic_histograms: section
                .bool(notes, "always_scrape_classic_histograms")?
                .unwrap_or_default(),
            extra_scrape_metrics: section.bool(notes, "extra_scrape_metrics")?.unwrap_or_default(),
        };
        for key in ["rule_query_offset", "query_log_file", "scrape_failure_log_file"] {
            section.unserved(notes, key);
        }
        section.unserved_flag(notes, "convert_classic_histograms_to_nhcb")?;
        section.finish(notes)?;
        Ok(config)
    }
}

/// Replaces `$NAME` and `${NAME}` as Go's `os.Expand`; `$$` is a dollar.
pub(super) fn expand(text: &str, lookup: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if let Some((name, tail)) = after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            out.push_str(&lookup(name));
            rest = tail;
        } else if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else {
            let (name, tail) = after.split_at(after.find(|c| !is_word(c)).unwrap_or(after.len()));
            match name {
                "" => out.push('$'),
                name => out.push_str(&lookup(name)),
            }
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}
