//! `Notice`: passes rows on, and tells the user something if there are any with floats.

use std::fmt;

use datafusion::error::DataFusionError;
use promontory_tsdb::labels::{METRIC_NAME, go_quote};

use super::format::go_g;
use super::key::get;
use super::rows::{Row, TileWriter, lanes};
use super::{Evaluate, Scope};
use crate::context::QueryContext;
use crate::kernels::{StepRow, StepScalar};

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
    /// The label `__type__` does not say that it is one.
    NonCounterType,
    /// Some value is no quantile; the least and the greatest are told.
    BadQuantiles,
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

/// Upstream's text for a rate over something whose type is no counter's.
pub(crate) fn non_counter_type(key: &[u8]) -> Option<String> {
    let text = |label| get(key, label).and_then(|v| std::str::from_utf8(v).ok()).unwrap_or_default();
    let (name, kind) = (text(METRIC_NAME), text("__type__"));
    (!name.is_empty() && !matches!(kind, "counter" | "histogram")).then(|| {
        let (name, kind) = (go_quote(name), go_quote(kind));
        format!(
            "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", \
             got {kind}: {name}"
        )
    })
}

/// Upstream's text for a quantile outside `[0, 1]`.
pub(crate) fn bad_quantile(q: f64) -> Option<String> {
    (!(0.0..=1.0).contains(&q)).then(|| format!("quantile value should be between 0 and 1, got {}", go_g(q)))
}

/// Tells of values of φ that are no quantile, at the steps at which `row` has a float.
pub(crate) fn tell_bad_quantiles(context: &QueryContext, phi: &StepScalar, row: &StepRow, position: &str) {
    let tell = |q| {
        if let Some(text) = bad_quantile(q) {
            context.warn(&format!("{text}{position}"));
        }
    };
    let steps = row.values().len();
    match phi {
        StepScalar::Constant(q) if (0..steps).any(|i| row.get(i).is_some()) => tell(*q),
        StepScalar::Constant(_) => {}
        StepScalar::PerStep(_) => (0..steps).filter(|i| row.get(*i).is_some()).for_each(|i| tell(phi.at(i))),
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            NoticeKind::Warn(text) | NoticeKind::Info(text) => f.write_str(text),
            NoticeKind::NonCounter => f.write_str("names that are no counter's"),
            NoticeKind::NonCounterType => f.write_str("types that are no counter's"),
            NoticeKind::BadQuantiles => f.write_str("values that are no quantile"),
        }
    }
}

impl Evaluate for Notice {
    fn name(&self) -> &'static str {
        "Notice"
    }

    fn streams(&self) -> bool {
        self.kind != NoticeKind::BadQuantiles
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
            NoticeKind::NonCounterType => {
                for row in floats() {
                    if let Some(text) = non_counter_type(row.key) {
                        scope.context.info(&format!("{text}{at}"));
                    }
                }
            }
            NoticeKind::BadQuantiles => {
                let values =
                    || vectors[0].iter().flat_map(|row| lanes(row.mask).map(|lane| row.values[lane]));
                let ends =
                    [values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max)];
                let nan = values().find(|v| v.is_nan());
                // Of values on either side of [0, 1] the outermost one.
                let known = [(ends[0] < 0.0).then_some(ends[0]), (ends[1] > 1.0).then_some(ends[1])];
                // Compat: NaN is upstream's least and greatest value, too.
                let told = if nan.is_some() { [nan, None] } else { known };
                for text in told.into_iter().flatten().filter_map(bad_quantile) {
                    scope.context.warn(&format!("{text}{at}"));
                }
            }
        }
        Ok(())
    }
}
