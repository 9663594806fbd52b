//! Metadata of metrics: what `# TYPE`, `# UNIT` and `# HELP` lines say, the latest of each series.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::sample::SeriesRef;

/// What kind of metric a series belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MetricKind {
    /// Not said, or not known to this build.
    #[default]
    Unknown,
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of observations in buckets.
    Histogram,
    /// Buckets whose counts go up and down.
    GaugeHistogram,
    /// Quantiles.
    Summary,
    /// Labels are the message; the value is 1.
    Info,
    /// One of several states is 1.
    StateSet,
}

impl MetricKind {
    /// All kinds; the position is the byte in log records.
    const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Counter,
        Self::Gauge,
        Self::Histogram,
        Self::GaugeHistogram,
        Self::Summary,
        Self::Info,
        Self::StateSet,
    ];

    /// As in log records.
    pub fn to_byte(self) -> u8 {
        self as u8
    }

    /// From log records; what is not known is [`MetricKind::Unknown`].
    pub fn from_byte(byte: u8) -> Self {
        Self::ALL.get(usize::from(byte)).copied().unwrap_or_default()
    }

    /// As in `# TYPE` lines and in API answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }
}

/// Type, unit and help of a metric.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Metadata {
    /// Type.
    pub kind: MetricKind,
    /// Unit, such as `seconds`; may be empty.
    pub unit: String,
    /// Help text; may be empty.
    pub help: String,
}

/// The latest metadata of series of the head.
///
/// Series of one metric share one copy.
#[derive(Debug, Default)]
pub(crate) struct MetadataStore {
    by_series: HashMap<u64, Arc<Metadata>>,
    distinct: HashSet<Arc<Metadata>>,
}

impl MetadataStore {
    pub(crate) fn get(&self, series: SeriesRef) -> Option<Arc<Metadata>> {
        self.by_series.get(&series.0).cloned()
    }

    /// Replaces what is known about a series; says whether that was something else.
    pub(crate) fn set(&mut self, series: SeriesRef, metadata: &Metadata) -> bool {
        if self.by_series.get(&series.0).is_some_and(|known| **known == *metadata) {
            return false;
        }
        let shared = match self.distinct.get(metadata) {
            Some(shared) => Arc::clone(shared),
            None => {
                let shared = Arc::new(metadata.clone());
                self.distinct.insert(Arc::clone(&shared));
                shared
            }
        };
        let old = self.by_series.insert(series.0, shared);
        self.forget_unshared(old);
        true
    }

    /// Forgets removed series.
    pub(crate) fn remove(&mut self, series: &[SeriesRef]) {
        for series in series {
            let old = self.by_series.remove(&series.0);
            self.forget_unshared(old);
        }
    }

    fn forget_unshared(&mut self, old: Option<Arc<Metadata>>) {
        // This one and the one among the distinct ones.
        if let Some(old) = old
            && Arc::strong_count(&old) <= 2
        {
            self.distinct.remove(&old);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_keep_their_byte() {
        for byte in 0..8 {
            assert_eq!(MetricKind::from_byte(byte).to_byte(), byte);
        }
        assert_eq!(MetricKind::from_byte(8), MetricKind::Unknown);
    }

    #[test]
    fn series_share_metadata_until_it_changes() {
        let mut store = MetadataStore::default();
        let about = |help: &str| Metadata { help: help.into(), ..Metadata::default() };
        assert!(store.set(SeriesRef(1), &about("a")) && store.set(SeriesRef(2), &about("a")));
        assert!(!store.set(SeriesRef(1), &about("a")));
        assert_eq!(store.distinct.len(), 1);
        assert!(store.set(SeriesRef(1), &about("b")));
        assert_eq!(store.get(SeriesRef(1)).unwrap().help, "b");
        store.remove(&[SeriesRef(2)]);
        assert_eq!((store.get(SeriesRef(2)), store.distinct.len()), (None, 1));
    }
}
