//! `Notice`: passes rows on, and tells the user something if there are any with floats.

use std::fmt;

use datafusion::error::DataFusionError;
use promontory_tsdb::labels::{METRIC_NAME, go_quote};

use super::format::go_g;
use super::key::get;
use super::rows::{Row, TileWriter, lanes};
use super::{Evaluate, Scope};

/// Annotates the query once rows pass.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Notice {
    /// What is looked at.
    pub kind: NoticeKind,
    /// ` (line:col)`.
    pub position: String,
}

/// What a [`Notice`] looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NoticeKind {
    /// Any float: this warning.
    Warn(String),
    /// Any float: this info.
    Info(String),
    /// The metric name of floats does not look like a counter's.
    NonCounter,
    /// The value is no quantile.
    BadQuantile,
}

/// Upstream's text for a rate over something whose name is no counter's.
pub(crate) fn non_counter(name: &str) -> Option<String> {
    let counter =
        name.is_empty() || ["_total", "_sum", "_count", "_bucket"].iter().any(|s| name.ends_with(s));
    (!counter).then(|| {
        let name = go_quote(name);
        format!("metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {name}")
    })
}

/// Upstream's text for a quantile outside `[0, 1]`.
pub(crate) fn bad_quantile(q: f64) -> Option<String> {
    (!(0.0..=1.0).contains(&q)).then(|| format!("quantile value should be between 0 and 1, got {}", go_g(q)))
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            NoticeKind::Warn(text) | NoticeKind::Info(text) => f.write_str(text),
            NoticeKind::NonCounter => f.write_str("names that are no counter's"),
            NoticeKind::BadQuantile => f.write_str("values that are no quantile"),
        }
    }
}

impl Evaluate for Notice {
    fn name(&self) -> &'static str {
        "Notice"
    }

    fn streams(&self) -> bool {
        true
    }

    fn run(
        &self,
        scope: Scope<'_>,
        vectors: &[Vec<Row<'_>>],
        out: &mut TileWriter<'_>,
    ) -> Result<(), DataFusionError> {
        let at = &self.position;
        for row in &vectors[0] {
            out.pass(row, row.key, u128::MAX)?;
        }
        let floats = || vectors[0].iter().filter(|row| row.mask != 0);
        match &self.kind {
            NoticeKind::Warn(text) if floats().next().is_some() => scope.context.warn(&format!("{text}{at}")),
            NoticeKind::Info(text) if floats().next().is_some() => scope.context.info(&format!("{text}{at}")),
            NoticeKind::Warn(_) | NoticeKind::Info(_) => {}
            NoticeKind::NonCounter => {
                for row in floats() {
                    let name = get(row.key, METRIC_NAME).and_then(|n| std::str::from_utf8(n).ok());
                    if let Some(text) = name.and_then(non_counter) {
                        scope.context.info(&format!("{text}{at}"));
                    }
                }
            }
            NoticeKind::BadQuantile => {
                for row in &vectors[0] {
                    for text in lanes(row.mask).filter_map(|lane| bad_quantile(row.values[lane])) {
                        scope.context.warn(&format!("{text}{at}"));
                    }
                }
            }
        }
        Ok(())
    }
}
