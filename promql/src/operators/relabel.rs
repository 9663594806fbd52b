//! `Relabel`: `label_replace` and `label_join`.

use std::fmt;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use promontory_tsdb::Matcher;
use promontory_tsdb::labels::{METRIC_NAME, put_pair};
use promontory_tsdb::matcher::{MatchOp, compile_anchored, expand_template};

use super::key::{NAME_DROPPED, PerKey, labels, unmarked};
use super::rows::{Merger, Row, TileWriter, same_labelset};
use super::{Evaluate, Scope};
use crate::context::Pace;
use crate::error::QueryError;

/// Sets a label of every series from other labels. Series that get equal labels are laid over each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Relabel {
    /// The label that is set; an empty value removes it.
    pub destination: String,
    /// What it is set to.
    pub rule: RelabelRule,
}

/// How a [`Relabel`] makes the value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RelabelRule {
    /// The expansion of `template`, if the whole value of `source` matches; otherwise nothing changes.
    Replace {
        /// Regular expression.
        pattern: String,
        /// `$1`, `${name}`.
        template: String,
        /// Label that is matched.
        source: String,
    },
    /// Values of the sources, with a separator between them.
    Join {
        /// Stands between values.
        separator: String,
        /// Labels in order.
        sources: Vec<String>,
    },
}

impl fmt::Display for Relabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            RelabelRule::Replace { pattern, template, source } => {
                write!(f, "{} = {source} =~ {pattern:?} ? {template:?}", self.destination)
            }
            RelabelRule::Join { separator, sources } => {
                write!(f, "{} = {} joined by {separator:?}", self.destination, sources.join(", "))
            }
        }
    }
}

impl Evaluate for Relabel {
    fn name(&self) -> &'static str {
        "Relabel"
    }

    fn run(
        &self,
        scope: Scope<'_>,
        vectors: &[Vec<Row<'_>>],
        out: &mut TileWriter<'_>,
    ) -> Result<(), DataFusionError> {
        let regex = match &self.rule {
            RelabelRule::Replace { pattern, .. } => Some(compile_anchored(pattern).map_err(|_| {
                QueryError::Execution(format!("invalid regular expression in label_replace(): {pattern}"))
            })?),
            RelabelRule::Join { .. } => None,
        };
        let mut known: PerKey<'_, Arc<[u8]>> = PerKey::new();
        let mut merger = Merger::new(out.width(), scope.context);
        let mut pace = Pace::new(scope.context);
        for row in &vectors[0] {
            pace.step(1)?;
            merger.fits()?;
            let key = known.get(row.key, |key| self.key(key, regex.as_ref()).into());
            if merger.add_row(row, &key, u128::MAX) != 0 {
                return Err(same_labelset().into());
            }
        }
        merger.write(out)?;
        Ok(())
    }
}

impl Relabel {
    fn key(&self, key: &[u8], regex: Option<&regex::Regex>) -> Vec<u8> {
        let old = labels(key);
        let value = match (&self.rule, regex) {
            (RelabelRule::Replace { template, source, .. }, Some(regex)) => {
                let Some(found) = regex.captures(old.get(source).unwrap_or_default()) else {
                    return key.to_vec();
                };
                let mut value = String::new();
                expand_template(&found, template, &mut value);
                value
            }
            (RelabelRule::Join { separator, sources }, _) => sources
                .iter()
                .map(|source| old.get(source).unwrap_or_default())
                .collect::<Vec<_>>()
                .join(separator),
            (RelabelRule::Replace { .. }, None) => return key.to_vec(),
        };
        let mut builder = old.to_builder();
        builder.set(&self.destination, &value);
        let mut new = builder.build().as_bytes().to_vec();
        // A name that was just made is wanted.
        if unmarked(key).len() < key.len() && self.destination != METRIC_NAME {
            put_pair(&mut new, NAME_DROPPED, "1");
        }
        new
    }
}

/// The labels that `absent` gives: those that equality matchers pin down. Of several matchers of a label only the first
/// can, and then not if another one follows it. Compat: that order is the one in which the index of upstream leaves the
/// matchers, those that only take series away at the end.
pub(crate) fn absent_labels(matchers: &[Matcher]) -> promontory_tsdb::Labels {
    let mut builder = promontory_tsdb::labels::LabelsBuilder::default();
    let mut seen: Vec<&str> = Vec::new();
    let must_be_set = |name: &str| matchers.iter().any(|m| m.name() == name && !m.matches_empty());
    let takes_away = |m: &Matcher| {
        let negative = matches!(m.op(), MatchOp::Ne | MatchOp::Nre);
        !must_be_set(m.name()) || negative && m.matches_empty()
    };
    let (last, first): (Vec<_>, Vec<_>) =
        matchers.iter().filter(|m| m.name() != METRIC_NAME).partition(|m| takes_away(m));
    for matcher in first.into_iter().chain(last) {
        if matcher.op() == MatchOp::Eq && !seen.contains(&matcher.name()) {
            builder.set(matcher.name(), matcher.value());
            seen.push(matcher.name());
        } else {
            builder.remove(matcher.name());
        }
    }
    builder.build()
}
